"""Cityscapes data set."""

import os
from pathlib import Path

from torchvision import datasets

from ccnet.classes import CITYSCAPES, IGNORE_INDEX
from ccnet.datasets.labeled_images import LabeledImages, Pair, Transforms, check_split
from ccnet.files import user_path
from ccnet.options import named_options

SPLITS = ("train", "val", "test")


class Cityscapes(LabeledImages):
    """Cityscapes, nineteen classes: folders `leftImg8bit/<split>` and `gtFine/<split>`.

    Labels are train ids. All other label ids, including -1 of license plates, become the ignore
    index 255. The labels of the test split are not public: all its pixels are 255, and `gtFine` is
    not needed.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine`.
        split: "train", "val" or "test".
        transforms: applied to image and labels together.

    Raises:
        FileNotFoundError: if folders, or the label maps of some images, are missing.
        ValueError: if there is no such split, or a file lies among the folders of the cities.

    Source:
        Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
    """

    label_set = CITYSCAPES

    @named_options()
    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        transforms: Transforms | None = None,
    ) -> None:
        check_split(split, SPLITS)
        root = user_path(root)
        _check_folders(root, split)
        pairs = sorted(_test_pairs(root) if split == "test" else _labeled_pairs(root, split))
        values = dict.fromkeys(range(256), IGNORE_INDEX)
        values |= {label_id: index for index, label_id in enumerate(CITYSCAPES.label_ids)}
        super().__init__(pairs, values, transforms)


def _check_folders(root: Path, split: str) -> None:
    needed = ["leftImg8bit"] if split == "test" else ["leftImg8bit", "gtFine"]
    missing = [name for name in needed if not any(root.glob(f"{name}/{split}/*/*.png"))]
    if missing:
        raise FileNotFoundError(
            f"no PNG files in {' and in '.join(str(root / name / split / '*') for name in missing)}"
            f"; unpack {' and '.join(f'{name}_trainvaltest.zip' for name in missing)} in {root}: "
            "they are at https://www.cityscapes-dataset.com/downloads (free for research, "
            "registration and login needed)"
        )


def _test_pairs(root: Path) -> list[Pair]:
    return [(path, None) for path in root.glob("leftImg8bit/test/*/*_leftImg8bit.png")]


def _labeled_pairs(root: Path, split: str) -> list[Pair]:
    try:
        files = datasets.Cityscapes(root, split, mode="fine", target_type="semantic")
    except NotADirectoryError as error:
        raise ValueError(
            f"{error.filename} is a file, but only city folders belong there; remove it"
        ) from error
    pairs: list[Pair] = [
        (Path(image), Path(targets[0]))
        for image, targets in zip(files.images, files.targets, strict=True)
        if image.endswith("_leftImg8bit.png")
    ]
    missing = sorted(str(labels) for _, labels in pairs if labels and not labels.exists())
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(pairs)} images have no label map: {', '.join(missing[:5])}"
        )
    return pairs
