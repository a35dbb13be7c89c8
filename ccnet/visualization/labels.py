"""Labels drawn: indexed colour maps, and overlays on the image."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from torch import Tensor

from ccnet.class_fields import colors_of
from ccnet.classes import Color, LabelSet
from ccnet.options import named_options
from ccnet.schema import check, flag, shown
from ccnet.visualization.legend import legend_entries, with_legend
from ccnet.visualization.palettes import display_colors

_OUTLINES_OF_PICTURE = 360
"""How many times an outline's width the picture is high or wide."""


def colorize(labels: Tensor, label_set: LabelSet) -> Image.Image:
    """Draws an indexed image: pixel values are the labels, the palette holds their colours.

    The colours are those of the data set's own files; `overlay` has some that people tell apart.

    Args:
        labels: (H, W), uint8: classes, or 255 for ignored pixels, which are black.
        label_set: the colours of the classes.

    Returns:
        A PIL image of mode "P" and size (W, H).
    """
    picture = Image.fromarray(to_array(labels))
    picture.putpalette(label_set.palette)
    return picture


@named_options()
def overlay(
    image: Tensor,
    labels: Tensor,
    label_set: LabelSet,
    opacity: float = 0.5,
    *,
    classes: str | int | Iterable[str | int] | None = None,
    legend: bool = False,
    outlines: bool = False,
    colors: Sequence[Color] | None = None,
) -> Image.Image:
    """Blends the colours of the classes over an image; ignored pixels keep the image's colour.

    Args:
        image: (3, H, W), uint8, RGB; or (1, H, W), grey.
        labels: (H, W), uint8: classes, or 255 for ignored pixels.
        label_set: the classes.
        opacity: 0 (only the image) to 1 (only the colours).
        classes: names or labels of the classes to draw, tensors and arrays too; others keep the
            image's colour. None for all.
        legend: whether to draw below the image which colour is which class, and its share of the
            image, the largest first.
        outlines: whether the pixels where a class meets another have its colour alone; the line of
            a drawn class is 1 pixel wide in small images, and 1/360 of the short side in others.
        colors: a colour for each class, such as `label_set.colors`; None for those of
            `display_colors`, which are easier to tell apart.

    Returns:
        A PIL image of mode "RGB" and size (W, H); with a legend it is higher, and not narrower.

    Raises:
        ValueError: if the sizes differ, the image has other channels, the opacity is outside
            0..1, or there is no such class.
    """
    if not (isinstance(opacity, Real) and 0 <= opacity <= 1):
        raise ValueError(f"opacity must be in 0..1, not {opacity!r}")
    check({"legend": legend, "outlines": outlines}, {"legend": flag(), "outlines": flag()})
    chosen = chosen_labels(classes, label_set)
    if colors is None:
        colors = display_colors(label_set)
    elif len(colors := colors_of("colors", colors)) != len(label_set):
        raise ValueError(f"{len(label_set)} classes need as many colors, not {len(colors)}")
    if image.shape[-2:] != labels.shape:
        raise ValueError(
            f"image {tuple(image.shape)} and labels {tuple(labels.shape)} differ in size"
        )
    if image.shape[0] not in (1, 3):
        raise ValueError(
            f"an image of {image.shape[0]} channels cannot be shown: give visualization.overlay an "
            "RGB one (3, H, W), or draw the labels alone with colorize"
        )
    picture = Image.fromarray(to_array(image.expand(3, -1, -1).movedim(0, -1)))
    pixels = to_array(labels)
    tints = Image.fromarray(pixels)
    tints.putpalette([channel for color in colors for channel in color])
    tints = tints.convert("RGB")
    drawn = Image.fromarray(pixels).point([255 * (label in chosen) for label in range(256)])
    blended = Image.composite(Image.blend(picture, tints, opacity), picture, drawn)
    if outlines:
        width = max(1, round(min(pixels.shape) / _OUTLINES_OF_PICTURE))
        border = Image.fromarray(_is_border(pixels, width).astype(np.uint8) * 255)
        blended = Image.composite(tints, blended, ImageChops.darker(drawn, border))
    if legend:
        return with_legend(blended, legend_entries(labels, label_set, colors, chosen))
    return blended


def chosen_labels(
    classes: str | int | Iterable[str | int] | None, label_set: LabelSet
) -> list[int]:
    """Returns the labels of classes that are given by name or label; all for None.

    Raises:
        ValueError: if there is no such class; names the nearest one.
    """
    if classes is None:
        return list(range(len(label_set)))
    if hasattr(classes, "tolist"):  # tensors, and arrays of NumPy
        classes = classes.tolist()
    if isinstance(classes, str | Integral) or not isinstance(classes, Iterable):
        classes = [classes]
    return [_label_of(one, label_set.categories) for one in classes]


def _label_of(wanted: str | int, names: Sequence[str]) -> int:
    if hasattr(wanted, "tolist"):
        wanted = wanted.tolist()
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    is_number = isinstance(wanted, Integral) and not isinstance(wanted, bool)
    if is_number and 0 <= wanted < len(names):  # type: ignore[operator]
        return int(wanted)
    near = get_close_matches(str(wanted)[:100].lower(), names, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"there is no class {shown(wanted)}: {meant}Give names, or labels in 0..{len(names) - 1}"
    )


def _is_border(labels: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Where another label is at most `width` pixels away in the same row or column."""
    border = np.zeros(labels.shape, dtype=bool)
    for step in range(1, width + 1):
        for own, mark in ((labels, border), (labels.T, border.T)):
            differs = own[step:] != own[:-step]
            mark[step:] |= differs
            mark[:-step] |= differs
    return border


def to_array(pixels: Tensor) -> NDArray[np.uint8]:
    """Copies uint8 pixels of any device and memory order, for Pillow."""
    return np.ascontiguousarray(pixels.detach().cpu().numpy())
