"""Report of the benchmark on a GPU: Markdown and JSON, written anew after each case."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ccnet.files import atomic_write

REFERENCE = "published"
"""The implementation that times of the others are compared with."""

SECTIONS = {
    "operator": "Operator, 64 and 512 channels",
    "compiled": "Operator in compiled graphs",
    "network": "Whole network",
    "claim": "Claims of the first implementation in pure PyTorch",
}


COMPARED = (
    ("operator", "this", ()),
    ("operator", "this", ("8x",)),
    ("operator", "this", ("8x", "bfloat16")),
    ("compiled", "this, compiled", ()),
    ("network", "this", ()),
    ("claim", "this", ()),
)
"""Sections, an implementation in each, and words of the titles of the cases that are compared."""


@dataclass
class Report:
    """What was measured.

    Attributes:
        facts: device, versions and options.
        rows: of each case "section" and "title", with "results" or "missing", which says why.
        problems: what could not be measured at all.
        tests: pytest's last line, or why there is none.
    """

    facts: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    tests: str = "not yet run"

    def write(self, path: Path) -> None:
        """Writes Markdown to the path, and JSON beside it."""
        texts = {
            path: self.markdown(),
            path.with_suffix(".json"): json.dumps(asdict(self), indent=1),
        }
        for target, text in texts.items():
            with atomic_write(target) as temporary:
                temporary.write_text(text.rstrip() + "\n")

    def markdown(self) -> str:
        """Returns a table for each section, and what follows from them."""
        lines = [f"# Measured on {self.facts['device']}", ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items() if name != "device"]
        lines += [f"- {name} was not measured: {why}" for name, why in self.problems.items()]
        lines += [f"- failed: {failure}" for failure in self.failures()]
        lines += [f"- tests marked `gpu`: {self.tests}", *self.comparisons(), ""]
        lines += ["Milliseconds, medians in turns (times as fast as published; peak memory, MB)."]
        for section, title in SECTIONS.items():
            rows = [row for row in self.rows if row["section"] == section]
            lines += ["", f"## {title}", "", *_table(rows)] if rows else []
        return "\n".join(lines)

    def comparisons(self) -> Iterator[str]:
        """Yields how this version compares with the other implementations, plain and compiled."""
        for section, this, words in COMPARED:
            ratios: dict[str, list[float]] = {}
            for row in self.rows:
                times = _times(row) if row["section"] == section else {}
                if this in times and all(word in row["title"] for word in words):
                    for name in times.keys() - {this}:
                        ratios.setdefault(name, []).append(times[name] / times[this])
            what = ", ".join((section, *words)).replace("8x", "batch 8")
            for name, found in sorted(ratios.items()):
                yield (
                    f"- {what}: {this} is {min(found):.2f} to {max(found):.2f} times as fast as "
                    f"{name} ({len(found)} cases)"
                )

    def failures(self) -> list[str]:
        """Returns what failed, each with the number of cases."""
        found = [why for row in self.rows for why in _failures(row)]
        return [f"{why} ({number} cases)" for why, number in Counter(found).items()]


def _failures(row: dict[str, Any]) -> list[str]:
    if row.get("failed"):
        return [f"{row['section']}, {row['title']}: {row['missing']}"]
    results = row.get("results", {}).items()
    return [f"{name}: {result['error']}" for name, result in results if "error" in result]


def _times(row: dict[str, Any]) -> dict[str, float]:
    results = row.get("results", {})
    return {name: result["ms"] for name, result in results.items() if "ms" in result}


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for row in rows for name in row.get("results", {})))
    yield "| case | " + " | ".join(names) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for row in rows:
        cells = [row["missing"]] if "missing" in row else _cells(row["results"], names)
        yield f"| {row['title']} | {' | '.join(cells)} |"


def _cells(results: dict[str, dict[str, Any]], names: list[str]) -> Iterator[str]:
    reference = results.get(REFERENCE, {}).get("ms")
    for name in names:
        result = results.get(name, {})
        if "ms" not in result:
            yield "failed" if "error" in result else ""
            continue
        details = [f"{reference / result['ms']:.2f}"] if reference else []
        details += [f"{result['peak_mb']:.0f}"] if result.get("peak_mb") is not None else []
        yield f"{result['ms']:.3f} ({'; '.join(details)})"
