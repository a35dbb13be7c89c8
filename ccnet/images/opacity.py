"""Opacity: whether a fourth band is one, and the transparent colour of a PNG."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccnet.images.jpeg2000 import has_opacity

OPAQUE_MODES = {"LA": "L", "La": "L", "PA": "P", "RGBA": "RGB", "RGBa": "RGB"}
"""The mode that is left when opacity is dropped."""


def drop_opacity(image: Image.Image) -> Image.Image:
    """Removes the band of opacity, if there is one; the colours stay as they are stored."""
    return image.convert(OPAQUE_MODES.get(image.mode, image.mode))


def declares_opacity(image: Any) -> bool:
    """Whether the file says that its last band is opacity, where Pillow takes that for granted.

    Else it is another picture of the same place, such as near infrared, or filling. Everything is
    declared of formats that know of no other bands.

    Args:
        image: an opened file, before its pixels are read.
    """
    if getattr(image, "fp", None) is None:
        return True
    if image.format == "JPEG2000":
        return has_opacity(image.fp)
    if image.format == "PSD":  # only pictures of layers have transparent parts: else, a selection
        return bool(image.layers)
    if image.format == "TGA":  # the header has the number of its bits
        image.fp.seek(17)
        return bool(image.fp.read(1)[0] & 0x0F)
    return True


def alpha_of_transparent_color(image: Any) -> Image.Image | None:
    """Opacity, of mode L, of a PNG or GIF that names a transparent grey value, or a colour.

    Args:
        image: an opened file, before its pixels are read: of any mode but palette.

    Returns:
        None if no value or colour is transparent.
    """
    color = image.info.get("transparency")
    tile = getattr(image, "tile", None)
    coding = str(tile[0][3]) if tile else ""
    if isinstance(color, int) and image.mode in ("1", "L", "I", "I;16"):
        # Pillow scales grey values of 1, 2 and 4 bits to 0..255, but not the transparent one.
        scale = {"1": 255, "L;2": 85, "L;4": 17}.get(coding, 1)
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
        return Image.fromarray(np.where(values == color * scale, 0, 255).astype(np.uint8))
    if isinstance(color, tuple) and image.mode == "RGB":
        file = image.filename or getattr(image, "fp", None)  # which Pillow forgets when it has read
        values = np.asarray(image)
        if coding == "RGB;16B" and file:
            values = values.astype(np.uint16) << 8 | _low_bytes(file)
        return Image.fromarray(np.where((values == color).all(-1), 0, 255).astype(np.uint8))
    return None


def _low_bytes(file: Any) -> NDArray[np.uint8]:
    """The lower half of the samples of a PNG of 16 bits, of which Pillow keeps the upper one."""
    with Image.open(file, formats=["PNG"]) as image:
        opened: Any = image
        opened.tile = [(*opened.tile[0][:3], "RGB;16L")]
        return np.asarray(image)
