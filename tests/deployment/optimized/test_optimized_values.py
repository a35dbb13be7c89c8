"""Values that are not finite, dtypes and derivatives of optimised networks."""

import copy

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import ccnet


def changed(network, name, value):
    model = copy.deepcopy(network)
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value
    return model


@pytest.mark.parametrize(
    ("name", "value", "dtype", "reason"),
    [
        ("head.conva.0.weight", torch.nan, "float32", r"head\.conva\.0\.weight .*in float32: give"),
        (
            "backbone.stem.1.running_mean",
            torch.inf,
            "bfloat16",
            r"stem\.1\.running_mean has values",
        ),
        ("head.classifier.weight", -3.4e38, "bfloat16", r"head\.classifier\.weight .*in bfloat16"),
        ("head.classifier.bias", 1e5, "float16", r"head\.classifier\.bias .*in float16: give"),
    ],
)
def test_weights_must_be_finite(small, name, value, dtype, reason):
    with pytest.raises(ValueError, match=reason):
        ccnet.optimize_for_inference(changed(small, name, value), getattr(torch, dtype))


def test_values_that_do_not_count_may_be_infinite(make_model):
    model = make_model(3, aux_channels=8)
    ccnet.optimize_for_inference(changed(model, "aux_head.conv.0.weight", torch.nan), torch.float32)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_batches_that_are_not_finite_give_nan(model, value):
    optimized = ccnet.optimize_for_inference(model, torch.float32)
    x = torch.randn(2, 3, 25, 33)
    x[0, 1, 4, 5] = value
    with torch.no_grad():
        expected, found = model(x)["out"], optimized(x)["out"]
        assert expected[0].isnan().any()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True)
        assert optimized(torch.randn(2, 3, 25, 33))["out"].isfinite().all()


def test_maps_that_overflow_float16_give_nan(model):
    large = copy.deepcopy(model)
    with torch.no_grad():
        large.backbone.layer1[0].bn1.weight.mul_(3e4)
        half = ccnet.optimize_for_inference(large, torch.float16)
        assert not half(torch.randn(1, 3, 25, 33))["out"].isfinite().any()


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_folded_in_that_asked_for(model, given):
    half = copy.deepcopy(model).to(given)
    x = torch.randn(1, 3, 25, 33).to(given)
    optimized = ccnet.optimize_for_inference(half, torch.float32)
    with torch.no_grad():
        expected, found = half.float()(x.float())["out"], optimized(x)["out"]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_what_cannot_be_computed_is_one_line(small):
    model = copy.deepcopy(small)

    def fail(*arguments):
        raise RuntimeError('"convolution" not implemented\nfor this')

    model.head.conva.register_forward_pre_hook(fail)
    for dtype, hint in (
        (torch.float32, ""),
        (torch.float64, ": give another dtype, such as float32"),
    ):
        with pytest.raises(ValueError, match="the network cannot compute in ") as caught:
            ccnet.optimize_for_inference(model, dtype)
        assert str(caught.value).endswith(f'("convolution" not implemented for this){hint}')


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # PyTorch's own use of it
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_derivatives_go_forward(make_model):
    model = make_model(3, recurrence=0, aux_channels=0)
    optimized = ccnet.optimize_for_inference(model, torch.float32)
    x, direction = torch.randn(2, 1, 3, 25, 33)
    tangents = []
    for network in (model, optimized):
        with forward_ad.dual_level(), torch.no_grad():
            out = network(forward_ad.make_dual(x, direction))["out"]
            tangents.append(forward_ad.unpack_dual(out).tangent)
    assert tangents[0].abs().max() > 0
    torch.testing.assert_close(*tangents[::-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_operations_are_counted_as_those_of_the_network(make_model, dtype):
    model = make_model(3).eval()
    counts = []
    for network in (model, ccnet.optimize_for_inference(model, getattr(torch, dtype))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.randn(2, 3, 33, 41))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
