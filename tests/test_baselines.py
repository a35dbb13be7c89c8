import pytest
import reference
import torch

from ccnet.baselines import NonLocalBlock2d, published_criss_cross_attention


@pytest.mark.parametrize("shape", [(5, 7), (4, 3), (1, 6), (6, 1)])
def test_published_formulation_equals_the_reference(shape):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, channels, *shape, dtype=torch.float64, generator=generator)
        for channels in (3, 3, 5)
    )
    expected = reference.criss_cross_attention(query, key, value)
    actual = published_criss_cross_attention(query, key, value)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_non_local_block_attends_to_the_whole_map():
    block = NonLocalBlock2d(16).double()
    torch.nn.init.constant_(block.gamma, 0.7)
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    query, key, value = (
        conv(x).flatten(2) for conv in (block.query_conv, block.key_conv, block.value_conv)
    )
    weights = torch.einsum("ncp,ncr->npr", query, key).softmax(dim=-1)
    attended = torch.einsum("npr,ncr->ncp", weights, value).view_as(x)
    torch.testing.assert_close(block(x), 0.7 * attended + x)
