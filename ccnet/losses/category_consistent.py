"""Category consistent loss: similar features within a class, distant class means."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.attention_kernel.multiplication import without_autocast
from ccnet.classes import IGNORE_INDEX
from ccnet.options import named_options


class CategoryConsistentLoss(nn.Module):
    """Loss that pulls the features of a class together and class means apart.

    It owns the 1x1 convolution that reduces the features, so that inference does not carry it.

    Args:
        in_channels: C, the number of channels of the recurrent criss-cross module's output.
        channels: number of channels to which these are reduced.
        variance_weight: weight of the pull of features towards their class mean.
        distance_weight: weight of the push between class means.
        regularization_weight: weight of the length of the class means.
        variance_margin: features within this distance of their class mean are not pulled.
        distance_margin: class means at least twice this distance apart are not pushed; features
            farther than this from their class mean are pulled linearly, not quadratically.

    Source:
        CCNet, TPAMI version, category consistent loss (https://arxiv.org/abs/1811.11721).
    """

    @named_options()
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
            features: (N, C, h, w), floating point; half precision and autocast are left at once.
            labels: (N, H, W), integers: classes, or 255 for ignored pixels; resized to (h, w) by
                nearest-neighbour interpolation.

        Returns:
            A scalar; 0, with zero gradients, if all pixels are ignored.
        """
        with without_autocast(features.device):
            return self._loss(self.reduce(features.to(self.reduce.weight.dtype)), labels)

    def _loss(self, reduced: Tensor, labels: Tensor) -> Tensor:
        size = reduced.shape[-2:]
        reduced = reduced.to(torch.promote_types(reduced.dtype, torch.float32))
        reduced = reduced.movedim(1, -1).flatten(0, -2)
        labels = F.interpolate(labels[:, None].float(), size, mode="nearest-exact")
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
    """Computes the mean (count, ...) of the values (P, ...) of each class, given classes (P,)."""
    sums = values.new_zeros(count, *values.shape[1:]).index_add(0, classes, values)
    sizes = classes.bincount(minlength=count).to(values.dtype)
    return sums / sizes.view(-1, *(1 for _ in values.shape[1:]))
