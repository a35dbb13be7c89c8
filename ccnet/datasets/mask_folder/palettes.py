"""Palettes: whether they number colours alike, and the colours that they give to classes."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from ccnet.classes import Color
from ccnet.datasets.label_maps import is_grey
from ccnet.datasets.mask_folder.survey import FileFacts

_GREY_LEVELS = bytes(level for level in range(256) for _ in range(3)).hex()
"""The palette of masks that have none."""

ALIKE, UNLIKE = 8, 24
"""Levels by which colours differ at most to be the same, as after JPEG, and at least not to be."""


def palette_conflict(masks: Mapping[Path, FileFacts]) -> str | None:
    """Says which two masks show one colour for different numbers, or one number in two greys.

    Only numbers that occur count, and those of one colour in a palette are not told apart by it.
    One number in several colours is no conflict, for colours may be for the eye alone; but grey
    levels stand for other numbers. Masks without a palette are compared with grey ones alone.
    """
    has_grey = any(_is_grey(facts.palette) for facts in masks.values())
    of_color: dict[Color, dict[frozenset[int], Path]] = defaultdict(dict)
    of_number: dict[int, tuple[Color, Path]] = {}
    for path, facts in masks.items():
        palette = facts.palette or (_GREY_LEVELS if has_grey else "")
        for number, color, alike in _shown(palette, facts.values):
            for others, other in of_color[color].items():
                if others.isdisjoint(alike):
                    return _conflict(other, min(others), color, path, number, color)
            of_color[color].setdefault(alike, path)
            if _is_grey(facts.palette):
                grey, other = of_number.setdefault(number, (color, path))
                if grey != color:
                    return _conflict(other, number, grey, path, number, color)
    return None


def exchanged_color(
    code: Mapping[int, Color], masks: Mapping[Path, FileFacts]
) -> tuple[Path, int, Color, int] | None:
    """Finds a mask that shows a number in the colour that a code has for another one.

    The palettes must use the code in another order: more than half of their colours are colours of
    the code, and at least two of these stand for other numbers. One of a few colours, or a few of
    many, may be alike by chance.

    Args:
        code: numbers and their colours.
        masks: the facts about each mask.

    Returns:
        The mask, the number, its colour there, and the code's number for that colour.
    """
    numbers, colors = np.array([*code]), np.array([*code.values()], np.int64).reshape(-1, 3)
    shown: dict[tuple[int, Color], tuple[Path, frozenset[int]]] = {}
    for path, facts in masks.items():
        if facts.palette and not _is_grey(facts.palette):
            for number, color, alike in _shown(facts.palette, facts.values):
                shown.setdefault((number, color), (path, alike))
    known, exchanged = 0, dict[int, tuple[Path, int, Color, int]]()
    for (number, color), (path, alike) in shown.items():
        distances = np.abs(colors - color).max(1)
        near = numbers[distances <= ALIKE]
        known += near.size > 0
        is_own = (distances[np.isin(numbers, [*alike])] < UNLIKE).any()
        if number in code and near.size and not is_own:
            other = int(near[0])
            exchanged.setdefault(other, (path, number, color, other))
    return next(iter(exchanged.values())) if len(exchanged) > 1 and 2 * known > len(shown) else None


def first_colors(masks: Iterable[FileFacts]) -> dict[int, Color]:
    """Returns the colours of numbers that occur, of the first palette in which they do."""
    found: dict[int, Color] = {}
    for facts in masks:
        if facts.palette and not _is_grey(facts.palette):
            for number, color, _ in _shown(facts.palette, facts.values):
                found.setdefault(number, color)
    return found


def class_colors(masks: Collection[FileFacts]) -> dict[int, Color]:
    """Returns the colours of numbers: of the first palette in which they occur, else the first.

    Palettes that are only grey give none.
    """
    palettes = (facts.palette for facts in masks if facts.palette)
    first = next((palette for palette in palettes if not _is_grey(palette)), "")
    return dict(enumerate(_entries(first))) | first_colors(masks)


def colors_shown(palette: str, numbers: Iterable[int]) -> list[Color]:
    """Returns what viewers show for numbers: colours of the palette, grey levels without one."""
    colors = _entries(palette or _GREY_LEVELS)
    return [colors[number] if number < len(colors) else (0, 0, 0) for number in numbers]


def _conflict(
    path: Path, number: int, color: Color, other: Path, other_number: int, other_color: Color
) -> str:
    return (
        f"{path} shows {color} for {number}, but {other} shows {other_color} for {other_number}: "
        "numbers mean something else in each file, as when a tool reduces colours one file at a "
        "time; save all masks with one palette, or as grey images of class numbers"
    )


def _shown(palette: str, numbers: Iterable[int]) -> Iterator[tuple[int, Color, frozenset[int]]]:
    """Yields numbers, their colours in a palette, and all numbers of that colour in it."""
    colors, numbers_of = _entries(palette), _numbers_by_color(palette)
    for number in numbers:
        if number < len(colors):
            yield number, colors[number], numbers_of[colors[number]]


@lru_cache(maxsize=64)
def _entries(palette: str) -> tuple[Color, ...]:
    channels = bytes.fromhex(palette)
    return tuple(zip(channels[::3], channels[1::3], channels[2::3], strict=True))


@lru_cache(maxsize=64)
def _numbers_by_color(palette: str) -> dict[Color, frozenset[int]]:
    numbers: dict[Color, set[int]] = defaultdict(set)
    for number, color in enumerate(_entries(palette)):
        numbers[color].add(number)
    return {color: frozenset(found) for color, found in numbers.items()}


def _is_grey(palette: str) -> bool:
    return is_grey(bytes.fromhex(palette))
