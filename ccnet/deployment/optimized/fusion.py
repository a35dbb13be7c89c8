"""Fusion: residual sums and activations become part of the convolutions before them."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.attention import CrissCrossAttention2d
from ccnet.backbones.resnet import Stage
from ccnet.deployment.optimized.blocks import (
    FusedBasicBlock,
    FusedBottleneck,
    FusedCrissCrossAttention2d,
    FusedHead,
    FusedStage,
    SplitConvolution,
)
from ccnet.deployment.optimized.convolution import FusedConv2d
from ccnet.deployment.optimized.data_flow import sole_readers
from ccnet.deployment.optimized.folding import replace_modules
from ccnet.economy.layers import has_own_methods, is_observed
from ccnet.heads import RCCAHead

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)

_FUSED: dict[Any, Any] = {BasicBlock: FusedBasicBlock, Bottleneck: FusedBottleneck}


def fuse_activations(network: nn.Module, run: Callable[[], object]) -> None:
    """Fuses residual blocks of torchvision, activations that alone read a convolution, and heads.

    Args:
        network: changed in place, after its norms were folded; in evaluation mode.
        run: calls it.
    """
    for module in list(network.modules()):
        if has_own_methods(module):
            continue
        if type(module) in _FUSED:
            _fuse_block(module)
        elif type(module) is Stage:
            module.__class__ = FusedStage
        elif type(module) is CrissCrossAttention2d:
            _fuse_gamma(module)
    modules = [one for one in network.modules() if _can_follow(one) or _is_plain(one)]
    taken_up: dict[nn.Module, nn.Module] = {}
    for convolution, activation in sole_readers(modules, run).items():
        if isinstance(convolution, nn.Conv2d) and _can_follow(activation):
            FusedConv2d.convert(convolution, _slope(activation))
            taken_up[activation] = nn.Identity()
    replace_modules(network, taken_up)
    for module in list(network.modules()):
        if type(module) is RCCAHead and not has_own_methods(module):
            _split_bottleneck(module)


def _fuse_block(block: Any) -> None:
    numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
    convolutions = [getattr(block, f"conv{number}") for number in numbers]
    norms = [getattr(block, f"bn{number}") for number in numbers]
    is_folded = all(type(norm) is nn.Identity and not is_observed(norm) for norm in norms)
    if is_folded and all(map(_is_plain, convolutions)) and _can_follow(block.relu):
        for convolution in convolutions:
            FusedConv2d.convert(convolution, _slope(block.relu))
        block.__class__ = _FUSED[type(block)]
        block.relu = nn.Identity()


@torch.no_grad()
def _fuse_gamma(attention: CrissCrossAttention2d) -> None:
    """Attention is linear in its values, so that a factor of it may be one of theirs."""
    if not _is_plain(attention.value_conv) or attention.gamma.numel() != 1:
        return
    values: Any = copy.deepcopy(attention.value_conv)
    for parameter in values.parameters():
        parameter.mul_(attention.gamma)
    attention.value_conv = values
    attention.gamma = nn.Parameter(torch.ones_like(attention.gamma), requires_grad=False)
    attention.__class__ = FusedCrissCrossAttention2d


def _split_bottleneck(head: RCCAHead) -> None:
    convolution, *rest = head.bottleneck
    is_alone = all(type(one) is nn.Identity for one in rest)
    if not (is_alone and type(convolution) is FusedConv2d) or any(
        map(is_observed, head.bottleneck.modules())
    ):
        return
    split = SplitConvolution(convolution, convolution.in_channels - head.channels)
    head.bottleneck = nn.Sequential(split)
    head.__class__ = FusedHead


def _is_plain(module: nn.Module) -> bool:
    is_plain = type(module) is nn.Conv2d and module.padding_mode == "zeros"
    return is_plain and not isinstance(module.padding, str) and not is_observed(module)


def _can_follow(module: nn.Module) -> bool:
    return type(module) in _ACTIVATIONS and not is_observed(module)


def _slope(activation: nn.Module) -> float:
    return float(getattr(activation, "negative_slope", 0.0))
