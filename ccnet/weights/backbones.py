"""Backbones: reading the weights of a backbone alone, from files of many kinds."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE

from ccnet.files import is_url, user_path
from ccnet.weights.conversion import convert, convert_backbone
from ccnet.weights.conversion.state_dicts import find_state_dict
from ccnet.weights.families import OPTION, RESNETS
from ccnet.weights.file_kinds import check_no_url, is_safetensors
from ccnet.weights.pickles import read_pickle
from ccnet.weights.serialization import ModelWeights, read_weights
from ccnet.weights.sources import CHECKPOINT_SUFFIXES, split_entry


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Whether weights are given as the path of a file, there or not, rather than by their name."""
    path, _ = split_entry(str(user_path(weights)))
    has_suffix = path.suffix in (".safetensors", *CHECKPOINT_SUFFIXES)
    return (
        has_suffix
        or is_url(str(path))
        or path.is_file()
        or Path(path, SAFETENSORS_SINGLE_FILE).is_file()
    )


def read_backbone(path: str | os.PathLike[str]) -> ModelWeights:
    """Reads the weights of a backbone from a file.

    Args:
        path: of a .safetensors file, of a folder that `save_pretrained` wrote, or of a checkpoint,
            with "#" and the name of a network in it if there are several. It holds a backbone of
            this project, a ResNet with the names of torchvision or timm, or a whole network that
            `convert` knows, of which the backbone is taken.

    Returns:
        The weights, by the names of `Backbone`; the configuration of their network, if known.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds no backbone, or several.
    """
    check_no_url(path)
    file, entry = split_entry(str(user_path(path)))
    if file.suffix == ".safetensors" or file.is_dir() or (file.is_file() and is_safetensors(file)):
        found = read_weights(file)
    else:
        found = ModelWeights(read_pickle(file), {})
    if not found.config:
        try:
            found = _recognize(found.state_dict, entry)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    inside = {
        name.removeprefix("backbone."): tensor
        for name, tensor in found.state_dict.items()
        if name.startswith("backbone.")
    }
    return replace(
        found,
        state_dict=convert_backbone(inside or found.state_dict),
        source=os.fspath(path),
        assumed={  # the network that takes a backbone has options of its own
            name: words for name, words in found.assumed.items() if not name.startswith(OPTION)
        },
    )


def _recognize(checkpoint: Mapping[str, Any], entry: str | None) -> ModelWeights:
    """Finds a known network in a checkpoint, or else a ResNet."""
    try:
        find_state_dict(checkpoint, entry)
    except ValueError:
        tensors = find_state_dict(checkpoint, entry, RESNETS).tensors
        is_own = {"recipe", "config", "details"} <= checkpoint.keys()
        return ModelWeights(tensors, {}, checkpoint["details"] if is_own else {})
    return convert(checkpoint, entry)
