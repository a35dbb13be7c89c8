"""Label maps: the numbers that a lossless image file holds, one a pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ccnet.datasets.color_index import MOST, index_colors
from ccnet.datasets.wording import pixels_in_short
from ccnet.files import irregularity
from ccnet.images import UNREADABLE, restore_palette, stored_orientation
from ccnet.images.formats import quiet
from ccnet.images.tiff import layout_of
from ccnet.schema import reason_of

LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")
"""Formats of label maps."""

_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
"""Formats that are recognised for the sake of the error alone."""

_LOSSY_CODINGS = ("jpeg", "tiff_jpeg", "webp")
"""Compressions of TIFF that change the numbers."""

_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""Grey levels that viewers show between two numbers of few bits; Pillow too, but for one bit."""

_EIGHT_BITS = {"LA", "RGB", "RGBA", "RGBX", "RGBa", "BGR", "BGRA", "BGRX", "XBGR", "R", "PA"}
"""Pillow's codings of several channels that it does not rescale."""


class _UnfitError(ValueError):
    """Says what is wrong with a file that can be read."""


@dataclass(frozen=True)
class LabelMap:
    """The numbers in a file.

    Attributes:
        values: (H, W), uint8, as they are stored: EXIF orientation is not applied.
        palette: what viewers show for the numbers 0, 1, ...: red, green and blue (0..255) one after
            another. Empty if the numbers are grey levels themselves.
        orientation: EXIF orientation, 1..8.
        is_colored: whether the file holds colours, no numbers: `values` count its own colours,
            which are the palette.
    """

    values: NDArray[np.uint8]
    palette: bytes = b""
    orientation: int = 1
    is_colored: bool = False


def read_label_map(path: Path, *, colored: bool = False) -> LabelMap:
    """Reads a label map: a PNG, BMP, GIF or TIFF file with a whole number for every pixel.

    The number is the grey level, or the index into a palette. A grey level of fewer than 8 bits is
    the number that is stored, not the one that viewers stretch it to. Colour images whose three
    channels are equal are grey ones.

    Args:
        path: of the file.
        colored: take other colour images too, of up to 256 colours.

    Raises:
        ValueError: if the file cannot be read, may have changed the numbers (JPEG), holds several
            pictures, colours that are not asked for, transparent pixels, or numbers that are not in
            0..255.
    """
    Image.init()
    formats = [name for name in (*LOSSLESS, *_LOSSY) if name in Image.OPEN]
    try:
        if problem := irregularity(path):
            raise ValueError(problem)
        # Pillow maps a file that it opens itself into memory, and some versions turn that wrongly.
        with quiet(), path.open("rb") as stream, Image.open(stream, formats=formats) as file:
            _check_file(file)
            restore_palette(file)
            coding = _coding(file)
            orientation = stored_orientation(file)
            file.load()
            values = _numbers(file, coding)
            shown = file.getpalette() if file.mode in ("P", "PA") else None
            is_colored = values.ndim == 3
            if is_colored and not colored:
                raise _UnfitError(_not_numbers(file.mode))
            if is_colored:
                values, shown = _colors(values)
            if file.format == "TIFF":  # Pillow has turned it upright
                values = turned(values, _INVERSE.get(orientation, orientation))
    except _UnfitError as error:
        raise ValueError(f"{path} {error}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no PNG, BMP, GIF or TIFF image: save it as PNG") from error
    except UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a PNG, BMP, GIF or TIFF image: {reason_of(error)}"
        ) from error
    step = _STEPS.get("1" if file.mode == "1" else coding)
    palette = np.repeat(np.arange(0, 256, step), 3).tolist() if step else (shown or [])
    if file.format == "GIF" and is_grey(bytes(palette)):
        # GIF has no other grey images, and each file has only the levels that occur in it
        levels = np.zeros(256, np.uint8)
        levels[: len(palette) // 3] = palette[::3]
        return LabelMap(levels.take(values), b"", orientation)
    return LabelMap(values, bytes(palette), orientation, is_colored)


def is_grey(palette: bytes) -> bool:
    """Whether a palette has no other colours than grey ones."""
    return bool(palette) and palette[::3] == palette[1::3] == palette[2::3]


def stored_size(file: Image.Image) -> tuple[int, int]:
    """The height and width of an image that has been opened, before its orientation is applied."""
    tags: Any = getattr(file, "tag_v2", {})
    width, height = file.size
    return (
        tags.get(ExifTags.Base.ImageLength, height),
        tags.get(ExifTags.Base.ImageWidth, width),
    )


_INVERSE = {6: 8, 8: 6}
"""EXIF orientations that are not their own inverse."""


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns an array (H, W) upright that has this EXIF orientation, 1..8, as a view."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    flip_columns = orientation in (2, 3, 6, 7)
    flip_rows = orientation in (3, 4, 7, 8)
    return values[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """The size (H, W) of `turned` arrays."""
    return size[::-1] if orientation in (5, 6, 7, 8) else size


def _check_file(file: Image.Image) -> None:
    compression = file.info.get("compression")
    if file.format not in LOSSLESS or compression in _LOSSY_CODINGS:
        kind = file.format if file.format not in LOSSLESS else f"TIFF with {compression}"
        raise _UnfitError(
            f"is a {kind} file, which may change the numbers: export the mask again from "
            "where it was drawn, as PNG, BMP, GIF or TIFF"
        )
    if isinstance(file, TiffImageFile):
        layout_of(file).check_whole()
    pictures = getattr(file, "n_frames", 1)
    if pictures > 1:
        raise _UnfitError(f"holds {pictures} pictures; a mask is one")


def _coding(file: Image.Image) -> str:
    """Pillow's name of how pixels are stored, such as "L;2" for grey of two bits."""
    tiles: Any = getattr(file, "tile", None)
    arguments = tiles[0][3] if tiles else file.mode
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    coding = next((one for one in arguments if isinstance(one, str)), file.mode)
    return coding[:3] if coding.startswith(("L;2", "L;4")) else coding  # whatever the bit order


def _numbers(file: Image.Image, coding: str) -> NDArray[np.uint8]:
    """The numbers (H, W), or colours (H, W, 3)."""
    values = np.array(file)
    if values.ndim == 3:
        values = _single_channel(file, coding, values)
    elif file.mode not in ("1", "L", "P", "I", "F") and not file.mode.startswith("I;16"):
        raise _UnfitError(_not_numbers(file.mode))
    if values.dtype == np.uint8:
        return values // _STEPS[coding] if coding in _STEPS and file.mode == "L" else values
    if values.dtype == bool:
        return values.astype(np.uint8)
    nan = int(np.count_nonzero(values != values))
    if nan:
        raise _UnfitError(
            f"has no number (NaN) in {pixels_in_short(nan, values.size)}: give pixels without a "
            "class a number, such as 255"
        )
    low, high = values.min(), values.max()
    if high > 255 and file.mode.startswith("I") and not (values % 257).any():
        values, high = values // 257, high // 257  # 8 bits stretched to 16
    if not (low >= 0 and high <= 255) or (values != values.astype(np.uint8)).any():
        raise _UnfitError(
            f"holds numbers in {low:g}..{high:g} (mode {file.mode}); a class number is a "
            "whole number in 0..255"
        )
    return values.astype(np.uint8)


def _single_channel(file: Image.Image, coding: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """The channel that all colours (H, W, channels) have in common, or the colours."""
    bits = getattr(file, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (8,))
    if file.mode not in _EIGHT_BITS or coding not in _EIGHT_BITS or set(bits) != {8}:
        raise _UnfitError(_not_numbers(coding))
    if file.mode in ("LA", "PA", "RGBA", "RGBa"):
        if (values[..., -1] < 255).any():
            raise _UnfitError(
                "has transparent pixels: give them a number, such as 255 for no class, or in a "
                "mask of colours one of these, and save the mask without transparency"
            )
        values = values[..., :-1]
    first, *others = (values[..., channel] for channel in range(values.shape[-1]))
    is_grey_alone = all(np.array_equal(first, other) for other in others)
    if not is_grey_alone and values.shape[-1] != 3:
        raise _UnfitError(_not_numbers(file.mode))
    channels: NDArray[np.uint8] = np.ascontiguousarray(first if is_grey_alone else values)
    return channels


def _colors(values: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int]]:
    """The numbers of an image's colours, and the colours, one channel after another."""
    found = index_colors(values)
    if found is None:
        raise _UnfitError(
            f"has more than {MOST} colours, as after JPEG, with smooth edges, after a resize that "
            "blends, or in a photograph: export masks without loss and without smooth edges, and "
            "resize them with nearest neighbour"
        )
    numbers, colors = found
    return numbers, [channel for color in colors for channel in color]


def _not_numbers(mode: str) -> str:
    return (
        f"has mode {mode}; a mask must be a grey or palette image: "
        "convert its colours to one class number per pixel"
    )
