"""`InPlaceABN` and `SyncBatchNorm` in one process, compared with batch norm and leaky ReLU."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from ccnet.norm import InPlaceABN, SyncBatchNorm

SHAPES = [(6, 4), (3, 4, 5), (3, 4, 5, 3), (2, 4, 3, 2, 3)]
EPS = 1e-5
BOTH = (InPlaceABN, SyncBatchNorm)


def make_inplace_abn(**settings):
    """A norm of 4 channels with random vectors, two of the weights negative."""
    norm = InPlaceABN(4, dtype=torch.float64, **settings)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.7, 0.3, -2.0]))
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def reference(norm, x, residual=None):
    """The same function of x, as slow and plain as possible."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    if norm.training:
        mean = x.mean(axes)
        variance = (x - mean.view(shape)).square().mean(axes)
    normalised = (x - mean.view(shape)) / (variance + EPS).sqrt().view(shape)
    gain = norm.weight.abs() + EPS
    result = normalised * gain.view(shape) + norm.bias.view(shape)
    if residual is not None:
        result = result + residual
    return torch.where(result > 0, result, norm.negative_slope * result)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("negative_slope", [0.01, 0.5, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_inplace_abn_is_batch_norm_and_leaky_relu(shape, negative_slope, with_residual, training):
    norm = make_inplace_abn(negative_slope=negative_slope).train(training)
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for _ in range(1 + with_residual)
    ]
    inputs = [*tensors, norm.weight, norm.bias]
    expected = reference(norm, *tensors)
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad(expected, inputs, upstream)
    before = tensors[0].detach().clone()
    output = norm(*tensors)
    gradients = torch.autograd.grad(output, inputs, upstream)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)
    assert torch.equal(tensors[0], before)
    with torch.no_grad():
        assert torch.equal(norm(*tensors), output)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("kind", BOTH)
def test_running_statistics_are_those_of_batch_norm(kind, momentum):
    norm = kind(4, momentum=momentum, dtype=torch.float64)
    batch_norm = nn.BatchNorm2d(4, momentum=momentum, dtype=torch.float64)
    for _ in range(3):
        batch = torch.randn(2, 4, 3, 5, dtype=torch.float64) + 2
        norm(batch)
        batch_norm(batch)
    assert list(norm.state_dict()) == list(batch_norm.state_dict())
    torch.testing.assert_close(norm.state_dict(), batch_norm.state_dict(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_without_parameters_and_running_statistics(kind):
    norm = kind(4, affine=False, track_running_stats=False)
    x = torch.randn(3, 4, 5) + 7
    expected = F.batch_norm(x, None, None, training=True)
    if kind is InPlaceABN:
        expected = F.leaky_relu(expected, 0.01)
    assert not norm.state_dict()
    for training in (True, False):
        torch.testing.assert_close(norm.train(training)(x), expected, rtol=0, atol=1e-5)


def test_sync_batch_norm_in_one_process_is_batch_norm():
    norm, batch_norm = SyncBatchNorm(4), nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 3, 5)
    for training in (True, False):
        assert torch.equal(norm.train(training)(x), batch_norm.train(training)(x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_accurate_as_batch_norm(dtype, memory_format):
    """With statistics in float32, also under autocast and with parameters in half precision."""
    norm = make_inplace_abn().float()
    exact = make_inplace_abn()
    exact.load_state_dict(norm.state_dict())
    x = (torch.randn(4, 4, 9, 7) + 3).to(dtype).contiguous(memory_format=memory_format)
    x.requires_grad_()
    upstream = torch.randn(4, 4, 9, 7)
    wide = x.detach().double().requires_grad_()
    expected = reference(exact, wide)
    expected.backward(upstream.double())
    with torch.autocast("cpu", dtype):
        output = norm(x)
    output.backward(upstream.to(dtype))
    assert output.dtype == x.grad.dtype == dtype
    assert norm.running_mean.dtype == norm.weight.grad.dtype == torch.float32
    mean = 0.9 * exact.running_mean + 0.1 * wide.detach().mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), expected.detach(), rtol=unit, atol=unit)
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=4 * unit, atol=4 * unit)
    scale = expected.numel() ** 0.5
    error = (norm.weight.grad.double() - exact.weight.grad).abs().max()
    assert error < 4 * unit * scale
    assert norm.to(dtype)(x).dtype == dtype


def test_mean_far_from_zero_costs_no_digits():
    norm = InPlaceABN(4, negative_slope=1)
    x = torch.randn(2, 4, 50, 50) + 3000
    expected = F.batch_norm(x.double(), None, None, training=True)
    torch.testing.assert_close(norm(x).double(), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("residuals", [0, 1])
def test_inplace_abn_keeps_only_its_output_residual_and_vectors(residuals):
    x, *residual = torch.randn(1 + residuals, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = make_inplace_abn()(x, *residual)
    maps = {tensor.data_ptr() for tensor in kept if tensor.numel() > 4}
    assert maps == {tensor.data_ptr() for tensor in (output, *residual)}


def test_changed_output_is_noticed():
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    output = make_inplace_abn()(x)
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_double_backward_is_refused():
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(make_inplace_abn()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_weight_of_zero_still_learns():
    norm = make_inplace_abn()
    nn.init.zeros_(norm.weight)
    x = torch.randn(5, 4, dtype=torch.float64)
    (norm(x) * torch.randn_like(x)).sum().backward()
    assert (norm.weight.grad.abs() > 1e-3).all()


def test_representation_tells_the_settings():
    text = repr(InPlaceABN(4, negative_slope=0.2, synchronized=True))
    assert "InPlaceABN(4, eps=1e-05" in text
    assert "negative_slope=0.2, synchronized=True" in text


@pytest.mark.parametrize(
    ("kinds", "shapes", "dtype", "message"),
    [
        (BOTH, [(2, 3, 5, 5)], None, r"\(N, 4, \*\), not torch.float32 \(2, 3, 5, 5\)"),
        (BOTH, [(4,)], None, r"\(N, 4, \*\), not torch.float32 \(4,\)"),
        (BOTH, [(2, 4, 5)], torch.int64, r"not torch.int64 \(2, 4, 5\)"),
        (BOTH, [(1, 4, 1, 1)], None, "more than one|more than 1"),
        ((InPlaceABN,), [(0, 4, 3, 3)], None, r"\(0, 4, 3, 3\) has 0"),
        ((InPlaceABN,), [(2, 4, 3), (1, 4, 3)], None, r"\(2, 4, 3\), not \(1, 4, 3\)"),
    ],
)
def test_invalid_inputs_are_refused(kinds, shapes, dtype, message):
    inputs = [torch.ones(shape, dtype=dtype) for shape in shapes]
    for kind in kinds:
        with pytest.raises(ValueError, match=message):
            kind(4)(*inputs)


@pytest.mark.parametrize("negative_slope", [0, -0.1, float("nan")])
def test_slopes_that_cannot_be_inverted_are_refused(negative_slope):
    with pytest.raises(ValueError, match=f"positive, such as 0.01, not {negative_slope}"):
        InPlaceABN(4, negative_slope=negative_slope)
