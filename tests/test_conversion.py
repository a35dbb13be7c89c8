"""Checkpoints of other code bases compute here what they computed at home."""

import logging
import math
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
    forward,
    mmseg_checkpoint,
    random_state,
)

import ccnet
from ccnet.backbone import Backbone
from ccnet.conversion import convert, convert_backbone, read_pickle
from ccnet.serialization import load_strictly

TOLERANCE = 1e-4
SMALL, EVEN = (33, 49), (64, 96)
"""At the first size the max-pool's rounding does not matter; at the second it does."""

NAMES = {
    "authors": "the authors' CCNet (in-place ABN)",
    "pure": "CCNet-Pure-Pytorch",
    "openmmlab": "OpenMMLab's CCNet",
}


def difference(one, other):
    """The largest difference, relative to the largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


def picture(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)


def logits(model, x):
    """The outputs of both heads, the norms and dropouts in evaluation mode."""
    model = model.eval().double()
    model.training = True
    with torch.no_grad():
        outputs = model(x)
    model.eval()
    return outputs["out"], outputs["aux"]


def wrapped(family, state):
    return mmseg_checkpoint(state, align_corners=True) if family == "openmmlab" else state


@pytest.fixture(scope="module", params=list(DEFINITIONS))
def case(request, tmp_path_factory):
    """A family's name, definition and random state, and the network that its file gives."""
    torch.manual_seed(1)
    definition = DEFINITIONS[request.param]
    state = random_state(definition)
    path = tmp_path_factory.mktemp("foreign") / f"{request.param}.pth"
    torch.save(wrapped(request.param, state), path)
    model = ccnet.ccnet_resnet50(weights=path)
    path.unlink()
    return request.param, definition, state, model


@pytest.mark.parametrize("size", [SMALL, EVEN])
def test_logits_are_those_of_the_familys_own_computation(case, size):
    _, definition, state, model = case
    x = picture(size)
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
def test_another_familys_habits_would_be_seen(definition, mutation):
    state = random_state(definition, "resnet18")
    x = picture(EVEN)
    right = forward(definition, state, x)
    wrong = forward(replace(definition, **mutation), state, x)
    assert difference(wrong[0], right[0]) > 10 * TOLERANCE


def test_the_pools_rounding_does_not_show_at_the_small_size():
    state = random_state(AUTHORS, "resnet18")
    right, wrong = (
        forward(replace(AUTHORS, ceil_mode=ceil_mode), state, picture(SMALL))[0]
        for ceil_mode in (True, False)
    )
    assert torch.equal(right, wrong)


def test_loops_and_the_unbiased_auxiliary_convolution_would_be_seen():
    state = random_state(AUTHORS, "resnet18")
    x = picture(SMALL)
    out, aux = forward(AUTHORS, state, x)
    assert difference(forward(AUTHORS, state, x, recurrence=1)[0], out) > 10 * TOLERANCE
    state["dsn.0.bias"].zero_()
    assert difference(forward(AUTHORS, state, x)[1], aux) > 10 * TOLERANCE


def test_pixels_are_prepared_as_the_family_does(case):
    family, _, _, model = case
    pixels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    image = pixels.permute(1, 2, 0).numpy().astype(np.float64)
    if family == "openmmlab":
        expected = (image - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    else:
        expected = image[:, :, ::-1] - CAFFE_MEAN_BGR
    ours = model.transforms()(pixels)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-4)


def test_the_configuration_is_the_familys(case):
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
def test_interpolation_is_the_recorded_one(align_corners):
    state = random_state(OPENMMLAB, "resnet18")
    converted = convert(mmseg_checkpoint(state, align_corners))
    assert converted.config["align_corners"] is align_corners


@pytest.fixture
def save(tmp_path):
    def save(content, name="foreign.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def stated(family, num_classes=19):
    return random_state(DEFINITIONS[family], "resnet18", num_classes)


WRAPPERS = {
    "bare": lambda state: state,
    "module.": lambda state: {f"module.{name}": value for name, value in state.items()},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "iteration": 3},
    "both": lambda state: {"state_dict": WRAPPERS["module."](state), "epoch": 3},
}


@pytest.mark.parametrize("family", DEFINITIONS)
def test_prefixes_and_wrappers_do_not_matter(family):
    state = stated(family)
    converted = {name: convert(wrap(dict(state))) for name, wrap in WRAPPERS.items()}
    expected = converted.pop("bare")
    for name, other in converted.items():
        assert other.config == expected.config, name
        assert other.source == expected.source
        assert other.state_dict.keys() == expected.state_dict.keys()
        for key, value in expected.state_dict.items():
            assert torch.equal(other.state_dict[key], value), (name, key)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".bin", ""])
@pytest.mark.parametrize("family", ["pure"])
def test_any_name_of_a_file_is_taken(family, suffix, save):
    path = save(WRAPPERS["module."](stated(family)), f"CS_scenes_60000{suffix}")
    assert ccnet.ccnet_resnet18(weights=path).config["aux_channels"] == 512


@pytest.mark.parametrize("family", DEFINITIONS)
def test_the_family_is_named_in_the_log(family, save, caplog):
    path = save(wrapped(family, stated(family)))
    with caplog.at_level(logging.INFO):
        ccnet.ccnet_resnet18(weights=path)
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert NAMES[family] in record.getMessage()


@pytest.mark.parametrize("family", DEFINITIONS)
def test_other_classes_and_loops_can_be_chosen(family, save, caplog):
    state = stated(family, num_classes=7)
    path = save(state)
    model = ccnet.ccnet_resnet18(weights=path, recurrence=1)
    assert model.config["num_classes"] == 7
    x = picture(SMALL)
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


def keys_to_damage():
    for family, definition in DEFINITIONS.items():
        for name in (
            f"{definition.stem[0][2]}.weight",
            f"{definition.stem[1][2]}.running_mean",
            f"{definition.backbone}layer2.0.downsample.0.weight",
            f"{definition.conva[1]}.bias",
            definition.gamma,
            f"{definition.cca}.value_conv.bias",
            f"{definition.aux[1]}.weight",
            f"{definition.aux[1]}.running_mean",
            f"{definition.aux_classifier}.bias",
        ):
            yield family, name


@pytest.fixture(scope="module")
def states():
    torch.manual_seed(2)
    return {family: stated(family) for family in DEFINITIONS}


@pytest.mark.parametrize(("family", "name"), list(keys_to_damage()))
@pytest.mark.parametrize("damage", ["missing", "misshapen"])
def test_a_missing_or_misshapen_key_is_named(states, family, name, damage, monkeypatch):
    state = dict(states[family])
    if damage == "missing":
        del state[name]
    else:
        state[name] = torch.ones(7, 2)
    leaf = name.removesuffix(".scale").rsplit(".", 1)[1]
    monkeypatch.setattr("ccnet.pretrained.read_pickle", lambda path: state)
    with pytest.raises(ValueError, match=rf"{leaf}\b") as caught:
        ccnet.ccnet_resnet18(weights="foreign.pth")
    assert own_name(family, name) in str(caught.value) or name in str(caught.value)


def own_name(family, name):
    """This project's name, written down: a second opinion on the conversion's expressions."""
    definition = DEFINITIONS[family]
    parts = {
        definition.stem[0][2]: "backbone.stem.1",
        definition.stem[1][2]: "backbone.stem.4",
        definition.conva[1]: "head.conva.1",
        definition.cca: "head.cca",
        definition.aux[1]: "aux_head.conv.1",
        definition.aux_classifier: "aux_head.classifier",
    }
    if name == definition.gamma:
        return "head.cca.gamma"
    for theirs, ours in parts.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return f"backbone.{name.removeprefix(definition.backbone)}"


@pytest.mark.parametrize("family", DEFINITIONS)
@pytest.mark.parametrize("name", ["fc.weight", "layer1.9.conv1.weight", "head.extra.bias"])
def test_an_unexpected_key_is_named(states, family, name, monkeypatch):
    state = {**states[family], name: torch.ones(3)}
    monkeypatch.setattr("ccnet.pretrained.read_pickle", lambda path: state)
    with pytest.raises(ValueError, match=rf"unexpected .*{name.rsplit('.', 1)[1]} \(3,\)"):
        ccnet.ccnet_resnet18(weights="foreign.pth")


@pytest.mark.parametrize("name", ["module.conv1.weight", "backbone.stem.0.weight", "dsn.4.bias"])
def test_two_keys_for_one_parameter_are_an_error(states, name, monkeypatch):
    state = {name: torch.ones(3), **states["authors"]}
    monkeypatch.setattr("ccnet.pretrained.read_pickle", lambda path: state)
    with pytest.raises(ValueError, match=name.rsplit(".", 2)[-2]):
        ccnet.ccnet_resnet18(weights="foreign.pth")


def test_a_checkpoint_of_another_depth_is_refused(states, monkeypatch):
    monkeypatch.setattr("ccnet.pretrained.read_pickle", lambda path: states["pure"])
    with pytest.raises(ValueError, match="holds weights for resnet18, not for resnet50"):
        ccnet.ccnet_resnet50(weights="foreign.pth")
    shorter = {key: value for key, value in states["pure"].items() if "layer3.1." not in key}
    with pytest.raises(ValueError, match="1 blocks in its third stage"):
        convert(shorter)


@pytest.mark.parametrize(
    "content",
    [
        {"layer1.0.conv1.weight": torch.zeros(1)},
        {"a": torch.zeros(1), "head.classifier.weight": torch.zeros(1)},
        {},
        {"state_dict": [1, 2]},
        {"state_dict": {"a": "text"}},
        {1: torch.zeros(1)},
        {"model": 3, "config": {}},
        {"model": {}, "config": 3},
    ],
)
def test_what_is_no_known_checkpoint_is_refused(content, save):
    path = save(content)
    with pytest.raises(ValueError, match=r"known|state dict|does not say|holds weights for None"):
        ccnet.ccnet_resnet18(weights=path)


def test_in_place_norms_are_folded_exactly(states):
    theirs = states["authors"]
    ours = convert(theirs).state_dict
    weight = theirs["head.conva.1.weight"]
    assert weight.min() < 0
    assert torch.equal(ours["head.conva.1.weight"], weight.abs() + 1e-5)
    mean = theirs["dsn.1.running_mean"] - theirs["dsn.0.bias"]
    assert torch.equal(ours["aux_head.conv.1.running_mean"], mean)
    assert "aux_head.conv.0.bias" not in ours
    assert torch.equal(
        convert(states["pure"]).state_dict["head.conva.1.weight"],
        states["pure"]["head.conva.1.weight"],
    )


def test_converting_leaves_the_checkpoint_as_it_was(states):
    for family, state in states.items():
        before = {name: value.clone() for name, value in state.items()}
        convert(state)
        assert state.keys() == before.keys(), family
        assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_this_projects_training_checkpoint_is_a_path_too(make_model, save):
    trained = make_model(4, aux_channels=24, align_corners=False)
    checkpoint = {"model": trained.state_dict(), "config": trained.config, "step": 7}
    path = save(checkpoint, "last.pt")
    model = ccnet.ccnet_resnet18(weights=path)
    assert model.config == trained.config
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())


def test_reading_maps_to_the_cpu_and_keeps_values(save):
    content = {"a": torch.randn(3), "meta": {"n": 1}}
    read = read_pickle(save(content))
    assert torch.equal(read["a"], content["a"])
    assert read["meta"] == {"n": 1}


def randomised(module):
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if "running_var" in name:
                value.uniform_(0.5, 1.5)
            elif "running_mean" in name or name.endswith("bias"):
                value.normal_(std=0.2)
            elif value.dim() == 4:
                value.normal_(std=1 / math.sqrt(value[0].numel()))
            elif value.dim() == 1:
                value.uniform_(0.5, 1.5).mul_(torch.randint(0, 2, value.shape) * 2 - 1)
    return module.eval()


def test_timms_deep_stem_resnet_agrees_at_every_stage():
    timm = pytest.importorskip("timm")
    theirs = randomised(timm.create_model("resnet101s", pretrained=False))
    ours = Backbone("resnet101", stem_widths=(64, 64, 128), output_stride=32, ceil_mode=False)
    load_strictly(ours, convert_backbone(theirs.state_dict()))
    ours, theirs = ours.eval().double(), theirs.double()
    x = one = picture((64, 96))
    with torch.no_grad():
        x, one = ours.stem(x), theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(one))))
        assert difference(x, one) < 1e-5
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x, one = getattr(ours, stage)(x), getattr(theirs, stage)(one)
            assert x.shape == one.shape
            assert difference(x, one) < 1e-5, stage
    assert x.shape == (1, 2048, 2, 3)
    assert x.std() > 1e-3


def test_torchvisions_resnet_agrees():
    from torchvision.models import resnet18

    theirs = randomised(resnet18())
    ours = Backbone("resnet18", output_stride=32, ceil_mode=False)
    load_strictly(ours, convert_backbone(theirs.state_dict()))
    x = torch.randn(1, 3, 64, 96)
    features = torch.nn.Sequential(*list(theirs.children())[:-2])
    with torch.no_grad():
        assert difference(ours.eval()(x)[1], features(x)) < 1e-5
