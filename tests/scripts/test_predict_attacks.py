"""Pictures that cannot be segmented cost no other: one line each, whatever they are."""

import errno
import os
import socket
import struct
import sys
import zlib

import pytest
from PIL import Image

from ccnet.files import atomic_write
from ccnet.inference.marked_png import save_marked
from ccnet.jobs import outputs

pytestmark = pytest.mark.skipif(
    os.name == "nt" or sys.platform == "darwin", reason="file systems that refuse such names"
)


def png(width, height, rows=b""):
    """A grey PNG of 1 bit, whatever size it claims."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bind(path):
    """A socket; the path of one must be short, so it is bound in its own folder."""
    here = os.getcwd()  # noqa: PTH109
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def cut(path):
    """A picture of which the second half is missing."""
    Image.effect_noise((64, 48), 90).convert("RGB").save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def overwrite(path):
    """A picture of which the second half is overwritten; WebP and AVIF may be decoded even so."""
    cut(path)
    with path.open("ab") as file:
        file.write(b"\x5a\x00\xff" * (path.stat().st_size // 3))


UNREADABLE = "cannot be read as an image: "

ATTACKS = {
    "folder.png": (lambda path: path.mkdir(), f"{UNREADABLE}it is a folder"),
    "pipe.png": (os.mkfifo, f"{UNREADABLE}it is no regular file"),
    "socket.png": (bind, f"{UNREADABLE}it is no regular file"),
    "device.png": (lambda path: path.symlink_to("/dev/zero"), f"{UNREADABLE}it is no regular file"),
    "nowhere.png": (lambda path: path.symlink_to("gone"), "no image at "),
    "itself.png": (lambda path: path.symlink_to(path.name), "no image at "),
    f"{'x' * 250}.png": (lambda path: path.write_bytes(png(9, 9, bytes(27))), "File name too long"),
    "\udcff.png": (lambda path: path.write_bytes(b"no"), UNREADABLE),
    "empty.png": (lambda path: path.touch(), UNREADABLE),
    "no-pixels.png": (lambda path: path.write_bytes(png(0, 0)), UNREADABLE),
    "no-pixels.ppm": (lambda path: path.write_bytes(b"P6 0 0 255\n"), UNREADABLE),
    "no-pixels.tga": (lambda path: path.write_bytes(b"\0\0\2" + bytes(13) + b"\x18\0"), UNREADABLE),
    "no-rows.gif": (
        lambda path: path.write_bytes(b"GIF89a\x05\0\0\0\0\0\0,\0\0\0\0\x05\0\0\0\0\x02\0;"),
        UNREADABLE,
    ),
    "endless.png": (lambda path: path.write_bytes(png(2**31 - 1, 2**31 - 1)), UNREADABLE),
    "large.png": (lambda path: path.write_bytes(png(20000, 20000)), "raise PIL.Image.MAX_IMAGE"),
    "short.png": (lambda path: path.write_bytes(png(3000, 3000)), UNREADABLE),
    "cut.png": (cut, UNREADABLE),
    "overwritten.png": (overwrite, UNREADABLE),
    "cut.webp": (cut, UNREADABLE),
    "blocked.png": (lambda path: path.write_bytes(png(9, 9, bytes(27))), "is no result"),
    "below.png": (lambda path: path.write_bytes(png(9, 9, bytes(27))), "disk is broken"),
}
"""How to make each file of a folder, and what is said of it."""

Image.init()
if ".avif" in Image.registered_extensions():
    ATTACKS["cut.avif"] = (cut, UNREADABLE)


def test_attacks_in_one_folder(predict, draw, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    for name in ("0", "zz", "\u9053\u8def", "new\nline"):
        draw(folder / f"{name}.png")
    for name, (make, _) in ATTACKS.items():
        make(folder / name)
    (tmp_path / "out/blocked.overlay.png").mkdir(parents=True)
    real = outputs.save_marked

    def save_or_fail(image, path, *arguments, **options):
        if path.name == "below.labels.png":
            raise OSError(errno.EIO, "the disk is broken", str(path))
        real(image, path, *arguments, **options)

    monkeypatch.setattr(outputs, "save_marked", save_or_fail)
    status, printed, errors = predict("in", "--output", "out", "--memory-limit", "5")
    assert status == 1
    assert len(printed.splitlines()) == 4
    summary, *reasons = errors.splitlines()
    assert summary == f"error: {len(ATTACKS)} could not be segmented"
    for name, (_, said) in ATTACKS.items():
        shown = name.replace("\udcff", r"\udcff")
        (reason,) = (reason for reason in reasons if f"{os.sep}{shown}" in reason)
        assert said in reason
        assert len(reason) < 600 + len(name)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(made) == 2 * 4 + 2 + 1
    assert not any(name.startswith(".") for name in made)


SHAPES = [(1, 1), (1, 3000), (3000, 1), (2, 2), (17, 1)]


def test_pictures_of_any_shape(predict, tmp_path):
    for width, height in SHAPES:
        Image.new("RGB", (width, height)).save(tmp_path / f"{width}x{height}.png")
    status, printed, errors = predict(".", "--output", "out")
    assert (status, errors) == (0, "")
    assert len(printed.splitlines()) == len(SHAPES)
    for width, height in SHAPES:
        with Image.open(tmp_path / f"out/{width}x{height}.labels.png") as labels:
            assert labels.size == (width, height)


OPTIONS = [
    ("--mode slide --crop 99999999", "more than the memory limit of 8.5 GiB: raise the limit"),
    ("--mode slide --crop 9999999999999999999999", "more than the memory limit of 8.5 GiB"),
    ("--mode slide --crop 12 --stride 1 --window-batch 1000000000", ""),
    ("--mode slide --crop 0", "crop must be an integer of 1 or more, not 0"),
    ("--crop 480x360", "--crop: must be one side, or height and width, such as 480,640, not"),
    (
        "--fit 480x360",
        "--fit: must be long and short side, such as 480,360, or none, not '480x360'",
    ),
    ("--scales 1;2", "--scales: must be numbers, such as 0.75,1.0, not '1;2'"),
    ("--scales 1e9", "scales must be positive numbers, one or more, of 0.01 to 100"),
    ("--scales 1e-9", "scales must be positive numbers, one or more, of 0.01 to 100"),
    ("--scales 1,100 --memory-limit 0.1", "more than the memory limit of 0.1 GiB"),
    ("--memory-limit 0", "--memory-limit must be positive, not 0.0"),
    ("--memory-limit nan", "--memory-limit must be positive, not nan"),
    ("--memory-limit inf", "--memory-limit must be positive, not inf"),
]


@pytest.mark.parametrize(("options", "said"), OPTIONS)
def test_options_of_any_size(predict, draw, tmp_path, options, said):
    draw(tmp_path / "a.png", size=(20, 30))
    status, _, errors = predict("a.png", "--output", "out", *options.split())
    assert (status > 0) == bool(said)
    assert said in errors
    assert "Traceback" not in errors


def test_a_file_is_written_without_links_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.txt"
    with atomic_write(path, replace=False) as temporary:
        temporary.write_text("first")
    with pytest.raises(FileExistsError), atomic_write(path, replace=False) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


NAMES = [
    ("a.png --output a.png", "--output a.png is a file: give a folder for the results"),
    ("a.png --output b.png", "--output b.png is no name of a folder: give one"),
    ("clip.mp4 --output b.gif", "give one, or a name that ends in .mp4, .m4v, .mov, .mkv or .webm"),
    ("a.png clip.mp4 --output out", "clip.mp4 is a video, which is given alone"),
    ("done --output out", "no images but results of this program"),
]


@pytest.mark.parametrize(("options", "said"), NAMES)
def test_names_that_cannot_be_meant(predict, draw, tmp_path, options, said):
    draw(tmp_path / "a.png", size=(20, 30))
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "done").mkdir()
    save_marked(Image.new("L", (3, 3)), tmp_path / "done/a.labels.png")
    status, _, errors = predict(*options.split())
    assert status > 0
    assert said in errors
