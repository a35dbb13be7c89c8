"""Heads: recurrent criss-cross attention with shared weights, dropout of channels."""

import pytest
import torch
from torch import nn

from ccnet.attention import CrissCrossAttention2d
from ccnet.heads import FCNHead, RCCAHead


@pytest.fixture
def module():
    module = CrissCrossAttention2d(16).double()
    nn.init.constant_(module.gamma, 0.7)
    return module


@pytest.fixture
def head():
    head = RCCAHead(64, 3).double().eval()
    nn.init.constant_(head.cca.gamma, 0.7)
    return head


def reached(module, loops, position, size):
    """The input positions, (H, W), that the output at one position depends on."""
    x = torch.randn(1, 16, *size, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(loops):
        y = module(y)
    y[..., position[0], position[1]].square().sum().backward()
    return x.grad.abs().sum((0, 1)) > 0


@pytest.mark.parametrize(
    ("size", "position"), [((5, 7), (1, 4)), ((6, 4), (0, 3)), ((1, 8), (0, 2)), ((3, 1), (2, 0))]
)
def test_one_loop_reaches_the_criss_cross_and_two_the_whole_map(module, size, position):
    cross = torch.zeros(size, dtype=torch.bool)
    cross[position[0], :] = cross[:, position[1]] = True
    assert torch.equal(reached(module, 1, position, size), cross)
    assert reached(module, 2, position, size).all()


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_the_head_applies_one_module_again_and_again(recurrence):
    head = RCCAHead(64, 3, recurrence).double().eval()
    nn.init.constant_(head.cca.gamma, 0.7)
    features = torch.randn(2, 64, 5, 9, dtype=torch.float64)
    context = head.conva(features)
    for _ in range(recurrence):
        context = head.cca(context)
    fused = head.bottleneck(torch.cat([features, head.convb(context)], dim=1))
    torch.testing.assert_close(head(features), head.classifier(fused))
    assert sum(isinstance(part, CrissCrossAttention2d) for part in head.modules()) == 1


def test_the_number_of_loops_matters(head):
    features = torch.randn(2, 64, 5, 9, dtype=torch.float64)
    outputs = []
    for recurrence in (1, 2, 3):
        other = RCCAHead(64, 3, recurrence).double().eval()
        other.load_state_dict(head.state_dict())
        outputs.append(other(features))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    assert (outputs[1] - outputs[2]).abs().max() > 1e-4


def test_both_loops_use_the_same_weights(head):
    """Were there two sets of weights, changing one would leave a loop as it was."""
    seen = []
    head.cca.value_conv.register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    features = torch.randn(1, 64, 4, 6, dtype=torch.float64)
    head(features)
    nn.init.normal_(head.cca.value_conv.weight)
    head(features)
    assert len(seen) == 4
    for loop in (0, 1):
        (_, before), (_, after) = seen[loop], seen[2 + loop]
        assert (before - after).abs().max() > 1e-3
    assert torch.equal(seen[0][0], seen[2][0])


@pytest.mark.parametrize(
    "head",
    [RCCAHead(64, 3, dropout=0.4, negative_slope=0.1), FCNHead(64, 16, 3, 0.4, 0.1)],
    ids=["main", "auxiliary"],
)
def test_dropout_takes_whole_channels(head):
    seen = {}
    head.dropout.register_forward_hook(
        lambda _, given, made: seen.update(given=given[0], made=made)
    )
    head.train()(torch.randn(16, 64, 5, 6))
    dropped = (seen["made"] == 0).all(-1).all(-1)
    assert 0.2 < dropped.float().mean() < 0.6
    torch.testing.assert_close(seen["made"], seen["given"] / 0.6 * ~dropped[..., None, None])
