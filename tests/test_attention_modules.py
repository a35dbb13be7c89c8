"""Attention modules and maps: what the loops reach and give."""

import itertools
import math

import pytest
import reference
import torch
import torch._dynamo.testing
from reference import random_inputs

from ccnet import (
    CrissCrossAttention2d,
    CrissCrossAttention3d,
    attention_map,
    criss_cross_attention,
)


@pytest.mark.parametrize("recurrence", [1, 2])
@pytest.mark.parametrize("position", [(2, 4), (0, 0), (4, 6)])
def test_gradient_reaches_the_criss_cross_and_then_the_whole_map(recurrence, position):
    module = CrissCrossAttention2d(8, reduction=2).double()
    torch.nn.init.constant_(module.gamma, 0.7)
    x = torch.randn(1, 8, 5, 7, dtype=torch.float64, requires_grad=True)
    y = x
    for _ in range(recurrence):
        y = module(y)
    (gradient,) = torch.autograd.grad(y[0, :, position[0], position[1]].sum(), x)
    reached = {tuple(at) for at in gradient[0].abs().sum(0).nonzero().tolist()}
    everywhere = set(itertools.product(range(5), range(7)))
    criss_cross = set(reference.criss_cross_positions(position, (5, 7)))
    assert len(criss_cross) == 5 + 7 - 1
    assert reached == (criss_cross if recurrence == 1 else everywhere)


def test_module_is_gamma_times_attention_plus_input():
    module = CrissCrossAttention2d(16)
    assert module.gamma.shape == (1,)
    names = {name.split(".")[0] for name, _ in module.named_parameters()}
    assert names == {"query_conv", "key_conv", "value_conv", "gamma"}
    x = torch.randn(2, 16, 3, 4)
    assert torch.equal(module(x), x)
    torch.nn.init.constant_(module.gamma, -1.3)
    projected = [conv(x) for conv in (module.query_conv, module.key_conv, module.value_conv)]
    expected = -1.3 * reference.criss_cross_attention(*projected) + x
    torch.testing.assert_close(module(x), expected.float())


def test_three_dimensions_with_one_frame_are_two():
    flat = CrissCrossAttention2d(16)
    volume = CrissCrossAttention3d(16)
    torch.nn.init.constant_(flat.gamma, 0.7)
    state = {name: x[..., None] if x.dim() == 4 else x for name, x in flat.state_dict().items()}
    volume.load_state_dict(state)
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(volume(x[:, :, None])[:, :, 0], flat(x))


@pytest.mark.parametrize("shape", [(5, 7), (1, 4), (3, 4, 2)])
@pytest.mark.parametrize("loops", [1, 2, 3])
def test_attention_map_gives_what_the_loops_give(shape, loops):
    queries_and_keys = [random_inputs(shape, seed=seed)[:2] for seed in range(loops)]
    value = random_inputs(shape)[2].detach()
    output = value
    for query, key in queries_and_keys:
        output = criss_cross_attention(query, key, output)
    for position in itertools.product(*(range(0, size, 2) for size in shape)):
        weights = attention_map(queries_and_keys, position)
        assert weights.min() >= 0
        torch.testing.assert_close(weights.flatten(1).sum(1), torch.ones(2, dtype=torch.float64))
        gathered = (weights[:, None] * value).flatten(2).sum(2)
        torch.testing.assert_close(gathered, output[(..., *position)])
    reached = {tuple(at) for at in weights[0].nonzero().tolist()}
    if loops == 1:
        assert reached == set(reference.criss_cross_positions(position, shape))
    if loops >= len(shape):
        assert len(reached) == math.prod(shape)


@pytest.mark.parametrize("loops", [1, 2])
def test_attention_map_is_as_exact_under_autocast(loops):
    queries_and_keys = [torch.randn(2, 1, 8, 30, 40).mul(2).unbind() for _ in range(loops)]
    expected = attention_map(queries_and_keys, (7, 9))
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_map(queries_and_keys, (7, 9))
    torch.testing.assert_close(found, expected)


def test_attention_map_refuses_positions_off_the_map():
    query, key, _ = random_inputs((4, 5))
    for position in [(4, 0), (0, -1), (1,), (1, 1, 1)]:
        with pytest.raises(ValueError, match=r"not on a map of size \(4, 5\)"):
            attention_map([(query, key)], position)
    with pytest.raises(ValueError, match="empty"):
        attention_map([], (0, 0))


def test_attention_map_refuses_queries_and_keys_that_do_not_fit():
    query, key = torch.randn(2, 1, 4, 5, 6)
    for pair in [(query, key[:, :, :1]), (query, key[:, :1]), (query, key.double())]:
        with pytest.raises(ValueError, match="those of loop 2 are"):
            attention_map([(query, key), pair], (0, 0))
    with pytest.raises(ValueError, match="all loops the same N and spatial sizes; those of loop 2"):
        attention_map([(query, key), (query[:, :, 1:], key[:, :, 1:])], (0, 0))


@pytest.mark.parametrize("loops", [1, 2])
def test_attention_map_in_inference_mode_is_the_same(loops):
    pairs = [tuple(torch.randn(2, 1, 4, 5, 6)) for _ in range(loops)]
    expected = attention_map(pairs, (1, 2))
    with torch.inference_mode():
        found = attention_map([(q.clone(), k.clone()) for q, k in pairs], (1, 2))
    assert torch.equal(found, expected)
    assert not found.is_inference()


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (CrissCrossAttention2d, torch.randn(8, 5, 6), r"\(N, C, H, W\), not \(8, 5, 6\) torch.flo"),
        (
            CrissCrossAttention2d,
            torch.ones(1, 8, 5, 6, dtype=torch.int64),
            r"\(N, C, H, W\), not .* torch.int64$",
        ),
        (CrissCrossAttention3d, torch.randn(1, 8, 5, 6), r"\(N, C, T, H, W\), not \(1, 8, 5, 6\)"),
    ],
)
def test_module_refuses_what_is_no_map(module, x, message):
    with pytest.raises(ValueError, match=f"^expected floating point {message}"):
        module(8)(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # PyTorch's own
def test_forward_mode_derivatives_are_refused_by_name():
    inputs = tuple(torch.randn(3, 1, 4, 5, 6))
    with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
        torch.func.jvp(criss_cross_attention, inputs, inputs)
