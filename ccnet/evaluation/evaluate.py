"""Evaluation of a model on a data set, on any number of processes; label-id export."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from ccnet.classes import LabelSet
from ccnet.console import printable
from ccnet.distributed import all_reduce_sum, rank, world_size
from ccnet.evaluation.scores import Scores, confusion_matrix
from ccnet.files import atomic_write
from ccnet.inference import InferenceProtocol, Segmentation
from ccnet.model import CCNet
from ccnet.options import named_options


class Samples(Protocol):
    """Images (3, H, W), uint8, RGB, with labels (H, W), uint8: classes, or 255 (ignored)."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """An image and its labels."""


@named_options()
def evaluate(
    model: CCNet,
    dataset: Samples,
    *,
    protocol: InferenceProtocol | None = None,
    classes: Sequence[int] | None = None,
    each: Callable[[int, Segmentation, Scores], None] | None = None,
) -> Scores:
    """Segments every image at its own size and compares it with its labels.

    Under torch.distributed every rank must call this with the same data set. Rank r of a world of
    size n evaluates the images r, r + n, ..., so that none is counted twice, and every rank gets
    the scores over all images.

    Args:
        model: with the classes of the labels.
        dataset: images and labels.
        protocol: the options of inference; None for whole images at their own size.
        classes: the numbers of the classes that the labels distinguish; None for all.
        each: called with the index of an image, its segmentation and its own scores, on the rank
            that evaluated it.

    Returns:
        The scores over all images.

    Raises:
        ValueError: if the labels hold classes that the model does not know.
    """
    confusion = own_confusion(model, dataset, protocol=protocol, classes=classes, each=each)
    device = next(model.parameters()).device
    return Scores(all_reduce_sum(confusion.to(device)).cpu(), model.label_set, classes)


def own_confusion(
    model: CCNet,
    dataset: Samples,
    *,
    protocol: InferenceProtocol | None = None,
    classes: Sequence[int] | None = None,
    each: Callable[[int, Segmentation, Scores], None] | None = None,
) -> Tensor:
    """The confusion matrix (K, K), int64, of the images that this rank evaluates.

    Arguments and errors are those of `evaluate`, but no rank waits for others.
    """
    label_set = model.label_set
    count = len(label_set)
    total = torch.zeros(count, count, dtype=torch.int64, device="cpu")
    for index in own_indices(len(dataset)):
        image, labels = (tensor.as_subclass(Tensor) for tensor in dataset[index])
        # As asked, never in windows instead.
        result = model.predict(image, protocol or InferenceProtocol(), memory_limit=None)
        confusion = confusion_matrix(labels, result.labels, count)
        total += confusion
        if each is not None:
            each(index, result, Scores(confusion, label_set, classes))
    return total


def own_indices(count: int) -> range:
    """The indices of the images, out of `count`, that this rank evaluates."""
    return range(rank(), count, world_size())


def save_label_ids(labels: Tensor, label_set: LabelSet, path: str | os.PathLike[str]) -> None:
    """Writes labels as an 8-bit PNG of the data set's own ids, the format of benchmark servers.

    Args:
        labels: (H, W), uint8: classes.
        label_set: with the `label_ids` to write.
        path: of the PNG; its folder is created if it does not exist.

    Raises:
        ValueError: if an id does not fit into 8 bits.
    """
    if not all(0 <= label_id <= 255 for label_id in label_set.label_ids):
        raise ValueError(f"label ids must be in 0..255 for an 8-bit PNG, not {label_set.label_ids}")
    table = torch.tensor(label_set.label_ids, dtype=torch.uint8, device=labels.device)
    label_ids = table[labels.long()].cpu()
    with atomic_write(path) as temporary:
        Image.fromarray(label_ids.numpy()).save(temporary, format="PNG")


def prepare_label_ids(folder: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Creates the folder of label ids, with nothing in it that they would be mixed with.

    Args:
        folder: need not exist. Hidden files in it do not count.
        names: of the images; "/" separates folders in them.

    Raises:
        OSError: if it cannot be created.
        ValueError: if it is not empty, or the names do not give each image a file of its own there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if found:
        raise ValueError(
            f"{folder} holds {printable(found[0])}, and label ids are written to a folder that is "
            "new or empty, so that those of two evaluations are not mixed: choose another one"
        )
    times = Counter(names)
    for name in names:
        if times[name] > 1 or ".." in Path(name).parts or Path(name).is_absolute():
            raise ValueError(f"label ids cannot be named after the images: {printable(name)!r}")
