"""Folding: norms with constant statistics become part of the convolutions before them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from ccnet.deployment.optimized.data_flow import sole_readers
from ccnet.economy.layers import is_observed
from ccnet.norm import InPlaceABN, SyncBatchNorm

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(SyncBatchNorm, InPlaceABN, FrozenBatchNorm2d),
)
_TIMM = {"Conv2dSame", "BatchNormAct2d", "FrozenBatchNormAct2d", "SyncBatchNormAct"}
"""Those of timm that are the same, and an activation `act` after a norm."""


def fold_norms(network: nn.Module, run: Callable[[], object]) -> int:
    """Folds each norm that alone reads a convolution into that, and leaves all other norms.

    So stay norms that compute the statistics of a batch, that come before a convolution or after
    another operation, whose convolution another module reads too, and any with a hook or a replaced
    method.

    Args:
        network: changed in place; in evaluation mode.
        run: calls it.

    Returns:
        The number of norms that were folded.
    """
    modules = [module for module in network.modules() if _is_foldable(module)]
    rests: dict[nn.Module, nn.Module] = {}
    for convolution, norm in sole_readers(modules, run).items():
        if _is_convolution(convolution) and not _is_convolution(norm):
            _fold(convolution, norm)
            rests[norm] = _activation_of(norm)
    replace_modules(network, rests)
    return len(rests)


def replace_modules(network: nn.Module, successors: Mapping[nn.Module, nn.Module]) -> None:
    """Replaces modules wherever they are in a network."""
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if module in successors:
            network.set_submodule(path, successors[module])


def _is_foldable(module: nn.Module) -> bool:
    if is_observed(module):
        return False
    if _is_convolution(module):
        return True
    is_norm = type(module) in _NORMS or _is_of_timm(module)
    return is_norm and module.running_mean is not None and module.running_var is not None


def _is_convolution(module: nn.Module) -> bool:
    is_plain = type(module) in _CONVOLUTIONS
    return is_plain or (isinstance(module, nn.Conv2d) and _is_of_timm(module))


def _is_of_timm(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.partition(".")[0] == "timm" and kind.__name__ in _TIMM


@torch.no_grad()
def _fold(convolution: Any, norm: Any) -> None:
    """Changes weight and bias of a convolution, computed in float64."""

    def exact(values: Tensor | None) -> Any:
        return None if values is None else values.detach().to("cpu", torch.float64)

    before, gain = convolution.weight, exact(norm.weight)
    if isinstance(norm, InPlaceABN) and gain is not None:
        gain = gain.abs() + norm.eps
    weight, bias = fuse_conv_bn_weights(
        exact(before),
        exact(convolution.bias),
        exact(norm.running_mean),
        exact(norm.running_var),
        norm.eps,
        gain,
        exact(norm.bias),
    )
    for name, values in (("weight", weight), ("bias", bias)):
        folded = values.detach().to(before.device, before.dtype)
        setattr(convolution, name, nn.Parameter(folded, requires_grad=False))


def _activation_of(norm: nn.Module) -> nn.Module:
    """Returns what is left of a folded norm."""
    if isinstance(norm, InPlaceABN) and norm.negative_slope != 1:
        return nn.LeakyReLU(norm.negative_slope, inplace=True)
    rest = getattr(norm, "act", None)
    return rest if isinstance(rest, nn.Module) else nn.Identity()
