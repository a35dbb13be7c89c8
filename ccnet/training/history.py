"""Validation history of a run: log.jsonl, one record per validation."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from ccnet import distributed
from ccnet.classes import LabelSet
from ccnet.evaluation import Scores
from ccnet.files import atomic_write
from ccnet.inference.prediction import TRAINING_SIZE
from ccnet.inference.protocol import Size


def comparable(records: Sequence[dict[str, Any]], data: str) -> list[dict[str, Any]]:
    """Returns the last records in a row that are of these data, or do not say of which.

    Those before others do not count: the best weights were chosen anew for the others.
    """
    same = takewhile(lambda record: record.get("data", data) == data, reversed(records))
    return list(same)[::-1]


def labelled(records: Any, data: str) -> Any:
    """Returns records that all say of which data they are: those that do not, of these.

    What is no list of records is left for others to refuse.
    """
    if not isinstance(records, list):
        return records
    return [{"data": data, **one} if isinstance(one, dict) else one for one in records]


class History:
    """The records of all validations, kept in a file so that no checkpoint has to hold them.

    Args:
        path: the file; rank 0 reads and writes it.
        label_set: the classes of the scores.
        data: what tells the validation set from others, as in `Fingerprint.summary`: records of
            other ones stay in the file, but are not `comparable`.
    """

    def __init__(self, path: Path, label_set: LabelSet, data: str = "") -> None:
        self.path, self.label_set, self.data = path, label_set, data
        self.records: list[dict[str, Any]] = []
        self._best_before = -math.inf

    def load(self, step: int, best: float = -math.inf) -> None:
        """Reads the records up to a step; every rank must call this.

        Later records belong to steps that are trained again; from a damaged one on, validations are
        repeated.

        Args:
            step: of the checkpoint that is resumed.
            best: the highest mIoU before it on these data, should its record be lost.
        """
        records: list[dict[str, Any]] = []
        if distributed.rank() == 0 and self.path.is_file():
            for line in self.path.read_bytes().splitlines():
                record = self._parse(line, after=records[-1] if records else {})
                if record is None or record["step"] > step:
                    break
                records.append(record)
        self.records = distributed.all_gather(records)[0]
        self._best_before = best

    def _parse(self, line: bytes, after: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns a record if it is intact and consistent, and later than another one.

        Its step may be the same if its data are others.
        """
        try:
            record = json.loads(line)
            confusion = torch.tensor(record["confusion"])
            if confusion.dtype != torch.int64 or confusion.shape != (len(self.label_set),) * 2:
                return None
            is_again = record.get("data", "") != after.get("data", "")
            is_intact = type(record["step"]) is int
            is_intact &= record["step"] >= after.get("step", 0) + (not is_again)
            is_intact &= TRAINING_SIZE.accepts(record.get("training_size"))
            same = math.isclose(record["mIoU"], Scores(confusion, self.label_set).miou)
        except (ValueError, TypeError, KeyError, RuntimeError):
            return None
        return record if is_intact and same else None

    def append(
        self, step: int, loss: float, scores: Scores, training_size: Size | None = None
    ) -> None:
        """Adds a record and writes the file.

        Args:
            step: of the training.
            loss: of that step.
            scores: on the validation set.
            training_size: that the network learnt there; see `learnt_size`.

        Raises:
            OSError: if it cannot be written; the older file stays.
        """
        facts: dict[str, Any] = {"data": self.data} if self.data else {}
        if training_size:
            facts["training_size"] = list(training_size)
        self.records.append({"step": step, "loss": loss, **facts, **scores.to_dict()})
        if distributed.rank() == 0:
            with atomic_write(self.path) as temporary:
                temporary.write_text(
                    "".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8"
                )

    @property
    def last_step(self) -> int:
        """The step of the last validation; 0 before the first."""
        return int(self._last.get("step", 0))

    @property
    def best(self) -> float:
        """The highest mIoU so far, in percent; minus infinity before the first validation."""
        mious: list[float] = [one["mIoU"] for one in comparable(self.records, self.data)]
        return max([self._best_before, *mious])

    def has_stalled(self, patience: int) -> bool:
        """Whether so many last validations in a row have brought no new best; never if 0."""
        mious, best = [one["mIoU"] for one in comparable(self.records, self.data)], self.best
        since = len(mious) - 1 - mious.index(best) if best in mious else len(mious)
        return 0 < patience <= since

    @property
    def scores(self) -> Scores:
        """The scores of the last validation."""
        return Scores(torch.tensor(self._last["confusion"]), self.label_set)

    @property
    def training_size(self) -> Size | None:
        """The training size after the last validation; None before the first."""
        size = self._last.get("training_size")
        return size and (size[0], size[1])

    @property
    def _last(self) -> Mapping[str, Any]:
        return next(iter(comparable(self.records, self.data)[-1:]), {})
