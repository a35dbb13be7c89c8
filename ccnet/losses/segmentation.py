"""Segmentation loss: weighted sum of main, auxiliary and category consistent loss."""

from collections.abc import Mapping

from torch import Tensor, nn

from ccnet.losses.category_consistent import CategoryConsistentLoss
from ccnet.losses.cross_entropy import CrossEntropyLoss
from ccnet.options import named_options


class SegmentationLoss(nn.Module):
    """Loss of the main output plus the weighted cross-entropy of the auxiliary output.

    Args:
        aux_weight: weight of the auxiliary loss.
        class_weights: (K,), weight of each class, for the cross-entropies created here: of the
            auxiliary output alone if `main` is given, which has its own; None for 1.
        main: loss of the main output, such as `OhemCrossEntropyLoss`; None for cross-entropy.
        consistency: loss of the network's optional output "rcca"; None for no such loss.
        consistency_weight: weight of the consistency loss.
        joint: as in `CrossEntropyLoss`, for the cross-entropies created here.

    Source:
        CCNet's training code: main + 0.4 x auxiliary.
    """

    @named_options()
    def __init__(
        self,
        aux_weight: float = 0.4,
        class_weights: Tensor | None = None,
        *,
        main: nn.Module | None = None,
        consistency: CategoryConsistentLoss | None = None,
        consistency_weight: float = 1.0,
        joint: bool = False,
    ) -> None:
        super().__init__()
        self.aux_weight, self.consistency_weight = aux_weight, consistency_weight
        self.main = main or CrossEntropyLoss(class_weights, joint=joint)
        self.auxiliary = CrossEntropyLoss(class_weights, joint=joint)
        self.consistency = consistency

    def forward(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            outputs: "out", and "aux" if there is an auxiliary head: logits (N, K, H, W); "rcca",
                (N, C, h, w), if there is a consistency loss.
            labels: (N, H, W), integers: classes, or 255 for ignored pixels.

        Returns:
            A scalar; 0, with zero gradients, if all pixels are ignored.
        """
        loss: Tensor = self.main(outputs["out"], labels)
        if "aux" in outputs:
            loss = loss + self.aux_weight * self.auxiliary(outputs["aux"], labels)
        if self.consistency is not None:
            consistency: Tensor = self.consistency(outputs["rcca"], labels)
            loss = loss + self.consistency_weight * consistency
        return loss
