"""Set-up of a training run: the data sets and the model of a recipe."""

import os
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from ccnet import datasets
from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import Sample, StreetScenes
from ccnet.datasets.mask_folder.pairing import in_short
from ccnet.distributed import from_rank_zero
from ccnet.model import CCNet
from ccnet.training.optimization import class_pixels
from ccnet.training.recipes import Recipe
from ccnet.weights.model_card import inherited_details
from ccnet.weights.sources import load_weights
from ccnet.zoo import NETWORKS

Datasets = tuple[Dataset[Sample], Dataset[Sample], LabelSet]

TRAIN_SCENES, VAL_SCENES = 800, 50
"""Number of rendered scenes to train and to validate on, in the recipe's crop size."""

VALIDATION_SHARE = 5
"""Every fifth image of a folder is held out if there is no validation folder."""


def open_datasets(
    recipe: Recipe,
    root: str | os.PathLike[str] | None = None,
    val_root: str | os.PathLike[str] | None = None,
) -> Datasets:
    """Opens the recipe's data sets.

    Args:
        recipe: names the data set, and the number of rendered scenes to add to the training set.
        root: the folder of the data set; rendered scenes need none.
        val_root: for a `MaskFolder`, the validation folder; None to hold out every fifth image.

    Returns:
        Training set, validation set and classes.

    Raises:
        FileNotFoundError: if files or folders are missing.
        ValueError: if a folder is needed and not given, its contents are wrong, or scenes are added
            to a data set with other classes.
    """
    train_set, val_set, label_set = _open(recipe, root, val_root)
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
) -> Datasets:
    if recipe.dataset == "street-scenes":
        size = recipe.crop_height, recipe.crop_width
        train_set = StreetScenes(TRAIN_SCENES, size=size, seed=recipe.seed)
        return train_set, StreetScenes(VAL_SCENES, size=size, seed=recipe.seed + 1), CAMVID
    if root is None:
        raise ValueError(f"the folder of the data set {recipe.dataset!r} is missing: give --root")
    if recipe.dataset == "camvid":
        return datasets.CamVid(root, "train"), datasets.CamVid(root, "val"), CAMVID
    if recipe.dataset == "cityscapes":
        train, val = (datasets.Cityscapes(root, split) for split in ("train", "val"))
        return train, val, train.label_set
    return _open_folder(root, val_root)


def _open_folder(root: str | os.PathLike[str], val_root: str | os.PathLike[str] | None) -> Datasets:
    folder = from_rank_zero(lambda: datasets.MaskFolder(root))
    label_set = folder.label_set
    if val_root is not None:
        other = from_rank_zero(lambda: datasets.MaskFolder(val_root, label_set=label_set))
        return folder, other, label_set
    if len(folder) < 2:
        raise ValueError(
            f"{Path(root)} holds only one image: "
            "add another one, or give a validation folder (--val-root)"
        )
    held_out = range(0, len(folder), VALIDATION_SHARE)
    rest = [index for index in range(len(folder)) if index not in held_out]
    train_set, val_set = Subset(folder, rest), Subset(folder, held_out)
    for part, use in ((train_set, "train"), (val_set, "validate")):
        if not class_pixels(part, len(label_set)).any():
            raise ValueError(
                f"no pixel of the {len(part)} images to {use} on has a class (every "
                f"{VALIDATION_SHARE}th image of {Path(root)} is for validation): give a "
                "validation folder (--val-root), or leave such images out"
            )
    return train_set, val_set, label_set


def describe(train_set: Dataset[Sample], label_set: LabelSet) -> str:
    """Says what there is to train on: the images and the classes.

    For a `MaskFolder`, whose pixels are counted, also the share of each class in them.
    """
    count = len(train_set)  # type: ignore[arg-type]
    parts = train_set.datasets if isinstance(train_set, ConcatDataset) else [train_set]
    shown = ", ".join(label_set.categories)
    whole = [part.dataset if isinstance(part, Subset) else part for part in parts]
    if all(isinstance(part, datasets.MaskFolder) for part in whole):
        pixels = class_pixels(train_set, len(label_set)).double()
        shares = (100 * pixels / pixels.sum()).tolist()
        pairs = list(zip(label_set.categories, shares, strict=True))
        shown = ", ".join(f"{name} {share:.3g} %" for name, share in pairs if share)
        absent = [name for name, share in pairs if not share]
        shown += f"; without a pixel: {in_short(absent)}" if absent else ""
    return f"{count} images to train on, {len(label_set)} classes: {shown}"


def build_model(recipe: Recipe, label_set: LabelSet, *, progress: bool = True) -> CCNet:
    """Builds the recipe's model for these classes, with its initial weights.

    If the weights have other classes, the classifiers start untrained, and so does an auxiliary
    head that they lack.

    Raises:
        FileNotFoundError: if the weights are not found.
        ValueError: if the weights do not fit.
    """
    torch.manual_seed(recipe.seed)
    if not recipe.weights:
        return NETWORKS[f"ccnet_{recipe.backbone}"](
            weights_backbone=recipe.weights_backbone or None,
            recurrence=recipe.recurrence,
            negative_slope=recipe.negative_slope,
            backbone_options={
                "output_stride": recipe.output_stride,
                "negative_slope": recipe.negative_slope,
            },
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
    model.card_details = inherited_details(weights.details)
    return model
