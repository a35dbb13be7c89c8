"""Report of a run: what became of the pictures, in one process or in all."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ccnet.jobs.results import Standing

MOST_FAILURES = 10_000
"""How many errors of a process are listed; the records have all."""

KEPT = {
    Standing.SAME: "have results already: skipped (see --overwrite)",
    Standing.OTHER: "have results of other weights or options: kept (--overwrite makes them anew)",
    Standing.UNKNOWN: "have results that do not say of which picture they are, as of earlier "
    "versions: kept (--overwrite makes them anew)",
}
"""What is said of pictures that have results."""


@dataclass
class Report:
    """What became of the pictures.

    Attributes:
        segmented: the number of pictures that were segmented.
        kept: the number of those that have results already, by the name of their `Standing`.
        results: the number of those that are results themselves.
        failed: the number of those that could not be segmented.
        failures: error messages, at most `MOST_FAILURES`.
        stops: why the run stopped, if it could not go on.
        filled: the number of places of batches that were filled up, for want of pictures of a size.
        computing: seconds in which the network computed.
        seconds: that all processes took, together.
        elapsed: seconds from the first picture to the last one.
    """

    segmented: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    results: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    filled: int = 0
    computing: float = 0.0
    seconds: float = 0.0
    elapsed: float = 0.0

    def fail(self, reason: str) -> None:
        """Adds an error."""
        self.failed += 1
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(reason)

    def add(self, other: "Report") -> None:
        """Adds what became of the pictures of another process."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def describe(self, total: int) -> list[str]:
        """Returns lines about pictures that were segmented, kept or left out, of `total` in all."""
        lines = []
        if self.results:
            results = "1 result" if self.results == 1 else f"{self.results} results"
            lines.append(f"left out: {results} of this program")
        if self.segmented and total > 1:
            pictures = "1 picture" if self.segmented == 1 else f"{self.segmented} pictures"
            rate = self.segmented / self.elapsed
            lines.append(
                f"{pictures} in {self.elapsed:.1f} s: {rate:.3g} a second; "
                f"the network computed {100 * self.computing / self.seconds:.0f} % of the time"
            )
        if self.filled:
            places = "1 place was" if self.filled == 1 else f"{self.filled} places were"
            lines.append(
                f"batches were filled up, {places} computed for no picture: "
                "a smaller --batch-size saves that"
            )
        for name, count in self.kept.items():
            lines.append(f"{count} of {total - self.results} {KEPT[Standing[name]]}")
        return lines

    def to_json(self) -> str:
        """Returns a text that `from_json` reads."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Report":
        """Reads what `to_json` made."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "kept": Counter(values["kept"])})
