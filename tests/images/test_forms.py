"""Images given as content, opened files, URLs and arrays: what their files give, or what to do."""

import gzip
import io
import os
import tempfile
import zipfile
from pathlib import Path, PureWindowsPath

import numpy as np
import png_files as png
import pytest
import tiff_files as tiff
import torch
from PIL import Image

from ccnet.files import path_of_url
from ccnet.images import decode_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 14), np.uint8)
RGB = RNG.integers(0, 256, (9, 14, 3), np.uint8)
RGBA = np.dstack([RGB, GREY])
DEEP = {bands: RNG.integers(0, 65536, (9, 14, bands), np.uint16) for bands in (1, 2, 3, 4)}
CLEAR = (b"tRNS", DEEP[3][2, 3].astype(">u2").tobytes())
NEXT_TO_CLEAR = DEEP[3].copy()
NEXT_TO_CLEAR[2, 4] = NEXT_TO_CLEAR[2, 3] ^ 1  # which only the lower bytes tell apart


def saved(array, kind="PNG", **options):
    Image.fromarray(array).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(RGB, "JPEG", exif=exif)


FILES = {
    "PNG": saved(RGB),
    "turned JPEG": turned(),
    "transparent PNG": saved(RGBA),
    "PNG with a transparent colour": png.png_file(NEXT_TO_CLEAR, 16, png.RGB, chunks=[CLEAR]),
    "uncompressed TIFF": tiff.tiff_file(DEEP[3], 16, photometric=tiff.RGB),
    "compressed TIFF": saved(RGB, "TIFF", compression="tiff_lzw"),
    "BMP": saved(GREY, "BMP"),
}


class Pipe(io.RawIOBase):
    """A file that cannot seek, and gives its content in pieces."""

    def __init__(self, content):
        self._rest = content

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self._rest[: min(len(buffer), 100)]
        self._rest = self._rest[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def at_its_end(content):
    file = io.BytesIO()
    file.write(content)
    return file


def spooled(content):
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - the test closes it
    file.write(content)
    return file


CONTENT = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "memoryview, backwards": lambda content: memoryview(content[::-1])[::-1],
    "file in memory": io.BytesIO,
    "file in memory, just written": at_its_end,
    "pipe": Pipe,
    "buffered pipe": lambda content: io.BufferedReader(Pipe(content)),
    "decompressed": lambda content: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content))),
    "temporary file": spooled,
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_content_in_every_form(tmp_path, content):
    (tmp_path / "a.picture").write_bytes(content)
    expected = decode_image(tmp_path / "a.picture")
    for name, make in CONTENT.items():
        given = make(content)
        assert torch.equal(decode_image(given), expected), name
        if hasattr(given, "close"):
            assert not given.closed, name
            given.close()
    with (tmp_path / "a.picture").open("rb") as file:
        assert torch.equal(decode_image(file), expected)
        assert torch.equal(decode_image(file), expected), "once more, from its start"
    with Image.open(io.BytesIO(content)) as image:
        assert torch.equal(decode_image(image), expected)


ARRAYS = {
    "RGBA": (RGBA, saved(RGBA)),
    "grey and opacity": (RGBA[..., 2:], saved(np.ascontiguousarray(RGBA[..., 2:]))),
    "nearly opaque": (np.dstack([RGB, GREY | 254]), saved(np.dstack([RGB, GREY | 254]))),
    "transparent everywhere": (np.dstack([RGB, GREY * 0]), saved(np.dstack([RGB, GREY * 0]))),
    "grey, 16 bits": (DEEP[1][..., 0], png.png_file(DEEP[1], 16, png.GREY)),
    "grey and opacity, 16 bits": (DEEP[2], png.png_file(DEEP[2], 16, png.GREY_ALPHA)),
    "RGB, 16 bits": (DEEP[3], tiff.tiff_file(DEEP[3], 16, photometric=tiff.RGB)),
    "RGBA, 16 bits": (DEEP[4], png.png_file(DEEP[4], 16, png.RGBA)),
    "big-endian": (DEEP[3].astype(">u2"), png.png_file(DEEP[3], 16, png.RGB)),
    "12 bits": (DEEP[1][..., 0] >> 4, png.png_file(DEEP[1] >> 4, 16, png.GREY)),
    "floats": (RGBA / 255, saved(RGBA)),
    "floats beyond by rounding": (RGBA / 255 * (1 + 2e-5) - 1e-5, saved(RGBA)),
    "half floats beyond": ((RGB / 255 * 1.0009).astype(np.float16), saved(RGB)),
    "big-endian floats": ((RGB / 255).astype(">f4"), saved(RGB)),
    "long floats": ((RGB / 255).astype(np.longdouble), saved(RGB)),
}


@pytest.mark.parametrize(("array", "content"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_are_what_their_files_are(array, content, caplog):
    expected = decode_image(content).int()
    warned = [record.getMessage().partition(" has ")[2] for record in caplog.records]
    caplog.clear()
    assert (decode_image(array).int() - expected).abs().max() <= 1
    assert [record.getMessage().partition(" has ")[2] for record in caplog.records] == warned
    if array.dtype.isnative and array.dtype.itemsize <= 8:
        tensor = torch.from_numpy(np.moveaxis(np.atleast_3d(array), -1, 0).copy())
        assert torch.equal(decode_image(tensor), decode_image(array))


@pytest.mark.parametrize("name", ["street.png", "a b#1?.png", "straße 100%.png", "a%20b.png"])
def test_file_urls(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES["PNG"])
    assert torch.equal(decode_image(path.as_uri()), decode_image(path))
    local = path.as_uri().replace("file://", "FILE://localhost")
    for url in (local, Path(path.as_uri()), path.as_uri().replace("///", "/")):
        assert torch.equal(decode_image(url), decode_image(path)), url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///C:/Users/me/a%20b.png", r"C:\Users\me\a b.png"),
        ("file:///c|/a.png", r"c:\a.png"),
        ("file:/C:/a.png", r"C:\a.png"),
        ("file://C:/a.png", r"C:\a.png"),
        (r"file:///C:\me\a.png", r"C:\me\a.png"),
        (r"file:\\C:\me\a.png", r"C:\me\a.png"),
        ("file://localhost/C:/a.png", r"C:\a.png"),
        ("file://server/share/a.png", r"\\server\share\a.png"),
        ("file:////server/share/a.png", r"\\server\share\a.png"),
    ],
)
def test_file_urls_of_windows(url, path):
    assert PureWindowsPath(path_of_url(url, on_windows=True)) == PureWindowsPath(path)


class Upload:
    """A file of a web framework, whose methods must be awaited."""

    async def read(self, size=-1):
        return b""


def refused(tmp_path):
    """By what they are: an image that is none, and what its error says."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "a.png").write_bytes(FILES["PNG"])
    closed = io.BytesIO(FILES["PNG"])
    closed.close()
    with zipfile.ZipFile(archive := io.BytesIO(), "w") as opened:
        opened.writestr("a.png", FILES["PNG"])
    objects = np.empty(2, object)
    objects[:] = [RGB, RGB[1:]]
    big = np.moveaxis(np.zeros((40, 50, 3), np.uint8), -1, 0)
    return {
        "none": (None, r"not None, which cv2\.imread gives"),
        "folder": (tmp_path / "folder.png", r"it is a folder; pass its pictures as a list.*glob"),
        "no path": ("", "must not be empty"),
        "URL": ("HTTPS://example.org/a.png", r"is a URL: download .*urlopen\(url\)\.read\(\)"),
        "bucket": ("s3://bucket/a.png", "s3://bucket/a.png is a URL: download"),
        "URL as a path": (Path("https://example.org/a.png"), "is a URL: download"),
        "data URL": ("data:image/png;base64," + "iVBORw0KGgo" * 900, r"base64\.b64decode"),
        "base64": ("iVBORw0KGgo" * 900, r"is no path; .* base64\.b64decode"),
        "URL elsewhere": ("file://server/share/a.png", "of a machine server: .* has file:///"),
        "archived": (zipfile.Path(archive, "a.png"), r"not Path; image\.read_bytes\(\) gives"),
        "no bytes": (b"", "content of 0 bytes cannot be read as an image"),
        "other bytes": (b"a.png", "content of 5 bytes cannot be read as an image: it has no"),
        "text": (io.StringIO("a"), r'opened as text; open\(path, "rb"\)'),
        "closed": (closed, "BytesIO.* cannot be read as an image: .*closed"),
        "at the end of a pipe": (Pipe(b""), "it is empty, or was read before"),
        "upload": (Upload(), r"its read\(\) must be awaited; pass the bytes"),
        "mapping": ({"a": "a.png"}, r"not dict; .* list\(images\.values\(\)\)"),
        "set": ({"a.png"}, "not set, which has no order; pass its images as a list"),
        "number": (3, "an array or a tensor, not int"),
        "black and white": (GREY > 9, r"not bool; image\.astype\(numpy\.uint8\) \* 255"),
        "int64": (RGB.astype(int), r"0\.\.255: image\.astype\(numpy\.uint8\)"),
        "int32 of 16 bits": (DEEP[3].astype(np.int32), r"image\.astype\(numpy\.uint16\)"),
        "negative": (RGB.astype(np.int16) - 300, r"scale them to 0\.\.1"),
        "complex": (RGB * 1j, "not complex128; convert"),
        "objects": (objects, r"not object; .* as a list, which list\(image\) makes"),
        "names": (np.array(["a.png", "b.png"]), r"as a list, which list\(image\) makes"),
        "0..255": (RGB.astype(float), r"must lie in 0\.\.1, .*: image / 255 if"),
        "0..65535": (DEEP[3].astype(np.float32), r"must lie in 0\.\.1, .*: image / 65535 if"),
        "-1..1": (RGB / 127.5 - 1, r"must lie in 0\.\.1, .*: \(image \+ 1\) / 2 if"),
        "normalised": (RGB / 50 - 2, r"must lie in 0\.\.1, .* goes to model\(x\)"),
        "a little beyond": (RGB / 250, r"must lie in 0\.\.1, .*; image\.clip\(0, 1\) cuts off"),
        "meta": (torch.empty(3, 9, 9, device="meta"), "on the meta device has not"),
        "sparse": (torch.ones(3, 9, 9).to_sparse(), r"sparse_coo; pass image\.to_dense\(\)"),
        "float8": (torch.ones(3, 9, 9).to(torch.float8_e5m2), "not float8_e5m2; convert"),
        "infinite": (RGB / 255 + np.inf, r"must lie in 0\.\.1, .*nan_to_num"),
        "channels first": (
            big,
            r"\(3, 40, 50\); image\.transpose\(1, 2, 0\) has its .* last",
        ),
        "channels last": (
            torch.from_numpy(big).permute(1, 2, 0),
            r"\(40, 50, 3\); image\.permute\(2, 0, 1\) has its channels first",
        ),
        "bands": (np.zeros((40, 50, 8), np.uint8), r"three of its 8 channels, .*\[\.\.\., :3\]"),
        "encoded": (np.frombuffer(FILES["PNG"], np.uint8), r"of a file, pass image\.tobytes\(\)"),
        "five axes": (np.zeros((1, 2, 9, 9, 3), np.uint8), "as a list, or as one batch"),
    }


def test_what_is_no_image_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, (image, message) in refused(tmp_path).items():
        with pytest.raises(ValueError, match=message) as caught:
            decode_image(image)
        assert "\n" not in str(caught.value), name
        assert len(str(caught.value)) < 400, name
    if os.name != "nt":
        Path("https:").mkdir()
        (Path("https:") / "a.png").write_bytes(FILES["PNG"])
        assert decode_image("https:/a.png").shape == (3, 9, 14), "a file of such a name is one"
