"""Optimisation: optimiser, learning rate schedule and class weights of a recipe."""

import math
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.data import ConcatDataset, Dataset, Subset

from ccnet.classes import IGNORE_INDEX
from ccnet.datasets import Mixture, Renumbered, Sample, StreetScenes
from ccnet.training.recipes import Recipe

SCENES_JUDGED = 64
"""Most rendered scenes whose pixels are counted for the shares of a mixture."""


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> optim.Optimizer:
    """Builds the optimiser of those parameters that are not frozen.

    Kernels have weight decay, the rest only if the recipe says so.
    """
    every = [parameter for parameter in parameters if parameter.requires_grad]
    others_decay = recipe.weight_decay if recipe.decay_all else 0.0
    groups = [
        {"params": [p for p in every if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in every if p.dim() <= 1], "weight_decay": others_decay},
    ]
    if recipe.optimizer == "sgd":
        return optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return optim.AdamW(groups, lr=recipe.learning_rate)


def poly_schedule(step: int, recipe: Recipe) -> float:
    """Returns the learning rate factor: linear warmup, then (1 - progress) ** power to a floor."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    left = 1 - (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    floor = recipe.min_learning_rate / recipe.learning_rate
    return float(floor + (1 - floor) * max(0.0, left) ** recipe.power)


def given_weights(text: str, categories: Sequence[str]) -> Tensor:
    """Reads class weights (K,), float32.

    Args:
        text: "name=weight" of some classes, separated by commas, with the name or the number of a
            class, and 1 for the others; or one weight for each class.
        categories: the names of the classes.

    Raises:
        ValueError: if a class does not exist or comes twice, or a weight is no number of 0 or more
            in float32, or all are 0.
    """
    pairs = re.findall(r"(.*?)=([^=,]*)(?:,|$)", text)
    if not pairs:
        values = text.split(",")
        if len(values) != len(categories):
            raise ValueError(
                f"class_weights {text!r} must be a number for each of {len(categories)} classes, "
                f"or such as '{categories[0]}=2' for some"
            )
        pairs = [(str(index), value) for index, value in enumerate(values)]
        categories = [""] * len(categories)
    elif ",".join(map("=".join, pairs)) != text.rstrip(","):
        raise ValueError(f"class_weights {text!r} must be such as '{categories[0]}=2,...'")
    weights: dict[int, float] = {}
    for name, value in pairs:
        index = _class_index(name.strip(), categories)
        if index in weights:
            raise ValueError(f"class_weights {text!r} name the class {name.strip()!r} twice")
        weights[index] = _weight(value)
    result = torch.tensor([weights.get(index, 1.0) for index in range(len(categories))])
    if not result.any():
        raise ValueError(f"class_weights {text!r} must not all be 0")
    return result


def _class_index(name: str, categories: Sequence[str]) -> int:
    if name in categories:
        return list(categories).index(name)
    if name.isdecimal() and int(name) < len(categories):
        return int(name)
    near = get_close_matches(name, categories, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(categories)}"
    raise ValueError(f"class_weights: there is no class {name!r}: {hint}")


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"class_weights must be numbers of 0 or more, not {text.strip()!r}")
    if value and not 0 < float(torch.tensor(value, dtype=torch.float32)) < math.inf:
        raise ValueError(f"class_weights must be numbers of float32, not {text.strip()!r}")
    return value


def log_balanced_weights(dataset: Dataset[Sample], num_classes: int) -> Tensor:
    """Computes class weights (K,), larger for rare classes: 1 / ln(1.02 + share), mean 1.

    Source:
        ENet (https://arxiv.org/abs/1606.02147), section 5.2.
    """
    weights = 1 / torch.log(1.02 + class_shares(dataset, num_classes))
    return (weights / weights.mean()).float()


def class_shares(dataset: Any, num_classes: int) -> Tensor:
    """Computes the share of each class in the labelled pixels: (K,), float64; 0 without any.

    In a `Mixture`, that of each data set counts by its share, and rendered scenes, which take long,
    are judged by some of them.
    """
    if isinstance(dataset, Mixture):
        parts = zip(dataset.datasets, dataset.shares, strict=True)
        shares = [float(share) * class_shares(_judged(part), num_classes) for part, share in parts]
        return torch.stack(shares).sum(0)
    counts = class_pixels(dataset, num_classes)
    return counts.double() / counts.sum().clamp(min=1)


def _judged(dataset: Any) -> Any:
    plain = dataset.dataset if isinstance(dataset, Renumbered) else dataset
    is_many = isinstance(plain, StreetScenes) and len(plain) > SCENES_JUDGED
    return Subset(dataset, range(SCENES_JUDGED)) if is_many else dataset


def class_pixels(dataset: Any, num_classes: int) -> Tensor:
    """Counts the pixels of each class in a data set: (K,), int64.

    Nothing is read if the data set has `class_pixels`, and no image decoded if it has `labels`.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64)
    if isinstance(dataset, ConcatDataset):
        return sum((class_pixels(part, num_classes) for part in dataset.datasets), counts)
    is_part = isinstance(dataset, Subset)
    whole, indices = (
        (dataset.dataset, dataset.indices) if is_part else (dataset, range(len(dataset)))
    )
    if hasattr(whole, "class_pixels"):
        return sum(map(whole.class_pixels, indices), counts)
    for index in indices:
        labels = whole.labels(index) if hasattr(whole, "labels") else whole[index][1]
        labels = labels.as_subclass(Tensor)
        counts += labels[labels != IGNORE_INDEX].bincount(minlength=num_classes)
    return counts
