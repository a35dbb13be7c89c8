"""Which mask belongs to which image, by their names and folders."""

import logging

import numpy as np
import pytest
from PIL import Image

from ccnet.datasets import MaskFolder

MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
MANY = [f"{number:02d}" for number in range(40)]


def write(root, images, masks):
    for folder, names in (("images", images), ("masks", masks)):
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".txt", ".json", ".db", ".pdf", ".h5"):
                path.write_text("no picture")
            else:
                Image.fromarray(MASK).save(path)
    return root


def named(*shapes):
    """The names of many files, one for each shape and number."""
    return [shape.replace("N", number) for number in MANY for shape in shapes]


PAIRED = {
    "same names": (named("N.png"), named("N.png")),
    "a mask's word": (named("N.jpg"), named("N_mask.png")),
    "words of both": (named("N_img.jpg"), named("N-GT.png")),
    "words before": (named("image_N.jpg"), named("mask_N.png")),
    "words that are names": (
        ["cat_2.jpg", "label_1.jpg", "target.jpg"],
        ["cat_2_gt.png", "label_1_gt.png", "target_mask.png"],
    ),
    "words without a separator": (named("imgN.jpg"), named("maskN.png")),
    "names of Cityscapes": (named("a_N_leftImg8bit.png"), named("a_N_gtFine_labelIds.png")),
    "the image's suffix too": (named("N.jpg"), named("N.jpg.png")),
    "one image": (["a.jpg"], ["a_mask.png"]),
    "some names": (["a.jpg", "b.jpg"], ["a.png", "b_mask.png"]),
    "words of the data set's own": (named("N_training.tif"), named("N_manual1.gif")),
    "a word of its own": (named("0N_x.jpg"), named("0N_x_L.png")),
    "subfolders": (["a/1.jpg", "b/1.jpg"], ["a/1.png", "b/1.png"]),
    "subfolders and words": (["a/1_rgb.jpg", "a/c/1.jpg"], ["a/1_mask.png", "a/c/1_label.png"]),
    "a folder for each image": (["1/image.jpg", "2/image.jpg"], ["1/mask.png", "2/mask.png"]),
    "one folder of images": (["a/1.jpg", "a/2.jpg"], ["1.png", "2.png"]),
}
"""Names of images and of their masks, in the same order."""

UNPAIRED = {
    "other words": (
        named("N.jpg"),
        named("N_color.png", "N_depth.png"),
        r"40 images have no mask: .*00\.jpg, .*, and 35 more\n.*80 masks have no image, whose "
        r"names end in _color, _depth: .*, and 75 more$",
    ),
    "two masks": (
        ["a.jpg"],
        ["a_mask.png", "a_gt.png"],
        r"one mask, but these go together: .*images/a\.jpg, .*masks/a_gt\.png, .*masks/a_mask\.png",
    ),
    "two images": (["a.jpg", "a.png"], ["a.png"], "a.jpg and a.png have the same name; keep one"),
    "names alike": (["cat.jpg"], ["car.png"], r"cat\.jpg has no mask\n.*car\.png has no image$"),
    "parts alike": (
        ["a_cat.jpg"],
        ["a_dog.png"],
        r"cat\.jpg has no mask\n.*dog\.png has no image$",
    ),
    "numbers alike": (["a_1.jpg", "b_1.jpg"], ["a_2.png", "b_2.png"], "2 images have no mask: "),
    "another folder": (["a/1.jpg", "b/2.jpg"], ["b/1.png", "b/2.png"], r"a/1\.jpg has no mask"),
}
"""Names of images and masks, and what the error says."""


@pytest.mark.parametrize(("images", "masks"), PAIRED.values(), ids=PAIRED)
def test_names_make_pairs(tmp_path, images, masks):
    folder = MaskFolder(write(tmp_path, images, masks))
    names = ("images", images), ("masks", masks)
    paths = [[tmp_path / folder_name / name for name in every] for folder_name, every in names]
    assert sorted(folder.pairs) == sorted(zip(*paths, strict=True))
    assert folder.names == sorted(name.rpartition(".")[0] for name in images)


@pytest.mark.parametrize(("images", "masks", "message"), UNPAIRED.values(), ids=UNPAIRED)
def test_other_names_are_reported(tmp_path, images, masks, message):
    with pytest.raises(ValueError, match=message) as error:
        MaskFolder(write(tmp_path, images, masks))
    assert len(str(error.value).splitlines()) <= 3


def test_what_is_left_out_or_guessed_is_said_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    images = [*named("N_left.jpg"), "notes.txt", "a.pdf", "b.h5", "sub/more.txt", ".hidden.txt"]
    folder = MaskFolder(write(tmp_path, images, named("N_truth.png", "N_truth.json")))
    assert len(folder) == 40
    left_out, others, guess = [record.getMessage() for record in caplog.records]
    assert left_out.endswith(
        "images: left out what is no picture by its suffix: 1 .h5, 1 .pdf, 2 .txt"
    )
    assert others.endswith("masks: left out what is no picture by its suffix: 40 .json")
    assert guess.endswith("took NAME_left and NAME_truth for an image and its mask")


def test_links_are_followed_once_and_broken_ones_reported(tmp_path):
    root = write(tmp_path / "own", ["a.png"], ["a.png"])
    (root / "images" / "loop").symlink_to(root / "images")
    (tmp_path / "more").mkdir()
    Image.fromarray(MASK).save(tmp_path / "more" / "b.png")
    for folder in ("images", "masks"):
        (root / folder / "linked").symlink_to(tmp_path / "more")
    assert MaskFolder(root).names == ["a", "linked/b"]
    for folder in ("images", "masks"):
        (root / folder / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"images/gone\.png(.|\n)*masks/gone\.png cannot be read"):
        MaskFolder(root)


INSTEAD = {
    "outlines beside images": (["images/a.jpg", "images/a.json"], "are no masks: export .* as PNG"),
    "outlines for masks": (["images/a.jpg", "masks/a.txt"], r"as 1 \.txt files may hold, are no"),
    "outlines in one file": (["images/a.jpg", "coco.json"], r"as 1 \.json files may hold"),
    "other folders": (["Images/a.jpg", "gt/a.png"], r"; there are Images, gt in [^;]*$"),
    "names of classes alone": (["images/a.jpg", "classes.json"], r"masks/NAME\.png$"),
}
"""Files, and what is said of a folder without images or without masks."""


@pytest.mark.parametrize(("names", "message"), INSTEAD.values(), ids=INSTEAD)
def test_what_is_there_in_place_of_masks_is_named(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=message):
        MaskFolder(tmp_path)
