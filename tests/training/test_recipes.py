"""Recipes, and what the optimiser makes of them: learning rates, weight decay, class weights."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import changed, small_model, trainer
from torch import nn
from torch.utils.data import ConcatDataset, Subset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ccnet.classes import CAMVID
from ccnet.training.classification import ClassificationRecipe
from ccnet.training.named_recipes import RECIPES
from ccnet.training.optimization import given_weights, log_balanced_weights, poly_schedule
from ccnet.training.recipes import Recipe
from ccnet.weights import CCNet_ResNet18_Weights


def test_learning_rate_rises_linearly_and_falls_by_its_power():
    recipe = changed(steps=110, warmup_steps=10, power=0.9)
    factors = [poly_schedule(step, recipe) for step in range(111)]
    found = [factors[step] for step in (0, 4, 60, 109)]
    assert found == pytest.approx([0.1, 0.5, 0.5**0.9, 0.01**0.9])
    assert (factors[9], factors[10], factors[110]) == (1, 1, 0)
    assert sorted(factors[10:], reverse=True) == factors[10:]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"power": 2.0}, [1, 0.25, 0]),
        ({"power": 1.0, "learning_rate": 0.01, "min_learning_rate": 1e-4}, [1, 0.505, 0.01]),
    ],
    ids=["no warm-up", "floor"],
)
def test_learning_rate_without_warmup(fields, expected):
    recipe = changed(steps=10, warmup_steps=0, **fields)
    assert [poly_schedule(step, recipe) for step in (0, 5, 10)] == pytest.approx(expected)


def test_recipe_of_the_bundled_weights_fits_them():
    recipe, meta = RECIPES["streets-r18"], CCNet_ResNet18_Weights.CAMVID.meta
    assert given_weights(recipe.class_weights, meta["categories"]).max() == 3
    frame = (360, 480)
    seen = recipe.protocol().view_size(frame, recipe.size_factor)
    assert seen == meta["protocol"].view_size(frame) == (540, 720)


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_kernels_decay_and_the_rest_on_request(tmp_path, optimizer, decay_all):
    recipe = changed(optimizer=optimizer, weight_decay=0.03, decay_all=decay_all)
    model = small_model()
    groups = trainer(tmp_path, recipe, model=model).optimizer.param_groups
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    kernels = {id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)}
    for name, parameter in model.named_parameters():
        decays = decay_all or id(parameter) in kernels
        assert decay[id(parameter)] == (0.03 if decays else 0.0), name
    assert decay[id(model.head.cca.gamma)] == (0.03 if decay_all else 0.0)


class Masks:
    """Random label maps, one of them of one class; with `labels` no image needs to be read."""

    def __init__(self, has_labels):
        self.masks = [torch.randint(0, 10, (6, 8)), torch.full((6, 8), 2)]
        self.masks[0][0] = 255
        if has_labels:
            self.labels = self.masks.__getitem__

    def __len__(self):
        return 2

    def __getitem__(self, index):
        assert not hasattr(self, "labels"), "an image was read"
        return None, tv_tensors.Mask(self.masks[index].to(torch.uint8))


@pytest.mark.parametrize("has_labels", [False, True])
@pytest.mark.parametrize("wrap", [None, "subset", "concatenated"])
def test_class_weights_are_those_of_enet(has_labels, wrap):
    dataset = Masks(has_labels)
    masks = dataset.masks[:1] if wrap == "subset" else dataset.masks
    counts = [sum(int((mask == label).sum()) for mask in masks) for label in range(11)]
    raw = [1 / math.log(1.02 + count / sum(counts)) for count in counts]
    expected = [value * 11 / sum(raw) for value in raw]
    if wrap == "subset":
        dataset = Subset(dataset, [0])
    elif wrap:
        dataset = ConcatDataset([Subset(dataset, [1]), Subset(dataset, [0])])
    weights = log_balanced_weights(dataset, len(CAMVID))
    assert weights.tolist() == pytest.approx(expected)
    if wrap != "subset":
        assert weights.argmin() == 2
    assert weights.argmax() == 10


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_are_valid_and_json_able(name):
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(RECIPES[name])))) == RECIPES[name]


INVALID = {
    **{"dataset": "coco", "optimizer": "adam", "precision": "float8", "norm": "group", "steps": 0},
    **{"batch_size": -1, "accumulation": 0, "crop_width": 0, "validate_every": 0, "seed": -1},
    **{"warmup_steps": -1, "aux_weight": -0.1, "power": math.nan, "weight_decay": math.inf},
    "learning_rate": 0.0,
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: value}, rf"{name} .*not '?{value}") for name, value in INVALID.items()),
        (
            {"crop_height": 99_999_999},
            "crop_height 99999999 x crop_width 49 must be at most 67108864",
        ),
        ({"patience": 1.5}, "patience must be an integer, not 1.5"),
        ({"steps": True}, "steps must be an integer, not True"),
        ({"steps": "9"}, "steps must be an integer, not '9'"),
        ({"learning_rate": None}, "learning_rate must be a number, not None"),
        ({"ohem": "no"}, "ohem must be True or False, not 'no'"),
        ({"dataset": 3}, "dataset must be text, not 3"),
        ({"weights": None}, "weights must be text, '' for none, not None"),
        ({"augmentation": v2.RandomRotation(5)}, r"augmentation .*Trainer\(augmentation="),
        ({"augmentation": None}, "augmentation must be text, '' for none, not None"),
        ({"class_weights": None}, "class_weights must be text, '' for none, .*not None"),
        ({"class_weights": {1, 2}}, r"class_weights must be .*not \{1, 2\}"),
        ({"freeze_backbone": True}, "freeze_backbone must be .*not True"),
        ({"weights": "A", "weights_backbone": "B"}, "'A' include a backbone.* not 'B', or weights"),
        ({"min_learning_rate": 0.5}, "at least min_learning_rate 0.5, not 0.0015"),
        ({"norm": "inplace", "gradient_checkpointing": True}, "give one"),
        ({"compile": True, "gradient_checkpointing": True}, "give one"),
    ],
)
def test_invalid_fields_or_combinations_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        changed(**fields)


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("class_weights", torch.tensor([1.0, 2.5]), "1.0,2.5"),
        ("class_weights", np.array([1, 2]), "1,2"),
        ("class_weights", {"car": np.float32(2), "sky": 0.5}, "car=2.0,sky=0.5"),
        ("class_weights", [1, 0.5], "1,0.5"),
        ("freeze_backbone", np.int64(2), "2"),
        ("weights", Path("runs/mine"), "runs/mine"),
        ("steps", np.int64(7), 7),
        ("learning_rate", np.float32(0.25), 0.25),
        ("weight_decay", 0, 0.0),
    ],
)
def test_fields_are_kept_in_pythons_own_types(field, given, kept):
    found = getattr(changed(**{field: given}), field)
    assert (found, type(found)) == (kept, type(kept))


def test_classification_has_fields_of_those_types():
    with pytest.raises(ValueError, match=r"steps must be an integer, not 1\.5"):
        ClassificationRecipe(steps=1.5)
