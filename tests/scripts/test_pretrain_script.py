"""The pre-training script, as a user runs it."""

import dataclasses
import runpy
import sys

import pytest
from PIL import Image
from small_runs import SmallBackbone, best_of, newest

from ccnet.training.classification import ClassificationRecipe

QUICK = ("--steps", 2, "--batch-size", 2, "--size", 16, "--precision", "float32", "--device", "cpu")


@pytest.fixture
def images(tmp_path):
    for name, color in (("sand", "yellow"), ("water", "blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (16, 16), color).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def script(repository, monkeypatch, tmp_path):
    """Runs the script in this process, with a small backbone."""
    monkeypatch.setattr("ccnet.training.classification.Backbone", SmallBackbone)

    def run(*arguments):
        path = repository / "scripts" / "pretrain_backbone.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__")

    return run


def test_backbone_is_pretrained_and_resumed(script, images, tmp_path, capsys):
    facts = ("--license", "CC0-1.0", "--source", "drawn")
    script(images, "--run-dir", tmp_path / "run", *QUICK, *facts)
    best = tmp_path / "run" / "best.safetensors"
    assert capsys.readouterr().out.startswith(f"{best}: accuracy ")
    weights = best_of(tmp_path / "run")
    assert weights.details["license"] == "CC0-1.0"
    assert weights.details["source"] == "drawn"
    assert weights.config["backbone"] == "resnet18"
    script(images, "--run-dir", tmp_path / "run", *QUICK, "--resume")
    with pytest.raises(SystemExit, match=r"^error: .* already holds a run"):
        script(images, "--run-dir", tmp_path / "run", *QUICK)


def test_every_field_of_the_recipe_has_an_option(script, images, tmp_path):
    chosen = dataclasses.replace(
        ClassificationRecipe(precision="float32", output_stride=32, steps=1, batch_size=2, size=16),
        **{"scale_low": 0.5, "color_jitter": 0.0, "learning_rate": 0.01, "warmup_steps": 3},
        **{"weight_decay": 0.1, "label_smoothing": 0.0, "average_decay": 0.5, "seed": 4},
        validate_every=7,
    )
    fields = dataclasses.asdict(chosen)
    options = [(f"--{name.replace('_', '-')}", value) for name, value in fields.items()]
    script(images, "--run-dir", tmp_path / "run", "--device", "cpu", *sum(options, ()))
    assert newest(tmp_path / "run")["recipe"] == fields


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), r"steps must be in 1\.\.inf, not 0"),
        (("--device", "warp"), "device 'warp' cannot be used"),
        (("--batch-size", 0), "batch_size must be in"),
    ],
)
def test_errors_are_one_line(script, images, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=f"^error: {message}[^\n]*$"):
        script(images, "--run-dir", tmp_path / "run", *QUICK, *arguments)
    assert not (tmp_path / "run").exists()


def test_missing_images_are_one_line(script, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: no folder or archive of classes at [^\n]*$"):
        script(tmp_path / "none", "--run-dir", tmp_path / "run", *QUICK)
