"""In-place activated batch norm: saves only its output for the backward pass."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from ccnet.norm.moments import (
    active_group,
    batch_moments,
    check_input,
    pull_back,
    statistics_dtype,
    update_running_statistics,
)
from ccnet.options import named_options


class InPlaceABN(_NormBase):
    """Batch norm, optional residual sum and leaky ReLU in one layer, which saves memory.

    Autograd saves only the output, which the next layer saves anyway, and a few vectors. The
    backward pass recomputes the normalised values from it. A residual is saved as well, but a
    residual block's first convolution saves the same tensor. The input is not modified.

    The gain of a channel is `abs(weight) + eps`, never 0, so that the output determines the
    normalised value. At a weight of 0 the derivative of `abs` is taken to be 1. Statistics of
    half-precision inputs are float32. Double backward raises a RuntimeError.

    The normalised value is recovered from the output minus the residual, divided by the gain. In
    half precision, the rounding error of the output therefore matters where the gain is small: the
    gradient of a weight of 0.1 is off by about 3 % in bfloat16, that of 0.01 by 20 %. Float32 has
    no such limit.

    Args:
        num_features: C.
        eps: added to the variance, and to the absolute value of the weight.
        momentum: weight of a new batch in the running statistics; None for a cumulative average.
        affine: whether the layer has weight and bias; if not, the gain is 1.
        track_running_stats: whether the layer has running statistics; if not, evaluation uses
            batch statistics too.
        negative_slope: slope of the leaky ReLU, positive; 1 for no activation.
        synchronized: whether training statistics are those of all processes, as in `SyncBatchNorm`.
        process_group: processes that share statistics; None for all.
        device: device of parameters and buffers.
        dtype: dtype of parameters and buffers.

    Raises:
        ValueError: if the slope is not positive: ReLU cannot be inverted.

    Source:
        In-place activated batch norm (https://arxiv.org/abs/1712.02616).
    """

    @named_options()
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        negative_slope: float = 0.01,
        synchronized: bool = False,
        process_group: ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_slope(negative_slope)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.negative_slope = negative_slope
        self.synchronized = synchronized
        self.process_group = process_group

    def extra_repr(self) -> str:
        """Returns the arguments that the module's repr shows."""
        inherited: str = super().extra_repr()  # type: ignore[no-untyped-call]
        own = f"negative_slope={self.negative_slope}, synchronized={self.synchronized}"
        return f"{inherited}, {own}"

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalises a batch, adds the residual and applies the activation.

        Args:
            x: (N, C, *), floating point.
            residual: (N, C, *), floating point; None for no residual.

        Returns:
            (N, C, *), in the dtype of x. It must not be modified in place before the backward pass.

        Raises:
            ValueError: if x is not such a batch, the residual has another shape, or a training
                batch has only one value per channel.
        """
        transform = self.transform(x)
        if residual is not None and residual.shape != x.shape:
            raise ValueError(
                f"the residual must have the input's shape {tuple(x.shape)}, "
                f"not {tuple(residual.shape)}"
            )
        if not torch.is_grad_enabled():
            return activate(transform.apply(x), residual, self.negative_slope)
        output: Tensor = _InPlaceABN.apply(x, residual, self.negative_slope, *transform)
        return output

    def transform(self, x: Tensor) -> "Transform":
        """Computes the normalisation of a batch; updates running statistics in training mode.

        Args:
            x: (N, C, *), floating point.

        Returns:
            The transform, whose gain and bias are differentiable.

        Raises:
            ValueError: if x is not such a batch, or a training batch has only one value per
                channel.
        """
        check_input(x, self.num_features)
        wide = statistics_dtype(x)
        group = None
        count: Tensor | float | None = None
        if self.training or self.running_mean is None or self.running_var is None:
            if self.training and self.synchronized:
                group = active_group(self.process_group)
            moments = batch_moments(x, group)
            if self.training:
                update_running_statistics(self, moments)
            mean, variance, count = moments
        else:
            mean, variance = self.running_mean.to(wide), self.running_var.to(wide)
        gain, bias = torch.ones_like(mean), torch.zeros_like(mean)
        if self.affine:
            gain = torch.where(self.weight < 0, -self.weight, self.weight).to(wide) + self.eps
            bias = bias if self.bias is None else self.bias.to(wide)
        return Transform(gain, bias, Statistics(mean, variance, self.eps, count, group))


class Statistics(NamedTuple):
    """Statistics that normalise a batch.

    Attributes:
        mean: (C,), float32 or float64.
        variance: (C,), likewise.
        eps: added to the variance.
        number: number of values per channel in the statistics; None if these are constants, as in
            evaluation.
        group: processes that share the statistics; None for this process alone.
    """

    mean: Tensor
    variance: Tensor
    eps: float
    number: Tensor | float | None
    group: ProcessGroup | None

    @property
    def scale(self) -> Tensor:
        """(C,): one over the standard deviation."""
        return torch.rsqrt(self.variance + self.eps)


class Transform(NamedTuple):
    """Normalisation with given statistics.

    Attributes:
        gain: (C,), in the dtype of the statistics; differentiable.
        bias: (C,), likewise.
        statistics: constants for autograd; `pull_back` computes the gradient through them.
    """

    gain: Tensor
    bias: Tensor
    statistics: Statistics

    def apply(self, x: Tensor) -> Tensor:
        """Normalises x (N, C, *) into a new tensor of the same dtype."""
        mean, variance, eps = self.statistics[:3]
        return F.batch_norm(x, mean, variance, self.gain, self.bias, training=False, eps=eps)


def check_slope(negative_slope: float) -> None:
    """Rejects a slope that makes the activation impossible to invert.

    Raises:
        ValueError: if the slope is not positive.
    """
    if not negative_slope > 0:
        raise ValueError(
            f"negative_slope must be positive, such as 0.01, not {negative_slope}: "
            "an activation that maps many values to one cannot be inverted"
        )


def activate(normalised: Tensor, residual: Tensor | None, negative_slope: float) -> Tensor:
    """Adds the residual and applies the activation, in place."""
    if residual is not None:
        normalised += residual
    return normalised if negative_slope == 1 else F.leaky_relu_(normalised, negative_slope)


def deactivate(output: Tensor, gradient: Tensor, negative_slope: float) -> tuple[Tensor, Tensor]:
    """Computes input and input gradient of the activation from its output and output gradient."""
    if negative_slope == 1:
        return output, gradient
    gradient = torch.ops.aten.leaky_relu_backward(gradient, output, negative_slope, True)
    return F.leaky_relu(output, 1 / negative_slope), gradient


class _InPlaceABN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        negative_slope: float,
        gain: Tensor,
        bias: Tensor,
        statistics: Statistics,
    ) -> Tensor:
        output = activate(Transform(gain, bias, statistics).apply(x), residual, negative_slope)
        ctx.save_for_backward(output, residual, gain, bias, statistics.scale)
        ctx.negative_slope, ctx.dtype = negative_slope, x.dtype
        ctx.number, ctx.group = statistics.number, statistics.group
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        output, residual, gain, bias, scale = ctx.saved_tensors
        wide = scale.dtype
        before, gradient = deactivate(output.to(wide), gradient.to(wide), ctx.negative_slope)
        if residual is not None:
            before = before - residual
        grad_input, grad_gain, grad_bias = pull_back(
            gradient, before, bias, 1 / gain, gain * scale, ctx.number, ctx.group
        )
        grad_residual = None if residual is None else gradient.to(residual.dtype)
        return grad_input.to(ctx.dtype), grad_residual, None, grad_gain, grad_bias, None
