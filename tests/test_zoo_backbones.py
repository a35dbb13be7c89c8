"""Weights of the backbone alone: those of ImageNet that fit its stem."""

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from ccnet import zoo
from ccnet.backbones import Backbone
from ccnet.weights import BackboneWeights, ModelWeights
from ccnet.zoo import ccnet_resnet18, ccnet_resnet50, ccnet_resnet101


@pytest.mark.parametrize("choice", ["DEFAULT", "IMAGENET1K_V1", ResNet18_Weights.IMAGENET1K_V1])
def test_plain_stem_takes_weights_of_torchvision(choice, monkeypatch):
    theirs = resnet18().state_dict()
    asked = []

    def give(weights, progress):
        asked.append(weights)
        return theirs

    monkeypatch.setattr(zoo, "load_imagenet", give)
    model = ccnet_resnet18(weights_backbone=choice)
    assert asked == [ResNet18_Weights.IMAGENET1K_V1]
    assert torch.equal(model.backbone.stem[0].weight, theirs["conv1.weight"])
    assert torch.equal(model.backbone.layer4[1].bn2.weight, theirs["layer4.1.bn2.weight"])


@pytest.mark.parametrize("choice", ["DEFAULT", BackboneWeights.RESNET101S_GLUON_IN1K])
def test_deep_stem_takes_weights_of_timm(choice, monkeypatch):
    with torch.device("meta"):
        ours = Backbone("resnet101").state_dict()
    names = {"stem.0": "conv1.0", "stem.1": "conv1.1", "stem.3": "conv1.3"}
    names |= {"stem.4": "conv1.4", "stem.6": "conv1.6", "stem.7": "bn1"}
    theirs = {"fc.weight": torch.ones(1)}
    for name, value in ours.items():
        layer, _, kind = name.rpartition(".")
        theirs[f"{names.get(layer, layer)}.{kind}"] = torch.full_like(value, 0.5, device="cpu")
    asked = []

    def load(member, progress):
        asked.append(member)
        return ModelWeights(theirs, {})

    monkeypatch.setattr(zoo, "load_registered", load)
    model = ccnet_resnet101(weights_backbone=choice, aux_channels=8)
    assert asked == [BackboneWeights.RESNET101S_GLUON_IN1K]
    for value in model.backbone.parameters():
        assert (value == 0.5).all()
    assert model.head.classifier.weight.std() > 0


@pytest.mark.parametrize("name", ["mine", "RESNET101S_GLUON_IN1K", ResNet18_Weights.DEFAULT])
def test_backbone_weights_of_another_network_are_refused(name):
    with pytest.raises(ValueError, match=r"unknown ImageNet weights .* for resnet50"):
        ccnet_resnet50(weights_backbone=name, aux_channels=0)


def test_backbone_of_a_network_takes_the_options_of_the_one_it_is_for(tmp_path, caplog):
    whole = ccnet_resnet18(num_classes=3, aux_channels=8)
    torch.save(whole.state_dict(), tmp_path / "mine.pth")
    model = ccnet_resnet18(weights_backbone=tmp_path / "mine.pth")
    assert torch.equal(model.backbone.stem[0].weight, whole.backbone.stem[0].weight)
    assert "assumed" not in caplog.text


@pytest.mark.parametrize("saved", ["whole", "state dict"])
def test_backbone_weights_are_adapted_to_other_channels(saved, tmp_path, monkeypatch):
    whole = ccnet_resnet18(num_classes=3, aux_channels=8, preprocessing={"std": [50, 60, 70]})
    if saved == "whole":
        whole.save_pretrained(tmp_path / "mine.pth")
    else:
        torch.save(whole.state_dict(), tmp_path / "mine.pth")
    model = ccnet_resnet18(
        weights_backbone=tmp_path / "mine.pth",
        in_channels=4,
        preprocessing={"std": [50, 60, 70, 50]},
    )
    kernels = whole.backbone.stem[0].weight[:, [0, 1, 2, 0]] * 0.75
    torch.testing.assert_close(model.backbone.stem[0].weight, kernels)
    theirs = resnet18().state_dict()
    monkeypatch.setattr(zoo, "load_imagenet", lambda weights, progress: theirs)
    grey = ccnet_resnet18(weights_backbone="DEFAULT", in_channels=1)
    kernels = theirs["conv1.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.backbone.stem[0].weight, kernels)
