"""Confusion matrix, scores and `evaluate` against slow, plain loops."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ccnet.classes import CAMVID, CITYSCAPES, LabelSet
from ccnet.datasets import Renumbered
from ccnet.evaluation import Scores, confusion_matrix, evaluate, save_label_ids
from ccnet.inference import InferenceProtocol


def plain_confusion(labels, predicted, num_classes):
    counts = [[0] * num_classes for _ in range(num_classes)]
    pairs = zip(labels.flatten().tolist(), predicted.flatten().tolist(), strict=True)
    for label, guess in pairs:
        if label != 255:
            counts[label][guess] += 1
    return counts


def plain_iou(labels, predicted, label):
    """Intersection over union of one class, in percent."""
    pairs = zip(labels.flatten().tolist(), predicted.flatten().tolist(), strict=True)
    with_class = [pair for pair in pairs if label in pair and pair[0] != 255]
    return 100 * with_class.count((label, label)) / len(with_class)


def scores_of(labels, predicted, classes):
    """The scores of a few labels, with a number of classes or a label set."""
    label_set = LabelSet.numbered(classes) if isinstance(classes, int) else classes
    labels, predicted = (torch.as_tensor(x, dtype=torch.uint8) for x in (labels, predicted))
    return Scores(confusion_matrix(labels, predicted, len(label_set)), label_set)


@pytest.fixture
def maps():
    labels = torch.randint(0, 4, (2, 7, 5), dtype=torch.uint8)
    predicted = torch.where(torch.rand(2, 7, 5) < 0.5, labels, torch.randint(0, 4, (2, 7, 5)))
    labels[0, 2:4] = 255
    return labels, predicted.to(torch.uint8)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 19, 255])
@pytest.mark.parametrize("shape", [(40, 30), (3, 7, 5), (1,)], ids=str)
def test_confusion_matrix_counts_every_labeled_pixel(num_classes, shape):
    labels, predicted = torch.randint(0, num_classes, (2, *shape), dtype=torch.uint8)
    labels[torch.rand(shape) < 0.2] = 255
    found = confusion_matrix(labels, predicted, num_classes)
    assert found.dtype == torch.int64
    assert found.tolist() == plain_confusion(labels, predicted, num_classes)
    assert found.sum() == (labels != 255).sum()


def test_values_that_are_no_classes_are_refused():
    """As when a network of few classes is evaluated on a data set of more."""
    values = torch.tensor([0, 1, 7], dtype=torch.uint8)
    with pytest.raises(ValueError, match="labels contain class 7, but there are only 5 classes"):
        confusion_matrix(values, torch.zeros_like(values), 5)
    with pytest.raises(ValueError, match="predictions contain class 7"):
        confusion_matrix(torch.zeros_like(values), values, 5)
    negative = torch.tensor([0, -1, 2])
    for pair in [(negative, values.clamp(max=4)), (values.clamp(max=4), negative)]:
        with pytest.raises(ValueError, match="contain class -1, but there are only 5 classes"):
            confusion_matrix(*pair, 5)


def test_label_of_no_class_does_not_pass_for_unlabelled():
    class Stray:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return torch.zeros(3, 2, 2, dtype=torch.uint8), tv_tensors.Mask([[0, 1], [7, 255]])

    two = LabelSet(("road", "car"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match="has label 7, but there are 2 classes"):
        Renumbered(Stray(), two, CAMVID)[0]


def test_scores_follow_from_the_pixels(maps):
    """Classes 4 and 5 never occur: they are left out of the means."""
    labels, predicted = maps
    scores = scores_of(labels, predicted, 6)
    ious = [plain_iou(labels, predicted, label) for label in range(4)]
    assert scores.iou[:4].tolist() == pytest.approx(ious)
    assert scores.iou.isnan().tolist() == [False] * 4 + [True] * 2
    assert scores.miou == pytest.approx(sum(ious) / 4)
    hits = [predicted[labels == label].eq(label) for label in range(4)]
    accuracies = [100 * hit.float().mean().item() for hit in hits]
    assert scores.accuracy[:4].tolist() == pytest.approx(accuracies)
    assert scores.accuracy[4:].isnan().all()
    assert scores.mean_accuracy == pytest.approx(sum(accuracies) / 4)
    assert scores.pixel_accuracy == pytest.approx(100 * torch.cat(hits).float().mean().item())
    assert 0 < scores.miou < scores.pixel_accuracy < 100


def test_class_that_is_only_predicted_counts_as_missed():
    scores = scores_of([0] * 10, [0] * 8 + [1] * 2, 3)
    assert scores.iou[:2].tolist() == [80.0, 0.0]
    assert scores.miou == 40.0


def test_classes_that_the_labels_do_not_distinguish_have_no_iou():
    """Predictions of them are errors all the same."""
    labels, predicted = torch.tensor([[0] * 10], dtype=torch.uint8), [0] * 6 + [1] + [2] * 3
    confusion = confusion_matrix(labels[0], torch.tensor(predicted, dtype=torch.uint8), 3)
    scores = Scores(confusion, LabelSet.numbered(3), classes=[0, 1])
    assert scores.iou[:2].tolist() == [60.0, 0.0]
    assert scores.iou[2].isnan()
    assert (scores.miou, scores.pixel_accuracy) == (30.0, 60.0)
    rows = scores.table().splitlines()
    assert rows[2:] == [
        "| class 0 | 60.0 |",
        "| class 1 | 0.0 |",
        "| **mean (mIoU)** | **30.00** |",
    ]


def test_scores_are_exact_beyond_32_bits():
    many = 2**53 - 1
    scores = Scores(torch.tensor([[many, 1], [0, 0]]), LabelSet.numbered(2))
    assert scores.to_dict()["confusion"] == [[many, 1], [0, 0]]
    assert scores.pixel_accuracy == scores.iou[0] == 100 * many / (many + 1)


def test_table_has_a_row_for_every_class():
    rows = scores_of([0, 1, 2, 2], [0, 1, 2, 1], CAMVID).table().splitlines()
    assert len(rows) == 2 + 11 + 1
    assert rows[2] == "| sky | 100.0 |"
    assert rows[3] == "| building | 50.0 |"
    assert rows[5] == "| road | nan |"
    assert rows[-1] == "| **mean (mIoU)** | **66.67** |"


def test_scores_in_json_have_no_nan(maps):
    scores = scores_of(*maps, 6)
    saved = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert saved["confusion"] == scores.confusion.tolist()
    for name, values in (("IoU", scores.iou), ("accuracy", scores.accuracy)):
        assert list(saved[name].values()) == [*values[:4].tolist(), None, None]
        assert saved[name]["class 5"] is None
    assert saved["mIoU"] == scores.miou
    assert saved["pixel accuracy"] == scores.pixel_accuracy
    assert saved["mean accuracy"] == scores.mean_accuracy
    nothing = scores_of([255], [1], 2).to_dict()
    assert nothing["mIoU"] is nothing["pixel accuracy"] is nothing["mean accuracy"] is None


class Noise:
    """Random images of several sizes with random labels, some of them 255."""

    def __init__(self, length, num_classes=5):
        self.length, self.num_classes = length, num_classes

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        shape = (33 + index % 3, 49 - index % 2)
        image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, self.num_classes, shape, generator=generator).to(torch.uint8)
        labels[: 1 + index % 4] = 255
        return tv_tensors.Image(image), tv_tensors.Mask(labels)


SLIDING = InferenceProtocol("slide", crop=[24, 32], stride=[16, 24], scales=[0.75, 1.25])


@pytest.mark.parametrize(
    ("num_classes", "protocol"),
    [(5, None), (5, InferenceProtocol(flip=True)), (5, SLIDING), (1, None)],
    ids=["whole", "flip", "slide", "one class"],
)
def test_evaluate_sums_the_confusion_matrices_of_the_images(make_model, num_classes, protocol):
    model, samples, seen = make_model(num_classes), Noise(4, num_classes), {}

    def each(index, result, scores):
        seen[index] = result, scores

    scores = evaluate(model, samples, protocol=protocol, each=each)
    expected = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for index in range(4):
        image, labels = samples[index]
        predicted = model.predict(image, protocol).labels
        one = torch.tensor(plain_confusion(labels, predicted, num_classes))
        assert torch.equal(seen[index][0].labels, predicted)
        assert torch.equal(seen[index][1].confusion, one)
        expected += one
    assert list(seen) == [0, 1, 2, 3]
    assert scores.confusion.dtype == torch.int64
    assert torch.equal(scores.confusion, expected)
    assert scores.label_set == model.label_set
    assert (scores.miou == 100) == (num_classes == 1)
    empty = evaluate(model, Noise(0))
    assert empty.confusion.tolist() == [[0] * num_classes] * num_classes
    assert math.isnan(empty.miou)
    if protocol is not None:
        assert not torch.equal(scores.confusion, evaluate(model, samples).confusion)


def test_label_ids_are_saved_in_the_format_of_the_server(tmp_path):
    labels = torch.arange(19, dtype=torch.uint8).repeat(3, 2)
    save_label_ids(labels, CITYSCAPES, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as file:
        assert file.mode == "L"
        found = np.array(file)
    assert found.shape == (3, 38)
    assert found[1, :19].tolist() == list(CITYSCAPES.label_ids)
    label_set = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)), (3, 256))
    with pytest.raises(ValueError, match=r"0..255 for an 8-bit PNG, not \(3, 256\)"):
        save_label_ids(torch.zeros(2, 2, dtype=torch.uint8), label_set, tmp_path / "new" / "b.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
