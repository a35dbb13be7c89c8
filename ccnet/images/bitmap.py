"""BMP: palettes of grey levels, with which Pillow forgets how many bits a pixel has.

Source: BITMAPCOREHEADER and BITMAPINFOHEADER in Microsoft's documentation of Windows GDI.
"""

import struct
from typing import Any

from PIL import ImagePalette

CODINGS = {1: "P;1", 4: "P;4", 8: "P"}
"""Pillow's name of how pixels with a palette are stored, by their bits."""

STARTS = {"BMP": 14, "DIB": 0}
"""Where the header with the size is, by format."""


def restore_palette(image: Any) -> None:
    """Makes an opened BMP of fewer than 8 bits, or of two colours, an image with a palette again.

    Pillow drops a palette of black and white, and takes each bit for a pixel then; and a palette
    of the levels 0, 1, 2, ..., and takes each byte for one.

    Args:
        image: an opened file of any format, before its pixels are read. It is changed in place.
    """
    start = STARTS.get(image.format)
    if start is None or image.mode not in ("1", "L") or not getattr(image, "tile", None):
        return
    bits = _bits(image.fp, start)
    decoder, box, offset, arguments = image.tile[0]
    is_packed = decoder == "raw" and bits < 8  # runs are unpacked to a byte each
    if bits not in CODINGS or not (is_packed if image.mode == "L" else bits > 1):
        return
    levels = (0, 255) if image.mode == "1" else range(1 << bits)
    image.palette = ImagePalette.raw("RGB", bytes(level for level in levels for _ in range(3)))
    coding = CODINGS[bits if is_packed else 8]
    image.tile = [(decoder, box, offset, (coding, *arguments[1:]))]
    image._mode = "P"


def _bits(file: Any, start: int) -> int:
    file.seek(start)
    header = file.read(16)
    (bits,) = struct.unpack_from("<H", header, 10 if header[0] == 12 else 14)
    return int(bits)
