"""Image decoding, preprocessing, and augmentation of an image together with its mask."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ccnet.images import decode_image
from ccnet.training.augmentation import training_augmentation
from ccnet.transforms import Preprocessing


def as_array(pixels):
    return pixels.movedim(0, -1).numpy().copy()


FORMS = {
    "tensor": lambda pixels: pixels,
    "float tensor": lambda pixels: pixels.double() / 255,
    "tv_tensor": lambda pixels: tv_tensors.Image(pixels),
    "array": as_array,
    "reversed array": lambda pixels: as_array(pixels)[:, ::-1].copy()[:, ::-1],
    "float array": lambda pixels: (as_array(pixels) / 255).astype(np.float32),
    "PIL": lambda pixels: Image.fromarray(as_array(pixels)),
    "read-only array": lambda pixels: np.asarray(Image.fromarray(as_array(pixels))),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_one_image_in_every_form(pixels, make):
    decoded = decode_image(make(pixels))
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, pixels)


def test_grey_images_become_rgb(tmp_path):
    grey = torch.randint(0, 256, (4, 7), dtype=torch.uint8)
    array = grey.numpy().copy()
    Image.fromarray(array).save(tmp_path / "8 bits.png")
    Image.fromarray(array.astype(np.uint16) * 257).save(tmp_path / "16 bits.png")
    files = tmp_path / "8 bits.png", tmp_path / "16 bits.png"
    for given in (grey, grey[None], array, array[..., None], *files):
        assert torch.equal(decode_image(given), grey.expand(3, 4, 7))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_files(tmp_path, pixels, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(as_array(pixels)).save(tmp_path / f"a.{suffix}", **options)
    assert torch.equal(decode_image(str(tmp_path / f"a.{suffix}")), pixels)


def test_cmyk_one_bit_and_palette_files_show_their_colors(tmp_path):
    Image.new("CMYK", (9, 5), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    red = decode_image(tmp_path / "red.jpg").float().mean((1, 2))
    assert red[0] > 200
    assert red[1:].max() < 60
    Image.new("1", (9, 5), 1).save(tmp_path / "white.png")
    assert decode_image(tmp_path / "white.png").min() == 255
    indexed = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 5)
    colors = [(200, 0, 9), (0, 100, 8), (7, 7, 250), (1, 2, 3), (90, 80, 70)]
    indexed.putpalette([channel for color in colors for channel in color])
    indexed.save(tmp_path / "palette.png")
    seen = decode_image(tmp_path / "palette.png")
    for y, x in np.ndindex(3, 4):
        assert tuple(seen[:, y, x].tolist()) == colors[(4 * y + x) % 5]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_show_white(tmp_path, mode):
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[..., :3] = 100
    rgba[:, 4:, 3] = 255
    if mode == "P":
        indexed = Image.fromarray((rgba[..., 3] == 255).astype(np.uint8))
        indexed.putpalette([0, 0, 0, 100, 100, 100])
        indexed.save(tmp_path / "alpha.png", transparency=0)
    else:
        Image.fromarray(rgba).convert(mode).save(tmp_path / "alpha.png")
    seen = decode_image(tmp_path / "alpha.png")
    assert (seen[:, :, :4] == 255).all()
    assert (seen[:, :, 4:] == 100).all()
    half = decode_image(Image.new("RGBA", (4, 3), (100, 0, 200, 51)))[:, 1, 1].tolist()
    assert np.abs(np.array(half) - [0.2 * v + 0.8 * 255 for v in (100, 0, 200)]).max() <= 1


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_rotated_photograph_is_turned_upright(tmp_path, orientation):
    """A smooth image that JPEG keeps closely, with each corner its own colour."""
    corners = torch.tensor([[[20, 200], [90, 160]], [[220, 40], [120, 60]], [[60, 90], [200, 20]]])
    smooth = torch.nn.functional.interpolate(
        corners[None].float(), (40, 56), mode="bilinear", align_corners=True
    )
    stored = smooth[0].round().to(torch.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(as_array(stored)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    seen = decode_image(tmp_path / "turned.jpg")
    expected = stored.rot90({3: 2, 6: -1, 8: 1}[orientation], (1, 2))
    assert seen.shape == expected.shape
    assert (seen.int() - expected.int()).abs().max() < 12
    with Image.open(tmp_path / "turned.jpg") as file:
        assert torch.equal(decode_image(file), seen)


def encoded(kind):
    """The file of a noisy image."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


UNREADABLE = {
    "text": b"this is no image\n" * 20,
    "empty": b"",
    "truncated PNG": encoded("PNG")[:1000],
    "truncated JPEG": encoded("JPEG")[:900],
    "truncated PPM": b"P6 40 40 255\n" + bytes(100),
    "enormous": b"P6 60000 60000 255\n" + bytes(100),
    "without size": b"P6 0 0 255\n",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"holiday\.jpg cannot be read as an image: \S+"):
        decode_image(path)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 4, 5) * 255, r"must lie in 0\.\.1, not .*scale it"),
        (torch.rand(3, 4, 5) - 0.5, r"must lie in 0\.\.1, not -0\.4"),
        (torch.full((3, 4, 5), torch.nan), r"must lie in 0\.\.1, not nan"),
        (
            torch.zeros(3, 4, 5, dtype=torch.int64),
            r"or floating point, not int64; .*torch\.uint8",
        ),
        (torch.zeros(2, 3, 4, 5), r"one image, not a batch of shape \(2, 3, 4, 5\)"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), r"not a batch of shape \(1, 3, 4, 5\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"not a batch of shape \(2, 4, 5, 3\)"),
        (np.zeros((4, 5, 7), np.uint8), r"array of shape \(H, W, 3\), not \(4, 5, 7\)"),
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\); image.transpose\(1, 2, 0\) "),
        (torch.zeros(7, 5, 3, dtype=torch.uint8), r"\(7, 5, 3\); image.permute\(2, 0, 1\) "),
        (torch.zeros(3, 0, 5), r"not \(3, 0, 5\)"),
        (torch.zeros(7), r"not \(7,\)"),
        (["a.png", "b.png"], "not list; pass the images of a list one by one"),
        ([Image.new("RGB", (4, 3))], "not list; pass the images of a list one by one"),
        (b"\x89PNG", "content of 4 bytes cannot be read as an image"),
        (None, "not None, which cv2.imread gives"),
        ("https://example.org/street.jpg", "street.jpg is a URL"),
        (Image.new("I", (4, 3)), "mode 'I' has no defined value range"),
        (Image.new("F", (4, 3)), "mode 'F' has no defined value range"),
    ],
)
def test_other_values_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        decode_image(image)


def test_preprocessing_normalises_every_channel(pixels):
    mean, std = (10.0, 20.0, 30.5), (2.0, 3.0, 4.0)
    batch = Preprocessing(mean, std)(pixels)
    assert batch.shape == (1, 3, 33, 49)
    assert batch.dtype == torch.float32
    for channel in range(3):
        expected = (pixels[channel].double() - mean[channel]) / std[channel]
        torch.testing.assert_close(batch[0, channel], expected.float())
    swapped = Preprocessing(mean[::-1], std[::-1], "BGR")
    assert torch.equal(swapped(pixels), batch.flip(1))
    images = torch.stack([pixels, pixels.flip(1), 255 - pixels])
    assert torch.equal(swapped(images), torch.cat([swapped(image) for image in images]))


def test_preprocessing_survives_json():
    preprocessing = Preprocessing((1.5, 2, 3), (4, 5, 6), "BGR")
    config = json.loads(json.dumps(preprocessing.to_config()))
    assert Preprocessing.from_config(config) == preprocessing
    assert Preprocessing.from_config(None) == Preprocessing()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mean": [1, 2]}, "mean and std must be of as many channels, not 2 and 3"),
        ({"std": [1, 0, 2]}, r"std must be .* 1e-06..1e\+06, not \[1, 0, 2\]"),
        ({"channel_order": "GBR"}, "not 'GBR'"),
        ({"size": 512}, "not size"),
    ],
)
def test_invalid_preprocessing_is_refused(config, message):
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
    options = {"scale_range": (1.0, 1.0), "color_jitter": 0, "preprocessing": preprocessing}
    augment = training_augmentation((40, 30), **options)
    crop, mask = augment(*pair(20, 30))
    padded = mask == 255
    assert padded.sum() >= 20 * 30
    for channel, value in enumerate(mean if order == "RGB" else mean[::-1]):
        assert (crop[channel][padded] == value).all()
    assert preprocessing(crop)[0][:, padded].abs().max() < 1e-6


def test_color_jitter_changes_the_image_alone():
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
        (
            {"crop_size": (5, 5), "preprocessing": Preprocessing().for_channels(4)},
            "color_jitter must be 0 for images of 4 channels, not 0.4",
        ),
        ({"crop_size": (5, 5), "scale_range": (2.0, 1.0)}, r"not 2.0..1.0"),
        ({"crop_size": (5, 5), "scale_step": -1.0}, r"scale_step must be 0 or more, not -1.0"),
        ({"crop_size": (5, 5), "max_class_share": 2.0}, r"max_class_share .* at most 1: 2.0"),
    ],
)
def test_invalid_augmentation_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        training_augmentation(**arguments)
