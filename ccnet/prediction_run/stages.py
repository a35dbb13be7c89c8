"""Stages of a picture: read with what is known of it, segmented, written."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.inference import InferenceProtocol, Segmentation
from ccnet.inference.marked_png import Origin
from ccnet.inference.protocol import Size
from ccnet.jobs.jobs import Job
from ccnet.jobs.results import (
    Standing,
    check_results,
    origin_of,
    refuse_foreign,
    save_results,
    standing,
)
from ccnet.model import CCNet


@dataclass
class Picture:
    """A picture on its way.

    Attributes:
        job: the picture with the paths of its results.
        origin: what its results say.
        standing: which results it has; None if it is a result itself.
        pixels: (C, H, W), uint8; None unless it is to be segmented.
        outcome: the segmentation, or why there is none.
        entry: for the records; None if there is nothing to record.
        seconds: that it has taken, those of waiting left out.
        size: H and W, once it is decoded.
    """

    job: Job
    origin: Origin = field(default_factory=Origin)
    standing: Standing | None = None
    pixels: Tensor | None = None
    outcome: Segmentation | Exception | None = None
    entry: dict[str, Any] | None = None
    seconds: float = 0.0
    size: Size = (0, 0)


@dataclass(frozen=True)
class Stages:
    """What is done to each picture, with all that its results depend on but the picture.

    Any thread may read and write pictures; one alone segments them.

    Attributes:
        model: the network.
        protocol: the options of inference.
        memory_limit: GiB that a picture may take.
        maker: what all results say.
        kinds: of the results, some of `OUTPUTS`.
        overwrite: whether to replace results.
        batch_size: the largest number of pictures that go through the network together.
        is_result: tells pictures that are results, which are passed over.
        is_recorded: whether there is a record of the results of a picture, by its name and their
            origin.
    """

    model: CCNet
    protocol: InferenceProtocol
    memory_limit: float
    maker: Origin
    kinds: Collection[str]
    overwrite: bool = False
    batch_size: int = 1
    is_result: Callable[[Job], bool] = lambda job: False
    is_recorded: Callable[[str, Origin], bool] = lambda name, origin: True

    def read(self, job: Job) -> Picture:
        """Looks which results a picture has, and decodes it if it is to be segmented.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is no picture, or there are files in the way of its results.
        """
        start, now = time.perf_counter(), time.time()
        if self.is_result(job):
            return Picture(job)
        picture = Picture(job, origin_of(job.picture, self.maker), Standing.NONE)
        if self.overwrite:
            refuse_foreign(job, self.kinds)  # before anything is computed
        else:
            picture.standing = standing(job, picture.origin, self.kinds)
        if picture.standing is Standing.NONE:
            picture.pixels = self.model.preprocessing.decode(job.picture)
            height, width = picture.pixels.shape[1:]
            picture.size = height, width
        elif picture.standing is Standing.SAME and not self.is_recorded(
            _name_of(job), picture.origin
        ):
            result = self._read_labels(job) if "labels" in self.kinds else None
            picture.entry = self._entry(picture, result, now)
        picture.seconds = time.perf_counter() - start
        return picture

    def group(self, picture: Picture) -> tuple[int, tuple[Size, ...]]:
        """Returns how many pictures of its group go through the network together, and which one.

        They are those of the same number and views.
        """
        if self.batch_size == 1:
            return 1, ()
        size, protocol = picture.size, self.protocol
        views = tuple(protocol.view_size(size, scale) for scale in protocol.scales)
        return self.model._batch_size(size, protocol, self.memory_limit, self.batch_size), views

    def segment(self, pictures: Sequence[Picture], count: int) -> float:
        """Segments pictures of one group of `count`; returns the seconds that it took."""
        start = time.perf_counter()
        try:
            outcomes = self._outcomes(pictures, count)
        except Exception as error:
            outcomes = [error] * len(pictures)
        seconds = time.perf_counter() - start
        for picture, outcome in zip(pictures, outcomes, strict=True):
            picture.outcome, picture.pixels = outcome, None
            picture.seconds += seconds / len(pictures)
        return seconds

    def _outcomes(
        self, pictures: Sequence[Picture], count: int
    ) -> Sequence[Segmentation | Exception]:
        images = [picture.pixels for picture in pictures if picture.pixels is not None]
        if count > 1:
            return self.model._segment_together(images, count, self.protocol)
        return [
            self.model._segment(
                images[0],
                protocol=self.protocol,
                memory_limit=self.memory_limit,
                name=str(pictures[0].job.picture),
            )
        ]

    def write(self, picture: Picture) -> None:
        """Writes the results of a picture.

        Raises:
            OSError: if a file cannot be written.
            ValueError: if the picture was changed meanwhile, or there are files in the way.
            Exception: whatever it is that the picture has in place of a result.
        """
        result = picture.outcome
        if not isinstance(result, Segmentation):
            raise result or ValueError("it was not segmented")
        start = time.perf_counter()
        if origin_of(picture.job.picture, self.maker) != picture.origin:
            raise ValueError("the picture was changed while it was segmented")
        save_results(picture.job, result, picture.origin, self.kinds, overwrite=self.overwrite)
        written = time.time()  # before the check: whoever replaces these has a later one
        check_results(picture.job, picture.origin, self.kinds)
        picture.seconds += time.perf_counter() - start
        picture.entry = self._entry(picture, result, written, picture.seconds)

    def _entry(
        self,
        picture: Picture,
        result: Segmentation | None,
        written: float,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """What is recorded of a picture that has results, as far as it is known."""
        job = picture.job
        entry = {**_identity(job), "made_by": picture.origin.digest, **_time(written)}
        if result is not None:
            height, width = result.labels.shape
            seen = result.view_size or (height, width)
            entry |= {"width": width, "height": height, "seen": [seen[1], seen[0]]}
            entry["shares"] = {name: round(part, 6) for name, part in result.shares().items()}
        entry["seconds"] = seconds and round(seconds, 4)
        paths = [job.path(kind).relative_to(job.output).as_posix() for kind in self.kinds]
        return {**entry, "files": paths}

    def _read_labels(self, job: Job) -> Segmentation:
        path = job.path("labels")
        try:
            with Image.open(path) as image:
                labels = torch.from_numpy(np.array(image))
        except Exception as error:
            raise ValueError(
                f"{job.picture}: its labels {path} cannot be read ({error}): make them anew by "
                "--overwrite"
            ) from error
        seen = self.protocol.view_size((labels.shape[0], labels.shape[1]))
        return Segmentation(labels, self.model.label_set, labels[None], view_size=seen)


def failure_entry(job: Job, reason: str) -> dict[str, Any]:
    """What is recorded of a picture that could not be segmented."""
    return {**_identity(job), **_time(time.time()), "error": reason}


def _identity(job: Job) -> dict[str, Any]:
    return {"name": _name_of(job), "picture": str(job.picture)}


def _time(seconds: float) -> dict[str, float]:
    return {"written": round(seconds, 6)}


def _name_of(job: Job) -> str:
    return Path(job.name).as_posix()


def reason_of(error: Exception, picture: Path) -> str:
    """One line that names the picture."""
    reason = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError):
        reason = f"{type(error).__name__}: {reason}"
    return reason if str(picture) in reason else f"{picture}: {reason}"
