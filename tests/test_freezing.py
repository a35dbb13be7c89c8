"""Frozen backbones: no gradient, no new statistics, no mode but evaluation; the rest trains."""

import copy

import pytest
import torch
from small_runs import same, small_model
from torch import nn

from ccnet import CCNet
from ccnet.norm import convert_inplace_abn, convert_sync_batchnorm

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


@pytest.fixture(scope="module")
def initial():
    torch.manual_seed(0)
    return CCNet("resnet18", 3, aux_channels=8)


@pytest.fixture
def model(initial):
    return copy.deepcopy(initial)


def step(model):
    """Trains one step, and gives back the names of the tensors that it changes."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    outputs = model(torch.randn(2, 3, 33, 49))
    sum((value * value).sum() for value in outputs.values()).backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not same(value, before[name])}


@pytest.mark.parametrize(
    ("stages", "frozen", "checkpointing"),
    [(0, 0, False), (1, 1, False), (3, 3, True), (5, 5, False), ("all", 5, True)],
)
def test_first_stages_stay_as_they_are_to_the_bit(model, stages, frozen, checkpointing):
    model.backbone.gradient_checkpointing = checkpointing
    assert model.train().freeze_backbone(stages) is model
    model.eval()
    model.train()
    changed = step(model)
    for number, stage in enumerate(STAGES):
        names = [name for name in model.state_dict() if name.startswith(f"backbone.{stage}.")]
        assert names
        assert changed.isdisjoint(names) if number < frozen else changed.issuperset(names), stage
        part = model.backbone.get_submodule(stage)
        assert {module.training for module in part.modules()} == {number >= frozen}
        gradients = {parameter.grad is None for parameter in part.parameters()}
        assert gradients == {number < frozen}
    assert {"head.conva.1.running_mean", "aux_head.conv.0.weight"} <= changed
    assert model.head.training


def test_frozen_norms_use_their_running_statistics(model):
    model.freeze_backbone(1).train()
    x = torch.randn(2, 3, 33, 49)
    with torch.no_grad():
        stem = copy.deepcopy(model.backbone.stem).eval()
        assert same(model.backbone.stem(x), stem(x))


def test_another_number_unfreezes(model):
    model.train().freeze_backbone("all").freeze_backbone(2)
    assert not any(name.startswith(("backbone.stem", "backbone.layer1")) for name in step(model))
    model.freeze_backbone(0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_what_is_frozen_stays_so_in_copies_and_conversions(model):
    model.freeze_backbone(2)
    copied = convert_sync_batchnorm(copy.deepcopy(model)).train()
    assert not copied.backbone.layer1.training
    assert copied.backbone.layer2.training
    assert not any(name.startswith(("backbone.stem", "backbone.layer1")) for name in step(copied))


@pytest.mark.parametrize("stages", [-1, 6, 1.0, True, "layer1", None])
def test_other_numbers_are_refused(model, stages):
    message = (
        r"stages must be 'all' or a number in 0\.\.5, not .*: the backbone has stem; layer1; "
        "layer2; layer3; layer4$"
    )
    with pytest.raises(ValueError, match=message):
        model.freeze_backbone(stages)
    assert model.frozen_stages == 0


class Hub(nn.Module):
    """A backbone of single layers and stages, inside of another module, with a parameter."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential()
        layers = {"conv": nn.Conv2d(3, 4, 1), "norm": nn.BatchNorm2d(4), "act": nn.ReLU()}
        for name, layer in {**layers, "stage": nn.Sequential(nn.Conv2d(4, 4, 1))}.items():
            self.network.add_module(name, layer)
        self.network.register_parameter("position", nn.Parameter(torch.ones(4)))


def test_single_layers_belong_to_the_stage_before_them(model):
    model.backbone = Hub()
    with pytest.raises(ValueError, match=r"0\.\.2, not 3: the backbone has conv, norm, act; stage"):
        model.freeze_backbone(3)
    model.train().freeze_backbone(1)
    learning = {name for name, one in model.backbone.named_parameters() if one.requires_grad}
    assert learning == {"network.stage.0.weight", "network.stage.0.bias"}
    assert not model.backbone.network.norm.training


def test_parts_that_are_not_frozen_can_be_converted_alone():
    model = small_model(negative_slope=0.01).freeze_backbone(2)
    before = copy.deepcopy(model.backbone.stages[:2].state_dict())
    for part in model.unfrozen_parts():
        convert_inplace_abn(part)
    kinds = [type(stage[1]).__name__ for stage in model.backbone.stages]
    assert kinds == ["BatchNorm2d", "BatchNorm2d", "InPlaceABN"]
    assert same(model.backbone.stages[:2].state_dict(), before)
    assert small_model().unfrozen_parts()[0].head
