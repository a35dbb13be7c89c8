"""Confusion matrix and mIoU against slow, plain loops."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision import tv_tensors

from ccnet.classes import CAMVID, CITYSCAPES, LabelSet
from ccnet.evaluation import Scores, confusion_matrix, evaluate, save_label_ids
from ccnet.metrics import ConfusionMatrix


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


def test_accuracies_are_shares_of_the_true_pixels(maps):
    labels, predicted = maps
    scores = Scores(confusion_matrix(labels, predicted, 6), LabelSet.numbered(6))
    shares = []
    for label in range(4):
        found = predicted[labels == label].tolist()
        shares.append(100 * found.count(label) / len(found))
    assert scores.accuracy[:4].tolist() == pytest.approx(shares)
    assert scores.accuracy[4:].isnan().all()
    assert scores.mean_accuracy == pytest.approx(sum(shares) / 4)


def test_figures_are_exact_beyond_32_bits():
    many = 2**53 - 1
    scores = Scores(torch.tensor([[many, 1], [0, 0]]), LabelSet.numbered(2))
    assert scores.to_dict()["confusion"] == [[many, 1], [0, 0]]
    assert scores.pixel_accuracy == scores.iou[0] == 100 * many / (many + 1)


def test_scores_are_saved_as_json_without_nan(maps):
    scores = Scores(confusion_matrix(*maps, 6), LabelSet.numbered(6))
    saved = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert saved["confusion"] == scores.confusion.tolist()
    assert saved["IoU"]["class 5"] is saved["accuracy"]["class 5"] is None
    assert list(saved["IoU"].values())[:4] == scores.iou[:4].tolist()
    assert list(saved["accuracy"].values())[:4] == scores.accuracy[:4].tolist()
    assert saved["mIoU"] == scores.miou
    assert saved["pixel accuracy"] == scores.pixel_accuracy
    assert saved["mean accuracy"] == scores.mean_accuracy
    nothing = Scores(torch.zeros(2, 2, dtype=torch.int64), LabelSet.numbered(2)).to_dict()
    assert nothing["mIoU"] is nothing["pixel accuracy"] is nothing["mean accuracy"] is None


@pytest.mark.parametrize("num_classes", [2, 5, 19, 255])
def test_counting_agrees_with_torchmetrics(num_classes):
    theirs = MulticlassConfusionMatrix(num_classes, ignore_index=255)
    ours = ConfusionMatrix(num_classes)
    for shape in ((40, 30), (3, 7, 5), (1,)):
        labels, predicted = torch.randint(0, num_classes, (2, *shape), dtype=torch.uint8)
        labels[torch.rand(shape) < 0.2] = 255
        theirs.update(predicted, labels)
        assert torch.equal(
            ours(predicted, labels), confusion_matrix(labels, predicted, num_classes)
        )
    assert ours.compute().dtype == torch.int64
    assert torch.equal(ours.compute(), theirs.compute())


def test_the_metric_refuses_what_torchmetrics_takes_for_another_class():
    labels, predicted = torch.tensor([0, 0]), torch.tensor([7, 0])
    theirs = MulticlassConfusionMatrix(5, ignore_index=255)
    assert theirs(predicted, labels)[1, 2] == 1
    with pytest.raises(ValueError, match="predictions go up to 7, but there are 5 classes"):
        ConfusionMatrix(5).update(predicted, labels)


class Noise:
    """Random pictures of several sizes with random labels, some of them 255."""

    def __init__(self, length, num_classes=5, seed=0):
        self.length, self.num_classes, self.seed = length, num_classes, seed

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index >= self.length:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        shape = (33 + index % 3, 49 - index % 2)
        image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, self.num_classes, shape, generator=generator).to(torch.uint8)
        labels[: 1 + index % 4] = 255
        return tv_tensors.Image(image), tv_tensors.Mask(labels)


@pytest.mark.parametrize(
    "protocol",
    [None, {"mode": "slide", "crop": [24, 32], "stride": [16, 24], "scales": [0.75, 1.25]}],
)
def test_a_data_set_is_evaluated_picture_by_picture(model, protocol):
    samples = Noise(4)
    seen = {}

    def each(index, result, scores):
        seen[index] = result, scores

    scores = evaluate(model, samples, protocol=protocol, each=each)
    expected = torch.zeros(5, 5, dtype=torch.int64)
    for index in range(4):
        image, labels = samples[index]
        predicted = model.predict(image, **(protocol or {})).labels
        one = torch.tensor(plain_confusion(labels, predicted, 5))
        assert torch.equal(seen[index][0].labels, predicted)
        assert torch.equal(seen[index][1].confusion, one)
        expected += one
    assert list(seen) == [0, 1, 2, 3]
    assert scores.confusion.dtype == torch.int64
    assert torch.equal(scores.confusion, expected)
    assert scores.label_set == model.label_set


def test_the_protocol_is_that_of_the_prediction(model):
    whole, flipped = evaluate(model, Noise(1)), evaluate(model, Noise(1), protocol={"flip": True})
    assert not torch.equal(whole.confusion, flipped.confusion)
    with pytest.raises(ValueError, match="mode must be"):
        evaluate(model, Noise(1), protocol={"mode": "backwards"})


def test_one_class_and_no_picture(make_model):
    lone = make_model(1)
    scores = evaluate(lone, Noise(2, num_classes=1))
    assert scores.confusion.tolist() == [[sum((label != 255).sum() for _, label in Noise(2))]]
    assert scores.miou == 100
    empty = evaluate(lone, Noise(0))
    assert empty.confusion.tolist() == [[0]]
    assert math.isnan(empty.miou)


def test_deterministic_mode_costs_no_memory(model):
    torch.use_deterministic_algorithms(True)
    try:
        metric = ConfusionMatrix(255)
        labels = torch.zeros(512, 512, dtype=torch.uint8)
        metric.update(labels, labels)  # 255 * 255 numbers a pixel would be 136 GB
    finally:
        torch.use_deterministic_algorithms(False)
    assert metric.compute()[0, 0] == 512 * 512


def test_label_ids_are_written_as_the_server_wants_them(tmp_path):
    labels = torch.arange(19, dtype=torch.uint8).repeat(3, 2)
    save_label_ids(labels, CITYSCAPES, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as file:
        assert file.mode == "L"
        found = np.array(file)
    assert found.shape == (3, 38)
    assert found[1, :19].tolist() == list(CITYSCAPES.label_ids)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_label_ids_beyond_8_bits_are_refused(tmp_path):
    label_set = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)), (3, 256))
    with pytest.raises(ValueError, match=r"0\.\.255, not \(3, 256\)"):
        save_label_ids(torch.zeros(2, 2, dtype=torch.uint8), label_set, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
