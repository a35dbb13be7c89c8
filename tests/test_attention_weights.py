"""Attention weights far below the largest: so small that sums do not see them, and normal."""

import pytest
import torch
from reference import random_inputs
from torch.utils._python_dispatch import TorchDispatchMode

from ccnet.attention import criss_cross_attention
from ccnet.attention_kernel import blockwise, results, small_maps

ARITHMETIC = ("bmm", "div", "exp", "mul", "sum")


class _Subnormal(TorchDispatchMode):
    """Context that notes operations which give numbers below the normal ones."""

    def __init__(self):
        super().__init__()
        self.operations = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.overloadpacket.__name__.rstrip("_") in ARITHMETIC:
            tiny = torch.finfo(result.dtype).tiny
            if ((result != 0) & (result.abs() < tiny)).any():
                self.operations.add(str(operation))
        return result


@pytest.mark.parametrize("stash", [0, 2**24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_processors_compute_no_subnormal_numbers(monkeypatch, stash, dtype):
    """They take a hundred times as long, and most weights of a trained network would be such."""
    monkeypatch.setattr(blockwise, "_STASH_WEIGHTS", stash)
    inputs = [one.detach() for one in random_inputs((9, 12), dtype=dtype)]
    inputs[0] *= 60  # energies of -700 to 700
    outputs = results.empty_outputs(*inputs)
    gradients = results.empty_gradients(*inputs)
    with _Subnormal() as watch:
        blockwise.blockwise_forward(*inputs, outputs[1], outputs[0])
        blockwise.blockwise_backward(inputs[2], *inputs, outputs[1], gradients)
        if dtype == torch.float32:
            small_maps.small_forward(*inputs, outputs[0])
    assert not watch.operations


@pytest.mark.parametrize("side", [5, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_nothing_let_nothing_through(side, dtype):
    """A key of energy -200 beside others of 0 has the weight e^-200, which is 0 in float32."""
    query, key, value = torch.ones(3, 1, 1, side, side, dtype=dtype)
    key[..., 2, 2], value[..., 2, 2] = -200, 1e20
    query, key, value = (one.clone().requires_grad_() for one in (query, key - 1, value))
    out = criss_cross_attention(query, key, value)[..., 0, :]
    torch.testing.assert_close(out, torch.ones_like(out), rtol=1e-2, atol=0)
    out.sum().backward()
    assert value.grad[..., 2, 2] == 0
    assert query.grad[..., 0, :].abs().max() < 1
