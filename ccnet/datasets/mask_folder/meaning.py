"""Meaning: the classes that the numbers or the colours of masks stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ccnet.classes import Color, LabelSet
from ccnet.datasets.mask_folder.case import Case
from ccnet.datasets.mask_folder.classes_file import IGNORE_COLORS, ClassesFile
from ccnet.datasets.mask_folder.colors import color_numbering, lone_class, recoded
from ccnet.datasets.mask_folder.judgement import PROBLEMS, WARNINGS, absent_classes, judge
from ccnet.datasets.mask_folder.numbering import numbering
from ccnet.datasets.mask_folder.palettes import palette_conflict
from ccnet.datasets.mask_folder.survey import FileFacts
from ccnet.datasets.wording import name_masks


@dataclass(frozen=True)
class Meaning:
    """What masks stand for.

    Attributes:
        numbers: the classes, with their numbers in the masks.
        masks: what the masks hold, in these numbers.
        code: the number of each colour, if the masks hold colours.
        problems: errors, a line each.
        notes: warnings, a line each.
    """

    numbers: LabelSet
    masks: Mapping[Path, FileFacts]
    code: Mapping[Color, int] | None
    problems: list[str]
    notes: list[str]


def interpret(
    described: ClassesFile, given: LabelSet | None, masks: Mapping[Path, FileFacts]
) -> Meaning:
    """Finds out what the masks of a folder stand for.

    They are read by the colours that they show, also those that are stored as numbers, if most hold
    colours: tools store a mask without any colour as a grey one. Or if one colour has different
    numbers in their palettes, and `classes.json` tells the class of each colour.

    Args:
        described: what `classes.json` says.
        given: the classes that are wanted; None for those of the folder.
        masks: the facts about each mask that could be read.

    Raises:
        ValueError: if what is given and described does not fit together.
    """
    colored = [path for path, facts in masks.items() if facts.is_colored]
    numbered = {path: facts for path, facts in masks.items() if not facts.is_colored}
    if len(colored) > len(numbered) or (
        "colors" in described.fields and palette_conflict(numbered) is not None
    ):
        numbers, code = color_numbering(described, given, masks)
        found, problems = recoded(described, masks, code)
        if given is None and not problems:
            problems = lone_class(numbers, found.values())
        notes = judge(Case(found, numbers, described), (absent_classes,))
        return Meaning(numbers, found, code, problems, notes)
    numbers = numbering(described, given, numbered.values())
    case = Case(
        numbered,
        numbers,
        described,
        is_named=given is not None or described.names_classes,
        is_complete=given is None,
    )
    problems = judge(case, PROBLEMS)
    if colored:
        who = name_masks(colored, "hold")
        problems.append(f"{who} colours, unlike the others: save them as class numbers too")
    if described.ignore_colors:
        problems.append(
            f'"{IGNORE_COLORS}" is for masks that hold colours, and these hold numbers: give those '
            'that mean no class as "ignore"'
        )
    return Meaning(numbers, numbered, None, problems, judge(case, WARNINGS))
