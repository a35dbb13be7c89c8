"""Weights of timm's networks: fetched from the Hub or read from a file, converted by timm."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from torch import Tensor

from ccnet.backbones.timm_network import TIMM, TimmBackbone, create
from ccnet.files import user_path
from ccnet.weights.file_kinds import check_no_url, is_safetensors
from ccnet.weights.hub import cure_of, fetch_file, in_one_line
from ccnet.weights.pickles import read_pickle
from ccnet.weights.serialization import load_strictly, read_files, read_weights

_PREFIX = "backbone.network."
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which checkpoints of timm hold a state dict, the best first."""


def load_timm(
    backbone: TimmBackbone, weights: str | os.PathLike[str], *, progress: bool = True
) -> dict[str, Any]:
    """Loads weights into a backbone, the first convolution adapted to its channels.

    Args:
        backbone: changed in place.
        weights: "DEFAULT" for those that timm names, from the Hugging Face Hub;
            "hf://owner/name@revision" for others there; or the path of a file or folder of timm's
            weights, or of a network of this package on the same backbone.
        progress: show a progress bar.

    Returns:
        Details for the model card: the origin of the weights, with its revision, and their licence.

    Raises:
        FileNotFoundError: if they are not found.
        ValueError: if there are none, or they do not fit.
    """
    facts = backbone.network.pretrained_cfg
    name = os.fspath(weights)
    if name == "DEFAULT":
        tensors, origin = _from_hub(_address(backbone), facts.get("hf_hub_filename"), progress)
    elif name.startswith("hf://"):
        tensors, origin = _from_hub(name, None, progress)
    else:
        tensors, origin = _from_file(name), name
    try:
        own = {
            key.removeprefix(_PREFIX): value
            for key, value in tensors.items()
            if key.startswith(_PREFIX)
        }
        load_strictly(backbone.network, own or _converted(backbone, tensors))
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error
    license_ = {"license": facts["license"]} if name == "DEFAULT" and "license" in facts else {}
    return {"weights": f"derived from {origin}", **license_}


def _address(backbone: TimmBackbone) -> str:
    repo_id = backbone.network.pretrained_cfg.get("hf_hub_id")
    if repo_id:
        return f"hf://{repo_id}"
    import timm

    network = backbone.name.removeprefix(TIMM).split(".")[0]
    known = [f"{TIMM}{one}" for one in timm.list_pretrained(f"{network}.*")]
    raise ValueError(
        f"timm knows no weights on the Hugging Face Hub for {backbone.name}: "
        + (f"take {' or '.join(known[:8])}, or " if known else "")
        + "give the path of a file"
    )


def _from_hub(
    address: str, filename: str | None, progress: bool
) -> tuple[Mapping[str, Tensor], str]:
    repo_id, _, revision = address.removeprefix("hf://").partition("@")
    try:
        path = fetch_file(
            repo_id, filename or SAFETENSORS_SINGLE_FILE, revision or None, progress=progress
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{address} could not be loaded: {in_one_line(error)}\n{cure_of(error)}"
        ) from error
    folders = path.parts[:-1]  # .../snapshots/COMMIT/...
    if "snapshots" in folders:
        revision = folders[folders.index("snapshots") + 1]
    origin = f"hf://{repo_id}@{revision or 'main'}"
    return (read_files(path, None, origin, {}).state_dict, origin)


def _from_file(name: str) -> Mapping[str, Tensor]:
    check_no_url(name)
    path = user_path(name)
    if path.is_dir() or path.suffix == ".safetensors" or (path.is_file() and is_safetensors(path)):
        return read_weights(path).state_dict
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'no weights at {path}: give the path of a file, "hf://owner/name" or "DEFAULT"'
        )
    found: Any = read_pickle(path)
    return next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), found)


def _converted(backbone: TimmBackbone, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Has timm convert the weights of a classification network to those of its feature maps."""
    # Without the name of the classifier timm loads strictly: it thinks to keep it.
    overlay = {"state_dict": dict(tensors), "classifier": None}
    network, _ = create(
        backbone.name, backbone.arguments, pretrained=True, pretrained_cfg_overlay=overlay
    )
    if not hasattr(network, "output_fmt"):  # of a class of its own, which is not loaded strictly
        missing = sorted(network.state_dict().keys() - tensors.keys())
        if missing:
            raise ValueError(f"the weights do not fit {backbone.name}: missing {missing[:8]}")
    converted: Mapping[str, Tensor] = network.state_dict()
    return converted
