"""Runs with a frozen backbone: what is saved, resumed and shared among processes."""

import dataclasses

import pytest
import torch
from small_runs import (
    assert_same_end,
    best_of,
    changed,
    finish,
    interrupt,
    newest,
    same,
    small_model,
    start,
    trainer,
)

from ccnet import distributed
from ccnet.classes import CAMVID
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import build_model

SLOPE = 0.01

UNMOVED = "head.cca.key_conv.bias"
"""Adds the same to all of a softmax, so that it has no gradient."""


@pytest.mark.parametrize(
    ("stages", "fields"),
    [
        (2, {}),
        ("all", {"optimizer": "sgd"}),
        (2, {"norm": "inplace", "negative_slope": SLOPE}),
        ("all", {"norm": "inplace", "negative_slope": SLOPE}),
    ],
    ids=str,
)
def test_frozen_stages_are_saved_as_they_were(tmp_path, stages, fields):
    recipe = changed(freeze_backbone=stages, **fields)
    model = small_model(negative_slope=recipe.negative_slope)
    for stage in model.backbone.stages[:2]:
        torch.nn.init.uniform_(stage[1].weight, -2, 2)  # not kept by conversions to in-place norms
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(tmp_path / "whole", recipe, model=model).run()
    frozen = tuple(f"backbone.stages.{number}." for number in range(3 if stages == "all" else 2))
    found = best_of(tmp_path / "whole").state_dict
    for name, value in initial.items():
        if name != UNMOVED:
            assert same(found[name], value) == name.startswith(frozen), name
    saved = newest(tmp_path / "whole")["optimizer"]
    learning = {name for name, _ in small_model().named_parameters() if not name.startswith(frozen)}
    assert sum(len(group["params"]) for group in saved["param_groups"]) == len(learning)
    assert len(saved["state"]) == len(learning)


def test_interrupted_run_ends_as_if_it_had_not_been(tmp_path):
    recipe = changed(freeze_backbone="2")
    trainer(tmp_path / "whole", recipe).run()
    interrupt(tmp_path / "run", recipe, steps=3)
    trainer(tmp_path / "run", recipe, model=small_model(seed=99), resume=True).run()
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def two_steps(folder, recipe):
    running = trainer(folder, recipe, model=small_model(dropout=0.0).double())
    running.run()
    torch.save(running.model.state_dict(), f"{folder}.{distributed.rank()}.pt")


def test_two_processes_train_as_one(tmp_path):
    recipe = changed(freeze_backbone=2, steps=2, batch_size=3, optimizer="sgd", learning_rate=0.05)
    two_steps(tmp_path / "1", recipe)
    assert finish(start(two_steps, tmp_path / "2", recipe, ranks=2)) == [0, 0]
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1.0", "2.0", "2.1"))
    assert same(first, second)
    initial = small_model(dropout=0.0).double().state_dict()
    for name, value in alone.items():
        assert torch.allclose(first[name].double(), value.double(), rtol=0, atol=1e-10), name
        is_frozen = name.startswith(("backbone.stages.0.", "backbone.stages.1."))
        assert name == UNMOVED or same(first[name], initial[name]) == is_frozen, name


def test_backbone_to_be_frozen_needs_weights():
    recipe = dataclasses.replace(RECIPES["camvid-r18"], freeze_backbone="all")
    with pytest.raises(ValueError, match="is 'all', but the backbone would start untrained: give"):
        build_model(recipe, CAMVID)


def test_more_stages_than_there_are_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a number in 0\.\.3, not 4: the backbone has 0; 1; 2$"):
        trainer(tmp_path / "run", changed(freeze_backbone="4"))
    assert not (tmp_path / "run").exists()
