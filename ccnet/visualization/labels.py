"""Labels drawn: indexed colour maps, and overlays on the image."""

from numbers import Real

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ccnet.classes import LabelSet
from ccnet.options import named_options


def colorize(labels: Tensor, label_set: LabelSet) -> Image.Image:
    """Draws an indexed image: pixel values are the labels, the palette holds their colours.

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
    image: Tensor, labels: Tensor, label_set: LabelSet, opacity: float = 0.5
) -> Image.Image:
    """Blends the colours of the classes over an image; ignored pixels keep the image's colour.

    Args:
        image: (3, H, W), uint8, RGB; or (1, H, W), grey.
        labels: (H, W), uint8: classes, or 255 for ignored pixels.
        label_set: the colours of the classes.
        opacity: 0 (only the image) to 1 (only the colours).

    Returns:
        A PIL image of mode "RGB" and size (W, H).

    Raises:
        ValueError: if the sizes differ, the image has other channels, or the opacity is outside
            0..1.
    """
    if not (isinstance(opacity, Real) and 0 <= opacity <= 1):
        raise ValueError(f"opacity must be in 0..1, not {opacity!r}")
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
    colors = colorize(labels, label_set).convert("RGB")
    is_class = Image.fromarray((to_array(labels) < len(label_set)).astype(np.uint8) * 255)
    return Image.composite(Image.blend(picture, colors, opacity), picture, is_class)


def to_array(pixels: Tensor) -> NDArray[np.uint8]:
    """Copies uint8 pixels of any device and memory order, for Pillow."""
    return np.ascontiguousarray(pixels.detach().cpu().numpy())
