"""Losses: cross-entropy, hard example mining, category consistency, and their weighted sum."""

from ccnet.losses.category_consistent import CategoryConsistentLoss
from ccnet.losses.cross_entropy import CrossEntropyLoss, OhemCrossEntropyLoss
from ccnet.losses.segmentation import SegmentationLoss

__all__ = [
    "CategoryConsistentLoss",
    "CrossEntropyLoss",
    "OhemCrossEntropyLoss",
    "SegmentationLoss",
]
