"""Label sets: consistency, and reconstruction from their configuration."""

import json

import pytest
from torchvision.datasets import Cityscapes

from ccnet.classes import ADE20K, CAMVID, CITYSCAPES, LABEL_SETS, VOC, LabelSet

SHARED_COLORS = {"ade20k": [("road", "skyscraper")]}
"""Classes that their data set shows in one colour."""


@pytest.mark.parametrize("name", LABEL_SETS)
def test_known_label_sets_have_distinct_names_colors_and_ids(name):
    label_set = LabelSet.from_config(name)
    assert label_set is LABEL_SETS[name]
    for values in (label_set.categories, label_set.label_ids):
        assert len(set(values)) == len(values) == len(label_set)
    assert all(category == category.strip() != "" for category in label_set.categories)
    of_color = {}
    for category, color in zip(label_set.categories, label_set.colors, strict=True):
        of_color.setdefault(color, []).append(category)
    shared = [tuple(names) for names in of_color.values() if len(names) > 1]
    assert shared == SHARED_COLORS.get(name, [])
    # black is for pixels without a class, and for the background
    assert of_color.get((0, 0, 0), ["background"]) == ["background"]


def test_camvid_has_the_classes_in_common_use():
    assert len(CAMVID) == 11
    assert CAMVID.categories[0] == "sky"
    assert CAMVID.categories[10] == "bicyclist"


def test_cityscapes_has_the_classes_of_the_benchmark():
    kinds = [kind for kind in Cityscapes.classes if kind.train_id not in (-1, 255)]
    assert list(CITYSCAPES.categories) == [kind.name for kind in kinds]
    assert list(CITYSCAPES.label_ids) == [kind.id for kind in kinds]
    assert list(CITYSCAPES.colors) == [kind.color for kind in kinds]


def test_ade20k_has_the_classes_of_the_benchmark():
    """The first, the last and some others, as the benchmark numbers them from 1."""
    assert len(ADE20K) == 150
    rows = dict(
        zip(
            ADE20K.label_ids,
            zip(ADE20K.categories, ADE20K.colors, strict=True),
            strict=True,
        )
    )
    expected = {
        1: ("wall", (120, 120, 120)),
        3: ("sky", (6, 230, 230)),
        8: ("bed", (204, 5, 255)),
        13: ("person", (150, 5, 61)),
        21: ("car", (0, 102, 200)),
        76: ("swivel chair", (10, 0, 255)),
        117: ("minibike", (163, 0, 255)),
        144: ("monitor", (0, 92, 255)),
        150: ("flag", (92, 0, 255)),
    }
    assert {label_id: rows[label_id] for label_id in expected} == expected
    assert list(rows) == list(range(1, 151))
    assert ADE20K.ignore == (0, 255)


def test_voc_has_the_colors_of_its_label_maps():
    """The bits of a class, from the lowest on, are the high bits of red, green, blue, red, ..."""
    for label, color in enumerate(VOC.colors):
        bits = [label >> bit & 1 for bit in range(6)]
        assert color == tuple(bits[c] * 128 + bits[c + 3] * 64 for c in range(3))
    assert VOC.label_ids == tuple(range(21))
    assert (VOC.categories[0], VOC.categories[15]) == ("background", "person")
    assert list(VOC.categories[1:]) == sorted(VOC.categories[1:])


@pytest.mark.parametrize("name", [*LABEL_SETS, 1, 7, 255])
def test_configuration_survives_json(name):
    label_set = LabelSet.numbered(name) if isinstance(name, int) else LABEL_SETS[name]
    assert LabelSet.from_config(json.loads(json.dumps(label_set.to_config()))) == label_set


def test_ids_that_mean_no_class_are_left_out_of_the_usual_numbers():
    config = {"categories": ["a", "b", "c"], "ignore": [0, 2]}
    label_set = LabelSet.from_config(config)
    assert (label_set.label_ids, label_set.ignore) == ((1, 3, 4), (0, 2))
    assert LabelSet.from_config(json.loads(json.dumps(label_set.to_config()))) == label_set


def test_configurations_without_the_field_are_as_ever():
    """Those of weights that are older than the field."""
    assert "ignore" not in CAMVID.to_config()
    assert CAMVID.ignore == (255,)
    black_and_white = LabelSet.from_config({"categories": ["a", "b"], "label_ids": [0, 255]})
    assert (black_and_white.label_ids, black_and_white.ignore) == ((0, 255), ())
    assert LabelSet.from_config(black_and_white.to_config()) == black_and_white


def test_names_alone_get_distinct_colors():
    label_set = LabelSet.from_config({"categories": [f"thing {index}" for index in range(20)]})
    assert len(set(label_set.colors)) == 20
    assert label_set.label_ids == tuple(range(20))


def test_palette_is_that_of_an_indexed_png():
    palette = CAMVID.palette
    assert len(palette) == 768
    assert tuple(palette[3 * 4 : 3 * 5]) == CAMVID.colors[4]
    assert not any(palette[33:])
    assert len(LabelSet.numbered(255).palette) == 768


@pytest.mark.parametrize("count", [0, -1, 256])
def test_number_of_classes_must_fit_in_8_bits(count):
    with pytest.raises(ValueError, match=rf"1\.\.255, not {count}"):
        LabelSet.numbered(count)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("cityscape", "unknown label set 'cityscape'; available: cityscapes, camvid, ade20k, voc"),
        ({"names": ["a"]}, "names"),
        ({"categories": ["a"], "colour": [[0, 0, 0]]}, "colour"),
        ({"categories": []}, "1 to 255 classes, not 0"),
        ({"categories": ["a", "b"], "colors": [[1, 2, 3]]}, "2 categories need 2 colors"),
        ({"categories": ["a"], "colors": [[1, 2, 256]]}, "256"),
        ({"categories": ["a"], "colors": [[0.5, 0, 0]]}, r"three whole .* not \[0\.5, 0, 0\]"),
        ({"categories": ["a"], "colors": ["#ff0000"]}, "three whole .* not '#ff0000'"),
        ({"categories": ["a"], "colors": [[1, 2]]}, r"three whole .* not \[1, 2\]"),
        ({"categories": ["a"], "colors": 7}, "colors must be a list of colours, not 7"),
        ({"categories": ["a"], "label_ids": None}, "a list of whole numbers, not None"),
        ({"categories": [{"id": 0, "name": "a"}]}, "a text, not {'id': 0, 'name': 'a'}"),
        ({"categories": [["a"], ["b"]]}, r"a text, not \['a'\]"),
        ({"categories": {"a": 0}}, "a list of names, not {'a': 0}"),
        ({"categories": ["a", "b"], "label_ids": [1]}, "2 categories need 2 label_ids"),
        ({"categories": ["a", "b", "a"]}, "class names must be unique, not 'a' twice"),
        ({"categories": "ab"}, "categories must be a list of names, not 'ab'"),
        ({"categories": ["a"], "label_ids": [1.5]}, r"a list of whole numbers, not \[1\.5\]"),
        ({"categories": ["a"], "ignore": 255}, "ignore must be a list of whole numbers, not 255"),
        ({"categories": ["a"], "label_ids": [3], "ignore": [3, 4]}, r"both hold \[3\]"),
    ],
)
def test_invalid_configuration_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        LabelSet.from_config(config)
