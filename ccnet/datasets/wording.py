"""Wording: many names, numbers or lines in a few words."""

from collections.abc import Iterable, Sequence
from pathlib import Path

NAMED = 5
"""Maximum number of things that a line names."""


def in_short(names: Iterable[object]) -> str:
    """Lists the first of many names."""
    every = [str(name) for name in names]
    rest = [f"and {len(every) - NAMED} more"] if len(every) > NAMED else []
    return ", ".join([*every[:NAMED], *rest])


def numbers_in_short(numbers: Iterable[int]) -> str:
    """Lists the first of many whole numbers, ascending; three or more in a row as first..last."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[list[int]] = []
    for run in runs:
        parts += [run] if len(run) > 2 else [[number] for number in run]
    shown = [f"{part[0]}..{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts[:NAMED]]
    rest = sum(map(len, parts[NAMED:]))
    return ", ".join([*shown, *([f"and {rest} more"] if rest else [])])


def pixels_in_short(count: int, total: int) -> str:
    """Says how many of all pixels."""
    share = 100 * count / max(1, total)
    shown = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
    return f"{count:,} pixel{'s' * (count != 1)} ({shown} %)"


def name_masks(paths: list[Path], verb: str) -> str:
    """Begins a sentence about masks: "a.png holds", "20 masks (a.png, ...) hold"."""
    if len(paths) == 1:
        return f"{paths[0]} {'has' if verb == 'have' else f'{verb}s'}"
    return f"{len(paths)} masks ({in_short(paths)}) {verb}"


def first_lines(lines: Sequence[str], most: int = NAMED) -> list[str]:
    """Returns the first of many lines of a kind, and how many more there are."""
    rest = len(lines) - most
    return [*lines[:most], *([f"... and {rest} more like these"] if rest > 0 else [])]
