"""Attention of optimised networks: its factor is one of the values, its input stays."""

import copy

import pytest
import torch
from torch import nn

from ccnet import CrissCrossAttention2d
from ccnet.deployment.optimized.blocks import FusedCrissCrossAttention2d
from ccnet.deployment.optimized.fusion import fuse_activations


def attention_and_copy(gamma, prepare=lambda module: None, dtype=torch.float64):
    """The module, and what becomes of a copy in a network."""
    attention = CrissCrossAttention2d(16).to(dtype)
    nn.init.constant_(attention.gamma, gamma)
    prepare(attention)
    network = nn.Sequential(copy.deepcopy(attention)).requires_grad_(False)
    fuse_activations(network, lambda: network(torch.zeros(1, 16, 3, 4, dtype=dtype)))
    return attention, network[0]


@pytest.mark.parametrize("gamma", [0, -2.5])
@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (1, 16, 1, 6), (1, 16, 1, 1)])
@torch.no_grad()
def test_values_and_input_stay(gamma, shape):
    attention, fused = attention_and_copy(gamma)
    assert type(fused) is FusedCrissCrossAttention2d
    x = torch.randn(shape, dtype=torch.float64)
    given = x.clone()
    torch.testing.assert_close(fused(x), attention(x), rtol=1e-10, atol=1e-10)
    assert torch.equal(x, given)


def test_gradients_and_autocast():
    attention, fused = attention_and_copy(1.5, dtype=torch.float32)
    x = torch.randn(1, 16, 4, 5, requires_grad=True)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            results = attention(x), fused(x)
        assert results[0].dtype == results[1].dtype
        gradients = [torch.autograd.grad(one.sum(), x)[0] for one in results]
        tolerance = 5e-2 if half else 1e-4
        torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


def double(module):
    module.value_conv.forward = lambda x: 2 * nn.Conv2d.forward(module.value_conv, x)


def replace(module):
    module.forward = lambda x: x


@pytest.mark.parametrize(
    "prepare",
    [lambda module: module.value_conv.register_forward_hook(lambda *_: None), double, replace],
)
def test_what_is_observed_or_replaced_stays(prepare):
    _, unfused = attention_and_copy(3, prepare)
    assert type(unfused) is CrissCrossAttention2d
    assert unfused.gamma == 3


@torch.no_grad()
def test_a_factor_for_each_channel_stays():
    def widen(module):
        module.gamma = nn.Parameter(torch.rand(16, 1, 1, dtype=torch.float64))

    attention, unfused = attention_and_copy(1, widen)
    x = torch.randn(1, 16, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(unfused(x), attention(x))
