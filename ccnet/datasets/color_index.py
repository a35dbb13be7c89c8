"""Color index: an image of few colours as numbers of its colours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccnet.classes import Color

MOST = 256
"""Colours that can be numbered in 8 bits."""


def index_colors(
    values: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], tuple[Color, ...]] | None:
    """Numbers the colours of an image.

    Args:
        values: (H, W, 3), RGB.

    Returns:
        The number of each pixel's colour, (H, W), and the colours, ascending; None if there are
        more than `MOST`.
    """
    found: Any = Image.fromarray(values).getcolors(MOST)
    if found is None:
        return None
    colors = sorted(color for _, color in found)
    packed = _packed(np.array(colors, np.uint8))
    return np.searchsorted(packed, _packed(values)).astype(np.uint8), tuple(colors)


def _packed(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (..., 3) as one number each, in the same order."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue
