"""From a recipe to its data sets and its network."""

import os
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset

from ccnet import datasets
from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import Sample
from ccnet.model import CCNet
from ccnet.pretrained import inherited_details
from ccnet.street_scenes import StreetScenes
from ccnet.training.recipes import Recipe
from ccnet.zoo import NETWORKS

Datasets = tuple[Dataset[Sample], Dataset[Sample], LabelSet]

TRAIN_SCENES, VAL_SCENES = 800, 50
"""Scenes rendered to train on and to validate with, of the size of the recipe's crops."""

VALIDATION_SHARE = 5
"""Of a folder without another for validation, every fifth image is kept for it."""


def open_datasets(
    recipe: Recipe,
    root: str | os.PathLike[str] | None = None,
    val_root: str | os.PathLike[str] | None = None,
) -> Datasets:
    """The recipe's data to train on and to validate with, and their classes.

    Args:
        recipe: says which data set.
        root: the folder of the data set; rendered scenes need none.
        val_root: for a `MaskFolder`, another folder to validate with. Without one every fifth image
            is kept for that.

    Raises:
        FileNotFoundError: if files or folders are missing.
        ValueError: if no folder was given where one is needed, or its contents are wrong.
    """
    if recipe.dataset == "street-scenes":
        size = recipe.crop_height, recipe.crop_width
        train_set = StreetScenes(TRAIN_SCENES, size=size, seed=recipe.seed)
        return train_set, StreetScenes(VAL_SCENES, size=size, seed=recipe.seed + 1), CAMVID
    if root is None:
        raise ValueError(f"name the folder of the data set {recipe.dataset!r} (--root)")
    if recipe.dataset == "camvid":
        return datasets.CamVid(root, "train"), datasets.CamVid(root, "val"), CAMVID
    if recipe.dataset == "cityscapes":
        train, val = (datasets.Cityscapes(root, split) for split in ("train", "val"))
        return train, val, train.label_set
    folder = datasets.MaskFolder(root)
    if val_root is not None:
        return folder, datasets.MaskFolder(val_root, label_set=folder.label_set), folder.label_set
    if len(folder) < 2:
        raise ValueError(
            f"{Path(root)} holds one image: give at least two, or a second folder to validate with"
        )
    held_out = range(0, len(folder), VALIDATION_SHARE)
    rest = [index for index in range(len(folder)) if index not in held_out]
    return Subset(folder, rest), Subset(folder, held_out), folder.label_set


def build_model(recipe: Recipe, label_set: LabelSet, *, progress: bool = True) -> CCNet:
    """The recipe's network for these classes, with the weights that it starts from.

    Where the weights are of other classes the classifiers start fresh; an auxiliary head that they
    lack starts fresh too.

    Raises:
        FileNotFoundError: if weights were not found.
        ValueError: if they do not fit.
    """
    torch.manual_seed(recipe.seed)
    build = NETWORKS[f"ccnet_{recipe.backbone}"]
    options = {"output_stride": recipe.output_stride, "negative_slope": recipe.negative_slope}
    if not recipe.weights:
        return build(
            weights_backbone=recipe.weights_backbone or None,
            recurrence=recipe.recurrence,
            negative_slope=recipe.negative_slope,
            backbone_options=options,
            label_set=label_set.to_config(),
            progress=progress,
        )
    trained = build(
        weights=recipe.weights,
        recurrence=recipe.recurrence,
        label_set=label_set.to_config(),
        progress=progress,
    )
    stride = {"output_stride": recipe.output_stride}
    model = CCNet(
        **{
            **trained.config,
            "backbone_options": {**trained.config["backbone_options"], **stride},
            "aux_channels": trained.config["aux_channels"] or None,
        }
    )
    kept = trained.state_dict()
    model.load_state_dict({name: kept.get(name, own) for name, own in model.state_dict().items()})
    model.card_details = inherited_details(trained.card_details)
    return model
