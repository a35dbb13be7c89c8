"""Overlays: classes chosen, outlined, in other colours, and with a legend."""

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.classes import LabelSet
from ccnet.inference import Segmentation
from ccnet.visualization import display_colors, overlay
from ccnet.visualization.legend import Entry, with_legend

ROADS = LabelSet(("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142)))
COLORS = np.array(display_colors(ROADS))
LABELS = torch.tensor(
    [[1, 1, 1, 1, 1], [0, 0, 2, 2, 255], [0, 0, 2, 2, 255], [0, 0, 0, 0, 0]], dtype=torch.uint8
)
GREY = torch.full((3, 4, 5), 100, dtype=torch.uint8)
SHARES = [("road", 0.45), ("sky", 0.25), ("car", 0.2)]

CHOICES = [
    (None, {0, 1, 2}),
    (["car"], {2}),
    (("sky", 2), {1, 2}),
    (np.array([0, 1]), {0, 1}),
    (torch.tensor([0, 2], dtype=torch.uint8), {0, 2}),
    (torch.tensor(2), {2}),
    (np.array(1), {1}),
    ([torch.tensor(1), np.int64(2)], {1, 2}),
    ("road", {0}),
    (1, {1}),
    (iter(["road"]), {0}),
    ([], set()),
]


def drawn(**options):
    return np.array(overlay(GREY, LABELS, ROADS, **options)).astype(int)


@pytest.mark.parametrize(("classes", "labels"), CHOICES, ids=range(len(CHOICES)))
def test_only_the_chosen_classes_are_drawn(classes, labels):
    found = drawn(classes=classes)
    for at in np.ndindex(4, 5):
        label = int(LABELS[at])
        expected = (100 + COLORS[label]) / 2 if label in labels else 100
        assert np.abs(found[at] - expected).max() <= 1


REFUSED = [
    ({"classes": ["raod"]}, "no class 'raod': did you mean 'road'"),
    ({"classes": ["tree"]}, r"no class 'tree': Give names, or labels in 0\.\.2"),
    ({"classes": "Car"}, "no class 'Car': did you mean 'car'"),
    ({"classes": [3]}, "no class 3:"),
    ({"classes": [-1]}, "no class -1:"),
    ({"classes": [True]}, "no class True:"),
    ({"classes": 1.0}, "no class 1.0:"),
    ({"classes": torch.tensor([True, False])}, "no class True:"),
    ({"classes": np.array([0.5])}, "no class 0.5:"),
    ({"classes": [None]}, "no class None:"),
    ({"legend": 1}, "legend must be True or False, not 1"),
    ({"outlines": "yes"}, "outlines must be True or False, not 'yes'"),
    ({"colors": [(0, 0, 0)]}, "3 classes need as many colors, not 1"),
    ({"colors": [(0, 0, 256)] * 3}, r"three whole numbers in 0\.\.255"),
    ({"colors": "red"}, "colors must be a list of colours, not 'red'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[str(row[0]) for row in REFUSED])
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        overlay(GREY, LABELS, ROADS, **options)


def test_outlines_are_where_classes_meet():
    found = drawn(outlines=True, opacity=0)
    bare = {(2, 0), (3, 0), (3, 1), (1, 4), (2, 4)}  # in the midst of road, or ignored
    for at in np.ndindex(4, 5):
        expected = np.full(3, 100) if at in bare else COLORS[int(LABELS[at])]
        assert np.array_equal(found[at], expected), at
    only_cars = drawn(outlines=True, opacity=0, classes=["car"])
    assert (only_cars != 100).any(axis=-1).sum() == 4
    large = torch.zeros(720, 800, dtype=torch.uint8)
    large[:, 400:] = 2
    image = torch.full((1, 720, 800), 100, dtype=torch.uint8)
    wide = np.array(overlay(image, large, ROADS, 0, outlines=True))
    columns = (wide != 100).any(axis=(0, 2)).nonzero()[0]
    assert columns.tolist() == [398, 399, 400, 401]


def test_colors_of_the_label_files_on_request():
    found = drawn(opacity=1, colors=ROADS.colors)
    assert tuple(found[3, 0]) == (128, 64, 128)
    assert tuple(found[1, 4]) == (100, 100, 100)


def rows_of(legend):
    """The colours of the swatches, by what they look like: runs in a column of pixels."""
    column = [tuple(map(int, pixel)) for pixel in legend[:, 10]]
    return [
        one
        for one, before in zip(column, [None, *column], strict=False)
        if one != before and one in set(map(tuple, COLORS.tolist()))
    ]


def test_legend_shows_the_classes_the_largest_first():
    result = Segmentation(LABELS, ROADS, GREY)
    plain = np.array(result.overlay())
    found = np.array(result.overlay(legend=True))
    assert np.array_equal(found[:4, :5], plain)
    assert (found[:4, 5:] == 255).all()
    assert rows_of(found[4:]) == [tuple(COLORS[label].tolist()) for label in (0, 1, 2)]
    chosen = np.array(result.overlay(legend=True, classes=["car", "road"]))
    assert rows_of(chosen[4:]) == [tuple(COLORS[label].tolist()) for label in (0, 2)]
    assert result.overlay(legend=True, classes=[]).size == (5, 4)


def test_legend_is_text_in_columns_that_can_be_read():
    picture = Image.new("RGB", (600, 400), "red")
    entries = [Entry(k, f"class number {k}", (0, 0, 255), 0.1) for k in range(10)]
    found = with_legend(picture, entries)
    assert found.width == 600
    assert found.height < 520  # ten rows of it would take more
    lines = np.array(found)[400:]
    darkness = (lines.max(axis=-1) < 60).sum()
    assert darkness > 1000
    whole = with_legend(picture, [Entry(0, "M" * 500, (0, 0, 255), 1.0)])
    assert whole.width < 1000
    assert with_legend(picture, []).size == picture.size


NAMES = ["Fußgänger", "дорога", "道路", "\U0001f697"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_font_has_is_a_number(name, monkeypatch):
    monkeypatch.setattr("ccnet.visualization.legend.OTHER_FONTS", ("nowhere.ttf",))
    picture = Image.new("RGB", (300, 100))
    found = with_legend(picture, [Entry(7, name, (0, 0, 255), 0.25)])
    assert found == with_legend(picture, [Entry(7, "class 7", (0, 0, 255), 0.25)])
    assert found != with_legend(picture, [Entry(7, "class 8", (0, 0, 255), 0.25)])


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0 %"), (0.4125, "41.2 %"), (0.0005, "0.1 %"), (1e-6, "< 0.1 %")]
)
def test_share_in_words(share, text):
    assert Entry(0, "road", (0, 0, 0), share).percentage == text
