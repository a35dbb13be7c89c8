"""The size that a network learnt at, at which `predict` shows it images of any size."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.datasets import StreetScenes
from ccnet.evaluation import evaluate
from ccnet.inference import InferenceProtocol
from ccnet.model import CCNet

LEARNT, BOX = [24, 32], (32, 24)


@pytest.fixture(scope="module")
def learnt(make_model):
    return make_model(training_size=LEARNT)


@pytest.fixture
def seen(learnt):
    """The inputs of the network, in the order in which it sees them."""
    inputs = []
    handle = learnt.backbone.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    yield inputs
    handle.remove()


def image_of(size):
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("size", "view"),
    [
        ((24, 32), (24, 32)),
        ((96, 128), (24, 32)),
        ((128, 96), (32, 24)),
        ((33, 49), (22, 32)),
        ((12, 16), (24, 32)),
        ((9, 7), (31, 24)),
        ((50, 50), (24, 24)),
        ((6, 200), (1, 32)),
        ((300, 2), (32, 1)),
        ((1, 1), (24, 24)),
    ],
    ids=str,
)
def test_images_are_seen_as_large_as_they_fit_into_it(learnt, seen, size, view):
    image = image_of(size)
    result = learnt.predict(image, return_probabilities=True)
    assert [tuple(x.shape[2:]) for x in seen] == [view]
    assert result.view_size == view
    assert result.labels.shape == result.probabilities.shape[1:] == size
    assert torch.equal(result.image, image)
    assert result.overlay().size == size[::-1]
    assert result == learnt.predict(image, fit=BOX, return_probabilities=True)
    protocol = InferenceProtocol(fit=BOX, antialias=True)
    assert protocol == learnt.default_protocol
    assert result == learnt.predict(image, protocol, return_probabilities=True)


def test_what_is_asked_for_is_done_as_if_nothing_were_known(make_model, learnt):
    plain, image = make_model(), image_of((48, 70))
    assert plain.training_size is None
    assert plain.default_protocol == InferenceProtocol()
    expected = plain.predict(image)
    assert expected.view_size == (48, 70)
    assert learnt.predict(image, fit=None, antialias=False) == expected
    assert learnt.predict(image, fit=None) == expected, "nothing to reduce"
    for options in ({}, {"fit": 30}, {"scales": (0.5, 1)}, {"mode": "slide", "crop": 24}):
        protocol = InferenceProtocol(**options)
        assert learnt.predict(image, protocol) == plain.predict(image, **options)
    assert learnt.predict(image) != expected, "too easy"


def test_scales_and_windows_are_those_of_the_image_as_it_is_seen(learnt, seen):
    image = image_of((96, 128))
    learnt.predict(image, scales=(0.5, 1, 1.5), flip=True)
    assert [tuple(x.shape[2:]) for x in seen] == [
        *((12, 16), (12, 16), (24, 32), (24, 32), (36, 48), (36, 48))
    ]
    seen.clear()
    learnt.predict(image, mode="slide", crop=24)
    assert sum(x.shape[0] for x in seen) == 2, "of 24x32"
    seen.clear()
    learnt.predict(image, mode="slide", crop=96, fit=None)
    assert sum(x.shape[0] for x in seen) == 2, "of 96x128"
    seen.clear()
    learnt.predict(image, mode="slide")
    assert [tuple(x.shape) for x in seen] == [(1, 3, 32, 32)], "one window, padded the least"


def test_the_flipped_image_is_reduced_with_the_other_one(learnt, monkeypatch):
    resized, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda *args: resized.append(args[1]) or resize(*args)
    )
    learnt.predict(image_of((96, 128)), scales=(0.5, 1), flip=True)
    assert resized == [(16, 12)] * 3 + [(32, 24)] * 3, "a plane at a time"


def test_what_is_too_fine_is_averaged(learnt, seen):
    """Four columns become one: without the filter the two in their middle, which are black."""
    column = torch.tensor([255, 0, 0, 255], dtype=torch.uint8).repeat(32)
    learnt.predict(column.expand(3, 96, 128))
    grey = learnt.preprocessing(torch.full((3, 1, 1), 127, dtype=torch.uint8))
    inside = seen[0][..., 2:-2]
    torch.testing.assert_close(inside, grey.expand_as(inside), atol=0.05, rtol=0)


def test_enlarging_is_that_of_the_protocols(learnt):
    """Without rounding to whole numbers of grey."""
    image, keep = image_of((9, 13)), {"return_probabilities": True}
    assert learnt.predict(image, **keep) == learnt.predict(image, antialias=False, **keep)


def test_evaluation_takes_images_at_their_own_size(make_model, learnt):
    scenes = StreetScenes(2, size=(48, 64))
    seen = []

    def note(index, result, scores):
        seen.append(result)

    known, plain = (evaluate(one, Numbered(scenes), each=note) for one in (learnt, make_model()))
    assert torch.equal(known.confusion, plain.confusion)
    assert seen[:2] == seen[2:]
    assert all(result.view_size == (48, 64) for result in seen)


class Numbered:
    """Scenes with the classes 0 to 4 alone."""

    def __init__(self, scenes):
        self.scenes = scenes

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        image, labels = self.scenes[index]
        return image, labels % 5


def test_turned_photographs(learnt, seen, tmp_path):
    """EXIF's orientation counts before the size does."""
    array = np.random.default_rng(0).integers(0, 256, (160, 90, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(array).save(tmp_path / "turned.png", exif=exif)
    result = learnt.predict(tmp_path / "turned.png")
    assert tuple(seen[0].shape[2:]) == result.view_size == (18, 32)
    assert result == learnt.predict(np.ascontiguousarray(np.rot90(array, -1)))


def test_the_limit_of_memory_is_that_of_the_image_as_it_is_seen(learnt, seen, caplog):
    """A photograph whose own size is beyond it is not cut into windows."""
    image = image_of((300, 400))
    with caplog.at_level(logging.WARNING):
        learnt.predict(image, memory_limit=0.012)
    assert not caplog.records
    assert [tuple(x.shape[2:]) for x in seen] == [(24, 32)]
    with pytest.raises(ValueError, match="more than the memory limit"):
        learnt.predict(image, memory_limit=0.012, fit=None)


def test_a_result_says_at_which_size_it_was_seen(learnt):
    assert "(64 x 48 pixels, seen at 32 x 24, " in repr(learnt.predict(image_of((48, 64))))
    assert ", seen at " not in repr(learnt.predict(image_of((24, 32))))


WRONG = [24, "24x32", [24], [24, 32, 3], [0, 32], [24.0, 32], [True, 32], [24, 10**9], {24, 32}]


@pytest.mark.parametrize("size", WRONG, ids=str)
def test_other_values_are_no_size(model, size):
    with pytest.raises(
        ValueError, match=r"^training_size must be None or a list of 2, each an int"
    ):
        CCNet("resnet18", 5, training_size=size)
    with pytest.raises(ValueError, match=r"^training_size must be"):
        model.training_size = size
    assert model.training_size is None


def test_it_can_be_set(model):
    changed = copy.deepcopy(model)
    changed.training_size = (24, 32)
    assert changed.training_size == (24, 32)
    assert changed.config == {**model.config, "training_size": [24, 32]}
    changed.training_size = np.array([24, 32])[0], np.int16(32)
    assert json.loads(json.dumps(changed.config))["training_size"] == [24, 32]
    assert changed.predict(image_of((48, 64))).view_size == (24, 32)
    changed.training_size = None
    assert changed.config == model.config
