"""Logits of pixels in bands of columns: the values of one interpolation, in less memory."""

import pytest
import torch
from pointwise import PREPROCESSING, Coarse
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from ccnet.classes import LabelSet
from ccnet.inference import InferenceProtocol
from ccnet.inference.footprint import _Ledger
from ccnet.inference.logits import PixelLogits, column_bands
from ccnet.inference.segment import segment
from ccnet.model import CCNet


@pytest.fixture
def narrow(monkeypatch):
    """Bands as narrow as they may be."""
    for module in ("logits", "windows"):
        monkeypatch.setattr(f"ccnet.inference.{module}.MAX_VALUES", 1)


@pytest.mark.parametrize(
    ("values", "width", "widths"),
    [
        (1, 5000, [5000]),
        (2**40, 100, [100]),
        (2**40, 255, [255]),
        (2**40, 256, [128, 128]),
        (2**40, 400, [133, 133, 134]),
        (19 * 2**21, 2048, [227, 228, 227, 228, 227, 228, 227, 228, 228]),
        (3 * 2**22, 3000, [1000, 1000, 1000]),
    ],
)
def test_bands_are_as_wide_as_each_other(values, width, widths):
    bands = column_bands(values, width)
    assert sorted(band.stop - band.start for band in bands) == sorted(widths)
    assert [0, *(band.stop for band in bands)] == [*(band.start for band in bands), width]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("small", "size"),
    [
        ((9, 33), (65, 257)),
        ((33, 50), (259, 401)),
        ((1, 60), (3, 480)),
        ((40, 1), (320, 300)),
        ((60, 90), (17, 300)),
        ((5, 300), (5, 300)),
        ((2, 3), (2, 700)),
    ],
)
def test_bands_are_bit_for_bit_those_of_one_interpolation(
    narrow, align_corners, dtype, small, size
):
    def resize(maps, size):
        return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)

    coarse = (5 * torch.randn(1, 7, *small)).to(dtype)
    expected = resize(coarse, size)[0]
    logits = PixelLogits.of(coarse, size, resize)
    width = size[1]
    for start, stop in ((0, 128), (100, 250), (width - 130, width), (0, width), (128, 131)):
        found = logits.columns(start, stop)
        assert torch.equal(found, expected[:, :, start:stop])
    assert torch.equal(logits.columns(width - 3, width), expected[:, :, -3:])


OPTIONS = [
    {},
    {"flip": True},
    {"average": "probabilities", "flip": True},
    {"scales": (0.5, 1, 1.5), "flip": True},
    {"mode": "slide", "crop": (40, 300), "flip": True},
    {"precision": "bfloat16"},
]


@pytest.mark.parametrize(
    ("options", "align_corners"),
    [*((options, False) for options in OPTIONS), (OPTIONS[0], True), (OPTIONS[-2], True)],
)
def test_bands_change_no_label_and_no_probability(make_model, monkeypatch, options, align_corners):
    """Against the network's own resize, which a hook that looks at its output asks for."""
    monkeypatch.setattr(CCNet, "_economise", lambda *_: None)  # which hooks prevent in part
    model = make_model(align_corners=align_corners)
    pixels = torch.randint(256, (3, 70, 400), dtype=torch.uint8)
    model.register_forward_hook(lambda *_: None)
    expected = model.predict(pixels, **options, return_probabilities=True)
    model._forward_hooks.clear()
    assert len(expected.labels.unique()) > 1, "one class only: too easy"
    for module in ("logits", "windows"):
        monkeypatch.setattr(f"ccnet.inference.{module}.MAX_VALUES", 1)
    found = model.predict(pixels, **options, return_probabilities=True)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.probabilities, expected.probabilities, atol=1e-6, rtol=0)
    assert torch.equal(model.predict(pixels, **options).labels, expected.labels)


def test_network_resizes_its_logits_unless_told_otherwise(make_model):
    model, batch = make_model(), torch.rand(2, 3, 33, 49)
    assert model.predict(batch[0]).labels.shape == batch.shape[2:]
    assert model.resizes_logits, "of the network itself nothing is changed"
    with torch.no_grad():
        logits = model(batch)["out"]
        model.resizes_logits = False
        small = model(batch)["out"]
    assert small.shape[2:] == tuple(-(-side // 8) for side in batch.shape[2:])
    assert torch.equal(model.to_pixels(small, batch.shape[2:]), logits)


class Own(CCNet):
    """A network whose `forward` does something with the logits of the pixels."""

    def forward(self, x):
        return {"out": self.seen(super().forward(x))}

    def seen(self, outputs):
        assert outputs["out"].shape[2:] == (40, 300)
        self.calls = 1
        return outputs["out"].roll(1, dims=1)


def by_subclass(model):
    model.__class__ = Own


class OwnResize(CCNet):
    """A network with another interpolation."""

    def to_pixels(self, logits, size):
        return super().to_pixels(logits, size).roll(1, dims=1)


def by_resize(model):
    model.__class__ = OwnResize


def by_instance_resize(model):
    to_pixels = model.to_pixels
    model.to_pixels = lambda logits, size: to_pixels(logits, size).roll(1, dims=1)


def by_hook(model):
    model.register_forward_hook(lambda _, inputs, outputs: {"out": Own.seen(model, outputs)})


def by_instance(model):
    forward = model.forward
    model.forward = lambda x: {"out": Own.seen(model, forward(x))}


@pytest.mark.parametrize(
    "change", [by_subclass, by_hook, by_instance, by_resize, by_instance_resize]
)
def test_who_sees_the_output_sees_the_logits_of_the_pixels(make_model, narrow, change):
    model = make_model()
    pixels = torch.randint(256, (3, 40, 300), dtype=torch.uint8)
    expected = (model.predict(pixels, fit=None).labels + 1) % len(model.label_set)
    change(model)
    assert torch.equal(model.predict(pixels, fit=None).labels, expected)


def test_hooks_of_all_modules_see_the_logits_of_the_pixels(make_model):
    model, seen = make_model(), []
    handle = register_module_forward_hook(lambda module, _, out: seen.append((module, out)))
    try:
        model.predict(torch.randint(256, (3, 40, 50), dtype=torch.uint8), fit=None)
    finally:
        handle.remove()
    (outputs,) = (out for module, out in seen if isinstance(module, CCNet))
    assert outputs["out"].shape[2:] == (40, 50)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 0.3),
        ({"flip": True}, 0.6),
        ({"scales": (0.5, 1), "flip": True}, 1.0),
        ({"flip": True, "average": "probabilities"}, 0.8),
        ({"mode": "slide", "crop": (256, 768), "window_batch": 2}, 2.3),
    ],
)
def test_memory_is_below_that_of_the_logits(options, share):
    """As a share of 150 classes at 256 x 1536, in float32."""
    model, size = Coarse(150), (256, 1536)
    with _Ledger() as ledger:
        picture = torch.zeros(3, *size, dtype=torch.uint8)
        labels = LabelSet.numbered(150)
        segment(model, picture, PREPROCESSING, labels, InferenceProtocol(**options))
    assert ledger.peak / (150 * 4 * size[0] * size[1]) < share
