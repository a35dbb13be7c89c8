"""Evaluation: mIoU over a data set, scores, reports and charts."""

from ccnet.evaluation.evaluate import (
    Samples,
    evaluate,
    own_indices,
    prepare_label_ids,
    save_label_ids,
)
from ccnet.evaluation.scores import Scores, confusion_matrix

__all__ = [
    "Samples",
    "Scores",
    "confusion_matrix",
    "evaluate",
    "own_indices",
    "prepare_label_ids",
    "save_label_ids",
]
