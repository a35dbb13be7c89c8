"""ADE20K data set."""

import os

from ccnet.classes import ADE20K as CLASSES
from ccnet.classes import IGNORE_INDEX
from ccnet.datasets.labeled_images import LabeledImages, Transforms, check_split, pair_files
from ccnet.files import user_path
from ccnet.options import named_options

FOLDERS = {"train": "training", "val": "validation"}
"""Folders of the splits."""


class ADE20K(LabeledImages):
    """ADE20K, the 150 classes of its scene parsing benchmark: the folder `ADEChallengeData2016`.

    Images are `images/<folder>/NAME.jpg`, label maps `annotations/<folder>/NAME.png`, where the
    folder is "training" or "validation". A label map holds a number, 1..150, for each class; 0,
    which means no class, becomes the ignore index 255.

    Args:
        root: the folder that holds `images` and `annotations`.
        split: "train" or "val".
        transforms: applied to image and labels together.

    Raises:
        FileNotFoundError: if folders are missing or empty.
        ValueError: if there is no such split, or an image or a label map has no counterpart.

    Source:
        Zhou et al., "Scene parsing through ADE20K dataset", CVPR 2017, in the layout of
        http://sceneparsing.csail.mit.edu.
    """

    label_set = CLASSES

    @named_options()
    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        check_split(split, FOLDERS)
        root = user_path(root)
        images, labels = (root / kind / FOLDERS[split] for kind in ("images", "annotations"))
        needed_by = "ADE20K (ADEChallengeData2016.zip)"
        pairs = pair_files(images, labels, ("jpg", "png"), needed_by)
        values = dict.fromkeys(CLASSES.ignore, IGNORE_INDEX)
        values |= {label_id: index for index, label_id in enumerate(CLASSES.label_ids)}
        super().__init__(pairs, values, transforms)
