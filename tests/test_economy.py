"""Economy of predictions: results as ever, less memory, and nobody who looks sees a difference."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torchvision.models.resnet import BasicBlock

from ccnet.attention import CrissCrossAttention2d
from ccnet.backbones.resnet import Stage
from ccnet.economy import choice
from ccnet.heads import RCCAHead
from ccnet.inference.footprint import _Ledger, count_footprint
from ccnet.inference.memory import estimate
from ccnet.model import CCNet
from ccnet.norm import InPlaceABN, convert_inplace_abn, convert_sync_batchnorm

LEAKY = {"negative_slope": 0.01, "backbone_options": {"negative_slope": 0.01}}


@pytest.fixture
def bands(monkeypatch):
    """Has maps of any size added in bands."""
    monkeypatch.setattr("ccnet.economy.blocks._LEAST", 0)


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(256, (3, 33, 50), dtype=torch.uint8, generator=torch.manual_seed(0))


@pytest.fixture(scope="module")
def deep(make_model):
    return make_model(backbone="resnet50", **LEAKY)


@torch.no_grad()
def as_ever(model, pixels):
    """The probabilities by the network itself."""
    inputs = model.transforms()(pixels[None]).to(next(model.parameters()).dtype)
    return model(inputs)["out"][0].softmax(0)


def assert_is_as_exact(model, pixels, dtypes=(torch.float32, torch.bfloat16)):
    """Compares with float64: there all agree; else errors are those of the network itself.

    But for a factor: in bands, processors may choose other kernels.
    """
    model.double()
    expected = as_ever(model, pixels)
    found = model.predict(pixels, return_probabilities=True)
    torch.testing.assert_close(found.probabilities.double(), expected, atol=1e-7, rtol=0)
    assert torch.equal(found.labels, expected.argmax(0).to(torch.uint8))
    for dtype in dtypes:
        model.to(dtype)
        made = (
            as_ever(model, pixels),
            model.predict(pixels, return_probabilities=True).probabilities,
        )
        before, after = ((one.double() - expected).square().mean().sqrt() for one in made)
        assert after < 2.5 * before + 1e-7


NETWORKS = [
    *({"recurrence": recurrence} for recurrence in (0, 1, 2, 3)),
    LEAKY,
    {"backbone_options": {"output_stride": 32, "stem_widths": [8]}},
]


@pytest.mark.parametrize("config", NETWORKS)
def test_results_are_as_ever(make_model, pixels, config):
    assert_is_as_exact(make_model(**config), pixels)
    assert_is_as_exact(make_model(**config).to(memory_format=torch.channels_last), pixels, ())


def test_results_in_bands_are_as_ever(make_model, pixels, bands):
    assert_is_as_exact(make_model(backbone="resnet50"), pixels)


@pytest.mark.parametrize("convert", [convert_inplace_abn, convert_sync_batchnorm])
def test_results_of_other_norms_are_as_ever(make_model, pixels, convert):
    assert_is_as_exact(convert(make_model(**LEAKY)), pixels)


def test_results_in_bands_of_inplace_abn_are_as_ever(deep, pixels, bands):
    assert_is_as_exact(convert_inplace_abn(copy.deepcopy(deep)), pixels, ())


@pytest.mark.parametrize("path", ["bn1", "bn2", "downsample.1"])
def test_norms_that_activate_within_plain_blocks(make_model, pixels, path):
    model = make_model()
    block = model.backbone.layer2[0]
    norm = InPlaceABN(block.get_submodule(path).num_features, negative_slope=0.3).eval()
    block.set_submodule(path, norm)
    assert_is_as_exact(model, pixels, ())


def test_norms_without_statistics_take_those_of_the_picture(make_model, pixels):
    model = make_model()
    norm = model.head.conva[1]
    norm.running_mean = norm.running_var = None
    assert_is_as_exact(model, pixels, ())


@pytest.mark.parametrize("training", [False, True])
def test_the_network_stays_as_it_is(make_model, pixels, training):
    model = make_model().train(training)
    before = [(module, type(module), dict(vars(module))) for module in model.modules()]
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.predict(pixels)
    assert all(type(module) is kind and vars(module) == state for module, kind, state in before)
    assert all(torch.equal(values[name], one) for name, one in model.state_dict().items())


WATCHED = [
    *("", "backbone", "backbone.stem", "backbone.stem.0", "backbone.stem.1", "backbone.stem.2"),
    *("backbone.layer1.1", "backbone.layer1.1.relu", "backbone.layer1.1.conv3"),
    *("backbone.layer1.1.bn3", "backbone.layer1.2", "backbone.layer4.0.downsample"),
    *("backbone.layer4.0.downsample.0", "backbone.layer4.0.downsample.1", "backbone.layer4"),
    *("head", "head.conva", "head.conva.0", "head.cca", "head.cca.value_conv"),
    *("head.bottleneck", "head.bottleneck.0", "head.bottleneck.1"),
]


@pytest.mark.parametrize("path", WATCHED)
def test_who_looks_sees_what_a_network_computes(deep, path):
    """Inputs and outputs of a module, as they are when all is done."""
    pixels = torch.randint(256, (3, 17, 25), dtype=torch.uint8)
    seen = []
    handle = deep.get_submodule(path).register_forward_hook(
        lambda module, given, made: seen.append((module, given, made))
    )
    try:
        found = deep.predict(pixels, return_probabilities=True).probabilities
        expected = as_ever(deep, pixels)
    finally:
        handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    half = len(seen) // 2
    assert half > 0
    for one, other in zip(seen[:half], seen[half:], strict=True):
        assert one[0] is other[0] is deep.get_submodule(path)
        torch.testing.assert_close(one[1:], other[1:], atol=1e-4, rtol=1e-4)
        strides = [
            [x.stride() for x in given if isinstance(x, torch.Tensor)]
            for _, given, _ in (one, other)
        ]
        assert strides[0] == strides[1]


class Sensitivity(nn.Module):
    """Adds the gradient of its stage to what that computes."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x, **options):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            made = self.stage(x)
            (slope,) = torch.autograd.grad(made.square().mean(), x)
        return made.detach() + slope.mean()


def test_gradients_that_a_network_takes_are_as_ever(deep, pixels):
    model = copy.deepcopy(deep)
    model.backbone.layer4 = Sensitivity(model.backbone.layer4)
    assert_is_as_exact(model, pixels, ())


class Rows(nn.Sequential):
    """A bottleneck of someone's own, which needs the maps joined."""

    def forward(self, x):
        return super().forward(F.layer_norm(x, x.shape[1:]))


def join_themselves(head, features):
    return head.classifier(head.bottleneck(torch.cat([features, head.conva(features)], dim=1)))


def test_bottlenecks_take_maps_that_others_joined(make_model, pixels, monkeypatch):
    monkeypatch.setattr(RCCAHead, "forward", join_themselves)
    monkeypatch.setitem(choice._METHODS, (RCCAHead, "forward"), join_themselves)
    assert_is_as_exact(make_model(), pixels, ())


CHANGED = [
    *((kind, "forward") for kind in (BasicBlock, Stage, nn.Sequential, CrissCrossAttention2d)),
    *((kind, "forward") for kind in (nn.BatchNorm2d, nn.Conv2d, RCCAHead)),
    *((RCCAHead, "join"), (nn.Module, "__call__")),
]


@pytest.mark.parametrize(("kind", "name"), CHANGED)
def test_methods_that_were_replaced_in_a_class_are_run(make_model, pixels, monkeypatch, kind, name):
    model, before, calls = make_model(), getattr(kind, name), []

    def changed(module, *given, **options):
        calls.append(type(module))
        return before(module, *given, **options)

    monkeypatch.setattr(kind, name, changed)
    as_ever(model, pixels)
    expected = calls.copy()
    calls.clear()
    model.predict(pixels)
    assert calls == expected


def test_hooks_that_come_during_a_prediction_wait_for_the_next(make_model, pixels):
    model, seen = make_model(), []
    convolution = model.head.bottleneck[0]

    def watch(module, given, out):
        handle.remove()
        convolution.register_forward_hook(lambda *noted: seen.append(noted))

    handle = model.backbone.register_forward_hook(watch)
    model.predict(pixels)
    assert seen == []
    model.predict(pixels)
    ((module, (given,), _),) = seen
    assert module is convolution
    assert given.shape[1] == convolution.in_channels


def test_parts_of_ones_own_get_what_they_expect(make_model, pixels):
    model = make_model()
    model.head.bottleneck = Rows(*model.head.bottleneck)
    model.backbone.layer2[0].relu = nn.GELU()
    assert_is_as_exact(model, pixels, ())


@pytest.mark.parametrize(("backbone", "most"), [("resnet18", 33), ("resnet50", 71)])
def test_predictions_take_less_than_the_network(backbone, most):
    """Numbers per pixel: with maps joined ResNet-50 would take 85, without bands 93."""
    model = CCNet(backbone)
    plain = count_footprint(CCNet, f'{{"backbone": "{backbone}"}}')
    assert model._footprint().numbers < most
    assert model._footprint().numbers < 0.67 * plain.numbers


@pytest.mark.parametrize("options", [{}, {"mode": "slide", "crop": 96}])
def test_the_estimate_is_what_a_prediction_takes(deep, monkeypatch, options):
    monkeypatch.setattr("ccnet.economy.blocks._LEAST", 0)
    size = (128, 160)
    protocol = deep.default_protocol.replace(**options)
    with _Ledger() as ledger:
        deep.predict(torch.zeros(3, *size, dtype=torch.uint8), protocol)
    estimated = estimate(protocol, size, 5, 4, deep._footprint(), False)
    assert 0.75 < estimated / ledger.peak < 1.35


def test_hooks_of_all_modules_see_what_a_network_computes(make_model, pixels):
    model, seen = make_model(), []

    def look(module, given, out):
        if isinstance(out, torch.Tensor):
            seen.append(out)

    handle = register_module_forward_hook(look)
    try:
        model.predict(pixels)
        half = len(seen)
        as_ever(model, pixels)
    finally:
        handle.remove()
    for one, other in zip(seen[:half], seen[half:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_compiled_parts_stay_as_they_are(make_model, pixels):
    model = make_model()
    model.head.conva = torch.compile(model.head.conva, backend="eager")
    before = [type(module) for module in model.modules()]
    model.predict(pixels)
    assert [type(module) for module in model.modules()] == before


def test_estimates_are_those_of_a_network_that_is_watched(make_model):
    model = make_model()
    economical = model._footprint().numbers
    for watch in (model.register_forward_hook, register_module_forward_hook):
        with watch(lambda *_: None):
            assert model._footprint().numbers > 1.2 * economical
