"""The fingerprint of a run's data: what counts as other data, and what does not."""

import json
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from small_runs import Scenes, write_mask_folder

from ccnet.classes import CAMVID
from ccnet.datasets import CamVid, MaskFolder
from ccnet.datasets.identity import identify_file
from ccnet.training.fingerprint import Fingerprint
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import open_datasets


def fingerprint(run_dir, train_set, val_set=()):
    return Fingerprint(run_dir, {"train": train_set, "val": val_set})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes with CamVid's classes, with a mask in a format that is not compressed."""
    root = tmp_path_factory.mktemp("own") / "six"
    write_mask_folder(root, Scenes(6), CAMVID.categories)
    mask = root / "masks" / "scene-000002.png"
    Image.open(mask).save(mask.with_suffix(".bmp"))
    mask.unlink()
    return root


def add_three(root):
    for index in range(3):
        for kind in ("images", "masks"):
            shutil.copy(root / kind / "scene-000001.png", root / kind / f"more-{index}.png")


def rename(root):
    for kind in ("images", "masks"):
        (root / kind / "scene-000001.png").rename(root / kind / "zebra.png")


def repaint(path, change, suffix=""):
    with Image.open(path) as image:
        changed_image = change(image)
        changed_image.save(path.with_suffix(suffix or path.suffix))


def one_pixel(image):
    pixel = image.width // 2, image.height // 2
    image.putpixel(pixel, 3 if image.getpixel(pixel) != 3 else 4)
    return image


def mirror_masks(root):
    for number in (3, 4, 5):
        repaint(root / "masks" / f"scene-00000{number}.png", ImageOps.mirror)


def renumber(root):
    fields = {"categories": CAMVID.categories, "label_ids": [1, 0, *range(2, 11)]}
    (root / "classes.json").write_text(json.dumps(fields))


def exchange(root):
    """Two images exchange their names; their masks do not."""
    one, other = (root / "images" / f"scene-00000{number}.png" for number in (1, 3))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


OTHER_DATA = {
    "9 images in place of 6": (
        add_three,
        r"4 images to train on, not 7 \(new: more-1, more-2, scene-000000, scene-000005; gone: ",
    ),
    "a new name": (
        rename,
        r"other images to train on \(new: scene-000005; gone: scene-000001\); .*\(new: zebra; gone",
    ),
    "another image": (
        lambda root: repaint(root / "images" / "scene-000001.png", ImageOps.invert),
        r"other images to train on \(another image of 1: scene-000001\): restore the data",
    ),
    "exchanged images": (exchange, r"train on \(another image of 2: scene-000001, scene-000003\)"),
    "a pixel of an image": (
        lambda root: repaint(root / "images" / "scene-000005.png", one_pixel_of_color),
        r"has other images to validate on \(another image of 1: scene-000005\)",
    ),
    "mirrored masks": (
        mirror_masks,
        r"train on \(another mask of 2: .*3, .*4\); .* validate on \(another mask of 1: .*5\)",
    ),
    "a pixel in the middle of a bitmap": (
        lambda root: repaint(root / "masks" / "scene-000002.bmp", one_pixel),
        r"train on \(another mask of 1: scene-000002\): restore",
    ),
    "other numbers of classes": (
        renumber,
        r"train on \(another mask of 4: .*; another numbering of 4: .* validate on \(another mask",
    ),
}
"""What is done to a folder of which a run began, and what a resumed run says."""


def one_pixel_of_color(image):
    image.putpixel((5, 5), (1, 2, 3))
    return image


@pytest.mark.parametrize(("change", "message"), OTHER_DATA.values(), ids=OTHER_DATA)
def test_other_data_are_refused(folder, tmp_path, change, message):
    root, run_dir = shutil.copytree(folder, tmp_path / "own"), tmp_path / "run"
    recipe = RECIPES["finetune"]
    before = fingerprint(run_dir, *open_datasets(recipe, root)[:2])
    before.save()
    change(root)
    now = fingerprint(run_dir, *open_datasets(recipe, root)[:2])
    with pytest.raises(ValueError, match=message) as error:
        now.check(before.summary, accept=False)
    assert "\n" not in str(error.value)
    assert "--accept-changed-data" in str(error.value)
    (run_dir / "data.jsonl").write_text("{}")  # without the lines, the decision is the same
    with pytest.raises(ValueError, match=message.partition(r" \(")[0]):
        now.check(before.summary, accept=False)


@pytest.fixture(scope="module")
def noise():
    """A picture that stays above 128 KiB, with a palette and without."""
    values = np.random.default_rng(0).integers(0, 256, (640, 480, 3), np.uint8)
    return Image.fromarray(values), Image.fromarray(values).quantize(256)


def turned(photo, indexed, path):
    exif = Image.Exif()
    for orientation in (1, 6):
        exif[0x0112] = orientation
        photo.save(path.with_suffix(f".{orientation}.jpg"), exif=exif)
        yield path.with_suffix(f".{orientation}.jpg")


def recolored(photo, indexed, path):
    palette = indexed.getpalette()
    for name, colors in (("one.png", palette), ("other.png", palette[::-1])):
        indexed.putpalette(colors)
        indexed.save(path.with_name(name))
        yield path.with_name(name)


def repainted_at_the_start(photo, indexed, path):
    for name, color in (("one.bmp", (1, 2, 3)), ("other.bmp", (3, 2, 1))):
        photo.putpixel((0, photo.height - 1), color)  # the first row in the file
        photo.save(path.with_name(name))
        yield path.with_name(name)


@pytest.mark.parametrize("make", [turned, recolored, repainted_at_the_start])
def test_large_files_that_differ_at_their_start_alone_are_told_apart(noise, tmp_path, make):
    one, other = make(*noise, tmp_path / "picture")
    contents = [path.read_bytes() for path in (one, other)]
    assert len(contents[0]) == len(contents[1]) > 2**17
    assert contents[0][2**16 :] == contents[1][2**16 :]
    assert identify_file(one) != identify_file(other)


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**16 + 1, 2**17, 2**17 + 1])
def test_checksum_is_that_of_the_two_ends(tmp_path, size):
    content = bytes(index * 7 % 251 for index in range(size))
    (tmp_path / "file").write_bytes(content)
    known = content if size <= 2**17 else content[: 2**16] + content[-(2**16) :]
    assert identify_file(tmp_path / "file") == f"{size} {zlib.crc32(known):08x}"


def test_records_of_another_version_are_not_called_other_data(folder, tmp_path):
    made = fingerprint(tmp_path, MaskFolder(folder))
    saved = {name: {**part, "sha256": "0"} for name, part in made.summary.items()}
    del saved["train"]["form"]
    with pytest.raises(ValueError, match="has images to train on that another version recorded"):
        made.check(saved, accept=False)
    made.check(saved, accept=True)
    assert made.is_new


def touch(root):
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return root


SAME_DATA = {
    "moved": lambda root: root.rename(root.with_name("moved")),
    "copied": lambda root: shutil.copytree(root, root.with_name("copied")),
    "of other times": touch,
    "through a link": lambda root: link(root),
}


def link(root):
    (root.parent / "link").symlink_to(root, target_is_directory=True)
    return root.parent / "link"


@pytest.mark.parametrize("move", SAME_DATA.values(), ids=SAME_DATA)
def test_same_data_at_another_place_are_the_same(folder, tmp_path, move):
    root = shutil.copytree(folder, tmp_path / "own")
    before = fingerprint(tmp_path, MaskFolder(root))
    after = fingerprint(tmp_path, MaskFolder(move(root)))
    assert after.summary == before.summary
    after.check(before.summary, accept=False)
    assert not after.is_new


def camvid(root):
    (root / "masks" / "scene-000002.bmp").unlink()
    (root / "images" / "scene-000002.png").unlink()
    (root / "images").rename(root / "train")
    (root / "masks").rename(root / "trainannot")
    return CamVid(root, "train")


def test_nothing_is_decoded_and_little_is_read(folder, tmp_path, monkeypatch):
    dataset = camvid(shutil.copytree(folder, tmp_path / "own"))
    with dataset.pairs[0][0].open("ab") as file:
        file.truncate(2**36)  # takes no room on the disk while nobody copies it
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("a picture was opened"))
    fingerprint(tmp_path, dataset)


def test_missing_file_is_named(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "own")
    dataset = MaskFolder(root)
    (root / "masks" / "scene-000004.png").unlink()
    with pytest.raises(OSError, match=r"masks/scene-000004\.png"):
        fingerprint(tmp_path, dataset)
