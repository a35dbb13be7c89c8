import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_memory import kept_for_backward
from reference import random_inputs
from schedules import SCHEDULES, computed

from ccnet import CrissCrossAttention2d, attention_kernel, criss_cross_attention
from ccnet.attention_kernel import batched, blockwise, multiplication, small_maps

SHAPES = [(5, 7), (4, 3), (1, 6), (6, 1), (1, 1), (2, 2), (7,), (1,)]
SHAPES += [(3, 4, 2), (1, 3, 4), (3, 1, 2)]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    with computed(request.param):
        yield request.param


def assert_equals_reference(inputs, tolerance, schedules=SCHEDULES):
    """Output and every gradient, relative to the largest value, in every schedule."""
    expected = reference.criss_cross_attention(*inputs)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator())
    weights = weights.to(inputs[2].dtype)
    all_expected = (expected, *torch.autograd.grad(expected, inputs, weights.double()))
    for schedule in schedules:
        with computed(schedule):
            actual = criss_cross_attention(*inputs)
            gradients = torch.autograd.grad(actual, inputs, weights)
        assert actual.dtype == inputs[2].dtype
        assert actual.shape == inputs[2].shape
        for wanted, got in zip(all_expected, (actual, *gradients), strict=True):
            size = max(1.0, wanted.abs().max().item())
            assert (wanted.double() - got.double()).abs().max().item() <= tolerance * size


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_equals_the_reference(shape, channels_last, dtype):
    inputs = random_inputs(shape, dtype=dtype, channels_last=channels_last)
    assert_equals_reference(inputs, TOLERANCES[dtype])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    dtype=st.sampled_from(list(TOLERANCES)),
    order=st.permutations(range(3)),
    step=st.integers(1, 2),
    seed=st.integers(0, 2**16),
)
def test_no_shape_dtype_or_stride_differs_from_the_reference(
    shape, batch, channels, dtype, order, step, seed
):
    def strided(tensor):
        """The same values behind other strides: permuted storage, every second element."""
        axes = [axis for axis in order if axis < tensor.dim()]
        axes += [axis for axis in range(tensor.dim()) if axis not in axes]
        permuted = tensor.detach().permute(axes)
        storage = permuted.new_zeros([*permuted.shape[:-1], permuted.shape[-1] * step])
        view = storage[..., ::step]
        view.copy_(permuted)
        inverse = sorted(range(len(axes)), key=axes.__getitem__)
        return view.permute(inverse).requires_grad_()

    inputs = random_inputs(shape, batch=batch, channels=channels, dtype=dtype, seed=seed)
    query, key, value = (strided(tensor) for tensor in inputs)
    assert torch.equal(query, inputs[0])
    assert_equals_reference((query, key, value), TOLERANCES[dtype])


@pytest.mark.parametrize("shape", SHAPES)
def test_dense_form_and_scaled_energies_equal_the_reference(shape):
    inputs = random_inputs(shape)
    scaled, again, other = (criss_cross_attention(*inputs, scale=s) for s in (0.3, 0.3, -0.7))
    assert torch.equal(scaled, again), "not deterministic"
    for actual, scale in ((attention_kernel.dense(*inputs), 1), (scaled, 0.3), (other, -0.7)):
        expected = reference.criss_cross_attention(*inputs, scale=scale)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 2)])
@pytest.mark.parametrize("block", [1, 40, 10**9])
@pytest.mark.parametrize("stash", [0, 10**9])
def test_the_size_of_blocks_changes_nothing(monkeypatch, shape, block, stash):
    monkeypatch.setattr(blockwise, "_BLOCK_WEIGHTS", block)
    monkeypatch.setattr(blockwise, "_STASH_WEIGHTS", stash)
    assert_equals_reference(random_inputs(shape), 1e-12, ["blockwise"])


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 2), (6,), (1, 5)])
@pytest.mark.parametrize("limit", [1, 60, 10**9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_limit_of_weights_at_a_time_changes_nothing(monkeypatch, shape, limit, dtype):
    monkeypatch.setattr(batched, "LIMIT", limit)
    for channels_last in (False, True):
        inputs = random_inputs(shape, dtype=dtype, channels_last=channels_last)
        assert_equals_reference(inputs, TOLERANCES[dtype], ["batched", "half operands"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parts_of_a_batch_of_small_maps_change_nothing(monkeypatch, dtype):
    monkeypatch.setattr(small_maps, "_WEIGHTS", 1)
    inputs = random_inputs((5, 7), batch=3, dtype=dtype)
    assert_equals_reference(inputs, TOLERANCES[dtype], ["small maps"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("schedule", ["blockwise", "small maps"], indirect=True)
def test_halves_are_multiplied_in_float32_where_that_is_faster(
    monkeypatch, dtype, channels_last, schedule
):
    monkeypatch.setattr(multiplication, "has_instructions", lambda dtype: False)
    inputs = random_inputs((5, 7), dtype=dtype, channels_last=channels_last)
    wide = [tensor.detach().float().requires_grad_() for tensor in inputs]
    actual, expected = criss_cross_attention(*inputs), criss_cross_attention(*wide)
    assert torch.equal(actual, expected.to(dtype))
    assert actual.stride() == inputs[2].stride()
    gradients = torch.autograd.grad(actual, inputs, torch.ones_like(actual))
    wanted = torch.autograd.grad(expected, wide, torch.ones_like(expected))
    for one, other in zip(gradients, wanted, strict=True):
        assert torch.equal(one, other.to(dtype))


def mutant(query, key, value, *, kind):
    """Criss-cross attention on maps with one of the errors that are known from public code."""
    rows = torch.einsum("nchw,nchv->nhwv", query, key)
    columns = torch.einsum("nchw,ncgw->nhwg", query, key)
    height, width = query.shape[2:]
    if kind != "no mask":
        itself = torch.eye(height, dtype=torch.bool)[:, None, :]
        columns = columns.masked_fill(itself, -math.inf)
    if kind == "both masked":
        rows = rows.masked_fill(torch.eye(width, dtype=torch.bool)[None], -math.inf)
    weights = torch.cat([columns, rows], dim=-1).softmax(dim=-1)
    columns, rows = weights.split([height, width], dim=-1)
    if kind == "axes swapped":
        gathered = torch.einsum("nhwg,ncwg->nchw", columns, value)
        return gathered + torch.einsum("nhwv,ncvh->nchw", rows, value)
    gathered = torch.einsum("nhwg,ncgw->nchw", columns, value)
    return gathered + torch.einsum("nhwv,nchv->nchw", rows, value)


@pytest.mark.parametrize("kind", ["none", "no mask", "both masked", "axes swapped"])
def test_known_mutants_differ_from_the_reference(kind):
    inputs = random_inputs((4, 4))
    difference = mutant(*inputs, kind=kind) - reference.criss_cross_attention(*inputs)
    assert (difference.abs().max() < 1e-12) == (kind == "none")


def test_gradients_by_finite_differences(schedule):
    inputs = random_inputs((3, 2), channels=(2, 2), batch=1)
    assert torch.autograd.gradcheck(criss_cross_attention, inputs)
    assert torch.autograd.gradgradcheck(criss_cross_attention, inputs)


@pytest.mark.parametrize("channels_last", [False, True])
def test_one_tensor_as_query_key_and_value(channels_last, schedule):
    tensor, _, _ = random_inputs((4, 5), channels_last=channels_last)
    expected = reference.criss_cross_attention(tensor, tensor, tensor)
    actual = criss_cross_attention(tensor, tensor, tensor)
    assert actual.stride() == tensor.stride()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, tensor, weights)
    (got,) = torch.autograd.grad(actual, tensor, weights)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_energies_and_values_stay_finite_and_right(dtype, schedule):
    query, key, value = random_inputs((9, 11), channels=(4, 6))
    inputs = tuple((30 * x).detach().to(dtype) for x in (query, key))
    value = (200 * value).detach().to(dtype)
    expected = reference.criss_cross_attention(*inputs, value)
    actual = criss_cross_attention(*inputs, value)
    assert actual.isfinite().all()
    size = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= TOLERANCES[dtype] * size


def test_equal_weights_do_not_overflow_in_half_precision(schedule):
    value = torch.full((1, 2, 100, 120), 1000.0, dtype=torch.float16)
    query = torch.zeros(1, 2, 100, 120, dtype=torch.float16)
    output = criss_cross_attention(query, query, value)
    torch.testing.assert_close(output, value, rtol=2e-3, atol=0)


def test_constant_inputs_come_out_exactly(schedule):
    for height, width in [(2, 2), (2, 5), (7, 3), (13, 13), (10, 29), (31, 40)]:
        query = torch.ones(1, 8, height, width)
        value = torch.full((1, 4, height, width), 3.0)
        output = criss_cross_attention(query, 2 * query, value)
        assert torch.equal(output, value), (height, width)


def test_nothing_but_the_inputs_and_two_numbers_a_position_is_kept_for_backward(schedule):
    inputs = random_inputs((97, 97), batch=1, channels=(4, 8), dtype=torch.float32)
    extra = kept_for_backward(lambda: criss_cross_attention(*inputs), inputs)
    assert extra == (2 * 4 * 97 * 97 if schedule in ("blockwise", "small maps") else 0)


def test_vmap_and_functional_gradients(schedule):
    query, key, value = (tensor.detach() for tensor in random_inputs((3, 4), batch=6))
    per_sample = [tensor.unflatten(0, (3, 2)) for tensor in (query, key, value)]
    batched = torch.vmap(criss_cross_attention)(*per_sample)
    torch.testing.assert_close(batched.flatten(0, 1), criss_cross_attention(query, key, value))
    shared = torch.vmap(criss_cross_attention, in_dims=(0, 0, None))
    expected = [criss_cross_attention(q, k, value[:2]) for q, k, _ in zip(*per_sample, strict=True)]
    actual = shared(per_sample[0], per_sample[1], value[:2])
    torch.testing.assert_close(actual, torch.stack(expected))
    moved = [one.movedim(0, dim) for one, dim in zip(per_sample, (1, 2, -1), strict=True)]
    torch.testing.assert_close(torch.vmap(criss_cross_attention, (1, 2, -1))(*moved), batched)

    def loss(query):
        return criss_cross_attention(query, key, value).square().sum()

    tracked = query.clone().requires_grad_()
    torch.testing.assert_close(
        (torch.func.grad(loss)(query),), torch.autograd.grad(loss(tracked), tracked)
    )


def test_batched_gradients_are_those_of_each(schedule):
    inputs = random_inputs((4, 5))
    output = criss_cross_attention(*inputs)
    upstream = torch.randn(3, *output.shape, dtype=output.dtype)
    options = {"retain_graph": True}
    all_found = torch.autograd.grad(output, inputs, upstream, is_grads_batched=True, **options)
    for index, one in enumerate(upstream):
        expected = torch.autograd.grad(output, inputs, one, **options)
        for found, wanted in zip(all_found, expected, strict=True):
            torch.testing.assert_close(found[index], wanted)


def test_autocast_computes_energies_in_float32():
    module = CrissCrossAttention2d(16, reduction=2)
    torch.nn.init.constant_(module.gamma, 0.7)
    x = torch.randn(2, 16, 6, 7)
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = module(x)
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=0.1)
    query, key, value = (20 * tensor.detach().float() for tensor in random_inputs((6, 7)))
    with torch.autocast("cpu", torch.bfloat16):
        inside = criss_cross_attention(query, key, value)
    assert torch.equal(inside, criss_cross_attention(query, key, value))


def test_autocast_changes_no_gradient_that_is_differentiated_again(schedule):
    inputs = random_inputs((6, 5), channels=(8, 8), dtype=torch.float32)
    upstream = torch.randn_like(inputs[2])

    def gradients():
        output = criss_cross_attention(*inputs)
        return torch.autograd.grad(output, inputs, upstream, create_graph=True)

    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients()
    for actual, expected in zip(inside, gradients(), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": (2, 3, 4, 6)}, r"the same shape.*key \(2, 3, 4, 6\)"),
        ({"value": (2, 5, 4, 6)}, r"value must have.*value \(2, 5, 4, 6\)"),
        ({"value": (1, 5, 4, 5)}, r"value must have.*value \(1, 5, 4, 5\)"),
        ({"query": (2, 3), "key": (2, 3)}, r"at least one spatial axis.*query \(2, 3\)"),
        (dict.fromkeys(("query", "key", "value"), (2, 3, 0, 5)), "at least 1"),
    ],
)
def test_shapes_that_do_not_fit_are_named(changes, message):
    shapes = {"query": (2, 3, 4, 5), "key": (2, 3, 4, 5), "value": (2, 5, 4, 5), **changes}
    with pytest.raises(ValueError, match=message):
        criss_cross_attention(**{name: torch.zeros(shape) for name, shape in shapes.items()})


def test_dtypes_devices_and_channels_that_do_not_fit_are_named():
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"the same dtype.*torch\.float64"):
        criss_cross_attention(x, x, x.double())
    with pytest.raises(ValueError, match=r"floating-point dtype.*torch\.int64"):
        criss_cross_attention(x.long(), x.long(), x.long())
    with pytest.raises(ValueError, match=r"the same device.*on meta"):
        criss_cross_attention(x, x.to("meta"), x)
    for channels, reduction in [(4, 8), (8, 0)]:
        with pytest.raises(ValueError, match=f"in_channels \\({channels}\\)"):
            CrissCrossAttention2d(channels, reduction)
