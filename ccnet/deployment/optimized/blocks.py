"""Fused modules: what of a network computes sums and activations along with its convolutions."""

import copy

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.attention import CrissCrossAttention2d, criss_cross_attention
from ccnet.backbones.resnet import Stage
from ccnet.deployment.optimized.convolution import FusedConv2d
from ccnet.economy.layers import is_observed
from ccnet.heads import RCCAHead


class FusedBasicBlock(BasicBlock):
    """Residual block of two convolutions that have taken up everything but the shortcut."""

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W'); the result may be written over x."""
        out = self.conv1(x)
        return _add_shortcut(self.conv2, out, x, self.downsample, overwrite)


class FusedBottleneck(Bottleneck):
    """Residual block of three convolutions that have taken up everything but the shortcut."""

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W'); the result may be written over x."""
        out = self.conv2(self.conv1(x))
        return _add_shortcut(self.conv3, out, x, self.downsample, overwrite)


class FusedStage(Stage):
    """Residual blocks of one resolution, each of which writes over the output of the one before."""

    def forward(self, x: Tensor, *, checkpointed: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        is_own = False
        for block in self:
            is_fused = isinstance(block, FusedBasicBlock | FusedBottleneck)
            has_hooks = is_observed(block)  # which may keep its input and its output
            x = block(x, overwrite=is_own and not has_hooks) if is_fused else block(x)
            is_own = is_fused and not has_hooks
        return x


class FusedCrissCrossAttention2d(CrissCrossAttention2d):
    """Criss-cross attention whose `gamma` is part of the convolution of values."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C, H, W)."""
        attended = criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x))
        is_free = attended.dtype == x.dtype and not attended.requires_grad
        return attended.add_(x) if is_free else attended + x


class FusedHead(RCCAHead):
    """Head that leaves features and context apart, for a `SplitConvolution`."""

    def join(self, features: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both as they are."""
        return features, context


class SplitConvolution(nn.Module):
    """Convolution of features and context side by side, without a copy that joins them.

    Args:
        convolution: that of both.
        count: the number of channels of the features.
    """

    def __init__(self, convolution: FusedConv2d, count: int) -> None:
        super().__init__()
        self.of_features = _some_channels(convolution, slice(count))
        self.of_features.bias, self.of_features.negative_slope = None, 1.0
        self.of_context = _some_channels(convolution, slice(count, None))

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        """Maps (N, count, h, w) and (N, C - count, h, w) to (N, C', h, w)."""
        features, context = both
        total: Tensor = self.of_context(context, self.of_features(features), overwrite=True)
        return total


def _some_channels(convolution: FusedConv2d, channels: slice) -> FusedConv2d:
    part = copy.deepcopy(convolution)
    weight = convolution.weight[:, channels].clone()
    part.weight = nn.Parameter(weight, requires_grad=False)
    part.in_channels = weight.shape[1]
    return part


def _add_shortcut(
    last: FusedConv2d, out: Tensor, x: Tensor, downsample: nn.Module | None, overwrite: bool
) -> Tensor:
    total: Tensor
    if downsample is None:
        total = last(out, x, overwrite=overwrite)
    else:
        total = last(out, downsample(x), overwrite=_makes_its_own(downsample))
    return total


def _makes_its_own(shortcut: nn.Module) -> bool:
    """Whether what a shortcut returns is of a convolution, and in nobody else's hands."""
    layers = [one for one in shortcut.modules() if type(one) not in (nn.Sequential, nn.Identity)]
    is_made = bool(layers) and all(type(one) in (nn.Conv2d, FusedConv2d) for one in layers)
    return is_made and not any(is_observed(one) for one in shortcut.modules())
