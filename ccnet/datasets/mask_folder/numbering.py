"""Numbering: the classes of a folder, with the numbers that they have in its masks."""

from collections.abc import Collection
from dataclasses import replace

from ccnet.classes import MAX_CLASSES, LabelSet
from ccnet.datasets.mask_folder.classes_file import ClassesFile
from ccnet.datasets.mask_folder.palettes import class_colors
from ccnet.datasets.mask_folder.survey import FileFacts
from ccnet.datasets.wording import in_short


def numbering(
    described: ClassesFile, given: LabelSet | None, masks: Collection[FileFacts]
) -> LabelSet:
    """Returns the classes in the numbers of a folder's masks.

    Args:
        described: what `classes.json` says.
        given: the classes that are wanted; None for those of the folder.
        masks: what the masks hold.

    Returns:
        The classes that are described, all of them among those given; else those given; else the
        numbers from 0 to the largest in any mask that mean a class.

    Raises:
        ValueError: if what is given and described does not fit together.
    """
    if given is None:
        own = described.label_set() if described.names_classes else _infer(described, masks)
        return own if "colors" in described.fields else _painted(own, masks)
    if described.names_classes:
        own = described.label_set()
        others = [name for name in own.categories if name not in given.categories]
        if others:
            raise ValueError(
                f"classes.json names {in_short(map(repr, others))}, but the classes given are "
                f"{in_short(map(repr, given.categories))}: give each class the same name, and "
                'numbers of further classes as "ignore"'
            )
        if "colors" in described.fields:
            return own
        colors = dict(zip(given.categories, given.colors, strict=True))
        return replace(own, colors=tuple(colors[name] for name in own.categories))
    if not described.fields:
        return given
    fields = {"categories": given.categories, "colors": given.colors, **described.fields}
    if "label_ids" not in fields and not set(given.label_ids) & set(described.ignore):
        fields["label_ids"] = given.label_ids
    return LabelSet.from_config({"ignore": described.ignore, **fields})


def _infer(described: ClassesFile, masks: Collection[FileFacts]) -> LabelSet:
    occurring = {number for facts in masks for number in facts.values} - set(described.ignore)
    last = max(occurring, default=0)
    numbers = [number for number in range(last + 1) if number not in described.ignore]
    numbers = list(described.fields.get("label_ids", numbers[:MAX_CLASSES] or [0]))
    names = [f"class {number}" for number in numbers]
    return described.label_set(names, numbers)


def _painted(label_set: LabelSet, masks: Collection[FileFacts]) -> LabelSet:
    """The classes in the colours of the masks' palette, if these tell them apart."""
    painted = class_colors(masks)
    colors = [
        painted.get(number, color)
        for number, color in zip(label_set.label_ids, label_set.colors, strict=True)
    ]
    return replace(label_set, colors=tuple(colors)) if len({*colors}) == len(colors) else label_set
