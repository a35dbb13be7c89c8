"""torchvision's residual blocks on `InPlaceABN`, the residual sum part of the last one.

A block with a convolution in its shortcut does not keep the shortcut either: backward computes it
again from the block's input, which is kept anyway. In the ResNets that is one block a stage.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.norm.inplace_abn import InPlaceABN, Transform, activate, deactivate
from ccnet.norm.moments import pull_back


class InPlaceBasicBlock(BasicBlock):
    """The block of two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        out = self.bn1(self.conv1(x))
        return _add_shortcut(self.bn2, self.conv2(out), x, self.downsample)


class InPlaceBottleneck(Bottleneck):
    """The block of three convolutions."""

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
                    *(out, projected, x.detach(), convolution, norm.negative_slope),
                    *(*norm.transform(out), *last.transform(projected)),
                )
                return total
    total = norm(out, x if downsample is None else downsample(x))
    return total


class _ProjectedSum(torch.autograd.Function):
    """Both norms of a block's end, the residual sum and the activation, keeping only the output."""

    @staticmethod
    def forward(
        ctx: Any,
        out: Tensor,
        projected: Tensor,
        x: Tensor,
        convolution: nn.Conv2d,
        negative_slope: float,
        *fields: Any,
    ) -> Tensor:
        first, second = Transform(*fields[:7]), Transform(*fields[7:])
        output = activate(first.apply(out), second.apply(projected), negative_slope)
        ctx.save_for_backward(
            *(output, x, convolution.weight, convolution.bias),
            *(first.gain, first.bias, first.scale(), *second[:4]),
        )
        ctx.rest = convolution, negative_slope, first[5:], second[4:], out.dtype, projected.dtype
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        output, x, kernel, offset, gain, bias, scale, *vectors = ctx.saved_tensors
        convolution, slope, rest, rest_2, dtype, dtype_2 = ctx.rest
        projected = _convolve(convolution, x, kernel, offset, dtype_2)
        second = Transform(*vectors, *rest_2)
        wide = scale.dtype
        before, gradient = deactivate(output.to(wide), gradient.to(wide), slope)
        before = before - second.apply(projected)
        grad_out, *grads = pull_back(gradient, before, bias, 1 / gain, gain * scale, *rest)
        scale_2 = second.scale()
        factor_2 = second.gain * scale_2
        grad_projected, *grads_2 = pull_back(
            gradient, projected.to(wide), second.mean, scale_2, factor_2, *rest_2[1:]
        )
        nothing = [None] * 5
        return (
            *(grad_out.to(dtype), grad_projected.to(dtype_2), *nothing[:3]),
            *(*grads, *nothing, *grads_2, *nothing),
        )


def _convolve(
    convolution: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """What the convolution made of x in the forward pass, autocast or not."""
    x, weight = x.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    geometry = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    return F.conv2d(x, weight, bias, *geometry)
