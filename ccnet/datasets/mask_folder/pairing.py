"""Pairing: which mask belongs to which image, by their names."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from ccnet.datasets.wording import NAMED, in_short
from ccnet.images import is_picture_name

FOLDERS = ("images", "masks")
"""The folders of the files."""

_IMAGE_WORDS = "images?|img|im|rgb|photo|picture|leftimg8bit|jpe?g|png"
"""Words in a file's name that say that it is an image; masks may be named after its suffix."""

_MASK_WORDS = (
    "masks?|gt|groundtruth|labels?|lbl|labelids|labeltrainids|gtfine|gtcoarse|segm?|segmentation|"
    "annotations?|annot|ann|target|jpe?g|png"
)
"""Words that say that it is a mask."""

_OUTLINES = (".json", ".xml", ".txt")
"""Suffixes of files in which tools keep the outlines of objects."""

_LAST_WORD = re.compile(r"^.*(?=[-_. ][^-_. ]*[^\W\d_][^-_. ]*$)")
"""What comes before the last word of a name, if that has a letter."""

Problems = defaultdict[str, list[str]]
"""Errors, a line each, by their kind."""

Files = dict[str, Path]
"""Paths by their names: below the folder, and without a suffix."""


@dataclass
class Pairs:
    """The files of a folder.

    Attributes:
        files: the name of each pair, that of its image; the image; and the mask.
        problems: errors.
        notes: what was left out or guessed, a line each.
    """

    files: list[tuple[str, Path, Path]] = field(default_factory=list)
    problems: Problems = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)


def pair_files(root: Path) -> Pairs:
    """Pairs the files below `images` and `masks` by their names.

    `images/a/1.jpg` and `masks/a/1.png` are a pair, and so are `1_img.jpg` and `1_mask.png`: words
    for what a file is are no part of its name. Where no names agree, neither are the beginning and
    the end that all names of a folder share.

    Raises:
        FileNotFoundError: if `images` or `masks` is missing or empty.
    """
    pairs = Pairs()
    images, masks = (_find(root / folder, pairs) for folder in FOLDERS)
    missing = [name for name, files in (("images", images), ("masks", masks)) if not files]
    if missing:
        raise FileNotFoundError(
            f"no files in {' and in '.join(str(root / name) for name in missing)}; expected "
            f"images/NAME.jpg (or .png, ...) and masks/NAME.png{_instead(root)}"
        )
    found = {name: name for name in images if name in masks}
    for bare_image, bare_mask in ((_image_start, _mask_start), (_bare_image, _bare_mask)):
        left, alone = images.keys() - found, masks.keys() - found.values()
        found |= _matches(_grouped(left, bare_image), _grouped(alone, bare_mask))
    if not found:
        found = _matches_without_affixes(images, masks, pairs)
    pairs.files = [(name, images[name], masks[found[name]]) for name in sorted(found)]
    _report_rest(
        {name: images[name] for name in sorted(images.keys() - found)},
        {name: masks[name] for name in sorted(masks.keys() - found.values())},
        pairs.problems,
    )
    return pairs


def _instead(root: Path) -> str:
    """What there is in place of images and masks: other folders, outlines of objects."""
    folders = sorted(path.name for path in root.glob("[!.]*") if path.is_dir())
    others = [name for name in folders if name not in FOLDERS]
    said = f"; there are {in_short(others)} in {root}" if others else ""
    above = root.absolute().parent
    if root.absolute().name in FOLDERS and all((above / name).is_dir() for name in FOLDERS):
        said += f"; it is part of {above}: give that folder"
    kinds = Counter(path.suffix for path in _walk(root) if path.name != "classes.json")
    outlines = [f"{kinds[suffix]} {suffix}" for suffix in _OUTLINES if kinds[suffix]]
    if outlines:
        said += (
            f"; outlines or boxes, as {', '.join(outlines)} files may hold, are no masks: export "
            "masks of class numbers, as PNG, from where they were drawn"
        )
    return said


def _find(folder: Path, pairs: Pairs) -> Files:
    files: Files = {}
    others: Counter[str] = Counter()
    for path in _walk(folder):
        if not is_picture_name(path):
            others[path.suffix or "without a suffix"] += 1
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        other = files.setdefault(unicodedata.normalize("NFC", name), path)
        if other != path:
            line = f"{other} and {path.name} have the same name; keep one of them"
            pairs.problems["same name"].append(line)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        pairs.notes.append(f"{folder}: left out what is no picture by its suffix: {kinds}")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yields the files in a folder and below, in the order of their names, without hidden ones."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(parent, name)) not in seen
        )
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and (path.is_file() or not path.exists()):
                yield path


def _without(words: str, *, also_first: bool = True) -> Callable[[str], str]:
    """Returns a function that removes words after the rest of a name, and before it."""
    pattern = rf"(?:[-_. ](?:{words}))+$"
    if also_first:
        start, end = rf"(?:{words})(?:[-_. ]|(?=\d)|$)", rf"(?:^|[-_. ])(?:{words})"
        pattern = f"^(?:{start})+|(?:{end})+$"
    compiled = re.compile(pattern, re.IGNORECASE)

    def bare(name: str) -> str:
        folder, _, last = name.rpartition("/")
        return f"{folder}/{compiled.sub('', last)}"

    return bare


_bare_image, _bare_mask = _without(_IMAGE_WORDS), _without(_MASK_WORDS)
_image_start = _without(_IMAGE_WORDS, also_first=False)
_mask_start = _without(_MASK_WORDS, also_first=False)


def _grouped(names: Iterable[str], bare: Callable[[str], str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in sorted(names):
        groups[bare(name)].append(name)
    return groups


def _matches(images: dict[str, list[str]], masks: dict[str, list[str]]) -> dict[str, str]:
    """The mask of each image whose group has one of each."""
    both = ((images[bare], masks[bare]) for bare in images.keys() & masks.keys())
    return {left[0]: right[0] for left, right in both if len(left) == len(right) == 1}


def _matches_without_affixes(images: Files, masks: Files, pairs: Pairs) -> dict[str, str]:
    """Pairs all names without the affixes of their folders, or none."""
    affixes = _affixes(images), _affixes(masks)
    (before, after), (mask_before, mask_after) = affixes
    found = _matches(
        _grouped(images, lambda name: name[len(before) : len(name) - len(after)]),
        _grouped(masks, lambda name: name[len(mask_before) : len(name) - len(mask_after)]),
    )
    if not len(found) == len(images) == len(masks) > 1:
        return {}
    pairs.notes.append(
        f"took {before}NAME{after} and {mask_before}NAME{mask_after} for an image and its mask"
    )
    return found


def _affixes(names: Iterable[str]) -> tuple[str, str]:
    """What all names begin and end with: whole words, with a letter in them."""
    start, end = _common_start(names), _common_start([name[::-1] for name in names])[::-1]
    before = re.sub(r"[^-_. /]*$", "", start)
    after = re.sub(r"^[^-_. ]*", "", end)
    has_letter = re.compile(r"[^\W\d_]").search
    return before if has_letter(before) else "", after if has_letter(after) else ""


def _common_start(names: Iterable[str]) -> str:
    first, last = min(names), max(names)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in same)


def _report_rest(images: Files, masks: Files, problems: Problems) -> None:
    """Reports files without a partner."""
    groups, others = _grouped(images, _bare_image), _grouped(masks, _bare_mask)
    for bare in sorted(groups.keys() & others.keys()):
        together = [images.pop(name) for name in groups[bare]]
        together += [masks.pop(name) for name in others[bare]]
        line = f"an image has one mask, but these go together: {in_short(together)}"
        problems["several masks"].append(line)
    for kind, partner, files in (("image", "mask", images), ("mask", "image", masks)):
        paths = list(files.values())
        if len(paths) == 1:
            problems["alone"].append(f"{paths[0]} has no {partner}")
        elif paths:
            ends = sorted({_LAST_WORD.sub("", name) for name in files})
            is_shape = len(ends) < NAMED and files.keys().isdisjoint(ends)
            shape = f", whose names end in {in_short(ends)}" if is_shape else ""
            line = f"{len(paths)} {kind}s have no {partner}{shape}: {in_short(paths)}"
            problems["alone"].append(line)
