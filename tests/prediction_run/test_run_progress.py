"""What a run tells of itself: its progress, and its end."""

import io
import re

import pytest

from ccnet.jobs.results import Standing
from ccnet.prediction_run import progress
from ccnet.prediction_run.progress import Progress
from ccnet.prediction_run.report import MOST_FAILURES, Report


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, **options):
    """What is shown of ten pictures, two a second, with a line every two seconds."""
    now = [100.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "INTERVAL", 2.0)
    bar = Progress(10, **options)
    for done in range(1, 11):
        now[0] += 0.5
        bar.show(done)
    bar.close()
    return stream.getvalue()


def test_progress_tells_the_time_left(monkeypatch):
    lines = shown(monkeypatch, io.StringIO()).splitlines()
    assert lines == [
        "40% 4/10 [00:02<00:03,  2.00 pictures/s]",
        "80% 8/10 [00:04<00:01,  2.00 pictures/s]",
    ]
    bar = shown(monkeypatch, Terminal())
    assert re.search(r"\r100%.*10/10 \[\d\d:\d\d<\d\d:\d\d, ", bar)
    assert "\n" not in bar.strip()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_that_is_not_shown(monkeypatch, stream):
    assert shown(monkeypatch, stream(), is_shown=False) == ""


def test_reports_of_processes_add_up():
    first, second = Report(segmented=3, computing=8.0, seconds=10.0), Report()
    second.segmented, second.computing, second.seconds, second.results = 5, 9.0, 10.0, 1
    first.filled, second.filled = 1, 2
    second.kept[Standing.SAME.name] += 2
    for number in range(MOST_FAILURES + 5):
        second.fail(f"bytes \udcff {number}")
    first.add(Report.from_json(second.to_json()))
    first.elapsed = 4.0
    assert first.describe(100) == [
        "left out: 1 result of this program",
        "8 pictures in 4.0 s: 2 a second; the network computed 85 % of the time",
        "batches were filled up, 3 places were computed for no picture: "
        "a smaller --batch-size saves that",
        "2 of 99 have results already: skipped (see --overwrite)",
    ]
    assert (first.failed, len(first.failures)) == (MOST_FAILURES + 5, MOST_FAILURES)
    assert first.failures == second.failures
