"""Runs that end early, after validations without a new best mIoU."""

import json

import pytest
import torch
from small_runs import Scenes, assert_same_end, changed, log_of, small_model, trainer

from ccnet.training import validation


@pytest.fixture
def scored(monkeypatch):
    """Has the validations of the next runs reach given shares of right pixels, by their step."""

    def script(shares):
        def confusion(model, dataset, protocol, each):
            for index in range(len(dataset)):
                dataset[index]
            right = round(100 * shares[running.step])
            counts = torch.zeros(11, 11, dtype=torch.int64)
            counts[0, 0], counts[0, 1] = right, 100 - right
            return counts

        monkeypatch.setattr(validation, "own_confusion", confusion)
        monkeypatch.setattr(validation, "learn_size", lambda *_: None)

        def start(*arguments, **options):
            nonlocal running
            running = trainer(*arguments, tracker="none", **options)
            return running

        running = None
        return start

    return script


def steps_of(run_dir):
    return [record["step"] for record in log_of(run_dir)]


@pytest.mark.parametrize(
    ("shares", "patience", "last"),
    [
        ([0.5, 0.4, 0.6, 0.5, 0.5, 0.5], 0, 6),
        ([0.5, 0.4, 0.6, 0.5, 0.6, 0.9], 2, 5),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 3, 4),
        ([0.9, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 2),
    ],
)
def test_run_ends_after_validations_without_a_new_best(
    tmp_path, scored, caplog, shares, patience, last
):
    caplog.set_level("INFO", "ccnet")
    start = scored(dict(enumerate(shares, 1)))
    recipe = changed(steps=6, validate_every=1, patience=patience)
    scores = start(tmp_path, recipe).run()
    assert steps_of(tmp_path) == list(range(1, last + 1))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["step"] == last
    assert results["mIoU"] == scores.miou
    best = max(record["mIoU"] for record in log_of(tmp_path))
    assert results["best"] == best
    message = (
        f"ended early, at step {last} of 6: no mIoU above {best:.2f} in {patience} validations"
    )
    assert (message in caplog.text) == (last < 6)
    caplog.clear()
    again = start(tmp_path, recipe, resume=True)
    assert again.run().miou == scores.miou
    assert again.step == last
    assert (message in caplog.text) == (last < 6)


def test_interrupted_run_ends_where_it_would_have(tmp_path, scored):
    start = scored({2: 0.5, 4: 0.4, 6: 0.3, 8: 0.9})
    recipe = changed(steps=8, patience=2)
    start(tmp_path / "whole", recipe).run()
    assert steps_of(tmp_path / "whole") == [2, 4, 6]
    model = small_model()
    failing = Scenes(on_draw=lambda count: 1 / (count != 11))
    with pytest.raises(ZeroDivisionError):
        start(tmp_path / "run", recipe, model=model, train_set=failing).run()
    assert steps_of(tmp_path / "run") == [2, 4]
    start(tmp_path / "run", recipe, model=small_model(seed=99), resume=True).run()
    for name in ("run", "whole"):
        (tmp_path / name / "tensorboard").mkdir()
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_best_whose_record_is_lost_still_counts(tmp_path, scored):
    start = scored({2: 0.5, 4: 0.4, 6: 0.6})
    recipe = changed(steps=6, patience=1)
    start(tmp_path, recipe).run()
    (tmp_path / "log.jsonl").unlink()
    start(tmp_path, recipe, resume=True).run()
    assert steps_of(tmp_path) == [4]
