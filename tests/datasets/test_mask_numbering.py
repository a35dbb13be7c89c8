"""The classes and colours of a folder, in the numbers of its masks."""

import logging

import numpy as np
import pytest
from mask_drawings import ellipse, painted, rectangles, write_masks

from ccnet.classes import CITYSCAPES, LabelSet
from ccnet.datasets import MaskFolder

VALUES = np.asarray(rectangles(0, range(3)))


def grey_levels(*levels):
    return [(level, level, level) for level in levels]


def test_numbers_are_the_classes_that_classes_json_says(tmp_path):
    mask = np.array([[0, 255, 128], [255, 255, 0]], np.uint8)
    classes = {"categories": ["white", "black"], "label_ids": [255, 0], "ignore": [128]}
    folder = MaskFolder(write_masks(tmp_path / "own", [mask], classes))
    assert folder.labels(0).tolist() == [[1, 0, 255], [0, 0, 1]]
    assert folder.class_pixels(0).tolist() == [3, 2]
    assert folder.label_set.ignore == (128,)


@pytest.mark.parametrize(
    ("palette", "is_colored"),
    [
        (grey_levels(*range(256)), False),
        (grey_levels(0, 128, 255), False),
        ([(1, 2, 3), (4, 5, 6), (7, 8, 9)], True),
    ],
    ids=["levels", "other levels", "colours"],
)
def test_grey_palettes_give_no_colors(tmp_path, palette, is_colored):
    folder = MaskFolder(write_masks(tmp_path / "own", [painted(VALUES, palette)]))
    assert (folder.label_set.colors == tuple(palette[:3])) == is_colored
    assert is_colored or folder.label_set.colors == LabelSet.numbered(3).colors


def test_classes_take_the_color_of_the_palette_where_they_occur(tmp_path):
    first = painted(VALUES % 2, [(9, 9, 8), (1, 2, 3), (0, 0, 0)])
    padded = [first, painted(VALUES, [(0, 0, 0), (0, 0, 0), (0, 128, 0)])]
    assert MaskFolder(write_masks(tmp_path / "own", padded)).label_set.colors == (
        (9, 9, 8),
        (1, 2, 3),
        (0, 128, 0),
    )


OTHER_FOLDER = {
    "lacks classes": ([ellipse(0, 7, 7)], None, [0]),
    "lacks classes, with unlabelled pixels": ([ellipse(0, 7, 255)], None, [255, 0]),
    "same names in another order": (
        [ellipse(0, 1)],
        {"categories": [*CITYSCAPES.categories[1::-1], *CITYSCAPES.categories[2:]]},
        [1, 0],
    ),
    "some of the names": (
        [ellipse(0, 1)],
        {"categories": ["sidewalk", "road"]},
        [1, 0],
    ),
    "own numbers": (
        [ellipse(0, 200, 100)],
        {"label_ids": [100, 200, *range(17)]},
        [0, 1],
    ),
    "0 for no class": ([ellipse(0, 8)], {"ignore": [0]}, [255, 1]),
    "255 said to be no class": ([ellipse(0, 7, 255)], {"ignore": [255]}, [255, 0]),
}
"""Masks of a folder with given classes, its classes.json, and the labels of its two numbers."""


@pytest.mark.parametrize(("masks", "classes", "labels"), OTHER_FOLDER.values(), ids=OTHER_FOLDER)
def test_given_classes_are_read_in_the_folder_s_own_numbers(tmp_path, masks, classes, labels):
    folder = MaskFolder(write_masks(tmp_path / "own", masks, classes), label_set=CITYSCAPES)
    assert folder.label_set is CITYSCAPES
    found = folder.labels(0)
    assert [found[0, 0].item(), found[found != found[0, 0]][:1].tolist()] == [
        labels[0],
        labels[1:],
    ]


@pytest.mark.parametrize(
    ("masks", "classes", "message"),
    [
        ([ellipse(0, 255)], None, r'classes\.json; if not, say so: {"ignore": \[255\]}'),
        ([ellipse(0, 255, 255)], None, "no readable mask has a pixel with a class"),
        (
            [ellipse(0)],
            None,
            r"labels \[0, 1\], in 12,288 pixels \(100 %\), but the 19 classes have",
        ),
        ([ellipse(0, 8, 7)], {"label_ids": [1, 2]}, "19 categories need 19 label_ids"),
    ],
    ids=["black and white", "unlabelled", "other numbers", "too few numbers"],
)
def test_masks_that_do_not_fit_given_classes_are_refused(tmp_path, masks, classes, message):
    with pytest.raises(ValueError, match=message):
        MaskFolder(write_masks(tmp_path / "own", masks, classes), label_set=CITYSCAPES)


@pytest.mark.parametrize("names", [["Road", "sky"], ["void", "road", "sky"]])
def test_other_names_than_those_given_are_refused(tmp_path, names):
    root = write_masks(tmp_path / "own", [ellipse(0)], names)
    message = f"names '{names[0]}', but the classes given are 'road', 'sidewalk', .* and 14 more: "
    with pytest.raises(ValueError, match=message):
        MaskFolder(root, label_set=CITYSCAPES)


def test_numbers_as_names_are_names(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    root = write_masks(tmp_path / "own", [ellipse(0)], [2, 1])
    assert MaskFolder(root).label_set.categories == ("2", "1")
    given = LabelSet.from_config({"categories": ["1", "2"]})
    assert MaskFolder(root, label_set=given).labels(0)[0, 0] == 1
    assert not caplog.records
