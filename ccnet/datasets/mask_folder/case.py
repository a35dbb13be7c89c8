"""Case: the masks of a folder, and what their numbers are taken for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ccnet.classes import LabelSet
from ccnet.datasets.mask_folder.classes_file import ClassesFile
from ccnet.datasets.mask_folder.survey import FileFacts

RAMPS = 0.07
"""Share of the pixels at edges that lie between others, above which they were not drawn."""

EDGES = 0.6
"""Masks with more of their pixels at edges are noise, in which any pixel lies between others."""

PHOTOGRAPH = 0.25, 64
"""More numbers than the second, each with that share of its pixels between others, are no classes.
"""

FRINGE, FEW = 2 / 3, 0.02
"""Numbers with more of their pixels at edges, and less of all pixels, may be by JPEG."""


@dataclass(frozen=True)
class Case:
    """Masks, and what their numbers are taken for.

    Attributes:
        masks: the facts about each mask that could be read.
        label_set: the classes.
        described: what `classes.json` says.
        is_named: whether someone named the classes; otherwise they follow from the masks.
        is_complete: whether the classes are those of these masks; otherwise they are those of other
            data, and need not all occur here.
    """

    masks: Mapping[Path, FileFacts]
    label_set: LabelSet
    described: ClassesFile = field(default_factory=ClassesFile)
    is_named: bool = True
    is_complete: bool = True

    @property
    def is_ignore_chosen(self) -> bool:
        """Whether someone said which numbers mean "no class"."""
        return "ignore" in self.described.fields

    @property
    def are_ids_chosen(self) -> bool:
        """Whether someone said which numbers the classes have."""
        return "label_ids" in self.described.fields

    @cached_property
    def pixels(self) -> Counter[int]:
        """The number of pixels of each number."""
        return _total(self, "pixels")

    @cached_property
    def classes(self) -> list[int]:
        """The numbers that occur and do not mean "no class", ascending."""
        return sorted(self.pixels.keys() - set(self.label_set.ignore))

    @cached_property
    def ignored(self) -> list[int]:
        """The numbers that occur and mean "no class", ascending."""
        return sorted(self.pixels.keys() & set(self.label_set.ignore))

    @cached_property
    def is_interpolated(self) -> bool:
        """Whether many pixels at edges lie between a lower and a higher number.

        Interpolation and JPEG put such pixels between any two regions, but people draw few of them:
        lines, as around cells, which are of one number. In a photograph, most pixels are so.
        """
        ramps = _total(self, "ramps")
        share, most = PHOTOGRAPH
        if sum(count >= share * self.pixels[label] for label, count in ramps.items()) > most:
            return True
        edges = _total(self, "edges").total()
        sizes = [facts.size for facts in self.masks.values() if any(facts.edges)]
        inner = sum((height - 2) * (width - 2) for height, width in sizes)
        lines = max(ramps.values(), default=0)
        return ramps.total() - lines > RAMPS * edges and edges < EDGES * inner

    @cached_property
    def fringes(self) -> list[int]:
        """The largest numbers, ascending, if their few pixels are nearly all at edges.

        JPEG puts such pixels along regions of the largest number that was drawn, in all masks. In
        drawings most numbers have pixels inside regions; where they do not, it is how people drew.
        """
        edges, everything = _total(self, "edges"), self.pixels.total()
        thin = [
            label
            for label in self.classes
            if edges[label] > FRINGE * self.pixels[label] and self.pixels[label] < FEW * everything
        ]
        if 2 * len(thin) > len(self.classes):
            return []
        solid = max(set(self.classes) - set(thin), default=0)
        above = [label for label in thin if label > solid]
        return [] if self.strays.keys() >= {*above} else above

    @cached_property
    def strays(self) -> dict[int, Path]:
        """The numbers that one mask of several alone holds, and this."""
        holders = {
            label: [path for path, facts in self.masks.items() if label in facts.values]
            for label in self.classes
        }
        several = len(self.masks) > 1
        return {label: paths[0] for label, paths in holders.items() if several and len(paths) == 1}


def _total(case: Case, field: str) -> Counter[int]:
    counts: Counter[int] = Counter()
    for facts in case.masks.values():
        counts.update(dict(zip(facts.values, getattr(facts, field), strict=True)))
    return counts
