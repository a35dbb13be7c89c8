"""Sources of weights: loads any `weights=` argument, from the registry, a file or the Hub."""

import logging
import os
import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import LocalEntryNotFoundError
from torchvision.models import WeightsEnum

from ccnet.files import user_path
from ccnet.weights.conversion import complete, read_foreign
from ccnet.weights.downloads import load_registered
from ccnet.weights.file_kinds import check_no_url, is_safetensors
from ccnet.weights.hub import cure_of, in_one_line, read_repository
from ccnet.weights.registry import REGISTRY
from ccnet.weights.serialization import ModelWeights, read_weights

logger = logging.getLogger(__name__)

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".bin")

BEST_OF_A_RUN = "best.safetensors"
"""The file of weights in the folder of a training run."""


class _NoneRegistered(WeightsEnum):
    """The weights of a backbone for which none are registered."""


WeightsLike: TypeAlias = WeightsEnum | ModelWeights | str | os.PathLike[str]


def load_weights(weights: WeightsLike, backbone: str, *, progress: bool = True) -> ModelWeights:
    """Loads weights from the registry, a file, a folder, the Hub or memory.

    Args:
        weights: a member of `REGISTRY[backbone]` or its name; the path of a .safetensors file, of
            the folder of a training run, of one that `save_pretrained` wrote, or of a checkpoint
            that `convert` knows, with "#" and the name of a network in it if there are several;
            "hf://owner/name@revision"; or weights that are already loaded.
        backbone: backbone of the network.
        progress: show a progress bar for downloads.

    Raises:
        FileNotFoundError: if the weights are not found; names the places tried.
        ValueError: if the weights are unknown, a file is damaged, or the weights are for another
            backbone.
    """
    loaded = complete(_load(weights, REGISTRY.get(backbone, _NoneRegistered), progress))
    trained = loaded.config.get("backbone")
    if trained != backbone and isinstance(trained, str):
        known = trained in REGISTRY
        if known or trained.startswith("timm:"):
            use = (
                f"ccnet_{trained}" if known else f'build_ccnet("{trained}") or --network {trained}'
            )
            raise ValueError(
                f"{loaded.source} holds weights for {trained}, not for {backbone}: use {use}"
            )
    return loaded


def _load(weights: WeightsLike, choice: type[WeightsEnum], progress: bool) -> ModelWeights:
    if isinstance(weights, ModelWeights):
        return weights
    if isinstance(weights, choice):
        return load_registered(weights, progress=progress)
    names = list(choice.__members__)
    if isinstance(weights, WeightsEnum):
        raise ValueError(f"{weights} belongs to another network; this one has {', '.join(names)}")
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(
            f"weights must be a name, a path or a member of {choice.__name__}, "
            f"not a {type(weights).__name__}"
        )
    name = os.fspath(weights).removeprefix(f"{choice.__name__}.")
    if name.startswith("~"):
        name = str(user_path(name))
    if name in names:
        return load_registered(choice[name], progress=progress)
    if name.startswith("hf://"):
        return _from_hub(name, progress=progress)
    check_no_url(name)
    found = read_path(name)
    if found is not None:
        return found
    owners = [f"ccnet_{key}" for key, enum in REGISTRY.items() if name in enum.__members__]
    if owners and name != "DEFAULT":
        raise ValueError(f"{name} are weights of {' and '.join(owners)}: use that network")
    near = get_close_matches(name.upper(), names, 1, cutoff=0.8)
    raise ValueError(
        f"unknown weights {name!r}: {f'did you mean {near[0]!r}? E' if near else 'e'}xpected "
        + (f"one of {', '.join(names)}, " if names else "(none are registered for this backbone) ")
        + "the path of a .safetensors file, "
        "of the folder of a run or of save_pretrained, or of a checkpoint of the authors, "
        "CCNet-Pure-Pytorch or OpenMMLab, or hf://owner/name "
        "(weights=None builds an untrained network)"
    )


def read_path(name: str) -> ModelWeights | None:
    """Reads a file or folder of weights as in `load_weights`; None if the name is of neither."""
    path, entry = split_entry(name)
    if name and path.is_dir():
        return _from_folder(path)
    if entry is None and (
        path.suffix == ".safetensors" or (path.is_file() and is_safetensors(path))
    ):
        return read_weights(name)
    if path.suffix in (*CHECKPOINT_SUFFIXES, ".safetensors") or path.is_file():
        converted = read_foreign(path, entry)
        logger.warning("%s is a checkpoint of %s", name, converted.source)
        return replace(converted, source=name)
    return None


def _from_folder(folder: Path) -> ModelWeights:
    """Reads what `save_pretrained` wrote, or the best weights of a training run."""
    if (folder / SAFETENSORS_SINGLE_FILE).is_file():
        return read_weights(folder)
    if (folder / BEST_OF_A_RUN).is_file():
        return read_weights(folder / BEST_OF_A_RUN)
    raise FileNotFoundError(
        f"no weights in {folder}: neither {SAFETENSORS_SINGLE_FILE}, of save_pretrained, nor "
        f"{BEST_OF_A_RUN}, of a training run"
    )


def split_entry(name: str) -> tuple[Path, str | None]:
    """Splits the path of a file from the name of a network in it, as in "run.ckpt#ema"."""
    path, mark, entry = name.rpartition("#")
    return (Path(path), entry) if mark and not Path(name).exists() else (Path(name), None)


def _from_hub(address: str, *, progress: bool) -> ModelWeights:
    repo_id, _, revision = address.removeprefix("hf://").partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo_id):
        raise ValueError(
            f"{address} is no address of weights: hf://owner/name or hf://owner/name@revision"
        )
    try:
        return read_repository(repo_id, revision or None, progress=progress)
    except OSError as error:
        is_told = isinstance(error, LocalEntryNotFoundError)  # by `read_repository`
        said = error if is_told else f"{in_one_line(error)}\n{cure_of(error)}"
        raise FileNotFoundError(
            f"hf://{repo_id}@{revision or 'main'} could not be loaded: {said}"
        ) from error
