"""Which weights a name means, and which protocol and figure the registry has for them."""

import pytest

from ccnet.candidates import REGISTRY, Candidate, find_candidates
from ccnet.classes import CAMVID, CITYSCAPES, LabelSet
from ccnet.weights import (
    CCNet_ResNet18_Weights,
    CCNet_ResNet50_Weights,
    CCNet_ResNet101_Weights,
)

SLIDING = Candidate("ccnet_resnet50", CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_769X769_40K)
WHOLE = Candidate("ccnet_resnet50", CCNet_ResNet50_Weights.OPENMMLAB_CITYSCAPES_512X1024_40K)
OWN = {
    "mode": "slide",
    "crop": [769, 769],
    "stride": [513, 513],
    "scales": [1.0],
    "flip": False,
}


@pytest.mark.parametrize(
    ("name", "network", "label_set", "expected"),
    [
        ("DEFAULT", None, CAMVID, CCNet_ResNet18_Weights.CAMVID),
        ("DEFAULT", None, CITYSCAPES, CCNet_ResNet101_Weights.DEFAULT),
        ("DEFAULT", "ccnet_resnet50", CITYSCAPES, CCNet_ResNet50_Weights.DEFAULT),
        ("AUTHORS_CITYSCAPES_R1", None, CITYSCAPES, CCNet_ResNet101_Weights.AUTHORS_CITYSCAPES_R1),
        ("CCNet_ResNet50_Weights.DEFAULT", None, CITYSCAPES, CCNet_ResNet50_Weights.DEFAULT),
        ("CCNet_ResNet18_Weights.CAMVID", None, CITYSCAPES, CCNet_ResNet18_Weights.CAMVID),
    ],
)
def test_names_mean_members(name, network, label_set, expected):
    (candidate,) = find_candidates(name, label_set, network)
    assert candidate.weights is expected
    assert expected in REGISTRY[candidate.network]
    assert str(candidate) == str(expected)


def test_other_names_are_files():
    assert find_candidates("mine.pth", CAMVID) == [Candidate("ccnet_resnet18", "mine.pth")]
    assert find_candidates("mine.pth", CITYSCAPES) == [Candidate("ccnet_resnet101", "mine.pth")]
    own = LabelSet.numbered(3)
    assert find_candidates("mine.pth", own) == [Candidate("ccnet_resnet18", "mine.pth")]
    (given,) = find_candidates("mine.pth", CITYSCAPES, "ccnet_resnet50")
    assert (given.network, given.meta) == ("ccnet_resnet50", {})


def test_all_are_those_that_know_the_classes():
    found = find_candidates("all", CITYSCAPES)
    assert {one.weights for one in found} == {*CCNet_ResNet50_Weights, *CCNet_ResNet101_Weights}
    assert len(found) == 11
    assert all(one.weights in REGISTRY[one.network] for one in found)
    assert [one.weights for one in find_candidates("all", CAMVID)] == [
        CCNet_ResNet18_Weights.CAMVID
    ]
    with pytest.raises(ValueError, match="no weights for these classes: class 0, class 1"):
        find_candidates("all", LabelSet.numbered(2))


@pytest.mark.parametrize(
    ("candidate", "changes", "expected"),
    [
        (SLIDING, {}, OWN),
        (SLIDING, {"flip": True}, {**OWN, "flip": True}),
        (SLIDING, {"stride": [769, 769]}, {**OWN, "stride": [769, 769]}),
        (SLIDING, {"mode": "whole"}, {"mode": "whole", "scales": [1.0], "flip": False}),
        (
            SLIDING,
            {"crop": [400, 400]},
            {"mode": "slide", "crop": [400, 400], "scales": [1.0], "flip": False},
        ),
        (Candidate("ccnet_resnet18", "mine.pth"), {"scales": [0.5, 1]}, {"scales": [0.5, 1]}),
    ],
)
def test_protocols_are_the_weights_own_with_changes(candidate, changes, expected):
    assert candidate.protocol(changes) == expected
    assert SLIDING.weights.meta["protocol"] == OWN


def test_impossible_protocols_are_refused():
    with pytest.raises(ValueError, match="crop is an option of mode='slide'"):
        WHOLE.protocol({"crop": [769, 769]})


def test_figures_are_published_for_one_data_set_and_protocol():
    assert SLIDING.published("Cityscapes val", OWN) == (78.46, "OpenMMLab")
    same = {"mode": "slide", "crop": 769, "stride": (513, 513)}
    assert SLIDING.published("Cityscapes val", same) == (78.46, "OpenMMLab")
    assert SLIDING.published("Cityscapes test", OWN) is None
    for changes in ({"flip": True}, {"mode": "whole"}, {"precision": "bfloat16"}):
        protocol = SLIDING.protocol(changes)
        assert SLIDING.published("Cityscapes val", protocol) is None
    assert Candidate("ccnet_resnet50", "mine.pth").published("Cityscapes val", OWN) is None


def test_other_classes_are_refused_before_anything_is_fetched(no_network):
    with pytest.raises(ValueError, match=r"knows 19 classes \(road, .* has 11 \(sky, building"):
        SLIDING.load(CAMVID)
    with pytest.raises(ValueError, match=r"knows 11 classes \(sky, .* has 2 \(class 0, class 1\)"):
        Candidate("ccnet_resnet18", CCNet_ResNet18_Weights.CAMVID).load(LabelSet.numbered(2))
    model = Candidate("ccnet_resnet18", CCNet_ResNet18_Weights.CAMVID).load(CAMVID)
    assert model.label_set == CAMVID
