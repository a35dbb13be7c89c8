"""What is said of the bundled weights is true, and how weights are found and verified."""

import hashlib
import json

import pytest
import torch
from torchvision.models import Weights, WeightsEnum

import ccnet
from ccnet import download
from ccnet.download import load_weights
from ccnet.serialization import read_weights
from ccnet.transforms import Preprocessing

BUNDLED = ccnet.CCNet_ResNet18_Weights.DEFAULT


@pytest.fixture
def member(weights_file):
    """Weights that this project does not bundle, with the right hash."""
    sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()

    class OwnWeights(WeightsEnum):
        OWN = Weights(
            url="",
            transforms=None,
            meta={"file": weights_file.name, "sha256": sha256, "hub": None, "origin": None},
        )

    return OwnWeights.OWN


def test_the_bundled_file_is_what_its_entry_says(repository):
    path = repository / "weights" / BUNDLED.meta["file"]
    assert load_weights(BUNDLED).place == str(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == BUNDLED.meta["sha256"]
    _, config = read_weights(path)
    assert config["backbone"] == "resnet18"
    assert tuple(config["label_set"]["categories"]) == tuple(BUNDLED.meta["categories"])
    assert Preprocessing.from_config(config["preprocessing"]) == BUNDLED.transforms()


def test_the_bundled_network_has_the_stated_size():
    model = ccnet.ccnet_resnet18(weights=BUNDLED)
    assert sum(value.numel() for value in model.parameters()) == BUNDLED.meta["num_params"]


def test_the_card_states_what_the_entry_states(repository):
    card = (repository / BUNDLED.meta["card"]).read_text()
    assert BUNDLED.meta["sha256"] in card
    miou = BUNDLED.meta["metrics"]["CamVid val"]["mIoU"]
    assert miou >= 55
    assert f"{miou:.2f}" in card
    assert "scripts/evaluate.py camvid" in card
    assert "BY-NC" in card


def test_every_member_is_json_able_and_complete():
    for choice in (
        ccnet.CCNet_ResNet18_Weights,
        ccnet.CCNet_ResNet50_Weights,
        ccnet.CCNet_ResNet101_Weights,
    ):
        for weights in choice:
            json.dumps(weights.meta)
            assert {"file", "num_params", "categories", "dataset", "license"} <= weights.meta.keys()
    assert len(BUNDLED.meta["sha256"]) == 64


def test_a_folder_named_by_the_variable_is_used(member, weights_file, monkeypatch):
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(weights_file.parent))
    loaded = load_weights(member)
    assert loaded.place == str(weights_file)
    state_dict, config = read_weights(weights_file)
    assert loaded.config == config
    assert loaded.state_dict.keys() == state_dict.keys()
    assert all(torch.equal(loaded.state_dict[name], state_dict[name]) for name in state_dict)


def test_weights_beside_the_code_come_first(member, weights_file, tmp_path, monkeypatch):
    (tmp_path / weights_file.name).write_bytes(weights_file.read_bytes())
    monkeypatch.setattr(download, "BUNDLED_DIRS", (tmp_path,))
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(weights_file.parent))
    assert load_weights(member).place == str(tmp_path / weights_file.name)


def test_another_file_of_that_name_is_refused(member, weights_file, tmp_path, monkeypatch):
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    (tmp_path / weights_file.name).write_bytes(content)
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(tmp_path))
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=f"its SHA-256 is {found}, not {member.meta['sha256']}"):
        load_weights(member)


@pytest.mark.parametrize("named", [False, True])
def test_missing_weights_name_every_place(member, tmp_path, repository, monkeypatch, named):
    monkeypatch.delenv("CCNET_WEIGHTS_DIR", raising=False)
    places = [repository / "weights", repository / "ccnet" / "bundled"]
    if named:
        monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(tmp_path))
        places.append(tmp_path)
    with pytest.raises(FileNotFoundError, match="CCNET_WEIGHTS_DIR") as caught:
        load_weights(member)
    for place in places:
        assert str(place / member.meta["file"]) in str(caught.value)


def test_a_wrong_bundled_file_is_refused_by_the_model_too(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BUNDLED_DIRS", (tmp_path,))
    (tmp_path / BUNDLED.meta["file"]).write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not the published file"):
        ccnet.ccnet_resnet18(weights="DEFAULT")
