"""Pictures of labels and of attention: indexed colour maps, overlays, heat maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ccnet.classes import LabelSet

HEAT_DECADES = 6.0
"""The powers of ten that the colours of attention span."""

_HEAT = (
    (72, 52, 160),
    (150, 50, 150),
    (214, 70, 100),
    (245, 130, 50),
    (254, 200, 70),
    (255, 255, 220),
)


def colorize(labels: Tensor, label_set: LabelSet) -> Image.Image:
    """An indexed picture whose pixel values are the labels and whose palette is their colours.

    Args:
        labels: (H, W), uint8: classes, or 255 for ignored pixels, which come out black.
        label_set: the colours of the classes.

    Returns:
        A PIL image of mode "P" and size (W, H).
    """
    picture = Image.fromarray(_to_array(labels))
    picture.putpalette(label_set.palette)
    return picture


def overlay(
    image: Tensor, labels: Tensor, label_set: LabelSet, opacity: float = 0.5
) -> Image.Image:
    """The classes' colours over the picture; ignored pixels show the picture alone.

    Args:
        image: (3, H, W), uint8, RGB.
        labels: (H, W), uint8: classes, or 255 for ignored pixels.
        label_set: the colours of the classes.
        opacity: 0 (the picture alone) to 1 (the colours alone).

    Returns:
        A PIL image of mode "RGB" and size (W, H).

    Raises:
        ValueError: if the sizes differ, or the opacity is outside 0..1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in 0..1, not {opacity}")
    if image.shape[-2:] != labels.shape:
        raise ValueError(
            f"image {tuple(image.shape)} and labels {tuple(labels.shape)} differ in size"
        )
    picture = Image.fromarray(_to_array(image.movedim(0, -1)))
    colors = colorize(labels, label_set).convert("RGB")
    is_class = Image.fromarray((_to_array(labels) < len(label_set)).astype(np.uint8) * 255)
    return Image.composite(Image.blend(picture, colors, opacity), picture, is_class)


@contextmanager
def capture_queries_and_keys(attention: nn.Module | None) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects the query and the key of each loop of a network that runs inside.

    They are ready for `attention.attention_map` at the end, in float64: attention may be so sharp
    that float32 rounds most weights to 0.

    Args:
        attention: the criss-cross module, such as `model.head.cca`.

    Yields:
        A list, filled at the end: (N, Ck, *spatial) twice for each loop, the first loop first, on
        the CPU.

    Raises:
        ValueError: if there is no attention: the recurrence of the network is 0.

    Example:
        >>> with capture_queries_and_keys(model.head.cca) as loops:
        ...     model.predict("street.jpg")
        >>> weights = attention_map(loops, position=(20, 30))
    """
    if attention is None:
        raise ValueError("the network has no attention: its recurrence is 0, not 1 or more")
    captured: tuple[list[Tensor], list[Tensor]] = ([], [])
    hooks = [
        attention.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, into=into: into.append(output)
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
        # Copied: what inference mode has made cannot be differentiated.
        loops.append((_float64_copy(query), _float64_copy(key)))


def map_position(
    pixel: Sequence[int], image_size: Sequence[int], map_size: Sequence[int]
) -> tuple[int, ...]:
    """The position of a smaller map that is nearest to a pixel, corners lying on corners.

    Args:
        pixel: its row and column.
        image_size: height and width of the picture, in pixels.
        map_size: height and width of the map.

    Raises:
        ValueError: if the pixel is not on the picture.
    """
    (row, column), (height, width) = pixel, image_size
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"row {row}, column {column} is not on a picture of {height} rows and {width} columns, "
            "counted from 0"
        )
    return tuple(map(_nearest, pixel, image_size, map_size))


def heat_colors(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours from dark violet to pale yellow, ever lighter: (...) in 0..1 to RGB (..., 3)."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(levels, stops, channel) for channel in zip(*_HEAT, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_overlay(image: Tensor, weights: Tensor) -> Image.Image:
    """Attention over the darkened grey picture, its colour the logarithm of the weight.

    A weight of 1 has the lightest colour, `10 ** -HEAT_DECADES` or less the darkest; where the
    weight is 0, the picture shows alone.

    Args:
        image: (3, H, W), uint8, RGB.
        weights: (h, w), floating point, in 0..1, spread over the picture with corners on corners.

    Returns:
        A PIL image of mode "RGB" and size (W, H).

    Raises:
        ValueError: if the weights are no map, or outside 0..1.
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
    grey = Image.fromarray(_to_array(image.movedim(0, -1))).convert("L").point(lambda v: 0.8 * v)
    heat = Image.fromarray(heat_colors(levels.numpy()))
    mask = Image.fromarray(_to_array(opacity.mul(255).round().to(torch.uint8)))
    return Image.composite(heat, grey.convert("RGB"), mask)


def mark_pixel(picture: Image.Image, pixel: Sequence[int]) -> Image.Image:
    """A copy of the picture with a white ring, seamed in black, around a pixel (row, column)."""
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
    """The position on one axis of a map that is nearest to a pixel, ends lying on ends."""
    return round(at * (positions - 1) / max(1, pixels - 1))


def _to_array(pixels: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels.detach().cpu().numpy())
