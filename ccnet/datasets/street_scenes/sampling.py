"""Random sampling: uniform choice and smooth noise."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

T = TypeVar("T")


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Draws one of the items uniformly."""
    return items[int(rng.integers(len(items)))]


def smooth_noise(
    rng: np.random.Generator, grid: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Draws noise in -1..1: a random grid (rows, columns) resized to `size` (rows, columns)."""
    coarse = Image.fromarray(rng.uniform(-1, 1, grid).astype(np.float32))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BILINEAR))
