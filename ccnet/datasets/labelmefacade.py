"""LabelMeFacade data set."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccnet.classes import CAMVID, IGNORE_INDEX, LabelSet
from ccnet.datasets.labeled_images import LabeledImages, Pair, Transforms
from ccnet.files import user_path
from ccnet.options import named_options

DRAWN = ("sky", "building", "road", "pavement", "tree", "car")
"""The classes of CamVid that the masks distinguish; the others are drawn as what lies behind."""


class LabelMeFacade(LabeledImages):
    """Photographs of streets in many cities, with masks of six of CamVid's classes.

    The folder holds `images/NAME.jpg`, `masks/NAME.png` (the number of the class in CamVid, or
    255), `sources.tsv` (NAME, tab, the name in the original, which tells the place) and, for
    `pseudo`, `pseudo/NAME.png`: labels of other networks, likewise.

    Args:
        root: the folder.
        transforms: applied to image and labels together.
        pseudo: label CamVid's eleven classes: where a pseudo-label is one of the five that the
            masks lack, it replaces the mask's.

    Attributes:
        label_set: the six classes, or CamVid's with `pseudo`.
        names: the names in the original.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if sources.tsv does not name exactly the images.

    Source:
        Froehlich, Rodner and Denzler, "A fast approach for pixelwise labeling of facade images",
        ICPR 2010: https://github.com/cvjena/labelmefacade
    """

    @named_options()
    def __init__(
        self,
        root: str | os.PathLike[str],
        transforms: Transforms | None = None,
        *,
        pseudo: bool = False,
    ) -> None:
        root = user_path(root)
        table = root / "sources.tsv"
        if not table.is_file():
            raise FileNotFoundError(f"no {table}: LabelMeFacade needs images, masks, sources.tsv")
        try:
            lines = table.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{table} is no UTF-8 text: {error}") from error
        rows = [line.split("\t") for line in lines if line]
        stems = sorted(path.stem for path in (root / "images").glob("*.jpg"))
        if not stems or sorted(row[0] for row in rows) != stems or any(len(r) != 2 for r in rows):
            raise ValueError(
                f"{table} must have a name, a tab and a source for each of the {len(stems)} images"
            )
        sources = dict(rows)
        numbers = [CAMVID.categories.index(name) for name in DRAWN]
        colors = tuple(CAMVID.colors[number] for number in numbers)
        self.label_set = CAMVID if pseudo else LabelSet(DRAWN, colors, tuple(numbers))
        values = {number: number if pseudo else own for own, number in enumerate(numbers)}
        super().__init__(
            _pairs(root, "masks", stems), values | {IGNORE_INDEX: IGNORE_INDEX}, transforms
        )
        self.names = [sources[stem] for stem in stems]
        self._pseudo = None
        if pseudo:
            every = {value: value for value in (*range(len(CAMVID)), IGNORE_INDEX)}
            self._pseudo = LabeledImages(_pairs(root, "pseudo", stems), every, None)
            self._added = torch.tensor([n for n in range(len(CAMVID)) if n not in numbers])

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what tells a sample from others, as `LabeledImages.identify`."""
        found = super().identify(index)
        if self._pseudo is not None:
            found["pseudo-label"] = self._pseudo.identify(index)["mask"]
        return found

    def labels(self, index: int) -> Tensor:
        """Reads the labels of a sample, as `LabeledImages.labels`."""
        labels = super().labels(index)
        if self._pseudo is None:
            return labels
        seen = self._pseudo.labels(index)
        return torch.where(torch.isin(seen, self._added.to(seen.dtype)), seen, labels)


def _pairs(root: Path, labels: str, stems: list[str]) -> list[Pair]:
    return [(root / "images" / f"{stem}.jpg", root / labels / f"{stem}.png") for stem in stems]
