"""Writes TIFF files of any layout, from the specification: those too that Pillow cannot write."""

import struct
import zlib

import numpy as np

UNCOMPRESSED, LZW, DEFLATE = 1, 5, 8
MIN_IS_WHITE, GREY, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff_file(
    samples,
    bits,
    *,
    photometric=GREY,
    byte_order="<",
    planar=False,
    compression=UNCOMPRESSED,
    extra=(),
    rows=4,
    tile=None,
    tags=None,
):
    """The bytes of a TIFF.

    Args:
        samples: (H, W, samples), integers below 2 ** bits.
        bits: bits per sample.
        photometric: the photometric interpretation.
        byte_order: "<" or ">".
        planar: whether each sample has a plane of its own.
        compression: of the strips or tiles.
        extra: the kinds of the extra samples; the tag is left out if there are none.
        rows: rows per strip.
        tile: height and width of tiles, instead of strips.
        tags: values by further tag.
    """
    height, width, depth = samples.shape
    planes = np.moveaxis(samples, 2, 0)[..., None] if planar else samples[None]
    step_y, step_x = tile or (rows, width)
    chunks = []
    for plane in planes:
        for y in range(0, height, step_y):
            for x in range(0, width, step_x):
                block = plane[y : y + step_y, x : x + step_x]
                if tile:
                    missing = [
                        (0, step - have) for step, have in zip(tile, block.shape, strict=False)
                    ]
                    block = np.pad(block, [*missing, (0, 0)])
                packed = _pack(block.reshape(len(block), -1), bits, byte_order)
                chunks.append(COMPRESS[compression](packed))
    data = bytearray(
        (b"II" if byte_order == "<" else b"MM") + struct.pack(f"{byte_order}HI", 42, 0)
    )
    offsets = []
    for chunk in chunks:
        offsets.append(len(data))
        data += chunk + bytes(len(chunk) % 2)
    sizes = [len(chunk) for chunk in chunks]
    entries = {256: [width], 257: [height], 258: [bits] * depth, 259: [compression]}
    entries |= {262: [photometric], 277: [depth], 284: [2 if planar else 1]}
    if tile:
        entries |= {322: [tile[1]], 323: [tile[0]], 324: offsets, 325: sizes}
    else:
        entries |= {273: offsets, 278: [rows], 279: sizes}
    entries |= {338: list(extra)} if extra else {}
    return bytes(_with_tags(data, entries | (tags or {}), byte_order))


def _pack(rows, bits, byte_order):
    """Packs rows of integers; each starts at a whole byte."""
    if bits in (8, 16, 32):
        return rows.astype(f"{byte_order}u{bits // 8}").tobytes()
    single = rows[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(single.astype(np.uint8).reshape(len(rows), -1), axis=1).tobytes()


def _lzw(data):
    """Valid LZW that does not compress: the table is cleared before codes become longer."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    text = "".join(f"{code:09b}" for code in (*codes, 257))
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


COMPRESS = {UNCOMPRESSED: bytes, LZW: _lzw, DEFLATE: zlib.compress}

LONG = {256, 257, 273, 278, 279, 322, 323, 324, 325}
"""Tags of 32-bit numbers. Those of bytes have bytes as values; all others have 16 bits."""


def _with_tags(data, entries, byte_order):
    table, values = bytearray(struct.pack(f"{byte_order}H", len(entries))), bytearray()
    start = len(data) + 2 + 12 * len(entries) + 4
    for tag, numbers in sorted(entries.items()):
        code, kind = (
            (7, "B") if isinstance(numbers, bytes) else (4, "I") if tag in LONG else (3, "H")
        )
        content = struct.pack(f"{byte_order}{len(numbers)}{kind}", *numbers)
        table += struct.pack(f"{byte_order}HHI", tag, code, len(numbers))
        if len(content) <= 4:
            table += content.ljust(4, b"\0")
        else:
            table += struct.pack(f"{byte_order}I", start + len(values))
            values += content + bytes(len(content) % 2)
    struct.pack_into(f"{byte_order}I", data, 4, len(data))
    return data + table + bytes(4) + values
