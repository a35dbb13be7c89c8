"""The confusion matrix as a torchmetrics metric, added up over pictures and processes."""

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from ccnet.classes import IGNORE_INDEX
from ccnet.scores import confusion_matrix


class ConfusionMatrix(MulticlassConfusionMatrix):
    """Counts in int64 how classes are labelled; exact over any number of pictures and processes.

    The counting is `scores.confusion_matrix`: that of torchmetrics takes a prediction outside the
    classes for another class, and in PyTorch's deterministic mode keeps K * K numbers a pixel.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, ignore_index=IGNORE_INDEX, validate_args=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds one picture, or several of one size.

        Args:
            preds: any shape, integers below K.
            target: the same shape, integers: the true classes, or 255 for pixels that do not count.

        Raises:
            ValueError: if a class is K or more.
        """
        self.confmat += confusion_matrix(target, preds, self.num_classes).to(self.device)
