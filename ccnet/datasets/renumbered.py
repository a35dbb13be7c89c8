"""Renumbered: a data set whose classes are numbered as in another label set."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ccnet.classes import IGNORE_INDEX, LabelSet
from ccnet.datasets.identity import identify
from ccnet.datasets.labeled_images import Sample


class Renumbered(Dataset[Sample]):
    """A data set whose classes are found by name among those of a network, which may have more.

    Args:
        dataset: (image, mask) pairs.
        own: the classes of the masks.
        label_set: the classes of the network.

    Attributes:
        label_set: the classes of the network.
        classes: the numbers of the data set's classes among them.
        names: of the samples, if the data set has them.

    Raises:
        ValueError: if the network lacks a class.
    """

    def __init__(self, dataset: Any, own: LabelSet, label_set: LabelSet) -> None:
        absent = [name for name in own.categories if name not in label_set.categories]
        if absent:
            raise ValueError(
                f"the data set has {len(own)} classes ({', '.join(own.categories)}), of which "
                f"{', '.join(absent)} are not among the {len(label_set)} of the network "
                f"({', '.join(label_set.categories)})"
            )
        self.dataset, self.label_set = dataset, label_set
        self.names = getattr(dataset, "names", None)
        self.classes = [label_set.categories.index(name) for name in own.categories]
        self._numbers = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8)
        self._numbers[: len(own)] = torch.tensor(self.classes, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        image, mask = self.dataset[index]
        labels = mask.as_subclass(Tensor)
        stray = (labels < 0) | (labels >= len(self.classes)) & (labels != IGNORE_INDEX)
        if stray.any():
            raise ValueError(
                f"sample {index} of the data set has label {int(labels[stray][0])}, but there are "
                f"{len(self.classes)} classes, and {IGNORE_INDEX} for none"
            )
        return image, tv_tensors.Mask(self._numbers[labels.long()])

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what tells a sample from others: also the numbers of the classes."""
        return {**identify(self.dataset, index), "classes": self.classes}
