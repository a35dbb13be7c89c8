"""OpenMMLab's networks for ADE20K and Pascal VOC: their checkpoints, and what these record."""

import pytest
import torch
from families import OPENMMLAB, difference, forward, random_input, random_state

import ccnet
from ccnet.classes import ADE20K, VOC
from ccnet.model import CCNet
from ccnet.weights import REGISTRY
from ccnet.weights.conversion import convert
from ccnet.weights.model_card import write_model_card
from ccnet.weights.registry import details_of

DEFINITION = OPENMMLAB.__class__(**{**vars(OPENMMLAB), "align_corners": False})
NETWORKS = {
    (member.meta["config"]["backbone"], member.meta["config"]["num_classes"]): member
    for choice in REGISTRY.values()
    for member in choice
    if member.name.startswith(("OPENMMLAB_ADE20K", "OPENMMLAB_VOC"))
}
"""A registered member for each network."""


def names_there(label_set):
    """The names as OpenMMLab's data sets have them."""
    return ["bed " if name == "bed" else name for name in label_set.categories]


@pytest.mark.parametrize("label_set", [ADE20K, VOC], ids=["ade20k", "voc"])
def test_checkpoint_computes_what_it_computed_at_home(label_set, save, caplog):
    state = random_state(DEFINITION, "resnet18", len(label_set))
    meta = {
        "config": "model = dict(decode_head=dict(align_corners=False, recurrence=2))",
        "CLASSES": names_there(label_set),
        "PALETTE": [list(color) for color in label_set.colors],
    }
    model = ccnet.ccnet_resnet18(weights=save({"meta": meta, "state_dict": state}))
    assert model.label_set == label_set
    assert "label_set" not in caplog.text
    x = random_input((33, 49))
    with torch.no_grad():
        ours = model.double()(x)["out"]
    assert ours.shape == (1, len(label_set), 33, 49)
    assert difference(ours, forward(DEFINITION, state, x)[0]) < 1e-4


@pytest.mark.parametrize(("backbone", "num_classes"), NETWORKS)
def test_registered_networks_have_the_tensors_of_their_checkpoints(backbone, num_classes):
    member = NETWORKS[backbone, num_classes]
    with torch.device("meta"):
        shapes = random_state(OPENMMLAB, backbone, num_classes)
        model = CCNet(**member.meta["config"])
    state = {name: torch.zeros(value.shape) for name, value in shapes.items()}
    found = convert({"meta": {}, "state_dict": state})
    assert {name: value.shape for name, value in found.state_dict.items()} == {
        name: value.shape for name, value in model.state_dict().items()
    }
    for name in ("backbone", "num_classes", "aux_channels", "backbone_options"):
        assert found.config[name] == member.meta["config"][name]


def test_card_tells_the_size_that_the_network_sees():
    for member, size in (
        (NETWORKS["resnet101", 150], "2048 x 512"),
        (REGISTRY["resnet101"].DEFAULT, "2048 x 1024"),
    ):
        card = write_model_card(member.meta["config"], details_of(member))
        assert 'model.predict("street.jpg").overlay()' in card
        assert f"| learnt at | {size} pixels, " in card
        assert f"| trained on | {member.meta['dataset']} |" in card
    scenes = NETWORKS["resnet101", 150]
    unknown = {**scenes.meta["config"], "training_size": None}
    card = write_model_card(unknown, details_of(scenes))
    assert 'model.predict("street.jpg", fit=[2048, 512]).overlay()' in card
