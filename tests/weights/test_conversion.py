"""Checkpoints of other code bases compute here what they computed at home."""

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
from ccnet.model import CCNet
from ccnet.weights.conversion import convert, convert_backbone
from ccnet.weights.serialization import load_strictly

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


def random_input(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)


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


@pytest.fixture
def save(tmp_path):
    def save(content, name="foreign.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def small_state(family, num_classes=19):
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
    (record,) = caplog.records
    assert record.getMessage() == f"{path} is a checkpoint of {NAMES[family]}"
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


def renamed_tensors():
    """Some names of each family, and this project's: a second opinion on the conversion."""
    for family, theirs in DEFINITIONS.items():
        downsample = "layer2.0.downsample.0.weight"
        for name, ours in {
            f"{theirs.stem[0][2]}.weight": "backbone.stem.1.weight",
            f"{theirs.stem[1][2]}.running_mean": "backbone.stem.4.running_mean",
            f"{theirs.backbone}{downsample}": f"backbone.{downsample}",
            f"{theirs.conva[1]}.bias": "head.conva.1.bias",
            theirs.gamma: "head.cca.gamma",
            f"{theirs.cca}.value_conv.bias": "head.cca.value_conv.bias",
            f"{theirs.aux[1]}.weight": "aux_head.conv.1.weight",
            f"{theirs.aux[1]}.running_mean": "aux_head.conv.1.running_mean",
            f"{theirs.aux_classifier}.bias": "aux_head.classifier.bias",
        }.items():
            yield family, name, ours


@pytest.fixture(scope="module")
def states():
    torch.manual_seed(2)
    return {family: small_state(family) for family in DEFINITIONS}


@pytest.mark.parametrize(("family", "theirs", "ours"), list(renamed_tensors()))
@pytest.mark.parametrize("damage", ["missing", "misshapen"])
def test_missing_or_misshapen_tensor_is_named(states, family, theirs, ours, damage):
    state = {**states[family], theirs: torch.ones(7, 2)}
    if damage == "missing":
        del state[theirs]
    with pytest.raises(ValueError, match=rf"{ours}\b"):
        CCNet.from_weights(convert(state))


@pytest.mark.parametrize("family", DEFINITIONS)
@pytest.mark.parametrize("name", ["fc.weight", "layer1.9.conv1.weight", "head.extra.bias"])
def test_unexpected_tensor_is_named(states, family, name):
    state = {**states[family], name: torch.ones(3)}
    with pytest.raises(ValueError, match=rf"unexpected .*{name.rsplit('.', 1)[1]} \(3,\)"):
        CCNet.from_weights(convert(state))


@pytest.mark.parametrize("name", ["module.conv1.weight", "backbone.stem.0.weight", "dsn.4.bias"])
def test_two_tensors_for_one_parameter_are_an_error(states, name):
    state = {name: torch.ones(3), **states["authors"]}
    with pytest.raises(ValueError, match=name.rsplit(".", 2)[-2]):
        CCNet.from_weights(convert(state))


def test_checkpoint_of_another_depth_is_refused(states):
    with pytest.raises(ValueError, match="holds weights for resnet18, not for resnet50"):
        ccnet.ccnet_resnet50(weights=convert(states["pure"]))
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
        {"model": {}, "config": {}, "details": [1]},
    ],
)
def test_unknown_checkpoint_is_refused(content, save):
    path = save(content)
    message = r"known|state dict|has no backbone|holds weights for None|details .* a list"
    with pytest.raises(ValueError, match=message):
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
    pure = (convert(states["pure"]).state_dict, states["pure"])
    assert torch.equal(*(state["head.conva.1.weight"] for state in pure))


def test_conversion_leaves_the_checkpoint_as_it_was(states):
    for family, state in states.items():
        before = {name: value.clone() for name, value in state.items()}
        convert(state)
        assert state.keys() == before.keys(), family
        assert all(torch.equal(value, before[name]) for name, value in state.items())


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


def test_deep_stem_agrees_with_timm_at_every_stage():
    timm = pytest.importorskip("timm")
    theirs = randomised(timm.create_model("resnet101s", pretrained=False))
    ours = Backbone("resnet101", stem_widths=(64, 64, 128), output_stride=32, ceil_mode=False)
    load_strictly(ours, convert_backbone(theirs.state_dict()))
    ours, theirs = ours.eval().double(), theirs.double()
    x = one = random_input((64, 96))
    with torch.no_grad():
        x, one = ours.stem(x), theirs.maxpool(theirs.act1(theirs.bn1(theirs.conv1(one))))
        assert difference(x, one) < 1e-5
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x, one = getattr(ours, stage)(x), getattr(theirs, stage)(one)
            assert x.shape == one.shape
            assert difference(x, one) < 1e-5, stage
    assert x.shape == (1, 2048, 2, 3)
    assert x.std() > 1e-3


def test_plain_stem_agrees_with_torchvision():
    from torchvision.models import resnet18

    theirs = randomised(resnet18())
    ours = Backbone("resnet18", output_stride=32, ceil_mode=False)
    load_strictly(ours, convert_backbone(theirs.state_dict()))
    x = torch.randn(1, 3, 64, 96)
    features = torch.nn.Sequential(*list(theirs.children())[:-2])
    with torch.no_grad():
        assert difference(ours.eval()(x)[1], features(x)) < 1e-5
