"""An optimised network computes what the network does, for inference alone."""

import copy
import logging
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torchvision.ops import FrozenBatchNorm2d

import ccnet
from ccnet import precision
from ccnet.backbones import BACKBONES, OUTPUT_STRIDES
from ccnet.deployment.optimized.convolution import FusedConv2d
from ccnet.inference.logits import leave_resizing
from ccnet.norm import convert_inplace_abn, convert_sync_batchnorm

SLOPES = {"negative_slope": 0.01, "backbone_options": {"negative_slope": 0.01}}


def negated(model):
    """Makes every third norm weight negative, as pretrained networks have some."""
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.weight.data[::3] *= -1
    return model


def difference(model, optimized, *, side=25):
    """The largest difference of any output, relative to the largest value."""
    x = torch.randn(2, model.preprocessing.channels, side, side + 4)
    x = x.to(next(model.parameters()).dtype)
    with torch.no_grad():
        expected, found = (one(x, return_rcca=True) for one in (model, optimized))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
    return max(
        float((found[name] - values).abs().max() / values.abs().max())
        for name, values in expected.items()
    )


def norms_of(model):
    return [one for one in model.modules() if isinstance(one, _NormBase | FrozenBatchNorm2d)]


NETWORKS = {
    "no attention, stride 16": {"recurrence": 0, "backbone_options": {"output_stride": 16}},
    "three loops": {"recurrence": 3},
    "deep stem": {"backbone_options": {"stem_widths": [8, 12]}, "in_channels": 4},
    **{
        f"{backbone}, stride {stride}": pytest.param(
            {"backbone": backbone, "backbone_options": {"output_stride": stride}},
            marks=pytest.mark.slow,
        )
        for backbone in BACKBONES
        for stride in OUTPUT_STRIDES
    },
}


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_all_norms_fold_exactly(make_model, config):
    model = negated(make_model(3, **config)).double()
    before = copy.deepcopy(model.state_dict())
    optimized = ccnet.optimize_for_inference(model, torch.float64)
    assert difference(model, optimized) < 1e-10
    assert not norms_of(optimized)
    assert optimized.aux_head is None
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    weights = [one for one in optimized.head.bottleneck.parameters() if one.dim() == 4]
    channels = optimized.head.channels
    assert [one.shape[1] for one in weights] == [4 * channels, channels]
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def frozen(model):
    """Replaces all norms by torchvision's frozen ones."""
    for path, norm in list(model.named_modules()):
        if isinstance(norm, _NormBase):
            replaced = FrozenBatchNorm2d(norm.num_features, norm.eps).double()
            replaced.load_state_dict(norm.state_dict())
            model.set_submodule(path, replaced)
    return model


CONVERSIONS = {
    "in place": convert_inplace_abn,
    "synchronised": convert_sync_batchnorm,
    "none": lambda model: model,
    "in place and synchronised": lambda model: convert_sync_batchnorm(convert_inplace_abn(model)),
    "torch's synchronised": nn.SyncBatchNorm.convert_sync_batchnorm,
    "frozen": frozen,
}


@pytest.fixture(scope="module")
def leaky(make_model):
    return negated(make_model(3, **SLOPES)).double()


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_norms_of_all_kinds_fold(leaky, convert):
    model = convert(copy.deepcopy(leaky)).eval()
    optimized = ccnet.optimize_for_inference(model, torch.float64)
    assert difference(model, optimized) < 1e-10
    assert not norms_of(optimized)


@pytest.mark.parametrize(
    "config", [SLOPES, pytest.param({"backbone": "resnet50"}, marks=pytest.mark.slow)], ids=str
)
def test_fused_convolutions_compute_the_same(make_model, config):
    model = negated(make_model(3, **config))
    optimized = ccnet.optimize_for_inference(model, torch.float32)
    assert sum(isinstance(one, FusedConv2d) for one in optimized.modules()) >= 20
    assert isinstance(optimized.backbone.stem[0], FusedConv2d), "its activation is in place"
    for side in (25, 4):  # of which the last maps are a single point
        assert difference(model, optimized, side=side) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_have_the_dtype_and_outputs_that_of_the_network(make_model, dtype):
    model = make_model(3)
    optimized = ccnet.optimize_for_inference(model, dtype)
    assert {parameter.dtype for parameter in optimized.parameters()} == {dtype}
    assert optimized.dtype == dtype
    assert difference(optimized, ccnet.optimize_for_inference(optimized, dtype)) == 0
    assert difference(model, optimized) < (0.1 if dtype == torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("is_fast", [True, False])
def test_fastest_dtype_is_chosen_and_said(model, monkeypatch, caplog, is_fast):
    monkeypatch.setattr(precision, "_slowdown", lambda *arguments: 0.5 if is_fast else 2.0)
    with caplog.at_level(logging.INFO, "ccnet"):
        optimized = ccnet.optimize_for_inference(model)
    assert optimized.dtype == (torch.bfloat16 if is_fast else torch.float32)
    (said,) = caplog.messages
    reason = "faster than in float32" if is_fast else "bfloat16 takes 2.0 times as long as float32"
    assert str(optimized.dtype).removeprefix("torch.") in said
    assert reason in said


@pytest.fixture(scope="module")
def optimized(model):
    return ccnet.optimize_for_inference(model, torch.float32)


def test_predicts_with_all_options(model, optimized, pixels):
    options = {"scales": (0.5, 1.0), "flip": True, "mode": "slide", "crop": 24}
    for chosen in ({}, options):
        expected = model.predict(pixels, **chosen)
        found = optimized.predict(pixels, return_probabilities=True, **chosen)
        assert (found.labels == expected.labels).float().mean() > 0.999
        assert found.categories == expected.categories
        assert found.probabilities.dtype == torch.float32


def test_half_precision_needs_no_autocast(model, pixels):
    half = ccnet.optimize_for_inference(model, torch.bfloat16)
    plain, cast = (half.predict(pixels, precision=name) for name in ("float32", "bfloat16"))
    assert torch.equal(plain.labels, cast.labels)


COPIES = {
    "copied": copy.deepcopy,
    "pickled": lambda network: pickle.loads(pickle.dumps(network)),
    "optimised again": lambda network: ccnet.optimize_for_inference(network, torch.float32),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_compute_the_same(model, optimized, copied):
    assert difference(optimized, copied(optimized)) == 0
    assert difference(model, copied(optimized)) < 1e-4


def test_threads_share_a_network(optimized, pixels):
    labels = []
    work = [
        threading.Thread(target=lambda: labels.append(optimized.predict(pixels).labels))
        for _ in range(3)
    ]
    for one in work:
        one.start()
    for one in work:
        one.join()
    assert len(labels) == 3
    assert all(torch.equal(one, labels[0]) for one in labels)


def test_given_in_training_mode_or_within_contexts(make_model):
    model = make_model(3, aux_channels=8)
    reference = copy.deepcopy(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        optimized = ccnet.optimize_for_inference(model.train(), torch.float32)
    assert model.training
    assert not optimized.training
    assert difference(reference, optimized) < 1e-4
    before, after = reference.state_dict(), model.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items())


def test_gradients_reach_the_input(model, optimized):
    """And transforms of functions work, which oneDNN does not know."""
    x = torch.randn(2, 3, 33, 41, requires_grad=True)
    gradients = [torch.autograd.grad(one(x)["out"].sum(), x)[0] for one in (model, optimized)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * float(gradients[0].abs().max()))
    with torch.no_grad():
        mapped = torch.vmap(lambda one: optimized(one[None])["out"][0])(x)
        torch.testing.assert_close(mapped, model(x)["out"], rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Graph break:UserWarning")  # before PyTorch 2.7
def test_compiles(model, optimized):
    x = torch.randn(1, 3, 25, 33)
    with torch.no_grad():
        expected = model(x)["out"]
        for network in (model, optimized):
            found = torch.compile(network, backend="eager")(x)["out"]
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_exports_in_plain_operations(model, optimized):
    x = torch.randn(2, 3, 33, 41)
    program = torch.export.export(optimized, (x,), strict=False)
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(
            program.module()(x)["out"], model(x)["out"], rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("device", ["meta"])
def test_operations_are_counted_on_other_devices(optimized, device):
    elsewhere = copy.deepcopy(optimized).to(device)
    assert elsewhere(torch.empty(1, 3, 33, 41, device=device))["out"].shape == (1, 5, 33, 41)
    half = copy.deepcopy(elsewhere).to(torch.bfloat16)
    assert half(torch.empty(1, 3, 33, 41, device=device))["out"].dtype == torch.float32


NO_WEIGHTS = "no weights to save: its norms are part of its convolutions"


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda network, path: network.train(), "cannot be trained"),
        (lambda network, path: network.to_weights(), NO_WEIGHTS),
        (lambda network, path: network.save_pretrained(path), NO_WEIGHTS),
        (lambda network, path: network.push_to_hub("owner/name"), NO_WEIGHTS),
    ],
)
def test_is_for_inference_alone(optimized, tmp_path, use, reason):
    with pytest.raises(ValueError, match=reason):
        use(optimized, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


class Derived(ccnet.CCNet):
    """A network that may compute something else."""


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda model: nn.Linear(2, 2), TypeError, "must be a CCNet, not Linear$"),
        (lambda model: "weights.pt", TypeError, "must be a CCNet, not str$"),
        (nn.DataParallel, TypeError, r"not DataParallel: give its \.module"),
        (lambda model: Derived("resnet18"), TypeError, "a CCNet itself, not Derived"),
        (lambda model: copy.deepcopy(model).to("meta"), ValueError, "no values .* load weights"),
    ],
)
def test_other_networks_are_refused(model, make, error, reason):
    with pytest.raises(error, match=reason):
        ccnet.optimize_for_inference(make(model))


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8, torch.float8_e5m2, 16, [torch.float32]])
def test_other_dtypes_are_refused(model, dtype):
    with pytest.raises(ValueError, match=r"dtype must be None or one of torch\.float32, "):
        ccnet.optimize_for_inference(model, dtype)


def test_predictions_of_optimised_networks_resize_their_logits_in_bands(make_model):
    optimized = ccnet.optimize_for_inference(make_model(3), torch.float32)
    replica = copy.copy(optimized)
    assert leave_resizing(replica, optimized) is not None
    assert not replica.resizes_logits
    assert optimized.resizes_logits
    x = torch.randn(1, 3, 64, 80)
    assert replica(x)["out"].shape[2:] == (9, 11)
    assert optimized(x)["out"].shape[2:] == (64, 80)
