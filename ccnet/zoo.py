"""Model builders: CCNet on any backbone, untrained or with pretrained weights."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from ccnet.backbones import TIMM, TimmBackbone, load_timm
from ccnet.classes import complete_arguments
from ccnet.model import CCNet
from ccnet.options import ANY_SIZE, check_options, options_of
from ccnet.reconfiguration import adapted_preprocessing, adapted_to_channels
from ccnet.weights.assumptions import settle
from ccnet.weights.backbones import is_file_name, read_backbone
from ccnet.weights.conversion import convert_backbone
from ccnet.weights.downloads import load_registered
from ccnet.weights.imagenet import load_imagenet
from ccnet.weights.model_card import inherited_details
from ccnet.weights.registry import BackboneWeights
from ccnet.weights.serialization import load_strictly
from ccnet.weights.sources import WeightsLike, load_weights

_HINTS = {
    "pretrained": 'weights="DEFAULT" gives a pretrained network, weights=None an untrained one',
    "pretrained_backbone": 'weights_backbone="DEFAULT" gives a pretrained backbone',
    "backbone": "each builder has its own: ccnet_resnet18, ccnet_resnet50, ccnet_resnet101",
    "device": "move the network: model.to(device)",
    **ANY_SIZE,
}
"""What to do in place of options that other libraries have."""


def ccnet_resnet18(
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsEnum | str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """Builds CCNet on ResNet-18, with the 7x7 stem: 13 million parameters.

    Args:
        weights: a member of `CCNet_ResNet18_Weights` or its name; the path of a .safetensors file,
            of a folder that `save_pretrained` wrote, or of a checkpoint of another code base
            (`weights.conversion`); "hf://owner/name@revision" on the Hugging Face Hub; a loaded
            `weights.ModelWeights`; or None for an untrained network.
        weights_backbone: weights of the backbone alone: ImageNet's, as a member of
            `BackboneWeights` or of torchvision's enum for this ResNet, its name, or "DEFAULT"; or
            the path of a file that `weights.backbones.read_backbone` reads.
        num_classes: if it differs from that of the weights, the classifiers start untrained; the
            default is that of the weights, or 19.
        recurrence: number of loops of criss-cross attention; by default that of the weights, or 2.
        progress: show a progress bar for downloads.
        config: further arguments of `CCNet`, which replace those of the weights
            (`backbone_options` one by one), or `categories`: the class names.

    Returns:
        The model, in evaluation mode if it has weights, also where parts of it start untrained: to
        train it, call `model.train()`. It has the auxiliary head that its weights have, which for
        the bundled ones is none (`aux_channels=128` adds one). On PyTorch's default device, as
        within `with torch.device("cuda")`.

    Raises:
        FileNotFoundError: if the weights are not found; names the places tried.
        TypeError: if an argument does not exist; names the nearest.
        ValueError: if the weights are unknown, or do not fit the network.
    """
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return _build("ccnet_resnet18", "resnet18", weights, weights_backbone, progress, config)


def ccnet_resnet50(
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsEnum | str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """Builds CCNet on ResNet-50: 50 million parameters. Arguments as in `ccnet_resnet18`."""
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return _build("ccnet_resnet50", "resnet50", weights, weights_backbone, progress, config)


def ccnet_resnet101(
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsEnum | str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """Builds CCNet on ResNet-101, the published network. Arguments as in `ccnet_resnet18`."""
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return _build("ccnet_resnet101", "resnet101", weights, weights_backbone, progress, config)


def build_ccnet(
    backbone: str,
    *,
    weights: WeightsLike | None = None,
    weights_backbone: WeightsEnum | str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    recurrence: int | None = None,
    progress: bool = True,
    **config: Any,
) -> CCNet:
    """Builds CCNet on any backbone, by its name.

    Args:
        backbone: as for `CCNet`, such as "resnet18" or "timm:convnext_tiny".
        weights: as in `ccnet_resnet18`; for a network of timm there are none by name.
        weights_backbone: as in `ccnet_resnet18`; for a network of timm see `backbones.load_timm`.
        num_classes: as in `ccnet_resnet18`.
        recurrence: as in `ccnet_resnet18`.
        progress: as in `ccnet_resnet18`.
        config: as in `ccnet_resnet18`.
    """
    config = {"num_classes": num_classes, "recurrence": recurrence, **config}
    return _build("build_ccnet", backbone, weights, weights_backbone, progress, config)


NETWORKS = {make.__name__: make for make in (ccnet_resnet18, ccnet_resnet50, ccnet_resnet101)}
"""The builders by name."""

NETWORK_NAMES = f"{', '.join(NETWORKS)}, or {TIMM}NAME for a network of timm"
"""What `find_builder` knows, for messages."""


def find_builder(network: str) -> Callable[..., CCNet]:
    """Finds a builder by its name in `NETWORKS`, or for a backbone of timm, as "timm:resnet26".

    Raises:
        ValueError: if it is neither.
    """
    if network in NETWORKS:
        return NETWORKS[network]
    if not network.startswith(TIMM):
        raise ValueError(f"unknown network {network!r}: expected {NETWORK_NAMES}")
    return partial(build_ccnet, network)


def _build(
    owner: str,
    backbone: str,
    weights: WeightsLike | None,
    weights_backbone: WeightsEnum | str | os.PathLike[str] | None,
    progress: bool,
    config: Mapping[str, Any],
) -> CCNet:
    known = dict.fromkeys([*options_of(ccnet_resnet18), "categories", *options_of(CCNet)])
    known.pop("backbone")
    check_options(owner, config, known, _HINTS)
    defaults = ("num_classes", "recurrence")
    arguments = complete_arguments(
        {name: value for name, value in config.items() if value is not None or name not in defaults}
    )
    if weights is None and weights_backbone is None:
        return CCNet(backbone, **arguments)
    if weights is not None and weights_backbone is not None:
        raise ValueError("pass weights or weights_backbone, not both: weights include a backbone")
    device = torch.empty(0).device  # in PyTorch 2.6 get_default_device overlooks contexts
    with torch.device("cpu"):  # where files are read, wherever the network is to be
        if weights is not None:
            loaded = load_weights(weights, backbone, progress=progress)
            model = CCNet.from_weights(loaded, **arguments)
        else:
            model = CCNet(backbone, **arguments)
            assert weights_backbone is not None
            _load_backbone(model, weights_backbone, progress)
    return model.to(device)


_OTHER_STEM = 'none (the stem backbone_options={"stem_widths": []} has those of torchvision)'


def _load_backbone(
    model: CCNet, weights: WeightsEnum | str | os.PathLike[str], progress: bool
) -> None:
    """Loads a file, or ImageNet weights: torchvision's for the 7x7 stem, timm's for the deep stem.

    A file must be of the same ResNet, and a network in it must have the same preprocessing.
    """
    if isinstance(model.backbone, TimmBackbone):
        choice = weights.name if isinstance(weights, WeightsEnum) else weights
        model.card_details = load_timm(model.backbone, choice, progress=progress)
        return
    name, stem = model.config["backbone"], list(model.backbone.stem_widths)
    candidates: Any = BackboneWeights if stem else get_model_weights(name)
    known = {
        member.name: member
        for member in candidates
        if not stem or (member.meta["backbone"], member.meta["stem_widths"]) == (name, stem)
    }
    choice = weights.name if isinstance(weights, WeightsEnum) else weights
    if choice == "DEFAULT" and known:
        choice = list(known)[-1]
    if not isinstance(choice, str) or (choice not in known and is_file_name(choice)):
        _load_backbone_file(model, os.fspath(choice))
        return
    if choice not in known or (isinstance(weights, WeightsEnum) and weights is not known[choice]):
        raise ValueError(
            f"unknown ImageNet weights {choice!r} for {name} with stem {stem or '7x7'}: "
            f"available: {', '.join(known) or _OTHER_STEM}; "
            "or give the path of a .safetensors file or a checkpoint"
        )
    member = known[choice]
    if isinstance(member, BackboneWeights):
        state_dict = load_registered(member, progress=progress).state_dict
    else:
        state_dict = load_imagenet(member, progress=progress)
    _load_tensors(model, convert_backbone(state_dict))


def _load_tensors(
    model: CCNet, tensors: Mapping[str, Tensor], trained: Mapping[str, Any] | None = None
) -> None:
    """Loads a backbone, of a network with the configuration `trained`, adapted to the channels."""
    adapted = adapted_to_channels(tensors, model.config, trained or {}, model.backbone)
    load_strictly(model.backbone, adapted)


def _load_backbone_file(model: CCNet, path: str) -> None:
    weights = settle(read_backbone(path), model.config)
    ours, theirs = model.config, {**model.config, **weights.config}
    if theirs["preprocessing"] != ours["preprocessing"]:
        channels = model.preprocessing.channels
        theirs["preprocessing"] = adapted_preprocessing(weights.config, channels)
    for field in ("backbone", "preprocessing"):
        if theirs[field] != ours[field]:
            raise ValueError(
                f"{path} has {field} {theirs[field]!r}, not {ours[field]!r} as the network"
            )
    try:
        _load_tensors(model, weights.state_dict, weights.config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model.card_details = inherited_details(weights.details)
