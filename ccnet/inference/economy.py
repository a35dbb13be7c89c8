"""Economy: a replica computes what its network does in less memory, up to rounding.

Norms write over what the convolution before them made, and shortcuts are added in bands. Maps that
a head would join it leaves apart, and maps are channels-last, which convolutions read and write
without copies. Wherever someone looks, by hooks or methods of their own, or gradients are recorded,
all is computed as ever.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.attention import CrissCrossAttention2d, criss_cross_attention
from ccnet.norm import InPlaceABN, SyncBatchNorm
from ccnet.norm.residual import InPlaceBasicBlock, InPlaceBottleneck

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm, InPlaceABN)

_DEVICES = {"cpu", "cuda", "meta"}
"""Types of devices whose norms may write over what they read."""

_BAND = 2**23
"""About how many values of a shortcut there are at a time."""


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
    own = [one for one in modules if one not in shared and not _is_observed(one)]
    for module in own:
        kind = type(module)
        if kind in _SIMPLE:
            module.__class__ = _SIMPLE[kind]
        elif kind in _BLOCKS and all(_overwrites(*layer) for layer in _layers(module)):
            module.__class__ = _BLOCKS[kind]
        elif "joins_maps" in vars(kind):
            _leave_apart(module, own)
        elif "is_channels_last" in vars(kind) and len(own) == len(modules):
            module.is_channels_last = True


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


class _Attention(CrissCrossAttention2d):
    """Attention that is scaled and added in place."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        attended = criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x))
        attended *= self.gamma.to(attended.dtype)
        return attended.add_(x) if attended.dtype == x.dtype else attended + x


_SIMPLE: dict[Any, Any] = {nn.Sequential: _Sequence, CrissCrossAttention2d: _Attention}


class _SplitConv2d(nn.Conv2d):
    """Convolution of maps that would be joined along the channels."""

    def forward(self, maps: Iterable[Tensor]) -> Tensor:
        """Maps (N, C1, H, W), (N, C2, H, W) and so on to (N, C', H', W')."""
        first, *others = maps
        start = first.shape[1]
        total = self._conv_forward(first, self.weight[:, :start], self.bias)
        for one in others:
            kernel = self.weight[:, start : start + one.shape[1]]
            total += self._conv_forward(one, kernel, None)
            start += one.shape[1]
        return total


class _Block(nn.Module):
    """Residual block of torchvision, of plain norms or of `InPlaceABN`."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        if torch.is_grad_enabled():
            return super().forward(x)
        out = x
        *layers, (convolution, last) = _layers(self)
        for before, norm in layers:
            out = self.relu(_activated(norm, _normalised(norm, before(out))))
        out = _normalised(last, convolution(out))
        _add_shortcut(out, x, self.downsample)
        return self.relu(_activated(last, out))


class _BasicBlock(_Block, BasicBlock):
    pass


class _Bottleneck(_Block, Bottleneck):
    pass


class _InPlaceBasicBlock(_Block, InPlaceBasicBlock):
    pass


class _InPlaceBottleneck(_Block, InPlaceBottleneck):
    pass


_BLOCKS: dict[Any, Any] = {
    BasicBlock: _BasicBlock,
    Bottleneck: _Bottleneck,
    InPlaceBasicBlock: _InPlaceBasicBlock,
    InPlaceBottleneck: _InPlaceBottleneck,
}


def _layers(block: Any) -> list[tuple[nn.Module, nn.Module]]:
    """The convolutions of a residual block, each with its norm."""
    numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
    return [(getattr(block, f"conv{one}"), getattr(block, f"bn{one}")) for one in numbers]


def _add_shortcut(out: Tensor, x: Tensor, downsample: nn.Module | None) -> None:
    """Adds the shortcut of x in place, in bands of rows if it is computed pixel by pixel."""
    if downsample is None:
        out += x
        return
    step, height = 1, out.shape[2]
    band = height
    if _is_pointwise(downsample):
        step = downsample[0].stride[0]
        band = max(1, _BAND // out[:, :, :1].numel())
    for top in range(0, height, band):
        rows = out[:, :, top : top + band]
        rows += downsample(x if band >= height else x[:, :, top * step : (top + band - 1) * step + 1])


def _is_pointwise(shortcut: nn.Module) -> bool:
    if type(shortcut) is not _Sequence or len(shortcut) != 2:
        return False
    convolution, norm = shortcut
    return (
        _overwrites(convolution, norm)
        and convolution.kernel_size == (1, 1)
        and convolution.padding == (0, 0)
    )


def _overwrites(convolution: nn.Module, norm: nn.Module) -> bool:
    """Whether a norm may write over what a convolution makes: nobody else has that."""
    return (
        type(convolution) in (nn.Conv2d, _SplitConv2d)
        and type(norm) in _NORMS
        and norm.running_mean is not None
        and norm.running_var is not None
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
    unused = mean.new_empty(0), mean.new_empty(0)
    torch.native_batch_norm(
        *(x, gain, bias, mean, variance, False, 0.0, norm.eps),
        out=(x, *unused),
    )
    return x


def _activated(norm: Any, x: Tensor) -> Tensor:
    """Applies the activation that a norm has, in place."""
    slope = getattr(norm, "negative_slope", 1.0)
    return x if slope == 1 else F.leaky_relu_(x, slope)


def _leave_apart(head: Any, own: Iterable[nn.Module]) -> None:
    """Has a head convolve maps apart that it would join before its bottleneck."""
    sequence = head.bottleneck
    convolution = sequence[0] if isinstance(sequence, nn.Sequential) and len(sequence) else None
    is_plain = type(convolution) is nn.Conv2d and convolution.groups == 1
    if is_plain and type(convolution.weight) in (nn.Parameter, Tensor):
        if convolution in own and sequence in own:
            convolution.__class__ = _SplitConv2d
            head.joins_maps = False


def _is_observed(module: nn.Module) -> bool:
    """Whether a module has hooks, or methods of its own in place of its class's."""
    kind = type(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in hooks) or any(
        callable(getattr(kind, name, None)) for name in vars(module)
    )
