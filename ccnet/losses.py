"""What training minimises."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.classes import IGNORE_INDEX


class SegmentationLoss(nn.Module):
    """Cross-entropy of the main output plus a share of the auxiliary output's.

    Args:
        aux_weight: the factor on the auxiliary loss.
        class_weights: (K,), a factor per class; None for 1.

    Source:
        CCNet's training code: main + 0.4 x auxiliary.
    """

    class_weights: Tensor | None

    def __init__(self, aux_weight: float = 0.4, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        self.register_buffer("class_weights", class_weights)

    def forward(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            outputs: "out", and "aux" if there is an auxiliary head: logits (N, K, H, W).
            labels: (N, H, W), integers: classes, or 255 for pixels that do not count.

        Returns:
            A scalar; 0, with gradients of 0, if no pixel counts.
        """
        loss = self._cross_entropy(outputs["out"], labels)
        if "aux" in outputs:
            loss = loss + self.aux_weight * self._cross_entropy(outputs["aux"], labels)
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        labels = labels.long()
        total = F.cross_entropy(
            logits, labels, self.class_weights, ignore_index=IGNORE_INDEX, reduction="sum"
        )
        counted = labels != IGNORE_INDEX
        if self.class_weights is None:
            normaliser = counted.sum()
        else:
            normaliser = (self.class_weights[labels.where(counted, 0)] * counted).sum()
        return total / normaliser.to(logits.dtype).clamp(min=torch.finfo(logits.dtype).tiny)
