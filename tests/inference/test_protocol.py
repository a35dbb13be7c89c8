"""Inference protocols: the meaning of options, derived protocols, and invalid options."""

import json
import math
import re

import numpy as np
import pytest

from ccnet.inference import InferenceProtocol
from ccnet.weights import REGISTRY

SLIDE = InferenceProtocol("slide", crop=(60, 90), stride=30, scales=(0.5, 1), flip=True)
SLIDING = {"mode": "slide"}
FITTED = InferenceProtocol(fit=(2048, 512))
OVERLAPPING = InferenceProtocol("slide", crop=60, overlap=0.5)


@pytest.mark.parametrize(
    ("options", "windows"),
    [
        ({}, ((769, 769), (513, 513))),
        ({"fit": (480, 360)}, ((480, 480), (320, 320))),
        ({"fit": (360, 480), "scales": (0.5, 1.25)}, ((600, 600), (400, 400))),
        ({"fit": 480, "scales": (1, 2)}, ((769, 769), (513, 513))),
        ({"fit": 480, "stride": 500}, ((769, 769), (500, 500))),
        ({"fit": 480, "crop": 769}, ((769, 769), (513, 513))),
        ({"crop": 60}, ((60, 60), (40, 40))),
        ({"crop": [60, 90]}, ((60, 90), (40, 60))),
        ({"crop": (60, 90), "stride": 30}, ((60, 90), (30, 30))),
        ({"crop": np.int64(9), "stride": (np.int32(9), 1)}, ((9, 9), (9, 1))),
        ({"crop": (100, 50), "overlap": 0.25}, ((100, 50), (75, 38))),
        ({"crop": 100, "overlap": 0}, ((100, 100), (100, 100))),
        ({"crop": 10, "overlap": 0.7}, ((10, 10), (3, 3))),
        ({"crop": 1, "overlap": 0.99}, ((1, 1), (1, 1))),
    ],
)
def test_windows_follow_from_crop_and_stride_or_overlap(options, windows):
    assert InferenceProtocol("slide", **options).windows == windows
    assert InferenceProtocol().windows is None


def test_protocols_with_the_same_windows_are_equal():
    given = InferenceProtocol("slide", crop=[769, 769], stride=[513, 513], scales=[1], flip=False)
    assert given == InferenceProtocol("slide") == InferenceProtocol("slide", overlap=1 / 3)
    assert given != InferenceProtocol("slide", crop=769, stride=512)
    assert given != InferenceProtocol()
    batched = SLIDE.replace(window_batch=7)  # changes the speed, not the result
    assert batched.replace(crop=60).window_batch == 7
    assert batched == SLIDE


@pytest.mark.parametrize(
    ("image", "fit", "scale", "size"),
    [
        ((512, 683), (2048, 512), 1, (512, 683)),
        ((375, 500), (2048, 512), 1, (512, 683)),  # enlarged
        ((3000, 4000), (512, 2048), 1, (512, 683)),  # reduced; the order of the sides is free
        ((500, 375), (2048, 512), 1, (683, 512)),  # standing
        ((100, 1000), (2048, 512), 1, (205, 2048)),  # the long side is the limit
        ((1000, 100), (2048, 512), 1, (2048, 205)),
        ((1024, 1365), (2048, 512), 1, (512, 683)),  # halves are rounded up
        ((375, 500), 512, 1, (384, 512)),
        ((375, 500), (2048, 512), 0.5, (256, 341)),
        ((375, 500), (2048, 512), 1.75, (896, 1195)),
        ((1, 100_000), (2048, 512), 1, (1, 2048)),
        ((1, 1), (2048, 512), 1, (512, 512)),
        ((375, 500), None, 0.5, (188, 250)),
        ((375, 500), None, 1, (375, 500)),
    ],
)
def test_size_that_the_network_sees(image, fit, scale, size):
    assert InferenceProtocol(fit=fit).view_size(image, scale) == size


def test_protocols_that_fit_into_the_same_box_are_equal():
    assert InferenceProtocol(fit=512) == InferenceProtocol(fit=[512, 512])
    assert InferenceProtocol(fit=(512, 2048)) == FITTED != InferenceProtocol(fit=512)
    assert FITTED.replace(fit=None) == InferenceProtocol() != FITTED
    assert FITTED.replace(mode="slide", crop=60).box == (2048, 512)


def test_protocols_of_the_registry():
    protocols = [member.meta["protocol"] for choice in REGISTRY.values() for member in choice]
    assert {protocol.windows for protocol in protocols} == {None, ((769, 769), (513, 513))}
    assert {protocol.box for protocol in protocols} == {None, (2048, 512), (720, 540)}
    assert all(protocol.scales == (1.0,) and not protocol.flip for protocol in protocols)


@pytest.mark.parametrize(
    ("protocol", "options", "expected"),
    [
        (SLIDE, {}, SLIDE),
        (
            SLIDE,
            {"flip": False},
            InferenceProtocol("slide", crop=(60, 90), stride=30, scales=(0.5, 1)),
        ),
        # A new mode or crop drops crop, stride and overlap.
        (SLIDE, {"mode": "whole"}, InferenceProtocol(scales=(0.5, 1), flip=True)),
        (SLIDE, {"mode": "slide"}, SLIDE),
        (SLIDE, {"crop": 40}, InferenceProtocol("slide", crop=40, scales=(0.5, 1), flip=True)),
        (OVERLAPPING, {"crop": 90}, InferenceProtocol("slide", crop=90)),
        (OVERLAPPING, {"crop": 90, "stride": 9}, InferenceProtocol("slide", crop=90, stride=9)),
        # A new stride drops the overlap, and the other way round; the crop stays.
        (OVERLAPPING, {"stride": 50}, InferenceProtocol("slide", crop=60, stride=50)),
        (
            SLIDE.replace(scales=(1,), flip=False),
            {"overlap": 0.5},
            InferenceProtocol("slide", crop=(60, 90), stride=(30, 45)),
        ),
        (InferenceProtocol(), {"mode": "slide", "crop": 9}, InferenceProtocol("slide", crop=9)),
    ],
)
def test_replace(protocol, options, expected):
    assert protocol.replace(**options) == expected


def test_replace_refuses_invalid_options():
    with pytest.raises(ValueError, match="crop is an option of mode='slide'"):
        InferenceProtocol().replace(crop=769)
    with pytest.raises(ValueError, match="give one"):
        SLIDE.replace(stride=9, overlap=0.5)
    with pytest.raises(TypeError, match="'window'"):
        SLIDE.replace(window=9)


@pytest.mark.parametrize(
    ("protocol", "config"),
    [
        (InferenceProtocol(), {"mode": "whole", "scales": [1.0], "flip": False}),
        (
            InferenceProtocol("slide", average="probabilities"),
            {"crop": [769, 769], "stride": [513, 513], "average": "probabilities"},
        ),
        (SLIDE, {"crop": [60, 90], "stride": [30, 30], "scales": [0.5, 1.0], "flip": True}),
        (OVERLAPPING, {"crop": [60, 60], "stride": [30, 30]}),
        (FITTED, {"mode": "whole", "fit": [2048, 512]}),
        (SLIDE.replace(fit=512), {"crop": [60, 90], "fit": [512, 512]}),
        (FITTED.replace(antialias=True), {"fit": [2048, 512], "antialias": True}),
        (InferenceProtocol(precision="bfloat16", window_batch=9), {"precision": "bfloat16"}),
    ],
)
def test_configuration_of_a_protocol(protocol, config):
    saved = json.loads(json.dumps(protocol.to_config()))
    assert saved == {**saved, **config}
    assert ("crop" in saved) == (protocol.mode == "slide")
    assert ("fit" in saved) == (protocol.fit is not None)
    assert InferenceProtocol(**saved) == protocol


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        (InferenceProtocol(), "whole, no flip, float32"),
        (InferenceProtocol(flip=True), "whole, flip, average of logits, float32"),
        (
            InferenceProtocol("slide", scales=[1.0]),
            "slide, crop 769x769, stride 513x513, no flip, float32",
        ),
        (
            InferenceProtocol(scales=[0.5, 1, 1.75], average="probabilities", precision="bfloat16"),
            "whole, scales 0.5 1 1.75, no flip, average of probabilities, bfloat16",
        ),
        (InferenceProtocol(scales=[2]), "whole, scales 2, no flip, float32"),
        (FITTED.replace(scales=[2]), "whole, fit 2048x512, scales 2, no flip, float32"),
        (FITTED.replace(antialias=True), "whole, fit 2048x512, antialias, no flip, float32"),
    ],
)
def test_protocols_as_text(protocol, text):
    assert str(protocol) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "tiles"}, "mode must be 'whole' or 'slide', not 'tiles'"),
        ({"mode": None}, "mode must be 'whole' or 'slide', not None"),
        ({"average": "labels"}, "average must be 'logits' or 'probabilities', not 'labels'"),
        ({"precision": "float16"}, "precision must be 'float32' or 'bfloat16', not 'float16'"),
        ({"flip": "False"}, "flip must be True or False, not 'False'"),
        ({"flip": 1}, "flip must be True or False, not 1"),
        ({"antialias": None}, "antialias must be True or False, not None"),
        ({"window_batch": 0}, "window_batch must be an integer of 1 or more, not 0"),
        ({"window_batch": 2.0}, "window_batch must be an integer of 1 or more, not 2.0"),
        ({"window_batch": True}, "window_batch must be an integer of 1 or more, not True"),
        ({"crop": 769}, "crop is an option of mode='slide', not of 'whole'"),
        ({"stride": 513}, "stride is an option of mode='slide'"),
        ({"overlap": 0.5}, "overlap is an option of mode='slide'"),
        ({"fit": 0}, "fit must be an integer of 1 or more, not 0"),
        ({"fit": "512"}, "fit must be an integer of 1 or more, not '512'"),
        ({"fit": (1, 2, 3)}, r"fit must be one number or \(long side, short side\), not \(1, 2, 3"),
        (dict(SLIDING, crop=0), "crop must be an integer of 1 or more, not 0"),
        (dict(SLIDING, crop=76.9), "crop must be an integer of 1 or more, not 76.9"),
        (dict(SLIDING, crop="769"), "crop must be an integer of 1 or more, not '769'"),
        (dict(SLIDING, crop=(1, 2, 3)), r"one number or \(height, width\), not \(1, 2, 3\)"),
        (dict(SLIDING, crop=(9, -9)), "crop must be an integer of 1 or more, not -9"),
        (dict(SLIDING, crop=9, stride=0), "stride must be an integer of 1 or more"),
        (
            dict(SLIDING, crop=(9, 12), stride=(9, 13)),
            r"stride \(9, 13\) must not exceed the crop \(9, 12\)",
        ),
        (dict(SLIDING, crop=(8, 12), stride=9), r"stride \(9, 9\) must not exceed the crop"),
        (dict(SLIDING, stride=9, overlap=0.5), "stride=9 and overlap=0.5.*give one"),
        (dict(SLIDING, overlap=1), "share of the crop, 0 to less than 1, not 1"),
        (dict(SLIDING, overlap=-0.1), "share of the crop, 0 to less than 1, not -0.1"),
        (dict(SLIDING, overlap=float("nan")), "share of the crop, 0 to less than 1"),
        (dict(SLIDING, overlap="1/3"), "overlap must be a number, 0 to less than 1"),
    ],
)
def test_invalid_options_are_refused(model, pixels, options, message):
    with pytest.raises(ValueError, match=message):
        model.predict(pixels, **options)


@pytest.mark.parametrize(
    "scales", [(), (1.0, 0), (-1.0,), (math.nan,), (math.inf,), 0.5, "12", ["big"], (1e9,), (1e-9,)]
)
def test_invalid_scales_are_refused(scales):
    message = "scales must be positive numbers, one or more, of 0.01 to 100, as in (0.5, 1.0), not "
    with pytest.raises(ValueError, match=re.escape(f"{message}{scales!r}")):
        InferenceProtocol(scales=scales)
