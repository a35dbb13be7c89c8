"""Residual blocks of torchvision with `InPlaceABN`, whose last norm adds the shortcut.

A shortcut with a convolution (one per stage of a ResNet) is not saved for the backward pass either:
it is recomputed from the block's input, which is saved anyway.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.norm.inplace_abn import (
    InPlaceABN,
    Statistics,
    Transform,
    activate,
    deactivate,
)
from ccnet.norm.moments import pull_back


class InPlaceBasicBlock(BasicBlock):
    """Residual block of two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        out = self.bn1(self.conv1(x))
        return _add_shortcut(self.bn2, self.conv2(out), x, self.downsample)


class InPlaceBottleneck(Bottleneck):
    """Residual block of three convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        out = self.bn1(self.conv1(x))
        out = self.bn2(self.conv2(out))
        return _add_shortcut(self.bn3, self.conv3(out), x, self.downsample)


def _add_shortcut(norm: InPlaceABN, out: Tensor, x: Tensor, downsample: nn.Module | None) -> Tensor:
    layers = [] if downsample is None else list(downsample.children())
    total: Tensor
    match layers:
        case [nn.Conv2d(padding_mode="zeros") as convolution, InPlaceABN(negative_slope=1) as last]:
            if torch.is_grad_enabled():
                projected = convolution(x)
                total = _ProjectedSum.apply(
                    *(out, *norm.transform(out)),
                    *(projected, *last.transform(projected)),
                    *(x.detach(), convolution, norm.negative_slope),
                )
                return total
    total = norm(out, x if downsample is None else downsample(x))
    return total


class _ProjectedSum(torch.autograd.Function):
    """Last norm, shortcut norm, residual sum and activation of a block; saves its output."""

    @staticmethod
    def forward(
        ctx: Any,
        out: Tensor,
        gain: Tensor,
        bias: Tensor,
        statistics: Statistics,
        projected: Tensor,
        projected_gain: Tensor,
        projected_bias: Tensor,
        projected_statistics: Statistics,
        x: Tensor,
        convolution: nn.Conv2d,
        negative_slope: float,
    ) -> Tensor:
        shortcut = Transform(projected_gain, projected_bias, projected_statistics)
        main = Transform(gain, bias, statistics)
        output = activate(main.apply(out), shortcut.apply(projected), negative_slope)
        ctx.save_for_backward(
            *(output, x, convolution.weight, convolution.bias),
            *(gain, bias, statistics.scale, projected_gain, projected_bias),
        )
        ctx.convolution, ctx.negative_slope = convolution, negative_slope
        ctx.dtypes = out.dtype, projected.dtype
        ctx.number, ctx.group = statistics.number, statistics.group
        ctx.projected_statistics = projected_statistics
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        output, x, kernel, offset, *affine = ctx.saved_tensors
        gain, bias, scale, projected_gain, projected_bias = affine
        dtype, projected_dtype = ctx.dtypes
        statistics = ctx.projected_statistics
        projected = _convolve(ctx.convolution, x, kernel, offset, projected_dtype)
        shortcut = Transform(projected_gain, projected_bias, statistics)
        wide = scale.dtype
        before, gradient = deactivate(output.to(wide), gradient.to(wide), ctx.negative_slope)
        before = before - shortcut.apply(projected)
        grad_out, grad_gain, grad_bias = pull_back(
            gradient, before, bias, 1 / gain, gain * scale, ctx.number, ctx.group
        )
        grad_projected, grad_projected_gain, grad_projected_bias = pull_back(
            *(gradient, projected.to(wide), statistics.mean, statistics.scale),
            *(shortcut.gain * statistics.scale, statistics.number, statistics.group),
        )
        return (
            *(grad_out.to(dtype), grad_gain, grad_bias, None),
            *(grad_projected.to(projected_dtype), grad_projected_gain, grad_projected_bias, None),
            *(None, None, None),
        )


def _convolve(
    convolution: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Repeats the convolution of the forward pass in its dtype, with or without autocast."""
    x, weight = x.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    geometry = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    return F.conv2d(x, weight, bias, *geometry)
