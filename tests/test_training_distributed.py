"""Training on two processes of gloo, against one process with the joined batch."""

import contextlib
import dataclasses
import os
import signal
import time

import pytest
import torch
from small_runs import (
    SMALL,
    Scenes,
    assert_same_end,
    finish,
    newest,
    same,
    small_model,
    start,
    train,
    trainer,
)

from ccnet import processes
from ccnet.backbone import Backbone
from ccnet.norm import convert_sync_batchnorm
from ccnet.training.termination import Terminated

TEN_STEPS = dataclasses.replace(
    SMALL,
    steps=10,
    batch_size=3,
    scale_low=0.3,
    optimizer="sgd",
    learning_rate=0.05,
    validate_every=10,
)
"""Three images, one of them the second rank's, with many pixels that do not count."""


def ten_steps(folder, recipe, mutant=""):
    """Trains in float64 without dropout, and leaves what each rank has in the end."""
    patch = pytest.MonkeyPatch()
    if mutant == "norms by themselves":
        patch.setattr("ccnet.training.objective.convert_sync_batchnorm", lambda model: model)
    if mutant == "synchronised passes":
        patch.setattr(
            "torch.nn.parallel.DistributedDataParallel.no_sync",
            lambda module: contextlib.nullcontext(),
        )
    running = trainer(folder, recipe, model=small_model(dropout=0.0).double())
    if mutant == "losses by themselves":
        running.objective.loss.main.joint = running.objective.loss.auxiliary.joint = False
    running.run()
    rank = processes.rank_and_count()[0]
    torch.save((running.model.state_dict(), running.history), f"{folder}.{rank}.pt")


def outcome(folder, *arguments, ranks):
    """The state and the history that each rank has in the end."""
    assert finish(start(ten_steps, folder, *arguments, ranks=ranks)) == [0] * ranks
    return [torch.load(f"{folder}.{rank}.pt") for rank in range(ranks)]


def difference(one, other):
    """The largest difference between two state dicts."""
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of the joined batch, with and without weights of classes."""
    folder = tmp_path_factory.mktemp("alone")
    results = {}
    for balanced in (False, True):
        recipe = dataclasses.replace(TEN_STEPS, balance_classes=balanced)
        results[balanced] = outcome(folder / str(balanced), recipe, ranks=1)[0]
    return results


@pytest.mark.parametrize("balanced", [False, True])
def test_two_processes_train_as_one_with_the_joined_batch(alone, tmp_path, balanced):
    recipe = dataclasses.replace(TEN_STEPS, balance_classes=balanced)
    first, second = outcome(tmp_path / "run", recipe, ranks=2)
    assert same(first, second)
    state, history = alone[balanced]
    assert difference(first[0], state) < 1e-10
    assert first[1][-1]["loss"] == pytest.approx(history[-1]["loss"], abs=1e-10)
    assert first[1][-1]["confusion"] == history[-1]["confusion"]


@pytest.mark.parametrize("mutant", ["losses by themselves", "norms by themselves"])
def test_what_is_joined_matters(alone, tmp_path, mutant):
    """The test above would notice if losses or norms looked at one process alone."""
    first, _ = outcome(
        tmp_path / "run", dataclasses.replace(TEN_STEPS, balance_classes=False), mutant, ranks=2
    )
    assert difference(first[0], alone[False][0]) > 1e-4


def test_passes_need_not_be_synchronised_one_by_one(tmp_path):
    recipe = dataclasses.replace(TEN_STEPS, steps=2, batch_size=5, accumulation=2, validate_every=2)
    ends = [
        outcome(tmp_path / mutant, recipe, mutant, ranks=2)[0][0]
        for mutant in ("at the end", "synchronised passes")
    ]
    assert difference(*ends) < 1e-12


def checkpointed_backbone(folder):
    rank = processes.rank_and_count()[0]
    ends = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = convert_sync_batchnorm(Backbone("resnet18", output_stride=32)).double()
        backbone.gradient_checkpointing = checkpointing
        x = torch.randn(2 + rank, 3, 33, 40, dtype=torch.float64)
        outputs = backbone.train()(x)
        sum((output * output.detach().cos()).sum() for output in outputs).backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters()}
        ends.append((outputs, gradients, dict(backbone.named_buffers())))
    assert same(*ends)


def test_gradient_checkpointing_of_synchronised_norms(tmp_path):
    assert finish(start(checkpointed_backbone, tmp_path / "run", ranks=2)) == [0, 0]


def poisoned(folder):
    """The loss of rank 1 is no number in the third step."""

    calls = []

    def poison(_, inputs, loss):
        calls.append(loss)
        return loss * torch.nan if len(calls) == 3 else loss

    def hook(running):
        if processes.rank_and_count()[0] == 1:
            running.objective.loss.register_forward_hook(poison)

    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan"):
        train(folder, on_start=hook)


def test_a_loss_that_is_no_number_in_one_process_stops_all(tmp_path):
    assert finish(start(poisoned, tmp_path / "run", ranks=2)) == [0, 0]
    assert newest(tmp_path / "run")["step"] == 2


def terminated(folder, moment):
    """A run with two ranks, of which rank 1 sends SIGTERM to some at some moment.

    Rank 0 has nothing left to do when it gets it while validating.
    """
    asked = {"step 3, rank 0": (0,), "step 3, rank 1": (1,)}.get(moment, (0, 1))
    rank = processes.rank_and_count()[0]
    pids = processes.gather(os.getpid())
    drawn = []

    def ask(*_):
        drawn.append(1)
        if rank == 1 and len(drawn) == (1 if moment == "validation" else 3):
            time.sleep(0.5)
            for other in asked:
                os.kill(pids[other], signal.SIGTERM)

    val_set = Scenes(2, seed=4, on_draw=ask if moment == "validation" else None)
    running = trainer(folder, model=small_model(), val_set=val_set)
    if moment != "validation":
        running.objective.loss.register_forward_pre_hook(ask)
    with pytest.raises(Terminated):
        running.run()


@pytest.mark.parametrize(
    ("moment", "step"), [("step 3, rank 0", 3), ("step 3, rank 1", 3), ("validation", 2)]
)
def test_one_process_that_is_asked_to_stop_stops_all(tmp_path, moment, step):
    run_dir = tmp_path / "run"
    assert finish(start(terminated, run_dir, moment, ranks=2)) == [0, 0]
    assert newest(run_dir)["step"] == step
    assert finish(start(train, run_dir, ranks=2)) == [0, 0]
    assert finish(start(train, tmp_path / "undisturbed", ranks=2)) == [0, 0]
    assert_same_end(run_dir, tmp_path / "undisturbed")
