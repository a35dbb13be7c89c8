"""What a run says when it starts and when it has ended."""

from pathlib import Path

import pytest
import torch
from small_runs import Scenes, changed, small_model, write_mask_folder
from torch.utils.data import Subset

from ccnet.classes import CAMVID
from ccnet.datasets import MaskFolder
from ccnet.evaluation import Scores
from ccnet.training.summary import describe_end, describe_start

RUN = Path("my runs") / "one"

START = {
    "untrained": ({}, 0, "weights: none: the network starts untrained"),
    "weights": ({"weights": "A"}, 0, "weights: A (derived from B)"),
    "backbone": ({"weights_backbone": "C"}, 0, "weights: C, of the backbone alone"),
    "resumed": ({"weights": "A"}, 3, "weights: those of step 3 of this run"),
    "new": ({}, 0, "training: 4 steps of 2 images, crops of 49x33, validated every 2 steps; "),
    "short": ({"validate_every": 4}, 0, "crops of 49x33, validated at the end; float32 on cpu"),
    "further": ({}, 3, "training: steps 4 to 4 of 2 images, crops of 49x33, "),
    "parts": (
        {"batch_size": 6, "accumulation": 4},
        *(0, "training: 4 steps of 6 images (1.5 in a forward pass), crops of"),
    ),
    "precision": ({"precision": "bfloat16"}, 0, "every 2 steps; bfloat16 on cpu"),
    "folder": (
        {},
        *(0, f"folder: {RUN} (all settings: recipe.json); curves: tensorboard --logdir '{RUN}'"),
    ),
}


@pytest.mark.parametrize(("fields", "step", "expected"), START.values(), ids=START)
def test_start_says_what_is_trained_from_what_how_and_where(fields, step, expected):
    model = small_model()
    model.card_details["weights"] = "derived from B"
    lines = describe_start(model, changed(**fields), torch.device("cpu"), step, RUN, "tensorboard")
    assert expected in "\n".join(lines)
    assert lines[0].startswith("network: resnet18 at output stride 8, 2 loops of attention, 0.")
    assert len(lines) == 4


@pytest.mark.parametrize("is_clone", [True, False])
def test_end_names_the_best_weights_and_a_command_that_uses_them(tmp_path, monkeypatch, is_clone):
    write_mask_folder(tmp_path / "a b", Scenes(4), CAMVID.categories)
    val_set = Subset(Subset(MaskFolder(tmp_path / "a b"), [1, 2, 3]), [2, 0])
    script = tmp_path / "train.py"
    monkeypatch.setattr("sys.argv", [str(script), "finetune"])
    if is_clone:
        (tmp_path / "predict.py").touch()
    scores = Scores(torch.eye(11, dtype=torch.int64), CAMVID)
    lines = describe_end(RUN, scores, 100.0, "resnet18", val_set)
    command = f"python {tmp_path / 'predict.py'}" if is_clone else "ccnet predict"
    picture = f"'{tmp_path / 'a b' / 'images' / 'scene-000003.png'}'"
    assert lines == [
        scores.table(),
        "",
        f"best weights: {RUN / 'best.safetensors'}, mIoU 100.00",
        f"to predict: {command} {picture} --weights '{RUN}' --output results",
    ]
    scores = Scores(torch.eye(11, dtype=torch.int64).roll(1, 0), CAMVID)
    *_, best, example = describe_end(RUN, scores, 50.0, "resnet101", Scenes(2))
    assert best.endswith("mIoU 50.00; the table is that of the last ones, mIoU 0.00")
    end = f"{command} --weights '{RUN}' --network ccnet_resnet101 --output results"
    assert example == f"to predict: {end}"
