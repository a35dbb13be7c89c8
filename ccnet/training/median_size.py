"""Median size: that of the images on which the best weights of a run are chosen."""

import logging
import math
from typing import Any

from ccnet.distributed import from_rank_zero, rank
from ccnet.inference.protocol import Size

logger = logging.getLogger(__name__)

MOST = 25
"""Number of images that are looked at, from all over the data set."""


def median_size(dataset: Any) -> Size | None:
    """Returns the size of a data set's median image, by area: a size that occurs in it.

    Rank 0 reads up to `MOST` images; every rank must call.

    Args:
        dataset: of images (C, H, W) with masks.

    Returns:
        Height and width, in pixels; None for no images.
    """
    size = from_rank_zero(lambda: _median_size(dataset))
    if size and rank() == 0:
        logger.info(
            "training size: %d x %d pixels, that of the median image to validate on; predict fits "
            "images into it",
            *size[::-1],
        )
    return size


def _median_size(dataset: Any) -> Size | None:
    count = len(dataset)
    chosen = sorted({index * count // MOST for index in range(MOST)}) if count else []
    sizes = [dataset[index][0].shape[-2:] for index in chosen]
    ordered = sorted(((int(height), int(width)) for height, width in sizes), key=math.prod)
    return ordered[len(ordered) // 2] if ordered else None
