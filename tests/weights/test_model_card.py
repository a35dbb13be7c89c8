"""Model cards: their example runs as it is printed, for folders and for repositories."""

import os
import re

import numpy as np
import pytest
import torch
from hub_server import uploads
from PIL import Image
from small_runs import small_backbones, small_model

from ccnet import CCNet
from ccnet.weights.model_card import write_model_card

DETAILS = {"license": "CC-BY-NC-4.0", "weights": "derived from Y", "source": "Z"}


def example(card):
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return code


@pytest.fixture
def model():
    one = small_model()
    one.card_details = dict(DETAILS)
    return one


def run_in(folder, monkeypatch, card):
    """Runs the example of a card, and gives back the network that it loads."""
    monkeypatch.chdir(folder)
    Image.new("RGB", (40, 30)).save("street.jpg")
    names = {}
    with small_backbones():
        exec(example(card), names)
    with Image.open("overlay.png") as overlay:
        assert overlay.size == (40, 30)
    return names["model"]


@pytest.mark.parametrize("folder", ["saved", 'runs/it\'s \\ "mine" é', "absolute"])
def test_example_for_a_folder_runs(model, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    model.save_pretrained(os.fspath(tmp_path / folder) if folder == "absolute" else folder)
    card = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
    loaded = run_in(tmp_path, monkeypatch, card)
    assert loaded.card_details == DETAILS
    assert "license: cc-by-nc-4.0" in card
    assert "| licence | CC-BY-NC-4.0 |" in card
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@uploads
def test_example_for_a_repository_runs(model, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    model.push_to_hub("us/model")
    card = hub.repositories["us/model"].files["README.md"].decode()
    assert 'from_pretrained("us/model")' in card
    assert run_in(tmp_path, monkeypatch, card).card_details == DETAILS
    both = {"push_to_hub": True, "repo_id": "us/other"}
    model.save_pretrained(tmp_path / "saved", **both)
    assert str(tmp_path) not in hub.repositories["us/other"].files["README.md"].decode()
    assert f'from_pretrained("{tmp_path}/saved")' in (tmp_path / "saved" / "README.md").read_text()


def test_folder_that_is_saved_again_elsewhere_names_the_new_one(model, tmp_path):
    model.card_details["location"] = "us/model"
    model.save_pretrained(tmp_path / "first")
    with small_backbones():
        CCNet.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    card = (tmp_path / "second" / "README.md").read_text()
    assert f'from_pretrained("{tmp_path}/second")' in card
    given = {"model_card_kwargs": {"location": "us/third"}}
    model.save_pretrained(tmp_path / "third", **given)
    assert 'from_pretrained("us/third")' in (tmp_path / "third" / "README.md").read_text()


def test_folder_named_as_a_repository_is_none(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.card_details["metrics"] = {"Town val": {"mIoU": 61.5}}
    model.save_pretrained("runs/mine")
    card = (tmp_path / "runs" / "mine" / "README.md").read_text()
    assert "--weights runs/mine\n" in card
    assert "huggingface.co" not in card
    pushed = str(model.generate_model_card(location="us/mine"))
    assert "--weights hf://us/mine\n" in pushed
    assert "url: https://huggingface.co/us/mine" in pushed


@pytest.mark.parametrize("channels", [1, 4])
def test_example_for_other_channels_runs(channels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CCNet("resnet18", 3, 0, aux_channels=0, in_channels=channels).save_pretrained("saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert f"| channels | {channels} |" in card
    assert f"a normalised batch (N, {channels}, H, W)" in card
    assert "ccnet train" not in card  # which reads pictures in colour
    Image.new("RGB", (40, 30)).save("street.jpg")
    np.save("street.npy", np.zeros((30, 40, channels), np.uint8))
    exec(example(card), {})
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_card_says_what_to_install(model):
    card = str(model.generate_model_card())
    assert card.index("pip install PATH_OF_THE_CLONE") < card.index("import ccnet")
    assert "ccnet-pytorch" in card
    plain = write_model_card(model.config, {})
    assert "| channels |" not in plain
    of_timm = write_model_card({**model.config, "backbone": "timm:resnet10t"}, {})
    assert 'pip install "PATH_OF_THE_CLONE[timm]"  #' in of_timm
    assert "--backbone timm:resnet10t --weights folder-or-owner/name" in of_timm
    assert 'from_pretrained("folder-or-owner/name")' in plain
    assert "license:" not in plain
