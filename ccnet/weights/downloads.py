"""Downloads of registered weights: bundled files, a local folder, the Hugging Face Hub, the origin.

Weights are taken from the first of these places that has them. Files with a published hash are
checked against it. Weights that are pinned on the Hub are not asked for at their origin, where less
of the hash is known.
"""

import logging
import os
from pathlib import Path

from torchvision.models import WeightsEnum

from ccnet.files import sha256_of, user_path
from ccnet.weights.hashes import verify
from ccnet.weights.hub import fetch_file, in_one_line, is_cached
from ccnet.weights.origins import convert_registered, load_from_origin
from ccnet.weights.registry import details_of
from ccnet.weights.serialization import ModelWeights, read_files

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parents[1]
BUNDLED_DIRS = (_PACKAGE.parent / "weights", _PACKAGE / "bundled")
"""Folders of bundled weights: in the repository, and inside an installed package."""

WEIGHTS_DIR_VARIABLE = "CCNET_WEIGHTS_DIR"
"""Environment variable that names one more folder of weights."""


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
    path = checkpoint_at_hand(weights)
    if path:
        return convert_registered(path, weights)
    raise FileNotFoundError("\n".join(f"{folder / weights.meta['file']}" for folder in folders))


def checkpoint_at_hand(weights: WeightsEnum) -> Path | None:
    """Returns the verified checkpoint of an origin in the user's own folder, if it is there.

    Raises:
        ValueError: if it does not have the published hash.
    """
    own, origin = os.environ.get(WEIGHTS_DIR_VARIABLE), weights.meta["origin"]
    if not own or not origin:
        return None
    path = user_path(own) / Path(origin["url"]).name
    if not path.is_file():
        return None
    verify(path, origin["sha256_prefix"])
    return path


def _on_the_hub(weights: WeightsEnum, progress: bool) -> ModelWeights | None:
    hub = weights.meta["hub"]
    if hub is None:
        return None
    place = f"hf://{hub['repo_id']}@{hub['revision']}/{hub['filename']}"
    file = hub["repo_id"], hub["filename"], hub["revision"]
    was_cached = is_cached(*file)
    try:
        path = fetch_file(*file, progress=progress)
        found = sha256_of(path)
        if was_cached and not found.startswith(hub["sha256"]):
            logger.warning("downloading again: %s is not the published file", path)
            _discard(path)
            path = fetch_file(*file, progress=progress)
            found = sha256_of(path)
    except OSError as error:
        raise FileNotFoundError(f"{place}: {in_one_line(error)}") from error
    if not found.startswith(hub["sha256"]):
        _discard(path)
        raise ValueError(
            f"{place} is not the published file: its SHA-256 is {found}, not {hub['sha256']}. "
            f"{_remedy(weights)}"
        )
    return read_files(path, None, place, details_of(weights))


def _discard(path: Path) -> None:
    """Removes a file from the Hub's cache, where it is a link."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _at_the_origin(weights: WeightsEnum, progress: bool) -> ModelWeights | None:
    if weights.meta["origin"] is None or weights.meta["hub"]:
        return None
    return load_from_origin(weights, progress=progress)


def _remedy(weights: WeightsEnum) -> str:
    by_hand = weights.meta.get("by_hand")
    if by_hand:
        return str(by_hand)
    names = [weights.meta["file"]]
    if weights.meta["origin"]:
        names.append(Path(weights.meta["origin"]["url"]).name)
    put = "Set HF_ENDPOINT to a mirror of the Hub, or put" if weights.meta["hub"] else "Put"
    return f"{put} {' or '.join(names)} into a folder and set {WEIGHTS_DIR_VARIABLE} to its path."
