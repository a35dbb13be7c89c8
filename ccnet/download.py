"""Where weights are found, and that they are what they should be.

In this order: beside the code, in the folder that CCNET_WEIGHTS_DIR names, on the Hugging Face Hub
for weights that are published there, at their origin. Nothing is taken that does not have its hash.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is its client's
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
from torch import Tensor
from torchvision.models import WeightsEnum

from ccnet.conversion import convert, read_pickle
from ccnet.serialization import read_details, read_weights, save_weights

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parent
BUNDLED_DIRS = (_PACKAGE.parent / "weights", _PACKAGE / "bundled")
"""Where bundled weights lie: in the repository, and inside an installed package."""

WEIGHTS_DIR_VARIABLE = "CCNET_WEIGHTS_DIR"
"""The environment variable that names one more folder to look into."""

DETAILS = ("dataset", "metrics", "whose", "protocol", "recipe", "license", "source")
"""What of the registry's knowledge a model card shows."""

_NOT_REACHED = (OSError, HTTPError, OfflineModeIsEnabled)
_PASSING_FAULTS = (429, 500, 502, 503, 504)
_TRIES = 3


@dataclass(frozen=True)
class Loaded:
    """Weights in memory.

    Attributes:
        state_dict: on the CPU.
        config: the arguments of `CCNet` that fit them.
        place: where they came from.
        details: what the registry or the file knows of them, for a model card.
    """

    state_dict: Mapping[str, Tensor]
    config: Mapping[str, Any]
    place: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], place: str | None = None) -> "Loaded":
        """Reads a safetensors file; `place` is where it came from, by default the path.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no safetensors file, or a damaged one.
        """
        return cls(*read_weights(path), place or str(path), read_details(path))


def load_weights(weights: WeightsEnum, *, progress: bool = True) -> Loaded:
    """Loads a set of weights from the first place that has it.

    Args:
        weights: a member of one of the enums in `ccnet.weights`.
        progress: show a progress bar of a download.

    Raises:
        FileNotFoundError: if no place has them; names each, what was wrong there, and what to do.
        ValueError: if a file was found that is not the published one.
    """
    failures = []
    for look in (_in_folders, _on_the_hub, _at_the_origin):
        try:
            found = look(weights, progress)
        except OSError as error:
            failures.append(str(error))
        else:
            if found is not None:
                shown = {key: weights.meta[key] for key in DETAILS if key in weights.meta}
                return replace(found, details={"weights": str(weights), **shown})
    tried = "\n  ".join(line for failure in failures for line in failure.splitlines())
    raise FileNotFoundError(f"{weights} was not found. Tried:\n  {tried}\n{_remedy(weights)}")


def load_from_hub(repo_id: str, revision: str | None = None, *, progress: bool = True) -> Loaded:
    """Loads model.safetensors of a repository on the Hugging Face Hub that the user names.

    Args:
        repo_id: "owner/name".
        revision: a branch, tag or commit; the main branch by default.
        progress: show a progress bar of a download.

    Raises:
        FileNotFoundError: if the Hub does not give it; says why.
        ValueError: if it is no intact safetensors file.
    """
    try:
        path = _hub_file(repo_id, constants.SAFETENSORS_SINGLE_FILE, revision, progress)
    except _NOT_REACHED as error:
        raise FileNotFoundError(
            f"hf://{repo_id}@{revision or 'main'} could not be loaded: {error}\n"
            "Check the name and the revision; a private repository needs HF_TOKEN."
        ) from error
    return Loaded.from_file(path, f"hf://{repo_id}@{revision or 'main'}")


def _in_folders(weights: WeightsEnum, progress: bool) -> Loaded | None:
    folders = list(BUNDLED_DIRS)
    own = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if own:
        folders.append(Path(own))
    for folder in folders:
        path = folder / weights.meta["file"]
        if path.is_file():
            verify(path, weights.meta["sha256"])
            return Loaded.from_file(path)
    origin = weights.meta["origin"]
    if own and origin:
        path = Path(own, Path(origin["url"]).name)
        if path.is_file():
            verify(path, origin["sha256_prefix"])
            return _converted(path, weights)
    raise FileNotFoundError("\n".join(f"{folder / weights.meta['file']}" for folder in folders))


def _on_the_hub(weights: WeightsEnum, progress: bool) -> Loaded | None:
    hub = weights.meta["hub"]
    if hub is None:
        return None
    place = f"hf://{hub['repo_id']}@{hub['revision']}/{hub['filename']}"
    try:
        path = _hub_file(hub["repo_id"], hub["filename"], hub["revision"], progress)
    except _NOT_REACHED as error:
        raise FileNotFoundError(f"{place}: {error}") from error
    try:
        verify(path, hub["sha256"])
    except ValueError:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return Loaded.from_file(path, place)


def _at_the_origin(weights: WeightsEnum, progress: bool) -> Loaded | None:
    origin = weights.meta["origin"]
    if origin is None:
        return None
    url = origin["url"]
    cached = Path(constants.HF_HOME, "ccnet", weights.meta["file"])
    if cached.is_file():
        try:
            return Loaded.from_file(cached)
        except ValueError as error:
            logger.warning("fetched again, for what was kept is damaged: %s", error)
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(f"{cached}\n{url}: not asked, HF_HUB_OFFLINE is set")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(url).name)
        try:
            torch.hub.download_url_to_file(url, str(path), origin["sha256_prefix"], progress)
        except OSError as error:
            raise FileNotFoundError(f"{cached}\n{url}: {error}") from error
        except RuntimeError as error:
            raise ValueError(f"{url} is not the published file: {error}") from error
        loaded = _converted(path, weights)
    try:
        save_weights(cached, loaded.state_dict, loaded.config)
    except OSError as error:
        logger.warning("%s could not be kept, and will be fetched again: %s", cached, error)
    return Loaded(loaded.state_dict, loaded.config, url)


def _converted(path: Path, weights: WeightsEnum) -> Loaded:
    converted = convert(read_pickle(path))
    return Loaded(converted.state_dict, weights.meta["config"], str(path))


def _hub_file(repo_id: str, filename: str, revision: str | None, progress: bool) -> Path:
    """Fetches a file unless it is cached; tries again what may pass."""
    if not progress:
        disable_progress_bars()
    try:
        for attempt in range(_TRIES):
            try:
                return Path(hf_hub_download(repo_id, filename, revision=revision))
            except HfHubHTTPError as error:
                passing = error.response is not None and (
                    error.response.status_code in _PASSING_FAULTS
                )
                if not passing or attempt == _TRIES - 1:
                    raise
                time.sleep(2**attempt)
    finally:
        if not progress:
            enable_progress_bars()
    raise AssertionError("the last try returns or raises")


def verify(path: Path, sha256: str | None) -> None:
    """Checks a file against a SHA-256 or the beginning of one.

    Raises:
        ValueError: if it has another.
    """
    if sha256 is None:
        return
    if not sha256:
        raise ValueError(f"{path} cannot be verified against an empty hash")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**24):
            digest.update(chunk)
    if not digest.hexdigest().startswith(sha256):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 is {digest.hexdigest()}, not {sha256}. "
            "Fetch it again, or pass its path as weights= to use it as it is."
        )


def _remedy(weights: WeightsEnum) -> str:
    by_hand = weights.meta.get("by_hand")
    if by_hand:
        return str(by_hand)
    names = [weights.meta["file"]]
    if weights.meta["origin"]:
        names.append(Path(weights.meta["origin"]["url"]).name)
    return f"Put {' or '.join(names)} into a folder and name it in {WEIGHTS_DIR_VARIABLE}."
