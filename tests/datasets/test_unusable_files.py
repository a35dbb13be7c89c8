"""Files that no data set can use: each is an error of one line that names it.

Corrupt pictures of every format, folders, pipes and links in their places, and `classes.json`.
"""

import io
import json
import os
import struct
import zlib

import numpy as np
import pytest
from cityscapes_layout import write_cityscapes
from PIL import Image, features

from ccnet.datasets import CamVid, Cityscapes, LabelMeFacade, MaskFolder
from ccnet.datasets.identity import identify_file


def encoded(kind):
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    Image.fromarray(noise).convert("RGB").save(content, kind)
    return content.getvalue()


def png(width, height):
    """A PNG file that says that it has this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


KINDS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "TGA", "PPM", "ICO", "PCX"]
KINDS += ["AVIF"] if "AVIF" in features.modules and features.check("avif") else []

REPLACEMENTS = {
    **{
        f"cut {kind}": lambda path, kind=kind: path.write_bytes(encoded(kind)[:100])
        for kind in KINDS
    },
    "empty file": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no picture"),
    "picture of 0 x 0": lambda path: path.write_bytes(png(0, 0)),
    "picture of 0 x 5": lambda path: path.write_bytes(png(0, 5)),
    "picture of 100,000 x 100,000": lambda path: path.write_bytes(png(100_000, 100_000)),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "dangling link": lambda path: path.symlink_to(path.with_name("nothing.png")),
    "link to itself": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
}
"""What takes the place of a picture."""


def camvid(root):
    for folder in ("train", "trainannot"):
        (root / folder).mkdir(parents=True)
        Image.new("L", (32, 24)).save(root / folder / "a.png")
    return lambda: CamVid(root, "train")


def cityscapes(root, split="train"):
    write_cityscapes(root, 1, size=(64, 128), split=split)
    return lambda: Cityscapes(root, split)


def facade(root):
    for folder, suffix in (("images", "jpg"), ("masks", "png"), ("pseudo", "png")):
        (root / folder).mkdir(parents=True)
        Image.new("L", (32, 24)).save(root / folder / f"a.{suffix}")
    (root / "sources.tsv").write_text("a\tstreet\n")
    return lambda: LabelMeFacade(root, pseudo=True)


def mask_folder(root, text=None):
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
        picture = Image.new("L", (32, 24))
        picture.paste(1, (0, 0, 9, 9))
        picture.save(root / folder / "a.png")
    if text is not None:
        (root / "classes.json").write_text(text, encoding="utf-8")
    return lambda: MaskFolder(root)


FRAME = "train/aachen/aachen_000000_000019"

PLACES = {
    "CamVid": (camvid, ["train/a.png", "trainannot/a.png"]),
    "Cityscapes": (
        cityscapes,
        [f"leftImg8bit/{FRAME}_leftImg8bit.png", f"gtFine/{FRAME}_gtFine_labelIds.png"],
    ),
    "Cityscapes test": (
        lambda root: cityscapes(root, "test"),
        ["leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png"],
    ),
    "LabelMeFacade": (facade, ["images/a.jpg", "masks/a.png", "pseudo/a.png"]),
    "MaskFolder": (mask_folder, ["images/a.png", "masks/a.png"]),
}
"""How each data set is written and opened, and the files of its first sample."""


@pytest.mark.parametrize("replace", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_unusable_picture_is_named(tmp_path, replace):
    for place, (write, files) in PLACES.items():
        for number, file in enumerate(files):
            root = tmp_path / f"{place} {number}"
            open_dataset = write(root)
            (root / file).unlink()
            replace(root / file)
            with pytest.raises((ValueError, OSError)) as error:
                _ = open_dataset()[0]
            message = str(error.value)
            if place == "MaskFolder":  # which reports all problems, a line each
                assert "/a.png" in message or "no files in" in message
            else:
                assert "\n" not in message
                assert str(root / file) in message
            if place == "Cityscapes test":
                with pytest.raises((ValueError, OSError)):
                    open_dataset().labels(0)


@pytest.mark.parametrize("name", ["folder", "pipe", "dangling link", "link to itself", "device"])
def test_what_is_no_file_has_no_identity(tmp_path, name):
    REPLACEMENTS[name](tmp_path / "a.png")
    with pytest.raises(OSError, match=r"^/[^\n]*a\.png cannot be read: [^\n]*$"):
        identify_file(tmp_path / "a.png")


TWO = '{"categories": ["a", "b"], '


def test_identity_is_the_length_and_the_end_of_a_file(tmp_path):
    path, content = tmp_path / "a.png", bytearray(200_000)
    path.write_bytes(content)
    assert identify_file(path) == f"200000 {zlib.crc32(bytes(2**17)):08x}"
    content[-1] = 1
    path.write_bytes(content)
    assert identify_file(path) == f"200000 {zlib.crc32(bytes(2**17 - 1) + bytes([1])):08x}"


CLASSES = {
    "deep list": ("[" * 100_000, "its brackets are nested too deeply"),
    "deep list, closed": ("[" * 100_000 + "]" * 100_000, "its brackets are nested too deeply"),
    "deep object": ('{"a":' * 100_000, "its brackets are nested too deeply"),
    "5,000 digits": (f'{TWO}"label_ids": [0, {"9" * 5000}]}}', r"9999999999\.\.\. is no number of"),
    "5,000 digits as a name": (f'["a", {"9" * 5000}]', "is no number of a class, with 5000 digits"),
    "401 digits": (f'{TWO}"ignore": [1{"0" * 400}]}}', "with 401 digits"),
    "NaN": (f'{TWO}"label_ids": [0, NaN]}}', "NaN is no number"),
    "NaN as a name": ('["a", NaN]', "NaN is no number"),
    "infinity": (f'{TWO}"colors": [[1, 2, -Infinity], [1, 2, 3]]}}', "-Infinity is no number"),
    "1e400": (f'{TWO}"label_ids": [0, 1e400]}}', "must be a list of whole numbers"),
    "a field twice": (f'{TWO}"categories": ["b", "a"]}}', "it has 'categories' twice"),
    "no JSON": ("a, b", "Expecting value"),
    "nothing": ("", "Expecting value"),
    "more than one": ('["a", "b"] x', "Extra data"),
    "null": ("null", "it must be a list of names, or an object"),
    "a million names": (json.dumps([*map(str, range(10**5))]), "1 to 255 classes, not 100000"),
    "a long text": (json.dumps({"categories": "x" * 10**5}), r"list of names, not 'x+\.\.\."),
    "2 MB": (json.dumps(["a", "b" * 2**21]), "it has more than 1048576 bytes"),
}
"""Contents of `classes.json`, and what is said of them."""


@pytest.mark.parametrize(("text", "reason"), CLASSES.values(), ids=CLASSES)
def test_unusable_list_of_classes_is_named(tmp_path, text, reason):
    with pytest.raises(ValueError, match=rf"has a problem:\n.*/classes\.json.*{reason}") as one:
        mask_folder(tmp_path / "own", text)()
    assert len(str(one.value)) < 1000


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-32"])
def test_list_of_classes_in_another_encoding_is_named(tmp_path, encoding):
    open_dataset = mask_folder(tmp_path)
    (tmp_path / "classes.json").write_bytes('["Straße", "b"]'.encode(encoding))
    with pytest.raises(ValueError, match=r"classes\.json .*: it is no UTF-8 text"):
        open_dataset()
    (tmp_path / "classes.json").write_text('["Straße", "b"]', encoding="utf-8-sig")
    assert open_dataset().label_set.categories == ("Straße", "b")


@pytest.mark.parametrize("name", ["folder", "pipe", "dangling link", "link to itself", "device"])
def test_what_is_no_list_of_classes_is_named(tmp_path, name):
    open_dataset = mask_folder(tmp_path)
    REPLACEMENTS[name](tmp_path / "classes.json")
    with pytest.raises(ValueError, match=r"classes\.json cannot be read as JSON"):
        open_dataset()


def test_sources_in_another_encoding_are_named(tmp_path):
    open_dataset = facade(tmp_path)
    (tmp_path / "sources.tsv").write_bytes("a\tStraße\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"sources\.tsv is no UTF-8 text"):
        open_dataset()
    (tmp_path / "sources.tsv").write_text("a\tStraße\n", encoding="utf-8-sig")
    assert open_dataset().names == ["Straße"]
