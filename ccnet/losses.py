"""What training minimises."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.classes import IGNORE_INDEX


class CrossEntropyLoss(nn.Module):
    """Mean cross-entropy of the pixels that count.

    Args:
        class_weights: (K,), a factor per class; None for 1.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            logits: (N, K, H, W), floating point.
            labels: (N, H, W), integers: classes, or 255 for pixels that do not count.

        Returns:
            A scalar; 0, with gradients of 0, if no pixel counts.
        """
        labels = labels.long()
        losses = F.cross_entropy(
            logits, labels, self.class_weights, ignore_index=IGNORE_INDEX, reduction="none"
        )
        return self._mean(losses, labels, labels != IGNORE_INDEX)

    def _mean(self, losses: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """The mean of the losses of the pixels that count, by the weights of their classes."""
        weights = counted.to(losses.dtype)
        total = (losses * weights).sum()
        if self.class_weights is not None:
            weights = weights * self.class_weights[labels.where(counted, 0)]
        return total / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


class OhemCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy of the hard pixels: those whose true class has a low probability.

    The threshold is `threshold`, or higher where that would keep too few: estimated on a grid that
    is `factor` times coarser in each direction, it keeps about `min_kept` pixels. All of it happens
    on the device of the logits.

    Args:
        threshold: the probability of the true class up to which a pixel is hard, 0..1.
        min_kept: pixels that are kept at least, of all images of this process together.
        factor: how much coarser the grid is.
        class_weights: (K,), a factor per class; None for 1.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        CCNet's training code; online hard example mining: https://arxiv.org/abs/1604.03540.
    """

    def __init__(
        self,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        factor: int = 8,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(class_weights)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a probability in 0..1, not {threshold}")
        if min_kept < 0 or factor < 1:
            raise ValueError(
                f"min_kept must be at least 0 and factor at least 1, not {min_kept} and {factor}"
            )
        self.threshold, self.min_kept, self.factor = threshold, min_kept, factor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch; arguments and result are those of `CrossEntropyLoss`."""
        labels = labels.long()
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
        hard = losses.detach().neg().exp() <= self.effective_threshold(logits, labels)
        if self.class_weights is not None:
            losses = losses * self.class_weights[labels.where(labels != IGNORE_INDEX, 0)]
        return self._mean(losses, labels, hard & (labels != IGNORE_INDEX))

    @torch.no_grad()
    def effective_threshold(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The probability, a scalar tensor, up to which a pixel of this batch is hard."""
        kept = self.min_kept // self.factor**2
        probabilities, valid = self._on_coarse_grid(logits, labels)
        threshold = logits.new_tensor(self.threshold)
        if kept == 0:
            return threshold
        candidates = torch.where(valid, probabilities, torch.inf).flatten()
        smallest = candidates.kthvalue(min(kept, candidates.numel())).values
        enough = valid.sum() > kept
        return torch.where(enough, torch.maximum(smallest, threshold), torch.ones_like(threshold))

    def _on_coarse_grid(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The true class's probability (N, h, w), interpolated linearly, and where it counts.

        Corners of both grids meet. Only the pixels next to a point of the grid are looked at.
        """
        rows, columns = (_coarse(size, self.factor, logits.device) for size in labels.shape[-2:])
        nearest = labels[:, rows.nearest][:, :, columns.nearest]
        valid = nearest != IGNORE_INDEX
        classes = nearest.where(valid, 0)[:, None]
        probabilities = torch.zeros_like(classes[:, 0], dtype=logits.dtype)
        for row, row_share in ((rows.before, 1 - rows.share), (rows.after, rows.share)):
            for column, share in (
                (columns.before, 1 - columns.share),
                (columns.after, columns.share),
            ):
                beside = logits[:, :, row][:, :, :, column].softmax(dim=1)
                weight = (row_share[:, None] * share).to(logits.dtype)
                probabilities += weight * beside.gather(1, classes)[:, 0]
        return probabilities, valid


class _Coarse(NamedTuple):
    """Points of a coarse axis among the pixels of a fine one, whose ends meet."""

    nearest: Tensor
    before: Tensor
    after: Tensor
    share: Tensor  # of the pixel after


def _coarse(size: int, factor: int, device: torch.device) -> _Coarse:
    points = max(1, round(size / factor))
    intervals = max(1, points - 1)
    position = torch.arange(points, device=device) * (size - 1)
    before = position // intervals
    return _Coarse(
        nearest=(2 * position + intervals) // (2 * intervals),
        before=before,
        after=(before + 1).clamp(max=size - 1),
        share=(position % intervals) / intervals,
    )


class CategoryConsistentLoss(nn.Module):
    """Pulls the features of a class together and the means of classes apart.

    It owns the 1x1 convolution that reduces the features, so that inference carries nothing of it.

    Args:
        in_channels: C, the channels of the features: those of the recurrent criss-cross module.
        channels: to which they are reduced.
        variance_weight: of the pull towards a class's mean.
        distance_weight: of the push between means.
        regularization_weight: of the length of the means.
        variance_margin: the distance from its mean up to which a feature is left alone.
        distance_margin: half the distance from which on means are left alone; beyond it from its
            mean a feature is pulled linearly rather than quadratically.

    Source:
        CCNet, TPAMI version, category consistent loss (https://arxiv.org/abs/1811.11721).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 16,
        *,
        variance_weight: float = 1.0,
        distance_weight: float = 1.0,
        regularization_weight: float = 0.001,
        variance_margin: float = 0.5,
        distance_margin: float = 1.5,
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, channels, kernel_size=1)
        self.weights = (variance_weight, distance_weight, regularization_weight)
        self.variance_margin, self.distance_margin = variance_margin, distance_margin

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            features: (N, C, h, w), floating point.
            labels: (N, H, W), integers: classes, or 255 for pixels that do not count; taken at the
                nearest pixel where the features are coarser.

        Returns:
            A scalar; 0, with gradients of 0, if no pixel counts.
        """
        reduced: Tensor = self.reduce(features).movedim(1, -1).flatten(0, -2)
        labels = F.interpolate(labels[:, None].float(), features.shape[-2:], mode="nearest-exact")
        flat = labels.long().flatten()
        counted = flat != IGNORE_INDEX
        points, classes = reduced[counted], flat[counted]
        if classes.numel() == 0:
            return 0 * reduced.sum()
        present, classes = classes.unique(return_inverse=True)
        means = _class_means(points, classes, len(present))
        pull = _class_means(self._pull(points, means[classes]), classes, len(present)).mean()
        length = torch.linalg.vector_norm(means, dim=1).mean()
        variance, distance, regularization = self.weights
        loss: Tensor = variance * pull + distance * self._push(means) + regularization * length
        return loss

    def _pull(self, points: Tensor, means: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm(points - means, dim=1)
        near, far = self.variance_margin, self.distance_margin
        quadratic = (distance - near).clamp(min=0).square()
        linear = distance - far + (far - near) ** 2
        return torch.where(distance <= far, quadratic, linear)

    def _push(self, means: Tensor) -> Tensor:
        count = len(means)
        if count == 1:
            return 0 * means.sum()
        first, second = torch.triu_indices(count, count, offset=1, device=means.device)
        distance: Tensor = torch.linalg.vector_norm(means[first] - means[second], dim=1)
        return (2 * self.distance_margin - distance).clamp(min=0).square().mean()


def _class_means(values: Tensor, classes: Tensor, count: int) -> Tensor:
    """Means (count, ...) of the values (P, ...) of each class (P,)."""
    sums = values.new_zeros(count, *values.shape[1:]).index_add(0, classes, values)
    sizes = classes.bincount(minlength=count).to(values.dtype)
    return sums / sizes.view(-1, *(1 for _ in values.shape[1:]))


class SegmentationLoss(nn.Module):
    """The loss of the main output plus a share of the auxiliary output's cross-entropy.

    Args:
        aux_weight: the factor on the auxiliary loss.
        class_weights: (K,), a factor per class; None for 1.
        main: of the main output: `OhemCrossEntropyLoss`, say; None for cross-entropy.
        consistency: of the features "rcca" that the network gives on request; None for none.

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
    ) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        self.main = main or CrossEntropyLoss(class_weights)
        self.auxiliary = CrossEntropyLoss(class_weights)
        self.consistency = consistency

    def forward(self, outputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            outputs: "out", and "aux" if there is an auxiliary head: logits (N, K, H, W).
            labels: (N, H, W), integers: classes, or 255 for pixels that do not count.

        Returns:
            A scalar; 0, with gradients of 0, if no pixel counts.
        """
        loss: Tensor = self.main(outputs["out"], labels)
        if "aux" in outputs:
            loss = loss + self.aux_weight * self.auxiliary(outputs["aux"], labels)
        if self.consistency is not None:
            loss = loss + self.consistency(outputs["rcca"], labels)
        return loss
