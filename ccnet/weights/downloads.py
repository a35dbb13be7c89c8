"""Downloads of registered weights: bundled files, a local folder, the Hugging Face Hub, the origin.

Weights are taken from the first of these places that has them. Files with a published hash are
checked against it. Converted ones have none: that of the first conversion is kept beside it and
compared at every load, with that of the file that it was made from. One that was kept without is
downloaded again, or taken with a warning where it cannot be.
"""

import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import constants
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is its client's
    HTTPError,
    OfflineModeIsEnabled,
)
from torchvision.models import WeightsEnum

from ccnet.files import atomic_write, sha256_of, user_path
from ccnet.weights.conversion import read_foreign
from ccnet.weights.hub import fetch_file
from ccnet.weights.registry import details_of
from ccnet.weights.serialization import ModelWeights, read_files, write_weights

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parents[1]
BUNDLED_DIRS = (_PACKAGE.parent / "weights", _PACKAGE / "bundled")
"""Folders of bundled weights: in the repository, and inside an installed package."""

WEIGHTS_DIR_VARIABLE = "CCNET_WEIGHTS_DIR"
"""Environment variable that names one more folder of weights."""

UNREACHABLE = (OSError, HTTPError, OfflineModeIsEnabled)
"""Errors raised when the Hub cannot be reached or does not have a file."""


def load_registered(weights: WeightsEnum, *, progress: bool = True) -> ModelWeights:
    """Loads registered weights from the first place that has them.

    Args:
        weights: a member of one of the enums in `ccnet.weights`.
        progress: show a progress bar for downloads.

    Raises:
        FileNotFoundError: if no place has them; names every place, its problem, and a remedy.
        ValueError: if a file does not have the published hash.
    """
    failures = []
    for look in (_in_folders, _on_the_hub, _at_the_origin):
        try:
            found = look(weights, progress)
        except OSError as error:
            failures.append(str(error))
        else:
            if found is not None:
                return found
    tried = "\n  ".join(line for failure in failures for line in failure.splitlines())
    raise FileNotFoundError(f"{weights} was not found. Tried:\n  {tried}\n{_remedy(weights)}")


def _in_folders(weights: WeightsEnum, progress: bool) -> ModelWeights | None:
    folders = list(BUNDLED_DIRS)
    own = os.environ.get(WEIGHTS_DIR_VARIABLE)
    if own:
        folders.append(user_path(own))
    for folder in folders:
        path = folder / weights.meta["file"]
        if path.is_file():
            verify(path, weights.meta["sha256"])
            if weights.meta["sha256"] is None:
                logger.warning("%s is taken unverified: it has no published hash", path)
            return read_files(path, None, str(path), details_of(weights))
    origin = weights.meta["origin"]
    if own and origin:
        path = user_path(own) / Path(origin["url"]).name
        if path.is_file():
            verify(path, origin["sha256_prefix"])
            return _converted(path, weights)
    raise FileNotFoundError("\n".join(f"{folder / weights.meta['file']}" for folder in folders))


def _on_the_hub(weights: WeightsEnum, progress: bool) -> ModelWeights | None:
    hub = weights.meta["hub"]
    if hub is None:
        return None
    place = f"hf://{hub['repo_id']}@{hub['revision']}/{hub['filename']}"
    try:
        path = fetch_file(hub["repo_id"], hub["filename"], hub["revision"], progress=progress)
    except UNREACHABLE as error:
        raise FileNotFoundError(f"{place}: {error}") from error
    try:
        verify(path, hub["sha256"])
    except ValueError:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return read_files(path, None, place, details_of(weights))


def _at_the_origin(weights: WeightsEnum, progress: bool) -> ModelWeights | None:
    origin = weights.meta["origin"]
    if origin is None:
        return None
    cached = Path(constants.HF_HOME, "ccnet", weights.meta["file"])
    sums = _read_sums(cached)
    if not cached.is_file():
        return _fetched(weights, cached, sums, progress)
    is_known = cached.name in sums
    try:
        if not is_known:
            raise ValueError(f"{cached} is unverified: no hash was kept beside it")
        if sha256_of(cached) != sums[cached.name]:
            raise ValueError(f"{cached} is not as it was kept")
        return read_files(cached, None, str(cached), details_of(weights))
    except ValueError as error:
        logger.warning("%s", error)
    try:
        return _fetched(weights, cached, sums, progress)
    except FileNotFoundError:
        if is_known:
            raise
        loaded = read_files(cached, None, str(cached), details_of(weights))
    logger.warning("%s is taken unverified, since it cannot be downloaded again", cached)
    with suppress(OSError):
        _keep_sums(cached, cached)
    return loaded


def _fetched(
    weights: WeightsEnum, cached: Path, sums: Mapping[str, str], progress: bool
) -> ModelWeights:
    """Downloads weights from their origin, converts them and keeps the converted ones."""
    origin = weights.meta["origin"]
    url = origin["url"]
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(f"{cached}\n{url}: skipped, because HF_HUB_OFFLINE is set")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(url).name)
        first = sums.get(path.name, "")
        is_full = len(first) == 64 and first.startswith(origin["sha256_prefix"])
        expected = first if is_full else origin["sha256_prefix"]
        try:
            torch.hub.download_url_to_file(url, str(path), expected, progress)
        except OSError as error:
            raise FileNotFoundError(f"{cached}\n{url}: {error}") from error
        except RuntimeError as error:
            raise ValueError(f"{url} is not the published file: {error}") from error
        loaded = _converted(path, weights)
        try:
            write_weights(cached, loaded)
            _keep_sums(cached, cached, path)
        except OSError as error:
            logger.warning("%s could not be kept, and will be downloaded again: %s", cached, error)
    return replace(loaded, source=url)


def _keep_sums(cached: Path, *paths: Path) -> None:
    """Writes the SHA-256 of some files beside converted weights, as sha256sum does."""
    lines = [f"{sha256_of(path)}  {path.name}\n" for path in paths]
    with atomic_write(_sums_of(cached)) as temporary:
        temporary.write_text("".join(lines))


def _sums_of(cached: Path) -> Path:
    return cached.with_suffix(".sha256")


def _read_sums(cached: Path) -> dict[str, str]:
    """Returns the hashes that were kept with converted weights, by the names of the files."""
    try:
        text = _sums_of(cached).read_text(errors="replace")
    except OSError:
        return {}
    lines = (line.split() for line in text.splitlines())
    return {line[1]: line[0] for line in lines if len(line) == 2}


def _converted(path: Path, weights: WeightsEnum) -> ModelWeights:
    converted = read_foreign(path)
    return replace(
        converted,
        config=weights.meta["config"],
        details=details_of(weights),
        source=str(path),
        assumed={},
    )


def verify(path: Path, sha256: str | None) -> None:
    """Checks the SHA-256 of a file against a full hash or a prefix of one; None skips the check.

    Raises:
        ValueError: if the hashes differ.
    """
    if sha256 is None:
        return
    if not sha256:
        raise ValueError(f"{path} cannot be verified against an empty hash")
    found = sha256_of(path)
    if not found.startswith(sha256):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 is {found}, not {sha256}. "
            "Download it again, or pass its path as weights= to use it anyway."
        )


def forget_if_changed(url: str) -> None:
    """Removes a download that PyTorch keeps, if it is not as it was: PyTorch would not notice.

    Args:
        url: of the download, whose file name ends in the beginning of its SHA-256.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if path.is_file() and not sha256_of(path).startswith(path.stem.rpartition("-")[2]):
        logger.warning("downloading again: %s is not as it was published", path)
        path.unlink()


def _remedy(weights: WeightsEnum) -> str:
    by_hand = weights.meta.get("by_hand")
    if by_hand:
        return str(by_hand)
    names = [weights.meta["file"]]
    if weights.meta["origin"]:
        names.append(Path(weights.meta["origin"]["url"]).name)
    return f"Put {' or '.join(names)} into a folder and set {WEIGHTS_DIR_VARIABLE} to its path."
