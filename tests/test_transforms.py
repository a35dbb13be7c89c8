"""Decoding, preprocessing, and augmentation of an image together with its mask."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ccnet.transforms import Preprocessing, decode_image, training_augmentation


def as_array(pixels):
    return pixels.movedim(0, -1).numpy().copy()


@pytest.mark.parametrize(
    "make",
    [
        lambda pixels: pixels,
        lambda pixels: pixels.double() / 255,
        lambda pixels: tv_tensors.Image(pixels),
        as_array,
        lambda pixels: as_array(pixels)[:, ::-1].copy()[:, ::-1],
        lambda pixels: (as_array(pixels) / 255).astype(np.float32),
        lambda pixels: Image.fromarray(as_array(pixels)),
        lambda pixels: np.asarray(Image.fromarray(as_array(pixels))),
    ],
    ids=[
        "tensor",
        "float tensor",
        "tv_tensor",
        "array",
        "reversed array",
        "float array",
        "PIL",
        "read-only array",
    ],
)
def test_one_picture_in_every_form(pixels, make):
    decoded = decode_image(make(pixels))
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, pixels)


def test_grey_tensors_and_arrays_become_rgb():
    grey = torch.randint(0, 256, (4, 7), dtype=torch.uint8)
    array = grey.numpy().copy()
    for given in (grey, grey[None], array, array[..., None]):
        assert torch.equal(decode_image(given), grey.expand(3, 4, 7))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_files(tmp_path, pixels, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(as_array(pixels)).save(tmp_path / f"a.{suffix}", **options)
    assert torch.equal(decode_image(str(tmp_path / f"a.{suffix}")), pixels)


def test_cmyk_and_one_bit_files(tmp_path):
    Image.new("CMYK", (9, 5), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    red = decode_image(tmp_path / "red.jpg").float().mean((1, 2))
    assert red[0] > 200
    assert red[1:].max() < 60
    Image.new("1", (9, 5), 1).save(tmp_path / "white.png")
    assert decode_image(tmp_path / "white.png").min() == 255


def test_preprocessing_is_the_stated_arithmetic(pixels):
    mean, std = (10.0, 20.0, 30.5), (2.0, 3.0, 4.0)
    batch = Preprocessing(mean, std)(pixels)
    assert batch.shape == (1, 3, 33, 49)
    assert batch.dtype == torch.float32
    for channel in range(3):
        expected = (pixels[channel].double() - mean[channel]) / std[channel]
        torch.testing.assert_close(batch[0, channel], expected.float())


def test_bgr_swaps_the_channels_before_the_mean(pixels):
    rgb = Preprocessing((3.0, 2.0, 1.0), (6.0, 5.0, 4.0))(pixels)
    bgr = Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "BGR")(pixels)
    assert torch.equal(bgr, rgb.flip(1))


def test_a_batch_is_preprocessed_picture_by_picture():
    batch = torch.randint(0, 256, (3, 3, 5, 8), dtype=torch.uint8)
    together = Preprocessing()(batch)
    assert torch.equal(together, torch.cat([Preprocessing()(picture) for picture in batch]))


def test_preprocessing_goes_through_json_unchanged():
    preprocessing = Preprocessing((1.5, 2, 3), (4, 5, 6), "BGR")
    config = json.loads(json.dumps(preprocessing.to_config()))
    assert Preprocessing.from_config(config) == preprocessing
    assert Preprocessing.from_config(None) == Preprocessing()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mean": [1, 2]}, r"mean must be three numbers, not \(1.0, 2.0\)"),
        ({"std": [1, 0, 2]}, r"std must be positive, not \(1.0, 0.0, 2.0\)"),
        ({"channel_order": "GBR"}, "not 'GBR'"),
        ({"size": 512}, "not size"),
    ],
)
def test_wrong_preprocessing_says_what_is_wrong(config, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_config(config)


def pair(height, width):
    """A mask, and an image whose every channel shows it, 20 apart: they must stay aligned."""
    mask = torch.randint(0, 11, (height, width), dtype=torch.uint8)
    return tv_tensors.Image((mask * 20).expand(3, -1, -1)), tv_tensors.Mask(mask)


def test_crop_and_flip_move_image_and_mask_alike():
    augment = training_augmentation((24, 40), scale_range=(1.0, 1.0), color_jitter=0)
    image, mask = pair(32, 48)
    flipped = 0
    for _ in range(30):
        crop, crop_mask = augment(image, mask)
        assert crop.shape == (3, 24, 40)
        assert crop_mask.shape == (24, 40)
        assert torch.equal(crop, (crop_mask * 20).expand(3, -1, -1).as_subclass(type(crop)))
        windows = mask.as_subclass(torch.Tensor).unfold(0, 24, 1).unfold(1, 40, 1)
        straight = (windows == crop_mask.as_subclass(torch.Tensor)).all(-1).all(-1).any()
        flipped += not straight
    assert 5 <= flipped <= 25


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_padding_shows_the_mean_and_is_ignored(order):
    mean = (101.0, 102.0, 103.0)
    preprocessing = Preprocessing(mean, channel_order=order)
    augment = training_augmentation(
        (40, 30), scale_range=(1.0, 1.0), color_jitter=0, preprocessing=preprocessing
    )
    crop, mask = augment(*pair(20, 30))
    padded = mask == 255
    assert padded.sum() >= 20 * 30
    rgb = mean if order == "RGB" else mean[::-1]
    for channel, value in enumerate(rgb):
        assert (crop[channel][padded] == value).all()
    assert preprocessing(crop)[0][:, padded].abs().max() < 1e-6


def test_colour_jitter_changes_the_image_alone():
    augment = training_augmentation((16, 16), scale_range=(1.0, 1.0), color_jitter=0.5)
    image, mask = pair(16, 16)
    crop, crop_mask = augment(image, mask)
    assert not torch.equal(crop, (crop_mask * 20).expand(3, -1, -1))
    assert torch.equal(crop_mask.flatten().sort().values, mask.flatten().sort().values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_size": (0, 5)}, r"crop_size must be positive, not \(0, 5\)"),
        ({"crop_size": (5, 5), "color_jitter": 1.5}, r"color_jitter must be in 0..1, not 1.5"),
        ({"crop_size": (5, 5), "scale_range": (2.0, 1.0)}, r"not 2.0..1.0"),
        ({"crop_size": (5, 5), "scale_step": -1.0}, r"scale_step must be 0 or more, not -1.0"),
        ({"crop_size": (5, 5), "max_class_share": 2.0}, r"max_class_share .* at most 1: 2.0"),
    ],
)
def test_augmentation_that_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        training_augmentation(**arguments)
