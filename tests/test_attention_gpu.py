"""The operator and a training step on a GPU."""

import pytest
import torch

from ccnet import CrissCrossAttention2d, criss_cross_attention
from ccnet.baselines import published_criss_cross_attention
from ccnet.losses import OhemCrossEntropyLoss

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def random_inputs(batch, size, dtype, memory_format, device="cuda"):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, channels, *size, generator=generator)
        .to(device, dtype, memory_format=memory_format)
        .requires_grad_()
        for channels in (16, 16, 72)
    ]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_published_formulation_in_float64(dtype, memory_format, batch):
    inputs = random_inputs(batch, (33, 20), dtype, memory_format)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = published_criss_cross_attention(*exact)
    upstream = torch.randn_like(inputs[2])
    all_expected = (expected, *torch.autograd.grad(expected, exact, upstream.double()))
    operators = [criss_cross_attention]
    if batch == 1:
        operators.append(torch.compile(criss_cross_attention, fullgraph=True))
    for operator in operators:
        actual = operator(*inputs)
        assert actual.stride() == inputs[2].stride()
        gradients = torch.autograd.grad(actual, inputs, upstream)
        for wanted, got in zip(all_expected, (actual, *gradients), strict=True):
            error = (wanted - got.double()).abs().max().item()
            assert error <= TOLERANCES[dtype] * max(1, wanted.abs().max().item())


def test_equal_values_come_out_exactly():
    value = torch.full((2, 4, 31, 40), 3.0, device="cuda")
    query = torch.ones(2, 8, 31, 40, device="cuda")
    assert torch.equal(criss_cross_attention(query, 2 * query, value), value)


def test_training_step_never_waits_for_the_device():
    module = CrissCrossAttention2d(19, reduction=2).cuda()
    torch.nn.init.constant_(module.gamma, 0.5)
    loss = OhemCrossEntropyLoss(min_kept=1000)
    x = torch.randn(2, 19, 65, 97, device="cuda", requires_grad=True)
    labels = torch.randint(0, 19, (2, 65, 97), device="cuda")
    loss(module(x), labels).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(module(x), labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
