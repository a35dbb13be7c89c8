"""Economy: a replica of a network computes the same in less memory, up to rounding.

Norms write over what the convolution before them made, residual blocks add in bands, the last ones
over their input, and the bottleneck of the head takes its maps apart. Maps are channels-last, which
convolutions read and write without copies. Wherever someone looks, by hooks or methods of their
own, or gradients are recorded, all is computed as ever.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.attention import CrissCrossAttention2d, criss_cross_attention
from ccnet.backbones.resnet import Backbone, Stage
from ccnet.heads import RCCAHead
from ccnet.norm import InPlaceABN, SyncBatchNorm
from ccnet.norm.residual import InPlaceBasicBlock, InPlaceBottleneck

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm, InPlaceABN)

_DEVICES = {"cpu", "cuda", "meta"}
"""Types of devices whose norms may write over what they read."""

_BANDS, _LEAST = 4, 2**23
"""In how many bands large maps are added, and how many values those have."""


def economise(replica: nn.Module, model: nn.Module | None = None) -> None:
    """Has a replica compute what its network does in less memory.

    Args:
        replica: in evaluation mode. Its modules are changed in place, tensors are not.
        model: whose modules stay as they are if the replica has some of them; None for none.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return
    modules = list(replica.modules())
    shared = set() if model is None else set(model.modules())
    own = {one for one in modules if one not in shared and not _is_observed(one)}
    for module in modules:
        if module in own and type(module) in _ECONOMICAL:
            _change(module, own)
    backbones = [one for one in modules if type(one) is Backbone]
    if len(own) == len(modules):  # nobody sees in which order maps are
        for backbone in backbones:
            if type(backbone.stem) is _Sequence:
                backbone.stem.__class__ = _ChannelsLast


def _change(module: Any, own: Collection[nn.Module]) -> None:
    """Changes the class of a module, if what it consists of allows for that."""
    if isinstance(module, BasicBlock | Bottleneck):
        if not all(_overwrites(*layer) for layer in _layers(module)):
            return
    if isinstance(module, RCCAHead):
        sequence = module.bottleneck
        if type(sequence) not in (nn.Sequential, _Sequence) or sequence not in own:
            return
        convolution = sequence[0]
        is_plain = type(convolution) is nn.Conv2d and convolution.groups == 1
        if convolution not in own or not (is_plain and _has_plain_tensors(convolution)):
            return
        convolution.__class__ = _SplitConv2d
    module.__class__ = _ECONOMICAL[type(module)]


class _Sequence(nn.Sequential):
    """Modules that follow each other, of which norms write over the results of convolutions."""

    def forward(self, x: Any) -> Any:
        previous = None
        for module in self:
            if previous is not None and _overwrites(previous, module):
                x = _activated(module, _normalised(module, x))
            else:
                x = module(x)
            previous = module
        return x


class _ChannelsLast(_Sequence):
    """A sequence of modules that take maps channels-last."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class _Stage(Stage):
    """Residual blocks, each of which may write over the output of the one before."""

    def forward(self, x: Tensor, *, checkpointed: bool = False) -> Tensor:
        if checkpointed:
            return super().forward(x, checkpointed=True)
        is_own = False
        for block in self:
            is_block = isinstance(block, _Block) and not _is_observed(block)
            x = block(x, overwrite=is_own) if is_block else block(x)
            is_own = is_block
        return x


class _Block(nn.Module):
    """Residual block of torchvision, with plain norms or `InPlaceABN`."""

    relu: nn.Module
    downsample: nn.Module | None

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W'); the result may be written over x."""
        if torch.is_grad_enabled():
            full: Tensor = super().forward(x)  # type: ignore[misc]  # torchvision's
            return full
        out = x
        *layers, (convolution, last) = _layers(self)
        for before, norm in layers:
            out = self.relu(_activated(norm, _normalised(norm, before(out))))
        if self.downsample is None and overwrite and _is_pointwise(convolution):
            _add_in_bands(x, lambda rows: _normalised(last, convolution(rows)), out, convolution)
            out = x
        else:
            out = _normalised(last, convolution(out))
            if self.downsample is None:
                out += x
            else:
                _add_in_bands(out, self.downsample, x, _pointwise_part(self.downsample))
        activated: Tensor = self.relu(_activated(last, out))
        return activated


class _BasicBlock(_Block, BasicBlock):
    pass


class _Bottleneck(_Block, Bottleneck):
    pass


class _InPlaceBasicBlock(_Block, InPlaceBasicBlock):
    pass


class _InPlaceBottleneck(_Block, InPlaceBottleneck):
    pass


class _Attention(CrissCrossAttention2d):
    """Attention that is scaled and added in place."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        attended = criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x))
        attended *= self.gamma.to(attended.dtype)
        return attended.add_(x) if attended.dtype == x.dtype else attended + x


class _Head(RCCAHead):
    """Head whose bottleneck takes features and context apart."""

    def join(self, features: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return features, context


class _SplitConv2d(nn.Conv2d):
    """Convolution of two maps that would be joined along the channels."""

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        """Maps (N, C1, H, W) and (N, C2, H, W) to (N, C', H', W')."""
        kernels = self.weight.split([one.shape[1] for one in maps], dim=1)
        total = self._conv_forward(maps[0], kernels[0], self.bias)
        total += self._conv_forward(maps[1], kernels[1], None)
        return total


_ECONOMICAL: dict[Any, Any] = {
    nn.Sequential: _Sequence,
    Stage: _Stage,
    BasicBlock: _BasicBlock,
    Bottleneck: _Bottleneck,
    InPlaceBasicBlock: _InPlaceBasicBlock,
    InPlaceBottleneck: _InPlaceBottleneck,
    CrissCrossAttention2d: _Attention,
    RCCAHead: _Head,
}


def _layers(block: Any) -> list[tuple[nn.Module, nn.Module]]:
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
    if type(shortcut) is not _Sequence or len(shortcut) != 2 or not _overwrites(*shortcut):
        return None
    convolution: nn.Module = shortcut[0]
    return convolution if _is_pointwise(convolution) else None


def _is_pointwise(convolution: Any) -> bool:
    return convolution.kernel_size == (1, 1) and convolution.padding == (0, 0)


def _overwrites(convolution: nn.Module, norm: Any) -> bool:
    """Whether a norm may write over what a convolution makes: nobody else has that."""
    return (
        type(convolution) in (nn.Conv2d, _SplitConv2d)
        and type(norm) in _NORMS
        and norm.running_mean is not None
        and norm.running_var is not None
        and _has_plain_tensors(norm)
        and not (_is_observed(convolution) or _is_observed(norm))
    )


def _normalised(norm: Any, x: Tensor) -> Tensor:
    """Normalises in place, without the activation that a norm may have."""
    gain, bias = norm.weight, norm.bias
    mean, variance = norm.running_mean, norm.running_var
    if isinstance(norm, InPlaceABN):
        gain, bias, (mean, variance, *_) = norm.transform(x)
    if torch.is_grad_enabled() or type(x) is not Tensor or x.device.type not in _DEVICES:
        return F.batch_norm(x, mean, variance, gain, bias, training=False, eps=norm.eps)
    statistics = mean.new_empty(0), mean.new_empty(0)  # of a batch, of which there are none
    torch.native_batch_norm(
        *(x, gain, bias, mean, variance, False, 0.0, norm.eps), out=(x, *statistics)
    )
    return x


def _activated(norm: Any, x: Tensor) -> Tensor:
    """Applies the activation that a norm has, in place."""
    slope = getattr(norm, "negative_slope", 1.0)
    return x if slope == 1 else F.leaky_relu_(x, slope)


def _has_plain_tensors(module: nn.Module) -> bool:
    tensors = (*module._parameters.values(), *module._buffers.values())
    return all(type(one) in (nn.Parameter, Tensor) for one in tensors if one is not None)


def _is_observed(module: nn.Module) -> bool:
    """Whether a module has hooks, or methods of its own in place of those of its class."""
    kind = type(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in hooks) or any(
        callable(getattr(kind, name, None)) for name in vars(module)
    )
