"""Scores on ADE20K and Pascal VOC equal plain statements of their official evaluations."""

import math

import numpy as np
import pytest
from guesser import Guesser
from PIL import Image
from scene_layouts import write_ade20k, write_voc

from ccnet.datasets import ADE20K, PascalVOC
from ccnet.evaluation import evaluate, save_label_ids


def read(path):
    with Image.open(path) as file:
        return np.array(file).astype(int).ravel().tolist()


def areas(pairs, ids):
    """Of each class: the pixels that are it and found, that are it, and that are found."""
    both, true, found = (dict.fromkeys(ids, 0) for _ in range(3))
    for label, guess in pairs:
        true[label] += 1
        found[guess] += 1
        both[label] += label == guess
    return [[area[one] for one in ids] for area in (both, true, found)]


def openmmlab_scores(pairs):
    """Pixel accuracy, mIoU and mean accuracy; classes without pixels do not count.

    The label 0 means no class, and the others are numbered from 0.
    """
    labeled = [(label - 1, guess - 1) for label, guess in pairs if label not in (0, 255)]
    both, true, found = map(np.array, areas(labeled, range(150)))
    with np.errstate(invalid="ignore"):
        ious, accuracies = both / (true + found - both), both / true
    return [100 * x for x in (both.sum() / true.sum(), np.nanmean(ious), np.nanmean(accuracies))]


def voc_scores(pairs):
    """IoU of each class, of which the background is one, and their mean; 255 does not count."""
    both, true, found = areas([pair for pair in pairs if pair[0] != 255], range(21))
    ious = [100 * b / (t + f - b) for b, t, f in zip(both, true, found, strict=True)]
    return ious, sum(ious) / 21


def guessed(dataset, folder):
    """The scores of guesses, and pairs of label and guess, as files hold them."""

    def each(index, result, _):
        save_label_ids(result.labels, dataset.label_set, folder / f"{dataset.names[index]}.png")

    scores = evaluate(Guesser(dataset), dataset, each=each)
    pairs = []
    for name, (_, labels) in zip(dataset.names, dataset.pairs, strict=True):
        pairs += zip(read(labels), read(folder / f"{name}.png"), strict=True)
    return scores, pairs


def test_scores_on_ade20k(tmp_path):
    write_ade20k(tmp_path, 4)
    for path in (tmp_path / "annotations" / "validation").iterdir():
        with Image.open(path) as file:  # the classes 100 to 120 are in no label map
            file.point([value if not 100 <= value <= 120 else 1 for value in range(256)]).save(path)
    scores, pairs = guessed(ADE20K(tmp_path, "val"), tmp_path / "guesses")
    assert {label for label, _ in pairs} == {*range(100), *range(121, 151)}
    assert {guess for _, guess in pairs} == set(range(1, 151)), "the guesses are too few"
    expected = openmmlab_scores(pairs)
    found = [scores.pixel_accuracy, scores.miou, scores.mean_accuracy]
    assert found == pytest.approx(expected, rel=1e-12)
    assert 10 < scores.miou < scores.pixel_accuracy < 90
    assert sum(map(math.isnan, scores.accuracy.tolist())) == 21
    assert scores.iou[99:120].tolist() == [0.0] * 21  # only predicted


def test_scores_on_voc(tmp_path):
    write_voc(tmp_path, 3)
    scores, pairs = guessed(PascalVOC(tmp_path, "val"), tmp_path / "guesses")
    assert {label for label, _ in pairs} == {*range(21), 255}
    ious, mean = voc_scores(pairs)
    assert scores.iou.tolist() == pytest.approx(ious, rel=1e-12)
    assert scores.miou == pytest.approx(mean, rel=1e-12)
    assert 10 < scores.miou < 90
