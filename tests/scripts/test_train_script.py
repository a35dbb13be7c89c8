"""The training script, as a user runs it."""

import dataclasses
import json
import os
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from forked_python import TORCHRUN
from small_runs import Scenes, assert_same_end, newest, small_backbones, write_mask_folder

import ccnet
from ccnet import locks
from ccnet.classes import CAMVID
from ccnet.commands import train
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.recipes import CHOICES
from ccnet.zoo import ccnet_resnet18

QUICK = (
    *("--steps", 2, "--batch-size", 2, "--crop-height", 33, "--crop-width", 49),
    *("--output-stride", 32, "--precision", "float32", "--device", "cpu", "--workers", 0),
    "--no-balance-classes",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes as somebody's own images and masks, with classes of other names."""
    root = tmp_path_factory.mktemp("own") / "folder"
    write_mask_folder(root, Scenes(6), [f"my {name}" for name in CAMVID.categories])
    return root


@pytest.fixture
def finetune(folder, weights_file):
    """Arguments that fine-tune a weights file on that folder for two steps."""
    return ("finetune", "--root", folder, "--run-dir", "run", "--weights", weights_file, *QUICK)


@pytest.fixture
def script(repository, monkeypatch, tmp_path):
    """Runs the script in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        path = repository / "scripts" / "train.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        return runpy.run_path(str(path), run_name="__main__")

    return run


def test_fine_tuning_on_a_folder_gives_weights_that_load(
    repository, run_forked, script, finetune, tmp_path
):
    path = repository / "scripts" / "train.py"
    trained = run_forked(path, *finetune, "--learning-rate", 1e-5, cwd=tmp_path)
    started, said = trained.stderr.splitlines()[:8], "\n".join(trained.stderr.splitlines()[:8])
    for line, text in {
        0: "data: 4 images to train on, 2 to validate on, 11 classes: my sky ",
        1: "these parts start untrained: head.classifier, aux_head.classifier",
        2: "network: resnet18 at output stride 32, 2 loops of attention, 13.0 million parameters",
        3: f"weights: {finetune[6]}",
        4: "training: 2 steps of 2 images, crops of 49x33, validated at the end; float32 on",
        5: "folder: run (all settings: recipe.json); curves: tensorboard --logdir run",
        6: "training size: 96 x 64 pixels",
        7: "step 2 of 2: loss ",
    }.items():
        assert text in started[line], said
    table, end = trained.stdout.split("\n\n")
    assert "| my road |" in table
    best, example = end.splitlines()
    assert re.fullmatch(r"best weights: run/best\.safetensors, mIoU \d+\.\d\d", best)
    picture = finetune[2] / "images" / "scene-000000.png"
    predict = f"{path.with_name('predict.py')} {picture} --weights run --output results"
    assert example == f"to predict: python {predict}"
    log = (tmp_path / "run" / "train.log").read_text()
    for line in trained.stderr.splitlines():
        assert re.search(rf" (INFO|WARNING) {re.escape(line[9:])}\n", log), line
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert "train.py finetune --root" in environment["command"]
    assert environment["ccnet"] == ccnet.__version__
    model = ccnet_resnet18(weights=tmp_path / "run" / "best.safetensors")
    assert model.label_set.categories == tuple(f"my {name}" for name in CAMVID.categories)
    labels = model.predict(torch.zeros(3, 40, 60, dtype=torch.uint8)).labels
    assert labels.shape == (40, 60)
    refused = r"^error: run already holds a run: resume it \(--resume auto\) or choose another"
    with pytest.raises(SystemExit, match=refused):
        script(*finetune)
    changed = r"^error: the run in run has learning_rate 1e-05, not 1\.0: .*--accept-changed-recipe"
    with pytest.raises(SystemExit, match=changed):
        script(*finetune, "--resume", "auto", "--learning-rate", 1)
    assert (tmp_path / "run" / "train.log").read_text() == log


def test_image_that_is_added_moves_no_other_one(script, finetune, folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "more")
    arguments = [root if argument == folder else argument for argument in finetune]
    arguments += ["--steps", 1]
    script(*arguments)
    for name in ("images", "masks"):
        shutil.copy(root / name / "scene-000001.png", root / name / "a.png")
    script(*arguments, "--resume", "auto", "--accept-changed-data")
    samples = map(json.loads, (tmp_path / "run" / "data.jsonl").read_text().splitlines())
    names = [f"scene-00000{index}" for index in range(6)]
    held_out = ["a", names[0], names[5]]
    assert [sample["name"] for sample in samples] == [*names[1:5], *held_out]
    log = (tmp_path / "run" / "train.log").read_text()
    assert " WARNING going on with changed data: the run had 2 images to validate on, not 3" in log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--learning-rate", 0), "learning_rate must be above 0"),
        (("--weights", "nowhere.safetensors"), "no weights at nowhere.safetensors"),
        (("--weights", "NONE"), "unknown weights 'NONE': expected one of"),
        (("--root", "nowhere"), "no folder nowhere: --root is your folder with images/ and masks/"),
        (("--root", "."), "no files in images and in masks"),
        (("--val-root", "nowhere"), "no folder nowhere: --val-root is your folder with images"),
        (("--dataset", "camvid", "--val-root", "."), "leave the validation folder . out"),
        (("--scale-low", 3), "scale_range must satisfy 0 < low <= high, not 3.0..2.0"),
        (
            ("--batch-size", 1, "--accumulation", 2),
            "batch_size 1 is too small for 1 processes and 2 forward passes",
        ),
        (("--scenes", 1), "scenes must be 0"),
        (("--freeze-backbone", 9), "freeze_backbone: stages must be 'all' or a number in 0..5"),
        (("--negative-slope", 0.01), "negative_slope 0.01 has no effect with weights"),
        (("--norm", "inplace"), "activations are ReLU: give norm 'batch'"),
        (("--output-stride", 5), "output_stride must be one of"),
        (("--device", "warp"), "device 'warp' cannot be used"),
    ],
)
def test_invalid_values_give_one_line(script, finetune, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=r"^error: [^\n]*$") as stop:
        script(*finetune, *arguments)
    assert message in str(stop.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("package", "extra"), [("tensorboard", "train"), ("wandb", "wandb")])
def test_missing_extra_is_named_before_anything_is_loaded(
    script, finetune, monkeypatch, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf'^error: {package} must be installed .* pip install "ccnet-pytorch\[{extra}\]"'
    with pytest.raises(SystemExit, match=message):
        script(*finetune, "--tracker", package, "--root", "nowhere", "--device", "warp")


@pytest.mark.parametrize("wrong", [("--root", "nowhere"), ("--learning-rate", 0)])
def test_missing_folder_and_wrong_value_are_said_first(script, finetune, monkeypatch, wrong):
    """Before other processes are waited for, the device is tried or the folder created."""
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    message = "^error: (no folder nowhere: --root|learning_rate must be above 0)"
    with locks.FolderLock("run"), pytest.raises(SystemExit, match=message):
        script(*finetune, "--device", "warp", *wrong)


@pytest.mark.parametrize(
    "arguments", [("--steps", "many"), ("--optimizer", "adam"), ("--nothing",)]
)
def test_unknown_options_and_values_are_named(script, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        script("camvid-r18", "--run-dir", "run", *arguments)
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: train.py RECIPE --run-dir FOLDER")
    assert arguments[0] in error


def test_every_field_of_a_recipe_has_an_option():
    arguments, expected = ["camvid-r18", "--run-dir", "run"], {}
    for name, usual in dataclasses.asdict(RECIPES["camvid-r18"]).items():
        flag = f"--{name.replace('_', '-')}"
        expected[name] = usual
        if name in ("weights_backbone", "gradient_checkpointing"):  # exclude other fields
            continue
        if isinstance(usual, bool):
            expected[name] = not usual
            arguments.append(f"--no-{flag[2:]}" if usual else flag)
            continue
        if name == "backbone":
            expected[name] = "timm:resnet26"
        elif name in CHOICES:
            expected[name] = next(choice for choice in CHOICES[name] if choice != usual)
        else:
            text = {"freeze_backbone": "all", "mix": "folder=0.5"}.get(name, "DEFAULT")
            larger = usual if usual == "" else usual + (0.5 if name == "average_decay" else 1)
            expected[name] = text if usual == "" else type(usual)(larger)
        arguments += [flag, str(expected[name])]
    parsed = train.parse_arguments(arguments)
    assert expected.keys() <= vars(parsed).keys()
    assert dataclasses.asdict(train.chosen_recipe(parsed)) == expected


WITH_A_SMALL_NETWORK = """
import os, pathlib, runpy, signal, sys
from unittest import mock
from small_runs import small_backbones
from ccnet.training.engine import Trainer
script, killed = sys.argv[1], pathlib.Path(sys.argv[2])
sys.argv = [script, *sys.argv[3:]]
train_step = Trainer._train_step
def die_once(trainer, *arguments):
    if os.environ["RANK"] == "1" and trainer.step == 3 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(trainer, *arguments)
with small_backbones(), mock.patch.object(Trainer, "_train_step", die_once):
    runpy.run_path(script, run_name="__main__")
"""
"""Runs the script, and kills rank 1 before its fourth step unless a file says it was killed."""


def test_torchrun_resumes_after_a_rank_was_killed(repository, run_forked, folder, tmp_path):
    (tmp_path / "wrapper.py").write_text(WITH_A_SMALL_NETWORK)
    (tmp_path / "undisturbed.killed").touch()
    torchrun = (*TORCHRUN, "--standalone", "--nproc-per-node", 2)
    chosen = ("finetune", "--root", folder, "--weights", "", *QUICK, "--resume", "auto")
    chosen += ("--steps", 6, "--validate-every", 2, "--batch-size", 3, "--balance-classes")
    for name in ("run", "undisturbed"):
        run_forked(
            *(*torchrun, "--max-restarts", 2, tmp_path / "wrapper.py"),
            *(repository / "scripts" / "train.py", tmp_path / f"{name}.killed"),
            *(*chosen, "--run-dir", tmp_path / name),
            cwd=tmp_path,
            PYTHONPATH=os.pathsep.join([str(repository), str(repository / "tests")]),
            OMP_NUM_THREADS="1",
            TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
        )
    assert (tmp_path / "run.killed").exists()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert_same_end(tmp_path / "run", tmp_path / "undisturbed")


def test_run_ended_by_sigterm_is_resumed_as_if_nothing_had_happened(
    script, finetune, tmp_path, monkeypatch, capsys
):
    options = ("--weights", "", "--steps", 6, "--validate-every", 2)
    train_step = Trainer._train_step

    def stop(trainer, *arguments):
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(trainer, *arguments)

    with small_backbones():
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_train_step", stop)
            script(*finetune, *options)
        message = "stopped; checkpoint saved at step 3; resume with --resume auto"
        assert capsys.readouterr().out.splitlines() == [message]
        assert newest(tmp_path / "run")["step"] == 3
        script(*finetune, *options, "--resume")
        script(*finetune, *options, "--run-dir", "whole")
        assert_same_end(tmp_path / "run", tmp_path / "whole")
        script(*finetune, *options, "--steps", 7, "--resume", "--accept-changed-recipe")
    assert newest(tmp_path / "run")["step"] == 7
    log = (tmp_path / "run" / "train.log").read_text()
    assert " WARNING going on with a changed recipe: steps 6, now 7\n" in log
    assert " INFO weights: those of step 6 of this run\n" in log
    assert " INFO training: steps 7 to 7 of 2 images, crops of 49x33" in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_before_the_first_step_leaves_nothing(script, finetune, monkeypatch, number):
    def ask(*_, **__):
        assert Path("run").is_dir()
        os.kill(os.getpid(), number)

    monkeypatch.setattr(train, "build_model", ask)
    with pytest.raises(KeyboardInterrupt, match=str(int(number))):
        script(*finetune)
    assert not Path("run").exists()


def test_folder_in_use_is_refused_before_data_are_read(script, finetune, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    refused = pytest.raises(SystemExit, match=r"^error: run is in use by another object [^\n]*$")
    with locks.FolderLock("run"), refused:
        script(*finetune, "--root", ".")
