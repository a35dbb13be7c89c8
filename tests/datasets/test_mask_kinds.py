"""What the numbers in masks may mean: accepted with these classes, refused, or with a warning."""

import logging
import re

import numpy as np
import pytest
from mask_drawings import SIZE, ellipse, painted, rectangles, write_masks

from ccnet.datasets import MaskFolder

NAMES = ["elsewhere", "membrane"]
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), *[(0, 0, 0)] * 252, (224, 224, 192)]
VALUES, OTHERS = (np.asarray(rectangles(number, range(3))) for number in (0, 1))


def ellipses(inside, outside=0):
    return [ellipse(number, inside, outside) for number in range(4)]


def drawn(count, files=12):
    return [rectangles(number, range(count)) for number in range(files)]


def with_pixels(count):
    """A class that fills the image, and others of a pixel each."""
    mask = np.zeros(SIZE, np.uint8)
    mask[5, 8 * np.arange(count)] = np.arange(count)
    return mask


def own_colors(values, number):
    return painted(values, np.random.default_rng(number).integers(0, 256, (256, 3)).tolist())


def with_a_slip():
    """One pixel of another number in one mask of many."""
    first = np.array(rectangles(0, range(3)))
    first[7, 9] = 3
    return [first, *drawn(3)]


UNLABELLED = np.array([[0, 1, 255, 255]], np.uint8)


def grey_levels(*levels):
    return [(level, level, level) for level in levels]


def ids(number):
    return rectangles(number, [*range(34)])


ACCEPTED = {
    "two numbers": (ellipses(1), NAMES, 2),
    "two numbers and unlabelled pixels": ([*ellipses(1), UNLABELLED], NAMES, 2),
    "black and white, described": (
        ellipses(255),
        {"categories": NAMES, "label_ids": [0, 255], "ignore": []},
        2,
    ),
    "white first": (
        ellipses(255),
        {"categories": NAMES[::-1], "label_ids": [255, 0], "ignore": []},
        2,
    ),
    "levels, described": (ellipses(128), {"categories": NAMES, "label_ids": [0, 128]}, 2),
    "0 for no class": (
        drawn(151),
        {"categories": [f"thing {index}" for index in range(150)], "ignore": [0]},
        150,
    ),
    "0 for no class, without names": (drawn(21), {"ignore": [0]}, 20),
    "numbers without names": (ellipses(5, 3), {"label_ids": [3, 5]}, 2),
    "numbers far apart without names": (ellipses(100), {"label_ids": [0, 100]}, 2),
    **{f"{count} classes": (drawn(count), None, count) for count in (2, 3, 5, 8, 21, 34)},
    "150 classes": (drawn(150), None, 150),
    "171 classes and unlabelled pixels": ([*drawn(171), ellipse(9, 255)], None, 171),
    "numbers with gaps": ([rectangles(0, [0, 1, 2, 7])], None, 8),
    "two classes of 21": (ellipses(20), None, 21),
    "ids of Cityscapes": ([ids(number) for number in range(3)], None, 34),
    "classes of one pixel": ([with_pixels(12)] * 2, None, 12),
    "grey in three channels": ([np.dstack([VALUES] * 3)], None, 3),
    "one palette": ([painted(VALUES, VOC), painted(OTHERS, VOC)], None, 3),
    "a palette with unlabelled pixels": (
        [painted(np.where(VALUES == 1, 255, VALUES), VOC), painted(OTHERS, VOC)],
        None,
        3,
    ),
    "a palette in every file": ([own_colors(VALUES, 0), own_colors(OTHERS, 1)], None, 3),
    "one colour for two numbers": (
        [painted(VALUES, [*VOC[:2], VOC[1]]), painted(np.minimum(VALUES, 1), [*VOC[:2], VOC[1]])],
        None,
        3,
    ),
    "a padded palette": (
        [painted(VALUES, VOC), painted(np.minimum(VALUES, 1), VOC[:2])],
        None,
        3,
    ),
    "colours in one file": ([painted(VALUES, VOC), VALUES], None, 3),
    "a grey palette": ([painted(VALUES, grey_levels(0, 128, 255))] * 2, None, 3),
    "1 bit beside 8": ([VALUES > 0, VALUES], None, 3),
}
"""Masks, classes.json, and the number of classes."""

REFUSED = {
    "black and white": (
        ellipses(255),
        NAMES,
        r"masks are black and white: .*\"elsewhere\", \"membrane\"\], \"label_ids\": \[0, 255\], "
        r"\"ignore\": \[\]}",
    ),
    "black and white, without names": (
        ellipses(255),
        None,
        r"black and white: .*label_ids\": \[0, 255\], \"ignore\": \[\]}",
    ),
    "one class and 255": (
        ellipses(255, 1),
        ["a", "b", "c"],
        r"no class but 1, and 255, .*\"label_ids\": \[1, 255\]",
    ),
    "255 with a class that is ignored": (
        ellipses(255),
        {"categories": NAMES, "label_ids": [0, 255]},
        r"label_ids and ignore.* both hold \[255\]",
    ),
    "ignore that is no list": (
        ellipses(1),
        {"categories": NAMES, "ignore": 255},
        "ignore must be a list of whole numbers, not 255",
    ),
    "ids that are not whole": (
        ellipses(1),
        {"categories": NAMES, "label_ids": [0, 1.5]},
        r"label_ids must be a list of whole numbers, not \[0, 1\.5\]",
    ),
    "one class alone": (
        ellipses(255),
        ["membrane"],
        r"one class alone, 'membrane': .*\[\"background\", \"membrane\"\], \"label_ids\": \[0, 255",
    ),
    "one number": (ellipses(0), NAMES, "no class but 0; a network needs two"),
    "no class": (ellipses(255, 255), NAMES, "no readable mask has a pixel with a class.* only 255"),
    "two of a name": (ellipses(1), ["a", "a"], "class names must be unique, not 'a' twice"),
    "a text for names": (ellipses(1), {"categories": "ab"}, "must be a list of names, not 'ab'"),
    "too high ids": (ellipses(1), {"categories": NAMES, "label_ids": [0, 256]}, r"are \[256\]; "),
    "other levels": (
        ellipses(128),
        NAMES,
        r"4 masks .* the labels \[128\], .*\"label_ids\": \[0, 128\]} in classes\.json",
    ),
    "other levels, without names": (
        ellipses(128),
        None,
        "largest number in the masks is 128, but only 2 occur: 0, 128;",
    ),
    "even levels, without names": (
        [rectangles(0, [0, 85, 170, 255])],
        None,
        r'"name of 255"\], "label_ids": \[0, 85, 170, 255\], "ignore": \[\]} in classes\.json',
    ),
    "uneven levels, without names": (
        [rectangles(0, [0, 85, 100, 255])],
        None,
        r'"name of 100"\], "label_ids": \[0, 85, 100\]} in classes\.json',
    ),
    "a number of no class": (
        [rectangles(0, [0, 1, 2, 77]), *drawn(3)],
        ["a", "b", "c"],
        r"0\.png has the labels \[77\], in .*; if they are slips, correct .*0\.png; if these mean "
        r'no class, give .*"ignore": \[77, 255\]}',
    ),
    "a slip": (
        with_a_slip(),
        ["a", "b", "c"],
        r"if they are slips, correct [^ ]*/0\.png; if these mean no class, .*\[3, 255\]}",
    ),
    "0 for no class": (
        drawn(151),
        [f"thing {index}" for index in range(150)],
        r"labels \[150\], .* if 0 means no class, give .*\"ignore\": \[0\]}",
    ),
    "three levels": (
        [rectangles(0, [0, 127, 255])],
        ["a", "b", "c"],
        r'labels \[127\], .* each is a class, give .*"label_ids": \[0, 127, 255\], "ignore": \[\]}',
    ),
    "black and white, with 0 for no class": (
        ellipses(255),
        {"categories": NAMES, "ignore": [0]},
        r'"label_ids": \[0, 255\], "ignore": \[\]} in classes.json\n[^;]*without a class$',
    ),
    "255 for no class beside 0": (
        [*ellipses(1), ellipse(8, 2), ellipse(9, 255)],
        {"categories": ["a", "b"], "label_ids": [1, 2], "ignore": [0]},
        r"labels \[255\], .* if 255 means no class, give .*\"ignore\": \[0, 255\]}",
    ),
    "a number beside those of some classes": (
        [*ellipses(7, 23), ellipse(9, 0)],
        {"categories": ["road", "walk", "sky"], "label_ids": [7, 8, 23]},
        r'labels \[0\], .*; if these mean no class, give .*"ignore": \[0, 255\]} in classes\.json',
    ),
    "colours": ([painted(VALUES, VOC).convert("RGB")], None, "0.png holds colours in place"),
    "colours in another order": (
        [painted(VALUES, VOC), painted(2 - VALUES, VOC[2::-1])],
        None,
        r"0\.png shows \((.*)\) for (0|2), but .*1\.png shows \(\1\) for (?!\2)",
    ),
    "colours in another order, with names": (
        [painted(VALUES, VOC), painted(2 - VALUES, VOC[2::-1])],
        ["a", "b", "c"],
        "save all masks with one palette",
    ),
    "black and white in another order": (
        [painted(VALUES > 0, grey_levels(0, 255)), painted(OTHERS > 0, grey_levels(255, 0))],
        NAMES,
        r"0\.png shows \((.*)\) for (0|1), but .*1\.png shows \(\1\) for (?!\2)",
    ),
    "grey levels of the file's own": (
        [painted(VALUES > 0, grey_levels(0, 7)), painted(OTHERS > 0, grey_levels(0, 8))],
        NAMES,
        r"shows \(7, 7, 7\) for 1, but .* \(8, 8, 8\) for 1",
    ),
    "1 bit beside white": ([VALUES > 0, ellipse(0, 255)], NAMES, r"for 1, but .* for 255"),
}
"""Masks, classes.json, and what the error says."""

WARNED = {
    "a class in no mask": (ellipses(1), [*NAMES, "vesicle"], "1 of 3 classes .* mask: vesicle"),
    "some black and white": (
        [*ellipses(1), ellipse(8, 255), ellipse(9, 255)],
        NAMES,
        "2 masks hold 255, .*, and one class alone, and all others no 255; .*4.png, .*5.png",
    ),
    "numbers from 1": (ellipses(2, 1), None, r'no mask: class 0; if .*"ignore": \[0\]'),
    "a slip": (
        with_a_slip(),
        None,
        r"\[3\] are in one mask alone each, in 1 pixel \(.*/0\.png; .*\"ignore\": \[3, 255\]}",
    ),
    "many absent classes": (ellipses(20), None, "19 of 21 .*: class 1, .* class 5, and 14 more"),
}
"""Masks, classes.json, and what a warning says."""


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("masks", "classes", "count"), ACCEPTED.values(), ids=ACCEPTED)
def test_masks_are_accepted(tmp_path, warned, masks, classes, count):
    folder = MaskFolder(write_masks(tmp_path / "own", masks, classes))
    assert len(folder.label_set) == count
    assert all(re.search("are in no mask|in one mask alone", message) for message in warned())
    for index in range(len(masks)):
        labels = folder.labels(index)
        assert set(labels.unique().tolist()) <= {*range(count), 255}
        assert folder.class_pixels(index).tolist() == [
            int((labels == label).sum()) for label in range(count)
        ]


@pytest.mark.parametrize(("masks", "classes", "message"), REFUSED.values(), ids=REFUSED)
def test_masks_are_refused(tmp_path, masks, classes, message):
    with pytest.raises(ValueError, match=message):
        MaskFolder(write_masks(tmp_path / "own", masks, classes))


OFFERED = {
    name: (masks, classes)
    for name, (masks, classes, message) in REFUSED.items()
    if r"\]}" in message
}


@pytest.mark.parametrize(("masks", "classes"), OFFERED.values(), ids=OFFERED)
def test_what_an_error_offers_is_all_that_classes_json_needs(tmp_path, masks, classes):
    root = write_masks(tmp_path / "own", masks, classes)
    with pytest.raises(ValueError, match=r"in classes\.json") as one:
        MaskFolder(root)
    (root / "classes.json").write_text(re.search(r"({.*}) in classes\.json", str(one.value))[1])
    MaskFolder(root)


@pytest.mark.parametrize(("masks", "classes", "message"), WARNED.values(), ids=WARNED)
def test_masks_are_accepted_with_a_warning(tmp_path, warned, masks, classes, message):
    MaskFolder(write_masks(tmp_path / "own", masks, classes))
    assert re.search(message, "\n".join(warned()))
