"""The command that trains: what it makes of its arguments, and what it refuses first."""

import dataclasses

import pytest
import torch
from small_runs import Scenes

from ccnet.classes import CAMVID
from ccnet.commands import train
from ccnet.training.named_recipes import RECIPES


@pytest.mark.parametrize(
    ("given", "weights", "said"),
    [
        ({"backbone": "timm:x"}, "", "there are no weights DEFAULT of timm:x, so the network st"),
        ({"backbone": "timm:x", "weights_backbone": "DEFAULT"}, "", "give way to those of the b"),
        ({"weights_backbone": "own.pt"}, "", "give way to those of the backbone that are given"),
        ({"backbone": "resnet50"}, "DEFAULT", ""),
        ({"backbone": "timm:x", "weights": "run"}, "run", ""),
        ({"weights": ""}, "", ""),
    ],
)
def test_own_weights_of_a_recipe_give_way(given, weights, said):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    arguments = train.parse_arguments(["finetune", "--run-dir", "run", *options])
    recipe = train.chosen_recipe(arguments)
    assert recipe == dataclasses.replace(RECIPES["finetune"], **{**given, "weights": weights})
    assert said in train.describe_left_out(arguments, recipe)
    assert bool(said) == bool(train.describe_left_out(arguments, recipe))


def test_classes_are_known_before_the_network_is_built(monkeypatch):
    monkeypatch.setattr(train, "open_datasets", lambda *_: (Scenes(), Scenes(2), CAMVID))
    monkeypatch.setattr(train, "build_model", None)
    options = ["street-scenes-r18", "--run-dir", "run", "--class-weights", "raod=2"]
    with pytest.raises(ValueError, match=r"there is no class 'raod': did you mean 'road'\?$"):
        train.train(train.parse_arguments(options), torch.device("cpu"), None, None)


def test_augmentation_is_sought_before_anything_is_read():
    options = ["street-scenes-r18", "--run-dir", "run", "--augmentation", "RandomRotate(1)"]
    with pytest.raises(ValueError, match="has no 'RandomRotate': did you mean 'RandomRotation'"):
        train.check(train.parse_arguments(options))
