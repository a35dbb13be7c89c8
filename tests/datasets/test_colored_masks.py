"""Masks that hold colours: read by them, or refused with the lines to write into classes.json."""

import json
import logging
import re

import numpy as np
import pytest
from mask_drawings import SIZE, blended, painted, rectangles, through_jpeg, write_masks
from PIL import Image

from ccnet.classes import CAMVID, CITYSCAPES, LabelSet
from ccnet.datasets import MaskFolder

COLORS = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
NAMES = ["around", "red", "green", "blue"]
FIELDS = {"categories": NAMES, "colors": COLORS}
GIVEN = LabelSet(tuple(NAMES), tuple(COLORS))
VALUES = [np.asarray(rectangles(number, range(4))) for number in range(3)]


def colored(values, colors=COLORS, mode="RGB"):
    return Image.fromarray(np.array(colors, np.uint8)[values]).convert(mode)


def masks(colors=COLORS, mode="RGB"):
    return [colored(values, colors, mode) for values in VALUES]


def palettes_in_another_order():
    """As tools write them that reduce the colours of each file."""
    orders = [np.random.default_rng(number).permutation(4) for number in range(3)]
    return [
        painted(np.argsort(order)[values], np.array(COLORS)[order].tolist())
        for order, values in zip(orders, VALUES, strict=True)
    ]


READ = {
    "RGB": (masks(), FIELDS, None),
    "RGBA, opaque": (masks(mode="RGBA"), FIELDS, None),
    "colours alone": (masks(), {"colors": COLORS}, None),
    "numbers that the masks do not hold": (masks(), {**FIELDS, "label_ids": [7, 8, 9, 11]}, None),
    "given classes": (masks(), None, GIVEN),
    "given classes, other colours": (
        masks(COLORS[::-1]),
        {**FIELDS, "colors": COLORS[::-1]},
        GIVEN,
    ),
    "a palette in every file": (palettes_in_another_order(), FIELDS, None),
    "some stored with a palette": (
        [*masks()[:2], masks()[2].quantize(4)],
        FIELDS,
        None,
    ),
}
"""Masks, classes.json and given classes."""


@pytest.mark.parametrize(("files", "classes", "given"), READ.values(), ids=READ)
def test_colors_are_the_classes_that_have_them(tmp_path, caplog, files, classes, given):
    caplog.set_level(logging.WARNING)
    folder = MaskFolder(write_masks(tmp_path / "own", files, classes), label_set=given)
    assert len(folder.label_set) == 4
    for index, values in enumerate(VALUES):
        assert np.array_equal(folder.labels(index), values)
        assert folder.class_pixels(index).tolist() == np.bincount(values.ravel()).tolist()
    assert not caplog.records


def test_black_and_white_among_colors_are_colors(tmp_path):
    """Tools store a mask without any colour as a grey one."""
    black, white = np.zeros(SIZE, np.uint8), np.full((*SIZE, 3), 255, np.uint8)
    files = [*masks(), black, white]
    classes = {"categories": NAMES[1:], "colors": COLORS[1:]}
    root = write_masks(
        tmp_path / "own", files, {**classes, "ignore_colors": [[0, 0, 0], [255, 255, 255]]}
    )
    folder = MaskFolder(root)
    for index, values in enumerate(VALUES):
        assert np.array_equal(folder.labels(index), np.where(values, values - 1, 255))
    assert [set(folder.labels(index).unique().tolist()) for index in (3, 4)] == [{255}, {255}]


def test_a_color_that_appears_later_is_refused(tmp_path):
    folder = MaskFolder(write_masks(tmp_path / "own", masks(), FIELDS))
    masks([*COLORS[:3], (9, 9, 200)])[0].save(tmp_path / "own" / "masks" / "0.png")
    with pytest.raises(
        ValueError, match=r"0\.png has the colour \[9, 9, 200\], which no class has"
    ):
        folder.labels(0)


@pytest.mark.parametrize("colors", [COLORS, CITYSCAPES.colors[:4]], ids=["own", "Cityscapes"])
def test_the_error_has_the_lines_that_read_the_masks(tmp_path, colors):
    root = write_masks(tmp_path / "own", masks(colors))
    with pytest.raises(ValueError, match="hold colours in place of class numbers") as one:
        MaskFolder(root)
    lines = re.search(r"(\{.*\}) in classes\.json;", str(one.value))[1]
    (root / "classes.json").write_text(lines)
    folder = MaskFolder(root)
    assert sorted(folder.label_set.colors) == sorted(colors)
    is_known = colors is not COLORS
    assert (set(folder.label_set.categories) == {*CITYSCAPES.categories[:4]}) == is_known
    names = dict(zip(folder.label_set.categories, folder.label_set.colors, strict=True))
    assert names.get("road") == ((128, 64, 128) if is_known else None)


def many_colors(count):
    rng = np.random.default_rng(0)
    return masks(np.unique(rng.integers(0, 250, (2 * count, 3)), axis=0)[:4])


REFUSED = {
    "names alone": (
        masks(),
        NAMES,
        None,
        r'"colors": \["colour of around", .*"\]} in classes\.json, where each "colour of \.\.\." '
        r"must become one of \[\[0, 0, 0\], .* which are sorted by value, not as the names",
    ),
    "a colour of no class": (
        masks(),
        {"categories": NAMES[:3], "colors": COLORS[:3], "ignore_colors": [[9, 9, 9]]},
        None,
        r"3 masks \(.*\) have [\d,]+ pixels \(\d+ %\) in colours that no class has: "
        r'\[0, 0, 200\]; .* "ignore_colors": \[\[0, 0, 200\], \[9, 9, 9\]\]} in classes',
    ),
    "colours of other classes": (masks(), None, CAMVID, "pixels .* in colours that no class has"),
    "nearly the colours": (
        masks([(3, 0, 0), (202, 1, 0), (1, 199, 0), (0, 2, 203)]),
        FIELDS,
        None,
        r"\(100 %\) in colours .*: .*; they are as with JPEG, .* or a colour profile: export masks",
    ),
    "blended": (
        [blended(mask) for mask in masks()],
        None,
        None,
        r"\d+ of their \d+ colours have few pixels, as with JPEG, smooth edges .*: export masks "
        r'.*; then give .*"colors": .*\[0, 0, 200\]',
    ),
    "blended, described": (
        [blended(mask) for mask in masks()],
        FIELDS,
        None,
        "that no class has: .* more; they are as with JPEG, smooth edges",
    ),
    "through JPEG": (
        [Image.merge("RGB", [through_jpeg(one) for one in mask.split()]) for mask in masks()],
        FIELDS,
        None,
        "each of 3 files has more than 256 colours, as after JPEG, with smooth edges",
    ),
    "a photograph": (
        [np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)],
        FIELDS,
        None,
        r"0\.png has more than 256 colours, .* or in a photograph: export masks",
    ),
    "transparent pixels": (
        [colored(VALUES[0], [*[(*color, 255) for color in COLORS[:3]], (0, 0, 0, 0)], "RGBA")],
        FIELDS,
        None,
        "has transparent pixels: give them .* in a mask of colours one of these",
    ),
    "one class": (
        [colored(VALUES[0] * 0 + 1)] * 2,
        FIELDS,
        None,
        "the masks show the colour of no class but 'red'; a network needs two",
    ),
    "no class": (
        [colored(VALUES[0] * 0 + 1)] * 2,
        {**FIELDS, "colors": [*COLORS[:1], (9, 9, 9), *COLORS[2:]], "ignore_colors": [COLORS[1]]},
        None,
        "the masks show the colour of no class at all",
    ),
    "one colour for two classes": (
        masks(),
        {"categories": NAMES, "colors": [*COLORS[:3], COLORS[0]]},
        None,
        r'"colors" and "ignore_colors" hold \[0, 0, 0\] twice',
    ),
    "a class that is ignored": (
        masks(),
        {**FIELDS, "ignore_colors": [COLORS[1]]},
        None,
        r'"colors" and "ignore_colors" hold \[200, 0, 0\] twice',
    ),
    "ignored colours of numbers": (
        [*VALUES],
        {"categories": NAMES, "ignore_colors": [[0, 0, 0]]},
        None,
        '"ignore_colors" is for masks that hold colours, and these hold numbers: .* "ignore"',
    ),
    "no colours": (masks(), {**FIELDS, "ignore_colors": 7}, None, "ignore_colors must be a list"),
    "one among numbers": (
        [*VALUES, *masks()[:1]],
        NAMES,
        None,
        r"has a problem:\n.*masks/3\.png holds colours, unlike the others: save them as class numb",
    ),
}
"""Masks, classes.json, given classes, and what the error says."""


@pytest.mark.parametrize(("files", "classes", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_colors_without_a_class_are_refused(tmp_path, files, classes, given, message):
    root = write_masks(tmp_path / "own", files, classes)
    with pytest.raises(ValueError, match=message) as one:
        MaskFolder(root, label_set=given)
    assert len(str(one.value)) < 2500


def test_a_class_in_no_mask_is_a_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    classes = {"categories": [*NAMES, "white"], "colors": [*COLORS, (255, 255, 255)]}
    MaskFolder(write_masks(tmp_path / "own", masks(), classes))
    assert "1 of 5 classes are in no mask: white" in caplog.text


def test_as_many_colors_are_listed_as_there_may_be_classes(tmp_path):
    stripes = np.arange(150).repeat(4).reshape(20, 30).astype(np.uint8)
    colors = [(number // 2, 2 * number % 256, 7) for number in range(300)]
    files = [colored(stripes, colors[:150]), colored(stripes, colors[150:])]
    root = write_masks(tmp_path / "own", files)
    with pytest.raises(ValueError, match=r"in classes\.json, and 45 more;") as one:
        MaskFolder(root)
    lines = json.loads(re.search(r"(\{.*\}) in classes", str(one.value))[1])
    assert len(lines["colors"]) == len(set(lines["categories"])) == 255


NAMED = {
    "known names": (["sky", "road"], [[70, 130, 180], [128, 64, 128]], None),
    "the other order": (["road", "sky"], [[128, 64, 128], [70, 130, 180]], None),
    "one of them": (
        {"categories": ["void", "road", "grass"], "mask_orientation": "stored"},
        ["colour of void", [128, 64, 128], "colour of grass"],
        "[[0, 0, 0], [70, 130, 180]]",
    ),
}
"""classes.json for masks of black and two of Cityscapes' colours, and what the error says of these.
"""


@pytest.mark.parametrize(("classes", "colors", "left"), NAMED.values(), ids=NAMED)
def test_colors_are_offered_at_the_names_that_have_them(tmp_path, classes, colors, left):
    files = [colored(values % 3, [(128, 64, 128), (0, 0, 0), (70, 130, 180)]) for values in VALUES]
    root = write_masks(tmp_path / "own", files, classes)
    with pytest.raises(ValueError, match="hold colours") as one:
        MaskFolder(root)
    lines = json.loads(re.search(r"(\{.*\}) in classes\.json", str(one.value))[1])
    assert lines["colors"] == colors
    assert left is None or left in str(one.value)
    if left is None:
        assert lines["ignore_colors"] == [[0, 0, 0]]
        (root / "classes.json").write_text(json.dumps(lines))
        assert MaskFolder(root).label_set.categories == tuple(classes)
    else:
        assert {**lines, "colors": 0} == {**classes, "colors": 0}


def test_palettes_of_each_file_s_own_are_offered_as_colors(tmp_path):
    root = write_masks(tmp_path / "own", palettes_in_another_order())
    with pytest.raises(ValueError, match="numbers mean something else in each file") as one:
        MaskFolder(root)
    lines = re.search(r"or give each class its colour, (\{.*\}) in classes", str(one.value))[1]
    (root / "classes.json").write_text(lines)
    assert sorted(MaskFolder(root).label_set.colors) == sorted(COLORS)
