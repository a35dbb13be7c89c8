"""Judgement: whether the numbers in masks can be what they are taken for."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from ccnet.classes import MAX_CLASSES
from ccnet.datasets.mask_folder.case import Case
from ccnet.datasets.mask_folder.colors import palette_entry
from ccnet.datasets.mask_folder.palettes import (
    exchanged_color,
    first_colors,
    palette_conflict,
)
from ccnet.datasets.wording import in_short, name_masks, numbers_in_short, pixels_in_short

FAR_ABOVE = 40, 4
"""Unnamed classes are plausible up to that number, and to so many for each that occurs."""

LISTED = 40
"""Maximum number of numbers that an error lists as "no class" for `classes.json`."""

RARE = 1e-4
"""Share of the pixels below which a number in one mask alone may be a slip."""


def _impossible_ids(case: Case) -> Iterator[str]:
    impossible = sorted(set(case.label_set.label_ids) - set(range(256)))
    if impossible:
        yield f"label_ids are {impossible}; masks can hold 0..255"


def _one_class(case: Case) -> Iterator[str]:
    if case.is_named and len(case.label_set) == 1:
        name = case.label_set.categories[0]
        numbers = sorted(case.pixels) if len(case.pixels) == 2 else [0, 1]
        entry = _description(case, ["background", name], numbers)
        yield (
            f"there is one class alone, {name!r}: a network gives it to every pixel, with an mIoU "
            f"of 100 %; name what is around it too: {entry}"
        )


def _description(case: Case, names: list[str], numbers: list[int]) -> str:
    """What classes.json may say of all classes."""
    fields: dict[str, Any] = {"categories": names, "label_ids": numbers}
    ignore = [number for number in case.label_set.ignore if number not in numbers]
    if ignore != [*case.described.ignore]:
        fields["ignore"] = ignore
    if len(names) != len(case.label_set):
        fields["colors"] = None
    return case.described.changed(**fields)


def _nothing_labelled(case: Case) -> Iterator[str]:
    if case.masks and not case.classes:
        ignored = numbers_in_short(case.ignored)
        reason = f": all hold only {ignored}, for no class" if ignored else ""
        yield f"no readable mask has a pixel with a class{reason}"


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
    as_is = case.described.changed(ignore=case.ignored)
    rest = "" if case.is_complete else f"; if not, say so: {as_is}"
    yield (
        f"the masks {look}hold no class but {label}, and {numbers_in_short(case.ignored)}, which "
        f"means no class; if each is a class, give {_description(case, names, numbers)}{rest}"
    )


def _unknown_numbers(case: Case) -> Iterator[str]:
    known = {*case.label_set.label_ids, *case.label_set.ignore}
    found = {path: sorted(set(facts.values) - known) for path, facts in case.masks.items()}
    found = {path: labels for path, labels in found.items() if labels}
    if not found:
        return
    unknown = sorted(set[int]().union(*found.values()))
    ignored = numbers_in_short(case.label_set.ignore) or "no number"
    count = sum(case.pixels[number] for number in unknown)
    yield (
        f"{name_masks([*found], 'have')} the labels [{numbers_in_short(unknown)}], in "
        f"{pixels_in_short(count, case.pixels.total())}, but the {len(case.label_set)} classes "
        f"have {numbers_in_short(case.label_set.label_ids)}, and {ignored} is for pixels without a "
        f"class{_advice(case, unknown)}"
    )


def _advice(case: Case, unknown: list[int]) -> str:
    """What may be meant by numbers that are not known."""
    label_ids = list(case.label_set.label_ids)
    changed = case.described.changed
    if case.is_interpolated:
        return f"; {_INTERPOLATED}"
    if unknown == case.fringes:
        return f"; nearly all of these are at edges, {_AS_AFTER}"
    ignore = sorted({*unknown, *case.label_set.ignore})
    left_out = f"; if these mean no class, give {changed(ignore=ignore)}"
    if case.are_ids_chosen and not case.is_ignore_chosen and len(ignore) <= LISTED:
        return left_out
    if unknown == [255] != case.classes:
        return f"; if 255 means no class, give {changed(ignore=ignore)}"
    if case.strays.keys() >= {*unknown} and len(ignore) <= LISTED:
        return f"; if they are slips, correct {_these(case, unknown)}{left_out}"
    if unknown == [len(label_ids)] and label_ids == list(range(len(label_ids))):
        return f"; if 0 means no class, give {changed(ignore=[0, *case.ignored])}"
    if len(case.classes) == len(label_ids):
        return f"; if the classes have others, give {changed(label_ids=case.classes)}"
    if len(case.pixels) == len(label_ids) and not case.is_ignore_chosen:
        numbers = changed(label_ids=sorted(case.pixels), ignore=[])
        return f"; if each is a class, give {numbers}"
    leaves_classes = not set(case.classes).issubset(unknown)
    return left_out if leaves_classes and len(ignore) <= LISTED else ""


def _far_above(case: Case) -> Iterator[str]:
    fewest, each = FAR_ABOVE
    is_said = case.is_named or case.are_ids_chosen
    if is_said or len(case.classes) < 2 or case.is_interpolated:
        return
    count = case.classes[-1] + 1
    if count > min(max(fewest, each * len(case.classes)), MAX_CLASSES + len(case.ignored)):
        yield (
            f"the largest number in the masks is {case.classes[-1]}, but only {len(case.classes)} "
            f"occur: {numbers_in_short(case.classes)}; name the classes, with the numbers that "
            f"they have in the masks: {_numbered_names(case)}"
        )


def _numbered_names(case: Case) -> str:
    """What classes.json may say of the numbers that occur; 255 too where levels are even."""
    numbers = case.classes
    every = [*numbers, *case.ignored]
    if len({after - before for before, after in pairwise(every)}) == 1:
        numbers = every
    return _description(case, [f"name of {number}" for number in numbers], numbers)


_AS_AFTER = (
    "as after JPEG or a resize that blends: save masks without loss and resize them with nearest "
    "neighbour"
)
_INTERPOLATED = f"many pixels at edges lie between a lower and a higher number, {_AS_AFTER}"


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
        entry = palette_entry(case.described, case.masks.values())
        yield f"{conflict}, {entry}" if entry else conflict
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


def _fringes(case: Case) -> Iterator[str]:
    if case.fringes and not case.is_named and not case.is_interpolated:
        numbers = numbers_in_short(case.fringes)
        count = sum(case.pixels[number] for number in case.fringes)
        yield (
            f"of the largest numbers, [{numbers}], there are only "
            f"{pixels_in_short(count, case.pixels.total())}, nearly all of them at edges, "
            f"{_AS_AFTER}; if thin regions were drawn so, name the classes in classes.json"
        )


def _slips(case: Case) -> Iterator[str]:
    everything = case.pixels.total()
    rare = [
        number
        for number in case.strays
        if case.pixels[number] < RARE * everything and number not in case.fringes
    ]
    if rare and not (case.is_named or case.are_ids_chosen):
        count = sum(case.pixels[number] for number in rare)
        ignore = sorted({*rare, *case.label_set.ignore})
        yield (
            f"the numbers [{numbers_in_short(rare)}] are in one mask alone each, in "
            f"{pixels_in_short(count, everything)}: {_these(case, rare)}; if they are slips, "
            f"correct them, or give {case.described.changed(ignore=ignore)}"
        )


def _these(case: Case, numbers: list[int]) -> str:
    """The masks that alone hold these numbers."""
    return in_short(dict.fromkeys(case.strays[number] for number in numbers))


def absent_classes(case: Case) -> Iterator[str]:
    """Says which classes are in no mask."""
    pairs = zip(case.label_set.label_ids, case.label_set.categories, strict=True)
    absent = [name for label, name in pairs if label not in case.pixels]
    if absent:
        entry = case.described.changed(ignore=[0, *case.ignored])
        from_one = f"; if the classes count from 1, give {entry}"
        is_first_alone = not case.is_named and absent == [case.label_set.categories[0]]
        yield (
            f"{len(absent)} of {len(case.label_set)} classes are in no mask: {in_short(absent)}"
            f"{from_one if is_first_alone and 0 in case.label_set.label_ids else ''}"
        )


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

WARNINGS: tuple[Check, ...] = (
    *(absent_classes, _named_between, _partly_black_and_white, _fringes, _slips),
)
"""Checks whose lines are warnings."""


def judge(case: Case, checks: tuple[Check, ...]) -> list[str]:
    """Returns what the checks say, a line each."""
    return [line for check in checks for line in check(case)]
