"""Display colours: apart for all kinds of vision, light enough, and near to the data set's."""

import numpy as np
import pytest

from ccnet.classes import ADE20K, CAMVID, CITYSCAPES, VOC, LabelSet
from ccnet.visualization import display_colors, least_differences

FLOORS = [
    (CAMVID, 0.13, 0.09),
    (CITYSCAPES, 0.075, 0.055),
    (VOC, 0.08, 0.055),
    (ADE20K, 0.02, 0.008),
    (LabelSet.numbered(2), 0.3, 0.2),
    (LabelSet.numbered(12), 0.12, 0.08),
    (LabelSet.numbered(40), 0.05, 0.035),
    (LabelSet.numbered(255), 0.005, 0.004),
    (LabelSet(tuple("abcd"), ((9, 9, 9),) * 4), 0.18, 0.12),
    (LabelSet(tuple("abc"), ((255, 255, 255), (250, 255, 255), (0, 0, 0))), 0.15, 0.12),
    (LabelSet(tuple("ab"), ((255, 0, 0), (0, 255, 0))), 0.25, 0.12),
]
"""Label sets, and the least difference in normal vision and in each of the others."""


@pytest.mark.parametrize(
    ("label_set", "normal", "other"), FLOORS, ids=[str(len(row[0])) for row in FLOORS]
)
def test_colors_can_be_told_apart(label_set, normal, other):
    colors = display_colors(label_set)
    assert len(set(colors)) == len(label_set)
    differences = least_differences(colors)
    assert list(differences) == ["normal", "protanopia", "deuteranopia", "tritanopia"]
    assert differences.pop("normal") >= normal
    assert min(differences.values()) >= other


def test_what_is_measured():
    one = least_differences([(255, 0, 0), (0, 255, 0)])
    assert one["normal"] == pytest.approx(0.5196, abs=1e-3)
    pairs = {
        "protanopia": ((200, 30, 30), (88, 88, 30)),
        "deuteranopia": ((190, 120, 60), (120, 155, 60)),
        "tritanopia": ((70, 160, 160), (70, 152, 205)),
    }
    for vision, pair in pairs.items():
        found = least_differences(pair)
        assert min(found, key=found.get) == vision
        assert found[vision] < found["normal"] / 2
    assert least_differences([(1, 2, 3)])["normal"] == np.inf


@pytest.mark.parametrize("label_set", [CAMVID, CITYSCAPES, ADE20K], ids=["11", "19", "150"])
def test_no_color_is_dark_white_or_grey(label_set):
    colors = np.array(display_colors(label_set))
    luminance = colors @ [0.2126, 0.7152, 0.0722]
    assert luminance.min() > 20
    assert luminance.max() < 245
    assert (colors.max(axis=1) - colors.min(axis=1)).min() > 25


def test_distinct_colors_stay_and_black_is_nothing():
    good = LabelSet(("a", "b", "c"), ((230, 60, 60), (60, 120, 250), (250, 220, 60)))
    assert display_colors(good) == good.colors
    assert display_colors(VOC)[0] == (0, 0, 0)
    assert (0, 0, 0) not in display_colors(VOC)[1:]
    assert display_colors(LabelSet(("only",), ((0, 0, 0),))) == ((0, 0, 0),)
    hues = dict(zip(CITYSCAPES.categories, display_colors(CITYSCAPES), strict=True))
    assert max(range(3), key=hues["vegetation"].__getitem__) == 1
    assert max(range(3), key=hues["person"].__getitem__) == 0
    assert max(range(3), key=hues["car"].__getitem__) == 2


@pytest.mark.parametrize("color", [(255, 0, 0), (128, 128, 128)])
def test_equal_colors_become_different_ones(color):
    label_set = LabelSet(tuple(map(str, range(255))), (color,) * 255)
    assert len(set(display_colors(label_set))) == 255
