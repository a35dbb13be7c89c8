"""Scores: confusion matrix, IoU, mIoU, accuracies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnet.classes import IGNORE_INDEX, LabelSet
from ccnet.console import printable


@dataclass(frozen=True)
class Scores:
    """A confusion matrix and the metrics that follow from it.

    The IoU of a class that is neither labelled nor predicted is NaN; that of a class which is only
    predicted is 0.

    Attributes:
        confusion: (K, K), int64: number of pixels of class `row` that were predicted as `column`.
        label_set: the K classes.
        classes: the numbers of the classes that have an IoU; None for all. Predictions of others
            are errors.
    """

    confusion: Tensor
    label_set: LabelSet
    classes: Sequence[int] | None = None

    @property
    def iou(self) -> Tensor:
        """(K,), float64, percent: intersection over union; NaN for classes that never occur."""
        hits = self.confusion.diagonal()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        iou = 100 * hits.double() / union
        if self.classes is None:
            return iou
        chosen = torch.full_like(iou, math.nan)
        chosen[list(self.classes)] = iou[list(self.classes)]
        return chosen

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur, in percent."""
        return self.iou.nanmean().item()

    @property
    def accuracy(self) -> Tensor:
        """(K,), float64, percent: share of the pixels of each class that are predicted right."""
        return 100 * self.confusion.diagonal().double() / self.confusion.sum(1)

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the classes that occur in the labels, in percent."""
        return self.accuracy.nanmean().item()

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels that are predicted right, in percent."""
        return (100 * self.confusion.trace().double() / self.confusion.sum()).item()

    def table(self) -> str:
        """Markdown table of the IoU of every class and their mean."""
        rows = ["| class | IoU (%) |", "| --- | ---: |"]
        for number, (name, iou) in enumerate(
            zip(self.label_set.categories, self.iou.tolist(), strict=True)
        ):
            if self.classes is None or number in self.classes:
                rows.append(f"| {cell(name)} | {iou:.1f} |")
        rows.append(f"| **mean (mIoU)** | **{self.miou:.2f}** |")
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """All metrics as JSON-able values, in percent; None for NaN."""
        names = self.label_set.categories
        return {
            "mIoU": _or_none(self.miou),
            "pixel accuracy": _or_none(self.pixel_accuracy),
            "mean accuracy": _or_none(self.mean_accuracy),
            "IoU": dict(zip(names, map(_or_none, self.iou.tolist()), strict=True)),
            "accuracy": dict(zip(names, map(_or_none, self.accuracy.tolist()), strict=True)),
            "confusion": self.confusion.tolist(),
        }


def cell(name: object) -> str:
    """A name as a cell of a Markdown table."""
    return printable(name).replace("|", r"\|")


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Computes a confusion matrix.

    Args:
        labels: any shape, integers: the true classes, or 255 for ignored pixels.
        predicted: the same shape, integers below `num_classes`.
        num_classes: K.

    Returns:
        (K, K), int64: number of pixels of class `row` that were predicted as `column`.

    Raises:
        ValueError: if a class is K or more, or negative.
    """
    counted = labels != IGNORE_INDEX
    true, found = labels[counted].long(), predicted[counted].long()
    for name, classes in (("labels", true), ("predictions", found)):
        low, high = (bound.item() for bound in classes.aminmax()) if classes.numel() else (0, 0)
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"{name} contain class {low if low < 0 else high}, "
                f"but there are only {num_classes} classes, from 0 on"
            )
    pairs = true * num_classes + found
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
