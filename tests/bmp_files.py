"""Writes BMP files with a palette, from the specification: those too that Pillow cannot write."""

import struct

import numpy as np


def bmp_file(values, bits, colors, *, is_dib=False, is_short=False, runs=False):
    """The bytes of a BMP.

    Args:
        values: (H, W), integers below 2 ** bits.
        bits: bits per pixel: 1, 4 or 8.
        colors: the palette, red, green and blue each.
        is_dib: whether the file starts at the header with the size.
        is_short: whether that header is the old one of 12 bytes.
        runs: whether the pixels are stored as runs, of 4 or 8 bits.
    """
    height, width = values.shape
    pixels = _runs(values, bits) if runs else _rows(values, bits)
    if is_short:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        compression = {8: 1, 4: 2}[bits] if runs else 0
        fields = (compression, len(pixels), 0, 0, len(colors), 0)
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, *fields)
    filling = () if is_short else (0,)
    palette = b"".join(bytes((*color[::-1], *filling)) for color in colors)
    offset = 14 + len(header) + len(palette)
    head = struct.pack("<2sIII", b"BM", offset + len(pixels), 0, offset)
    return (b"" if is_dib else head) + header + palette + pixels


def _rows(values, bits):
    """Rows from the lowest up, each of a multiple of 4 bytes."""
    single = values[::-1, :, None].astype(int) >> np.arange(bits - 1, -1, -1) & 1
    packed = np.packbits(single.astype(np.uint8).reshape(len(values), -1), axis=1)
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4))).tobytes()


def _runs(values, bits):
    """Runs of one pixel, which are valid though they do not compress."""
    lines = [
        b"".join(bytes((1, value << 4 if bits == 4 else value)) for value in row.tolist())
        for row in values[::-1]
    ]
    return b"\0\0".join(lines) + b"\0\1"
