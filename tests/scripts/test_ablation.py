"""The ablation, exercised for two steps of a small network on small rendered scenes."""

import dataclasses
import json
import re
import signal

import ablation
import pytest
from small_runs import fail, on_call, same, small_backbones

from ccnet.baselines import NonLocalBlock2d
from ccnet.classes import CAMVID
from ccnet.inference import InferenceProtocol
from ccnet.model import CCNet
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.recipes import LATER
from ccnet.weights import read_weights

SCHEDULE = ("--recipe", "street-scenes-r18", "--leave-out", "scene-000001", "--no-balance-classes")
SIZES = ("--steps", 2, "--batch-size", 2, "--crop-height", 32, "--crop-width", 48)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("ccnet.training.setup.TRAIN_SCENES", 12)
    monkeypatch.setattr("ccnet.training.setup.VAL_SCENES", 1)

    def run(*options):
        arguments = ["--output", tmp_path, "--workers", 0, "--rounds", 1, "--device", "cpu"]
        with small_backbones():
            ablation.main([str(one) for one in (*arguments, *SCHEDULE, *SIZES, *options)])
        return capsys.readouterr().out

    return run


def rows_of(text):
    return {line.split(" | ")[0][2:]: line.strip("| ").split(" | ")[1:] for line in
            text.splitlines() if line.startswith("| ")}  # fmt: skip


def test_every_row_is_trained_measured_and_not_repeated(run, tmp_path, monkeypatch):
    text = run("--seeds", 1)
    assert (
        "2 steps of 2 crops of 48x32 from street-scenes without scene-000001, images at 1 times"
        in text
    )
    rows = rows_of(text)
    columns = ["seeds", "val", "left out: scene-000001", "step, ms", "kept, MiB", "published"]
    assert rows.pop("network") == columns
    assert list(rows) == ["---", "R = 0", "R = 1", "R = 2", "R = 3", "R = 2, CCL", "Non-local"]
    assert [row[-1] for row in list(rows.values())[1:]] == ["75.1", "78.0", "79.8", "80.2", *"--"]
    costs = json.loads((tmp_path / "costs.json").read_text())
    kept = [costs[f"r{loops}"]["kept"] for loops in range(4)]
    assert rows["R = 3"][4] == f"{kept[3]:.1f}"
    assert 0 < kept[0] < kept[1] < kept[2] < kept[3]
    for row in list(rows.values())[1:]:
        assert row[0] == "1"
        assert all(re.fullmatch(r"\d+\.\d\d", cell) for cell in row[1:3])
    saved = json.loads((tmp_path / "r3-seed0" / "ablation.json").read_text())
    assert saved["recipe"]["recurrence"] == 3
    assert f"{saved['miou']['val']:.2f}" == rows["R = 3"][1]
    assert (tmp_path / "r3-seed0" / "results.json").is_file()
    one, other = (read_weights(tmp_path / f"{name}-seed0" / "best.safetensors")
                  for name in ("r1", "non-local"))  # fmt: skip
    assert one.state_dict.keys() == other.state_dict.keys()
    with pytest.raises(ValueError, match="attention"), small_backbones():
        CCNet.from_weights(other)
    older = {**saved, "recipe": {k: v for k, v in saved["recipe"].items() if k not in LATER}}
    (tmp_path / "r3-seed0" / "ablation.json").write_text(json.dumps(older))
    monkeypatch.setattr(Trainer, "_train_step", fail)
    monkeypatch.setattr(ablation, "evaluate", fail)
    assert rows_of(run("--seeds", 1))["R = 3"][1] == rows["R = 3"][1]
    with pytest.raises(SystemExit, match=r"error: the run in .* has steps 2, not 3; "):
        run("--steps", 3)
    monkeypatch.setattr("ccnet.training.setup.TRAIN_SCENES", 13)
    with pytest.raises(SystemExit, match=r"error: the run in .* has 11 images to train on, not 12"):
        run("--seeds", 1)


@pytest.mark.parametrize("option", ["--rounds", "--seeds"])
def test_numbers_are_refused_before_the_runs(run, tmp_path, option):
    with pytest.raises(SystemExit, match=f"error: {option} must be 1 or more, not 0"):
        run(option, 0)
    assert not list(tmp_path.iterdir())


def test_costs_are_those_of_the_precision_that_is_chosen(run, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        ablation, "choose_precision", lambda *given: chosen.append(given) or "bfloat16"
    )
    run("--only", "r1", "--seeds", 1, "--precision", "auto")
    assert [precision for precision, *_ in chosen] == ["auto"]
    assert json.loads((tmp_path / "costs.json").read_text())["r1"]["kept"] > 0


def test_non_local_block_starts_as_the_module_whose_place_it_takes():
    recipe = dataclasses.replace(RECIPES["street-scenes-r18"], recurrence=1)
    with small_backbones():
        model, other = (
            ablation.VARIANTS[name].build(recipe, CAMVID) for name in ("r1", "non-local")
        )
    assert isinstance(other.head.cca, NonLocalBlock2d)
    assert same(model.state_dict(), other.state_dict())


def test_stopped_ablation_goes_on(run, tmp_path, monkeypatch):
    """Seeds are counted by what was run of each row."""
    options = ("--only", "r1", "r2", "--seeds", 2, "--size-factor", 0.5)
    step = Trainer._train_step
    stop = on_call(4, lambda: signal.raise_signal(signal.SIGINT))
    protocols, evaluate = [], ablation.evaluate

    def measure(*arguments, protocol=None):
        protocols.append(protocol or InferenceProtocol())
        return evaluate(*arguments, protocol=protocol)

    monkeypatch.setattr(ablation, "evaluate", measure)

    def train_step(self, *arguments):
        stop()
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    assert run(*options) == "stopped; checkpoint saved at step 2; the same command goes on\n"
    table = rows_of((tmp_path / "ablation.md").read_text())
    assert [table[name][0] for name in ("R = 1", "R = 2")] == ["1", "0"]
    assert table["R = 2"][1:5] == ["-", "-", "-", "-"]
    table = rows_of(run(*options))
    for name in ("R = 1", "R = 2"):
        assert table[name][0] == "2"
        assert re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d - \d+\.\d\d\)", table[name][1])
    recipe = json.loads((tmp_path / "r1-seed1" / "recipe.json").read_text())
    assert (recipe["seed"], recipe["size_factor"]) == (1, 0.5)
    assert {protocol.scales for protocol in protocols} == {(0.5,)}
    saved = json.loads((tmp_path / "r1-seed1" / "ablation.json").read_text())
    del saved["recipe"]["average_decay"]  # as of an earlier version
    (tmp_path / "r1-seed1" / "ablation.json").write_text(json.dumps(saved))
    assert rows_of(run(*options))["R = 1"][1] == table["R = 1"][1]
    options = (*options, "--leave-out", "scene-000002")
    with pytest.raises(SystemExit, match=r"error: the run in .* has leave_out 'scene-000001', not"):
        run(*options)
