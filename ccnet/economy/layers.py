"""Layers of little memory: norms that write over their input, convolutions of two maps apart."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.norm import InPlaceABN, SyncBatchNorm

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm, InPlaceABN)

_DEVICES = {"cpu", "cuda", "meta"}
"""Types of devices whose norms may write over what they read."""


class SplitConv2d(nn.Conv2d):
    """Convolution of two maps that would be joined along the channels, or of one that is."""

    def forward(self, maps: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Maps (N, C1, H, W) and (N, C2, H, W), or (N, C1 + C2, H, W), to (N, C', H', W')."""
        if isinstance(maps, Tensor):
            joined: Tensor = super().forward(maps)
            return joined
        kernels = self.weight.split([one.shape[1] for one in maps], dim=1)
        total: Tensor = self._conv_forward(maps[0], kernels[0], self.bias)
        total += self._conv_forward(maps[1], kernels[1], None)
        return total


def overwrites(convolution: nn.Module | None, norm: Any) -> bool:
    """Whether a norm may write over what a convolution makes: nobody else has that."""
    return (
        type(convolution) in (nn.Conv2d, SplitConv2d)
        and type(norm) in NORMS
        and norm.running_mean is not None
        and norm.running_var is not None
        and has_plain_tensors(norm)
        and not any(map(is_observed, (convolution, norm)))
    )


def normalised(norm: Any, x: Tensor) -> Tensor:
    """Normalises in place, without the activation that a norm may have."""
    gain, bias = norm.weight, norm.bias
    mean, variance = norm.running_mean, norm.running_var
    if isinstance(norm, InPlaceABN):
        gain, bias, (mean, variance, *_) = norm.transform(x)
    if type(x) is not Tensor or x.device.type not in _DEVICES:
        return F.batch_norm(x, mean, variance, gain, bias, training=False, eps=norm.eps)
    statistics = mean.new_empty(0), mean.new_empty(0)  # of a batch, of which there are none
    torch.native_batch_norm(
        *(x, gain, bias, mean, variance, False, 0.0, norm.eps), out=(x, *statistics)
    )
    return x


def activated(norm: Any, x: Tensor) -> Tensor:
    """Applies the activation that a norm has, in place."""
    slope = slope_of(norm)
    return x if slope == 1 else F.leaky_relu_(x, slope)


def slope_of(norm: nn.Module) -> float:
    """The negative slope of the activation that a norm has; 1 for none."""
    return float(getattr(norm, "negative_slope", 1.0))


def has_plain_tensors(module: nn.Module) -> bool:
    """Whether parameters and buffers are ordinary tensors: not sharded or quantised, say."""
    tensors = (*module._parameters.values(), *module._buffers.values())
    return all(type(one) in (nn.Parameter, Tensor) for one in tensors if one is not None)


def is_observed(module: nn.Module) -> bool:
    """Whether a module has hooks or methods of its own, to which what it takes matters."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in hooks) or has_own_methods(module)


def has_own_methods(module: nn.Module) -> bool:
    """Whether methods, such as `forward`, were replaced on a module itself, not in its class."""
    kind = type(module)
    return any(callable(getattr(kind, name, None)) for name in vars(module))
