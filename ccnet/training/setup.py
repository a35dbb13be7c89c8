"""Set-up of a training run: the data sets and the model of a recipe."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from ccnet import datasets
from ccnet.backbones import TIMM
from ccnet.classes import CAMVID, LabelSet
from ccnet.console import printable
from ccnet.datasets import LabeledImages, Mixture, Renumbered, Sample, StreetScenes
from ccnet.datasets.wording import in_short
from ccnet.distributed import from_rank_zero
from ccnet.files import user_path
from ccnet.model import CCNet
from ccnet.training.holdout import hold_out, left_out_of, split, without
from ccnet.training.optimization import class_shares
from ccnet.training.recipes import Recipe
from ccnet.weights.model_card import inherited_details
from ccnet.weights.sources import load_weights
from ccnet.zoo import build_ccnet

Roots = Sequence[str | os.PathLike[str]]
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
    mix_roots: Roots = (),
) -> None:
    """Checks that the folders of the recipe's data sets are there, before anything is read.

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
    needed = [other for other, _ in recipe.shares()[1:] if other != "street-scenes"]
    if len(mix_roots) != len(needed):
        raise ValueError(
            f"mix {recipe.mix!r} needs {len(needed)} --mix-root ({', '.join(needed) or 'none'}), "
            f"not {len(mix_roots)}: give one for each data set that has a folder, in their order"
        )
    others = [("--mix-root", *pair) for pair in zip(mix_roots, needed, strict=True)]
    for option, folder, whose in (("--root", root, name), ("--val-root", val_root, name), *others):
        if folder is not None and not user_path(folder).is_dir():
            kind = own if whose == "folder" and own else f"that of {whose!r}"
            raise FileNotFoundError(f"no folder {printable(folder)}: {option} is {kind}")


def open_datasets(
    recipe: Recipe,
    root: str | os.PathLike[str] | None = None,
    val_root: str | os.PathLike[str] | None = None,
    earlier: Mapping[str, str] | None = None,
    mix_roots: Roots = (),
) -> Datasets:
    """Opens the recipe's data sets.

    Args:
        recipe: names the data sets, the images to leave out of the training set, and the number of
            rendered scenes to add to it.
        root: the folder of the data set; rendered scenes need none.
        val_root: for a `MaskFolder`, the validation folder; None to hold out every fifth image.
        earlier: of a run that is resumed, the sets of its images by their names: where every fifth
            is held out, they stay in these.
        mix_roots: the folders of the data sets in the recipe's `mix`, in their order; rendered
            scenes have none.

    Returns:
        Training set, which is a `Mixture` if there are several; validation set, which is of
        `dataset` alone; and classes.

    Raises:
        FileNotFoundError: if files or folders are missing.
        ValueError: if a folder is needed and not given, its contents are wrong, data sets are
            joined that have other classes, or no images are left out or none left.
    """
    if isinstance(mix_roots, str | os.PathLike):
        mix_roots = [mix_roots]
    require_folders(recipe, root, val_root, mix_roots)
    (name, _), *others = shares = recipe.shares()
    train_set, val_set, label_set = _open(name, recipe, root, val_root)
    folders = iter(mix_roots)
    opened = [_open_other(other, recipe, folders, label_set) for other, _ in others]
    own = [[] if _kinds(one) == ["StreetScenes"] else one.names for one in opened]  # not by number
    left_out = left_out_of([train_set.names, *own], recipe.leave_out)
    if left_out[0] and val_root is not None:
        raise ValueError(
            f"the images of {recipe.leave_out!r} are the validation set: "
            f"leave the validation folder {val_root} out, or leave_out empty"
        )
    if left_out[0] or val_set is None:
        rule = f"those of leave_out {recipe.leave_out!r} are for validation"
        if not left_out[0]:
            left_out[0] = hold_out(train_set.names, VALIDATION_SHARE, earlier or {})
            rule = f"every {VALIDATION_SHARE}th image is for validation"
        train_set, val_set = split(train_set, left_out[0], len(label_set), rule)
    if recipe.scenes and "street-scenes" not in dict(others):
        scenes = StreetScenes(recipe.scenes, seed=recipe.seed)
        if label_set.categories != scenes.label_set.categories:
            raise ValueError(
                f"scenes is {recipe.scenes}, but rendered scenes have CamVid's classes and the "
                "data set has others: scenes must be 0"
            )
        train_set = ConcatDataset([train_set, scenes])
    if others:
        parts = [without(*pair) for pair in zip(opened, left_out[1:], strict=True)]
        train_set = Mixture([train_set, *parts], [share for _, share in shares])
    return train_set, val_set, label_set


def _open(
    name: str,
    recipe: Recipe,
    root: str | os.PathLike[str] | None,
    val_root: str | os.PathLike[str] | None = None,
) -> tuple[Any, Dataset[Sample] | None, LabelSet]:
    """Opens the data sets; that to validate on is None if it is part of that to train on."""
    if name == "street-scenes":
        size = recipe.crop_height, recipe.crop_width
        train_set = StreetScenes(TRAIN_SCENES, size=size, seed=recipe.seed)
        return train_set, StreetScenes(VAL_SCENES, size=size, seed=recipe.seed + 1), CAMVID
    assert root is not None
    if name == "camvid":
        return datasets.CamVid(root, "train"), datasets.CamVid(root, "val"), CAMVID
    if name == "cityscapes":
        train, val = (datasets.Cityscapes(root, split) for split in ("train", "val"))
        return train, val, train.label_set
    if name == "labelmefacade":
        folder: LabeledImages = datasets.LabelMeFacade(root, pseudo=True)
    else:
        folder = from_rank_zero(lambda: datasets.MaskFolder(root))
    label_set = folder.label_set
    if val_root is None:
        return folder, None, label_set
    other = from_rank_zero(lambda: datasets.MaskFolder(val_root, label_set=label_set))
    return folder, other, label_set


def _open_other(
    name: str, recipe: Recipe, folders: Iterator[str | os.PathLike[str]], label_set: LabelSet
) -> Any:
    """Opens a data set of the recipe's mix, to train on alone."""
    if name == "street-scenes":
        train_set: Any = StreetScenes(recipe.scenes or TRAIN_SCENES, seed=recipe.seed)
        own = train_set.label_set
    else:
        root = next(folders)
        if name == "folder":
            return from_rank_zero(lambda: datasets.MaskFolder(root, label_set=label_set))
        train_set, _, own = _open(name, recipe, root)
    same = own.categories == label_set.categories
    return train_set if same else Renumbered(train_set, own, label_set)


def describe(train_set: Any, val_set: Any, label_set: LabelSet) -> str:
    """Says what there is to train on: the numbers of images, and the classes.

    For a `MaskFolder`, whose pixels are counted, also the share of each class in them.
    """
    shown = list(label_set.categories)
    absent: list[str] = []
    mixed = ""
    if isinstance(train_set, Mixture):
        texts = [
            f"{100 * float(share):.3g} % from {' and '.join(_kinds(part))}, {size} images"
            for part, share, size in zip(
                train_set.datasets, train_set.shares, train_set.sizes, strict=True
            )
        ]
        mixed = f" (of the crops {'; '.join(texts)})"
    if _kinds(train_set) == ["MaskFolder"]:
        shares = (100 * class_shares(train_set, len(label_set))).tolist()
        pairs = list(zip(label_set.categories, shares, strict=True))
        shown = [f"{name} {share:.3g} %" for name, share in pairs if share]
        absent = [name for name, share in pairs if not share]
    classes = ", ".join(shown[:CLASSES_NAMED])
    classes += f" and {left} more" if (left := len(shown) - CLASSES_NAMED) > 0 else ""
    classes += f"; without a pixel: {in_short(absent)}" if absent else ""
    return (
        f"{len(train_set)} images to train on{mixed}, {len(val_set)} to validate on, "
        f"{len(label_set)} classes: {classes}"
    )


def _kinds(dataset: Any) -> list[str]:
    """Returns the types of the data sets that one consists of."""
    if isinstance(dataset, ConcatDataset):
        return list(dict.fromkeys(kind for part in dataset.datasets for kind in _kinds(part)))
    if isinstance(dataset, Subset | Renumbered):
        return _kinds(dataset.dataset)
    return [type(dataset).__name__]


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
