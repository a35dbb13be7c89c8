"""The result as a value: shown, compared, hashed, copied, pickled and as JSON."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from ccnet.classes import LabelSet
from ccnet.inference import Segmentation

LABEL_SET = LabelSet(
    ("road", "sky", "car", "person", "tree"),
    ((128, 64, 128), (70, 130, 180), (0, 0, 142), (220, 20, 60), (1, 2, 3)),
)


@pytest.fixture
def result():
    labels = torch.zeros(4, 10, dtype=torch.uint8)
    labels[0] = 1
    labels[1, :5] = 3
    labels[2, 0] = 4
    image = torch.arange(120, dtype=torch.uint8).reshape(3, 4, 10)
    return Segmentation(labels, LABEL_SET, image, torch.full((5, 4, 10), 0.2))


def test_shown_in_one_line(result):
    text = "Segmentation(10 x 4 pixels, 4 of 5 classes: road 60.0%, sky 25.0%, person 12.5%, ...)"
    assert repr(result) == str(result) == text
    result.labels[:] = 2
    assert repr(result) == "Segmentation(10 x 4 pixels, 1 of 5 classes: car 100.0%)"
    result.labels[:] = 255  # no class: those to be ignored in training, for example
    assert repr(result) == "Segmentation(10 x 4 pixels, 0 of 5 classes: none)"
    long = replace(result, label_set=LabelSet.from_config({"categories": ["x" * 500]}))
    long.labels[:] = 0
    assert len(repr(long)) < 120


def test_as_json(result):
    described = json.loads(json.dumps(result.to_dict()))
    assert described == result.to_dict()
    assert (described["width"], described["height"]) == (10, 4)
    assert described["classes"]["road"] == {
        "label": 0,
        "pixels": 24,
        "share": 0.6,
        "color": [128, 64, 128],
    }
    assert {name: one["share"] for name, one in described["classes"].items()} == result.shares()
    assert list(described["classes"]) == ["road", "sky", "person", "tree"], "the largest first"
    result.labels[3] = 255
    assert result.to_dict()["classes"]["road"]["pixels"] == 14
    assert result.shares()["road"] == pytest.approx(14 / 40)


OTHERS = {
    "labels": lambda one: replace(one, labels=1 - one.labels.clamp(max=1)),
    "size": lambda one: replace(one, labels=one.labels[:3]),
    "dtype": lambda one: replace(one, labels=one.labels.long()),
    "no labels": lambda one: replace(one, labels=None),
    "classes": lambda one: replace(one, label_set=LabelSet.numbered(5)),
    "image": lambda one: replace(one, image=one.image.flip(-1)),
    "probabilities": lambda one: replace(one, probabilities=one.probabilities / 2),
    "no probabilities": lambda one: replace(one, probabilities=None),
    "something else": lambda one: "a result",
    "nothing": lambda one: None,
    "its labels": lambda one: one.labels,
    "a tuple": lambda one: (one.labels, one.label_set, one.image, one.probabilities),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_equal_if_all_fields_are(result, make):
    twin = Segmentation(
        result.labels.clone(), LABEL_SET, result.image.clone(), result.probabilities.clone()
    )
    assert (result == twin) is True
    assert (result != twin) is False
    assert hash(result) == hash(twin)
    assert len({result, twin}) == 1
    assert twin in [make(result), result]
    for one, other in ((result, make(result)), (make(result), result)):
        assert (one == other) is False
        assert (one != other) is True


def test_hash_stays_when_labels_are_changed(result):
    known = {result: "known"}
    result.labels[:] = 2
    assert known[result] == "known"


@pytest.mark.parametrize(
    "make", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_copies_are_equal(result, make):
    again = make(result)
    assert again == result
    assert again is not result
    assert again.shares() == result.shares()
    assert (again.labels is result.labels) == (make is copy.copy)
    with pytest.raises(FrozenInstanceError):
        again.labels = None
