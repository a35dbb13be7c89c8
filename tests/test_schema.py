"""Configurations: every argument has its type and range, wherever a network is made."""

import dataclasses
import json
import re
import time

import pytest
import torch
from safetensors.torch import save_file

import ccnet
from ccnet.model import CCNet
from ccnet.weights import read_weights, write_weights

NAN, INFINITY = float("nan"), float("inf")

RIGHT = [
    {"recurrence": 0, "dropout": 0, "aux_channels": 0},
    {"recurrence": 3, "dropout": 1, "negative_slope": 1},
    {"align_corners": False, "aux_channels": None},
    {"backbone_options": None, "preprocessing": None},
    {"backbone_options": {"stem_widths": (8, 16), "ceil_mode": False, "contract_dilation": True}},
    {"backbone_options": {"stem_widths": None, "output_stride": 16, "negative_slope": 0.01}},
    {"preprocessing": {"mean": (0, 0, 0), "std": [1, 1.0, 255], "channel_order": "BGR"}},
]


def wrong(name, expected, *values):
    return [(name, value, expected) for value in values]


WRONG = [
    *wrong("backbone", "one of 'resnet18', .*", "resnet34", 18, None, ["resnet18"]),
    *wrong("num_classes", "an integer in 1..255", 0, 256, -1, 2.0, "5", None, True, 10**9),
    *wrong("recurrence", "an integer in 0..100", -1, 1.5, 2.0, True, "2", None, 10**9, NAN),
    *wrong("aux_channels", "None or an integer in 0..8192", -1, 2.0, "8", False, 10**9),
    *wrong("dropout", "a number in 0..1", -0.1, 1.5, NAN, INFINITY, "x", None, True, [0.1]),
    *wrong("negative_slope", "a number in 0..1", -0.1, 2, NAN, INFINITY, "x", None, True),
    *wrong("align_corners", "True or False", "no", 0, 1, None, []),
    *wrong("backbone_options", "None or a mapping from names", "x", 3, [1]),
    *wrong("preprocessing", "a mapping from names", "x", 3, [1]),
    *wrong("backbone_options.ceil_mode", "True or False", "x", 1, None),
    *wrong("backbone_options.contract_dilation", "True or False", "no", 0, None),
    *wrong("backbone_options.output_stride", "one of 8, 16, 32", 4, 8.0, "8", True, None),
    *wrong("backbone_options.negative_slope", "a number in 0..1", -1, NAN, "x", None),
    *wrong(
        "backbone_options.stem_widths",
        "None or a list of 0..10, each an integer in 1..4096",
        *([0], [64, -1], [64, 10**9], [2.5], ["64"], [True], 64, "64", [1] * 20_000),
    ),
    *wrong(
        "preprocessing.mean",
        r"a list of 1\.\.256, each a number in -1e\+06..1e\+06",
        *([], [1] * 257, [1, 2, NAN], [1, 2, INFINITY], [1, 2, "3"], [1, 2, None], 1, "123"),
    ),
    *wrong(
        "preprocessing.std",
        r"a list of 1\.\.256, each a number in 1e-06..1e\+06",
        *([1, 1, 0], [1, 1, -1], [1, 1, NAN], [1, 1, 1e-300], [1, 1, 1e300], [1, 1, True]),
    ),
    *wrong("preprocessing.channel_order", "one of 'RGB', 'BGR'", "GBR", "rgb", 0, None, ["RGB"]),
]


def nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize("arguments", RIGHT, ids=str)
def test_right_configurations_survive_json(arguments):
    with torch.device("meta"):
        model = CCNet("resnet18", 5, **arguments)
        assert CCNet(**json.loads(json.dumps(model.config))).config == model.config


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_wrong_values_are_named(name, value, expected):
    message = rf"^{name.split('.')[-1]} must be {expected}, not {re.escape(repr(value)[:20])}"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        CCNet(**{"backbone": "resnet18", **nested(name, value)})


@pytest.fixture(scope="module")
def weights(weights_file):
    return read_weights(weights_file)


@pytest.mark.parametrize(("name", "value", "expected"), WRONG[4 :: len(WRONG) // 12])
def test_wrong_values_in_files_are_named(weights, tmp_path, name, value, expected):
    path = tmp_path / "changed.safetensors"
    config = {**weights.config, **nested(name, value)}
    write_weights(path, dataclasses.replace(weights, config=config))
    message = rf"^the configuration of \S+changed\.safetensors .*{name.split('.')[-1]} must be "
    with pytest.raises(ValueError, match=message + expected):
        ccnet.ccnet_resnet18(weights=path)


def test_absurd_sizes_are_refused_at_once(tmp_path):
    options = {"stem_widths": [10**9, *range(1, 20_000)]}
    config = {"backbone": "resnet18", "num_classes": 5, "recurrence": 2}
    header = json.dumps({**config, "backbone_options": options})
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"config": header})
    started = time.perf_counter()
    with pytest.raises(ValueError, match="stem_widths must be") as raised:
        ccnet.ccnet_resnet18(weights=tmp_path / "a.safetensors")
    assert time.perf_counter() - started < 5
    assert len(str(raised.value)) < 400
