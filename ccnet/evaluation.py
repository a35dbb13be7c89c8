"""How good a network is: its labels against those of a data set, on any number of processes."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from ccnet.classes import LabelSet
from ccnet.files import atomic_write
from ccnet.inference import Segmentation
from ccnet.model import CCNet
from ccnet.processes import rank_and_count
from ccnet.scores import Scores, confusion_matrix

__all__ = ["Samples", "Scores", "confusion_matrix", "evaluate", "save_label_ids", "share"]


class Samples(Protocol):
    """Images (3, H, W), uint8, RGB, with labels (H, W), uint8: classes, or 255 for none."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """An image and its labels."""


def evaluate(
    model: CCNet,
    dataset: Samples,
    *,
    protocol: Mapping[str, Any] | None = None,
    each: Callable[[int, Segmentation, Scores], None] | None = None,
) -> Scores:
    """Segments every image at its own size and compares with its labels.

    Under torch.distributed every process must call this with the same data set. Image i is the
    work of process i modulo their number, so none is counted twice, and each gets the scores of
    all. Needs torchmetrics (`pip install ccnet-pytorch[evaluate]`).

    Args:
        model: whose classes are those of the labels.
        dataset: the images with their labels.
        protocol: keyword arguments of `CCNet.predict`, as in the registry's entries; whole images,
            once, by default.
        each: called with the number of an image, its segmentation and its own scores, in the
            process that segmented it.

    Returns:
        The scores over all images.

    Raises:
        ValueError: if the labels hold classes that the model does not know.
    """
    from ccnet.metrics import ConfusionMatrix

    label_set = model.label_set
    metric = ConfusionMatrix(len(label_set)).to(next(model.parameters()).device)
    nothing = torch.empty(0, dtype=torch.uint8)
    metric.update(nothing, nothing)  # for processes without an image
    for index in share(len(dataset)):
        image, labels = (tensor.as_subclass(Tensor) for tensor in dataset[index])
        result = model.predict(image, **(protocol or {}))
        confusion = metric(result.labels, labels)
        if each is not None:
            each(index, result, _scores(confusion, label_set))
    return _scores(metric.compute(), label_set)


def share(count: int) -> range:
    """Which of `count` images are the work of this process: every one's number modulo its own."""
    rank, world = rank_and_count()
    return range(rank, count, world)


def _scores(confusion: Tensor, label_set: LabelSet) -> Scores:
    """Scores of what torchmetrics computed, which makes a single number of a 1x1 matrix."""
    return Scores(confusion.cpu().reshape(len(label_set), len(label_set)), label_set)


def save_label_ids(labels: Tensor, label_set: LabelSet, path: str | os.PathLike[str]) -> None:
    """Writes labels as a benchmark's server wants them: an 8-bit PNG of the data set's own ids.

    Args:
        labels: (H, W), uint8: classes.
        label_set: whose `label_ids` are written.
        path: of the PNG; its folder is made if need be.

    Raises:
        ValueError: if an id does not fit into 8 bits.
    """
    if not all(0 <= label_id <= 255 for label_id in label_set.label_ids):
        raise ValueError(f"8 bits hold label ids of 0..255, not {label_set.label_ids}")
    label_ids = torch.tensor(label_set.label_ids, dtype=torch.uint8)[labels.long()]
    with atomic_write(path) as temporary:
        Image.fromarray(label_ids.numpy()).save(temporary, format="PNG")
