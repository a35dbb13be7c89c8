"""Economy: a replica of a network computes the same in less memory, up to rounding.

Norms write over what the convolution before them made, residual blocks add in bands, the last ones
over their input, and the bottleneck of the head takes its maps apart. Maps are channels-last, which
convolutions read and write without copies. Wherever someone looks, by hooks or methods of their
own, or gradients are recorded, all is computed as ever.
"""

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.attention import CrissCrossAttention2d, criss_cross_attention
from ccnet.backbones.resnet import Backbone, Stage
from ccnet.economy.blocks import BLOCKS, EconomicalSequence, EconomicalStage, layers_of
from ccnet.economy.layers import (
    NORMS,
    SplitConv2d,
    has_plain_tensors,
    is_observed,
    overwrites,
    slope_of,
)
from ccnet.heads import RCCAHead
from ccnet.norm.residual import InPlaceBasicBlock, InPlaceBottleneck


def economise(replica: nn.Module, model: nn.Module | None = None) -> None:
    """Has a replica compute what its network does in less memory.

    Args:
        replica: in evaluation mode. Its modules are changed in place, tensors are not.
        model: whose modules stay as they are if the replica has some of them; None for none.
    """
    if _is_changed_everywhere():
        return
    modules = list(replica.modules())
    shared = set() if model is None else set(model.modules())
    own = {one for one in modules if one not in shared and not is_observed(one)}
    for module in modules:
        if module in own and type(module) in _ECONOMICAL:
            _change(module, own)
    backbones = [one for one in modules if type(one) is Backbone]
    if len(own) == len(modules):  # nobody sees in which order maps are
        for backbone in backbones:
            if type(backbone.stem) is EconomicalSequence:
                backbone.stem.__class__ = _ChannelsLast


def is_watched(model: nn.Module) -> bool:
    """Whether someone looks at what a network computes within, so that all is as ever in places."""
    return _is_changed_everywhere() or any(map(is_observed, model.modules()))


def _is_changed_everywhere() -> bool:
    """Whether there are hooks of all modules, or methods that were replaced in their classes."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return True
    return any(getattr(kind, name) is not method for (kind, name), method in _METHODS.items())


def _change(module: Any, own: Collection[nn.Module]) -> None:
    """Changes the class of a module, if what it consists of allows for that and gains by it."""
    if type(module) is nn.Sequential and not any(overwrites(*pair) for pair in pairwise(module)):
        return
    if isinstance(module, BasicBlock | Bottleneck):
        layers, parts = layers_of(module), set(module.modules())
        is_known = all(overwrites(*layer) for layer in layers) and parts <= set(own)
        # A last norm activates before the sum, unless it makes the sum.
        sums = isinstance(module, InPlaceBasicBlock | InPlaceBottleneck)
        if not is_known or not (sums or slope_of(layers[-1][1]) == 1):
            return
    if isinstance(module, RCCAHead):
        convolution = next(module.bottleneck.children(), None)
        if not _can_split(module.bottleneck, convolution, own):
            return
        convolution.__class__ = SplitConv2d
    module.__class__ = _ECONOMICAL[type(module)]


def _can_split(bottleneck: nn.Module, convolution: Any, own: Collection[nn.Module]) -> bool:
    """Whether a bottleneck takes maps only to give them to its first convolution, in two parts."""
    is_sequence = type(bottleneck) in (nn.Sequential, EconomicalSequence)
    is_plain = type(convolution) is nn.Conv2d and convolution.groups == 1
    is_whole = is_sequence and is_plain and {bottleneck, convolution} <= set(own)
    return is_whole and has_plain_tensors(convolution)


class _ChannelsLast(EconomicalSequence):
    """A sequence of modules that take maps channels-last."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.contiguous(memory_format=torch.channels_last))


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


_ECONOMICAL: dict[Any, Any] = {
    nn.Sequential: EconomicalSequence,
    Stage: EconomicalStage,
    **BLOCKS,
    CrissCrossAttention2d: _Attention,
    RCCAHead: _Head,
}

_METHODS = {
    (kind, name): getattr(kind, name)
    for kind in (*_ECONOMICAL, *NORMS, nn.Conv2d)
    for name in ("__call__", "forward", "join")
    if hasattr(kind, name)
}
"""The methods in whose place others compute, as they are when this is imported."""
