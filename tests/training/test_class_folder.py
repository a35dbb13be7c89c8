"""ClassFolder: which images of a folder or an archive belong to which class."""

import os
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.training import class_folder
from ccnet.training.class_folder import ClassFolder

COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


def write(root, names, size=(8, 8)):
    """Writes images in the colour that their names contain, or a text."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color = next(color for word, color in COLORS.items() if word in name)
        if name.endswith(".txt"):
            path.write_text("no image")
        else:
            Image.new("RGB", size, color).save(path)
    return root


def archived(root):
    """The same files in an archive."""
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root).as_posix())
    return path


LAYOUTS = {
    "folders": (["red/1.png", "red/2.png", "blue/1.png"], ["blue", "red"], [0, 1, 1]),
    "in a common folder": (["train/red/1.png", "train/blue/1.png"], ["blue", "red"], [0, 1]),
    "deeper": (["a/red/x/1.png", "a/red/y/1.png", "a/blue/1.png"], ["blue", "red"], [0, 1, 1]),
    "other files": (
        ["red/1.bmp", "green/1.gif", "red/1.txt", "red/.hidden-red.png", "__MACOSX/red/1.png"],
        ["green", "red"],
        [0, 1],
    ),
}


def test_images_that_change_places_are_decoded_again(tmp_path):
    """As when two wrong labels are corrected: files of one length, last modified at one time."""
    root = write(tmp_path / "images", ["red/1-red.bmp", "blue/1-blue.bmp"])
    paths = root / "red/1-red.bmp", root / "blue/1-blue.bmp"
    for path in paths:
        os.utime(path, (1.6e9, 1.6e9))
    before = ClassFolder(root, tmp_path / "cache", 8)
    paths[0].rename(tmp_path / "kept")
    paths[1].rename(paths[0])
    (tmp_path / "kept").rename(paths[1])
    after = ClassFolder(root, tmp_path / "cache", 8)
    assert [torch.equal(before[at][0], after[1 - at][0]) for at in (0, 1)] == [True, True]


@pytest.mark.parametrize("damage", [b"", b"no header", 300, "(2, 3, 9, 9)"])
def test_damaged_cache_is_made_anew(tmp_path, caplog, damage):
    root = write(tmp_path / "images", ["red/1.png", "blue/1.png"])
    images = [ClassFolder(root, tmp_path / "cache", 8)[at][0] for at in (0, 1)]
    (cache,) = (tmp_path / "cache").iterdir()
    content = cache.read_bytes()
    if isinstance(damage, str):
        np.save(cache, np.zeros((2, 3, 9, 9), np.uint8))
    else:
        cache.write_bytes(content[:damage] if isinstance(damage, int) else damage)
    again = ClassFolder(root, tmp_path / "cache", 8)
    assert all(torch.equal(again[at][0], images[at]) for at in (0, 1))
    assert f"{cache} is damaged: the images are decoded again" in caplog.text
    assert cache.read_bytes() == content


@pytest.mark.parametrize("as_source", [lambda root: root, archived], ids=["folder", "archive"])
@pytest.mark.parametrize(("names", "classes", "labels"), LAYOUTS.values(), ids=LAYOUTS)
def test_class_is_the_first_folder_that_differs(tmp_path, as_source, names, classes, labels):
    source = as_source(write(tmp_path / "images", names))
    images = ClassFolder(source, tmp_path / "cache", 8)
    assert (images.classes, images.labels, len(images)) == (classes, labels, len(labels))
    for index, label in enumerate(labels):
        image, found = images[index]
        assert (image.shape, image.dtype, found) == ((3, 8, 8), torch.uint8, label)
        expected = torch.tensor(COLORS[classes[label]])
        assert (image.amax((1, 2)).int() - expected).abs().max() <= 2


def test_other_files_are_left_out_and_said(tmp_path, caplog):
    root = write(tmp_path / "images", ["red/1.png", "blue/1.png", "red/1.txt", "red/2.txt"])
    (root / "red-notes").write_text("no image")
    ClassFolder(root, tmp_path / "cache", 8)
    expected = f"{root}: left out what is no picture by its suffix: 2 .txt, 1 without a suffix"
    assert caplog.messages == [expected]


@pytest.mark.parametrize(("size", "shape"), [(8, (8, 12)), (8, (30, 8)), (16, (8, 16))])
def test_middle_of_an_image_is_kept(tmp_path, size, shape):
    root = write(tmp_path / "images", ["red/1.png", "blue/1.png"])
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    ramp = np.stack([rows, columns, 0 * rows], axis=2) * 5
    Image.fromarray(ramp.astype(np.uint8)).save(root / "red" / "1.png")
    image, _ = ClassFolder(root, tmp_path, size)[1]
    assert image.shape == (3, size, size)
    middle = torch.tensor(ramp.reshape(-1, 3).mean(0))[:2]
    assert (image.double().mean((1, 2))[:2] - middle).abs().max() < 1
    rise, growth = image[0, -1, 0] - image[0, 0, 0].int(), image[1, 0, -1] - image[1, 0, 0].int()
    assert abs(rise - growth) <= 3, "squeezed, not cropped"


def test_images_are_decoded_once(tmp_path, monkeypatch):
    root = write(tmp_path / "images", ["red/1.png", "blue/1.png"])
    ClassFolder(root, tmp_path / "cache", 8)
    with monkeypatch.context() as patch:
        patch.setattr("ccnet.training.class_folder.decode_image", None)
        ClassFolder(root, tmp_path / "cache", 8)
        assert ClassFolder(root, tmp_path / "cache", 8)[1][0][0].float().mean() == 200
    Image.new("RGB", (9, 9), "white").save(root / "red" / "1.png")
    assert ClassFolder(root, tmp_path / "cache", 8)[1][0].float().mean() == 255
    assert ClassFolder(root, tmp_path / "cache", 6)[1][0].shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 images, no two classes"),
        (["red/1.png", "red/2.png"], "2 images, no two classes"),
        (["red/1.png", "green.png", "blue/1.png"], "green.png is in none"),
    ],
)
def test_what_holds_no_classes_is_refused(tmp_path, names, message):
    (tmp_path / "images").mkdir()
    root = write(tmp_path / "images", names)
    with pytest.raises(ValueError, match=f"must hold a folder of images per class: {message}"):
        ClassFolder(root, tmp_path, 8)


def test_unreadable_images_are_named_and_nothing_is_left(tmp_path):
    root = write(tmp_path / "images", [f"red/{index}.png" for index in range(12)] + ["blue/1.png"])
    for path in (root / "red").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"unreadable images:\n  red/0\.png: [^$]*and 2 more$"):
        ClassFolder(root, tmp_path / "cache", 8)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("as_source", [lambda root: root, archived], ids=["folder", "archive"])
def test_programs_named_as_images_are_not_run(tmp_path, as_source):
    root = write(tmp_path / "images", ["red/1.png", "blue/1.png"])
    Image.new("RGB", (8, 8)).save(root / "red" / "1.png", format="EPS")
    with pytest.raises(ValueError, match=r"red/1\.png: .*no format of a picture"):
        ClassFolder(as_source(root), tmp_path / "cache", 8)


def test_other_files_are_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder or archive of classes at .*none"):
        ClassFolder(tmp_path / "none", tmp_path, 8)
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match="neither a folder nor an intact zip archive"):
        ClassFolder(tmp_path / "file", tmp_path, 8)


def test_interrupt_ends_the_decoding(tmp_path, monkeypatch):
    """What waits for its turn is not decoded, and nothing is left."""
    names = [f"{color}/{index}.png" for color in ("red", "blue") for index in range(100)]
    source, decoded = write(tmp_path / "images", names), []

    def decode(path):
        decoded.append(path)
        time.sleep(0.02)
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def interrupt(results, *_, **__):
        next(iter(results))
        raise KeyboardInterrupt

    monkeypatch.setattr(class_folder, "decode_image", decode)
    monkeypatch.setattr(class_folder, "tqdm", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ClassFolder(source, tmp_path / "cache", 8)
    assert len(decoded) < 100
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("splits", ["train val test", "Training validation"])
def test_splits_are_no_classes(tmp_path, splits):
    folders = [f"small/{split}/{color}" for split in splits.split() for color in ("red", "blue")]
    root = write(tmp_path / "images", [f"{folder}/1.png" for folder in folders])
    found = " and ".join(sorted(splits.split()))
    with pytest.raises(ValueError, match=f"not one per split: give one of {found} alone"):
        ClassFolder(root, tmp_path, 8)
    assert ClassFolder(root / "small" / splits.split()[0], tmp_path, 8).classes == ["blue", "red"]
