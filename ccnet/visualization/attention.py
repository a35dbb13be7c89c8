"""Attention drawn: queries and keys captured, heat maps on the image, marks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ccnet.visualization.labels import to_array

HEAT_DECADES = 6.0
"""Number of powers of ten that the colour scale of attention spans."""

_HEAT = (
    (72, 52, 160),
    (150, 50, 150),
    (214, 70, 100),
    (245, 130, 50),
    (254, 200, 70),
    (255, 255, 220),
)


@contextmanager
def capture_queries_and_keys(attention: nn.Module | None) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Records the query and key of each criss-cross attention loop that runs inside.

    Other threads may use the network meanwhile: only loops in this thread count. Query and key are
    in float64 for `attention.attention_map`: attention may be so sharp that float32 rounds most
    weights to 0.

    Args:
        attention: the criss-cross attention module, such as `model.head.cca`.

    Yields:
        A list, filled at exit: the query and key of each loop, in order, both (N, Ck, *spatial), on
        the CPU.

    Raises:
        ValueError: if `attention` is None: the recurrence of the network is 0.

    Example:
        >>> with capture_queries_and_keys(model.head.cca) as loops:
        ...     result = model.predict("street.jpg")
        >>> weights = attention_map(loops, position=(20, 30))
    """
    if attention is None:
        raise ValueError("the model has no attention: its recurrence is 0, but must be 1 or more")
    captured: tuple[list[Tensor], list[Tensor]] = ([], [])
    own = get_ident()

    def record(into: list[Tensor], output: Tensor) -> None:
        if get_ident() == own:
            into.append(output)

    hooks = [
        attention.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, into=into: record(into, output)
        )
        for name, into in zip(("query_conv", "key_conv"), captured, strict=True)
    ]
    loops: list[tuple[Tensor, Tensor]] = []
    try:
        yield loops
    finally:
        for hook in hooks:
            hook.remove()
    for query, key in zip(*captured, strict=True):
        # Copied: inference tensors cannot take part in autograd.
        loops.append((_float64_copy(query), _float64_copy(key)))


def map_position(
    pixel: Sequence[int], image_size: Sequence[int], map_size: Sequence[int]
) -> tuple[int, ...]:
    """Returns the position on a smaller feature map nearest to a pixel, with corners aligned.

    Args:
        pixel: row and column.
        image_size: height and width of the image, in pixels.
        map_size: height and width of the feature map.

    Raises:
        ValueError: if the pixel is outside the image.
    """
    (row, column), (height, width) = pixel, image_size
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"row {row}, column {column} is outside the image of {height} rows "
            f"and {width} columns, counted from 0"
        )
    return tuple(map(_nearest, pixel, image_size, map_size))


def heat_colors(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Maps levels (...) in 0..1 to RGB (..., 3): dark violet to pale yellow, ever lighter."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(levels, stops, channel) for channel in zip(*_HEAT, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_overlay(image: Tensor, weights: Tensor) -> Image.Image:
    """Blends attention over the darkened greyscale image, on a logarithmic colour scale.

    A weight of 1 has the lightest colour, `10 ** -HEAT_DECADES` or less the darkest. Where the
    weight is 0, only the image shows.

    Args:
        image: (3, H, W), uint8, RGB.
        weights: (h, w), floating point, in 0..1; resized to the image (nearest, corners aligned).

    Returns:
        A PIL image of mode "RGB" and size (W, H).

    Raises:
        ValueError: if the weights are not two-dimensional, or outside 0..1.
    """
    if weights.dim() != 2 or not (weights.min() >= 0 and weights.max() <= 1 + 1e-4):
        raise ValueError(
            f"weights must be (h, w) in 0..1, not {tuple(weights.shape)} in "
            f"{weights.min():.3g}..{weights.max():.3g}"
        )
    rows, columns = (
        [_nearest(at, pixels, positions) for at in range(pixels)]
        for pixels, positions in zip(image.shape[-2:], weights.shape, strict=True)
    )
    weights = weights.detach().cpu().double()[rows][:, columns]
    levels = (1 + weights.log10() / HEAT_DECADES).clamp(0, 1)
    opacity = (0.5 + 0.5 * levels) * (weights > 0)
    grey = Image.fromarray(to_array(image.movedim(0, -1))).convert("L").point(lambda v: 0.8 * v)
    heat = Image.fromarray(heat_colors(levels.numpy()))
    mask = Image.fromarray(to_array(opacity.mul(255).round().to(torch.uint8)))
    return Image.composite(heat, grey.convert("RGB"), mask)


def mark_pixel(picture: Image.Image, pixel: Sequence[float]) -> Image.Image:
    """Copies an image and draws a white ring, edged in black, around a pixel (row, column)."""
    row, column = pixel
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    line = max(1, min(picture.size) // 180)
    radius = 5 * line
    for seam, color in ((line, "black"), (0, "white")):
        reach = radius + seam
        box = (column - reach, row - reach, column + reach, row + reach)
        draw.ellipse(box, outline=color, width=line + 2 * seam)
    return marked


def _float64_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().clone()


def _nearest(at: int, pixels: int, positions: int) -> int:
    """Returns the position on one axis of a map nearest to a pixel, with ends aligned."""
    return round(at * (positions - 1) / max(1, pixels - 1))
