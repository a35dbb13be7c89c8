"""Small sound pictures of every format that is opened, as bytes: what the fuzz test damages."""

import io
import struct
import warnings

import numpy as np
import tiff_files as tiff
from PIL import Image

SIZE = WIDTH, HEIGHT = 37, 22
_PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
_INDICES = _PIXELS[..., 0] // 64

_WRITTEN = {
    "AVIF": [("RGB", {}), ("RGBA", {"quality": 40})],
    "BLP": [("P", {})],
    "BMP": [("RGB", {}), ("P", {}), ("1", {})],
    "DDS": [("RGBA", {}), ("RGBA", {"pixel_format": "DXT5"})],
    "DIB": [("RGB", {})],
    "GIF": [("P", {}), ("P", {"transparency": 1, "interlace": 1})],
    "HEIF": [("RGB", {})],
    "ICO": [("RGBA", {"sizes": [(16, 16), (32, 32)]}), ("RGB", {"bitmap_format": "bmp"})],
    "IM": [("RGB", {}), ("P", {})],
    "JPEG": [("RGB", {}), ("CMYK", {}), ("L", {"progressive": True, "exif": b"Exif\0\0II*\0"})],
    "JPEG2000": [("RGB", {}), ("RGBA", {"irreversible": True}), ("L", {"no_jp2": True})],
    "MPO": [("RGB", {"save_all": True, "append_images": [Image.new("RGB", SIZE)]})],
    "MSP": [("1", {})],
    "PCX": [("RGB", {}), ("P", {}), ("1", {})],
    "PNG": [("RGB", {}), ("RGBA", {}), ("P", {"transparency": 1}), ("I;16", {}), ("1", {})],
    "PPM": [("RGB", {}), ("L", {}), ("1", {})],
    "QOI": [("RGBA", {})],
    "SGI": [("RGB", {}), ("L", {"bpc": 2})],
    "TGA": [("RGBA", {}), ("RGB", {"compression": "tga_rle"}), ("P", {})],
    "TIFF": [
        *(("RGB", {"compression": kind}) for kind in ("raw", "tiff_lzw", "tiff_deflate", "jpeg")),
        *(("P", {"compression": "packbits"}), ("1", {"compression": "group4"}), ("I;16", {})),
        *(("CMYK", {}), ("RGBA", {}), ("LAB", {}), ("L", {"tiffinfo": {274: 6}})),
    ],
    "WEBP": [("RGB", {}), ("RGBA", {"lossless": True}), ("RGBA", {"exif": b"Exif\0\0MM\0*"})],
    "XBM": [("1", {})],
}
"""Modes and options of what Pillow writes, by format."""


def pictures() -> dict[str, bytes]:
    """Returns the content of each picture by its name; those that this Pillow cannot write miss."""
    Image.init()
    if "HEIF" not in Image.SAVE and _heif() is not None:
        _heif().register_heif_opener()
    found = {}
    for kind, variants in _WRITTEN.items():
        if kind in Image.SAVE and kind in Image.registered_extensions().values():
            for index, (mode, options) in enumerate(variants):
                found[f"{kind} {index} {mode}"] = _encoded(kind, mode, options)
    deep = _PIXELS[..., :3].astype(int) * 257
    found["TIFF planes"] = tiff.tiff_file(deep, 16, photometric=tiff.RGB, planar=True)
    found["TIFF tiles"] = tiff.tiff_file(deep, 16, photometric=tiff.RGB, tile=(16, 16))
    found["TIFF big-endian"] = tiff.tiff_file(
        deep, 16, photometric=tiff.RGB, byte_order=">", compression=tiff.LZW
    )
    return {**found, **_written_by_hand(found)}


def _heif():
    try:
        import pillow_heif
    except ImportError:
        return None
    return pillow_heif


def _image(mode: str) -> Image.Image:
    if mode == "P":
        image = Image.fromarray(_INDICES).convert("L")
        image.putpalette(_PIXELS.tobytes()[: 3 * 256])
        return image
    if mode == "I;16":
        return Image.fromarray(_PIXELS[..., 0].astype(np.uint16) * 257)
    color = Image.fromarray(_PIXELS)
    if mode == "LAB":
        return Image.frombytes("LAB", SIZE, color.convert("RGB").tobytes())
    return color.convert(mode)


def _encoded(kind: str, mode: str, options: dict) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of formats that Pillow gives up
        _image(mode).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def _written_by_hand(written: dict[str, bytes]) -> dict[str, bytes]:
    """Returns pictures of the formats that Pillow only reads."""
    rgb, grey = _PIXELS[..., :3].tobytes(), _PIXELS[..., 0].tobytes()
    planes = np.moveaxis(_PIXELS[..., :3], 2, 0).tobytes()
    dib = written["DIB 0 RGB"]
    _image("RGBA").resize((32, 32)).save(icon := io.BytesIO(), "PNG")
    doubled = dib[:8] + struct.pack("<i", 2 * HEIGHT) + dib[12:]
    pixar = struct.pack("<HH4xHH", HEIGHT, WIDTH, 14, 2)
    xpm = [f'"{WIDTH} {HEIGHT} 4 1",', *(f'"{"abcd"[i]} c #0{i}80ff",' for i in range(4))]
    xpm += [f'"{"".join("abcd"[i] for i in row)}",' for row in _INDICES]
    flc = struct.pack("<IHHHH", 128 + 16 + 6 + len(grey), 0xAF12, 1, WIDTH, HEIGHT)
    frame = struct.pack("<IHH8xIH", 22 + len(grey), 0xF1FA, 1, 6 + len(grey), 16)
    return {
        "CUR": struct.pack("<HHHBBBBHHII", 0, 2, 1, *SIZE, 0, 0, 0, 0, len(dib), 22) + doubled,
        "DCX": struct.pack("<III", 0x3ADE68B1, 12, 0) + written["PCX 0 RGB"],
        "FLI": (flc + struct.pack("<HHI", 8, 3, 70)).ljust(128, b"\0") + frame + grey,
        "FTEX": b"FTEX" + struct.pack("<9i", 0, *SIZE, 1, 1, 1, 32, len(rgb), 0)[:-4] + rgb,
        "GBR": struct.pack(">7I", 28 + 2, 2, *SIZE, 4, 0x47494D50, 10) + b"b\0" + _PIXELS.tobytes(),
        "ICNS PNG": _icons(ic11=icon.getvalue()),
        "ICNS raw": _icons(is32=rgb[:768], s8mk=grey[:256]),
        "IMT": b"* a comment\nwidth %d\nheight %d\npixel n8\n\x0c" % SIZE + grey,
        "PCD": b"".ljust(2048, b"\xff") + b"PCD_".ljust(96 * 2048 - 2048, b"\0") + bytes(589_824),
        "PIXAR": b"\200\350\000\000".ljust(416, b"\0") + pixar.ljust(608, b"\0") + rgb,
        "PSD": struct.pack(">4sH6xHIIHHIIIH", b"8BPS", 1, 3, HEIGHT, WIDTH, 8, 3, 0, 0, 0, 0)
        + planes,
        "SUN": struct.pack(">8I", 0x59A66A95, *SIZE, 24, len(rgb), 1, 0, 0)
        + b"".join(row.tobytes() + bytes(3 * WIDTH % 2) for row in _PIXELS[..., :3]),
        "XPM": "\n".join(["/* XPM */", "static char *a[] = {", *xpm, "};\n"]).encode(),
        "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n%d %d 255\n" % SIZE + grey,
    }


def _icons(**parts: bytes) -> bytes:
    content = b"".join(
        kind.encode() + struct.pack(">I", 8 + len(data)) + data for kind, data in parts.items()
    )
    return b"icns" + struct.pack(">I", 8 + len(content)) + content
