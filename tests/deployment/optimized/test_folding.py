"""Norms fold where the data flow proves it, and stay where it does not."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import ccnet
from ccnet.backbones.resnet import Stage
from ccnet.deployment.optimized.convolution import FusedConv2d
from ccnet.deployment.optimized.folding import fold_norms
from ccnet.deployment.optimized.fusion import fuse_activations
from ccnet.norm import InPlaceABN


class Network(nn.Module):
    """A convolution and a norm, used as a function says."""

    def __init__(self, use, norm=None, convolution=None):
        super().__init__()
        self.convolution = convolution or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        self.other = nn.Conv2d(3, 4, 3)
        self.use = use
        for name, values in self.norm.state_dict().items():
            if values.is_floating_point():
                values.uniform_(0.5, 1.5) if name == "running_var" else values.normal_()

    def forward(self, x):
        return self.use(self, x)


def twice(network, x):
    return network.norm(network.convolution(x)) + network.norm(network.convolution(2 * x))


def kept(network, x):
    before = network.convolution(x)
    return network.norm(before) + before


def viewed(network, x):
    before = network.convolution(x)
    return network.norm(before) + before.flip(0).sum()


def changed(network, x):
    before = network.convolution(x)
    before += 1
    return network.norm(before)


def two(network, x):
    """One norm after two convolutions."""
    return network.norm(network.convolution(x)) + network.norm(network.other(x))


def scaled_inside(network, x):
    """The norm is given something else than the convolution."""
    return network.norm(2 * network.convolution(x))


def first(network, x):
    return network.convolution(network.norm(x))


def activated(network, x):
    return network.norm(network.convolution(x)).relu_()


def with_residual(network, x):
    return network.norm(network.other(x), network.convolution(x))


def hooked():
    norm = nn.BatchNorm2d(4)
    norm.register_forward_hook(lambda module, arguments, output: output + 1)
    return norm


class Reversed(nn.Conv2d):
    """A convolution that computes something else with its weight."""

    def forward(self, x):
        return self._conv_forward(x, self.weight.flip(0), self.bias)


STAY = {
    "shared by two calls": (twice, {}),
    "read again": (kept, {}),
    "read again as a view": (viewed, {}),
    "changed in place": (changed, {}),
    "after two convolutions": (two, {}),
    "after another operation": (scaled_inside, {}),
    "before the convolution": (first, {"norm": nn.BatchNorm2d(3)}),
    "with a residual": (with_residual, {"norm": InPlaceABN(4)}),
    "statistics of the batch": (activated, {"norm": nn.BatchNorm2d(4, track_running_stats=False)}),
    "another norm": (activated, {"norm": nn.GroupNorm(2, 4)}),
    "with a hook": (activated, {"norm": hooked()}),
    "another convolution": (activated, {"convolution": Reversed(3, 4, 3)}),
}

FOLD = {
    "plain": (activated, {}),
    "without affine": (activated, {"norm": nn.BatchNorm2d(4, affine=False)}),
    "without bias": (activated, {"convolution": nn.Conv2d(3, 4, 3, bias=False)}),
    "reflecting": (
        activated,
        {"convolution": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")},
    ),
    "by groups": (activated, {"convolution": nn.Conv2d(3, 6, 3, groups=3), "norm": InPlaceABN(6)}),
    "in place": (activated, {"norm": InPlaceABN(4)}),
    "in place, no activation": (activated, {"norm": InPlaceABN(4, negative_slope=1.0)}),
}


def check(use, parts, count):
    network = copy.deepcopy(Network(use, **parts)).double().eval()
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x)
        assert fold_norms(network, lambda: network(x)) == count
        torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)
        fuse_activations(network, lambda: network(x))
        torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("use", "parts"), STAY.values(), ids=STAY)
def test_norms_stay(use, parts):
    check(use, parts, 0)


@pytest.mark.parametrize(("use", "parts"), FOLD.values(), ids=FOLD)
def test_norms_fold(use, parts):
    check(use, parts, 1)


CASES = {
    "3x3": (nn.Conv2d(8, 16, 3, padding=1), (9, 7)),
    "strides": (nn.Conv2d(8, 16, 3, 2, 1, bias=False), (9, 7)),
    "by channels, dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), (9, 7)),
    "one point": (nn.Conv2d(8, 16, 1), (1, 1)),
    "one channel": (nn.Conv2d(1, 1, 3, padding=1), (5, 4)),
    "one row": (nn.Conv2d(8, 4, 1), (1, 9)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
@pytest.mark.parametrize(("convolution", "size"), CASES.values(), ids=CASES)
def test_fused_convolutions_take_any_layout(convolution, size, slope, dtype):
    fused = copy.deepcopy(convolution).to(dtype)
    x = torch.randn(2, convolution.in_channels, *size).to(dtype)
    plain = copy.deepcopy(fused).double()(x.double()).detach()
    FusedConv2d.convert(fused, slope)
    term = torch.randn(plain.shape).to(dtype)
    layouts = (torch.channels_last, torch.contiguous_format)
    with torch.no_grad():
        for layout, added, overwrite in [
            (one, values, overwrite)
            for one in layouts
            for values in (None, *(term.contiguous(memory_format=other) for other in layouts))
            for overwrite in (False, True)
        ]:
            total = plain if added is None else plain + added.double()
            expected = nn.functional.leaky_relu(total, slope)
            given = None if added is None else added.clone()
            found = fused(x.contiguous(memory_format=layout), given, overwrite=overwrite)
            tolerance = 1e-5 if dtype == torch.float32 else 3e-2
            torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
            assert overwrite or given is None or torch.equal(given, added)


@pytest.mark.parametrize("slope", [0.0, 0.01])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_residual_blocks_are_fused(block, slope):
    width = 4 * block.expansion
    shortcut = nn.Sequential(nn.Conv2d(6, width, 1, 2, bias=False), nn.BatchNorm2d(width))
    stage = Stage(block(6, 4, 2, shortcut), block(width, 4), block(width, 4)).eval()
    for one in stage:
        one.relu = nn.LeakyReLU(slope) if slope else nn.ReLU()
    for name, values in stage.state_dict().items():
        if values.is_floating_point():
            values.uniform_(0.5, 1.5) if name.endswith("var") else values.normal_(std=0.5)
    x = torch.randn(2, 6, 11, 9)
    with torch.no_grad():
        expected, given = stage(x), x.clone()
        assert fold_norms(stage, lambda: stage(x)) == 3 * (3 if block is Bottleneck else 2) + 1
        fuse_activations(stage, lambda: stage(x))
        assert len([one for one in stage.modules() if isinstance(one, FusedConv2d)]) > 5
        for layout in (torch.channels_last, torch.contiguous_format):
            found = stage(x.contiguous(memory_format=layout))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(x, given)


class Returned(nn.Module):
    """A shortcut that returns its input, or a view of it."""

    def forward(self, x):
        return x[:]


@pytest.mark.parametrize(
    "shortcut", [nn.Identity(), nn.Sequential(), nn.Sequential(nn.Identity()), Returned()], ids=repr
)
def test_shortcuts_that_return_their_input_leave_it_as_it_is(shortcut):
    stage = Stage(BasicBlock(4, 4, 1, shortcut)).eval()
    x = torch.randn(1, 4, 9, 8).contiguous(memory_format=torch.channels_last)
    expected, given = stage(x).detach(), x.clone()
    fold_norms(stage, lambda: stage(x))
    fuse_activations(stage, lambda: stage(x))
    with torch.inference_mode():
        torch.testing.assert_close(stage(x), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(x, given)


def test_hooks_keep_what_they_saw(make_model):
    """Residual blocks write over what nobody else has."""
    optimized = ccnet.optimize_for_inference(make_model(3), torch.float32)
    seen = []

    def keep(module, arguments, output):
        seen.append((output, output.clone()))

    for name in ("stem", "layer1.0", "layer2.0.downsample.0", "layer2.0", "layer2.1"):
        optimized.backbone.get_submodule(name).register_forward_hook(keep)
    x = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        before, after = optimized(x)["out"], optimized(x)["out"]
    assert torch.equal(before, after)
    assert len(seen) == 10
    assert all(torch.equal(output, copied) for output, copied in seen)


TIMM = ["resnet10t", "regnetx_002", "convnext_atto", "densenet121"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in TIMM]


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", *SLOW])
def test_networks_of_timm_compute_the_same(make_model, name):
    pytest.importorskip("timm")
    model = make_model(3, backbone=f"timm:{name}", backbone_options={"output_stride": 32})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model.double()(x.double())["out"]
        exact = ccnet.optimize_for_inference(model, torch.float64)(x)["out"]
        assert (exact - expected).abs().max() / expected.abs().max() < 1e-10
        fused = ccnet.optimize_for_inference(model.float(), torch.float32)(x)["out"]
        assert (fused - expected).abs().max() / expected.abs().max() < 1e-3
