"""MaskFolder: a data set of your own images and masks."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ccnet.classes import IGNORE_INDEX, LabelSet
from ccnet.datasets.labeled_images import LabeledImages, Pair, Transforms, read_label_map
from ccnet.transforms import decode_image

LONGEST_REPORT = 30
"""Maximum number of problems that an error message lists."""


class MaskFolder(LabeledImages):
    """Images and masks in a folder with `images`, `masks` and optionally `classes.json`.

    Each image (JPEG, PNG, or any other format that Pillow reads) has a mask of the same name and
    size: a greyscale or palette PNG with a class number for every pixel, or 255 for pixels without
    a class. EXIF orientation is applied to the image, and the mask must fit the upright image.

    `classes.json` is a list of class names, or the fields of a label set:
    `{"categories": ["road", "sky"], "colors": [[128, 64, 128], [70, 130, 180]]}`, and `label_ids`
    if the masks do not number the classes 0, 1, .... Without it, the classes are the numbers from 0
    to the largest in any mask, which must be 1 or more, in the colours of the masks' palette.

    All files are read once at construction. A validation folder should get the `label_set` of the
    training folder.

    Args:
        root: the folder.
        transforms: applied to image and labels together.
        label_set: the classes, instead of `classes.json`.

    Raises:
        FileNotFoundError: if `images` or `masks` is missing or empty.
        ValueError: if files are invalid; lists the problems of all files.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transforms: Transforms | None = None,
        label_set: LabelSet | None = None,
    ) -> None:
        root = Path(root)
        problems: list[str] = []
        images, masks = (_files_by_stem(root / name, problems) for name in ("images", "masks"))
        missing = [name for name, files in (("images", images), ("masks", masks)) if not files]
        if missing:
            raise FileNotFoundError(
                f"no files in {' and in '.join(str(root / name) for name in missing)}; expected "
                "images/NAME.jpg (or .png, ...) and masks/NAME.png"
            )
        if label_set is None and (root / "classes.json").exists():
            label_set = _read_classes(root / "classes.json", problems)
        stems = sorted(images.keys() | masks.keys())
        with ThreadPoolExecutor() as pool:
            contents = list(pool.map(_inspect, map(images.get, stems), map(masks.get, stems)))
        for content in contents:
            problems += content.problems
        if label_set is not None:
            problems += _unknown_labels(label_set, contents)
        elif not (root / "classes.json").exists():
            label_set = _infer_classes(contents, problems)
        if problems or label_set is None:
            raise ValueError(_report(root, problems))
        self.label_set = label_set
        values = {label_id: index for index, label_id in enumerate(label_set.label_ids)}
        pairs: list[Pair] = [(images[stem], masks[stem]) for stem in stems]
        super().__init__(pairs, values | {IGNORE_INDEX: IGNORE_INDEX}, transforms)


@dataclass
class _Content:
    """The contents of an image and its mask.

    Attributes:
        mask: path of the mask.
        problems: error messages about either or both.
        labels: the class numbers in the mask, without the ignore index.
        palette: the mask's colours in one flat list.
    """

    mask: Path | None
    problems: list[str] = field(default_factory=list)
    labels: set[int] = field(default_factory=set)
    palette: list[int] | None = None


def _files_by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or not path.is_file():
            continue
        other = files.setdefault(path.stem, path)
        if other != path:
            problems.append(f"{other} and {path.name} have the same name; keep one of them")
    return files


def _read_classes(path: Path, problems: list[str]) -> LabelSet | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
        return LabelSet.from_config({"categories": config} if isinstance(config, list) else config)
    except (ValueError, TypeError, OSError) as error:
        problems.append(
            f'{path} is no list of names, nor {{"categories": [...], "colors": [...]}}: {error}'
        )
        return None


def _inspect(image: Path | None, mask: Path | None) -> _Content:
    content = _Content(mask)
    size = None
    if image is None:
        content.problems.append(f"{mask} has no image")
    else:
        try:
            size = tuple(decode_image(image).shape[-2:])
        except ValueError as error:
            content.problems.append(str(error))
    if mask is None:
        content.problems.append(f"{image} has no mask")
        return content
    try:
        values, content.palette = read_label_map(mask)
    except ValueError as error:
        content.problems.append(str(error))
        return content
    if size and size != values.shape:
        content.problems.append(f"{image} is {size}, its mask {values.shape} (height, width)")
    content.labels = set(np.flatnonzero(np.bincount(values.ravel())).tolist()) - {IGNORE_INDEX}
    return content


def _unknown_labels(label_set: LabelSet, contents: list[_Content]) -> Iterator[str]:
    known = set(label_set.label_ids)
    impossible = sorted(known - set(range(IGNORE_INDEX)))
    if impossible:
        yield f"label_ids are {impossible}; masks can hold 0..{IGNORE_INDEX - 1}"
    for content in contents:
        unknown = sorted(content.labels - known)
        if unknown:
            yield (
                f"{content.mask} has the labels {unknown}, but the {len(label_set)} classes have "
                f"{_in_short(sorted(known))}, and {IGNORE_INDEX} is for pixels without a class"
            )


def _in_short(numbers: list[int]) -> str:
    """Formats consecutive numbers as first..last, others one by one."""
    first, last = numbers[0], numbers[-1]
    return f"{first}..{last}" if last - first == len(numbers) - 1 else str(numbers)


def _infer_classes(contents: list[_Content], problems: list[str]) -> LabelSet | None:
    labels = set[int]().union(*(content.labels for content in contents))
    if not labels:
        problems.append("no readable mask has a pixel with a class")
        return None
    if labels == {0}:
        problems.append(
            f"the masks hold no class but 0, and perhaps {IGNORE_INDEX}, which is for pixels "
            "without one; number two classes 0 and 1, or list a single one in classes.json"
        )
        return None
    numbered = LabelSet.numbered(max(labels) + 1)
    palette = next((content.palette for content in contents if content.palette), [])
    painted = list(zip(palette[::3], palette[1::3], palette[2::3], strict=True))
    return replace(numbered, colors=(*painted[: len(numbered)], *numbered.colors[len(painted) :]))


def _report(root: Path, problems: list[str]) -> str:
    lines = problems[:LONGEST_REPORT]
    if len(problems) > LONGEST_REPORT:
        lines.append(f"... and {len(problems) - LONGEST_REPORT} more")
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n  ".join([f"{root} has {count}:", *lines])
