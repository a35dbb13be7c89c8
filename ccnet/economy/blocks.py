"""Residual blocks that add in bands, over their input if nobody else has it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.backbones.resnet import Stage
from ccnet.economy.layers import activated, normalised, overwrites
from ccnet.norm.residual import InPlaceBasicBlock, InPlaceBottleneck

_BANDS, _LEAST = 4, 2**23
"""In how many bands large maps are added, and how many values those have."""


class EconomicalSequence(nn.Sequential):
    """Modules that follow each other, of which norms write over the results of convolutions."""

    def forward(self, x: Any) -> Any:
        """Applies one module after the other."""
        previous = None
        for module in self:
            if not torch.is_grad_enabled() and overwrites(previous, module):
                x = activated(module, normalised(module, x))
            else:
                x = module(x)
            previous = module
        return x


class EconomicalStage(Stage):
    """Residual blocks, each of which may write over the output of the one before."""

    def forward(self, x: Tensor, *, checkpointed: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        if checkpointed:
            return super().forward(x, checkpointed=True)
        is_own = False
        for block in self:
            is_economical = isinstance(block, _Block)  # so nobody has its output
            x = block(x, overwrite=is_own) if is_economical else block(x)
            is_own = is_economical
        return x


class _Block(nn.Module):
    """Residual block of torchvision, with plain norms or `InPlaceABN`."""

    relu: nn.Module
    downsample: nn.Module | None

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W'); the result may be written over x."""
        if torch.is_grad_enabled():
            ordinary: Tensor = super().forward(x)  # that of torchvision
            return ordinary
        out = x
        *before, (convolution, last) = layers_of(self)
        for first, norm in before:
            out = self.relu(activated(norm, normalised(norm, first(out))))
        if self.downsample is None and overwrite and _is_pointwise(convolution):
            _add_in_bands(x, lambda rows: normalised(last, convolution(rows)), out, convolution)
            out = x
        else:
            out = normalised(last, convolution(out))
            if self.downsample is None:
                out += x
            else:
                _add_in_bands(out, self.downsample, x, _pointwise_part(self.downsample))
        result: Tensor = self.relu(activated(last, out))
        return result


class _BasicBlock(_Block, BasicBlock):
    pass


class _Bottleneck(_Block, Bottleneck):
    pass


class _InPlaceBasicBlock(_Block, InPlaceBasicBlock):
    pass


class _InPlaceBottleneck(_Block, InPlaceBottleneck):
    pass


BLOCKS: dict[Any, Any] = {
    BasicBlock: _BasicBlock,
    Bottleneck: _Bottleneck,
    InPlaceBasicBlock: _InPlaceBasicBlock,
    InPlaceBottleneck: _InPlaceBottleneck,
}


def layers_of(block: Any) -> list[tuple[nn.Module, nn.Module]]:
    """The convolutions of a residual block, each with its norm."""
    numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
    return [(getattr(block, f"conv{one}"), getattr(block, f"bn{one}")) for one in numbers]


def _add_in_bands(
    total: Tensor, layer: Callable[[Tensor], Tensor], x: Tensor, pointwise: Any
) -> None:
    """Adds what a layer makes of x in place.

    Args:
        total: (N, C, H, W).
        layer: maps x to such a tensor.
        x: (N, C', H', W').
        pointwise: the only convolution of the layer if it computes pixel by pixel, so that bands
            of rows are possible; None if not.
    """
    height = total.shape[2]
    if pointwise is None or total.numel() < _LEAST:
        total += layer(x)
        return
    stride, band = pointwise.stride[0], -(-height // _BANDS)
    for top in range(0, height, band):
        rows = total[:, :, top : top + band]
        end = (top + rows.shape[2] - 1) * stride + 1
        rows += layer(x[:, :, top * stride : end])


def _pointwise_part(shortcut: Any) -> nn.Module | None:
    """The convolution of a shortcut that computes pixel by pixel; None if it does not."""
    if type(shortcut) is not EconomicalSequence or len(shortcut) != 2 or not overwrites(*shortcut):
        return None
    convolution: nn.Module = shortcut[0]
    return convolution if _is_pointwise(convolution) else None


def _is_pointwise(convolution: Any) -> bool:
    return bool(convolution.kernel_size == (1, 1) and convolution.padding == (0, 0))
