"""Cross-entropy losses: over all pixels, or over hard pixels (OHEM)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet import distributed
from ccnet.classes import IGNORE_INDEX
from ccnet.options import named_options


class CrossEntropyLoss(nn.Module):
    """Mean cross-entropy of the pixels that are not ignored.

    Args:
        class_weights: (K,), weight of each class; None for 1.
        joint: divide by the pixel count averaged over the processes of torch.distributed, not by
            this process's own. The mean over processes of the losses, and of their gradients, is
            then that of the joined batch. Every process must then compute the loss.
    """

    class_weights: Tensor | None

    @named_options()
    def __init__(self, class_weights: Tensor | None = None, *, joint: bool = False) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights)
        self.joint = joint

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            logits: (N, K, H, W), floating point; computed with in float32 if they are narrower.
            labels: (N, H, W), integers: classes, or 255 for ignored pixels.

        Returns:
            A scalar, float32 (float64 for float64 logits); 0, with zero gradients, if all pixels
            are ignored.

        Raises:
            IndexError: on a CPU, if a label is no class.
        """
        logits, labels = _wide(logits), labels.long()
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        losses = F.cross_entropy(
            logits, labels, weights, ignore_index=IGNORE_INDEX, reduction="none"
        )
        return self._mean(losses, labels, labels != IGNORE_INDEX)

    def _mean(self, losses: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """Averages the losses of the counted pixels, weighted by class."""
        total = losses.where(counted, 0).sum()
        count = counted.sum(dtype=losses.dtype)
        if self.class_weights is not None:
            weights = self.class_weights.to(losses.dtype)
            count = weights[labels.where(counted, 0)].where(counted, 0).sum()
        if self.joint:
            count = distributed.all_reduce_mean(count)
        return total / count.clamp(min=torch.finfo(losses.dtype).tiny)


class OhemCrossEntropyLoss(CrossEntropyLoss):
    """Cross-entropy of hard pixels (OHEM): those whose true class has a low probability.

    The threshold is `threshold`, or higher if that would keep too few pixels: then it keeps about
    `min_kept`, as estimated on a grid that is `factor` times coarser in each direction. Everything
    is computed on the device of the logits.

    Args:
        threshold: probability of the true class up to which a pixel is hard, 0..1.
        min_kept: minimum number of pixels to keep, over all images of this process.
        factor: how many times coarser the grid is.
        class_weights: (K,), weight of each class; None for 1.
        joint: as in `CrossEntropyLoss`; the threshold is each process's own.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        CCNet's training code; online hard example mining: https://arxiv.org/abs/1604.03540.
    """

    @named_options()
    def __init__(
        self,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        factor: int = 8,
        class_weights: Tensor | None = None,
        *,
        joint: bool = False,
    ) -> None:
        super().__init__(class_weights, joint=joint)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be a probability in 0..1, not {threshold}")
        if min_kept < 0 or factor < 1:
            raise ValueError(
                f"min_kept must be at least 0 and factor at least 1, not {min_kept} and {factor}"
            )
        self.threshold, self.min_kept, self.factor = threshold, min_kept, factor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the loss of a batch; arguments and result are as in `CrossEntropyLoss`."""
        logits, labels = _wide(logits), labels.long()
        losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
        # A NaN loss must not be hidden, so it counts as hard.
        hard = ~(losses.detach() < -self.effective_threshold(logits, labels).log())
        if self.class_weights is not None:
            losses = losses * self.class_weights[labels.where(labels != IGNORE_INDEX, 0)]
        return self._mean(losses, labels, hard & (labels != IGNORE_INDEX))

    @torch.no_grad()
    def effective_threshold(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the probability (a scalar tensor) up to which a pixel of this batch is hard.

        Arguments are as in `forward`.
        """
        logits, kept = _wide(logits), self.min_kept // self.factor**2
        if kept == 0:
            return logits.new_full((), self.threshold)
        probabilities, valid = self._on_coarse_grid(logits, labels)
        candidates = probabilities.where(valid, torch.inf).flatten()
        smallest = candidates.kthvalue(min(kept, candidates.numel())).values
        return smallest.clamp(min=self.threshold).where(valid.sum() > kept, 1)

    def _on_coarse_grid(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the true class's probability, interpolated linearly, and a mask of valid points.

        Both are (N, h, w). The corners of both grids align. Only pixels next to a grid point are
        read: those before it and those after it, one after the other along each axis.
        """
        rows, columns = (_coarse(size, self.factor, logits.device) for size in labels.shape[-2:])
        nearest = labels[:, rows.nearest][:, :, columns.nearest].long()
        valid = nearest != IGNORE_INDEX
        classes = nearest.where(valid, 0).repeat(1, 2, 2)[:, None]
        beside = logits[:, :, rows.beside][:, :, :, columns.beside].softmax(dim=1)
        shares = (rows.shares[:, None] * columns.shares).to(logits.dtype)
        parts = beside.gather(1, classes)[:, 0] * shares
        return parts.unflatten(2, (2, -1)).unflatten(1, (2, -1)).sum(dim=(1, 3)), valid


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _Coarse(NamedTuple):
    """Points of a coarse axis as pixel indices of a fine axis; the ends of both axes align."""

    nearest: Tensor
    beside: Tensor  # the pixels before all points, then those after them
    shares: Tensor  # their weights


def _coarse(size: int, factor: int, device: torch.device) -> _Coarse:
    points = max(1, round(size / factor))
    intervals = max(1, points - 1)
    position = torch.arange(points, device=device) * (size - 1)
    before = position // intervals
    share = (position % intervals) / intervals
    return _Coarse(
        nearest=(2 * position + intervals) // (2 * intervals),
        beside=torch.cat((before, before + 1)).clamp(max=size - 1),
        shares=torch.cat((1 - share, share)),
    )
