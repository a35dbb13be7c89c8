"""Pipeline: pictures are read ahead and written by threads, beside the network that computes.

Decoders and encoders of pictures, hashes and the disk let other threads run meanwhile. A picture is
in one of three places: being read or read ahead; with the network; being written. Only so many are
in each that memory is bounded, whatever the number of pictures.
"""

import errno
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ccnet.inference.memory import GIB
from ccnet.inference.protocol import Size
from ccnet.jobs.jobs import Job, Jobs
from ccnet.prediction_run.progress import Progress
from ccnet.prediction_run.records import Records
from ccnet.prediction_run.report import Report
from ccnet.prediction_run.sharing import Share
from ccnet.prediction_run.stages import Picture, Stages, failure_entry, reason_of

PIXELS = 2**24
"""Pixels in flight for each worker: beyond, a picture waits for the others."""

PIXEL_BYTES = 32
"""About what reading one of them, and drawing its overlay, take; the network comes on top."""

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Errors of a disk on which the next picture will not find room either."""

Group = tuple[int, tuple[Size, ...]]
"""Which pictures go through the network together: `Stages.group`."""


@dataclass
class Pipeline:
    """A run in one process.

    Attributes:
        jobs: the pictures.
        share: which of them to take.
        stages: what is done to each.
        records: where each gets a line; None for no records.
        tell: called with every picture that has been segmented, when its results are there.
        progress: shows how far the run is.
        workers: number of threads that read and write.
    """

    jobs: Jobs
    share: Share
    stages: Stages
    records: Records | None
    tell: Callable[[Picture], None]
    progress: Progress
    workers: int

    def __post_init__(self) -> None:
        self.report = Report()
        self._reading = deque[tuple[Job, Future[Picture]]]()
        self._waiting: dict[Group, list[Picture]] = {}
        self._writing = deque[tuple[Picture, Future[None]]]()
        self._expected = self._most_pixels = PIXELS * self.workers
        self._is_all_taken = False

    def run(self) -> Report:
        """Segments pictures until there are no more; whatever ends it, what is computed is kept.

        Raises:
            ConnectionError: if the process is gone that hands out the pictures.
        """
        start = time.perf_counter()
        self._pool = ThreadPoolExecutor(self.workers)
        try:
            self._read_ahead()
            while self._reading or self._waiting or self._writing:
                if self._reading:
                    self._take()
                self._read_ahead()
                self._segment_groups()
                while self._writing and self._is_due():
                    self._settle()
                self.progress.show(self._done())
                self._read_ahead()
        finally:
            for _, future in self._reading:
                future.cancel()
            while self._writing:
                self._settle()
            self._pool.shutdown()
            self.report.seconds = time.perf_counter() - start
        return self.report

    def _done(self) -> int:
        """How many pictures are done in all processes, as far as this one knows."""
        taken = 0 if self.share.is_limited else len(self._reading)
        return self.share.position - len(self._held()) - taken

    def _held(self) -> list[Picture]:
        """The pictures that are read and not written yet."""
        waiting = [picture for pictures in self._waiting.values() for picture in pictures]
        return waiting + [picture for picture, _ in self._writing]

    def _read_ahead(self) -> None:
        """Starts to read pictures, as many as there is room for."""
        while len(self._reading) < self.workers + self.stages.batch_size and self._has_room():
            index = self.share.take()
            if index is None:
                self._is_all_taken = True
                return
            job = self.jobs[index]
            self._reading.append((job, self._pool.submit(self.stages.read, job)))

    def _has_room(self) -> bool:
        """Whether one more picture is likely to find room beside those in flight.

        Of those that are not read yet the size of the last one is expected, and of the first one
        the largest that there may be.
        """
        held = self._held()
        known = sum(math.prod(picture.size) for picture in held)
        unknown = (len(self._reading) + 1) * self._expected
        return not (held or self._reading) or known + unknown <= self._most_pixels

    def _take(self) -> None:
        """Takes the next picture that is read."""
        job, future = self._reading.popleft()
        try:
            picture = future.result()
        except Exception as error:
            self._fail(job, error)
            return
        if picture.pixels is None:
            self._keep(picture)
            return
        self._expected = math.prod(picture.size)
        group = self.stages.group(picture)
        self._make_room_for(group[0])
        if not self.report.stops and self.share.claim():
            self._waiting.setdefault(group, []).append(picture)

    def _make_room_for(self, count: int) -> None:
        """Lets as many pictures of the expected size be in flight as the memory limit allows."""
        most = int(self.stages.memory_limit * GIB / PIXEL_BYTES)
        self._most_pixels = max(PIXELS * self.workers, min(count * self._expected, most))

    def _segment_groups(self) -> None:
        """Segments the groups that are complete, and others if they would wait for too long."""
        for group, pictures in list(self._waiting.items()):
            waiting = sum(map(len, self._waiting.values()))
            is_last = not self._reading and (self._is_all_taken or not self._writing)
            is_late = is_last or waiting > 2 * self.stages.batch_size
            if len(pictures) == group[0] or is_late:
                del self._waiting[group]
                self.report.filled += group[0] - len(pictures)
                self.report.computing += self.stages.segment(pictures, group[0])
                for one in pictures:
                    self._writing.append((one, self._pool.submit(self.stages.write, one)))

    def _is_due(self) -> bool:
        """Whether to wait for the results of the next picture now."""
        _, future = self._writing[0]
        return len(self._writing) > self.workers or future.done() or not self._reading

    def _settle(self) -> None:
        """Waits for the results of the next picture, and records them."""
        picture, future = self._writing.popleft()
        try:
            future.result()
        except Exception as error:
            self._fail(picture.job, error)
            return
        self.report.segmented += 1
        self._record(picture.entry)
        self.tell(picture)

    def _keep(self, picture: Picture) -> None:
        if picture.standing is None:
            self.report.results += 1
        else:
            self.report.kept[picture.standing.name] += 1
            self._record(picture.entry)

    def _fail(self, job: Job, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in FULL:
            self._stop(error)
            return
        reason = reason_of(error, job.picture)
        self.report.fail(reason)
        self._record(failure_entry(job, reason))

    def _record(self, entry: dict[str, Any] | None) -> None:
        if self.records is None or entry is None:
            return
        try:
            self.records.add(entry)
        except OSError as error:
            self._stop(error)

    def _stop(self, error: OSError) -> None:
        """Ends the run after what is in flight: what comes next would fail as well."""
        if not self.report.stops:
            self.report.stops.append(f"stopped: {error}: make room and run again for the rest")
            self.share.stop()
