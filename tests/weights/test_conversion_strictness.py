"""Conversion is strict: what is missing, unexpected or unknown is named."""

import pytest
import torch
from families import (
    DEFINITIONS,
    small_state,
)

import ccnet
from ccnet.model import CCNet
from ccnet.weights.conversion import convert


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
        {
            "model": {"head.classifier.weight": torch.zeros(1)},
            "config": {"backbone": "resnet18", "num_classes": 1, "recurrence": 0},
            "details": [1],
        },
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
