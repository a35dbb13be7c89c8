"""The command line that trains, as a user runs it."""

import dataclasses
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from small_runs import assert_same_end, newest, same

from ccnet.classes import CAMVID
from ccnet.serialization import read_weights
from ccnet.street_scenes import StreetScenes
from ccnet.training.checkpoint import Checkpoints
from ccnet.training.recipes import CHOICES, RECIPES, Recipe
from ccnet.training.setup import build_model, open_datasets
from ccnet.zoo import ccnet_resnet18

QUICK = (
    *("--steps", 2, "--batch-size", 2, "--crop-height", 33, "--crop-width", 49),
    *("--output-stride", 32, "--precision", "float32", "--device", "cpu", "--workers", 0),
    "--no-balance-classes",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes as somebody's own pictures and masks, with classes of other names."""
    root = tmp_path_factory.mktemp("own")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for index, (image, mask) in enumerate(StreetScenes(6, size=(64, 96))):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / "images" / f"{index}.png")
        Image.fromarray(mask.numpy()).save(root / "masks" / f"{index}.png")
        if index == 5:
            break
    write_classes(root, [f"my {name}" for name in CAMVID.categories])
    return root


def write_classes(root, names):
    (root / "classes.json").write_text(json.dumps(list(names)))


@pytest.fixture
def train(repository, run_python, tmp_path, folder, weights_file):
    """Runs the script on that folder, by the recipe `finetune` from a weights file."""

    def run(*arguments, succeeds=True, **variables):
        script = repository / "scripts" / "train.py"
        chosen = ("finetune", "--root", folder, "--run-dir", "run", "--weights", weights_file)
        return run_python(
            *(script, *chosen, *QUICK, *arguments), cwd=tmp_path, succeeds=succeeds, **variables
        )

    return run


def test_fine_tuning_on_a_folder_gives_weights_that_load(train, tmp_path):
    trained = train("--learning-rate", 1e-5)
    for name, value in (("steps", 2), ("crop_width", 49), ("learning_rate", "1e-05")):
        assert f"{name}: {value}\n" in trained.stderr
    assert "balance_classes: False\n" in trained.stderr
    assert "processes: 1, images a forward pass: 2\n" in trained.stderr
    assert "these parts start untrained: head.classifier, aux_head.classifier" in trained.stderr
    assert "| my road |" in trained.stdout
    command = json.loads((tmp_path / "run" / "environment.json").read_text())["command"]
    assert "train.py finetune --root" in command
    model = ccnet_resnet18(weights=tmp_path / "run" / "best.safetensors")
    assert model.label_set.categories == tuple(f"my {name}" for name in CAMVID.categories)
    labels = model.predict(torch.zeros(3, 40, 60, dtype=torch.uint8)).labels
    assert labels.shape == (40, 60)
    again = train(succeeds=False)
    assert errors(again) == [
        "error: run already holds a run: resume it (--resume auto) or name another"
    ]
    other = train("--resume", "auto", "--learning-rate", 1, succeeds=False)
    assert errors(other) == ["error: the run in run has learning_rate 1e-05, not 1.0"]


def errors(result):
    """What a failed command says in the end; there must be no traceback."""
    assert "Traceback" not in result.stderr
    return [line for line in result.stderr.splitlines() if "error:" in line]


@pytest.mark.parametrize("same_names", [False, True])
def test_classifiers_stay_where_the_classes_do(folder, weights_file, tmp_path, same_names):
    (tmp_path / "images").symlink_to(folder / "images")
    (tmp_path / "masks").symlink_to(folder / "masks")
    names = CAMVID.categories
    write_classes(tmp_path, names if same_names else [f"my {name}" for name in names])
    recipe = dataclasses.replace(RECIPES["finetune"], weights=str(weights_file))
    train_set, val_set, label_set = open_datasets(recipe, tmp_path)
    assert (len(train_set), len(val_set)) == (4, 2)
    model = build_model(recipe, label_set)
    assert model.backbone.layer4[0].conv1.stride == (1, 1)
    given, _ = read_weights(weights_file)
    for name, value in model.state_dict().items():
        fresh = "classifier" in name and not same_names
        assert torch.equal(value, given[name]) != fresh, name


def test_another_folder_to_validate_with(folder):
    recipe = RECIPES["finetune"]
    train_set, val_set, _ = open_datasets(recipe, folder, folder)
    assert (len(train_set), len(val_set)) == (6, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--learning-rate", 0), "learning_rate must be above 0"),
        (("--weights", "nowhere.safetensors"), "no weights at nowhere.safetensors"),
        (("--weights", "NONE"), "no weights 'NONE': expected one of"),
        (("--root", "nowhere"), "no files in nowhere/images and in nowhere/masks"),
        (("--scale-low", 3), "a range of scales needs 0 < low <= high, not 3.0..2.0"),
        (("--batch-size", 1, "--accumulation", 2), "a batch of 1 is too small"),
        (("--scenes", 1), "scenes must be 0"),
        (("--norm", "inplace"), "cannot be inverted"),
        (("--output-stride", 5), "output_stride must be one of"),
        (("--device", "warp"), "device 'warp' cannot be used"),
    ],
)
def test_bad_values_are_one_line(script, folder, weights_file, tmp_path, arguments, message):
    chosen = ("finetune", "--root", folder, "--run-dir", tmp_path / "run")
    chosen += ("--weights", weights_file, *QUICK, *arguments)
    with pytest.raises(SystemExit, match=r"^error: [^\n]*$") as stop:
        script(*chosen)
    assert message in str(stop.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def script(repository, monkeypatch, tmp_path):
    """Runs the script in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        path = repository / "scripts" / "train.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        return runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.mark.parametrize(
    "arguments", [("--steps", "many"), ("--optimizer", "adam"), ("--nothing",)]
)
def test_what_is_no_option_is_named(script, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        script("camvid-r18", "--run-dir", "run", *arguments)
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: train.py RECIPE --run-dir FOLDER")
    assert arguments[0] in error


def test_every_field_of_a_recipe_has_an_option(repository, monkeypatch):
    module = runpy.run_path(str(repository / "scripts" / "train.py"))
    arguments, expected = ["camvid-r18", "--run-dir", "run"], {}
    for field in dataclasses.fields(Recipe):
        usual = getattr(RECIPES["camvid-r18"], field.name)
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(usual, bool):
            expected[field.name] = not usual
            arguments.append(f"--no-{flag[2:]}" if usual else flag)
            continue
        if field.name in CHOICES:
            value = next(choice for choice in CHOICES[field.name] if choice != usual)
        elif field.name in ("weights_backbone", "gradient_checkpointing"):
            continue
        else:
            value = "DEFAULT" if usual == "" else type(usual)(usual + 1)
        expected[field.name] = value
        arguments += [flag, str(value)]
    arguments = [argument for argument in arguments if argument != "--gradient-checkpointing"]
    expected |= {"gradient_checkpointing": False, "weights_backbone": ""}
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    recipe = module["chosen_recipe"](module["parse_arguments"]())
    assert dataclasses.asdict(recipe) == expected


WITH_A_SMALL_NETWORK = """
import os, pathlib, runpy, signal, sys
from unittest import mock
from small_runs import SmallBackbone
from ccnet.training.engine import Trainer
script, killed = sys.argv[1], pathlib.Path(sys.argv[2])
sys.argv = [script, *sys.argv[3:]]
train_step = Trainer._train_step
def die_once(trainer, *arguments):
    if os.environ["RANK"] == "1" and trainer.step == 3 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(trainer, *arguments)
with mock.patch("ccnet.model.Backbone", SmallBackbone):
    with mock.patch.object(Trainer, "_train_step", die_once):
        runpy.run_path(script, run_name="__main__")
"""
"""Runs the script, and kills rank 1 before its fourth step unless there is a certain file."""


def test_torchrun_goes_on_after_a_rank_was_killed(repository, run_python, folder, tmp_path):
    (tmp_path / "wrapper.py").write_text(WITH_A_SMALL_NETWORK)
    (tmp_path / "undisturbed.killed").touch()
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    chosen = ("finetune", "--root", folder, "--weights", "", *QUICK, "--resume", "auto")
    chosen += ("--steps", 6, "--validate-every", 2, "--batch-size", 3, "--balance-classes")
    for name in ("run", "undisturbed"):
        run_python(
            *(*torchrun, "--max-restarts", 2, tmp_path / "wrapper.py"),
            *(repository / "scripts" / "train.py", tmp_path / f"{name}.killed"),
            *(*chosen, "--run-dir", tmp_path / name),
            cwd=tmp_path,
            PYTHONPATH=os.pathsep.join([str(repository), str(repository / "tests")]),
            OMP_NUM_THREADS="1",
        )
    assert (tmp_path / "run.killed").exists()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["processes"] == 2
    assert_same_end(tmp_path / "run", tmp_path / "undisturbed")


@pytest.fixture
def started(repository, tmp_path, folder, weights_file):
    """Starts the script and gives back the process once there is a checkpoint."""
    script = repository / "scripts" / "train.py"
    chosen = ("finetune", "--root", folder, "--weights", weights_file)

    def start(run_dir, *arguments):
        command = [sys.executable, script, *chosen, "--run-dir", run_dir, *QUICK, *arguments]
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repository)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and not Checkpoints(run_dir / "checkpoints").paths():
            time.sleep(0.02)
        return process

    return start


def test_sigterm_ends_a_run_that_is_resumed_as_if_nothing_had_been(started, tmp_path):
    options = ("--steps", 6, "--validate-every", 2)
    process = started(tmp_path / "run", *options)
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert re.search(r"^stopped .*step \d.*; go on with --resume auto$", output, re.MULTILINE)
    assert newest(tmp_path / "run")["step"] < 6
    for name, arguments in (("run", ("--resume",)), ("whole", ())):
        process = started(tmp_path / name, *options, *arguments)
        output, error = process.communicate()
        assert process.returncode == 0, error
    assert same(newest(tmp_path / "run"), newest(tmp_path / "whole"))
