"""Pascal VOC 2012 data set."""

import os
from pathlib import Path

from torchvision import datasets

from ccnet.classes import IGNORE_INDEX, VOC
from ccnet.datasets.labeled_images import LabeledImages, Pair, Transforms, check_split
from ccnet.files import user_path
from ccnet.options import named_options

SPLITS = ("train", "trainval", "val")

_PLACE = Path("VOCdevkit", "VOC2012")


class PascalVOC(LabeledImages):
    """Pascal VOC 2012 segmentation, twenty classes and the background.

    The layout is that of `torchvision.datasets.VOCSegmentation`, which also downloads it. Pixels at
    the borders of objects and of objects that are difficult, 255 in the label maps, are ignored.

    Args:
        root: the folder that holds `VOCdevkit/VOC2012`.
        split: "train", "trainval" or "val".
        transforms: applied to image and labels together.

    Raises:
        FileNotFoundError: if folders or files are missing.
        ValueError: if there is no such split.

    Source:
        Everingham et al., "The Pascal visual object classes challenge", IJCV 2015.
    """

    label_set = VOC

    @named_options()
    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        check_split(split, SPLITS)
        root = user_path(root)
        listed = root / _PLACE / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listed.is_file():
            raise FileNotFoundError(
                f"no {listed}; unpack VOCtrainval_11-May-2012.tar and give the folder that holds "
                "VOCdevkit, or let torchvision.datasets.VOCSegmentation download it"
            )
        files = datasets.VOCSegmentation(root, year="2012", image_set=split)
        paths = [Path(path) for path in (*files.images, *files.masks)]
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} files that {listed} names are missing: {', '.join(missing[:5])}"
            )
        pairs: list[Pair] = list(zip(paths[: len(files)], paths[len(files) :], strict=True))
        values = {label_id: index for index, label_id in enumerate(VOC.label_ids)}
        super().__init__(pairs, values | {IGNORE_INDEX: IGNORE_INDEX}, transforms)
