"""The size that weights learnt at: kept wherever weights are, and known of registered ones."""

import json

import pytest
import torch
from small_runs import small_backbones, small_model

import ccnet
from ccnet.norm import convert_inplace_abn
from ccnet.weights import REGISTRY, ModelWeights, read_weights, write_weights
from ccnet.weights.conversion import convert
from ccnet.weights.sources import load_weights

SIZE = [48, 80]


def folder(model, path):
    model.save_pretrained(path / "saved")
    return ccnet.CCNet.from_pretrained(path / "saved")


def file(model, path):
    write_weights(path / "a.safetensors", model.to_weights())
    return ccnet.ccnet_resnet18(weights=path / "a.safetensors")


def checkpoint(model, path):
    """What training saves."""
    content = {"model": model.state_dict(), "config": model.config, "details": {}, "recipe": {}}
    torch.save(content, path / "a.pt")
    return ccnet.ccnet_resnet18(weights=path / "a.pt")


def in_place(model, path):
    return ccnet.CCNet.from_weights(convert_inplace_abn(model).to_weights())


WAYS = (folder, file, checkpoint, in_place)


@pytest.mark.parametrize("keep", WAYS)
def test_it_is_kept(make_model, tmp_path, keep):
    options = {"negative_slope": 0.01, "backbone_options": {"negative_slope": 0.01}}
    model = make_model(training_size=SIZE, **options)
    kept = keep(model, tmp_path)
    assert kept.training_size == tuple(SIZE)
    assert kept.config == model.config


def test_the_card_says_it(make_model, tmp_path):
    make_model(training_size=SIZE).save_pretrained(tmp_path)
    assert "| learnt at | 80 x 48 pixels, " in (tmp_path / "README.md").read_text()
    assert "learnt at" not in str(make_model().generate_model_card())


def box_of(member):
    """The sides that the published figure's protocol shows images at."""
    return sorted(member.meta["protocol"].box or (2048, 1024))


@pytest.mark.parametrize("backbone", REGISTRY)
def test_all_registered_weights_have_one(backbone):
    for member in REGISTRY[backbone]:
        size = member.meta["config"]["training_size"]
        assert size == ([540, 720] if backbone == "resnet18" else box_of(member)), member


def older(weights):
    """As a version saved them that knew nothing of it."""
    config = {name: value for name, value in weights.config.items() if name != "training_size"}
    return ModelWeights(weights.state_dict, config, weights.details)


def test_files_of_earlier_versions_have_that_of_the_registry(tmp_path):
    bundled = ccnet.ccnet_resnet18(weights="DEFAULT")
    assert bundled.training_size == (540, 720)
    path = tmp_path / "older.safetensors"
    write_weights(path, older(bundled.to_weights()))
    assert "training_size" not in read_weights(path).config, "too easy"
    assert load_weights(path, "resnet18").config["training_size"] == [540, 720]
    bundled.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config.pop("training_size") == [540, 720]
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    assert ccnet.CCNet.from_pretrained(tmp_path / "saved").training_size == (540, 720)


def test_of_no_size_none_is_made(tmp_path):
    """Neither of one that was given up, nor of fine-tuned weights."""
    network = ccnet.ccnet_resnet18(weights="DEFAULT", training_size=None)
    assert network.training_size is None
    assert network.card_details["weights"] == "CCNet_ResNet18_Weights.CAMVID"
    network.save_pretrained(tmp_path)
    assert ccnet.CCNet.from_pretrained(tmp_path).training_size is None
    weights = older(ccnet.ccnet_resnet18(weights="DEFAULT", num_classes=3).to_weights())
    assert weights.details["weights"].startswith("derived from CCNet_ResNet18_Weights.CAMVID")
    assert load_weights(weights, "resnet18").config.get("training_size") is None
    assert convert(network.state_dict()).config.get("training_size") is None


CHANGES = [
    ({}, SIZE),
    ({"aux_channels": 16}, SIZE),
    ({"dropout": 0.5}, SIZE),
    ({"backbone_options": {"output_stride": 16}}, SIZE),
    ({"categories": ["a", "b"]}, None),
    ({"label_set": {"categories": list("abcdefghijk")}}, None),
    ({"categories": ["a", "b"], "training_size": [20, 30]}, [20, 30]),
    ({"training_size": [20, 30]}, [20, 30]),
    ({"training_size": None}, None),
]


@pytest.mark.parametrize(("changes", "size"), CHANGES, ids=str)
def test_networks_of_other_classes_are_yet_to_learn_at_some_size(changes, size):
    weights = small_model(training_size=SIZE).to_weights()
    with small_backbones():
        network = ccnet.CCNet.from_weights(weights, **changes)
    assert network.config["training_size"] == size
