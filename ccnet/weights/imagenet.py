"""ImageNet weights of torchvision's ResNets: kept where torch.hub keeps them, verified, fetched."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torchvision.models import WeightsEnum

from ccnet.files import atomic_write
from ccnet.weights.fetching import fetch
from ccnet.weights.hashes import verify
from ccnet.weights.pickles import read_pickle

logger = logging.getLogger(__name__)


def load_imagenet(weights: WeightsEnum, *, progress: bool = True) -> Mapping[str, Any]:
    """Loads the state dict of torchvision's weights from torch.hub's cache, or fetches it there.

    Args:
        weights: a member of one of torchvision's enums, whose URL ends in the beginning of its
            file's SHA-256.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if it is not kept and cannot be fetched; names both places.
        ValueError: if the server has another file than the published one.
    """
    url = weights.url
    kept = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    prefix = kept.stem.rpartition("-")[2]
    if kept.is_file():
        try:
            verify(kept, prefix)
            return read_pickle(kept)
        except (OSError, ValueError) as error:
            logger.warning("downloading again: %s", error)
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("skipped, because HF_HUB_OFFLINE is set")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, kept.name)
            fetch(url, path, prefix, progress=progress)
            state_dict = read_pickle(path)
            try:
                with atomic_write(kept) as temporary:
                    shutil.copyfile(path, temporary)
            except OSError as error:
                logger.warning(
                    "%s could not be kept, and will be downloaded again: %s", kept, error
                )
            return state_dict
    except OSError as error:
        raise FileNotFoundError(
            f"{weights} was not found. Tried:\n  {kept}\n  {url}: {error}\n"
            f"Put {kept.name} into {kept.parent}, or pass its path."
        ) from error
