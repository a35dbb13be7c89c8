"""Registered weights in folders: bundled, named by the variable, missing, or of another content."""

import hashlib
import re

import pytest
import torch
from hub_server import registered

import ccnet
from ccnet.model import CCNet
from ccnet.weights import REGISTRY, BackboneWeights, downloads, read_weights
from ccnet.weights.downloads import load_registered

BUNDLED = ccnet.CCNet_ResNet18_Weights.DEFAULT
MEMBERS = [member for choice in (*REGISTRY.values(), BackboneWeights) for member in choice]


@pytest.fixture
def member(weights_file):
    """Weights that this project does not bundle, with the right hash."""
    sha256 = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    return registered(file=weights_file.name, sha256=sha256)


def test_bundled_file_is_what_its_entry_says(repository):
    path = repository / "weights" / BUNDLED.meta["file"]
    assert load_registered(BUNDLED).source == str(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == BUNDLED.meta["sha256"]
    model = ccnet.ccnet_resnet18(weights=BUNDLED)
    assert model.config == CCNet(**BUNDLED.meta["config"]).config
    assert sum(value.numel() for value in model.parameters()) == BUNDLED.meta["num_params"]
    assert model.preprocessing == BUNDLED.transforms()


def test_bundled_card_states_what_the_entry_states(repository):
    card = (repository / BUNDLED.meta["card"]).read_text()
    assert BUNDLED.meta["sha256"] in card
    miou = BUNDLED.meta["metrics"]["CamVid val"]["mIoU"]
    assert miou >= 55
    assert f"{miou:.2f}" in card
    assert "scripts/evaluate.py camvid" in card
    assert "BY-NC" in card


@pytest.mark.parametrize("bundled", [False, True])
def test_bundled_folder_comes_before_the_variables(
    member, weights_file, tmp_path, monkeypatch, bundled
):
    monkeypatch.setattr(downloads, "BUNDLED_DIRS", (tmp_path,))
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(weights_file.parent))
    expected = weights_file
    if bundled:
        expected = tmp_path / weights_file.name
        expected.write_bytes(weights_file.read_bytes())
    loaded = load_registered(member)
    assert loaded.source == str(expected)
    stored = read_weights(weights_file)
    assert loaded.config == stored.config
    torch.testing.assert_close(loaded.state_dict, stored.state_dict, rtol=0, atol=0)


@pytest.mark.parametrize("bundled", [False, True])
def test_another_file_of_that_name_is_refused(member, weights_file, tmp_path, monkeypatch, bundled):
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    (tmp_path / weights_file.name).write_bytes(content)
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(tmp_path))
    if bundled:
        monkeypatch.setattr(downloads, "BUNDLED_DIRS", (tmp_path,))
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=f"its SHA-256 is {found}, not {member.meta['sha256']}"):
        load_registered(member)


@pytest.mark.parametrize("named", [False, True])
def test_error_names_every_folder(member, tmp_path, repository, monkeypatch, named):
    monkeypatch.delenv("CCNET_WEIGHTS_DIR", raising=False)
    folders = [repository / "weights", repository / "ccnet" / "bundled"]
    if named:
        monkeypatch.setenv("CCNET_WEIGHTS_DIR", str(tmp_path))
        folders.append(tmp_path)
    with pytest.raises(FileNotFoundError, match="CCNET_WEIGHTS_DIR") as caught:
        load_registered(member)
    for folder in folders:
        assert str(folder / member.meta["file"]) in str(caught.value)


@pytest.mark.parametrize(
    "member", [member for member in MEMBERS if member.meta["hub"] is None], ids=str
)
def test_only_published_places_are_asked(member, monkeypatch, tmp_path, no_network):
    asked = []

    def refuse(url, *_, **__):
        asked.append(url)
        raise OSError("no network here")

    def never(*arguments, **_):
        raise AssertionError(f"asked the Hub for {arguments}")

    monkeypatch.setattr(downloads, "BUNDLED_DIRS", ())
    monkeypatch.setattr(downloads, "fetch_file", never)
    monkeypatch.setattr("ccnet.weights.origins.fetch", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("CCNET_WEIGHTS_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match=re.escape(str(member))) as caught:
        load_registered(member)
    origin = member.meta["origin"]
    assert asked == ([origin["url"]] if origin else [])
    assert all(url in str(caught.value) for url in asked)
    if member.name.startswith("AUTHORS"):
        assert "Google Drive" in str(caught.value)
        assert 'weights="CS_scenes_60000.pth"' in str(caught.value)
