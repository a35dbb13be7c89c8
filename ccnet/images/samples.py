"""Samples of a picture: 8 bits each, upright, opacity apart from colour."""

import io
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ccnet.images.bitmap import restore_palette
from ccnet.images.formats import open_picture
from ccnet.images.jpeg2000 import check_depth
from ccnet.images.opacity import (
    alpha_of_transparent_color,
    declares_opacity,
    drop_opacity,
)
from ccnet.images.orientation import stored_orientation
from ccnet.images.tiff import ORIENTATION, layout_of, read_layout
from ccnet.images.tiff_samples import read_palette, read_plain

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each EXIF orientation upright."""


@dataclass(frozen=True)
class Samples:
    """The samples of a picture, upright, 8 bits each.

    Attributes:
        color: of any mode without opacity: L, RGB, CMYK, LAB, ....
        alpha: opacity, of mode L; None if everything is opaque.
        profile: the ICC profile, if there is one.
        is_deep: whether the file has more than 8 bits per sample.
    """

    color: Image.Image
    alpha: Image.Image | None
    profile: bytes | None
    is_deep: bool


def read_file(picture: Path | io.BytesIO) -> Samples:
    """Reads the first frame of a file.

    Args:
        picture: its path, or the content of its file.

    Raises:
        ValueError: if the layout of its samples, or the range of their values, is not known.
        Exception: of `UNREADABLE`, if the file is damaged or no picture.
    """
    with picture.open("rb") if isinstance(picture, Path) else nullcontext(picture) as file:
        layout = read_layout(file)
        if layout is not None:
            layout.check()
        if layout is not None and layout.is_plain:
            return _split(read_plain(file, layout), layout.bits > 8)
    try:
        with open_picture(picture) as image:
            return read_image(image)
    except UnidentifiedImageError:
        if layout is None:
            raise
        raise layout.refusal() from None


def read_image(image: Image.Image) -> Samples:
    """Reads the samples of an opened file at its current frame, or of an image in memory.

    Raises:
        ValueError: if the layout of its samples, or the range of their values, is not known.
        Exception: of `UNREADABLE`, if the file is damaged.
    """
    if isinstance(image, TiffImageFile):
        return _read_tiff(image)
    if image.format == "JPEG2000" and getattr(image, "fp", None) is not None:
        check_depth(image.fp)  # type: ignore[attr-defined]
    restore_palette(image)
    is_deep, has_opacity = _is_deep(image), declares_opacity(image)
    alpha = alpha_of_transparent_color(image)
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = _with_pixels(image, np.asarray(image) >> 8)
    return _split(image if has_opacity else drop_opacity(image), is_deep, alpha)


def _read_tiff(image: TiffImageFile) -> Samples:
    layout = layout_of(image)
    layout.check()
    is_deep = layout.bits > 8
    if layout.is_plain and image.tile and image.fp is not None:
        return _split(read_plain(image.fp, layout), is_deep)
    if not layout.is_readable:
        raise layout.refusal()
    try:
        image.load()
    except OSError as error:
        raise ValueError(f"{layout} is damaged, or not supported: {error}") from error
    upright: Image.Image = image
    if image.mode.startswith("I;16"):
        values = np.asarray(image) >> (layout.bits - 8)
        upright = _with_pixels(image, values if layout.photometric else 255 - values)
    elif image.mode == "P":
        upright = image.copy()
        upright.putpalette(read_palette(layout).T.tobytes())
    return _split(upright if layout.opacity else drop_opacity(upright), is_deep)


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened file, not read yet, has more than 8 bits per sample."""
    tile = getattr(image, "tile", None)
    decoder, _, _, arguments = tile[0] if tile else ("", None, None, ())
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    codings = [value for value in arguments if isinstance(value, str)]
    numbers = [value for value in arguments if isinstance(value, int)]
    return (
        image.mode.startswith("I")
        or decoder == "SGI16"
        or any(";16" in coding for coding in codings)
        or (decoder.startswith("ppm") and any(largest > 255 for largest in numbers))
    )


def _with_pixels(image: Image.Image, values: NDArray[Any]) -> Image.Image:
    """A grey image of 8 bits with what else there is to know of another one."""
    grey = Image.fromarray(values.astype(np.uint8))
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    grey.getexif()[ORIENTATION] = stored_orientation(image)
    return grey


def _split(image: Image.Image, is_deep: bool, alpha: Image.Image | None = None) -> Samples:
    """Splits 8-bit samples into colour and opacity, and turns them upright."""
    if image.mode in ("I", "F"):
        raise ValueError(
            f"an image of mode {image.mode!r} has no defined value range; "
            "convert it to 8 or 16 bits per channel"
        )
    profile, turn = image.info.get("icc_profile"), TURNS.get(stored_orientation(image))
    profile = profile if isinstance(profile, bytes) else None
    if image.mode in ("PA", "RGBa") or (image.mode == "P" and image.has_transparency_data):
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        image = drop_opacity(image)
    if turn is not None:
        image, alpha = image.transpose(turn), alpha and alpha.transpose(turn)
    return Samples(image, alpha, profile, is_deep)
