"""Reading and writing weights: safetensors files and folders, strict loading."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor, nn

from ccnet.files import atomic_write, sha256_of, user_path
from ccnet.schema import check_nesting, reason_of, shown, shown_name
from ccnet.weights.file_kinds import foreign_kind, is_pickle
from ccnet.weights.registry import REGISTRY, details_of
from ccnet.weights.tensors import misfit

logger = logging.getLogger(__name__)

NEEDED = {"backbone", "num_classes", "recurrence"}
"""What every configuration of a network has."""

_CHECKSUM = "sha256"
"""Key of the checksum over tensors, configuration and details in a header; others have none."""

_MAX_TEXT = 2**24
"""Bytes that a config.json may have."""

_SHOWN = 8
"""Tensors that an error names."""


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """Weights with their configuration and details.

    Every reader returns this value and every writer takes it, so that none of its parts gets lost.

    Attributes:
        state_dict: parameters and buffers by name, on the CPU.
        config: the arguments of `CCNet` that fit them; empty if unknown.
        details: facts for the model card: `license`, `source`, `metrics` and so on.
        source: where the weights were read, for messages.
        assumed: what in `config` is a guess, since the file does not tell: argument and words.
    """

    state_dict: Mapping[str, Tensor] = field(repr=False)
    config: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)
    source: str = "weights in memory"
    assumed: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: str | os.PathLike[str]) -> ModelWeights:
    """Reads a safetensors file, or a folder that `save_pretrained` wrote.

    The configuration of a folder is its config.json; of a file, or a folder without config.json, it
    is the one in the header of the safetensors file.

    Args:
        path: of a .safetensors file, or of a folder with model.safetensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is damaged, or its configuration is no mapping.
    """
    path = user_path(path)
    config_path = path / CONFIG_NAME
    if path.is_dir():
        weights_path = path / SAFETENSORS_SINGLE_FILE
        if not weights_path.is_file():
            raise FileNotFoundError(f"no {SAFETENSORS_SINGLE_FILE} in {path}")
    else:
        weights_path = path
    return read_files(weights_path, config_path if config_path.is_file() else None, str(path))


def read_files(
    weights_path: Path,
    config_path: Path | None,
    source: str,
    details: Mapping[str, Any] | None = None,
) -> ModelWeights:
    """Reads a safetensors file and the config.json that belongs to it, if there is one.

    Args:
        weights_path: of the safetensors file.
        config_path: of config.json; None for the configuration in the header.
        source: for messages.
        details: of the weights where they are known; None for those in the header, or else in the
            registry.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is damaged, or its configuration is no mapping.
    """
    if not weights_path.is_file():
        raise FileNotFoundError(f"no weights at {weights_path}")
    try:
        header, state_dict = _read(weights_path)
    except SafetensorError as error:
        reason = foreign_kind(weights_path) or reason_of(error)
        if is_pickle(weights_path):
            reason = f"a checkpoint of PyTorch: rename it to {weights_path.stem}.pth"
        raise ValueError(f"{weights_path} is not an intact safetensors file: {reason}") from error
    if _CHECKSUM in header and header[_CHECKSUM] != _checksum(state_dict, header):
        raise ValueError(
            f"{weights_path} is damaged: its checksum is wrong (if a program of yours changed it, "
            f"leave {_CHECKSUM} out of its metadata)"
        )
    config = _embedded(header, "config", weights_path)
    if _CHECKSUM not in header and config and not config.keys() >= NEEDED:
        missing = ", ".join(sorted(NEEDED - config.keys()))
        logger.warning("the config in %s is not used: it has no %s", weights_path, missing)
        config = {}
    if config_path is not None:
        embedded, config = config, _read_mapping(config_path)
        if embedded and embedded != config:
            logger.warning("%s is used, though %s has another one", config_path, weights_path.name)
    if details is None:
        details = _embedded(header, "details", weights_path)
        if not details and _CHECKSUM not in header:
            details = _registered_details(weights_path)
    return ModelWeights(state_dict, config, details, source)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # a name that safetensors does not open
        content = path.read_bytes()
        state_dict = load(content)
        size = int.from_bytes(content[:8], "little")
        return json.loads(content[8:][:size]).get("__metadata__") or {}, state_dict
    with torch.device("cpu"), safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _embedded(header: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    """Parses a part of a header, which another program may use for something else."""
    try:
        return _parse_mapping(header.get(key, "{}"), f"the {key} in {path}")
    except ValueError as error:
        logger.warning("%s, so it is not used", error)
        return {}


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """The SHA-256 of contiguous tensors on the CPU, configuration and details, in hexadecimal."""
    digest = hashlib.sha256(json.dumps([header.get("config"), header.get("details")]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), *tensor.shape]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(weights: ModelWeights) -> str:
    """The SHA-256 of tensors and configuration, in hexadecimal: of all that a result depends on."""
    return _checksum(weights.state_dict, {"config": json.dumps(weights.config, sort_keys=True)})


def _registered_details(path: Path) -> dict[str, Any]:
    """Looks up a file without details in the registry: it may be a copy of registered weights."""
    sha256 = sha256_of(path)
    members = (member for choice in REGISTRY.values() for member in choice)
    return next((details_of(one) for one in members if one.meta["sha256"] == sha256), {})


def _read_mapping(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > _MAX_TEXT:
        raise ValueError(f"{path} has {size} bytes: no configuration has more than {_MAX_TEXT}")
    return _parse_mapping(path.read_bytes(), str(path))


def _parse_mapping(text: str | bytes, place: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {reason_of(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{place} is a {type(content).__name__}, not a mapping")
    try:
        check_nesting(content)
    except ValueError as error:
        raise ValueError(f"{place} cannot be used: {error}") from error
    return content


def write_weights(path: str | os.PathLike[str], weights: ModelWeights) -> None:
    """Writes a safetensors file; configuration, details and a checksum go into its header.

    Raises:
        OSError: if it cannot be written; an older file stays.
        TypeError: if configuration or details are not JSON-able; an older file stays.
    """
    tensors = {
        name: tensor.detach().contiguous().cpu() for name, tensor in weights.state_dict.items()
    }
    header = {"format": "pt", "config": json.dumps(weights.config)}
    if weights.details:
        header["details"] = json.dumps(weights.details)
    header[_CHECKSUM] = _checksum(tensors, header)
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written: {error}") from error
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Orders a header, which `save_file` writes in a random order, so that its bytes repeat."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        metadata = dict(sorted(header.pop("__metadata__", {}).items()))
        tensors = dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
        ordered = {"__metadata__": metadata, **tensors}
        text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= size:  # spaces at its end are part of the format
            file.seek(8)
            file.write(text.ljust(size))


def write_folder(folder: str | os.PathLike[str], weights: ModelWeights) -> None:
    """Writes model.safetensors and config.json, each complete or untouched.

    Raises:
        OSError: if a file cannot be written.
        TypeError: if configuration or details are not JSON-able.
    """
    write_weights(Path(folder, SAFETENSORS_SINGLE_FILE), weights)
    with atomic_write(Path(folder, CONFIG_NAME)) as temporary:
        temporary.write_text(json.dumps(weights.config, indent=2) + "\n", encoding="utf-8")


def load_strictly(
    module: nn.Module, state_dict: Mapping[str, Tensor], fresh: Iterable[str] = ()
) -> None:
    """Loads a state dict, keeping the module's dtypes, or raises and changes nothing.

    Args:
        module: on the meta device it takes the tensors themselves, so that nothing is initialised
            only to be overwritten.
        state_dict: a tensor for every parameter and buffer of the module, and no other.
        fresh: prefixes of names that keep their initial values; the state dict must have none of
            them.

    Raises:
        ValueError: if tensors are missing, unexpected, of another shape, no plain ones of real
            numbers, not finite in the module's dtype, negative where only 0 or more makes sense, or
            of a dtype that weights are quantised to; names them.
    """
    check_fit(module, state_dict, fresh)
    targets = module.state_dict()
    if all(target.is_meta for target in targets.values()):
        state_dict = {
            name: value.to(targets[name].dtype, copy=True) for name, value in state_dict.items()
        }
        module.load_state_dict(state_dict, assign=True)
    else:
        module.load_state_dict(state_dict, strict=not tuple(fresh))


def check_fit(
    module: nn.Module, state_dict: Mapping[str, Tensor], fresh: Iterable[str] = ()
) -> None:
    """Raises the error of `load_strictly`, if it would; the module may be on the meta device."""
    fresh = tuple(fresh)
    targets = {
        name: tensor for name, tensor in module.state_dict().items() if not name.startswith(fresh)
    }
    problems = [
        f"{name} {fault}"
        for name, target in targets.items()
        if name in state_dict and (fault := misfit(name, state_dict[name], target)) is not None
    ]
    problems += [
        f"missing {name} {tuple(targets[name].shape)}"
        for name in sorted(targets.keys() - state_dict.keys())
    ]
    problems += [
        f"unexpected {shown_name(name)} {shown(tuple(getattr(state_dict[name], 'shape', ())))}"
        for name in sorted(state_dict.keys() - targets.keys(), key=str)
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"the weights do not fit the network: {'; '.join(problems[:_SHOWN])}{more}"
        )
