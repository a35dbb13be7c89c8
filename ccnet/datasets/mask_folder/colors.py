"""Colours: the classes of masks that hold colours in place of numbers."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ccnet.classes import IGNORE_INDEX, LABEL_SETS, Color, LabelSet
from ccnet.datasets.mask_folder.classes_file import IGNORE_COLORS, ClassesFile
from ccnet.datasets.mask_folder.numbering import numbering
from ccnet.datasets.mask_folder.palettes import ALIKE, colors_shown
from ccnet.datasets.mask_folder.survey import FileFacts
from ccnet.datasets.wording import in_short, name_masks, pixels_in_short

LISTED = 40
"""Maximum number of colours that an error lists for `classes.json`."""

RARE, FREQUENT = 1e-3, 1e-2
"""Shares of the pixels: masks have few colours of less, and blended ones classes of more."""

_BLENDED = "JPEG, smooth edges or a resize that blends"

_LOSSLESS = (
    "export masks without loss and without smooth edges, and resize them with nearest neighbour"
)


def color_numbering(
    described: ClassesFile, given: LabelSet | None, masks: Mapping[Path, FileFacts]
) -> tuple[LabelSet, dict[Color, int]]:
    """Returns the classes, numbered 0, 1, ..., and the number of each colour in the masks.

    Args:
        described: what `classes.json` says.
        given: the classes that are wanted; None for those of the folder.
        masks: what the masks hold.

    Raises:
        ValueError: if it is not known which classes the colours are for.
    """
    if given is None and "colors" not in described.fields:
        raise ValueError(_undescribed(described, masks))
    if given is None and not described.names_classes:
        count = len(described.fields["colors"])
        own = described.label_set([f"class {number}" for number in range(count)])
    else:
        own = numbering(described, given, ())
    colors = [*own.colors, *described.ignore_colors]
    twice = [color for color, times in Counter(colors).items() if times > 1]
    if twice:
        raise ValueError(f'"colors" and "{IGNORE_COLORS}" hold {[*twice[0]]} twice')
    ids = tuple(range(len(own)))
    code = dict(zip(own.colors, ids, strict=True))
    code |= dict.fromkeys(described.ignore_colors, IGNORE_INDEX)
    return replace(own, label_ids=ids, ignore=(IGNORE_INDEX,)), code


def recoded(
    masks: Mapping[Path, FileFacts], code: Mapping[Color, int]
) -> tuple[dict[Path, FileFacts], list[str]]:
    """Replaces the numbers in masks by those of the colours that viewers show for them.

    Returns:
        What the masks hold then, without colours that have no number; and a line about these.
    """
    found: dict[Path, FileFacts] = {}
    unknown: dict[Path, Counter[Color]] = {}
    for path, facts in masks.items():
        colors = _pixels(facts)
        counts: Counter[int] = Counter()
        for color in colors.keys() & code.keys():
            counts[code[color]] += colors[color]
        if rest := colors.keys() - code.keys():
            unknown[path] = Counter({color: colors[color] for color in rest})
        values = tuple(sorted(counts))
        pixels = tuple(counts[value] for value in values)
        found[path] = FileFacts(facts.size, facts.orientation, values, pixels, (0,) * len(values))
    return found, [_unknown_colors(unknown, masks.values(), code)] if unknown else []


def lone_class(label_set: LabelSet, masks: Iterable[FileFacts]) -> list[str]:
    """Says that there is no second class to tell apart, if so."""
    labels = {value for facts in masks for value in facts.values} - {IGNORE_INDEX}
    if len(labels) > 1:
        return []
    name = f"but {label_set.categories[labels.pop()]!r}" if labels else "at all"
    return [f"the masks show the colour of no class {name}; a network needs two to tell apart"]


def _pixels(facts: FileFacts) -> Counter[Color]:
    counts: Counter[Color] = Counter()
    shown = colors_shown(facts.palette, facts.values)
    for color, pixels in zip(shown, facts.pixels, strict=True):
        counts[color] += pixels
    return counts


def _total(masks: Iterable[FileFacts]) -> Counter[Color]:
    return sum((_pixels(facts) for facts in masks), Counter[Color]())


def _undescribed(described: ClassesFile, masks: Mapping[Path, FileFacts]) -> str:
    """What is to be written into `classes.json`."""
    colors = _total(masks.values())
    wanted, damage = sorted(colors), ""
    if _are_blended(colors):
        wanted = [color for color in wanted if colors[color] >= FREQUENT * colors.total()]
        damage = (
            f"{len(colors) - len(wanted)} of their {len(colors)} colours have few pixels, as with "
            f"{_BLENDED}: {_LOSSLESS}; then "
        )
    more = f" and {len(wanted) - LISTED} more" if len(wanted) > LISTED else ""
    shown = [list(color) for color in wanted[:LISTED]]
    example = {"categories": _names(wanted[:LISTED]), "colors": shown}
    entry = json.dumps(example, ensure_ascii=False)
    if described.names_classes:
        entry = f'"colors" in the order of the names: {json.dumps(shown)}'
    colored = [path for path, facts in masks.items() if facts.is_colored]
    return (
        f"{name_masks(colored, 'hold')} colours in place of class numbers: {damage}give each class "
        f"its colour in classes.json, {entry}{more}; colours that mean no class go into "
        f'"{IGNORE_COLORS}"'
    )


def _names(colors: Collection[Color]) -> list[str]:
    """The names that a known label set has for most of the colours, and others to fill in."""
    sets = [dict(zip(one.colors, one.categories, strict=True)) for one in LABEL_SETS.values()]
    known = max(sets, key=lambda names: len(names.keys() & {*colors}))
    if 2 * len(known.keys() & {*colors}) < max(4, len(colors)):
        known = {}
    return [known.get(color, f"name of {','.join(map(str, color))}") for color in colors]


def _unknown_colors(
    found: Mapping[Path, Counter[Color]], masks: Collection[FileFacts], code: Mapping[Color, int]
) -> str:
    unknown = sum(found.values(), Counter[Color]())
    everything = _total(masks)
    nearly = [color for color in unknown if any(_are_alike(color, other) for other in code)]
    if _are_blended(everything) or len(nearly) == len(unknown):
        advice = f"they are as with {_BLENDED}, or a colour profile: {_LOSSLESS}"
    else:
        ignored = [color for color, number in code.items() if number == IGNORE_INDEX]
        colors = json.dumps([list(color) for color in sorted([*ignored, *unknown])[:LISTED]])
        advice = (
            f'give each its class in "colors", or, if they mean no class, "{IGNORE_COLORS}": '
            f"{colors} in classes.json"
        )
    most = [[*color] for color, _ in unknown.most_common()]
    return (
        f"{name_masks([*found], 'have')} {pixels_in_short(unknown.total(), everything.total())} in "
        f"colours that no class has: {in_short(most)}; {advice}"
    )


def _are_blended(colors: Counter[Color]) -> bool:
    """Whether most colours have few pixels: these were not drawn."""
    rare = sum(pixels < RARE * colors.total() for pixels in colors.values())
    return rare > max(8, len(colors) / 2)


def _are_alike(color: Color, other: Color) -> bool:
    return max(abs(one - two) for one, two in zip(color, other, strict=True)) <= ALIKE
