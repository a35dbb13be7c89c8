"""Candidates: the weights of a name, their protocol and their published mIoU."""

import pytest

from ccnet.classes import ADE20K, CAMVID, CITYSCAPES, VOC, LabelSet
from ccnet.evaluation.candidates import Candidate, find_candidates
from ccnet.inference import InferenceProtocol
from ccnet.weights import (
    REGISTRY,
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)

SLIDING = Candidate("ccnet_resnet50", CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_769X769_40K)
WHOLE = Candidate("ccnet_resnet50", CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_512X1024_40K)
BUNDLED = Candidate("ccnet_resnet18", CCNet_ResNet18_Weights.CAMVID)
FILE = Candidate("ccnet_resnet50", "mine.pth")
SKY_AND_TREE = LabelSet.from_config({"categories": ["sky", "tree"]})
"""Classes of CamVid and of ADE20K."""


@pytest.mark.parametrize(
    ("name", "network", "label_set", "expected"),
    [
        ("DEFAULT", None, CAMVID, CCNet_ResNet18_Weights.CAMVID),
        ("DEFAULT", None, CITYSCAPES, CCNet_ResNet101_Weights.DEFAULT),
        ("DEFAULT", "ccnet_resnet50", CITYSCAPES, CCNet_ResNet50_Weights.DEFAULT),
        ("DEFAULT", None, ADE20K, CCNet_ResNet101_Weights.OPENMMLAB_ADE20K_512X512_80K),
        ("DEFAULT", None, VOC, CCNet_ResNet101_Weights.OPENMMLAB_VOC12AUG_512X512_40K),
        ("DEFAULT", "ccnet_resnet50", VOC, CCNet_ResNet50_Weights.OPENMMLAB_VOC12AUG_512X512_20K),
        ("DEFAULT", None, SKY_AND_TREE, CCNet_ResNet18_Weights.CAMVID),
        ("CAMVID", None, SKY_AND_TREE, CCNet_ResNet18_Weights.CAMVID),
        ("CCNet_ResNet101_Weights.DEFAULT", None, ADE20K, CCNet_ResNet101_Weights.DEFAULT),
        ("AUTHORS_CITYSCAPES_R1", None, CITYSCAPES, CCNet_ResNet101_Weights.AUTHORS_CITYSCAPES_R1),
        ("CCNet_ResNet50_Weights.DEFAULT", None, CITYSCAPES, CCNet_ResNet50_Weights.DEFAULT),
        ("CCNet_ResNet18_Weights.CAMVID", None, CITYSCAPES, CCNet_ResNet18_Weights.CAMVID),
    ],
)
def test_names_of_members(name, network, label_set, expected):
    (candidate,) = find_candidates(name, label_set, network)
    assert candidate.weights is expected
    assert expected in REGISTRY[candidate.network.removeprefix("ccnet_")]
    assert str(candidate) == str(expected)


def test_other_names_are_files():
    assert find_candidates("mine.pth", CAMVID) == [Candidate("ccnet_resnet18", "mine.pth")]
    assert find_candidates("mine.pth", CITYSCAPES) == [Candidate("ccnet_resnet101", "mine.pth")]
    assert find_candidates("mine.pth", ADE20K) == [Candidate("ccnet_resnet101", "mine.pth")]
    assert find_candidates("mine.pth", SKY_AND_TREE) == [Candidate("ccnet_resnet18", "mine.pth")]
    own = LabelSet.numbered(3)
    assert find_candidates("mine.pth", own) == [Candidate("ccnet_resnet18", "mine.pth")]
    assert find_candidates("mine.pth", CITYSCAPES, "ccnet_resnet50") == [FILE]
    assert FILE.meta == {}


def test_all_weights_with_the_classes():
    found = find_candidates("all", CITYSCAPES)
    members = {*CCNet_ResNet50_Weights, *CCNet_ResNet101_Weights}
    assert {one.weights for one in found} == {one for one in members if "CITYSCAPES" in one.name}
    assert [len(find_candidates("all", labels)) for labels in (CITYSCAPES, ADE20K, VOC)] == [
        *(11, 4, 4)
    ]
    assert all(one.weights in REGISTRY[one.network.removeprefix("ccnet_")] for one in found)
    assert find_candidates("all", CAMVID) == [BUNDLED]
    with pytest.raises(ValueError, match="no weights for these classes: class 0, class 1"):
        find_candidates("all", LabelSet.numbered(2))


def test_published_miou_belongs_to_one_data_set_and_protocol():
    assert WHOLE.protocol == FILE.protocol == InferenceProtocol()
    own = SLIDING.protocol
    assert own == InferenceProtocol("slide", crop=769, stride=(513, 513))
    assert SLIDING.published("Cityscapes val", own) == (78.46, "OpenMMLab")
    same = InferenceProtocol("slide", crop=[769, 769], overlap=1 / 3)
    assert SLIDING.published("Cityscapes val", same) == (78.46, "OpenMMLab")
    assert SLIDING.published("Cityscapes test", own) is None
    for changes in ({"flip": True}, {"mode": "whole"}, {"precision": "bfloat16"}):
        assert SLIDING.published("Cityscapes val", own.replace(**changes)) is None
    assert FILE.published("Cityscapes val", own) is None


def test_other_classes_are_refused_before_any_download(no_network):
    with pytest.raises(ValueError, match=r"has 19 classes \(road, .* has 11 \(sky, building"):
        SLIDING.load(CAMVID)
    with pytest.raises(ValueError, match=r"has 11 classes \(sky, .* has 2 \(class 0, class 1\)"):
        BUNDLED.load(LabelSet.numbered(2))
    assert BUNDLED.load(CAMVID).label_set == CAMVID
