"""The survey of a folder: each file is read once, and what it holds is remembered."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from mask_drawings import ellipse, write_masks
from PIL import Image
from torch.utils.data import Subset

from ccnet.datasets import MaskFolder
from ccnet.datasets.mask_folder import survey
from ccnet.training.optimization import class_pixels

PAST = 1_700_000_000
"""The time of files that nobody is writing."""


@pytest.fixture
def root(tmp_path):
    root = write_masks(tmp_path / "own", [ellipse(number) for number in range(4)])
    age(root)
    return root


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Gives back the files in which surveys are remembered."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return lambda: list((tmp_path / "home").rglob("*.json"))


@pytest.fixture
def read(monkeypatch):
    """Opens a folder and gives back how often each file was read, and the pixels of classes."""
    files = Counter()
    for name in ("inspect_image", "inspect_mask"):
        inspect = getattr(survey, name)

        def counting(path, inspect=inspect):
            files[path.relative_to(path.parents[1]).as_posix()] += 1
            return inspect(path)

        monkeypatch.setattr(survey, name, counting)

    def read(root):
        files.clear()
        folder = MaskFolder(root)
        return dict(files), [folder.class_pixels(index).tolist() for index in range(len(folder))]

    return read


def age(root, seconds=PAST):
    for path in root.rglob("*.png"):
        os.utime(path, (seconds, seconds))


def pixels(root):
    """The pixels of each class that are in the masks of a folder."""
    paths = sorted((root / "masks").iterdir())
    return [Image.open(path).histogram()[:2] for path in paths]


def test_a_file_is_read_once_in_the_life_of_a_folder(root, memory, read):
    names = {f"{folder}/{number}.png" for folder in ("images", "masks") for number in range(4)}
    assert read(root) == (dict.fromkeys(names, 1), pixels(root))
    assert read(root) == ({}, pixels(root))
    (one,) = memory()
    assert one.is_relative_to(one.parents[2] / "ccnet")


def test_changed_and_new_files_are_read_again(root, memory, read):
    read(root)
    ellipse(9).save(root / "masks" / "0.png")
    os.utime(root / "masks" / "0.png", (PAST, PAST + 1))
    for folder in ("images", "masks"):
        Image.open(root / folder / "1.png").save(root / folder / "new.png")
        os.utime(root / folder / "new.png", (PAST, PAST))
    once = {"masks/0.png": 1, "images/new.png": 1, "masks/new.png": 1}
    assert read(root) == (once, pixels(root))
    assert read(root) == ({}, pixels(root))


def test_files_that_may_be_written_once_more_are_not_remembered(root, memory, read):
    """Their time may stay the same."""
    (root / "masks" / "0.png").touch()
    read(root)
    assert read(root)[0] == {"masks/0.png": 1}


def test_unusable_files_are_not_remembered(root, memory, read):
    content = (root / "masks" / "3.png").read_bytes()
    (root / "masks" / "3.png").write_bytes(content[:-30])
    age(root)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"masks/3\.png cannot be read"):
            read(root)
    (root / "masks" / "3.png").write_bytes(content)
    os.utime(root / "masks" / "3.png", (PAST, PAST))
    assert read(root) == ({"masks/3.png": 1}, pixels(root))


def test_a_file_that_is_replaced_by_one_of_the_same_time_and_size_is_read_again(root, memory, read):
    """As `cp -p`, `rsync -t` and archives do; all BMP files of a shape have one size."""
    mask = root / "masks" / "0.png"
    ellipse(0).save(mask, "BMP")
    age(root)
    read(root)
    size = mask.stat().st_size
    ellipse(9).save(mask, "BMP")
    os.utime(mask, (PAST, PAST))
    assert mask.stat().st_size == size
    assert read(root) == ({"masks/0.png": 1}, pixels(root))


def changed(content):
    digest, _, memory = content.partition(b"\n")
    return digest + b"\n" + memory.replace(b'"pixels":[', b'"pixels":[1', 1)


def of_another_version(content):
    memory = json.loads(content.partition(b"\n")[2])
    other = json.dumps({**memory, "format": "another"}).encode()
    return hashlib.sha256(other).hexdigest().encode() + b"\n" + other


@pytest.mark.parametrize(
    "damage",
    [
        changed,
        of_another_version,
        lambda content: content[:-20],
        lambda content: b"",
        lambda content: b"\xff\xfe",
        lambda content: b"[]\n[]",
    ],
    ids=["changed", "version", "cut", "empty", "binary", "other JSON"],
)
def test_a_damaged_or_foreign_memory_is_as_good_as_none(root, memory, read, damage):
    read(root)
    (path,) = memory()
    path.write_bytes(damage(path.read_bytes()))
    assert read(root) == (dict.fromkeys(read_names(root), 1), pixels(root))
    assert read(root) == ({}, pixels(root))


def read_names(root):
    return [path.relative_to(root).as_posix() for path in root.rglob("*.png")]


def test_a_memory_that_cannot_be_written_is_done_without(root, read, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    for _ in range(2):
        assert read(root) == (dict.fromkeys(read_names(root), 1), pixels(root))


def test_nothing_is_written_into_the_folder(root, memory, read):
    before = sorted(root.rglob("*"))
    read(root)
    assert sorted(root.rglob("*")) == before


def test_a_folder_is_known_by_its_place(root, memory, read, tmp_path, monkeypatch):
    read(root)
    monkeypatch.chdir(root.parent)
    assert read(Path("own"))[0] == {}
    root.rename(tmp_path / "moved")
    assert len(read(tmp_path / "moved")[0]) == 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_damaged_images_are_found_at_the_start(root, memory, kind):
    path = root / "images" / "2.png"
    Image.effect_noise((128, 96), 60).convert("RGB").save(path, kind)
    assert len(MaskFolder(root)) == 4
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=r"images/2\.png cannot be read as an image"):
        MaskFolder(root)


def test_classes_are_balanced_without_reading_masks_again(root, memory, read, monkeypatch):
    folder = MaskFolder(root)
    monkeypatch.setattr(MaskFolder, "labels", None)
    expected = [sum(counts) for counts in zip(*pixels(root)[1:3], strict=True)]
    assert class_pixels(Subset(folder, [1, 2]), 2).tolist() == expected
