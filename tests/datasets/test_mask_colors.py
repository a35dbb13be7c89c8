"""Colours of palettes: those of the classes, if they are in the order of the classes."""

import numpy as np
import pytest
from mask_drawings import painted, rectangles, write_masks

from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import MaskFolder

COLORS = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
NAMES = ["around", "red", "green", "blue"]
GIVEN = LabelSet(tuple(NAMES), tuple(COLORS))
OTHER_CODE = [
    *[(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)],
    *[(0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0)],
]
"""A palette in wide use; three of its colours are also CamVid's, two of them for other classes."""


def masks(colors, count=4, order=None):
    """Drawings of classes in some numbers, 0, 1, ... without an order, in these colours."""
    order = np.array(order or range(count), np.uint8)
    return [painted(order[np.asarray(rectangles(n, range(count)))], colors) for n in range(3)]


def jittered(colors, number):
    noise = np.random.default_rng(number).integers(-2, 3, (len(colors), 3))
    return np.clip(np.array(colors) + noise, 0, 255).tolist()


def two_by_two(colors):
    """Masks of the first class and one other."""
    return [painted(rectangles(n, [0, n]), colors) for n in (1, 2, 3)]


def reduced_one_by_one(change):
    """Masks of colours that differ a little in every file, in another order in every second."""
    return [
        painted(rectangles(n, range(4)), jittered(COLORS if n % 2 else change(COLORS), n))
        for n in range(4)
    ]


ACCEPTED = {
    "the same": (masks(COLORS), None, GIVEN),
    "about the same": ([masks(jittered(COLORS, n))[n] for n in range(3)], None, GIVEN),
    "reordered, and described": (
        masks(COLORS[::-1], order=[3, 2, 1, 0]),
        {"label_ids": [3, 2, 1, 0]},
        GIVEN,
    ),
    "reordered, and named": (
        masks(COLORS[::-1], order=[3, 2, 1, 0]),
        NAMES[::-1],
        GIVEN,
    ),
    "for the eye": (masks(COLORS[::-1]), {"colors": COLORS[::-1]}, GIVEN),
    "others": (masks(OTHER_CODE), None, GIVEN),
    "one by chance": (masks([(1, 2, 3), (0, 200, 0), (5, 50, 5), (9, 90, 9)]), None, GIVEN),
    "a few by chance": (masks(OTHER_CODE, 11), None, CAMVID),
    "no palette": ([rectangles(0, range(4))], None, GIVEN),
    "about the same in each file": (reduced_one_by_one(list), NAMES, None),
}
"""Masks, classes.json and given classes."""

REFUSED = {
    "in another order": (
        masks(COLORS[::-1]),
        None,
        GIVEN,
        r"0\.png shows \(0, 0, 200\) for 0, but that is the colour of 'blue', which is 3 here; 0 "
        "is 'around': give",
    ),
    "two of them exchanged": (
        two_by_two([COLORS[0], *COLORS[:1:-1], COLORS[1]]),
        None,
        GIVEN,
        r"200\) for 1, but .*of 'blue'",
    ),
    "CamVid's in another order": (masks(CAMVID.colors[::-1], 11), None, CAMVID, "colour of 'bicy"),
    "not those described": (
        masks(COLORS),
        {"categories": NAMES, "colors": COLORS[::-1]},
        None,
        "the colour of 'blue'",
    ),
    "about the same, in another order": (
        reduced_one_by_one(lambda colors: colors[::-1]),
        NAMES,
        None,
        r"1\.png shows \d in about the colour \(.*\) that others show for \d: save all masks with",
    ),
}


@pytest.mark.parametrize(("files", "classes", "given"), ACCEPTED.values(), ids=ACCEPTED)
def test_colors_are_accepted(tmp_path, files, classes, given):
    assert len(MaskFolder(write_masks(tmp_path / "own", files, classes), label_set=given)) > 0


@pytest.mark.parametrize(("files", "classes", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_colors_of_other_classes_are_refused(tmp_path, files, classes, given, message):
    with pytest.raises(ValueError, match=message):
        MaskFolder(write_masks(tmp_path / "own", files, classes), label_set=given)


@pytest.mark.parametrize("classes", [None, NAMES], ids=["without names", "named"])
def test_classes_have_the_colors_of_the_palette(tmp_path, classes):
    folder = MaskFolder(write_masks(tmp_path / "own", masks(COLORS), classes))
    assert folder.label_set.colors == tuple(COLORS)


def test_a_palette_that_does_not_tell_classes_apart_gives_no_colors(tmp_path):
    folder = MaskFolder(write_masks(tmp_path / "own", masks([*COLORS[:3], COLORS[2]]), NAMES))
    assert folder.label_set == LabelSet.from_config({"categories": NAMES})
