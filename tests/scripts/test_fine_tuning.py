"""The benchmark of fine-tuning, exercised for two steps of a small network on small scenes."""

import json
from itertools import pairwise

import fine_tuning
import pytest
from PIL import Image
from small_runs import Scenes, fail, small_backbones, small_model, write_mask_folder

from ccnet.classes import CAMVID
from ccnet.datasets import CamVid
from ccnet.training.engine import Trainer
from ccnet.weights import read_weights, write_weights


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    root = tmp_path_factory.mktemp("camvid")
    write_mask_folder(root, Scenes(5), CAMVID.categories)
    (root / "images").rename(root / "train")
    (root / "masks").rename(root / "trainannot")
    return root


@pytest.fixture
def run(camvid, tmp_path, capsys):
    def run(*options):
        arguments = ["--root", camvid, "--only", "scene-00000", "--images", 2, "--workers", 0]
        sizes = ("--steps", 2, "--validate-every", 1, "--batch-size", 2, "--device", "cpu")
        crops = ("--crop-height", 32, "--crop-width", 48, "--precision", "float32")
        output = ("--output", tmp_path / "output", "--seeds", 1)
        with small_backbones():
            fine_tuning.main([str(one) for one in (*arguments, *sizes, *crops, *output, *options)])
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("count", [1, 2, 4])
def test_images_are_divided_evenly(count):
    names = [f"{street}-{number}" for number in range(5) for street in "ab"]
    trained, validated = fine_tuning.divide(names, "b", count)
    assert len(trained) == count
    assert sorted(trained + validated) == [1, 3, 5, 7, 9]
    gaps = [later - earlier for earlier, later in pairwise([*trained, 1 + 10])]
    assert max(gaps) - min(gaps) <= 2  # one image of the street


@pytest.mark.parametrize("count", [0, 5])
def test_division_needs_images_on_both_sides(count):
    with pytest.raises(ValueError, match=rf"--images must be in 1\.\.4, not {count}"):
        fine_tuning.divide(list("abcde"), "a,b,c,d,e", count)


def test_every_class_belongs_to_one_group(camvid):
    members = [name for group in fine_tuning.GROUPS.values() for name in group]
    assert sorted(members) == sorted(CAMVID.categories)
    dataset = CamVid(camvid, "train")
    (_, mask), (_, grouped) = dataset[1], fine_tuning.Grouped(dataset)[1]
    names = list(fine_tuning.GROUPS)
    for number, name in enumerate(CAMVID.categories):
        expected = names.index(next(g for g, own in fine_tuning.GROUPS.items() if name in own))
        assert (grouped[mask == number] == expected).all()
    assert (grouped[mask == 255] == 255).all()


def test_every_start_is_run_once_and_drawn(run, tmp_path, monkeypatch):
    model = small_model(training_size=[64, 96])
    weights = tmp_path / "whole.safetensors"
    write_weights(weights, model.to_weights())
    text = run("--weights", weights)
    assert "2 steps of 2 crops, the others to validate on, at 1 times their size;" in text
    rows = {line.split(" | ")[0]: line.split(" | ") for line in text.splitlines()}
    assert list(rows)[2:] == ["| start", "| ---", "| the weights", "| noise"]
    output = tmp_path / "output"
    for name, title in fine_tuning.STARTS.items():
        if name == "backbone":
            continue
        log = (output / f"{name}-seed0" / "log.jsonl").read_text().splitlines()
        values = [f"{json.loads(line)['mIoU']:.2f}" for line in log]
        assert rows[f"| {title}"][1:] == ["1", values[0], f"{values[1]} |"]
        best = read_weights(output / f"{name}-seed0" / "best.safetensors")
        assert best.config["label_set"]["categories"] == list(fine_tuning.GROUPS)
    with Image.open(output / "fine-tuning.png") as drawn:
        assert len(drawn.convert("RGB").getcolors(2**20)) > 10
    monkeypatch.setattr(Trainer, "_train_step", fail)
    assert run("--weights", weights) == text
    with pytest.raises(SystemExit, match=r"error: the run in .* has steps 2, not 3"):
        run("--weights", weights, "--steps", 3)
    with pytest.raises(SystemExit, match=r"error: the run in .* has 2 images to train on, not 3"):
        run("--weights", weights, "--images", 3)
    assert (output / "fine-tuning.md").read_text() in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", 0), "--seeds must be 1 or more, not 0"),
        (("--device", "gpu"), "device 'gpu' cannot be used"),
        (("--mix", "street-scenes=0.5"), "mix has no effect"),
    ],
)
def test_options_that_mean_nothing_are_refused(run, options, message):
    with pytest.raises(SystemExit, match=f"error: {message}"):
        run(*options)


def test_runs_of_other_lengths_are_compared_where_they_have_the_same_steps(tmp_path):
    """With patience, a run ends before others."""
    curves = {"weights": [{1: 10.0, 2: 20.0, 3: 30.0}], "scratch": [{1: 1.0, 2: 2.0}]}
    arguments = fine_tuning.parse_arguments(["--root", "c", "--output", str(tmp_path)])
    assert "step 1 | step 2 |\n" in (text := fine_tuning.as_markdown(arguments, curves))
    assert "| 1 | 10.00 | 20.00 |" in text
    fine_tuning.plot(tmp_path / "plot.png", curves)


def test_backbone_is_a_start_where_there_is_one(tmp_path):
    arguments = fine_tuning.parse_arguments(
        ["--root", "c", "--output", str(tmp_path), "--weights-backbone", "b.safetensors"]
    )
    found = fine_tuning.recipes(arguments)
    assert list(found) == list(fine_tuning.STARTS)
    started = [(one.weights, one.weights_backbone) for one in found.values()]
    assert started == [("DEFAULT", ""), ("", "b.safetensors"), ("", "")]
    assert len({one.steps for one in found.values()}) == 1
    runs = [(folder.name, one.seed) for _, one, folder in fine_tuning.runs(arguments)]
    assert runs == [(f"{name}-seed{seed}", seed) for seed in range(3) for name in found]
    arguments.weights = ""
    assert list(fine_tuning.recipes(arguments)) == ["backbone", "scratch"]
