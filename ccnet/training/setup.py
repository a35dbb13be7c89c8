"""Set-up of a training run: the data sets and the model of a recipe."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from ccnet import datasets
from ccnet.backbones import TIMM
from ccnet.classes import CAMVID, LabelSet
from ccnet.console import printable
from ccnet.datasets import LabeledImages, Sample, StreetScenes, select
from ccnet.datasets.wording import in_short
from ccnet.distributed import from_rank_zero
from ccnet.files import user_path
from ccnet.model import CCNet
from ccnet.training.holdout import hold_out
from ccnet.training.optimization import class_pixels
from ccnet.training.recipes import Recipe
from ccnet.weights.model_card import inherited_details
from ccnet.weights.sources import load_weights
from ccnet.zoo import build_ccnet

Datasets = tuple[Dataset[Sample], Dataset[Sample], LabelSet]

TRAIN_SCENES, VAL_SCENES = 800, 50
"""Number of rendered scenes to train and to validate on, in the recipe's crop size."""

VALIDATION_SHARE = 5
"""Every fifth image of a folder is held out if there is no validation folder."""


CLASSES_NAMED = 20
"""Most classes that the description of the data names."""


def require_folders(
    recipe: Recipe,
    root: str | os.PathLike[str] | None,
    val_root: str | os.PathLike[str] | None = None,
) -> None:
    """Checks that the folders of the recipe's data set are there, before anything is read.

    Raises:
        FileNotFoundError: if one is not.
        ValueError: if one is needed and not given, or given and not used.
    """
    name = recipe.dataset
    own = "your folder with images/ and masks/" if name == "folder" else ""
    whose = own or f"the folder of the data set {name!r}"
    if root is None and name != "street-scenes":
        raise ValueError(f"--root is missing: give {whose}")
    if val_root is not None and name not in ("folder", "labelmefacade"):
        raise ValueError(
            f"the data set {name!r} has its own images to validate on: "
            f"leave the validation folder {val_root} out"
        )
    for option, folder in (("--root", root), ("--val-root", val_root)):
        if folder is not None and not user_path(folder).is_dir():
            raise FileNotFoundError(
                f"no folder {printable(folder)}: {option} is {own or f'that of {name!r}'}"
            )


def open_datasets(
    recipe: Recipe,
    root: str | os.PathLike[str] | None = None,
    val_root: str | os.PathLike[str] | None = None,
    earlier: Mapping[str, str] | None = None,
) -> Datasets:
    """Opens the recipe's data sets.

    Args:
        recipe: names the data set, the images to leave out of the training set, and the number of
            rendered scenes to add to it.
        root: the folder of the data set; rendered scenes need none.
        val_root: for a `MaskFolder`, the validation folder; None to hold out every fifth image.
        earlier: of a run that is resumed, the sets of its images by their names: where every fifth
            is held out, they stay in these.

    Returns:
        Training set, validation set and classes.

    Raises:
        FileNotFoundError: if files or folders are missing.
        ValueError: if a folder is needed and not given, its contents are wrong, scenes are added
            to a data set with other classes, or no images are left out or none left.
    """
    train_set, val_set, label_set = _open(recipe, root, val_root)
    if recipe.leave_out and val_root is not None:
        raise ValueError(
            f"the images of {recipe.leave_out!r} are the validation set: "
            f"leave the validation folder {val_root} out, or leave_out empty"
        )
    if recipe.leave_out or val_set is None:
        train_set, val_set = _split(train_set, recipe.leave_out, len(label_set), earlier or {})
    if recipe.scenes:
        scenes = StreetScenes(recipe.scenes, seed=recipe.seed)
        if label_set.categories != scenes.label_set.categories:
            raise ValueError(
                f"scenes is {recipe.scenes}, but rendered scenes have CamVid's classes and the "
                "data set has others: scenes must be 0"
            )
        train_set = ConcatDataset([train_set, scenes])
    return train_set, val_set, label_set


def _open(
    recipe: Recipe,
    root: str | os.PathLike[str] | None,
    val_root: str | os.PathLike[str] | None,
) -> tuple[Dataset[Sample], Dataset[Sample] | None, LabelSet]:
    """Opens the data sets; that to validate on is None if it is part of that to train on."""
    if recipe.dataset == "street-scenes":
        size = recipe.crop_height, recipe.crop_width
        train_set = StreetScenes(TRAIN_SCENES, size=size, seed=recipe.seed)
        return train_set, StreetScenes(VAL_SCENES, size=size, seed=recipe.seed + 1), CAMVID
    require_folders(recipe, root, val_root)
    assert root is not None
    if recipe.dataset == "camvid":
        return datasets.CamVid(root, "train"), datasets.CamVid(root, "val"), CAMVID
    if recipe.dataset == "cityscapes":
        train, val = (datasets.Cityscapes(root, split) for split in ("train", "val"))
        return train, val, train.label_set
    if recipe.dataset == "labelmefacade":
        folder: LabeledImages = datasets.LabelMeFacade(root, pseudo=True)
    else:
        folder = from_rank_zero(lambda: datasets.MaskFolder(root))
    label_set = folder.label_set
    if val_root is None:
        return folder, None, label_set
    other = from_rank_zero(lambda: datasets.MaskFolder(val_root, label_set=label_set))
    return folder, other, label_set


def _split(
    dataset: Any, leave_out: str, classes: int, earlier: Mapping[str, str]
) -> tuple[Dataset[Sample], Dataset[Sample]]:
    """Splits off the images to validate on: those left out, or else every fifth one."""
    count, rule = len(dataset), f"every {VALIDATION_SHARE}th image is for validation"
    if leave_out:
        held_out = select(dataset.names, leave_out)
        rule = f"those of leave_out {leave_out!r} are for validation"
    elif count < 2:
        raise ValueError(
            f"there is only one image, {dataset.names[0]}: "
            "add another one, or give a validation folder (--val-root)"
        )
    else:
        held_out = hold_out(dataset.names, VALIDATION_SHARE, earlier)
    rest = sorted(set(range(count)).difference(held_out))
    if leave_out and not rest:
        raise ValueError(f"leave_out {leave_out!r} leaves no image to train on")
    for part, use in ((rest, "train"), (held_out, "validate")):
        if not any(class_pixels(Subset(dataset, [index]), classes).any() for index in part):
            raise ValueError(
                f"no pixel of the {len(part)} images to {use} on has a class ({rule}): give a "
                "validation folder (--val-root), or leave such images out"
            )
    return Subset(dataset, rest), Subset(dataset, held_out)


def describe(train_set: Any, val_set: Any, label_set: LabelSet) -> str:
    """Says what there is to train on: the numbers of images, and the classes.

    For a `MaskFolder`, whose pixels are counted, also the share of each class in them.
    """
    parts = train_set.datasets if isinstance(train_set, ConcatDataset) else [train_set]
    shown = list(label_set.categories)
    absent: list[str] = []
    whole = [part.dataset if isinstance(part, Subset) else part for part in parts]
    if all(isinstance(part, datasets.MaskFolder) for part in whole):
        pixels = class_pixels(train_set, len(label_set)).double()
        shares = (100 * pixels / pixels.sum()).tolist()
        pairs = list(zip(label_set.categories, shares, strict=True))
        shown = [f"{name} {share:.3g} %" for name, share in pairs if share]
        absent = [name for name, share in pairs if not share]
    classes = ", ".join(shown[:CLASSES_NAMED])
    classes += f" and {left} more" if (left := len(shown) - CLASSES_NAMED) > 0 else ""
    classes += f"; without a pixel: {in_short(absent)}" if absent else ""
    return (
        f"{len(train_set)} images to train on, {len(val_set)} to validate on, "
        f"{len(label_set)} classes: {classes}"
    )


def build_model(recipe: Recipe, label_set: LabelSet, *, progress: bool = True) -> CCNet:
    """Builds the recipe's model for these classes, with its initial weights.

    If the weights have other classes, the classifiers start untrained, and so does an auxiliary
    head that they lack.

    Raises:
        FileNotFoundError: if the weights are not found.
        ValueError: if the weights do not fit or have another slope of activations than the recipe
            asks for, or there are none for a backbone to be frozen.
    """
    if recipe.freeze_backbone.strip("0") and not (recipe.weights or recipe.weights_backbone):
        raise ValueError(
            f"freeze_backbone is {recipe.freeze_backbone!r}, but the backbone would start "
            "untrained: give weights or weights_backbone"
        )
    torch.manual_seed(recipe.seed)
    if not recipe.weights:
        is_timm = recipe.backbone.startswith(TIMM)  # which has activations of its own
        slope = {} if is_timm else {"negative_slope": recipe.negative_slope}
        return build_ccnet(
            recipe.backbone,
            weights_backbone=recipe.weights_backbone or None,
            recurrence=recipe.recurrence,
            negative_slope=recipe.negative_slope,
            backbone_options={"output_stride": recipe.output_stride, **slope},
            label_set=label_set.to_config(),
            progress=progress,
        )
    weights = load_weights(recipe.weights, recipe.backbone, progress=progress)
    model = CCNet.from_weights(
        weights,
        recurrence=recipe.recurrence,
        backbone_options={"output_stride": recipe.output_stride},
        aux_channels=weights.config.get("aux_channels") or None,
        label_set=label_set.to_config(),
    )
    if recipe.negative_slope not in (0, slope := model.config["negative_slope"]):
        raise ValueError(
            f"negative_slope {recipe.negative_slope:g} has no effect with weights "
            f"{recipe.weights!r}, which keep theirs, {slope:g}: leave it out, or the weights"
        )
    model.card_details = inherited_details(weights.details)
    return model
