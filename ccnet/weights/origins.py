"""Origins: checkpoints fetched from those who trained them, converted, and kept.

Beside a converted file, the hashes of it and of the checkpoint are kept: the first is compared at
every load, the second when the checkpoint is fetched again. A file without one is fetched again, or
taken with a warning where that cannot be.
"""

import logging
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants
from torchvision.models import WeightsEnum

from ccnet.files import atomic_write, sha256_of
from ccnet.weights.conversion import read_foreign
from ccnet.weights.fetching import fetch
from ccnet.weights.hashes import read_sums, write_sums
from ccnet.weights.registry import details_of
from ccnet.weights.serialization import ModelWeights, read_files, write_weights

logger = logging.getLogger(__name__)


def load_from_origin(weights: WeightsEnum, *, progress: bool = True) -> ModelWeights:
    """Loads the kept conversion of registered weights, or fetches, converts and keeps them.

    Raises:
        FileNotFoundError: if they are not kept and cannot be fetched; a line for each place.
        ValueError: if the origin has another file than the published one.
    """
    kept = Path(constants.HF_HOME, "ccnet", weights.meta["file"])
    if not kept.is_file():
        return _fetch(weights, kept, progress)
    sums = read_sums(_sums_of(kept))
    try:
        if kept.name not in sums:
            raise ValueError(f"{kept} is unverified: no hash was kept beside it")
        if sha256_of(kept) != sums[kept.name]:
            raise ValueError(f"{kept} is not as it was kept")
        return read_files(kept, None, str(kept), details_of(weights))
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
    try:
        return _fetch(weights, kept, progress)
    except FileNotFoundError:
        if kept.name in sums:
            raise
        loaded = read_files(kept, None, str(kept), details_of(weights))
    logger.warning("%s is taken unverified, since it cannot be downloaded again", kept)
    with suppress(OSError):
        write_sums(_sums_of(kept), {kept.name: sha256_of(kept)})
    return loaded


def convert_registered(path: Path, weights: WeightsEnum) -> ModelWeights:
    """Converts the checkpoint of registered weights, of which the registry knows the options."""
    return replace(as_registered(read_foreign(path), weights), source=str(path))


def as_registered(found: ModelWeights, weights: WeightsEnum) -> ModelWeights:
    """Returns what was read from a checkpoint with all that the registry knows of it."""
    return replace(found, config=weights.meta["config"], details=details_of(weights), assumed={})


def _fetch(weights: WeightsEnum, kept: Path, progress: bool) -> ModelWeights:
    origin = weights.meta["origin"]
    url = origin["url"]
    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(f"{kept}\n{url}: skipped, because HF_HUB_OFFLINE is set")
    first = read_sums(_sums_of(kept)).get(Path(url).name, "")
    is_full = len(first) == 64 and first.startswith(origin["sha256_prefix"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(url).name)
            fetch(url, path, first if is_full else origin["sha256_prefix"], progress=progress)
            loaded = convert_registered(path, weights)
            try:
                _keep(kept, loaded, path)
            except OSError as error:
                logger.warning(
                    "%s could not be kept, and will be downloaded again: %s", kept, error
                )
    except OSError as error:
        raise FileNotFoundError(f"{kept}\n{url}: {error}") from error
    return replace(loaded, source=url)


def _keep(kept: Path, loaded: ModelWeights, checkpoint: Path) -> None:
    """Writes the converted weights, before them their hash: no reader sees them without it."""
    with atomic_write(kept) as temporary:
        write_weights(temporary, loaded)
        sums = {kept.name: sha256_of(temporary), checkpoint.name: sha256_of(checkpoint)}
        write_sums(_sums_of(kept), sums)


def _sums_of(kept: Path) -> Path:
    return kept.with_suffix(".sha256")
