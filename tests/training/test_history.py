"""The validation history: which records count after a crash, and how the file is written."""

import json
import math

import pytest
import torch

from ccnet.classes import CAMVID, LabelSet
from ccnet.evaluation import Scores
from ccnet.training.history import History

SCORES = [Scores(torch.eye(11, dtype=torch.int64) * 5 + k, CAMVID) for k in (3, 1, 2)]
"""Scores of three validations, the second the best."""


@pytest.fixture
def path(tmp_path):
    """A file with the records of the steps 10, 20 and 30."""
    history = History(tmp_path / "log.jsonl", CAMVID)
    for step, scores in zip((10, 20, 30), SCORES, strict=True):
        history.append(step, step / 100, scores)
    return history.path


def load(path, step):
    history = History(path, CAMVID)
    history.load(step)
    return history


def test_history_knows_last_step_best_and_last_scores(path):
    history = load(path, 30)
    assert history.last_step == 30
    assert history.best == SCORES[1].miou > SCORES[2].miou > SCORES[0].miou
    assert torch.equal(history.scores.confusion, SCORES[2].confusion)
    assert history.scores.miou == SCORES[2].miou
    assert history.scores.label_set == CAMVID
    assert [(record["step"], record["loss"]) for record in history.records] == [
        *((10, 0.1), (20, 0.2), (30, 0.3))
    ]
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.records


@pytest.mark.parametrize(("step", "last"), [(0, 0), (9, 0), (10, 10), (29, 20), (30, 30), (99, 30)])
def test_records_later_than_the_checkpoint_are_dropped(path, step, last):
    history = load(path, step)
    assert [record["step"] for record in history.records] == list(range(10, last + 1, 10))
    assert history.last_step == last
    history.append(last + 5, 0.5, SCORES[0])
    assert load(path, 99).records == history.records


@pytest.mark.parametrize(
    "line",
    [
        *("", "20", "[]", "null", "{}", '{"step": 20, "conf', '{"step": 20}'),
        *('{"confusion": []}', '{"step": "20", "confusion": []}', "\udcff"),
        *('{"step": 20, "confusion": [[1]]}', '{"step": 20, "mIoU": null, "confusion": [[1]]}'),
        *('{"step": 20, "mIoU": 3.5, "confusion": "x"}', "[" * 100_000),
    ],
    ids=range(14),
)
def test_history_stops_at_a_damaged_line(path, line):
    first, _, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line.encode(errors="surrogateescape"), third, b""]))
    assert load(path, 99).last_step == 10


def test_edited_and_foreign_records_are_not_believed(path):
    lines = path.read_text().splitlines()
    second = json.loads(lines[1])
    for change in ({"mIoU": 99.0}, {"step": 10}, {"step": True}, {"step": 20.0}):
        edited = json.dumps({**second, **change})
        path.write_text("\n".join([lines[0], edited, lines[2]]))
        assert load(path, 99).last_step == 10
    other = History(path, LabelSet.numbered(3))
    other.load(99)
    assert other.records == []


def test_best_miou_of_the_checkpoint_outlives_the_log(path):
    path.unlink()
    history = History(path, CAMVID)
    history.load(30, best=SCORES[1].miou)
    history.append(40, 0.4, SCORES[0])
    assert history.best == SCORES[1].miou


@pytest.mark.parametrize(
    ("data", "best", "last"),
    [("aaa", 1, 3), ("aab", 2, 3), ("aba", 2, 3), ("baa", 1, 3), ("-aa", 1, 3), ("aa-", 1, 3)],
)
def test_last_records_in_a_row_of_the_same_data_count(tmp_path, data, best, last):
    """The data of each record by a letter, or none; then those of the last letter."""
    for step, (scores, name) in enumerate(zip(SCORES, data, strict=True), 1):
        history = History(tmp_path / "log.jsonl", CAMVID, name.strip("-"))
        history.load(step)
        history.append(step, 0.5, scores)
    history = History(tmp_path / "log.jsonl", CAMVID, data.strip("-")[-1])
    history.load(9)
    assert (history.best, history.last_step) == (SCORES[best].miou, last)
    other = History(tmp_path / "log.jsonl", CAMVID, "c")
    other.load(9)
    assert other.best == (SCORES[2].miou if data[-1] == "-" else -math.inf)


@pytest.mark.parametrize("remove", [True, False], ids=["no file", "empty file"])
def test_history_without_records(path, remove):
    path.unlink() if remove else path.write_text("")
    history = load(path, 99)
    assert (history.records, history.last_step, history.best) == ([], 0, -math.inf)


def test_file_is_replaced_atomically(path, monkeypatch):
    before = path.read_bytes()
    history = load(path, 30)

    def fail(*_):
        assert path.read_bytes() == before
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        history.append(40, 0.4, SCORES[0])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
