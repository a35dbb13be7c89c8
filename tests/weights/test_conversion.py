"""Checkpoints of other code bases compute here what they computed at home."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from families import (
    AUTHORS,
    CAFFE_MEAN_BGR,
    DEFINITIONS,
    OPENMMLAB,
    PURE_PYTORCH,
    difference,
    forward,
    mmseg_checkpoint,
    random_input,
    random_state,
    small_state,
)

import ccnet
from ccnet.weights.conversion import convert

TOLERANCE = 1e-4
SMALL, EVEN = (33, 49), (64, 96)
"""At the first size the max-pool's rounding does not matter; at the second it does."""

NAMES = {
    "authors": "the authors' CCNet (in-place ABN)",
    "pure": "CCNet-Pure-Pytorch",
    "openmmlab": "OpenMMLab's CCNet",
}


def logits(model, x):
    """The outputs of both heads, the norms and dropouts in evaluation mode."""
    model = model.eval().double()
    model.training = True
    with torch.no_grad():
        outputs = model(x)
    model.eval()
    return outputs["out"], outputs["aux"]


@pytest.fixture(scope="module", params=list(DEFINITIONS))
def case(request, tmp_path_factory):
    """A family's name, definition and random state, and the network that its file gives."""
    torch.manual_seed(1)
    definition = DEFINITIONS[request.param]
    state = random_state(definition)
    path = tmp_path_factory.mktemp("foreign") / f"{request.param}.pth"
    is_wrapped = request.param == "openmmlab"
    torch.save(mmseg_checkpoint(state, align_corners=True) if is_wrapped else state, path)
    model = ccnet.ccnet_resnet50(weights=path)
    path.unlink()
    return request.param, definition, state, model


@pytest.mark.parametrize("size", [SMALL, EVEN])
def test_logits_are_those_of_the_original_computation(case, size):
    _, definition, state, model = case
    x = random_input(size)
    for ours, theirs in zip(logits(model, x), forward(definition, state, x), strict=True):
        assert ours.shape == (1, 19, *size)
        assert difference(ours, theirs) < TOLERANCE


@pytest.mark.parametrize(
    ("definition", "mutation"),
    [
        (AUTHORS, {"in_place_norm": False}),
        (AUTHORS, {"slope": 0.0}),
        (AUTHORS, {"contracted": True}),
        (AUTHORS, {"ceil_mode": False}),
        (AUTHORS, {"align_corners": False}),
        (PURE_PYTORCH, {"in_place_norm": True}),
        (PURE_PYTORCH, {"slope": 0.01}),
        (OPENMMLAB, {"contracted": False}),
        (OPENMMLAB, {"ceil_mode": True}),
        (OPENMMLAB, {"slope": 0.01}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_difference_between_families_shows_in_the_logits(definition, mutation):
    state = random_state(definition, "resnet18")
    x = random_input(EVEN)
    right = forward(definition, state, x)
    wrong = forward(replace(definition, **mutation), state, x)
    assert difference(wrong[0], right[0]) > 10 * TOLERANCE


def test_recurrence_and_auxiliary_bias_show_in_the_logits():
    state = random_state(AUTHORS, "resnet18")
    x = random_input(SMALL)
    out, aux = forward(AUTHORS, state, x)
    assert difference(forward(AUTHORS, state, x, recurrence=1)[0], out) > 10 * TOLERANCE
    state["dsn.0.bias"].zero_()
    assert difference(forward(AUTHORS, state, x)[1], aux) > 10 * TOLERANCE


def test_preprocessing_is_the_familys(case):
    family, _, _, model = case
    pixels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    image = pixels.permute(1, 2, 0).numpy().astype(np.float64)
    if family == "openmmlab":
        expected = (image - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    else:
        expected = image[:, :, ::-1] - CAFFE_MEAN_BGR
    ours = model.transforms()(pixels)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


def test_configuration_is_the_familys(case):
    family, definition, _, model = case
    config = model.config
    assert config["recurrence"] == 2
    assert config["num_classes"] == 19
    assert config["label_set"]["categories"][0] == "road"
    assert config["aux_channels"] == definition.aux_width
    assert config["align_corners"] is True
    assert (config["negative_slope"] > 0) == (family == "authors")
    assert not model.training


@pytest.mark.parametrize("align_corners", [True, False])
def test_recorded_interpolation_is_kept(align_corners):
    state = random_state(OPENMMLAB, "resnet18")
    converted = convert(mmseg_checkpoint(state, align_corners))
    assert converted.config["align_corners"] is align_corners


WRAPPERS = {
    "bare": lambda state: state,
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "iteration": 3},
    "both": lambda state: {"state_dict": WRAPPERS["module."](state), "epoch": 3},
}


@pytest.mark.parametrize("family", DEFINITIONS)
def test_prefixes_and_wrappers_do_not_matter(family):
    state = small_state(family)
    converted = {name: convert(wrap(dict(state))) for name, wrap in WRAPPERS.items()}
    expected = converted.pop("bare")
    for name, other in converted.items():
        assert other.config == expected.config, name
        assert other.source == expected.source
        assert other.state_dict.keys() == expected.state_dict.keys()
        for key, value in expected.state_dict.items():
            assert torch.equal(other.state_dict[key], value), (name, key)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".bin", ""])
def test_any_file_name_is_taken(suffix, save):
    path = save(WRAPPERS["module."](small_state("pure")), f"CS_scenes_60000{suffix}")
    assert ccnet.ccnet_resnet18(weights=path).config["aux_channels"] == 512


@pytest.mark.parametrize("family", DEFINITIONS)
def test_classes_and_recurrence_can_be_chosen(family, save, caplog):
    state = small_state(family, num_classes=7)
    path = save(state)
    model = ccnet.ccnet_resnet18(weights=path, recurrence=1)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == f"{path} is a checkpoint of {NAMES[family]}"
    assert "the names of the 7 classes (just numbered)" in second
    assert "recurrence=" not in second
    assert ("align_corners=False" in second) == (family == "openmmlab")
    assert model.config["num_classes"] == 7
    x = random_input(SMALL)
    definition = replace(DEFINITIONS[family], align_corners=family != "openmmlab")
    theirs = forward(definition, state, x, recurrence=1)
    for ours, expected in zip(logits(model, x), theirs, strict=True):
        assert difference(ours, expected) < TOLERANCE
    fresh = ccnet.ccnet_resnet18(weights=path, num_classes=4).double()
    assert "head.classifier" in caplog.text
    assert fresh(x)["out"].shape[1] == 4
    with torch.no_grad():
        stages = [network.backbone(x)[1] for network in (fresh, model)]
    assert torch.equal(*stages)


@pytest.mark.parametrize("norm", ["batch", "inplace"])
def test_training_checkpoint_of_this_project_is_taken(make_model, save, norm):
    trained = make_model(4, aux_channels=24, align_corners=False)
    trained.head.conva[1].weight.data.neg_()
    expected = trained.state_dict()
    recipe = {"norm": norm}
    path = save({"model": expected, "config": trained.config, "step": 7, "recipe": recipe})
    model = ccnet.ccnet_resnet18(weights=path)
    assert model.config == trained.config
    if norm == "inplace":
        for name in [name for name in expected if name.endswith("running_mean")]:
            weight = name.replace("running_mean", "weight")
            expected[weight] = expected[weight].abs() + 1e-5
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)


def test_option_that_is_not_recorded_states_how_the_weights_were_trained(save):
    state = random_state(OPENMMLAB, "resnet18")
    meta = {"cfg": "model = dict(test_cfg=dict(mode='whole'))"}
    path = save({"meta": meta, "state_dict": state})
    model = ccnet.ccnet_resnet18(weights=path, backbone_options={"output_stride": 16})
    assert model.config["backbone_options"]["output_stride"] == 16
    assert model.card_details["protocol"]["mode"] == "whole"
