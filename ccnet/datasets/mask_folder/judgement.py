"""Judgement: whether the numbers in masks can be what they are taken for."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ccnet.classes import MAX_CLASSES, LabelSet
from ccnet.datasets.mask_folder.pairing import in_short
from ccnet.datasets.mask_folder.palettes import (
    exchanged_color,
    first_colors,
    palette_conflict,
)
from ccnet.datasets.mask_folder.survey import FileFacts

FAR_ABOVE = 40, 4
"""Unnamed classes are plausible up to that number, and to so many for each that occurs."""

RAMPS = 0.07
"""Share of the pixels at edges that lie between others, above which they were not drawn."""

EDGES = 0.6
"""Masks with more of their pixels at edges are noise, in which any pixel lies between others."""

PHOTOGRAPH = 0.25, 64
"""More numbers than the second, each with that share of its pixels between others, are no classes.
"""


@dataclass(frozen=True)
class Case:
    """Masks, and what their numbers are taken for.

    Attributes:
        masks: the facts about each mask that could be read.
        label_set: the classes.
        is_named: whether someone named the classes; otherwise they follow from the masks.
        is_ignore_chosen: whether someone said which numbers mean "no class".
        are_ids_chosen: whether someone said which numbers the classes have.
        is_complete: whether the classes are those of these masks; otherwise they are those of other
            data, and need not all occur here.
    """

    masks: Mapping[Path, FileFacts]
    label_set: LabelSet
    is_named: bool = True
    is_ignore_chosen: bool = False
    are_ids_chosen: bool = False
    is_complete: bool = True

    @cached_property
    def pixels(self) -> Counter[int]:
        """The number of pixels of each number."""
        return _total(self, "pixels")

    @cached_property
    def classes(self) -> list[int]:
        """The numbers that occur and do not mean "no class", ascending."""
        return sorted(self.pixels.keys() - set(self.label_set.ignore))

    @cached_property
    def ignored(self) -> list[int]:
        """The numbers that occur and mean "no class", ascending."""
        return sorted(self.pixels.keys() & set(self.label_set.ignore))

    @cached_property
    def is_interpolated(self) -> bool:
        """Whether many pixels at edges lie between a lower and a higher number.

        Interpolation and JPEG put such pixels between any two regions, but people draw few of them:
        lines, as around cells, which are of one number. In a photograph, most pixels are so.
        """
        ramps = _total(self, "ramps")
        share, most = PHOTOGRAPH
        if sum(count >= share * self.pixels[label] for label, count in ramps.items()) > most:
            return True
        edges = sum(facts.edges for facts in self.masks.values())
        sizes = [facts.size for facts in self.masks.values() if facts.edges]
        inner = sum((height - 2) * (width - 2) for height, width in sizes)
        lines = max(ramps.values(), default=0)
        return ramps.total() - lines > RAMPS * edges and edges < EDGES * inner


def _total(case: Case, field: str) -> Counter[int]:
    counts: Counter[int] = Counter()
    for facts in case.masks.values():
        counts.update(dict(zip(facts.values, getattr(facts, field), strict=True)))
    return counts


def _impossible_ids(case: Case) -> Iterator[str]:
    impossible = sorted(set(case.label_set.label_ids) - set(range(256)))
    if impossible:
        yield f"label_ids are {impossible}; masks can hold 0..255"


def _one_class(case: Case) -> Iterator[str]:
    if case.is_named and len(case.label_set) == 1:
        name = case.label_set.categories[0]
        numbers = sorted(case.pixels) if len(case.pixels) == 2 else [0, 1]
        yield (
            f"there is one class alone, {name!r}: a network gives it to every pixel, with an mIoU "
            f"of 100 %; name what is around it too: {_description(['background', name], numbers)}"
        )


def _description(names: list[str], numbers: list[int]) -> str:
    """What classes.json may say."""
    fields = {"categories": names, "label_ids": numbers, "ignore": []}
    return f"{json.dumps(fields, ensure_ascii=False)} in classes.json"


def _nothing_labelled(case: Case) -> Iterator[str]:
    if case.masks and not case.classes:
        ignored = f": all hold only {_in_short(case.ignored)}, for no class" if case.ignored else ""
        yield f"no readable mask has a pixel with a class{ignored}"


def _one_class_occurs(case: Case) -> Iterator[str]:
    may_lack_others = not case.is_complete and (
        case.is_ignore_chosen or {*case.classes, *case.ignored} != {0, 255}
    )
    if len(case.classes) != 1 or may_lack_others or (case.is_named and len(case.label_set) == 1):
        return
    (label,) = case.classes
    if not case.ignored:
        yield f"the masks hold no class but {label}; a network needs two to tell apart"
        return
    numbers = sorted([label, *case.ignored])
    names = list(case.label_set.categories) if case.is_named else []
    if len(names) != len(numbers):
        names = [f"name of {number}" for number in numbers]
    look = "are black and white: they " if numbers == [0, 255] else ""
    rest = "" if case.is_complete else f'; if not, say so: "ignore": {case.ignored}'
    yield (
        f"the masks {look}hold no class but {label}, and {_in_short(case.ignored)}, which means no "
        f"class; if each is a class, give {_description(names, numbers)}{rest}"
    )


def _unknown_numbers(case: Case) -> Iterator[str]:
    known = {*case.label_set.label_ids, *case.label_set.ignore}
    found = {path: sorted(set(facts.values) - known) for path, facts in case.masks.items()}
    found = {path: labels for path, labels in found.items() if labels}
    if not found:
        return
    unknown = sorted(set[int]().union(*found.values()))
    first, *others = found
    who = f"{len(found)} masks ({in_short(found)}) have" if others else f"{first} has"
    ignored = _in_short(sorted(case.label_set.ignore)) if case.label_set.ignore else "no number"
    yield (
        f"{who} the labels [{in_short(unknown)}], but the {len(case.label_set)} classes have "
        f"{_in_short(sorted(case.label_set.label_ids))}, and {ignored} is for pixels without a "
        f"class{_advice(case, unknown)}"
    )


def _advice(case: Case, unknown: list[int]) -> str:
    """What may be meant by numbers that are not known."""
    label_ids = list(case.label_set.label_ids)
    if case.is_interpolated:
        return f"; {_INTERPOLATED}"
    if case.are_ids_chosen and not case.is_ignore_chosen:
        ignore = sorted({*unknown, *case.label_set.ignore})
        return f'; if these mean no class, give "ignore": {ignore} in classes.json'
    if unknown == [255] != case.classes:
        return '; if 255 means no class, add it to "ignore" in classes.json'
    if unknown == [len(label_ids)] and label_ids == list(range(len(label_ids))):
        return '; if 0 means no class, give "ignore": [0] in classes.json'
    if len(case.classes) == len(label_ids):
        return f'; if the classes have others, give "label_ids": {case.classes} in classes.json'
    if len(case.pixels) == len(label_ids) and not case.is_ignore_chosen:
        numbers = f'"label_ids": {sorted(case.pixels)}, "ignore": []'
        return f"; if each is a class, give {numbers} in classes.json"
    return ""


def _far_above(case: Case) -> Iterator[str]:
    fewest, each = FAR_ABOVE
    is_said = case.is_named or case.are_ids_chosen
    if is_said or len(case.classes) < 2 or case.is_interpolated:
        return
    count = case.classes[-1] + 1
    if count > min(max(fewest, each * len(case.classes)), MAX_CLASSES + len(case.ignored)):
        yield (
            f"the largest number in the masks is {case.classes[-1]}, but only {len(case.classes)} "
            f"occur: {in_short(case.classes)}; name the classes in classes.json, with the numbers "
            'that they have in the masks as "label_ids"'
        )


_INTERPOLATED = (
    "many pixels at edges lie between a lower and a higher number, as after JPEG or a resize that "
    "blends: save masks without loss and resize them with nearest neighbour"
)


def _unnamed_between(case: Case) -> Iterator[str]:
    if not case.is_named and case.is_interpolated:
        yield (
            f"the masks hold {len(case.classes)} numbers, but {_INTERPOLATED}; if thin regions "
            "were drawn so, name the classes in classes.json"
        )


def _named_between(case: Case) -> Iterator[str]:
    if case.is_named and case.is_interpolated:
        yield f"the masks look damaged: {_INTERPOLATED}"


def _palettes(case: Case) -> Iterator[str]:
    conflict = palette_conflict(case.masks)
    if conflict:
        yield conflict
        return
    exchanged = exchanged_color(first_colors(case.masks.values()), case.masks)
    if exchanged:
        path, number, color, other = exchanged
        yield (
            f"{path} shows {number} in about the colour {color} that others show for {other}: "
            "save all masks with one palette, or as grey images of class numbers"
        )
        return
    ids = case.label_set.label_ids
    exchanged = exchanged_color(dict(zip(ids, case.label_set.colors, strict=True)), case.masks)
    if exchanged:
        path, number, color, other = exchanged
        names_of = dict(zip(ids, case.label_set.categories, strict=True))
        yield (
            f"{path} shows {color} for {number}, but that is the colour of {names_of[other]!r}, "
            f"which is {other} here; {number} is {names_of[number]!r}: give the numbers of the "
            'classes in classes.json as "label_ids", or, if these are right, the colours of the '
            'masks as "colors"'
        )


def _absent_classes(case: Case) -> Iterator[str]:
    pairs = zip(case.label_set.label_ids, case.label_set.categories, strict=True)
    absent = [name for label, name in pairs if label not in case.pixels]
    if absent:
        yield f"{len(absent)} of {len(case.label_set)} classes are in no mask: {in_short(absent)}"


def _partly_black_and_white(case: Case) -> Iterator[str]:
    if len(case.label_set) != 2 or 255 not in case.ignored:
        return
    found = {path: facts.values for path, facts in case.masks.items() if 255 in facts.values}
    if len(set(found.values())) == 1 and len(next(iter(found.values()))) == 2:
        yield (
            f"{len(found)} masks hold 255, which means no class, and one class alone, and all "
            f"others no 255; should they be black and white, give them the numbers of the others: "
            f"{in_short(found)}"
        )


Check = Callable[[Case], Iterator[str]]

PROBLEMS: tuple[Check, ...] = (
    *(_impossible_ids, _one_class, _nothing_labelled, _one_class_occurs, _unknown_numbers),
    *(_far_above, _unnamed_between, _palettes),
)
"""Checks whose lines are errors."""

WARNINGS: tuple[Check, ...] = (_absent_classes, _named_between, _partly_black_and_white)
"""Checks whose lines are warnings."""


def judge(case: Case, checks: tuple[Check, ...]) -> list[str]:
    """Returns what the checks say, a line each."""
    return [line for check in checks for line in check(case)]


def _in_short(numbers: list[int]) -> str:
    """Formats consecutive numbers as first..last, others one by one."""
    first, last = numbers[0], numbers[-1]
    if first == last:
        return str(first)
    return f"{first}..{last}" if last - first == len(numbers) - 1 else str(numbers)
