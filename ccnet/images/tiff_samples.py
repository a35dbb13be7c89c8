"""Uncompressed TIFF of 1 to 16 bits per sample.

Pillow decodes compressed files through libtiff. Uncompressed ones it reads by itself: wrongly where
planes are stored one after the other, and only in some depths. So they are read here.

Source: TIFF 6.0 Specification, Adobe 1992.
"""

import math
import os
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccnet.images.tiff import (
    COLORMAP,
    FILL_ORDER,
    HEIGHT,
    ICC_PROFILE,
    ORIENTATION,
    ROWS_PER_STRIP,
    STRIP_OFFSETS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    XMP,
    Layout,
)

MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in opposite order."""

INFO = {ICC_PROFILE: "icc_profile", XMP: "xmp"}
"""Tags that are kept, and Pillow's names for them."""


def read_plain(file: IO[bytes], layout: Layout) -> Image.Image:
    """Reads the first page of an uncompressed TIFF of 1 to 16 bits per sample.

    Returns:
        The picture with 8 bits per sample, of mode L, LA, La, RGB, RGBA, RGBa or CMYK. Its
        orientation is in its EXIF data.
    """
    values = _read_samples(file, layout)
    if layout.photometric == 3:
        planes = read_palette(layout)[:, values[0]]
    else:
        planes = _to_8_bits(values[: layout.bands], layout.bits)
        if layout.photometric == 0:
            planes = 255 - planes
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[len(planes)]
    image = Image.merge(mode, [Image.fromarray(plane) for plane in planes])
    if layout.opacity and layout.opacity[0] < len(values) and mode != "CMYK":
        sample, is_multiplied = layout.opacity
        alpha = Image.fromarray(_to_8_bits(values[sample], layout.bits))
        image = Image.merge(f"{mode}{'a' if is_multiplied else 'A'}", [*image.split(), alpha])
    image.info |= {name: layout.tags[tag] for tag, name in INFO.items() if tag in layout.tags}
    if ORIENTATION in layout.tags:
        image.getexif()[ORIENTATION] = layout.tags[ORIENTATION]
    return image


def read_palette(layout: Layout) -> NDArray[np.uint8]:
    """The red, green and blue of all values: (3, values), uint8."""
    colors = np.array(layout.numbers(COLORMAP))
    if colors.size != 3 << layout.bits:
        raise ValueError(f"its palette has {colors.size} values, not {3 << layout.bits}")
    colors >>= 8 if colors.max() > 255 else 0  # some writers keep to 8 bits
    return colors.reshape(3, -1).astype(np.uint8)


def _to_8_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8)
    most = (1 << bits) - 1
    return ((values.astype(np.uint16) * 255 + most // 2) // most).astype(np.uint8)


def _read_samples(file: IO[bytes], layout: Layout) -> NDArray[Any]:
    """Reads all strips or tiles: (samples, H, W), uint8 or uint16, values as stored."""
    width, height, depth = (
        layout.number(WIDTH, 0),
        layout.number(HEIGHT, 0),
        layout.samples,
    )
    if min(width, height) < 1:
        raise ValueError(f"its size is {width} x {height}")
    if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(
            f"its size of {width} x {height} pixels is beyond limits"
        )
    planes, depth = (depth, 1) if layout.is_planar else (1, depth)
    offsets = layout.numbers(TILE_OFFSETS)
    if is_tiled := bool(offsets):
        rows, columns = layout.number(TILE_HEIGHT, 0), layout.number(TILE_WIDTH, 0)
    else:
        offsets = layout.numbers(STRIP_OFFSETS)
        rows, columns = min(layout.number(ROWS_PER_STRIP, height), height), width
    if min(rows, columns) < 1:
        raise ValueError(f"its strips or tiles are {columns} x {rows} pixels")
    across, down = math.ceil(width / columns), math.ceil(height / rows)
    row_bytes = math.ceil(columns * depth * layout.bits / 8)
    available = file.seek(0, os.SEEK_END)
    # Also keeps a small file from claiming much memory.
    if len(offsets) < planes * down * across or planes * height * across * row_bytes > available:
        raise ValueError("the file ends early")
    type_ = np.dtype(np.uint8 if layout.bits <= 8 else np.uint16)
    values = np.empty((planes, height, width, depth), type_)
    for index, offset in enumerate(offsets[: planes * down * across]):
        plane, row, column = np.unravel_index(index, (planes, down, across))
        top, left = int(row) * rows, int(column) * columns
        count = rows if is_tiled else min(rows, height - top)
        file.seek(offset)
        data = file.read(count * row_bytes)
        if len(data) < count * row_bytes:
            raise ValueError("the file ends early")
        if layout.number(FILL_ORDER, 1) == 2:
            data = data.translate(MIRRORED)
        block = _unpack(data, (count, columns, depth), layout)
        target = values[plane, top : top + rows, left : left + columns]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return np.moveaxis(values, 3, 1).reshape(layout.samples, height, width)


def _unpack(data: bytes, shape: tuple[int, int, int], layout: Layout) -> NDArray[Any]:
    """Unpacks samples of any number of bits; rows start at whole bytes."""
    bits = layout.bits
    if bits in (8, 16):
        return np.frombuffer(data, f"{layout.byte_order}u{bits // 8}").reshape(shape)
    rows, per_row = shape[0], shape[1] * shape[2]
    stored = np.frombuffer(data, np.uint8).reshape(rows, -1)
    single = np.unpackbits(stored, axis=1)[:, : per_row * bits].reshape(rows, per_row, bits)
    packed = np.packbits(single, axis=-1)  # from the highest bit on: one byte, or two
    whole: NDArray[Any] = packed if bits < 8 else packed.view(">u2")
    whole >>= 8 * packed.shape[-1] - bits
    return whole.reshape(shape)
