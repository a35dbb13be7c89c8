"""Checkpoint conversion: published families, training checkpoints, ImageNet backbones.

Converted weights give the same outputs as in their own code base. Two things are folded into the
tensors:

- In-place batch norm scales by |w| + 1e-5, which becomes the weight of a plain batch norm.
- The bias of a convolution before a batch norm is subtracted from the running mean.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ccnet.classes import CITYSCAPES, LabelSet
from ccnet.weights.families import FAMILIES, OPENMMLAB
from ccnet.weights.serialization import ModelWeights

_TIMM_BACKBONE_NAMES = {
    r"^conv1\.0\.": "stem.0.",
    r"^conv1\.1\.": "stem.1.",
    r"^conv1\.3\.": "stem.3.",
    r"^conv1\.4\.": "stem.4.",
    r"^conv1\.6\.": "stem.6.",
    r"^bn1\.": "stem.7.",
}
_TORCHVISION_BACKBONE_NAMES = {r"^conv1\.": "stem.0.", r"^bn1\.": "stem.1."}
_DEPTHS = {2: "resnet18", 6: "resnet50", 23: "resnet101"}


def convert(checkpoint: Mapping[str, Any]) -> ModelWeights:
    """Recognises the family of a checkpoint and converts it.

    Args:
        checkpoint: what `read_pickle` returns: a state dict, or one under "state_dict" or "model",
            whose names may have the prefix "module."; or a checkpoint of this project's training.

    Returns:
        The weights, whose `source` is the name of the family. The recurrence of foreign checkpoints
        is 2 where the network has attention, as they do not record it.

    Raises:
        ValueError: if the family or the depth of the network is unknown.
    """
    tensors = checkpoint.get("state_dict", checkpoint.get("model", checkpoint))
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise ValueError(
            f"the checkpoint has no state dict; its keys are {sorted(map(str, checkpoint))[:10]}"
        )
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} {tuple(tensor.shape)} is larger than its storage")
    if "model" in checkpoint and isinstance(checkpoint.get("config"), Mapping):
        return _from_training(tensors, checkpoint)
    theirs = _renamed(tensors, lambda name: name.removeprefix("module."))
    families = [family for family in FAMILIES if family.marker in theirs]
    if len(families) != 1:
        raise ValueError(
            "unknown checkpoint family with parameter names such as "
            f"{', '.join(sorted(theirs)[:5])}; known families: "
            + ", ".join(f"{family.name} (with {family.marker})" for family in FAMILIES)
        )
    family = families[0]
    state_dict = _renamed(theirs, lambda name: _rename(name, family.names))
    _fold(state_dict, family.in_place_norm)
    recurrence = 2 if any(name.startswith("head.cca.") for name in state_dict) else 0
    config = {**family.config, **_measure(state_dict), "recurrence": recurrence}
    recorded = checkpoint.get("meta")
    if family is OPENMMLAB and isinstance(recorded, Mapping):
        config["align_corners"] = "align_corners=True" in str(recorded.get("config", ""))
    return ModelWeights(state_dict, config, {"source": family.name}, family.name)


def _from_training(tensors: Mapping[str, Tensor], checkpoint: Mapping[str, Any]) -> ModelWeights:
    """Returns the weights of a `training.engine.Trainer` checkpoint, with plain batch norm."""
    # In the memory format of a file: another one selects convolutions that round differently.
    state_dict = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    details = checkpoint.get("details", {})
    recipe = checkpoint.get("recipe")
    if isinstance(recipe, Mapping) and recipe.get("norm") == "inplace":
        _fold(state_dict, in_place_norm=True)
    if not isinstance(details, Mapping):
        raise ValueError(f"the details of the checkpoint are a {type(details).__name__}")
    return ModelWeights(
        state_dict, dict(checkpoint["config"]), dict(details), "this project's training"
    )


def convert_backbone(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a ResNet's ImageNet weights from torchvision or timm to those of a `Backbone`."""
    names = _TIMM_BACKBONE_NAMES if "conv1.0.weight" in state_dict else _TORCHVISION_BACKBONE_NAMES
    converted = {
        _rename(name, names): tensor
        for name, tensor in state_dict.items()
        if not name.startswith("fc.")
    }
    norms = [name.removesuffix("running_mean") for name in converted if "running_mean" in name]
    return {**{f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}, **converted}


def _renamed(state_dict: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    origins: dict[str, str] = {}
    for name in state_dict:
        other = origins.setdefault(rename(name), name)
        if other != name:
            raise ValueError(f"checkpoint entries {other} and {name} both map to {rename(name)}")
    return {new: state_dict[name] for new, name in origins.items()}


def _rename(name: str, names: Mapping[str, str]) -> str:
    for pattern, replacement in names.items():
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def _fold(state_dict: dict[str, Tensor], in_place_norm: bool) -> None:
    """Folds in-place norms into plain ones, and biases of convolutions into the norms' means."""
    norms = [name.removesuffix(".running_mean") for name in state_dict if "running_mean" in name]
    for norm in norms:
        scale = state_dict.get(f"{norm}.weight")
        if in_place_norm and scale is not None:
            state_dict[f"{norm}.weight"] = scale.abs() + 1e-5
        state_dict.setdefault(f"{norm}.num_batches_tracked", torch.tensor(0))
        parent, _, index = norm.rpartition(".")
        bias = f"{parent}.{int(index) - 1}.bias" if index.isdigit() else ""
        mean = f"{norm}.running_mean"
        if bias in state_dict and state_dict[bias].shape == state_dict[mean].shape:
            state_dict[mean] = state_dict[mean] - state_dict.pop(bias)
    gamma = state_dict.get("head.cca.gamma")
    if gamma is not None and gamma.dim() == 0:
        state_dict["head.cca.gamma"] = gamma[None]


def _measure(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the arguments of `CCNet` that names and shapes of the tensors imply."""
    blocks = {
        int(found[1])
        for name in state_dict
        if (found := re.match(r"backbone\.layer3\.(\d+)\.", name))
    }
    if len(blocks) not in _DEPTHS:
        raise ValueError(f"a backbone with {len(blocks)} blocks in its third stage is not known")
    num_classes = state_dict["head.classifier.weight"].shape[0]
    is_cityscapes = num_classes == len(CITYSCAPES)
    label_set = CITYSCAPES if is_cityscapes else LabelSet.numbered(num_classes)
    auxiliary = state_dict.get("aux_head.classifier.weight")
    return {
        "backbone": _DEPTHS[len(blocks)],
        "num_classes": num_classes,
        "aux_channels": 0 if auxiliary is None else auxiliary.shape[1],
        "label_set": label_set.to_config(),
    }
