"""Validation history of a run: log.jsonl, one record per validation."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ccnet import distributed
from ccnet.classes import LabelSet
from ccnet.evaluation import Scores
from ccnet.files import atomic_write


class History:
    """The records of all validations, kept in a file so that no checkpoint has to hold them.

    Args:
        path: the file; rank 0 reads and writes it.
        label_set: the classes of the scores.
        data: what tells the validation set from others, as in `Fingerprint.summary`: records of
            other ones stay in the file, but do not count. Those of earlier versions do.
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
            same = math.isclose(record["mIoU"], Scores(confusion, self.label_set).miou)
        except (ValueError, TypeError, KeyError, RuntimeError):
            return None
        return record if is_intact and same else None

    def append(self, step: int, loss: float, scores: Scores) -> None:
        """Adds a record and writes the file.

        Raises:
            OSError: if it cannot be written; the older file stays.
        """
        data = {"data": self.data} if self.data else {}
        self.records.append({"step": step, "loss": loss, **data, **scores.to_dict()})
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
        mious: list[float] = [record["mIoU"] for record in self.records if self._counts(record)]
        return max([self._best_before, *mious])

    @property
    def scores(self) -> Scores:
        """The scores of the last validation."""
        return Scores(torch.tensor(self._last["confusion"]), self.label_set)

    @property
    def _last(self) -> Mapping[str, Any]:
        return self.records[-1] if self.records and self._counts(self.records[-1]) else {}

    def _counts(self, record: Mapping[str, Any]) -> bool:
        return bool(record.get("data", self.data) == self.data)
