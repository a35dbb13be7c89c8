"""Label sets: class names, colours, and the label ids that a data set's files use for them."""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from ccnet import class_tables

Color = tuple[int, int, int]

IGNORE_INDEX = 255
"""Label of pixels that are ignored by losses and evaluation."""

MAX_CLASSES = IGNORE_INDEX
"""Label maps are stored in 8 bits, and one of their 256 values is `IGNORE_INDEX`."""


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
        ValueError: if there are too many classes, a name or an id occurs twice, or the fields do
            not fit together.
    """

    categories: tuple[str, ...]
    colors: tuple[Color, ...]
    label_ids: tuple[int, ...] = ()
    ignore: tuple[int, ...] = (IGNORE_INDEX,)

    def __post_init__(self) -> None:
        if not 1 <= len(self.categories) <= MAX_CLASSES:
            raise ValueError(f"a label set has 1 to {MAX_CLASSES} classes, not {len(self)}")
        twice = [name for name, times in Counter(self.categories).items() if times > 1]
        if twice:
            raise ValueError(f"class names must be unique, not {', '.join(map(repr, twice))} twice")
        if not self.label_ids:
            possible = range(len(self) + len(self.ignore))
            free = tuple(label for label in possible if label not in self.ignore)
            object.__setattr__(self, "label_ids", free[: len(self)])
        for field in ("colors", "label_ids"):
            values = getattr(self, field)
            if len(values) != len(self):
                raise ValueError(f"{len(self)} categories need {len(self)} {field}: {values}")
        if len(set(self.label_ids)) < len(self):
            raise ValueError(f"label_ids must be unique, not {self.label_ids}")
        both = sorted(set(self.label_ids) & set(self.ignore))
        if both:
            raise ValueError(
                f"label_ids and ignore, which is [{IGNORE_INDEX}] if not given, both hold {both}: "
                "give these to one of them"
            )
        for color in self.colors:
            if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
                raise ValueError(f"a colour must be three whole numbers in 0..255, not {color}")

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
                    f"unknown label set {config!r}; available: {', '.join(LABEL_SETS)}"
                )
            return LABEL_SETS[config]
        if not isinstance(config, Mapping):
            raise ValueError(f"a label set must be a name or a mapping, not {config!r}")
        unknown = set(config) - {"categories", "colors", "label_ids", "ignore"}
        if unknown:
            raise ValueError(
                "a label set has categories, and optionally colors, label_ids and ignore, "
                f"not {sorted(unknown)}"
            )
        if "categories" not in config:
            raise ValueError(f"a label set needs categories, and has only {sorted(config)}")
        categories = _names(config["categories"])
        label_ids = whole_numbers("label_ids", config.get("label_ids", ()))
        usual = () if IGNORE_INDEX in label_ids else (IGNORE_INDEX,)
        colors = config.get("colors") or distinct_colors(len(categories))
        return cls(
            categories,
            _colors(colors),
            label_ids,
            whole_numbers("ignore", config.get("ignore", usual)),
        )

    @classmethod
    def numbered(cls, num_classes: int) -> "LabelSet":
        """Returns unnamed classes: "class 0", "class 1", ..., in distinct colours."""
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes must be in 1..{MAX_CLASSES}, not {num_classes}")
        names = tuple(f"class {index}" for index in range(num_classes))
        return cls(names, tuple(distinct_colors(num_classes)))


def whole_numbers(field: str, values: Any) -> tuple[int, ...]:
    """Returns the whole numbers that a field of a label set holds.

    Raises:
        ValueError: if it holds anything else.
    """
    if not _is_list(values) or not all(isinstance(value, Integral) for value in values):
        raise ValueError(f"{field} must be a list of whole numbers, not {values!r}")
    return tuple(int(value) for value in values)


def _names(values: Any) -> tuple[str, ...]:
    """Names; a number is one too."""
    if not _is_list(values):
        raise ValueError(f"categories must be a list of names, not {values!r}")
    for value in values:
        if not isinstance(value, str | Integral):
            raise ValueError(f"the name of a class must be a text, not {value!r}")
    return tuple(str(value) for value in values)


def _colors(values: Any) -> tuple[Color, ...]:
    if not _is_list(values):
        raise ValueError(f"colors must be a list of colours, not {values!r}")
    for color in values:
        if not _is_list(color) or [isinstance(one, Integral) for one in color] != [True] * 3:
            raise ValueError(f"a colour must be three whole numbers in 0..255, not {color!r}")
    return tuple((int(r), int(g), int(b)) for r, g, b in values)


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str)


def complete_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Completes arguments of `CCNet`: `categories` make a label set, which makes `num_classes`.

    Raises:
        ValueError: if `categories` are no list of names, or there is no such label set.
    """
    arguments = dict(given)
    if "categories" in arguments:
        categories = arguments.pop("categories")
        if isinstance(categories, str):
            raise ValueError(f"categories must be a list of names, not {categories!r}")
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
