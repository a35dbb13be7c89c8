"""Features of one class close together, the means of classes far apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.classes import IGNORE_INDEX


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
