"""Training with two gloo processes, compared with one process and the whole batch."""

import contextlib
import dataclasses
import os
import shutil
import signal
import time

import pytest
import torch
from small_runs import (
    Scenes,
    assert_same_end,
    changed,
    finish,
    newest,
    on_call,
    same,
    small_model,
    start,
    train,
    trainer,
)

from ccnet import distributed, locks
from ccnet.backbones import Backbone
from ccnet.norm import convert_sync_batchnorm
from ccnet.training.termination import Terminated

TEN_STEPS = changed(
    steps=10, batch_size=3, scale_low=0.3, optimizer="sgd", learning_rate=0.05, validate_every=10
)
"""Three images, one of them on rank 1, with many pixels that do not count."""

UNBALANCED = dataclasses.replace(TEN_STEPS, balance_classes=False)


def ten_steps(folder, recipe, mutant=""):
    """Trains in float64 without dropout, and saves the final state and history of each rank."""
    patch = pytest.MonkeyPatch()
    if mutant == "separate norms":
        patch.setattr("ccnet.training.objective.convert_sync_batchnorm", lambda model: model)
    if mutant == "synchronised passes":
        patch.setattr(
            "torch.nn.parallel.DistributedDataParallel.no_sync",
            lambda module: contextlib.nullcontext(),
        )
    running = trainer(folder, recipe, model=small_model(dropout=0.0).double())
    if mutant == "separate losses":
        running.objective.loss.main.joint = running.objective.loss.auxiliary.joint = False
    running.run()
    ended = running.model.state_dict(), running.history.records
    torch.save(ended, f"{folder}.{distributed.rank()}.pt")


def outcome(folder, *arguments, ranks=2):
    """The final state and history of each rank."""
    assert finish(start(ten_steps, folder, *arguments, ranks=ranks)) == [0] * ranks
    return [torch.load(f"{folder}.{rank}.pt") for rank in range(ranks)]


def difference(one, other):
    """The largest difference between two state dicts."""
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of the whole batch, with and without class weights."""
    folder = tmp_path_factory.mktemp("alone")
    return {
        recipe: outcome(folder / str(recipe.balance_classes), recipe, ranks=1)[0]
        for recipe in (TEN_STEPS, UNBALANCED)
    }


@pytest.mark.parametrize("recipe", [TEN_STEPS, UNBALANCED], ids=["balanced", "unbalanced"])
def test_two_processes_train_as_one_with_the_whole_batch(alone, tmp_path, recipe):
    first, second = outcome(tmp_path / "run", recipe)
    assert same(first, second)
    state, records = alone[recipe]
    assert difference(first[0], state) < 1e-10
    assert first[1][-1]["loss"] == pytest.approx(records[-1]["loss"], abs=1e-10)
    assert first[1][-1]["confusion"] == records[-1]["confusion"]


@pytest.mark.parametrize("mutant", ["separate losses", "separate norms"])
def test_separate_losses_or_norms_would_be_noticed(alone, tmp_path, mutant):
    first, _ = outcome(tmp_path / "run", UNBALANCED, mutant)
    assert difference(first[0], alone[UNBALANCED][0]) > 1e-4


def test_passes_need_not_be_synchronised_one_by_one(tmp_path):
    recipe = dataclasses.replace(TEN_STEPS, steps=2, batch_size=5, accumulation=2, validate_every=2)
    ends = [
        outcome(tmp_path / mutant, recipe, mutant)[0][0]
        for mutant in ("at the end", "synchronised passes")
    ]
    assert difference(*ends) < 1e-12


def checkpointed_backbone():
    rank = distributed.rank()
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


def test_gradient_checkpointing_of_synchronised_norms():
    assert finish(start(checkpointed_backbone, ranks=2)) == [0, 0]


def poisoned(folder):
    """The loss of rank 1 is not a number in the third step."""
    calls = []

    def poison(_, inputs, loss):
        calls.append(loss)
        return loss * torch.nan if len(calls) == 3 else loss

    def hook(running):
        if distributed.rank() == 1:
            running.objective.loss.register_forward_hook(poison)

    with pytest.raises(FloatingPointError, match=r"the loss of step 3 is nan"):
        train(folder, on_start=hook)


def test_loss_that_is_not_finite_on_one_rank_stops_all(tmp_path):
    assert finish(start(poisoned, tmp_path / "run", ranks=2)) == [0, 0]
    assert newest(tmp_path / "run")["step"] == 2


def terminated(folder, moment, asked, number):
    """A run with two ranks, of which rank 1 sends a signal to some at some moment.

    Rank 0 has nothing left to do when it gets it while validating.
    """
    pids = distributed.all_gather(os.getpid())

    def ask():
        if distributed.rank() == 1:
            time.sleep(0.5)
            for rank in asked:
                for _ in range(2):  # launchers pass on what all got: it is one request
                    os.kill(pids[rank], number)

    hook = on_call(1 if moment == "validation" else 3, ask)
    val_set = Scenes(2, seed=4, on_draw=hook if moment == "validation" else None)
    running = trainer(folder, val_set=val_set)
    if moment == "step":
        running.objective.loss.register_forward_pre_hook(hook)
    with pytest.raises(Terminated):
        running.run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run with two ranks."""
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert finish(start(train, run_dir, ranks=2)) == [0, 0]
    return run_dir


@pytest.mark.parametrize(
    ("moment", "asked", "number", "step"),
    [
        ("step", [0], signal.SIGTERM, 3),
        ("step", [1], signal.SIGINT, 3),
        ("validation", [0, 1], signal.SIGINT, 2),
        ("validation", [1], signal.SIGTERM, 2),
    ],
)
def test_one_rank_that_is_asked_to_stop_stops_all(
    undisturbed, tmp_path, moment, asked, number, step
):
    run_dir = tmp_path / "run"
    assert finish(start(terminated, run_dir, moment, asked, number, ranks=2)) == [0, 0]
    assert newest(run_dir)["step"] == step
    assert finish(start(train, run_dir, ranks=2)) == [0, 0]
    assert_same_end(run_dir, undisturbed)


def make_on_rank_zero(folder):
    """Makes a value, and fails to make another one, on rank 0; writes down what each rank gets."""

    def make():
        (folder / f"made by {distributed.rank()}").touch()
        return {"made": distributed.rank()}

    def fail():
        raise ValueError(f"no value on {distributed.rank()}")

    made = distributed.from_rank_zero(make)
    with pytest.raises(ValueError, match=r"^no value on 0$"):
        distributed.from_rank_zero(fail)
    (folder / f"rank {distributed.rank()}").write_text(str(made))


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_rank_zero_makes_all_ranks_get(tmp_path, ranks):
    assert finish(start(make_on_rank_zero, tmp_path, ranks=ranks)) == [0] * ranks
    assert [path.name for path in tmp_path.glob("made by *")] == ["made by 0"]
    for number in range(ranks):
        assert (tmp_path / f"rank {number}").read_text() == "{'made': 0}"


def locked_out(folder, results):
    """What a trainer says on each rank in a folder that is in use."""
    locks.PATIENCE = 0.0
    with pytest.raises(BlockingIOError) as refusal:
        trainer(folder)
    (results / str(distributed.rank())).write_text(str(refusal.value))


def test_every_rank_is_told_who_uses_the_folder(tmp_path):
    with locks.FolderLock(tmp_path / "run"):
        assert finish(start(locked_out, tmp_path / "run", tmp_path, ranks=2)) == [0, 0]
    first, second = ((tmp_path / str(rank)).read_text() for rank in range(2))
    assert first == second
    assert f"is in use by process {os.getpid()} on" in first


class OfRankZero(Scenes):
    """Scenes whose files the first rank alone looks at."""

    def identify(self, index):
        assert distributed.rank() == 0
        return super().identify(index)


def changed_data(run_dir):
    assert trainer(run_dir, train_set=OfRankZero(), resume=True).step == 4
    with pytest.raises(ValueError, match=r"has 5 images to train on, not 7 \(new: scene-000005, "):
        trainer(run_dir, train_set=OfRankZero(7), resume=True)


def test_rank_zero_alone_looks_at_the_data(finished, tmp_path):
    run_dir = shutil.copytree(finished[0], tmp_path / "run")
    assert finish(start(changed_data, run_dir, ranks=2)) == [0, 0]
