"""Heat: shares of attention as colours, on a logarithmic or linear scale."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ccnet.visualization.attention import nearest
from ccnet.visualization.labels import to_array

HEAT_DECADES = 6.0
"""Number of powers of ten that the logarithmic scale spans."""

HeatScale = Literal["logarithmic", "linear"]

_HEAT = (
    (72, 52, 160),
    (150, 50, 150),
    (214, 70, 100),
    (245, 130, 50),
    (254, 200, 70),
    (255, 255, 220),
)


def heat_colors(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Maps levels (...) in 0..1 to RGB (..., 3): dark violet to pale yellow, ever lighter."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(levels, stops, channel) for channel in zip(*_HEAT, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_opacity(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps levels (...) in 0..1 to the opacity of their colours: none at 0, full from a half on."""
    return np.minimum(1, 2 * levels)


def heat_levels(
    weights: Tensor, scale: HeatScale = "logarithmic", top: float = 1.0
) -> NDArray[np.float64]:
    """Maps attention weights to levels of the colour scale.

    Args:
        weights: (h, w), floating point, in 0..1.
        scale: "logarithmic": a weight of `top` has level 1, `top * 10 ** -HEAT_DECADES` or less
            level 0. "linear": 0 has level 0.
        top: the weight of level 1, more than 0; more than that has it too.

    Returns:
        (h, w) in 0..1.

    Raises:
        ValueError: if the weights are not two-dimensional, or outside 0..1, or there is no such
            scale.
    """
    if weights.dim() != 2 or not (weights.min() >= 0 and weights.max() <= 1 + 1e-4):
        raise ValueError(
            f"weights must be (h, w) in 0..1, not {tuple(weights.shape)} in "
            f"{weights.min():.3g}..{weights.max():.3g}"
        )
    if scale not in get_args(HeatScale):
        names = " or ".join(map(repr, get_args(HeatScale)))
        raise ValueError(f"scale must be {names}, not {scale!r}")
    shares = weights.detach().cpu().double() / top
    if scale == "logarithmic":
        shares = 1 + shares.log10() / HEAT_DECADES
    return shares.clamp(0, 1).numpy()


def heat_overlay(
    image: Tensor, weights: Tensor, scale: HeatScale = "logarithmic", top: float = 1.0
) -> Image.Image:
    """Blends attention over the darkened greyscale image; where there is next to none, it shows.

    Args:
        image: (3, H, W), uint8, RGB; or (1, H, W), grey.
        weights: (h, w), floating point, in 0..1; resized to the image (nearest, corners aligned).
        scale: as in `heat_levels`.
        top: likewise.

    Returns:
        A PIL image of mode "RGB" and size (W, H).

    Raises:
        ValueError: as in `heat_levels`, or if the image has other channels.
    """
    picture = to_picture(image)
    levels = heat_levels(weights, scale, top)
    rows, columns = (
        [nearest(at, pixels, positions) for at in range(pixels)]
        for pixels, positions in zip(image.shape[-2:], weights.shape, strict=True)
    )
    levels = levels[rows][:, columns]
    grey = picture.convert("L").point(lambda v: 0.8 * v)
    heat = Image.fromarray(heat_colors(levels))
    opacity = Image.fromarray(np.rint(255 * heat_opacity(levels)).astype(np.uint8))
    return Image.composite(heat, grey.convert("RGB"), opacity)


def to_picture(image: Tensor) -> Image.Image:
    """Returns an image (3, H, W) or (1, H, W), uint8, as a PIL image of mode "RGB".

    Raises:
        ValueError: if it has other channels.
    """
    if image.shape[0] not in (1, 3):
        raise ValueError(
            f"an image of {image.shape[0]} channels cannot be shown: give an RGB one (3, H, W)"
        )
    return Image.fromarray(to_array(image.expand(3, -1, -1).movedim(0, -1)))
