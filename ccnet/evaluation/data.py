"""Data to evaluate on: a data set by its name, or some of its images, numbered as a network is."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from ccnet.classes import LabelSet
from ccnet.datasets import (
    ADE20K,
    CamVid,
    Cityscapes,
    LabeledImages,
    LabelMeFacade,
    MaskFolder,
    PascalVOC,
    Renumbered,
    StreetScenes,
    select,
)
from ccnet.datasets.mask_folder import ClassesFile
from ccnet.distributed import from_rank_zero, rank_zero_first
from ccnet.evaluation.candidates import find_candidates
from ccnet.evaluation.evaluate import Samples
from ccnet.evaluation.splits import SPLITS

UNSEEN_SEED = 1_000_000
"""Seed of the rendered scenes. Training uses small seeds, so no network was trained on them."""


@dataclass(frozen=True)
class Public:
    """A public data set with splits.

    Attributes:
        title: as in the registry's metrics, without the split.
        kind: opens the data set: takes its folder and the split.
        variable: the environment variable with its folder.
    """

    title: str
    kind: Callable[[str | os.PathLike[str], str], LabeledImages]
    variable: str


PUBLIC = {
    "ade20k": Public("ADE20K", ADE20K, "ADE20K_ROOT"),
    "camvid": Public("CamVid", CamVid, "CAMVID_ROOT"),
    "cityscapes": Public("Cityscapes", Cityscapes, "CITYSCAPES_DATASET"),
    "voc": Public("Pascal VOC 2012", PascalVOC, "VOC_ROOT"),
}
"""By name."""

DATASETS = (*PUBLIC, "street-scenes", "labelmefacade", "folder")
"""The names of all data sets."""


@dataclass(frozen=True)
class Data:
    """Images with labels.

    Attributes:
        images: the images with their labels.
        label_set: the classes that the labels number.
        names: the names of the images.
        title: such as "CamVid val".
        classes: the numbers of the classes that the labels distinguish; None for all.
    """

    images: Samples
    label_set: LabelSet
    names: Sequence[str]
    title: str
    classes: Sequence[int] | None = None

    def some(self, only: str | None = None, limit: int | None = None) -> "Data":
        """Returns some of the images.

        Args:
            only: parts of names, separated by commas: images whose names contain one; None for all.
            limit: of these, the maximum number, from the first on; None for all.

        Raises:
            ValueError: if a part is in no name.
        """
        chosen, title = list(range(len(self.names))), self.title
        if only is not None:
            chosen, title = select(self.names, only), f"{title}, {only}"
        if limit is not None:
            chosen = chosen[:limit]
            title = f"{title}, the first {len(chosen)}"
        images: Samples = Subset(self.images, chosen)  # type: ignore[arg-type]
        return replace(self, images=images, names=[self.names[i] for i in chosen], title=title)

    def misfit(self, sizes: Collection[Any], labeled_pixels: int | None = None) -> str:
        """Says how the images differ from those of published figures, as `Split.misfit`.

        Empty if they do not, or there are no figures.
        """
        split = SPLITS.get(self.title)
        return split.misfit(self.names, sizes, labeled_pixels) if split else ""

    def numbered_as(self, label_set: LabelSet) -> "Data":
        """Returns the data with the labels of a network that may have more classes.

        Raises:
            ValueError: if it lacks a class.
        """
        if self.label_set.categories == label_set.categories:
            return self
        images = Renumbered(self.images, self.label_set, label_set)
        return replace(self, images=images, label_set=label_set, classes=images.classes)


def open_data(
    name: str,
    root: Path | None = None,
    split: str | None = None,
    *,
    weights: str = "DEFAULT",
    network: str | None = None,
) -> Data:
    """Opens a data set.

    Args:
        name: one of `DATASETS`; "folder" is a `MaskFolder`.
        root: its folder; by default that of an environment variable, if there is one.
        split: of one in `PUBLIC`; by default "val".
        weights: for a folder that names no classes, whose they are, as for `find_candidates`.
        network: of these weights, likewise.

    Raises:
        FileNotFoundError: if files or folders are missing.
        ValueError: if the folder is not given, there is no such split, or the files are wrong.
    """
    dataset: LabeledImages | StreetScenes
    if name in PUBLIC:
        public = PUBLIC[name]
        split = split or "val"
        folder = root or os.environ.get(public.variable)
        if not folder:
            raise ValueError(
                f"the folder of {public.title} is missing: "
                f"give --root or set the variable {public.variable}"
            )
        dataset, title = public.kind(folder, split), f"{public.title} {split}"
    elif split:
        raise ValueError(f"{name} has no splits: remove --split {split}")
    elif name == "street-scenes":
        dataset, title = StreetScenes(100, seed=UNSEEN_SEED), "StreetScenes"
    elif root is None:
        raise ValueError("the folder of images and masks is missing: give --root")
    elif name == "labelmefacade":
        dataset, title = LabelMeFacade(root), "LabelMeFacade"
    else:
        dataset, title = _open_folder(root, weights, network), str(root)
    return Data(dataset, dataset.label_set, dataset.names, title)


def _open_folder(root: Path, weights: str, network: str | None) -> MaskFolder:
    """Opens a folder of images and masks; its classes are those of the network if it names none."""
    label_set = None
    if not ClassesFile.read(root).names_classes:
        candidate, *_ = find_candidates(weights, None, network)
        with rank_zero_first():
            label_set = candidate.load().label_set
    return from_rank_zero(lambda: MaskFolder(root, label_set=label_set))
