"""Moving average of the weights: its values, what gets it, and runs that are resumed with it."""

import pytest
import torch
from small_runs import (
    Scenes,
    assert_same_end,
    best_of,
    changed,
    fail,
    finish,
    interrupt,
    newest,
    on_call,
    same,
    small_model,
    start,
    trainer,
)
from torch import nn

from ccnet.distributed import rank
from ccnet.evaluation import evaluate
from ccnet.training.average import WeightAverage, floating
from ccnet.training.checkpoint import save_checkpoint
from ccnet.training.history import History

AVERAGED = changed(average_decay=0.6, learning_rate=0.01)


def floats_of(model):
    return {name: one.clone() for name, one in floating(model.state_dict()).items()}


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.9])
def test_average_is_that_of_a_float64_reference(decay):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    average = WeightAverage(model, decay)
    expected = {name: one.double() for name, one in floats_of(model).items()}
    for step in range(20):
        for one in floating(model.state_dict()).values():
            one.copy_(torch.randn(one.shape))
        average.update(model, step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, one in floats_of(model).items():
            expected[name] = kept * expected[name] + (1 - kept) * one.double()
    assert average.tensors.keys() == expected.keys()
    assert "1.running_var" in expected
    assert "1.num_batches_tracked" not in expected
    for name, one in average.tensors.items():
        torch.testing.assert_close(one.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_weights_of_each_step_are_averaged_and_the_average_is_validated_and_written(tmp_path):
    """The weights themselves go on as without an average."""
    plain = small_model()
    trainer(tmp_path / "plain", changed(learning_rate=0.01), model=plain).run()
    start_weights = floats_of(small_model())
    seen = []
    model = small_model()
    running = trainer(tmp_path / "run", AVERAGED, model=model)
    update = running.learner.update

    def spied(step):
        update(step)
        seen.append(floats_of(model))

    running.learner.update = spied
    scores = running.run()
    assert len(seen) == 4
    assert same(newest(tmp_path / "run")["model"], newest(tmp_path / "plain")["model"])
    expected = start_weights
    for step, weights in enumerate(seen):
        kept = min(0.6, (1 + step) / (10 + step))
        expected = {name: kept * one + (1 - kept) * weights[name] for name, one in expected.items()}
    for name, one in floats_of(model).items():
        torch.testing.assert_close(one, expected[name], rtol=1e-5, atol=1e-6)
    assert not same(floats_of(model), floats_of(plain))
    assert evaluate(model, Scenes(2, seed=4)).miou == scores.miou
    best = best_of(tmp_path / "run").state_dict
    for name, one in floats_of(model).items():
        torch.testing.assert_close(best[name].float(), one, rtol=1e-3, atol=1e-3)


def test_stopped_run_ends_as_if_it_had_not_stopped(tmp_path):
    trainer(tmp_path / "whole", AVERAGED).run()
    interrupt(tmp_path / "run", AVERAGED, steps=3)
    model = small_model(seed=9)
    trainer(tmp_path / "run", AVERAGED, model=model, resume=True).run()
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_error_in_a_validation_leaves_the_weights_of_the_step(tmp_path):
    model = small_model()
    failing = Scenes(2, on_call(1, fail), seed=4)
    running = trainer(tmp_path, AVERAGED, model=model, val_set=failing)
    with pytest.raises(RuntimeError, match="the power failed"):
        running.run()
    assert same(dict(model.state_dict()), dict(newest(tmp_path)["model"]))


def test_average_that_begins_in_a_changed_run_begins_with_its_weights(tmp_path):
    interrupt(tmp_path, changed(), steps=3)
    weights = floating(newest(tmp_path)["model"])
    options = {"resume": True, "accept_changed_recipe": True}
    running = trainer(tmp_path, changed(average_decay=0.6), **options)
    assert same(running.learner.average.tensors, weights)
    running.run()
    assert not same(newest(tmp_path)["average"], floating(newest(tmp_path)["model"]))
    trainer(tmp_path, changed(average_decay=0.0, steps=5), **options).run()
    assert "average" not in newest(tmp_path)


def test_average_goes_on_in_a_run_with_another_decay(tmp_path):
    interrupt(tmp_path, AVERAGED, steps=3)
    before = newest(tmp_path)["average"]
    options = {"resume": True, "accept_changed_recipe": True}
    learner = trainer(tmp_path, changed(average_decay=0.9, learning_rate=0.01), **options).learner
    assert learner.average.decay == 0.9
    assert same(learner.average.tensors, before)


def test_run_that_ends_early_leaves_the_average(tmp_path, monkeypatch):
    monkeypatch.setattr(History, "has_stalled", lambda history, _: history.last_step == 2)
    model = small_model()
    trainer(tmp_path, AVERAGED, model=model).run()
    state = newest(tmp_path)
    assert state["step"] == 2
    assert same(floats_of(model), dict(state["average"]))


@pytest.mark.parametrize("damage", ["lacking", "infinite", "of another shape"])
def test_damaged_average_is_refused(tmp_path, damage):
    interrupt(tmp_path, AVERAGED, steps=3)
    (path,) = (tmp_path / "checkpoints").iterdir()
    state = newest(tmp_path)
    name = next(iter(state["average"]))
    if damage == "lacking":
        del state["average"]
    elif damage == "infinite":
        state["average"][name].fill_(torch.inf)
    else:
        state["average"][name] = torch.zeros(3)
    save_checkpoint(path, state)
    with pytest.raises(ValueError, match=r"checkpoint .* does not fit it: average"):
        trainer(tmp_path, AVERAGED, resume=True)


def train_and_keep(run_dir):
    """Trains, and writes the average of this rank."""
    running = trainer(run_dir, AVERAGED)
    running.run()
    torch.save(running.learner.average.tensors, run_dir / f"rank{rank()}.pt")


def test_two_processes_have_the_same_average(tmp_path):
    assert finish(start(train_and_keep, tmp_path, ranks=2)) == [0, 0]
    one, two = (torch.load(tmp_path / f"rank{number}.pt") for number in range(2))
    assert same(one, two)
    assert same(one, newest(tmp_path)["average"])
