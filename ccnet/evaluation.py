"""How good the labels are: intersection over union, counted over a data set."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.classes import IGNORE_INDEX, LabelSet
from ccnet.model import CCNet


@dataclass(frozen=True)
class Scores:
    """The confusion of classes, and the figures that follow from it.

    Attributes:
        confusion: (K, K), int64: pixels of class `row` that were labelled `column`.
        label_set: the K classes.
    """

    confusion: Tensor
    label_set: LabelSet

    @property
    def iou(self) -> Tensor:
        """(K,), float64, in percent: intersection over union; NaN for classes that never occur."""
        hits = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        return 100 * hits / union

    @property
    def miou(self) -> float:
        """The mean of `iou` over the classes that occur, in percent."""
        return self.iou.nanmean().item()

    @property
    def pixel_accuracy(self) -> float:
        """The share of pixels with the right label, in percent."""
        return (100 * self.confusion.trace() / self.confusion.sum()).item()

    def table(self) -> str:
        """A Markdown table of the IoU of every class and their mean."""
        rows = ["| class | IoU (%) |", "| --- | ---: |"]
        for name, iou in zip(self.label_set.categories, self.iou.tolist(), strict=True):
            rows.append(f"| {name} | {iou:.1f} |")
        rows.append(f"| **mean (mIoU)** | **{self.miou:.2f}** |")
        return "\n".join(rows)


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts how classes are labelled.

    Args:
        labels: any shape, integers: the true classes, or 255 for pixels that do not count.
        predicted: the same shape, integers below `num_classes`.
        num_classes: K.

    Returns:
        (K, K), int64: pixels of class `row` that were labelled `column`.

    Raises:
        ValueError: if a class is K or more.
    """
    counted = labels != IGNORE_INDEX
    true, found = labels[counted].long(), predicted[counted].long()
    for name, classes in (("labels", true), ("predictions", found)):
        if classes.numel() and classes.max() >= num_classes:
            raise ValueError(
                f"{name} go up to {classes.max().item()}, but there are {num_classes} classes"
            )
    pairs = true * num_classes + found
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def evaluate(model: CCNet, samples: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """Segments every image whole, at its own size, and compares with its labels.

    Args:
        model: whose classes are those of the labels.
        samples: images (3, H, W), uint8, RGB, with labels (H, W), uint8.
    """
    num_classes = len(model.label_set)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for image, labels in samples:
        predicted = model.predict(image.as_subclass(Tensor)).labels
        confusion += confusion_matrix(labels.as_subclass(Tensor), predicted, num_classes)
    return Scores(confusion, model.label_set)
