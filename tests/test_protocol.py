"""The options of `predict`: what they mean, and what is refused."""

import numpy as np
import pytest

from ccnet.protocol import Protocol
from ccnet.weights import CCNet_ResNet18_Weights, CCNet_ResNet50_Weights, CCNet_ResNet101_Weights


@pytest.mark.parametrize(
    ("options", "windows"),
    [
        ({}, ((769, 769), (513, 513))),
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
    assert Protocol("slide", **options).windows == windows
    assert Protocol().windows is None


def test_protocols_are_equal_however_they_are_given():
    given = Protocol("slide", crop=[769, 769], stride=[513, 513], scales=[1], flip=False)
    assert given == Protocol("slide") == Protocol("slide", crop=769, overlap=1 / 3)
    assert given != Protocol("slide", crop=769, stride=512)
    assert given != Protocol()


@pytest.mark.parametrize(
    "member", [*CCNet_ResNet18_Weights, *CCNet_ResNet50_Weights, *CCNet_ResNet101_Weights]
)
def test_the_registry_holds_protocols(member):
    protocol = member.meta["protocol"]
    slides = protocol["mode"] == "slide"
    assert Protocol(**protocol).windows == (((769, 769), (513, 513)) if slides else None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "tiles"}, "mode must be 'whole' or 'slide', not 'tiles'"),
        ({"mode": None}, "mode must be 'whole' or 'slide', not None"),
        ({"average": "labels"}, "average must be 'logits' or 'probabilities', not 'labels'"),
        ({"precision": "float16"}, "precision must be 'float32' or 'bfloat16', not 'float16'"),
        ({"flip": "False"}, "flip must be True or False, not 'False'"),
        ({"flip": 1}, "flip must be True or False, not 1"),
        ({"window_batch": 0}, "window_batch must be a whole number, 1 or more, not 0"),
        ({"window_batch": 2.0}, "window_batch must be a whole number, 1 or more, not 2.0"),
        ({"window_batch": True}, "window_batch must be a whole number, 1 or more, not True"),
        ({"scales": ()}, r"scales must be positive numbers, one or more.*not \(\)"),
        ({"scales": (1.0, 0)}, r"scales must be positive numbers.*not \(1.0, 0\)"),
        ({"scales": (-1.0,)}, "scales must be positive numbers"),
        ({"scales": (float("nan"),)}, "scales must be positive numbers"),
        ({"scales": (float("inf"),)}, "scales must be positive numbers"),
        ({"scales": 0.5}, r"scales must be positive numbers, .*as in \(0.5, 1.0\), not 0.5"),
        ({"scales": "12"}, "scales must be positive numbers.*not '12'"),
        ({"scales": ["big"]}, "scales must be positive numbers"),
        ({"crop": 769}, "crop is an option of mode='slide', not of 'whole'"),
        ({"stride": 513}, "stride is an option of mode='slide'"),
        ({"overlap": 0.5}, "overlap is an option of mode='slide'"),
        ({"mode": "slide", "crop": 0}, "crop must be a whole number, 1 or more, not 0"),
        ({"mode": "slide", "crop": 76.9}, "crop must be a whole number, 1 or more, not 76.9"),
        ({"mode": "slide", "crop": "769"}, "crop must be a whole number, 1 or more, not '769'"),
        ({"mode": "slide", "crop": (1, 2, 3)}, r"one number or \(height, width\), not \(1, 2, 3\)"),
        ({"mode": "slide", "crop": (9, -9)}, "crop must be a whole number, 1 or more, not -9"),
        ({"mode": "slide", "crop": 9, "stride": 0}, "stride must be a whole number, 1 or more"),
        (
            {"mode": "slide", "crop": (9, 12), "stride": (9, 13)},
            r"stride \(9, 13\) leaves gaps between windows of \(9, 12\): at most the crop works",
        ),
        ({"mode": "slide", "crop": (8, 12), "stride": 9}, r"stride \(9, 9\) leaves gaps"),
        ({"mode": "slide", "stride": 9, "overlap": 0.5}, "stride=9 and overlap=0.5.*give one"),
        ({"mode": "slide", "overlap": 1}, "share of the crop, 0 to less than 1, not 1"),
        ({"mode": "slide", "overlap": -0.1}, "share of the crop, 0 to less than 1, not -0.1"),
        ({"mode": "slide", "overlap": float("nan")}, "share of the crop, 0 to less than 1"),
        ({"mode": "slide", "overlap": "1/3"}, "overlap must be a number, 0 to less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(model, pixels, options, message):
    with pytest.raises(ValueError, match=message):
        model.predict(pixels, **options)
