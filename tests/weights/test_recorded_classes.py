"""Classes that OpenMMLab's checkpoints record: used wherever they stand, and never replaced."""

import pytest
from families import OPENMMLAB, random_state

from ccnet.weights.conversion import convert

NAMES = [f"kind {index}" for index in range(19)]
PALETTE = [[index, 10, 20] for index in range(19)]
IN_CONFIG = "data = dict(train=dict(type='RepeatDataset', dataset=dict(classes={})))"
IN_LOADER = "train_dataloader = dict(dataset=dict(metainfo=dict(classes={}, palette={})))"

USED = {
    "mmcv": {"CLASSES": NAMES, "PALETTE": PALETTE},
    "mmengine": {"dataset_meta": {"classes": tuple(NAMES), "palette": PALETTE}},
    "configuration": {"config": IN_CONFIG.format(NAMES)},
    "configuration of mmengine": {"cfg": IN_LOADER.format(NAMES, PALETTE)},
}
NO_PALETTE = {
    "length": PALETTE[:3],
    "no list": "random",
    "grey values": [[1]] * 19,
    "numbers": list(range(19)),
    "fractions": [[0.5, 0, 0]] * 19,
}
NOT_USABLE = {
    "other number": {"CLASSES": ["one", "two"]},
    "one too many": {"dataset_meta": {"classes": [*NAMES, "more"]}},
    "twice": {"CLASSES": [*NAMES[:18], NAMES[0]]},
    "file": {"config": IN_CONFIG.format("'names.txt'")},
    "mappings": {"CLASSES": [{"name": name} for name in NAMES]},
    "number": {"CLASSES": 19},
}


@pytest.fixture(scope="module")
def state():
    return random_state(OPENMMLAB, "resnet18")


@pytest.mark.parametrize("meta", USED.values(), ids=USED)
def test_recorded_names_are_used(meta, state, caplog):
    found = convert({"meta": meta, "state_dict": state})
    labels = found.config["label_set"]
    assert labels["categories"] == NAMES
    assert (labels["colors"] == PALETTE) == (str(PALETTE) in str(meta))
    assert "label_set" not in found.assumed
    assert not caplog.text


@pytest.mark.parametrize("palette", NO_PALETTE.values(), ids=NO_PALETTE)
def test_wrong_palette_leaves_the_names(palette, state, caplog):
    meta = {"dataset_meta": {"classes": NAMES, "palette": palette}}
    labels = convert({"meta": meta, "state_dict": state}).config["label_set"]
    assert labels["categories"] == NAMES
    assert len(set(map(tuple, labels["colors"]))) == 19
    assert "the recorded colors are not used" in caplog.text


@pytest.mark.parametrize("meta", NOT_USABLE.values(), ids=NOT_USABLE)
def test_names_that_cannot_be_used_are_not_replaced_by_other_ones(meta, state, caplog):
    found = convert({"meta": meta, "state_dict": state})
    assert found.config["label_set"]["categories"][0] == "class 0"
    assert found.assumed["label_set"] == "the names of the 19 classes (just numbered)"
    assert "not used" in caplog.text
