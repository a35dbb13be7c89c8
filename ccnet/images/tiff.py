"""TIFF: what its tags say of the samples, and reading of those that Pillow misreads or refuses.

Pillow decodes compressed files through libtiff. Uncompressed ones it reads by itself, wrongly where
planes are stored one after the other, and only in some depths: these are read here.

Source: TIFF 6.0 Specification, Adobe 1992.
"""

import math
import os
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, PLANAR = 273, 274, 277, 278, 284
COLORMAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, EXTRA, FORMAT = 320, 322, 323, 324, 338, 339
SUBFILE, INK_SET, SUBSAMPLING, ICC_PROFILE = 254, 332, 530, 34675

COLORS = {0: "grey (0 is white)", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
COLORS |= {4: "mask", 8: "CIELab", 9: "ICCLab", 32803: "raw sensor", 34892: "linear raw"}
BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Numbers of samples that are colour, by photometric interpretation."""


@dataclass(frozen=True)
class Layout:
    """How the first page of a TIFF stores its samples, from its tags.

    Attributes:
        tags: all tags of the page.
        byte_order: "<" or ">".
    """

    tags: ImageFileDirectory_v2
    byte_order: str

    def numbers(self, tag: int, default: int | None = None) -> tuple[int, ...]:
        """All values of a tag; the default, or none, if the page lacks it."""
        value: Any = self.tags.get(tag, () if default is None else default)
        values = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(number, int) for number in values):
            raise ValueError(f"its TIFF tag {tag} is not a number")
        return values

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return (*self.numbers(tag, default), default)[0]

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.number(SAMPLES, len(self.numbers(BITS, 1)))

    @property
    def bits(self) -> int:
        """Bits of each sample; 0 if they differ."""
        bits = set(self.numbers(BITS, 1))
        return bits.pop() if len(bits) == 1 else 0

    @property
    def photometric(self) -> int:
        """The photometric interpretation: a key of `COLORS`."""
        return self.number(PHOTOMETRIC, 0)

    @property
    def bands(self) -> int:
        """Samples that are colour; 0 if that is not known."""
        if self.photometric == 5 and self.number(INK_SET, 1) != 1:
            return 0
        return min(BANDS.get(self.photometric, 0), self.samples)

    @property
    def opacity(self) -> tuple[int, bool] | None:
        """The sample that is declared as opacity, and whether the colours are multiplied by it."""
        for index, kind in enumerate(self.numbers(EXTRA)):
            if kind in (1, 2):
                return self.bands + index, kind == 1
        return None

    @property
    def is_planar(self) -> bool:
        """Whether each sample has a plane of its own."""
        return self.number(PLANAR, 1) == 2

    @property
    def is_plain(self) -> bool:
        """Whether `read_plain` reads it."""
        return (
            self.number(COMPRESSION, 1) == 1
            and self.photometric in (0, 1, 2, 3, 5)
            and 1 <= self.bits <= 16
            and self.number(FILL_ORDER, 1) == 1
            and self._is_unsigned
            and self._has_bands
        )

    @property
    def is_readable(self) -> bool:
        """Whether Pillow reads it right, or refuses it by itself."""
        if self.number(COMPRESSION, 1) == 6:  # JPEG, as it was before the present one
            return True
        if not (self._is_unsigned and self._has_bands and self.bits <= 16):
            return False
        extra = self.samples > self.bands
        if self.is_planar and (self.photometric == 8 or (extra and any(self.numbers(EXTRA, 1)))):
            return False
        subsampled = set(self.numbers(SUBSAMPLING, 2)) != {1}
        uncompressed = self.number(COMPRESSION, 1) == 1
        return not (uncompressed and (self.is_planar or (self.photometric == 6 and subsampled)))

    @property
    def _is_unsigned(self) -> bool:
        return set(self.numbers(FORMAT, 1)) == {1}

    @property
    def _has_bands(self) -> bool:
        """Grey with two more bands or more is no grey picture: which are its colours is unknown."""
        most = self.bands + 1 if self.photometric in (0, 1, 3) else 64
        least = {2: 3, 5: 4}.get(self.photometric, 1)
        return least <= self.bands and self.samples <= most

    def check(self) -> None:
        """Raises ValueError if the page is not the picture itself, or its coding is not known."""
        if self.number(COMPRESSION, 1) not in COMPRESSION_INFO:
            raise self.refusal()
        if self.number(SUBFILE, 0) & 1:
            raise ValueError(
                "its first page is a preview; develop a raw photograph first, to a JPEG or TIFF"
            )

    def refusal(self) -> ValueError:
        """The error of a layout that cannot be read: what it is, and what would do."""
        return ValueError(
            f"{self} is not supported; save it as grey or RGB with 8 or 16 unsigned bits per sample"
        )

    def __str__(self) -> str:
        kinds = {1: "", 2: "signed ", 3: "floating-point "}
        kind = kinds.get(self.number(FORMAT, 1), "unusual ")
        color = COLORS.get(self.photometric, f"photometric interpretation {self.photometric}")
        compression = COMPRESSION_INFO.get(self.number(COMPRESSION, 1), "unknown compression")
        parts = [
            f"{self.samples} {kind}sample{'s' if self.samples > 1 else ''} per pixel",
            f"of {self.bits or self.numbers(BITS)} bits",
            color,
            "planar" if self.is_planar else "interleaved",
            "uncompressed" if compression == "raw" else compression.removeprefix("tiff_"),
        ]
        return f"a TIFF of {', '.join(parts)}"


def read_layout(file: IO[bytes]) -> Layout | None:
    """Reads the tags of the first page; None if the file is no TIFF."""
    file.seek(0)
    head = file.read(8)
    if head[:2] not in (b"II", b"MM") or not {42, 43} & {*head[2:4]}:
        return None
    if head[:4] == b"MM\0\x2b":
        raise ValueError("BigTIFF with the highest byte first is not supported; save it as TIFF")
    if head[2] == 43:
        head += file.read(8)
    tags = ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return Layout(tags, "<" if head[:2] == b"II" else ">")


def read_plain(file: IO[bytes], layout: Layout) -> Image.Image:
    """Reads the first page of an uncompressed TIFF of 1 to 16 bits per sample.

    Returns:
        The picture with 8 bits per sample, of mode L, LA, La, RGB, RGBA, RGBa or CMYK. Its
        orientation is in its EXIF data.
    """
    values = _read_samples(file, layout)
    if layout.photometric == 3:
        colors = np.array(layout.numbers(COLORMAP))
        if colors.size != 3 << layout.bits:
            raise ValueError(f"its palette has {colors.size} values, not {3 << layout.bits}")
        colors = colors >> (8 if colors.max() > 255 else 0)  # some writers keep to 8 bits
        planes = colors.reshape(3, -1).astype(np.uint8)[:, values[0]]
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
    if profile := layout.tags.get(ICC_PROFILE):
        image.info["icc_profile"] = profile
    image.getexif()[ORIENTATION] = layout.number(ORIENTATION, 1)
    return image


def _to_8_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8)
    most = (1 << bits) - 1
    return ((values.astype(np.uint16) * 255 + most // 2) // most).astype(np.uint8)


def _read_samples(file: IO[bytes], layout: Layout) -> NDArray[Any]:
    """Reads all strips or tiles: (samples, H, W), uint8 or uint16, values as stored."""
    width, height, depth = layout.number(WIDTH, 0), layout.number(HEIGHT, 0), layout.samples
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
