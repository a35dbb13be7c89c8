"""What training minimises: several losses together."""

from collections.abc import Mapping

from torch import Tensor, nn

from ccnet.losses.category_consistent import CategoryConsistentLoss
from ccnet.losses.cross_entropy import CrossEntropyLoss


class SegmentationLoss(nn.Module):
    """The loss of the main output plus a share of the auxiliary output's cross-entropy.

    Args:
        aux_weight: the factor on the auxiliary loss.
        class_weights: (K,), a factor per class; None for 1.
        main: of the main output: `OhemCrossEntropyLoss`, say; None for cross-entropy.
        consistency: of the map "rcca" that the network gives on request; None for none.
        consistency_weight: the factor on it.
        joint: as in `CrossEntropyLoss`, for the cross-entropies made here.

    Source:
        CCNet's training code: main + 0.4 x auxiliary.
    """

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
            labels: (N, H, W), integers: classes, or 255 for pixels that do not count.

        Returns:
            A scalar; 0, with gradients of 0, if no pixel counts.
        """
        loss: Tensor = self.main(outputs["out"], labels)
        if "aux" in outputs:
            loss = loss + self.aux_weight * self.auxiliary(outputs["aux"], labels)
        if self.consistency is not None:
            consistency: Tensor = self.consistency(outputs["rcca"], labels)
            loss = loss + self.consistency_weight * consistency
        return loss
