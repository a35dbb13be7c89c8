"""The network: its outputs, its recurrent attention, its names and its configuration."""

import json

import pytest
import torch
from torch.nn import functional as F

from ccnet.model import CCNet


@pytest.fixture
def batch():
    return torch.randn(2, 3, 33, 49)


def test_without_loops_there_is_no_attention(make_model, batch):
    model = make_model(recurrence=0)
    assert not any("cca" in name for name in model.state_dict())
    features = torch.randn(2, 512, 4, 6)
    fused = torch.cat([features, model.head.convb(model.head.conva(features))], dim=1)
    expected = model.head.classifier(model.head.bottleneck(fused))
    with torch.no_grad():
        torch.testing.assert_close(model.head(features), expected)
        assert model(batch)["out"].shape == (2, 5, 33, 49)


@pytest.mark.parametrize("size", [(33, 49), (1, 1), (1, 50), (40, 1), (8, 8), (31, 7)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_have_the_size_of_the_input(make_model, size, align_corners):
    model = make_model(align_corners=align_corners)
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, *size))
    assert outputs.keys() == {"out"}
    assert outputs["out"].shape == (2, 5, *size)
    assert outputs["out"].dtype == torch.float32
    assert outputs["out"].isfinite().all()


def test_training_adds_the_auxiliary_output(make_model, batch):
    outputs = make_model().train()(batch)
    assert outputs.keys() == {"out", "aux"}
    assert outputs["aux"].shape == outputs["out"].shape == (2, 5, 33, 49)
    assert make_model(aux_channels=0).train()(batch).keys() == {"out"}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("recurrence", [0, 2])
def test_the_map_after_the_loops_is_given_on_request(make_model, batch, training, recurrence):
    model = make_model(recurrence=recurrence, dropout=0.0).train(training)
    with torch.no_grad():
        plain, found = model(batch), model(batch, return_rcca=True)
        rcca = found.pop("rcca")
        torch.testing.assert_close(found, plain)
        _, stage4 = model.backbone(batch)
        context = model.head.conva(stage4)
        for _ in range(recurrence):
            context = model.head.cca(context)
        torch.testing.assert_close(rcca, context)
        torch.testing.assert_close(model.head(stage4, return_context=True)[1], rcca)
    assert rcca.shape[:2] == (2, model.head.channels)


def test_the_auxiliary_head_sees_the_third_stage(make_model, batch):
    model = make_model(dropout=0.0).train()
    outputs = model(batch)
    outputs["aux"].sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.layer4.parameters())
    assert model.backbone.layer3[0].conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("align_corners", [True, False])
def test_logits_are_brought_to_pixels_as_asked(make_model, batch, align_corners):
    model = make_model(align_corners=align_corners)
    with torch.no_grad():
        coarse = model.head(model.backbone(batch)[1])
        out = model(batch)["out"]
    expected = F.interpolate(coarse, (33, 49), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(out, expected)
    other = F.interpolate(coarse, (33, 49), mode="bilinear", align_corners=not align_corners)
    assert (out - other).abs().max() > 0.01
    if align_corners:
        torch.testing.assert_close(
            out[..., ::32, ::48], coarse[..., :: coarse.shape[2] - 1, :: coarse.shape[3] - 1]
        )


def test_certain_dropout_leaves_the_classifiers_biases(make_model, batch):
    """Dropout of every channel right before a classifier: its bias alone is left."""
    model = make_model(dropout=1.0).train()
    outputs = model(batch)
    for name, head in (("out", model.head), ("aux", model.aux_head)):
        expected = head.classifier.bias[None, :, None, None].expand_as(outputs[name])
        torch.testing.assert_close(outputs[name], expected)
    out = model.eval()(batch)["out"]
    assert out.std(dim=(2, 3)).min() > 0.01


@pytest.mark.parametrize("negative_slope", [0.0, 0.01])
def test_the_heads_activations_have_the_slope_asked_for(make_model, negative_slope):
    model = make_model(negative_slope=negative_slope)
    for block in (model.head.conva, model.head.convb, model.head.bottleneck, model.aux_head.conv):
        x = torch.randn(2, block[0].in_channels, 4, 5)
        before = block[1](block[0](x))
        torch.testing.assert_close(block(x), F.leaky_relu(before, negative_slope))
        assert (before < 0).any()


def test_names_in_the_state_dict(model):
    names = set(model.state_dict())
    assert {name.split(".")[0] for name in names} == {"backbone", "head", "aux_head"}
    attention = {name for name in names if "cca" in name}
    assert attention == {
        "head.cca.gamma",
        *(
            f"head.cca.{which}_conv.{part}"
            for which in ("query", "key", "value")
            for part in ("weight", "bias")
        ),
    }
    assert model.state_dict()["head.cca.gamma"].shape == (1,)


def test_a_new_network_starts_as_its_own_baseline(batch):
    """gamma starts at 0: attention changes nothing until it is trained, and can be trained."""
    torch.manual_seed(1)
    model = CCNet("resnet18", 4, dropout=0.0).train()
    assert model.head.cca.gamma.item() == 0
    model(batch)["out"].square().mean().backward()
    assert model.head.cca.gamma.grad.abs() > 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_every_network_builds_and_runs(name):
    with torch.device("meta"):
        model = CCNet(name).train()
        outputs = model(torch.empty(2, 3, 65, 97))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "out": (2, 19, 65, 97),
        "aux": (2, 19, 65, 97),
    }
    stage3, stage4 = model.backbone.channels
    assert model.head.classifier.in_channels == stage4 // 4
    assert model.aux_head.classifier.in_channels == stage3 // 2


def test_the_configuration_is_json_and_rebuilds_the_network(make_model, batch):
    arguments = {
        "recurrence": 3,
        "backbone_options": {"stem_widths": (16, 24), "output_stride": 16, "ceil_mode": False},
        "aux_channels": 20,
        "dropout": 0.2,
        "negative_slope": 0.01,
        "align_corners": False,
        "preprocessing": {"mean": (1, 2, 3), "channel_order": "BGR"},
        "label_set": {"categories": ["a", "b"], "colors": [(1, 2, 3), (4, 5, 6)]},
    }
    model = make_model(2, **arguments)
    config = json.loads(json.dumps(model.config))
    assert config == model.config
    twin = CCNet(**config).eval()
    twin.load_state_dict(model.state_dict())
    assert twin.config == model.config
    assert twin.preprocessing == model.preprocessing
    assert twin.label_set == model.label_set
    with torch.no_grad():
        assert torch.equal(twin(batch)["out"], model(batch)["out"])


def test_labels_and_preprocessing_travel_with_the_network(make_model, pixels):
    model = make_model(11, label_set="camvid", preprocessing={"channel_order": "BGR"})
    assert model.predict(pixels).categories[10] == "bicyclist"
    same = make_model(11, label_set="camvid")
    same_input = same.transforms()(pixels)
    assert not torch.equal(model.transforms()(pixels), same_input)


@pytest.mark.parametrize("context", ["bfloat16", "float16", "float64", "autocast"])
def test_other_precisions(make_model, batch, context):
    exact = make_model()(batch)["out"]
    model = make_model()
    if context == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            out = model(batch)["out"]
    else:
        dtype = getattr(torch, context)
        out = model.to(dtype)(batch.to(dtype))["out"]
    assert out.dtype == (torch.float64 if context == "float64" else torch.float32)
    error = (out - exact).abs().mean() / exact.std()
    assert error < (1e-5 if context == "float64" else 0.05)
    assert context == "float64" or error > 0


def test_gradients_flow_in_autocast(make_model, batch):
    model = make_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(batch)
    (outputs["out"].square().mean() + outputs["aux"].square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.head.cca.gamma.grad.abs() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet34"}, "'resnet34'"),
        ({"num_classes": 0}, "1..255, not 0"),
        ({"num_classes": 256}, "1..255, not 256"),
        ({"recurrence": -1}, "recurrence must be an integer in 0..100, not -1"),
        ({"recurrence": 1.5}, "recurrence .*1.5"),
        ({"backbone_options": {"output_stride": 12}}, "not 12"),
        ({"aux_channels": -1}, "aux_channels .*-1"),
        ({"dropout": 1.5}, "1.5"),
        ({"preprocessing": {"size": 5}}, "size"),
        ({"label_set": "citycapes"}, "'citycapes'"),
        ({"label_set": "cityscapes", "num_classes": 5}, "num_classes is 5, .* has 19 classes"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        CCNet(**{"backbone": "resnet18", **arguments})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(3, 33, 49), r"\(N, 3, H, W\).*\(3, 33, 49\)"),
        (torch.randn(1, 1, 33, 49), r"\(1, 1, 33, 49\)"),
        (torch.zeros(1, 3, 33, 49, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_input_that_is_no_normalised_batch_is_refused(model, x, message):
    with pytest.raises(ValueError, match=message):
        model(x)


@pytest.mark.parametrize("protocol", ["slide", {"mode": "slide"}])
def test_protocol_of_another_type_is_refused(model, pixels, protocol):
    with pytest.raises(TypeError, match=r'InferenceProtocol, not .*as in mode="slide"'):
        model.predict(pixels, protocol)
