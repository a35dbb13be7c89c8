"""Formats: what is opened, what is said of what is not."""

import io
import struct
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiff_files as tiff
from PIL import Image

from ccnet.images import decode_image

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)


def encoded(kind, image=None, **options):
    image = image or Image.fromarray(PIXELS)
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


@pytest.fixture
def seen(tmp_path):
    """What is seen of a file: (H, W, 3), integers."""

    def decode(content, name="picture"):
        (tmp_path / name).write_bytes(content)
        return decode_image(tmp_path / name).movedim(0, -1).numpy().astype(int)

    return decode


LOSSLESS = ["PNG", "BMP", "DIB", "TIFF", "PPM", "TGA", "PCX", "SGI", "DDS", "JPEG2000"]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_files_are_known_by_their_content(seen, kind):
    options = {"irreversible": False} if kind == "JPEG2000" else {}
    for name in ("picture", "picture.jpg"):
        assert np.array_equal(seen(encoded(kind, **options), name), PIXELS)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "MPO", "AVIF"])
def test_of_several_frames_the_first_is_taken(seen, kind):
    if kind == "AVIF" and ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow reads no AVIF")
    frames = [Image.new("RGB", (32, 16), color) for color in ("red", "lime")]
    shown = seen(encoded(kind, frames[0], save_all=True, append_images=frames[1:]))
    assert np.abs(shown - (255, 0, 0)).max() <= 3


def as_drawing(language):
    return f"%!PS-Adobe-3.0 {language}\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n".encode()


REFUSED = {
    "PostScript": (as_drawing("EPSF-3.0"), "no format of a picture"),
    "PDF": (b"%PDF-1.4\n" + bytes(200), "no format of a picture"),
    "Windows metafile": (b"\xd7\xcd\xc6\x9a\0\0" + bytes(100), "no format of a picture"),
    "FITS": (b"SIMPLE  =                    T".ljust(2880), "no format of a picture"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "no format of a picture"),
    "video": (b"\0\0\1\xb3" + bytes(100), "no format of a picture"),
    "MP4": (b"\0\0\0\x18ftypmp42" + bytes(100), "no format of a picture"),
    "unsupported DDS": (
        b"DDS " + struct.pack("<7I44x2I4s20x20x", 124, 0x1007, 4, 4, 0, 0, 0, 32, 4, b"XXXX"),
        "Unimplemented pixel format|XXXX",
    ),
    "unknown compression of a TIFF": (
        tiff.tiff_file(PIXELS.astype(int), 8, photometric=tiff.RGB, tags={259: [50009]}),
        "a TIFF of .*unknown compression",
    ),
    "TIFF without size": (
        tiff.tiff_file(PIXELS.astype(int), 8, photometric=tiff.RGB, tags={256: [0]}),
        "size is 0 x 9",
    ),
    "TIFF without tags": (b"II*\0\x08\0\0\0\0\0\0\0\0\0", r"\w"),
    "TIFF of a header": (b"II*\0", r"\w"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_is_named(seen, content, reason):
    with pytest.raises(ValueError, match=rf"holiday\.jpg cannot be read as an image: .*{reason}"):
        seen(content, "holiday.jpg")


@pytest.mark.parametrize(
    ("brand", "reason"),
    [
        (b"heic", r"need the package pillow-heif: pip install 'ccnet-pytorch\[heif\]'"),
        (b"mif1", r"need the package pillow-heif: pip install 'ccnet-pytorch\[heif\]'"),
        (b"avif", r"AVIF pictures need Pillow 11.3 or newer"),
    ],
)
def test_what_a_format_needs_is_said(seen, monkeypatch, brand, reason):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("AVIF", "HEIF")])
    content = b"\0\0\0\x18ftyp" + brand + bytes(100)
    with pytest.raises(ValueError, match=rf"phone\.jpg cannot be read as an image: .*{reason}"):
        seen(content, "phone.jpg")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_damage_is_not_taken_for_a_missing_reader(seen, kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow reads no AVIF")
    content = encoded(kind, Image.new("RGB", (64, 64), "red"))
    for size in (40, len(content) // 3):
        with pytest.raises(ValueError, match=r"phone\.jpg cannot be read as an image") as caught:
            seen(content[:size], "phone.jpg")
        assert "need" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotImplementedError("no such texture"), "no such texture"),
        (KeyError("mode"), "'mode'"),
        (struct.error("too short"), "too short"),
        (Image.DecompressionBombError("too large"), "too large"),
        (EOFError(), "EOFError"),
        (MemoryError(), "it takes more memory than there is"),
    ],
)
def test_errors_of_readers_name_the_file(seen, monkeypatch, error, reason):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match=rf"a\.png cannot be read as an image: {reason}") as caught:
        seen(encoded("PNG"), "a.png")
    assert caught.value.__cause__ is error


def test_an_interrupt_is_no_error_of_the_file(seen, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        seen(encoded("PNG"))


def test_warnings_are_silenced_while_decoding_alone(tmp_path):
    """In all threads, and whatever the filters are before and after."""
    path = tmp_path / "odd.tiff"
    tags = {282: [1, 2], 305: b"\0"}
    path.write_bytes(tiff.tiff_file(PIXELS.astype(int), 8, photometric=2, compression=8, tags=tags))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="too many entries"):
            Image.open(path)
        filters = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(decode_image, [path] * 200))
        assert list(warnings.filters) == filters


def test_libtiff_does_not_write_to_the_standard_error(seen, capfd):
    content = bytearray(tiff.tiff_file(PIXELS.astype(int), 8, photometric=2, compression=8))
    content[60:90] = bytes(30)
    with pytest.raises(ValueError, match=r"cannot be read as an image: a TIFF of .* is damaged"):
        seen(content)
    assert capfd.readouterr().err == ""


def declared(kind, has_opacity):
    """A file of four bands, of which the last is opacity or not, by what the file says."""
    bands = Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))
    if kind == "TGA":
        content = bytearray(encoded("TGA", bands))
        content[17] = content[17] & 0xF0 | (8 if has_opacity else 0)
        return bytes(content)
    if kind == "PSD":
        head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 4, 9, 14, 8, 3)
        layers = struct.pack(">IIh", 6, 2, 0)[:10] if has_opacity else struct.pack(">I", 0)
        planes = np.moveaxis(np.asarray(bands), 2, 0).tobytes()
        return head + struct.pack(">II", 0, 0) + layers + struct.pack(">H", 0) + planes
    content = bytearray(encoded("JPEG2000", bands, irreversible=False))
    if not has_opacity:
        kind_of_last = content.index(b"cdef") + 6 + 3 * 6 + 2
        content[kind_of_last : kind_of_last + 2] = b"\xff\xff"
    return bytes(content)


@pytest.mark.parametrize("kind", ["TGA", "JPEG2000"])
def test_a_fourth_band_is_opacity_only_where_the_file_says_so(seen, kind):
    alpha = PIXELS[..., :1] / 255
    blended = PIXELS * alpha + 255 * (1 - alpha)
    assert np.abs(seen(declared(kind, True)) - blended).max() <= 1
    assert np.array_equal(seen(declared(kind, False)), PIXELS)
    if kind == "JPEG2000":
        assert np.array_equal(seen(declared(kind, True).replace(b"cdef", b"free")), PIXELS)


def clear(kind):
    """A file whose opacity is 0 everywhere."""
    bands = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    if kind == "BMP":  # with a version 4 header; Pillow writes none with opacity
        height, width, _ = bands.shape
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        size = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, bands.size, 0, 0, 0, 0)
        pixels = bands[::-1, :, [2, 1, 0, 3]].tobytes()
        head = struct.pack("<2sIII", b"BM", 122 + len(pixels), 0, 122)
        return head + size + masks + b"BGRs" + bytes(48) + pixels
    if kind == "TIFF, multiplied":
        return tiff.tiff_file(bands.astype(int), 8, photometric=tiff.RGB, extra=(1,))
    options = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    return encoded(kind, Image.fromarray(bands), **options)


CLEAR = ["BMP", "TGA", "SGI", "TIFF", "TIFF, multiplied", "PNG", "WEBP"]


@pytest.mark.parametrize("kind", CLEAR)
def test_opacity_that_is_nowhere_is_left_out_with_a_warning(seen, caplog, kind):
    for _ in range(2):
        assert np.array_equal(seen(clear(kind)), PIXELS)
    (record,) = caplog.records
    assert "is transparent everywhere: its opacity is left out" in record.getMessage()


def test_colors_of_jpeg_2000_with_more_than_8_bits_are_refused(seen):
    """Pillow would show white as black."""
    content = bytearray(encoded("JPEG2000", irreversible=False))
    size = content.index(b"\xff\x4f\xff\x51") + 4
    content[size + 38] = 11
    with pytest.raises(ValueError, match="JPEG 2000 of 3 bands with 12 bits per sample"):
        seen(bytes(content))


def test_a_selection_in_a_photoshop_file_is_no_opacity(seen):
    assert np.array_equal(seen(declared("PSD", False)), PIXELS)


@pytest.mark.parametrize(("kind", "text"), [(7, b"left"), (2, b"3\0")])
def test_an_orientation_that_is_text_leaves_a_picture_as_it_is_stored(seen, kind, text):
    entry = struct.pack(">HHI4s", 0x0112, kind, len(text), text)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    assert np.abs(seen(encoded("JPEG", exif=exif, quality=100, subsampling=0)) - PIXELS).max() < 9
