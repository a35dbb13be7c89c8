"""Scores on Cityscapes equal those of its official evaluation of the label ids written here."""

import math
import warnings
from importlib import import_module

import numpy as np
import pytest
from cityscapes_layout import write_cityscapes
from guesser import Guesser

from ccnet.classes import CITYSCAPES
from ccnet.datasets import Cityscapes
from ccnet.evaluation import evaluate, save_label_ids
from ccnet.inference import Segmentation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    official = import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("cityscapes")
    write_cityscapes(root, 5, size=(96, 192), split="val", seed=11)
    return root


class Road(Guesser):
    """Finds road everywhere, so that classes occur in neither labels nor predictions."""

    def predict(self, image, protocol, memory_limit=None):
        return Segmentation(super().predict(image, protocol).labels * 0, CITYSCAPES, image)


def official_scores(root, predictions):
    """The results of the official evaluation functions on a folder of label ids."""
    arguments = official.CArgs()
    arguments.__dict__ = {
        **official.args.__dict__,
        "evalInstLevelScore": False,
        "JSONOutput": False,
        "quiet": True,
        "predictionPath": str(predictions),
        "predictionWalk": None,
    }
    truth = sorted(map(str, (root / "gtFine" / "val").glob("*/*_gtFine_labelIds.png")))
    found = [official.getPrediction(arguments, path) for path in truth]
    return official.evaluateImgLists(found, truth, arguments)


@pytest.mark.parametrize("network", [Guesser, Road])
def test_scores_equal_those_of_the_official_evaluation(cityscapes, tmp_path, network):
    """Every score, in full and as the official evaluation prints it."""
    dataset = Cityscapes(cityscapes, "val")

    def each(index, result, scores):
        save_label_ids(result.labels, CITYSCAPES, tmp_path / f"{dataset.names[index]}.png")

    scores = evaluate(network(dataset), dataset, each=each)
    result = official_scores(cityscapes, tmp_path)
    whole = np.array(result["confMatrix"])
    confusion = whole[np.ix_(CITYSCAPES.label_ids, CITYSCAPES.label_ids)]
    assert scores.confusion.tolist() == confusion.tolist()
    ious = scores.iou.tolist()
    for name, ours in zip(CITYSCAPES.categories, ious, strict=True):
        theirs = result["classScores"][name]
        assert ours / 100 == pytest.approx(theirs, rel=1e-14, nan_ok=True)
        assert f"{ours / 100:.3f}" == f"{theirs:.3f}"
    assert scores.miou / 100 == pytest.approx(result["averageScoreClasses"], rel=1e-14)
    assert f"{scores.miou:.2f}" == f"{100 * result['averageScoreClasses']:.2f}"
    if network is Guesser:
        assert sum(10 < iou < 90 for iou in ious) >= 5, "the classes are too alike"
        assert 0.0 in ious, "no class is only predicted"
        assert whole[: CITYSCAPES.label_ids[0]].sum() > 0, "nothing is ignored"
    else:
        assert any(map(math.isnan, ious))
        assert ious[0] > 0
