"""Models and their weights: built from one value, given back as one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ccnet.model import CCNet
from ccnet.norm import InPlaceABN, convert_inplace_abn, restore_batchnorm
from ccnet.zoo import ccnet_resnet18


@pytest.fixture
def batch():
    return torch.randn(2, 3, 33, 49)


def test_models_of_one_value_share_nothing(model, batch):
    weights = model.to_weights()
    one, two = CCNet.from_weights(weights), CCNet.from_weights(weights)
    expected = model(batch)["out"]
    with torch.no_grad():
        for tensor in one.state_dict().values():
            tensor.zero_()
    for other in (two, model, CCNet.from_weights(weights)):
        assert torch.equal(other(batch)["out"], expected)


def test_fused_norms_are_saved_as_plain_ones(make_model, batch, tmp_path):
    """The weights of an in-place norm mean something else than those of batch norm."""
    slope = {"negative_slope": 0.01}
    model = make_model(backbone_options=slope, **slope)
    nn.init.uniform_(model.backbone.layer3[0].bn1.weight, -1.0, 1.0)
    expected = model(batch)["out"]
    convert_inplace_abn(model)
    model.save_pretrained(tmp_path)
    saved = CCNet.from_pretrained(tmp_path)
    torch.testing.assert_close(saved(batch)["out"], expected, rtol=0, atol=1e-4)
    assert any(isinstance(module, InPlaceABN) for module in model.modules())


@pytest.mark.parametrize("restore", [False, True])
def test_activations_that_the_configuration_does_not_state_are_not_saved(
    make_model, tmp_path, restore
):
    model = convert_inplace_abn(make_model(), negative_slope=0.01)
    if restore:
        restore_batchnorm(model)
    with pytest.raises(ValueError, match=r"negative slope 0\.01, the configuration says 0: build"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, True),
        ({"aux_channels": 8, "dropout": 0.3}, True),
        ({"recurrence": 1}, False),
        ({"preprocessing": {"channel_order": "BGR"}}, False),
        ({"backbone_options": {"output_stride": 16}}, False),
        ({"categories": ["a", "b"]}, False),
    ],
)
def test_metrics_stay_with_the_function_that_they_describe(make_model, changes, keeps):
    details = {"weights": "X", "license": "MIT", "metrics": {"CamVid val": {"mIoU": 50.0}}}
    weights = replace(make_model().to_weights(), details=details)
    found = CCNet.from_weights(weights, **changes).card_details
    assert found == (details if keeps else {"weights": "derived from X", "license": "MIT"})


def test_unknown_arguments_are_not_blamed_on_the_weights(model):
    with pytest.raises(TypeError, match="droput"):
        CCNet.from_weights(model.to_weights(), droput=0.1)
    config = {**model.config, "droput": 0.1}
    with pytest.raises(ValueError, match=r"configuration of weights in memory .*droput"):
        CCNet.from_weights(replace(model.to_weights(), config=config))


@pytest.mark.parametrize("options", [[1], "x", 5])
def test_backbone_options_are_a_mapping(model, options):
    weights = model.to_weights()
    wrong = replace(weights, config={**model.config, "backbone_options": options})
    for value, changes in ((weights, {"backbone_options": options}), (wrong, {})):
        with pytest.raises(ValueError, match=r"backbone_options must be .*a mapping"):
            CCNet.from_weights(value, **changes)


@pytest.mark.parametrize("metrics", [None, "abc", {"a": 5}])
def test_unusual_details_do_not_keep_a_model_from_being_saved(model, tmp_path, metrics):
    weights = replace(model.to_weights(), details={"metrics": metrics, "license": "MIT"})
    CCNet.from_weights(weights).save_pretrained(tmp_path)
    assert "license: mit" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"label_set": None},
        {"aux_channels": None},
        {"label_set": {"categories": ["a", "b"]}},
        {"categories": ["a", "b"]},
        {"num_classes": 3, "recurrence": 0},
    ],
)
def test_folders_are_changed_alike_by_every_road(model, tmp_path, changes):
    model.save_pretrained(tmp_path)
    one = CCNet.from_pretrained(tmp_path, **changes)
    other = ccnet_resnet18(weights=tmp_path, **changes)
    assert one.config == other.config


def test_options_of_an_upload_need_one(model, tmp_path):
    with pytest.raises(TypeError, match="without one: private"):
        model.save_pretrained(tmp_path, private=True)
    assert not list(tmp_path.iterdir())
