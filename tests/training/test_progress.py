"""Progress of a run: lines in the log where there is no terminal, and the time that is left."""

import io
import itertools

import pytest

from ccnet.training import progress


@pytest.fixture
def clock(monkeypatch):
    """A function that lets each step take so many seconds."""

    def set_pace(seconds):
        times = itertools.count(100.0, seconds)
        now = [next(times)]

        class Clock:
            def monotonic(self):
                return now[0]

        monkeypatch.setattr(progress, "time", Clock())
        return lambda: now.__setitem__(0, next(times))

    return set_pace


@pytest.mark.parametrize(
    ("seconds", "steps", "expected"),
    [
        (20.0, 7, ["step 3 of 7: loss 1.000, 80 s left", "step 6 of 7: loss 1.000, 20 s left"]),
        (60.0, 2, ["step 1 of 2: loss 1.000, 60 s left", "step 2 of 2: loss 1.000"]),
        (1.0, 30, []),
    ],
)
def test_line_is_logged_once_a_minute(caplog, clock, seconds, steps, expected):
    caplog.set_level("INFO", "ccnet")
    tick = clock(seconds)
    shown = progress.Progress(0, steps)
    for _ in range(steps):
        tick()
        shown.on_step(1.0)
    shown.close()
    assert caplog.messages == expected


def test_lines_are_no_more_than_a_hundred_and_time_counts_from_the_resumed_step(caplog, clock):
    caplog.set_level("INFO", "ccnet")
    tick = clock(120.0)
    shown = progress.Progress(5000, 10_000)
    for _ in range(5000):
        tick()
        shown.on_step(1.0)
    assert len(caplog.messages) == 50
    assert caplog.messages[0] == "step 5100 of 10000: loss 1.000, 7 days left"
    assert caplog.messages[-2] == "step 9900 of 10000: loss 1.000, 3 h left"


def test_terminal_gets_a_bar_and_no_lines(caplog, clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    caplog.set_level("INFO", "ccnet")
    tick, terminal = clock(120.0), Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    shown = progress.Progress(0, 3)
    for _ in range(2):
        tick()
        shown.on_step(1.0)
    assert caplog.messages == []
    shown.say("mIoU 50.00")
    shown.close()
    assert caplog.messages == ["step 2 of 3: mIoU 50.00, 2 min left"]
    assert "2/3" in terminal.getvalue()
