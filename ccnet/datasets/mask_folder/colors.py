"""Colours: the classes of masks that hold colours in place of numbers."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, starmap
from pathlib import Path

from ccnet.classes import IGNORE_INDEX, LABEL_SETS, MAX_CLASSES, Color, LabelSet
from ccnet.datasets.mask_folder.classes_file import IGNORE_COLORS, ClassesFile
from ccnet.datasets.mask_folder.numbering import numbering
from ccnet.datasets.mask_folder.palettes import ALIKE, colors_shown
from ccnet.datasets.mask_folder.survey import FileFacts
from ccnet.datasets.wording import in_short, name_masks, pixels_in_short

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
    described: ClassesFile, masks: Mapping[Path, FileFacts], code: Mapping[Color, int]
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
        none = (0,) * len(values)
        found[path] = FileFacts(facts.size, facts.orientation, values, pixels, none, none)
    if not unknown:
        return found, []
    return found, [_unknown_colors(described, unknown, masks.values(), code)]


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
    colored = [path for path, facts in masks.items() if facts.is_colored]
    return (
        f"{name_masks(colored, 'hold')} colours in place of class numbers: {damage}give each class "
        f"its colour, {_entry(described, wanted)}"
    )


def palette_entry(described: ClassesFile, masks: Iterable[FileFacts]) -> str:
    """Says what to write into `classes.json` of the colours of palettes.

    Empty if colours cannot tell the classes: if they differ a little from file to file, or are more
    than there may be classes.
    """
    colors = sorted(_total(masks))
    if len(colors) > MAX_CLASSES or any(starmap(_are_alike, combinations(colors, 2))):
        return ""
    return f"or give each class its colour, {_entry(described, colors)}"


def _entry(described: ClassesFile, colors: Iterable[Color]) -> str:
    """What to write into `classes.json` of these colours, ascending, and what to do then."""
    every = [color for color in colors if color not in described.ignore_colors]
    shown, ignored = every[:MAX_CLASSES], f'; colours that mean no class go into "{IGNORE_COLORS}"'
    more = f", and {len(every) - len(shown)} more" if every != shown else ""
    if not described.names_classes:
        text = described.changed(categories=_names(shown), colors=shown, label_ids=None)
        return f"{text}{more}{ignored}"
    names = described.label_set().categories
    known = _known_colors(names, shown)
    left = [[*color] for color in shown if color not in known.values()]
    if len(known) == len(names):
        ignore_colors = [*described.ignore_colors, *left] or None
        return described.changed(colors=[*known.values()], ignore_colors=ignore_colors) + ignored
    text = described.changed(colors=[known.get(name, f"colour of {name}") for name in names])
    return (
        f'{text}, where each "colour of ..." must become one of {left}{more}, which are sorted by '
        f"value, not as the names{ignored}"
    )


def _names(colors: Collection[Color]) -> list[str]:
    """The names that a known label set has for most of the colours, and others to fill in."""
    known = max(_KNOWN, key=lambda names: len(names.keys() & {*colors}))
    if 2 * len(known.keys() & {*colors}) < max(4, len(colors)):
        known = {}
    return [known.get(color, f"name of {','.join(map(str, color))}") for color in colors]


def _known_colors(names: Sequence[str], colors: Collection[Color]) -> dict[str, Color]:
    """Those of the colours that a known label set, the one with most, has for these names."""
    found = [
        {name: color for color, name in known.items() if name in names and color in colors}
        for known in _KNOWN
    ]
    most = max(found, key=len)
    return {name: most[name] for name in names if name in most}


_KNOWN = [dict(zip(one.colors, one.categories, strict=True)) for one in LABEL_SETS.values()]
"""The names of the colours of each known label set."""


def _unknown_colors(
    described: ClassesFile,
    found: Mapping[Path, Counter[Color]],
    masks: Collection[FileFacts],
    code: Mapping[Color, int],
) -> str:
    unknown = sum(found.values(), Counter[Color]())
    everything = _total(masks)
    nearly = [color for color in unknown if any(_are_alike(color, other) for other in code)]
    if _are_blended(everything) or len(nearly) == len(unknown):
        advice = f"they are as with {_BLENDED}, or a colour profile: {_LOSSLESS}"
    else:
        ignored = sorted({*described.ignore_colors, *unknown})
        advice = (
            'give each its class in "colors", or, if they mean no class, '
            f"{described.changed(ignore_colors=ignored)}"
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
