"""Checkpoint conversion: published families, training checkpoints, ImageNet backbones.

Converted weights give the same outputs as in their own code base. Two things are folded into the
tensors:

- In-place batch norm scales by |w| + 1e-5, which becomes the weight of a plain batch norm.
- The bias of a convolution before a batch norm is subtracted from the running mean.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccnet.classes import CITYSCAPES, LabelSet
from ccnet.schema import reason_of, shown_name
from ccnet.weights.assumptions import in_words, one_by_one
from ccnet.weights.conversion.measurement import measure, measure_stem
from ccnet.weights.conversion.openmmlab import Recorded, read_record
from ccnet.weights.conversion.state_dicts import find_state_dict, unnamed_copies
from ccnet.weights.families import OPENMMLAB, OWN, Family
from ccnet.weights.file_kinds import is_safetensors
from ccnet.weights.pickles import read_pickle
from ccnet.weights.registry import completed_config
from ccnet.weights.serialization import NEEDED, ModelWeights, read_weights

logger = logging.getLogger(__name__)

_TIMM_BACKBONE_NAMES = {
    r"^conv1\.0\.": "stem.0.",
    r"^conv1\.1\.": "stem.1.",
    r"^conv1\.3\.": "stem.3.",
    r"^conv1\.4\.": "stem.4.",
    r"^conv1\.6\.": "stem.6.",
    r"^bn1\.": "stem.7.",
}
_TORCHVISION_BACKBONE_NAMES = {r"^conv1\.": "stem.0.", r"^bn1\.": "stem.1."}


def convert(checkpoint: Mapping[str, Any], entry: str | None = None) -> ModelWeights:
    """Recognises the network in a checkpoint and converts it.

    Args:
        checkpoint: what `read_pickle` returns, or the tensors of a safetensors file: a state dict
            of a known family or of this project, at any depth and under any prefix; or a checkpoint
            of this project's training.
        entry: where the network is, if there are several; as in `state_dicts.StateDict`.

    Returns:
        The weights, whose `source` is the name of the family, and whose `assumed` says what neither
        the tensors nor the checkpoint tell.

    Raises:
        ValueError: if there is no known network, or several, or one that this project's cannot be.
    """
    try:
        found = find_state_dict(checkpoint, entry)
    except ValueError:
        _read_record(checkpoint)  # may know better what is wrong
        raise
    if found.others:
        logger.info("left aside: %s", ", ".join(map(shown_name, found.others[:5])))
    if found.averages:
        logger.warning(
            "left aside: an average of the weights, %s ...", shown_name(found.averages[0])
        )
    for place in unnamed_copies(checkpoint, found.tensors):
        logger.warning("left aside: the tensors without names in %s, perhaps an average", place)
    family = found.family
    if family is OWN and _keys(checkpoint.get("config")) >= NEEDED:
        return _from_training(found.tensors, checkpoint)
    state_dict = _renamed(found.tensors, lambda name: _rename(name, family.names))
    _fold(state_dict, family.in_place_norm)
    config = {**family.config, **measure(state_dict)}
    config["backbone_options"] = {
        **family.config.get("backbone_options", {}),
        **measure_stem(state_dict),
    }
    config["label_set"] = _label_set(config["num_classes"], family).to_config()
    details: dict[str, Any] = {} if family is OWN else {"source": family.name}
    assumed = set(family.assumed) - ({"recurrence"} if not config["recurrence"] else set())
    if family is OPENMMLAB:
        recorded = _read_record(checkpoint, config["num_classes"])
        options = {**config["backbone_options"], **recorded.config.get("backbone_options", {})}
        config |= {**recorded.config, "backbone_options": options}
        if recorded.protocol is not None:
            details["protocol"] = recorded.protocol.to_config()
        assumed -= one_by_one(recorded.config).keys() - recorded.guesses
    words = {name: in_words(name, config) for name in family.assumed if name in assumed}
    if family is OWN and any(_may_be_in_place(state_dict)):
        words["norm"] = (
            "plain batch norm, though some of its weights are negative (an in-place norm takes "
            "their absolute values: restore_batchnorm before saving)"
        )
    return ModelWeights(state_dict, config, details, family.name, words)


def complete(weights: ModelWeights) -> ModelWeights:
    """Measures the configuration of weights that have none; others are known from the registry.

    Raises:
        ValueError: as in `convert`.
    """
    if weights.config:
        return replace(weights, config=completed_config(weights.config, weights.details))
    try:
        converted = convert(weights.state_dict)
    except ValueError as error:
        raise ValueError(f"{weights.source}: {error}") from error
    details = {**converted.details, **weights.details}
    return replace(converted, details=details, source=weights.source)


def read_foreign(path: str | os.PathLike[str], entry: str | None = None) -> ModelWeights:
    """Reads a checkpoint of any known kind, a pickle or safetensors, and converts it.

    Args:
        path: of the file.
        entry: as in `convert`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: as in `read_pickle` and `convert`; names the file.
    """
    if Path(path).is_file() and is_safetensors(Path(path)):
        content: Mapping[str, Any] = read_weights(path).state_dict
    else:
        content = read_pickle(path)
    try:
        return convert(content, entry)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _keys(value: Any) -> set[Any]:
    return set(value) if isinstance(value, Mapping) else set()


def _read_record(checkpoint: Mapping[str, Any], num_classes: int | None = None) -> Recorded:
    try:
        return read_record(checkpoint, num_classes)
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(
            f"its recorded configuration has a wrong value: {reason_of(error)}"
        ) from error


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
            raise ValueError(
                f"checkpoint entries {shown_name(other)} and {shown_name(name)} both map to "
                f"{shown_name(rename(name))}"
            )
    return {new: state_dict[name] for new, name in origins.items()}


def _rename(name: str, names: Mapping[str, str]) -> str:
    for pattern, replacement in names.items():
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def _fold(state_dict: dict[str, Tensor], in_place_norm: bool) -> None:
    """Folds in-place norms into plain ones, and biases of convolutions into the norms' means."""
    norms = [
        name.removesuffix(".running_mean") for name in state_dict if name.endswith(".running_mean")
    ]
    for norm in norms:
        scale = state_dict.get(f"{norm}.weight")
        if in_place_norm and scale is not None and scale.is_floating_point():
            state_dict[f"{norm}.weight"] = scale.abs() + 1e-5
        state_dict.setdefault(f"{norm}.num_batches_tracked", torch.tensor(0))
        parent, _, index = norm.rpartition(".")
        bias = f"{parent}.{int(index) - 1}.bias" if index.isdecimal() else ""
        mean = f"{norm}.running_mean"
        if bias in state_dict and _can_be_subtracted(state_dict[mean], state_dict[bias]):
            state_dict[mean] = state_dict[mean] - state_dict.pop(bias)
    gamma = state_dict.get("head.cca.gamma")
    if gamma is not None and gamma.dim() == 0:
        state_dict["head.cca.gamma"] = gamma[None]


def _can_be_subtracted(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() and other.is_floating_point()


def _label_set(num_classes: int, family: Family) -> LabelSet:
    is_cityscapes = family is not OWN and num_classes == len(CITYSCAPES)
    return CITYSCAPES if is_cityscapes else LabelSet.numbered(num_classes)


def _may_be_in_place(state_dict: Mapping[str, Tensor]) -> Iterator[bool]:
    for name in state_dict:
        if name.endswith(".running_mean"):
            scale = state_dict.get(f"{name.removesuffix('.running_mean')}.weight")
            yield scale is not None and bool((scale.float() < 0).any())
