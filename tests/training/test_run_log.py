"""train.log: all that a run says, from its start to its end, and nothing of starts that failed."""

import logging
from pathlib import Path

import pytest
from small_runs import Scenes, changed, interrupt, trainer

from ccnet.training.run_log import RunLog
from ccnet.training.termination import Terminated

logger = logging.getLogger("ccnet.somewhere")


def lines(run_dir):
    """The lines of the log without their times."""
    return [" ".join(line.split()[2:]) for line in (run_dir / "train.log").read_text().splitlines()]


def test_log_has_what_was_said_before_it_was_open(tmp_path, monkeypatch):
    # pytest-xdist sends no text that is not UTF-8
    monkeypatch.setattr(logging.getLogger("ccnet"), "propagate", False)
    with RunLog(tmp_path).attached() as log:
        logger.info("of two classes")
        with log.attached():
            log.open()
            assert lines(tmp_path) == ["INFO of two classes"]
            logger.warning("untrained: %s", "head")
        logger.info("after\udc80")
    logger.warning("of something else")
    expected = ["INFO of two classes", "WARNING untrained: head", "INFO after\\udc80"]
    assert lines(tmp_path) == expected


def end(log, error, *, is_open=True):
    """Raises an error within a log."""
    with log.attached(), log.attached():
        if is_open:
            log.open()
        logger.info("4 images")
        raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Terminated("stopped; checkpoint saved at step 3"), "INFO stopped; checkpoint saved at"),
        (FloatingPointError("the loss of step 2 is nan"), "ERROR the loss of step 2 is nan"),
        (KeyboardInterrupt(), "ERROR KeyboardInterrupt"),
    ],
    ids=repr,
)
def test_log_ends_with_why_the_run_ended(tmp_path, error, line):
    log = RunLog(tmp_path)
    with pytest.raises(type(error)):
        end(log, error)
    first, last = lines(tmp_path)
    assert first == "INFO 4 images"
    assert last.startswith(line)
    assert log not in logging.getLogger("ccnet").handlers


def test_start_that_fails_writes_nothing(tmp_path):
    with pytest.raises(FileExistsError):
        end(RunLog(tmp_path), FileExistsError(), is_open=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_full_disk_is_reported_by_the_run_alone(tmp_path, capsys):
    (tmp_path / "train.log").symlink_to("/dev/full")
    with pytest.raises(OSError, match="no space"):
        end(RunLog(tmp_path), OSError("no space"))
    assert capsys.readouterr().err == ""


def test_trainer_says_how_it_goes_on_and_stops(tmp_path):
    interrupt(tmp_path, steps=3)
    assert lines(tmp_path)[-1] == "ERROR the power failed"
    before = lines(tmp_path)
    with pytest.raises(FileExistsError):
        trainer(tmp_path)
    with pytest.raises(ValueError, match="has seed 0"):
        trainer(tmp_path, changed(seed=1), resume=True)
    assert lines(tmp_path) == before
    running = trainer(tmp_path, resume=True, accept_changed_data=True, train_set=Scenes(6))
    running.termination.requested = True
    with pytest.raises(Terminated):
        running.run()
    resumed, warned, *_, stopped = lines(tmp_path)[len(before) :]
    assert resumed == f"INFO resuming from {tmp_path / 'checkpoints' / 'step-00000002.pt'}"
    assert warned.startswith("WARNING going on with changed data: the run had 5 images")
    assert stopped == "INFO stopped; checkpoint saved at step 3"
