"""A run on all pictures, in one process or in several that know each other."""

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import distributed as dist

from ccnet.console import ENDS, ending_on_second_interrupt, ending_on_signals
from ccnet.distributed import from_rank_zero, rank, world_size
from ccnet.jobs.search import Found, is_record
from ccnet.prediction_run.pipeline import Pipeline
from ccnet.prediction_run.progress import Progress
from ccnet.prediction_run.records import NAME, Records, is_held, merge
from ccnet.prediction_run.report import Report
from ccnet.prediction_run.sharing import Share, shared_counters
from ccnet.prediction_run.stages import Picture, Stages

PATIENCE = 120.0
"""Seconds to wait for processes of which nothing is heard any more."""


def found_by_rank_zero(find: Callable[[], Found]) -> Found:
    """Finds the pictures.

    Every rank must call this; all get what rank 0 has found, since folders may change meanwhile.
    """
    values: list[Found | None] = [None] if rank() > 0 else [find()]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    (found,) = values
    assert found is not None
    return found


@dataclass(frozen=True)
class Run:
    """A run; every process has one.

    Attributes:
        found: the pictures, in the same order in all processes.
        indices: of those to segment, likewise.
        stages: what is done to each.
        output: the folder of the results.
        label: of the records: which process it is among those that do not know each other.
        limit: of pictures that all processes segment; None for all.
        workers: number of threads that read and write.
        tell: called with every picture that this process has segmented.
    """

    found: Found
    indices: Sequence[int]
    stages: Stages
    output: Path
    label: str
    limit: int | None
    workers: int
    tell: Callable[[Picture], None]

    def __call__(self) -> Report:
        """Segments the pictures; returns what became of them, on rank 0 in all processes.

        Raises:
            KeyboardInterrupt: if a signal arrives; what is computed is written and recorded then.
            OSError: if records cannot be written, or another process is gone that is needed.
            ValueError: if there are no records of this program's where they are to be.
        """
        counters = shared_counters()
        token, is_recorded = from_rank_zero(self._begin)
        label = f"rank{rank()}-{token}" if world_size() > 1 else self.label
        start = time.perf_counter()
        share = Share(self.indices, counters, self.limit)
        report = Report()
        with ending_on_second_interrupt(), ending_on_signals(ENDS):
            try:
                report = self._segment(share, label if is_recorded else None)
                if counters is not None:
                    report = _collected(report, counters, self.output, token)
                report.elapsed = time.perf_counter() - start
            finally:
                if rank() == 0 and is_recorded:
                    self._merge(report)
        return report

    def _merge(self, report: Report) -> None:
        try:
            merge(self.output)
        except OSError as error:  # a full disk, which has ended the run
            report.stops.append(f"the next run merges the records in {self.output}: {error}")

    def _begin(self) -> tuple[str, bool]:
        """Merges the records that runs before have left.

        Returns:
            A name for this run, and whether it has records: several pictures do, and one if there
            are records already, in which its line may be another one.
        """
        is_recorded = len(self.found.jobs) > 1 or is_record(self.output / NAME)
        if is_recorded:
            merge(self.output)
        return secrets.token_hex(4), is_recorded

    def _segment(self, share: Share, label: str | None) -> Report:
        with ExitStack() as stack:
            stages = replace(self.stages, is_result=self.found.is_result)
            records = None
            if label is not None:
                records = stack.enter_context(Records(self.output, label))
                stages = replace(stages, is_recorded=records.has)
            is_shown = len(self.found.jobs) > 1 and rank() == 0
            progress = Progress(share.total, is_shown=is_shown)
            stack.callback(progress.close)
            pipeline = Pipeline(
                self.found.jobs, share, stages, records, self.tell, progress, self.workers
            )
            report = pipeline.run()
            if records is not None and not records.are_there():
                report.stops.append(
                    f"records in {self.output} were removed while this ran: "
                    "run again for what is missing"
                )
            return report


def _collected(report: Report, store: Any, folder: Path, token: str) -> Report:
    """Gives rank 0 the sum of all reports, and adds which ranks did not come to their end."""
    if rank() > 0:
        store.set(f"report/{rank()}", report.to_json())
        store.add(f"ended/{rank()}", 1)
        return report
    missing = set(range(1, world_size()))
    heard = time.monotonic()
    while missing and time.monotonic() - heard < PATIENCE:
        for number in sorted(missing):
            if store.add(f"ended/{number}", 0):
                report.add(Report.from_json(store.get(f"report/{number}")))
                missing.remove(number)
        if any(
            is_held(part)
            for number in missing
            for part in folder.glob(f"results.rank{number}-{token}.*")
        ):
            heard = time.monotonic()
        time.sleep(0.05 if missing else 0)
    report.stops += [f"rank {number} ended early: run again for the rest" for number in missing]
    return report
