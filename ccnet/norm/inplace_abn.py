"""Normalisation and activation that keep only their output."""

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


class InPlaceABN(_NormBase):
    """Batch normalisation, an optional residual sum and leaky ReLU in one, for little memory.

    Autograd keeps the output alone, which the next layer keeps anyway, and a few vectors: backward
    computes the normalised values from it. A residual is kept as well, but a residual block's first
    convolution keeps the same tensor. The input is left as it is.

    The gain of a channel is `abs(weight) + eps`, never 0, so that the output tells the normalised
    value. At a weight of 0 the derivative of `abs` is taken to be 1. Half-precision inputs have
    float32 statistics. There is no double backward: asking for it raises a RuntimeError.

    The normalised value comes back from the output less the residual, divided by the gain: in half
    precision the rounding of the output counts for much where the gain is small. The gradient of a
    weight of 0.1 is off by about 3 % in bfloat16, that of 0.01 by 20 %. Float32 has no such limit.

    Args:
        num_features: C.
        eps: added to the variance, and to the size of the weight.
        momentum: the weight of a new batch in the running statistics; None for their plain average.
        affine: whether there are weight and bias; else the gain is 1.
        track_running_stats: whether there are running statistics; else evaluation uses those of the
            batch, too.
        negative_slope: that of the leaky ReLU, positive; 1 for no activation.
        synchronized: whether training statistics are those of all processes, as in `SyncBatchNorm`.
        process_group: these processes; None for all.
        device: of parameters and buffers.
        dtype: likewise.

    Raises:
        ValueError: if the slope is not positive: no ReLU can be inverted.

    Source:
        In-place activated batch norm (https://arxiv.org/abs/1712.02616).
    """

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
        """What stands in the brackets of the module's representation."""
        inherited: str = super().extra_repr()  # type: ignore[no-untyped-call]
        own = f"negative_slope={self.negative_slope}, synchronized={self.synchronized}"
        return f"{inherited}, {own}"

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalises a batch, adds the residual and applies the activation.

        Args:
            x: (N, C, *), floating point.
            residual: likewise; None for none.

        Returns:
            (N, C, *), in the dtype of x. It must not be changed in place before backward.

        Raises:
            ValueError: if x is no such batch, the residual is of another shape, or training has but
                one value per channel.
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
        """How a batch is normalised; in training mode, moves the running statistics.

        Args:
            x: (N, C, *), floating point.

        Returns:
            The transform, whose gain and bias are differentiable.

        Raises:
            ValueError: if x is no such batch, or training has but one value per channel.
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
        return Transform(gain, bias, mean, variance, self.eps, count, group)


class Transform(NamedTuple):
    """A normalisation with given statistics: what turns a batch into a normalised one.

    Vectors are (C,), in the dtype of statistics. `number` is None if these are constants, and
    `group` if no other process shares them.
    """

    gain: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    number: Tensor | float | None
    group: ProcessGroup | None

    def apply(self, x: Tensor) -> Tensor:
        """Normalises x (N, C, *), into a new tensor of its dtype."""
        return F.batch_norm(
            x, self.mean, self.variance, self.gain, self.bias, training=False, eps=self.eps
        )

    def scale(self) -> Tensor:
        """One over the standard deviation: (C,)."""
        return torch.rsqrt(self.variance + self.eps)


def check_slope(negative_slope: float) -> None:
    """Refuses a slope that makes the activation impossible to invert.

    Raises:
        ValueError: if it is not positive.
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
    """The activation's input and that input's gradient, from its output and the output's."""
    if negative_slope == 1:
        return output, gradient
    gradient = torch.ops.aten.leaky_relu_backward(gradient, output, negative_slope, True)
    return F.leaky_relu(output, 1 / negative_slope), gradient


class _InPlaceABN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, negative_slope: float, *fields: Any
    ) -> Tensor:
        transform = Transform(*fields)
        output = activate(transform.apply(x), residual, negative_slope)
        ctx.save_for_backward(output, residual, transform.gain, transform.bias, transform.scale())
        ctx.rest = negative_slope, transform.number, transform.group, x.dtype
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        output, residual, gain, bias, scale = ctx.saved_tensors
        slope, number, group, dtype = ctx.rest
        wide = scale.dtype
        before, gradient = deactivate(output.to(wide), gradient.to(wide), slope)
        if residual is not None:
            before = before - residual
        grad_input, grad_gain, grad_bias = pull_back(
            gradient, before, bias, 1 / gain, gain * scale, number, group
        )
        grad_residual = None if residual is None else gradient.to(residual.dtype)
        return grad_input.to(dtype), grad_residual, None, grad_gain, grad_bias, *[None] * 5
