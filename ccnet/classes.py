"""Label sets: class names, colours, and the label ids that a data set's files use for them."""

import colorsys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccnet import class_tables
from ccnet.class_fields import FIELDS, check_fields, class_names, is_list, whole_numbers
from ccnet.class_fields import MAX_CLASSES as MAX_CLASSES
from ccnet.class_fields import Color as Color
from ccnet.options import named_options
from ccnet.schema import shown

IGNORE_INDEX = 255
"""Label of pixels that are ignored by losses and evaluation."""


@named_options()
@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, in the order of the network's output channels.

    Attributes:
        categories: name of each class.
        colors: RGB colour of each class, each channel in 0..255.
        label_ids: label id of each class in the data set's own files; by default 0, 1, ..., without
            the ids in `ignore`.
        ignore: ids in the data set's own files that mean "no class".

    Raises:
        ValueError: if there are too many classes, a name is empty or has control characters, a name
            or an id occurs twice, a value is out of range, or the fields do not fit together.
    """

    categories: tuple[str, ...]
    colors: tuple[Color, ...]
    label_ids: tuple[int, ...] = ()
    ignore: tuple[int, ...] = (IGNORE_INDEX,)

    def __post_init__(self) -> None:
        for name, read in FIELDS.items():
            object.__setattr__(self, name, read(getattr(self, name)))
        twice = [name for name, times in Counter(self.categories).items() if times > 1]
        if twice:
            raise ValueError(f"class names must be unique, not {shown(twice[0])} twice")
        ignored = set(self.ignore)
        if not self.label_ids:
            possible = range(len(self) + len(ignored))
            free = tuple(label for label in possible if label not in ignored)
            object.__setattr__(self, "label_ids", free[: len(self)])
        for name in ("colors", "label_ids"):
            values = getattr(self, name)
            if len(values) != len(self):
                raise ValueError(f"{len(self)} categories need {len(self)} {name}: {shown(values)}")
        if len(set(self.label_ids)) < len(self):
            raise ValueError(f"label_ids must be unique, not {shown(self.label_ids)}")
        both = sorted(set(self.label_ids) & ignored)
        if both:
            raise ValueError(
                f"label_ids and ignore, which is [{IGNORE_INDEX}] if not given, both hold "
                f"{shown(both)}: give these to one of them"
            )

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def palette(self) -> list[int]:
        """256 RGB colours in one flat list, as an indexed PNG stores them; unused ones black."""
        flat = [channel for color in self.colors for channel in color]
        return flat + [0] * (3 * 256 - len(flat))

    def to_config(self) -> dict[str, Any]:
        """Returns the label set as JSON-able values, which `from_config` reads back.

        `ignore` is among them only if it is not the usual one.
        """
        config = {
            "categories": list(self.categories),
            "colors": [list(color) for color in self.colors],
            "label_ids": list(self.label_ids),
        }
        return config if self.ignore == (IGNORE_INDEX,) else {**config, "ignore": list(self.ignore)}

    @classmethod
    def from_config(cls, config: "str | Mapping[str, Any] | LabelSet") -> "LabelSet":
        """Returns the label set that a name or a mapping describes, or the one given.

        Args:
            config: a name in `LABEL_SETS`, or a mapping with `categories` and optionally `colors`,
                `label_ids` and `ignore` (by default 255, unless that is the id of a class).

        Raises:
            ValueError: if the name is unknown, or the fields do not fit together.
        """
        if isinstance(config, LabelSet):
            return config
        if isinstance(config, str):
            if config not in LABEL_SETS:
                raise ValueError(
                    f"unknown label set {shown(config)}; available: {', '.join(LABEL_SETS)}"
                )
            return LABEL_SETS[config]
        if not isinstance(config, Mapping):
            raise ValueError(f"a label set must be a name or a mapping, not {shown(config)}")
        check_fields("a label set", config, [*FIELDS])
        if "categories" not in config:
            raise ValueError(f"a label set needs categories, and has only {sorted(config)}")
        categories = class_names(config["categories"])
        label_ids = whole_numbers("label_ids", config.get("label_ids", ()))
        usual = () if IGNORE_INDEX in label_ids else (IGNORE_INDEX,)
        colors: Any = config.get("colors")
        if colors is None or (is_list(colors) and not colors):
            colors = distinct_colors(len(categories))
        return cls(categories, colors, label_ids, config.get("ignore", usual))

    @classmethod
    def numbered(cls, num_classes: int) -> "LabelSet":
        """Returns unnamed classes: "class 0", "class 1", ..., in distinct colours."""
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be in 1..{MAX_CLASSES}, not {num_classes}")
        names = tuple(f"class {index}" for index in range(num_classes))
        return cls(names, tuple(distinct_colors(num_classes)))

    @classmethod
    def of(cls, num_classes: int, config: "str | Mapping[str, Any] | None") -> "LabelSet":
        """Returns the classes of a configuration, or unnamed ones if it is None.

        Raises:
            ValueError: if it does not have `num_classes` classes.
        """
        found = cls.numbered(num_classes) if config is None else cls.from_config(config)
        if len(found) != num_classes:
            raise ValueError(
                f"num_classes is {num_classes}, but the label set has {len(found)} classes"
            )
        return found


def complete_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Completes arguments of `CCNet`: `categories` make a label set, which makes `num_classes`.

    Raises:
        ValueError: if `categories` are no list of names, or there is no such label set.
    """
    arguments = dict(given)
    if "categories" in arguments:
        categories = arguments.pop("categories")
        if isinstance(categories, str) or not isinstance(categories, Iterable):
            raise ValueError(f"categories must be a list of names, not {shown(categories)}")
        arguments["label_set"] = {"categories": list(categories)}
    if arguments.get("label_set") is not None:
        arguments.setdefault("num_classes", len(LabelSet.from_config(arguments["label_set"])))
    return arguments


def distinct_colors(count: int) -> Sequence[Color]:
    """Returns `count` colours whose hues are spread by the golden ratio."""
    colors = []
    for index in range(count):
        hue = (index * 0.618033988749895) % 1.0
        r, g, b = colorsys.hsv_to_rgb(hue, 0.85 - 0.3 * (index % 2), 0.95 - 0.25 * (index % 3))
        colors.append((round(255 * r), round(255 * g), round(255 * b)))
    return colors


def _label_set(
    rows: Sequence[tuple[str, Color, int]], ignore: tuple[int, ...] = (IGNORE_INDEX,)
) -> LabelSet:
    categories, colors, label_ids = zip(*rows, strict=True)
    return LabelSet(categories, colors, label_ids, ignore)


ADE20K = _label_set(class_tables.ADE20K, ignore=(0, IGNORE_INDEX))
CAMVID = _label_set(class_tables.CAMVID)
CITYSCAPES = _label_set(class_tables.CITYSCAPES)
VOC = _label_set(class_tables.VOC)

LABEL_SETS = {"cityscapes": CITYSCAPES, "camvid": CAMVID, "ade20k": ADE20K, "voc": VOC}
