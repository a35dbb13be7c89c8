"""Sharing out: which pictures a process segments, of those that all of them list."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from ccnet.jobs.jobs import Jobs

_BEYOND = 2**40
"""More than there are pictures."""


class Counters(Protocol):
    """Numbers by name, as those of a store of torch.distributed, which all processes share."""

    def add(self, name: str, amount: int, /) -> int:
        """Adds to a number, 0 at first; returns the sum."""


class OwnCounters:
    """The counters of a process alone."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, name: str, amount: int, /) -> int:
        """Adds to a number, 0 at first; returns the sum."""
        self._values[name] = self._values.get(name, 0) + amount
        return self._values[name]


class Share:
    """The pictures that a process takes, one by one; no two processes take the same one.

    Args:
        indices: of the pictures, the same ones in all processes that share the counters.
        counters: how many were taken, and segmented.
        limit: of pictures that all processes may segment; None for all.

    Attributes:
        total: the number of pictures that all processes will have done in the end.
        position: how many of them were taken, or segmented if there is a limit, when this process
            took its last.
    """

    def __init__(
        self, indices: Sequence[int], counters: Counters | None = None, limit: int | None = None
    ) -> None:
        self.total = len(indices) if limit is None else min(limit, len(indices))
        self.position = 0
        self._indices = indices
        self._counters = counters or OwnCounters()
        self._limit = limit

    @property
    def is_limited(self) -> bool:
        """Whether pictures count when they are claimed, not when they are taken."""
        return self._limit is not None

    def take(self) -> int | None:
        """Takes the next picture: its index, or None if there are no more."""
        taken = self._add("taken", 1)
        if taken > len(self._indices):
            return None
        self.position = taken if self._limit is None else self.position
        return self._indices[taken - 1]

    def claim(self) -> bool:
        """Whether one more picture may be segmented; if not, no process takes another one."""
        if self._limit is None:
            return True
        claimed = self._add("segmented", 1)
        if claimed >= self._limit:
            self.stop()
        self.position = min(claimed, self._limit)
        return claimed <= self._limit

    def stop(self) -> None:
        """Leaves nothing to take, in all processes."""
        self._add("taken", _BEYOND)

    def _add(self, name: str, amount: int) -> int:
        try:
            return self._counters.add(name, amount)
        except RuntimeError as error:
            raise ConnectionError(
                "the process that hands out the pictures is gone: run again for the rest"
            ) from error


@dataclass(frozen=True)
class Shard:
    """One of several parts that know nothing of each other.

    Attributes:
        number: of this one, from 1 on.
        parts: how many there are.
    """

    number: int
    parts: int

    def __str__(self) -> str:
        """Formats it for the name of a file."""
        return f"shard{self.number}-of-{self.parts}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads a text such as "3/8".

        Raises:
            ValueError: if it is no such text.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, parts = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= parts:
            raise ValueError(f"{text!r} is none of 1/N to N/N, as in 3/8")
        return cls(number, parts)

    def of(self, jobs: Jobs) -> list[int]:
        """Chooses the indices of its pictures.

        By the checksum of a picture's path alone: files that come or go meanwhile, such as results
        of other parts, move no picture to another one.
        """
        return [
            index
            for index in range(len(jobs))
            if zlib.crc32(jobs.key(index).encode("utf-8", "surrogateescape")) % self.parts
            == self.number - 1
        ]


def shared_counters() -> Any:
    """The counters of all ranks; None for a process alone."""
    if not dist.is_initialized():
        return None
    return PrefixStore("ccnet/prediction", _get_default_store())
