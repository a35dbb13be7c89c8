"""Confusion matrix and mIoU against slow, plain loops."""

import math

import pytest
import torch

from ccnet.classes import CAMVID, LabelSet
from ccnet.evaluation import Scores, confusion_matrix, evaluate


def plain_confusion(labels, predicted, num_classes):
    counts = [[0] * num_classes for _ in range(num_classes)]
    pairs = zip(labels.flatten().tolist(), predicted.flatten().tolist(), strict=True)
    for label, guess in pairs:
        if label != 255:
            counts[label][guess] += 1
    return counts


def plain_iou(labels, predicted, label):
    """Intersection over union of one class, in percent; NaN if there is neither."""
    both = either = 0
    pairs = zip(labels.flatten().tolist(), predicted.flatten().tolist(), strict=True)
    for true, guess in pairs:
        if true != 255:
            both += true == guess == label
            either += label in (true, guess)
    return 100 * both / either if either else math.nan


@pytest.fixture
def maps():
    labels = torch.randint(0, 4, (2, 7, 5), dtype=torch.uint8)
    predicted = torch.where(torch.rand(2, 7, 5) < 0.5, labels, torch.randint(0, 4, (2, 7, 5)))
    labels[0, 2:4] = 255
    return labels, predicted.to(torch.uint8)


def test_confusion_counts_every_pixel_that_counts(maps):
    found = confusion_matrix(*maps, 4)
    assert found.dtype == torch.int64
    assert found.tolist() == plain_confusion(*maps, 4)
    assert found.sum() == (maps[0] != 255).sum()
    assert not torch.equal(found, found.T)


def test_many_classes_do_not_overflow_8_bits():
    labels = torch.tensor([254, 200, 0], dtype=torch.uint8)
    predicted = torch.tensor([254, 199, 253], dtype=torch.uint8)
    found = confusion_matrix(labels, predicted, 255)
    assert found.nonzero().tolist() == [[0, 253], [200, 199], [254, 254]]


def test_scores_follow_from_the_pixels(maps):
    labels, predicted = maps
    scores = Scores(confusion_matrix(labels, predicted, 4), LabelSet.numbered(4))
    ious = [plain_iou(labels, predicted, label) for label in range(4)]
    assert scores.iou.tolist() == pytest.approx(ious)
    assert scores.miou == pytest.approx(sum(ious) / 4)
    counted = labels != 255
    accuracy = 100 * (labels == predicted)[counted].float().mean().item()
    assert scores.pixel_accuracy == pytest.approx(accuracy)
    assert 0 < scores.miou < scores.pixel_accuracy < 100


def test_classes_that_never_occur_are_left_out_of_the_mean(maps):
    labels, predicted = maps
    scores = Scores(confusion_matrix(labels, predicted, 6), LabelSet.numbered(6))
    assert scores.iou.isnan().tolist() == [False] * 4 + [True] * 2
    assert scores.miou == pytest.approx(scores.iou[:4].mean().item())


def test_a_class_that_is_only_predicted_counts_as_missed():
    labels = torch.zeros(10, dtype=torch.uint8)
    predicted = torch.tensor([0] * 8 + [1] * 2, dtype=torch.uint8)
    scores = Scores(confusion_matrix(labels, predicted, 3), LabelSet.numbered(3))
    assert scores.iou[:2].tolist() == [80.0, 0.0]
    assert scores.miou == 40.0


def test_the_table_has_a_row_for_every_class():
    labels = torch.tensor([0, 1, 2, 2], dtype=torch.uint8)
    predicted = torch.tensor([0, 1, 2, 1], dtype=torch.uint8)
    rows = Scores(confusion_matrix(labels, predicted, 11), CAMVID).table().splitlines()
    assert len(rows) == 2 + 11 + 1
    assert rows[2] == "| sky | 100.0 |"
    assert rows[3] == "| building | 50.0 |"
    assert rows[5] == "| road | nan |"
    assert rows[-1] == "| **mean (mIoU)** | **66.67** |"


def test_labels_that_are_no_classes_are_refused():
    """As when a network of few classes is measured on a data set of more."""
    labels = torch.tensor([0, 1, 7], dtype=torch.uint8)
    with pytest.raises(ValueError, match="7"):
        confusion_matrix(labels, torch.zeros_like(labels), 5)
    with pytest.raises(ValueError, match="7"):
        confusion_matrix(torch.zeros_like(labels), labels, 5)


def test_a_data_set_is_evaluated_picture_by_picture(model):
    sizes = [(33, 49), (20, 31), (33, 49)]
    samples = []
    for size in sizes:
        labels = torch.randint(0, 5, size, dtype=torch.uint8)
        labels[:4] = 255
        samples.append((torch.randint(0, 256, (3, *size), dtype=torch.uint8), labels))
    scores = evaluate(model, iter(samples))
    expected = torch.zeros(5, 5, dtype=torch.int64)
    for image, labels in samples:
        expected += torch.tensor(plain_confusion(labels, model.predict(image).labels, 5))
    assert torch.equal(scores.confusion, expected)
    assert scores.label_set == model.label_set
