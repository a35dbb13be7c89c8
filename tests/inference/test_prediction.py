"""`model.predict` of several images: each is predicted as if it were alone."""

import inspect
import typing
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.inference import Segmentation
from ccnet.inference.prediction import PredictionMixin


@pytest.fixture
def several(tmp_path, pixels):
    """Images of different forms and sizes."""
    array = pixels[:, :20].movedim(0, -1).numpy().copy()
    Image.fromarray(array).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    return [pixels, array, Image.fromarray(array[:, :30]), tmp_path / "a.png", content]


FORMS = {
    "list": list,
    "tuple": tuple,
    "generator": lambda images: (image for image in images),
    "values": lambda images: dict(enumerate(images)).values(),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_each_result_is_that_of_the_image_alone(model, several, make):
    options = {"scales": (0.5,), "return_probabilities": True}
    results = model.predict(make(several), **options)
    assert isinstance(results, list)
    assert results == [model.predict(image, **options) for image in several]


BATCHES = {
    "tensor": lambda images: images,
    "floats": lambda images: images / 255,
    "array": lambda images: images.movedim(1, -1).numpy(),
    "16 bits": lambda images: images.movedim(1, -1).numpy().astype(np.uint16) * 257,
    "opacity": lambda images: torch.cat([images, torch.full_like(images[:, :1], 255)], 1),
}


@pytest.mark.parametrize("make", BATCHES.values(), ids=BATCHES)
def test_batches_are_lists(model, pixels, make):
    images = [pixels, 255 - pixels]
    expected = model.predict(images)
    assert expected[0] != expected[1], "too easy"
    assert model.predict(make(torch.stack(images))) == expected
    assert model.predict(make(torch.stack(images[:1]))) == expected[:1], "of one, too"
    assert model.predict(make(torch.stack(images)[:0])) == []
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("third", "kind", "message"),
    [
        ("nowhere.png", FileNotFoundError, r"^images\[2\]: no image at nowhere\.png"),
        (None, ValueError, r"^images\[2\]: an image must be .* not None"),
        (b"text", ValueError, r"^images\[2\]: the content of 4 bytes cannot be read"),
        ("a" * 300, (FileNotFoundError, ValueError), r"^images\[2\]: .*a{20}"),  # differs by Python
        ([], ValueError, r"^images\[2\]: .* not list"),
        (torch.zeros(1, 3, 5, 6), ValueError, r"^images\[2\]: expected one image, not a batch"),
    ],
)
def test_errors_name_which_of_the_images(model, pixels, third, kind, message):
    with pytest.raises(kind, match=message):
        model.predict([pixels, pixels[0], third, pixels])


def test_images_are_taken_one_after_the_other(model, pixels):
    """Of a long iterator no image waits in memory, and all before a failure are segmented."""
    taken = []

    def images():
        for index in range(3):
            taken.append(index)
            yield pixels if index < 1 else "nowhere.png"

    with pytest.raises(FileNotFoundError, match=r"images\[1\]"):
        model.predict(images())
    assert taken == [0, 1]


@pytest.mark.skipif(not hasattr(typing, "get_overloads"), reason="of Python 3.11")
def test_type_of_the_result_depends_on_that_of_the_image():
    one, arrays, several = typing.get_overloads(PredictionMixin.predict)
    assert inspect.signature(one).return_annotation is Segmentation
    assert inspect.signature(arrays).return_annotation is typing.Any
    assert inspect.signature(several).return_annotation == list[Segmentation]
    image = inspect.signature(several).parameters["image"].annotation
    assert typing.get_origin(image) is Iterable


def test_a_flag_is_true_or_false(model, pixels):
    with pytest.raises(ValueError, match="return_probabilities must be True or False, not 'yes'"):
        model.predict(pixels, return_probabilities="yes")
