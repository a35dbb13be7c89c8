"""Recorded classes: names and colours that an OpenMMLab checkpoint tells of its data set."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ccnet.classes import IGNORE_INDEX, LABEL_SETS, LabelSet

logger = logging.getLogger(__name__)

_DATASETS = (
    *("data", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("train", "val", "test", "dataset", "metainfo"),
)
"""Parts of a configuration that tell of the data set, in one another."""


def recorded_label_set(
    meta: Mapping[str, Any], settings: Mapping[str, Any], num_classes: int
) -> tuple[LabelSet | None, bool]:
    """Returns the recorded classes; numbered ones where those recorded cannot be used.

    Args:
        meta: what the checkpoint records.
        settings: the recorded configuration.
        num_classes: number of classes by the tensors.

    Returns:
        The label set, None if nothing is recorded, and whether it is only a guess.
    """
    classes = _classes(meta, settings)
    labels = _label_set(classes, num_classes)
    if labels is None and "CLASSES" in classes:
        return LabelSet.numbered(num_classes), True
    return labels, False


def part_of(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a mapping in a configuration; an empty one if it has none of this name."""
    part = settings.get(name)
    return part if isinstance(part, Mapping) else {}


def _classes(meta: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what is recorded of the classes, in capitals: by the data set, else how it is set."""
    found: dict[str, Any] = {}
    for part in (part_of(meta, "dataset_meta"), meta, *_datasets(settings)):
        for name in ("classes", "palette", "reduce_zero_label"):
            value = part.get(name, part.get(name.upper()))
            if value is not None:
                found.setdefault(name.upper(), value)
    return found


def _datasets(settings: Mapping[str, Any], depth: int = 4) -> Iterator[Mapping[str, Any]]:
    for name in _DATASETS if depth else ():
        if part := part_of(settings, name):
            yield part
            yield from _datasets(part, depth - 1)


def _label_set(classes: Mapping[str, Any], num_classes: int) -> LabelSet | None:
    names = classes.get("CLASSES")
    if names is None:
        return None
    is_list = isinstance(names, Iterable) and not isinstance(names, (str, Mapping))
    if not is_list or not all(isinstance(name, (str, int)) for name in names):
        logger.warning("the recorded classes are not used: they are no list of names")
        return None
    names = [str(name) for name in names]
    if len(names) != num_classes:
        logger.warning(
            "the checkpoint records %d class names for %d classes: they are not used",
            *(len(names), num_classes),
        )
        return None
    stripped = tuple(name.strip() for name in names)  # OpenMMLab's ADE20K has "bed "
    known = next((one for one in LABEL_SETS.values() if one.categories == stripped), None)
    config: dict[str, Any] = {"categories": names}
    if known is not None:
        config = known.to_config()
    elif classes.get("REDUCE_ZERO_LABEL"):
        label_ids = range(1, num_classes + 1)
        config["label_ids"] = list(label_ids)
        config["ignore"] = [label for label in (0, IGNORE_INDEX) if label not in label_ids]
    try:
        labels = LabelSet.from_config(config)
    except ValueError as error:
        logger.warning("the recorded classes are not used: %s", error)
        return None
    palette = classes.get("PALETTE")
    try:
        return (
            labels
            if palette is None
            else LabelSet.from_config({**config, "colors": _rows(palette)})
        )
    except (TypeError, ValueError) as error:
        logger.warning("the recorded colors are not used: %s", error)
        return labels


def _rows(palette: Any) -> list[list[int]]:
    rows = [[int(value) for value in color] for color in palette]
    if rows != [list(color) for color in palette]:
        raise ValueError("they are no whole numbers")
    return rows
