"""MaskFolder: a data set of your own images and masks."""

import logging
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ccnet.classes import IGNORE_INDEX, LabelSet
from ccnet.datasets.label_maps import read_label_map, turned
from ccnet.datasets.labeled_images import LabeledImages, Transforms
from ccnet.datasets.mask_folder.classes_file import ClassesFile
from ccnet.datasets.mask_folder.meaning import interpret
from ccnet.datasets.mask_folder.orientation import orient
from ccnet.datasets.mask_folder.pairing import Problems, pair_files
from ccnet.datasets.mask_folder.palettes import colors_shown
from ccnet.datasets.mask_folder.survey import FileFacts, survey
from ccnet.datasets.wording import first_lines, in_short
from ccnet.distributed import rank
from ccnet.files import user_path
from ccnet.options import named_options

logger = logging.getLogger(__name__)

LONGEST_REPORT = 30
"""Maximum number of lines that an error message has."""


class MaskFolder(LabeledImages):
    """Images and masks in a folder with `images`, `masks` and optionally `classes.json`.

    Each image, in any format that `decode_image` reads, has a mask of the same name and size: a
    PNG, BMP, GIF or TIFF file, grey or with a palette, with a class number for every pixel, or 255
    for pixels without a class; or with the colour of a class for every pixel. Names may differ by
    words such as `_img` and `_mask`. Subfolders are searched too.

    `classes.json` is a list of class names, or an object of optional fields: `categories`, the
    names; `colors`, RGB, which masks of colours need, and `ignore_colors`, those in masks that mean
    "no class"; `label_ids`, the number of each class in the masks; `ignore`, the numbers that mean
    "no class", by default [255]; `mask_orientation`, "upright" or "stored": whether masks fit
    images as EXIF orientation turns them, or as they are stored, where sizes do not tell. Without
    names, the classes are the numbers from 0 to the largest in any mask, in the colours of the
    masks' palette.

    All files are read once at construction, and what they hold is remembered for the next time. A
    validation folder should get the `label_set` of the training folder; if its `classes.json` names
    classes, these must be among them, and it tells their numbers.

    Args:
        root: the folder.
        transforms: applied to image and labels together.
        label_set: the classes, instead of those in `classes.json`.

    Raises:
        FileNotFoundError: if `images` or `masks` is missing or empty.
        ValueError: if files are invalid, or the numbers in the masks cannot be what they are taken
            for; lists the problems of all files.
    """

    @named_options()
    def __init__(
        self,
        root: str | os.PathLike[str],
        transforms: Transforms | None = None,
        label_set: LabelSet | None = None,
    ) -> None:
        root = user_path(root)
        pairs = pair_files(root)
        images, masks = [pair[1] for pair in pairs.files], [pair[2] for pair in pairs.files]
        facts = survey(root, images, masks)
        _add_unusable(pairs.problems, facts)
        meaning, described = None, ClassesFile()
        try:
            described = ClassesFile.read(root)
            readable = {path: facts[path] for path in masks if not facts[path].problem}
            meaning = interpret(described, label_set, readable)
        except ValueError as error:
            pairs.problems["classes"].append(str(error))
        turns = orient(pairs, facts, described)
        if meaning is not None:
            pairs.problems["classes"] += meaning.problems
        if meaning is None or any(pairs.problems.values()):
            raise ValueError(_report(root, pairs.problems))
        self.label_set = label_set or meaning.numbers
        self._code = meaning.code
        values = _values(meaning.numbers, self.label_set)
        super().__init__([(image, mask) for _, image, mask in pairs.files], values, transforms)
        self.names = [name for name, _, _ in pairs.files]
        self._turns = turns
        classes = len(self.label_set)
        self._pixels = torch.stack(
            [_class_pixels(meaning.masks[mask], values, classes) for mask in masks]
        )
        if rank() == 0:
            for note in (*pairs.notes, *meaning.notes):
                logger.warning("%s: %s", root, note)

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what tells a sample from others: also how its mask is turned and what it holds.

        Whatever changes the number of pixels of a class is noticed; reads no pixels.
        """
        found = super().identify(index)
        pixels = zlib.crc32(self._pixels[index].numpy().tobytes())
        return {**found, "mask": f"{found['mask']} {self._turns[index]} {pixels:08x}"}

    def labels(self, index: int) -> Tensor:
        """Reads the labels of a sample, before its transforms, as its upright image shows them."""
        labels = turned(super().labels(index).numpy(), self._turns[index])
        return torch.from_numpy(np.ascontiguousarray(labels))

    def _numbers(self, path: Path) -> NDArray[np.uint8]:
        if self._code is None:
            return super()._numbers(path)
        label_map = read_label_map(path, colored=True)
        values = label_map.values
        present = np.flatnonzero(Image.fromarray(values).histogram()).tolist()
        numbers = np.zeros(256, np.uint8)
        for value, color in zip(
            present, colors_shown(label_map.palette.hex(), present), strict=True
        ):
            if color not in self._code:
                raise ValueError(f"{path} has the colour {list(color)}, which no class has")
            numbers[value] = self._code[color]
        return numbers.take(values)

    def class_pixels(self, index: int) -> Tensor:
        """Returns the number of pixels of each class in a sample: (K,), int64; reads no file."""
        return self._pixels[index]


def _add_unusable(problems: Problems, facts: Mapping[Path, FileFacts]) -> None:
    """Adds the problems of files; those that many files have in one line."""
    files = defaultdict(list)
    for path, found in facts.items():
        files[found.problem.removeprefix(f"{path} ")].append(path)
    for problem, paths in files.items():
        if problem and len(paths) == 1:
            problems[re.sub(r"[\d.]+", "", problem)].append(facts[paths[0]].problem)
        elif problem:
            problems[problem].append(f"each of {len(paths)} files {problem}: {in_short(paths)}")


def _values(numbers: LabelSet, label_set: LabelSet) -> dict[int, int]:
    """The label for each number in a mask."""
    order = {name: index for index, name in enumerate(label_set.categories)}
    labels = [order[name] for name in numbers.categories]
    ignored = dict.fromkeys(numbers.ignore, IGNORE_INDEX)
    return {
        number: label
        for number, label in (ignored | dict(zip(numbers.label_ids, labels, strict=True))).items()
        if 0 <= number <= 255
    }


def _class_pixels(facts: FileFacts, values: Mapping[int, int], classes: int) -> Tensor:
    counts = torch.zeros(classes, dtype=torch.int64)
    for number, pixels in zip(facts.values, facts.pixels, strict=True):
        if values[number] != IGNORE_INDEX:
            counts[values[number]] += pixels
    return counts


def _report(root: Path, problems: Problems) -> str:
    """Lists the problems, the first of each kind."""
    every = [line for kind in problems.values() for line in first_lines(kind)]
    lines = every[:LONGEST_REPORT]
    if len(every) > LONGEST_REPORT:
        lines.append(f"... and {len(every) - LONGEST_REPORT} more")
    total = sum(map(len, problems.values()))
    count = "a problem" if total == 1 else f"{total} problems"
    return "\n  ".join([f"{root} has {count}:", *lines])
