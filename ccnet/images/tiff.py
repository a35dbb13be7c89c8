"""TIFF: what the tags of a file say of its samples, and who reads them right.

Source: TIFF 6.0 Specification, Adobe 1992.
"""

from dataclasses import dataclass
from typing import IO, Any

from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2, TiffImageFile

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, PLANAR = 273, 274, 277, 278, 284
COLORMAP, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, EXTRA, FORMAT = 320, 322, 323, 324, 338, 339
SUBFILE, INK_SET, SUBSAMPLING, XMP, ICC_PROFILE = 254, 332, 530, 700, 34675

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
        """Whether `tiff_samples.read_plain` reads it."""
        return (
            self.number(COMPRESSION, 1) == 1
            and self.photometric in (0, 1, 2, 3, 5)
            and 1 <= self.bits <= 16
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
        if self.number(COMPRESSION, 1) != 1:
            return True
        if self.is_planar:
            return self.bits == 8 and self.photometric in (2, 5) and not extra
        return self.photometric != 6 or set(self.numbers(SUBSAMPLING, 2)) == {1}

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
        self.check_whole()

    def check_whole(self) -> None:
        """Raises ValueError if some pixels are not in the file: Pillow shows its header there."""
        if not all(self.numbers(TILE_OFFSETS) or self.numbers(STRIP_OFFSETS)):
            raise ValueError(
                "it is sparse: some of its strips or tiles are not in the file; save it whole "
                "(gdal_translate does, without SPARSE_OK)"
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


def layout_of(image: TiffImageFile) -> Layout:
    """The layout of the current page of an opened TIFF."""
    return Layout(image.tag_v2, "<" if image.tag_v2.prefix == b"II" else ">")


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
