"""Label maps in every lossless format and layout: the numbers that are in them, or a refusal."""

import io
import struct
import zlib

import numpy as np
import pytest
from bmp_files import bmp_file
from mask_drawings import painted, write_masks
from PIL import Image
from tiff_files import tiff_file

from ccnet.datasets import MaskFolder

VALUES = np.array([[0, 1, 2, 3, 1, 0], [3, 3, 2, 0, 0, 1]], np.uint8)
COLORS = [(9, 8, 7), (0, 0, 255), (255, 0, 0), (0, 255, 0)]


def save(pixels, kind, **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def grey_png(bits, values, channels=1):
    """A PNG of 1, 2, 4, 8 or 16 bits and 1 or 3 equal channels; Pillow cannot write them all."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    kind = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, kind, 0, 0, 0)
    values = np.repeat(values, channels, axis=1)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + packed(row, bits) for row in values))),
            chunk(b"IEND", b""),
        )
    )


def grey_tiff(bits, values, photometric=1, order="<"):
    """An uncompressed grey TIFF; photometric is 0 if white is 0, 1 if black is."""
    strip = b"".join(packed(row, bits, order) for row in values)
    height, width = values.shape
    fields = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric)]
    fields += [(273, 8), (277, 1), (278, height), (279, len(strip))]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in fields)
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(strip))
    return start + strip + struct.pack(f"{order}H", len(fields)) + entries + bytes(4)


def packed(row, bits, order=">"):
    if bits == 16:
        return row.astype(f"{order}u2").tobytes()
    bit_rows = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(bit_rows.reshape(-1)).tobytes()


def channels(*arrays, mode):
    return Image.merge(mode, [Image.fromarray(np.asarray(array, np.uint8)) for array in arrays])


OPAQUE = np.full_like(VALUES, 255)
BITS = VALUES % 2
WIDE = VALUES.astype(np.uint16)

READ = {
    **{f"PNG of {bits} bits": (grey_png(bits, VALUES), VALUES) for bits in (2, 4, 8, 16)},
    "PNG of 1 bit": (grey_png(1, BITS), BITS),
    **{f"TIFF of {bits} bits": (grey_tiff(bits, VALUES), VALUES) for bits in (2, 4, 8, 16)},
    "TIFF of 1 bit": (grey_tiff(1, BITS), BITS),
    "TIFF of 16 bits, other order": (grey_tiff(16, VALUES, order=">"), VALUES),
    "TIFF of 1 bit, 0 is white": (grey_tiff(1, 1 - BITS, 0), BITS),
    **{
        f"{kind}, {name}": (save(pixels, kind), expected)
        for kind in ("PNG", "BMP", "TIFF")
        for name, pixels, expected in (
            ("grey", VALUES, VALUES),
            ("1 bit", BITS > 0, BITS),
            ("palette", painted(VALUES, COLORS), VALUES),
            ("grey in RGB", channels(VALUES, VALUES, VALUES, mode="RGB"), VALUES),
        )
    },
    "GIF, grey": (save(VALUES, "GIF"), VALUES),
    "GIF, some levels": (save(5 * VALUES, "GIF"), 5 * VALUES),
    "GIF, palette": (save(painted(VALUES, COLORS), "GIF"), VALUES),
    **{
        f"PNG, palette of {bits} bits": (save(painted(VALUES, COLORS), "PNG", bits=bits), VALUES)
        for bits in (2, 4, 8)
    },
    "PNG, palette with a transparent color": (
        save(painted(VALUES, COLORS), "PNG", transparency=0),
        VALUES,
    ),
    "PNG, opaque grey": (save(channels(VALUES, OPAQUE, mode="LA"), "PNG"), VALUES),
    "PNG, opaque colors": (save(channels(*[VALUES] * 3, OPAQUE, mode="RGBA"), "PNG"), VALUES),
    "PNG of 16 bits, stretched": (grey_png(16, WIDE * 257), VALUES),
    **{
        f"TIFF with {compression}": (save(VALUES, "TIFF", compression=compression), VALUES)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
    },
    "TIFF with group4": (save(BITS > 0, "TIFF", compression="group4"), BITS),
    **{
        f"BMP of {bits} bits, {name}": (bmp_file(values, bits, colors), values)
        for bits in (4, 8)
        for name, values, colors in (
            ("black and white", BITS, [(0,) * 3, (255,) * 3]),
            ("few levels", VALUES, [(level,) * 3 for level in range(4)]),
            ("all levels", VALUES, [(level,) * 3 for level in range(1 << bits)]),
        )
    },
    "TIFF of 32 bits": (save(VALUES.astype(np.int32), "TIFF"), VALUES),
    "TIFF of floating point": (save(VALUES.astype(np.float32), "TIFF"), VALUES),
}
"""Files and the numbers in them."""

REFUSED = {
    "JPEG": (
        save(VALUES, "JPEG"),
        "is a JPEG file, which may change the numbers: export",
    ),
    "WebP": (save(VALUES, "WEBP"), "is a WEBP file"),
    "TIFF with JPEG": (save(VALUES, "TIFF", compression="jpeg"), "is a TIFF with jpeg file"),
    "two pictures": (
        save(VALUES, "TIFF", save_all=True, append_images=[Image.fromarray(VALUES)]),
        "holds 2 pictures; a mask is one",
    ),
    "colors": (
        save(channels(VALUES, VALUES, BITS, mode="RGB"), "BMP"),
        "holds colours in place of class numbers: give each class its colour, .* in classes.json",
    ),
    "CMYK": (save(channels(*[VALUES] * 4, mode="CMYK"), "TIFF"), "has mode CMYK"),
    "transparent pixels": (
        save(channels(VALUES, VALUES, mode="LA"), "PNG"),
        "has transparent pixels: give them a number, such as 255",
    ),
    "PNG of 16 bits": (grey_png(16, WIDE * 100), r"holds numbers in 0\.\.300 \(mode I"),
    "PNG of 16 bits in RGB": (grey_png(16, WIDE, channels=3), "has mode RGB;16B"),
    "TIFF below 0": (save(VALUES.astype(np.int32) - 1, "TIFF"), r"holds numbers in -1\.\.2"),
    "TIFF of fractions": (
        save(VALUES.astype(np.float32) / 2, "TIFF"),
        r"holds numbers in 0\.\.1\.5",
    ),
    "TIFF without numbers": (
        save(np.where(VALUES, VALUES, np.nan).astype(np.float32), "TIFF"),
        r"has no number \(NaN\) in \d+ pixels \(.*: give pixels without a class a number, such as",
    ),
    "sparse TIFF": (
        tiff_file(VALUES[..., None], 8, tags={273: [0], 279: [0]}),
        "cannot be read as a PNG, BMP, GIF or TIFF image: it is sparse",
    ),
    "no image": (b"text", "is no PNG, BMP, GIF or TIFF image: save it as PNG$"),
    "PGM": (save(VALUES, "PPM"), "is no PNG, BMP, GIF or TIFF image"),
    "half a PNG": (save(np.resize(VALUES, (99, 99)), "PNG")[:-40], "cannot be read as a PNG"),
}
"""Files and what the error says."""


def folder_of(tmp_path, content):
    root = write_masks(tmp_path / "own", [VALUES], {"label_ids": [*range(16)]}, suffix="png")
    (root / "masks" / "0.png").write_bytes(content)
    return root


@pytest.mark.parametrize(("content", "values"), READ.values(), ids=READ)
def test_lossless_files_are_read(tmp_path, content, values):
    folder = MaskFolder(folder_of(tmp_path, content))
    assert folder.labels(0).tolist() == values.tolist()
    assert folder[0][1].tolist() == values.tolist()


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"masks/0\.png {message}"):
        MaskFolder(folder_of(tmp_path, content))


@pytest.mark.parametrize("suffix", ["png", "BMP", "gif", "tif", "tiff"])
def test_the_suffix_is_that_of_any_format(tmp_path, suffix):
    root = write_masks(tmp_path / "own", [VALUES], suffix=suffix)
    assert MaskFolder(root).labels(0).tolist() == VALUES.tolist()


def test_libtiff_does_not_write_to_the_standard_error(tmp_path, capfd):
    content = bytearray(save(np.resize(VALUES, (99, 99)), "TIFF", compression="tiff_lzw"))
    content[40:60] = bytes(range(200, 220))
    root = folder_of(tmp_path, content)
    (root / "images" / "0.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as a PNG, BMP, GIF or TIFF image"):
        MaskFolder(root)
    assert capfd.readouterr().err == ""
