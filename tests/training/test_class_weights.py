"""Class weights given by hand: by name, by number, or one for each class."""

import json

import pytest
import torch
from small_runs import Scenes, assert_same_end, changed, interrupt, same, small_model, trainer

from ccnet.classes import CAMVID
from ccnet.training.optimization import given_weights

NAMES = ("sky", "car", "a, b", "x=y", "2")

READ = {
    "car=2": [1, 2, 1, 1, 1],
    "car=2,sky=0.5": [0.5, 2, 1, 1, 1],
    " sky = 0 , car=1e1,": [0, 10, 1, 1, 1],
    "0=3,4=5": [3, 1, 1, 1, 5],
    "2=7": [1, 1, 1, 1, 7],
    "a, b=3,sky=2": [2, 1, 3, 1, 1],
    "1,2,0.5,0,4": [1, 2, 0.5, 0, 4],
    " 1, 2, 3, 4, 5": [1, 2, 3, 4, 5],
}
"""By text, what it means for these names, of which one looks like a number."""

WRONG = {
    "cra=2": r"there is no class 'cra': did you mean 'car'\?$",
    "7=2": "there is no class '7': there are sky, car, a, b, x=y, 2$",
    "-1=2": "there is no class '-1': there are",
    "=2": "there is no class '': there are",
    "car=two": "must be numbers of 0 or more, not 'two'$",
    "car=-1": "must be numbers of 0 or more, not '-1'$",
    "car=nan": "numbers of 0 or more, not 'nan'$",
    "car=inf": "numbers of 0 or more, not 'inf'$",
    "car=": "numbers of 0 or more, not ''$",
    "car=1,1=2": "name the class '1' twice$",
    "1,2": "'1,2' must be a number for each of 5 classes, or such as 'sky=2' for some$",
    "1,2,3,4,x": "numbers of 0 or more, not 'x'$",
    "car": "'car' must be a number for each of 5 classes, or such as 'sky=2' for some$",
    "car:2": "'car:2' must be a number for each of 5 classes, or such as 'sky=2' for some$",
    "car=1e50": "must be numbers of float32, not '1e50'$",
    "car=1e-50": "must be numbers of float32, not '1e-50'$",
    "car=2,sky": "must be such as 'sky=2,...'$",
    "0,0,0,0,0": "must not all be 0$",
}


@pytest.mark.parametrize(("text", "expected"), READ.items(), ids=READ)
def test_weights_are_read(text, expected):
    weights = given_weights(text, NAMES)
    assert weights.dtype == torch.float32
    assert weights.tolist() == expected


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=WRONG)
def test_wrong_weights_are_named(text, message):
    with pytest.raises(ValueError, match=f"class_weights.*{message}"):
        given_weights(text, NAMES)


@pytest.mark.parametrize("given", [{"car": 2, "sky": 0.5}, "car=2,sky=0.5"], ids=["dict", "text"])
@pytest.mark.parametrize("fields", [{}, {"ohem": True}], ids=["all pixels", "hard pixels"])
def test_weights_are_those_of_both_losses_and_recorded(tmp_path, given, fields):
    """They take the place of those of balance_classes, which is on."""
    recipe = changed(class_weights=given, **fields)
    assert recipe.balance_classes
    running = trainer(tmp_path, recipe)
    expected = [{"car": 2, "sky": 0.5}.get(name, 1) for name in CAMVID.categories]
    for loss in (running.objective.loss.main, running.objective.loss.auxiliary):
        assert loss.class_weights.tolist() == expected
    assert running.recipe.class_weights == "car=2,sky=0.5"


def test_runs_with_weights_are_resumed_and_others_refused(tmp_path):
    recipe = changed(class_weights=[1, 0, *[2] * 9])
    trainer(tmp_path / "whole", recipe).run()
    interrupt(tmp_path / "run", recipe, steps=3)
    trainer(tmp_path / "run", recipe, model=small_model(seed=99), resume=True).run()
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    recorded = json.loads((tmp_path / "run" / "recipe.json").read_text())["class_weights"]
    assert recorded == "1,0,2,2,2,2,2,2,2,2,2"
    with pytest.raises(ValueError, match=r"has class_weights '1,0,2,.*', not 'car=2'"):
        trainer(tmp_path / "run", changed(class_weights="car=2"), resume=True)
    with pytest.raises(ValueError, match="no class 'caar': did you mean 'car'"):
        trainer(tmp_path / "other", changed(class_weights="caar=2"))
    assert not (tmp_path / "other").exists()


def test_class_without_weight_does_not_count(tmp_path):
    weights = [0.0 if name == "sky" else 1.0 for name in CAMVID.categories]
    loss = trainer(tmp_path, changed(class_weights=weights)).objective.loss
    labels = Scenes(1)[0][1][None]
    assert (labels == 0).any()
    outputs = {"out": torch.randn(1, 11, 64, 96)}
    ignored = loss(outputs, torch.where(labels == 0, 255, labels))
    assert torch.allclose(loss(outputs, labels), ignored)
    assert same(loss(outputs, torch.zeros_like(labels)), torch.tensor(0.0))
