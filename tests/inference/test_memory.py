"""The estimated memory of inference, and what is done where it is beyond a limit."""

import logging
import re

import pytest
import torch
from pointwise import LABELS, PREPROCESSING, Coarse, Pointwise, Wide
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ccnet.classes import LabelSet
from ccnet.evaluation import evaluate
from ccnet.inference import InferenceProtocol
from ccnet.inference.footprint import Footprint, _Ledger, count_footprint
from ccnet.inference.memory import DEFAULT_LIMIT, GIB, estimate
from ccnet.inference.segment import segment
from ccnet.model import CCNet


def pair(first, last):
    """Two convolutions at the full size; the result of the first one lives until the end."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, first, 1), nn.Conv2d(first, last, 1)

        def forward(self, x):
            kept = self.first(x)
            return self.last(kept), kept

    return Pair()


FREED = [(3, 8), (8, 2), (2, 12)]
"""Convolutions, of which the last one works when the result of the first one is gone."""


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: nn.Conv2d(3, 8, 1), 3 + 8 + (3 + 8)),  # picture, result, copies of both
        (lambda: nn.Conv2d(3, 8, 1, stride=2), 3 + 2 + (3 + 2)),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True)), 3 + 8 + (3 + 8)),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)), 3 + 8 + 8 + (8 + 8)),
        (lambda: nn.Sequential(*(nn.Conv2d(*sizes, 1) for sizes in FREED)), 3 + 2 + 12 + (2 + 12)),
        (lambda: pair(8, 4), 3 + 8 + 4 + (8 + 4)),
    ],
)
def test_what_lives_at_the_same_time_is_counted(network, expected):
    state = torch.get_rng_state()
    assert count_footprint(network, "{}").numbers == pytest.approx(expected)
    assert torch.equal(torch.get_rng_state(), state), "inference draws no random numbers"


def test_what_the_head_does_not_need_is_freed_before_it_works():
    """Of the numbers per pixel the third stage has 16, the context of the attention 8."""
    footprint = count_footprint(CCNet, '{"backbone": "resnet50"}')
    assert footprint.numbers < 138
    assert footprint.rows == pytest.approx(1 / 8, rel=0.02)


WIDE, TALL = (800, 1200), (1200, 800)
SLIDE = InferenceProtocol("slide", crop=100, stride=100, window_batch=2)


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        (InferenceProtocol(), InferenceProtocol(flip=True)),
        (InferenceProtocol(), InferenceProtocol(scales=(1, 0.5))),
        (InferenceProtocol(scales=(0.5,)), InferenceProtocol()),
        (SLIDE, InferenceProtocol()),
        (SLIDE, SLIDE.replace(window_batch=3)),
        (SLIDE, SLIDE.replace(crop=120)),
        (SLIDE, SLIDE.replace(scales=(2,))),
        (SLIDE, SLIDE.replace(flip=True)),
    ],
)
def test_more_work_is_estimated_to_take_more(protocol, more):
    for footprint in (Footprint(60), Footprint(200, 1 / 8)):
        less, greater = (estimate(one, WIDE, 19, 4, footprint, False) for one in (protocol, more))
        assert less < greater
        assert less < estimate(protocol, WIDE, 19, 4, footprint, True)
        assert less < estimate(protocol, WIDE, 19, 8, footprint, False)
        if protocol.windows is None:
            assert less == estimate(protocol, TALL, 19, 4, footprint, False)


def test_more_windows_than_there_are_take_no_more():
    all_at_once = SLIDE.replace(window_batch=96)
    endless = SLIDE.replace(window_batch=10**9)
    assert estimate(all_at_once, WIDE, 19, 4, Footprint(200), False) == (
        estimate(endless, WIDE, 19, 4, Footprint(200), False)
    )


VIEWS = [
    {},
    {"flip": True},
    {"scales": (1, 1, 1)},
    {"flip": True, "average": "probabilities"},
    {"fit": 350},
    {"fit": (350, 200), "flip": True},
    {"fit": 350, "antialias": True},
    {"fit": (100, 75), "scales": (1, 2), "flip": True, "antialias": True},
    {"fit": 800, "antialias": True},
    {"scales": (0.5, 1)},
    {"scales": (0.5, 1), "flip": True},
    {"scales": (2,)},
    {"mode": "slide", "crop": 100},
    {"mode": "slide", "crop": 100, "fit": 350, "flip": True},
]


@pytest.mark.parametrize("with_probabilities", [False, True])
@pytest.mark.parametrize("options", VIEWS)
@pytest.mark.parametrize("classes", [11, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("network", [Wide, Coarse])
def test_estimate_is_what_lives_at_the_same_time(network, classes, options, with_probabilities):
    model = network(classes)
    footprint = count_footprint(network, f'{{"classes": {classes}}}')
    protocol, size = InferenceProtocol(**options), (300, 400)
    estimated = estimate(protocol, size, classes, 4, footprint, with_probabilities)
    with _Ledger() as ledger:
        segment(
            model,
            torch.zeros(3, *size, dtype=torch.uint8),
            PREPROCESSING,
            LabelSet.numbered(classes),
            protocol,
            return_probabilities=with_probabilities,
        )
    assert 0.75 < estimated / ledger.peak < 1.35


def test_published_multi_scale_inference_is_within_the_default():
    """ResNet-101 takes 135 numbers per pixel, and its logits have an eighth of the rows."""
    scales = (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)
    protocol, footprint = InferenceProtocol(scales=scales, flip=True), Footprint(135, 1 / 8)
    needed = estimate(protocol, (1024, 2048), 19, 4, footprint, False)
    assert 0.5 * DEFAULT_LIMIT < needed / GIB < DEFAULT_LIMIT


def run(pixels, limit, numbers=8000, **options):
    model = Pointwise()
    result = segment(
        model,
        pixels,
        PREPROCESSING,
        LABELS,
        InferenceProtocol(**options),
        memory_limit=limit,
        count=lambda: Footprint(numbers),
    )
    return result, model.shapes


def test_an_image_beyond_the_limit_is_processed_in_windows(caplog):
    pixels = torch.randint(256, (3, 1700, 900), dtype=torch.uint8)
    torch.manual_seed(0)
    expected, shapes = run(pixels, None)
    assert shapes == [(1, 3, 1700, 900)]
    torch.manual_seed(0)
    assert run(pixels, 46)[1] == shapes
    assert caplog.records == []
    torch.manual_seed(0)
    found, shapes = run(pixels, 45, window_batch=1)
    assert set(shapes) == {(1, 3, 769, 769)}
    assert (found.labels == expected.labels).float().mean() > 0.999
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("ccnet.inference.memory", logging.WARNING)
    assert re.fullmatch(
        r"an image: 900 x 1700 pixels \(whole, no flip, float32\) take about 45\.\d GiB, more than "
        r"the memory limit of 45 GiB: now slide, crop 769x769, stride 513x513, no flip, float32",
        record.getMessage(),
    )


BEYOND = [
    ({}, "an image: 60 x 50 pixels (whole, no flip, float32) take about 0.0894 GiB, and 17"),
    ({"mode": "slide", "crop": 99999999}, "(slide, crop 99999999x99999999, stride 66666666x"),
    ({"mode": "slide", "crop": 2, "window_batch": 10**9}, "(slide, crop 2x2, stride 1x1"),
    ({"mode": "slide", "crop": 400, "scales": (100,), "window_batch": 1}, "scales 100, no flip"),
    ({"scales": (100, 0.01), "flip": True}, "scales 100 0.01, flip"),
]


@pytest.mark.parametrize(("options", "told"), BEYOND)
def test_what_is_too_large_even_in_windows_is_refused(options, told):
    with pytest.raises(ValueError, match=r"more than the memory limit of 0\.05 GiB") as error:
        run(torch.zeros(3, 50, 60, dtype=torch.uint8), 0.05, **options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(
        "raise the limit, or make the image, scales, windows or batches of them smaller"
    )


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "8"])
def test_limits_are_positive(limit):
    with pytest.raises(ValueError, match="memory_limit must be a positive number of GiB, not"):
        run(torch.zeros(3, 5, 6, dtype=torch.uint8), limit)


def test_small_images_are_not_counted():
    def run(side):
        image = torch.zeros(3, side, side, dtype=torch.uint8)
        options = {"memory_limit": 1, "count": lambda: 1 / 0}
        segment(Pointwise(), image, PREPROCESSING, LABELS, **options)

    with pytest.raises(ZeroDivisionError):
        run(1000)
    run(100)


class Failing(Pointwise):
    def __init__(self, fail):
        super().__init__()
        self.fail = fail

    def forward(self, x):
        return {"out": self.fail()}


def out_of_memory(error):
    raise error


@pytest.mark.parametrize(
    ("fail", "is_memory"),
    [
        (lambda: torch.empty(2**50), True),
        (lambda: out_of_memory(MemoryError()), True),
        (lambda: out_of_memory(torch.OutOfMemoryError("CUDA out of memory.\nTried")), True),
        (lambda: out_of_memory(RuntimeError("another one")), False),
    ],
)
def test_memory_that_there_is_not_is_one_line(fail, is_memory):
    with pytest.raises(ValueError if is_memory else RuntimeError) as error:
        segment(Failing(fail), torch.zeros(3, 5, 6, dtype=torch.uint8), PREPROCESSING, LABELS)
    if is_memory:
        assert str(error.value) == (
            "an image: 6 x 5 pixels (whole, no flip, float32) take more memory than there is: "
            "choose windows (mode 'slide'), smaller ones, or smaller scales"
        )


def test_evaluation_is_never_in_windows_instead(make_model, monkeypatch):
    monkeypatch.setattr("ccnet.inference.segment.within_limit", lambda *_, **__: 1 / 0)
    model = make_model(11, label_set="camvid")
    pixels = torch.zeros(3, 40, 60, dtype=torch.uint8)
    with pytest.raises(ZeroDivisionError):
        model.predict(pixels)
    evaluate(model, [(pixels, torch.zeros(40, 60, dtype=torch.uint8))])


def test_counts_do_not_depend_on_who_looks():
    def network():
        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())

    with register_module_forward_hook(lambda *_: 1 / 0):
        watched = count_footprint(network, "{}")
    count_footprint.cache_clear()
    assert watched == count_footprint(network, "{}")
