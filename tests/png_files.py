"""Writes PNG files of any depth, from the specification: those too that Pillow cannot write."""

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6

ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
ADAM7 += [(1, 0, 2, 1)]
"""First row and column of each pass of an interlaced file, and its steps."""


def png_file(samples, bits, color, *, interlaced=False, chunks=()):
    """The bytes of a PNG.

    Args:
        samples: (H, W, samples), integers below 2 ** bits.
        bits: bits per sample.
        color: the colour type.
        interlaced: whether the pixels come in seven passes.
        chunks: pairs of a name and bytes, before the pixels.
    """
    height, width, _ = samples.shape
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(
        b"\0" + _pack(row, bits)
        for y, x, step_y, step_x in passes
        for row in samples[y::step_y, x::step_x]
        if row.size
    )
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in body
    )


def _pack(row, bits):
    if bits == 16:
        return row.astype(">u2").tobytes()
    single = row.reshape(-1, 1) >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(single.astype(np.uint8)).tobytes()
