"""Conversion of models between batch norm, synchronised batch norm and InPlaceABN."""

from collections import defaultdict
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _NormBase
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.norm.inplace_abn import InPlaceABN, check_slope
from ccnet.norm.residual import InPlaceBasicBlock, InPlaceBottleneck
from ccnet.norm.sync_batch_norm import SyncBatchNorm
from ccnet.options import named_options

Norm = TypeVar("Norm", bound=_NormBase)

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INVERTIBLE = (nn.BatchNorm2d, SyncBatchNorm, nn.SyncBatchNorm)
"""Norms that `convert_inplace_abn` converts; what is derived from them may do more."""


_IN_PLACE: dict[Any, Any] = {BasicBlock: InPlaceBasicBlock, Bottleneck: InPlaceBottleneck}
_ORIGINAL: dict[Any, Any] = {in_place: original for original, in_place in _IN_PLACE.items()}


@named_options()
def convert_sync_batchnorm(
    model: nn.Module, process_group: ProcessGroup | None = None
) -> nn.Module:
    """Converts batch norms to synchronised ones, which use the statistics of all processes.

    `BatchNorm1d`, `2d` and `3d` become `torch.nn.SyncBatchNorm` if they are on a CUDA device and
    `SyncBatchNorm` elsewhere, so move the model to its device first. They share the parameters and
    buffers, under the same names. `InPlaceABN` is set to synchronise. Hooks on replaced modules are
    lost.

    Args:
        model: changed in place.
        process_group: processes that share statistics; None for all.

    Returns:
        The model, or its replacement if it is a norm itself.

    Raises:
        ValueError: if a norm is of a class that is derived from batch norm. The model is then
            unchanged.
    """
    if isinstance(model, _PLAIN) and type(model) in _PLAIN:
        on_cuda = any(tensor.is_cuda for tensor in model.state_dict().values())
        kind = nn.SyncBatchNorm if on_cuda else SyncBatchNorm
        return _successor(model, kind, process_group=process_group)
    for path, module in model.named_modules():
        if isinstance(module, _PLAIN) and type(module) not in _PLAIN:
            raise ValueError(
                f"{path} is a {type(module).__name__}, which does more than a batch norm and would "
                "lose it: only plain batch norms can be synchronised"
            )
    replacements: dict[nn.Module, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, InPlaceABN):
            module.synchronized, module.process_group = True, process_group
        elif type(module) in _PLAIN:
            if module not in replacements:
                replacements[module] = convert_sync_batchnorm(module, process_group)
            model.set_submodule(path, replacements[module])
    return model


class NotInvertibleError(ValueError):
    """An activation cannot be inverted."""


class _Layer(NamedTuple):
    """The norm `name` of a parent module, after a convolution; slope None is no activation."""

    parent: nn.Module
    name: str
    convolution: nn.Conv2d
    slope: float | None


@named_options()
def convert_inplace_abn(model: nn.Module, negative_slope: float | None = None) -> nn.Module:
    """Fuses batch norms, activations and the residual sums of a ResNet into `InPlaceABN`.

    Converts torchvision's `BasicBlock` and `Bottleneck`, and in a `Sequential` each sequence of 2-D
    convolution, batch norm and ReLU or leaky ReLU. Other modules stay. The names in the state dict
    stay too. A network with leaky ReLUs keeps its function:

    - a weight w becomes abs(w) - eps, as the gain is now abs(weight) + eps; below eps the gain
      becomes eps, which is 1e-5 by default;
    - where w is negative, its sign moves into the convolution before the norm.

    So load weights before converting; `restore_batchnorm` converts back. Synchronised norms stay
    synchronised. Hooks on replaced norms and activations are lost.

    Args:
        model: changed in place.
        negative_slope: slope of the leaky ReLU that replaces every ReLU, which cannot be inverted.
            This changes the function. None rejects networks with ReLU.

    Returns:
        The model.

    Raises:
        NotInvertibleError: if there is a ReLU and no slope for it.
        ValueError: if the slope is not positive, one of these norms is in two places, or a
            convolution before negative weights is so or has a computed weight, as by weight norm.
            In each case the model is unchanged.
    """
    if negative_slope is not None:
        check_slope(negative_slope)
    layers: list[_Layer] = []
    blocks: list[nn.Module] = []
    for path, module in model.named_modules():
        if type(module) in _IN_PLACE and type(module.bn1) in _INVERTIBLE:
            blocks.append(module)
            layers += _layers_of_block(path, module, negative_slope)
        elif isinstance(module, nn.Sequential):
            layers += _layers_of_sequence(path, module, negative_slope)
    _refuse_shared(model, layers)
    for parent, name, convolution, slope in layers:
        norm: Any = parent.get_submodule(name)
        _make_positive(norm, convolution)
        settings = {
            "negative_slope": 1.0 if slope is None else slope,
            "synchronized": type(norm) not in _PLAIN,
            "process_group": getattr(norm, "process_group", None),
        }
        setattr(parent, name, _successor(norm, InPlaceABN, **settings))
        if isinstance(parent, nn.Sequential) and slope is not None:
            parent[int(name) + 1] = nn.Identity()
    for block in blocks:
        block.__class__ = _IN_PLACE[type(block)]
        block.relu = nn.Identity()
    return model


def restore_batchnorm(model: nn.Module) -> nn.Module:
    """Converts `InPlaceABN` back to batch norm and leaky ReLU, with the same function.

    For inference, export, and weights that a network without `InPlaceABN` can load. Each weight
    becomes the gain, abs(weight) + eps. `InPlaceABN` in other places than `convert_inplace_abn`
    puts it stays.

    Args:
        model: changed in place.

    Returns:
        The model.
    """
    modules: list[Any] = list(model.modules())
    for module in modules:
        if type(module) in _ORIGINAL:
            module.relu = nn.LeakyReLU(module.bn1.negative_slope, inplace=True)
            module.bn1, module.bn2 = _restored(module.bn1), _restored(module.bn2)
            if hasattr(module, "bn3"):
                module.bn3 = _restored(module.bn3)
            if isinstance(module.downsample, nn.Sequential):
                module.downsample[-1] = _restored(module.downsample[-1])
            module.__class__ = _ORIGINAL[type(module)]
        elif isinstance(module, nn.Sequential):
            for index, (norm, activation) in enumerate(pairwise(module)):
                if isinstance(norm, InPlaceABN) and isinstance(activation, nn.Identity):
                    module[index] = _restored(norm)
                    module[index + 1] = nn.LeakyReLU(norm.negative_slope, inplace=True)
    return model


def activation_slopes(model: nn.Module) -> set[float]:
    """Returns the negative slopes of all activations of a model: 0 stands for ReLU."""
    kinds = (nn.ReLU, nn.LeakyReLU, InPlaceABN)
    slopes = [getattr(m, "negative_slope", 0.0) for m in model.modules() if isinstance(m, kinds)]
    return {float(slope) for slope in slopes} - {1.0}  # 1 is no activation


def _restored(norm: nn.Module) -> nn.Module:
    if not isinstance(norm, InPlaceABN):
        return norm
    if norm.affine:
        with torch.no_grad():
            norm.weight.abs_().add_(norm.eps)
    restored = _successor(norm, nn.BatchNorm2d)
    return convert_sync_batchnorm(restored, norm.process_group) if norm.synchronized else restored


def _layers_of_block(path: str, block: Any, negative_slope: float | None) -> list[_Layer]:
    slope = _slope(block.relu, f"{path}.relu", negative_slope)
    layers = [
        _Layer(block, f"bn{number}", getattr(block, f"conv{number}"), slope)
        for number in (1, 2, 3)
        if hasattr(block, f"bn{number}")
    ]
    shortcut = block.downsample if isinstance(block.downsample, nn.Sequential) else ()
    match list(shortcut):
        case [*before, nn.Conv2d() as convolution, norm] if type(norm) in _INVERTIBLE:
            layers.append(_Layer(block.downsample, str(len(before) + 1), convolution, None))
    return layers


def _layers_of_sequence(
    path: str, sequence: nn.Sequential, negative_slope: float | None
) -> list[_Layer]:
    layers = []
    for index in range(len(sequence) - 2):
        convolution, norm, activation = sequence[index : index + 3]
        if (
            isinstance(convolution, nn.Conv2d)
            and type(norm) in _INVERTIBLE
            and isinstance(activation, nn.ReLU | nn.LeakyReLU)
        ):
            slope = _slope(activation, f"{path}.{index + 2}", negative_slope)
            layers.append(_Layer(sequence, str(index + 1), convolution, slope))
    return layers


def _slope(activation: nn.Module, path: str, negative_slope: float | None) -> float:
    own = getattr(activation, "negative_slope", 0.0)
    if own > 0:
        return float(own)
    if negative_slope is None:
        raise NotInvertibleError(
            f"{path} is {activation}, which cannot be inverted: use leaky ReLUs, or "
            "pass negative_slope, such as 0.01, to replace every ReLU by a leaky one"
        )
    return negative_slope


def _refuse_shared(model: nn.Module, layers: list[_Layer]) -> None:
    """Refuses layers into which a sign cannot be moved, or not without a change elsewhere."""
    owners = defaultdict[Any, list[str]](list)  # of modules and parameters: their places
    for path, module in model.named_modules():
        for name, part in (*module._modules.items(), *module._parameters.items()):
            if part is not None:
                owners[part].append(f"{path}.{name}" if path else name)
    for layer in layers:
        norm: Any = layer.parent.get_submodule(layer.name)
        changed = [norm]
        if norm.affine and not norm.weight.is_meta and (norm.weight < 0).any():
            changed.append(layer.convolution)
        for module in changed:
            for part in (module, *module._parameters.values()):
                if len(owners[part]) > 1:
                    raise ValueError(f"{' and '.join(owners[part])} are one: make copies of it")
        if not all(isinstance(one._parameters.get("weight"), nn.Parameter) for one in changed[1:]):
            raise ValueError(
                f"the weight of {owners[layer.convolution][0]} is computed from other parameters: "
                "remove weight norm, spectral norm and other parametrisations first"
            )


@torch.no_grad()
def _make_positive(norm: _NormBase, convolution: nn.Conv2d) -> None:
    """Moves the sign of a norm's gain w into its convolution; the new weight has gain abs(w)."""
    if not norm.affine:
        return
    sign = torch.where(norm.weight < 0, -1.0, 1.0)
    convolution.weight.mul_(sign.view(-1, 1, 1, 1))
    for vector in (convolution.bias, norm.running_mean):
        if vector is not None:
            vector.mul_(sign)
    norm.weight.abs_().sub_(norm.eps).clamp_(min=0)


def _successor(norm: _NormBase, kind: type[Norm], **settings: Any) -> Norm:
    """Returns a norm of another kind with the same settings, parameters and buffers."""
    shared = (norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    successor = kind(norm.num_features, *shared, **settings, device="meta")
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(successor, name, getattr(norm, name))
    return successor.train(norm.training)
