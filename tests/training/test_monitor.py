"""Monitoring: TensorBoard curves, overlays, log file and versions of a run."""

import json
import logging
import platform
import time

import pytest
import torch
from small_runs import (
    SMALL,
    changed,
    interrupt,
    log_of,
    trainer,
)

from ccnet.classes import CAMVID
from ccnet.training.optimization import poly_schedule


def test_environment_and_log_file_whatever_the_program_shows(tmp_path):
    logging.getLogger("ccnet").setLevel(logging.ERROR)
    try:
        trainer(tmp_path, changed(steps=1), environment={"command": "train.py"}).run()
        assert logging.getLogger("ccnet").level == logging.ERROR
    finally:
        logging.getLogger("ccnet").setLevel(logging.NOTSET)
    assert " INFO step 1 of 1: loss " in (tmp_path / "train.log").read_text()
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["command"] == "train.py"
    assert environment["torch"] == torch.__version__
    assert environment["python"] == platform.python_version()
    assert environment["processes"] == 1


def curves(run_dir):
    accumulation = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulation.EventAccumulator(str(run_dir / "tensorboard"))
    return events.Reload()


def test_curves_and_overlays_are_logged(finished):
    run_dir, _ = finished
    events = curves(run_dir)
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert losses[1].value == pytest.approx(log_of(run_dir)[0]["loss"])
    rates = [event.value for event in events.Scalars("train/learning_rate")]
    expected = [SMALL.learning_rate * poly_schedule(step, SMALL) for step in range(4)]
    assert rates == pytest.approx(expected)
    for name, key in (("val/mIoU", "mIoU"), ("val/pixel_accuracy", "pixel accuracy")):
        values = [(event.step, event.value) for event in events.Scalars(name)]
        assert values == [(r["step"], pytest.approx(r[key])) for r in log_of(run_dir)]
    assert {f"val_IoU/{name}" for name in CAMVID.categories} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["val/0", "val/1"]
    shown = [(image.step, image.width, image.height) for image in events.Images("val/1")]
    assert shown == [(2, 96, 64), (4, 96, 64)]


def test_curves_continue_without_gap_or_repetition(tmp_path):
    interrupt(tmp_path, steps=3)
    time.sleep(1)  # files of curves are read in the order of the seconds in their names
    trainer(tmp_path, resume=True).run()
    events = curves(tmp_path)
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("val/mIoU")] == [2, 4]
