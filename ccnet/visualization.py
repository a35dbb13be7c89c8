"""Pictures of labels: indexed colour maps and overlays."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ccnet.classes import LabelSet


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


def _to_array(pixels: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels.detach().cpu().numpy())
