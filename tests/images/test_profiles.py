"""Colour profiles: what a picture is in sRGB, by the formulas."""

import logging
from concurrent.futures import ThreadPoolExecutor

import icc_profiles as icc
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from ccnet.images import decode_image, profiles

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)

LAB = np.random.default_rng(1).uniform((30, -15, -15), (80, 15, 15), (16, 3))
LAB[0] = (100, 0, 0)
"""Colours of the mixtures of four inks; without ink it is the white of the paper."""


def seen(path):
    return decode_image(path).movedim(0, -1).numpy().astype(int)


RGB_PROFILES = {
    "Display P3": ("Display P3", None),
    "Adobe RGB": ("Adobe RGB", 563 / 256),
    "linear": ("sRGB", 1.0),
    "nearly sRGB": ("sRGB", 2.2),
}


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize(("primaries", "gamma"), RGB_PROFILES.values(), ids=RGB_PROFILES)
def test_rgb_profiles(tmp_path, primaries, gamma, suffix):
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    profile = icc.rgb_profile(primaries, gamma)
    Image.fromarray(PIXELS).save(path, icc_profile=profile, **options)
    expected = icc.shown_in_srgb(PIXELS, primaries, gamma)
    assert np.abs(expected - PIXELS).max() > 5
    assert np.abs(seen(path) - expected).max() <= 1
    with Image.open(path) as image:
        assert np.array_equal(seen(image), seen(path))


def test_opacity_is_blended_after_the_conversion(tmp_path):
    alpha = np.random.default_rng(2).integers(0, 256, (24, 31, 1), np.uint8)
    picture = Image.fromarray(np.dstack([PIXELS, alpha]))
    picture.save(tmp_path / "a.png", icc_profile=icc.rgb_profile("Display P3"))
    share = alpha / 255
    expected = icc.shown_in_srgb(PIXELS, "Display P3") * share + 255 * (1 - share)
    assert np.abs(seen(tmp_path / "a.png") - expected).max() <= 1.5


@pytest.mark.parametrize("gamma", [1.0, 1.8, 3.0])
def test_grey_profiles(tmp_path, gamma):
    grey = PIXELS[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=icc.grey_profile(gamma))
    linear = (grey[..., None] / 255) ** gamma
    expected = icc.from_xyz(linear * icc.D50)
    assert np.abs(seen(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk_profiles(tmp_path, suffix):
    """JPEG keeps CMYK inverted, as Adobe's programs do."""
    mixture = np.random.default_rng(3).integers(0, 16, (4, 6))
    inks = (mixture[..., None] >> np.arange(3, -1, -1) & 1) * 255
    inks = inks.astype(np.uint8).repeat(16, 0).repeat(16, 1)
    options = {"quality": 100} if suffix == "jpg" else {}
    path = tmp_path / f"a.{suffix}"
    image = Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes())
    image.save(path, icc_profile=icc.cmyk_profile(LAB), **options)
    expected = icc.from_lab(LAB)[mixture].repeat(16, 0).repeat(16, 1)
    assert np.abs(seen(path) - expected).mean() <= (3 if suffix == "jpg" else 1.5)
    assert np.abs(seen(path) - expected).max() <= (20 if suffix == "jpg" else 4)


def test_cielab(tmp_path):
    colors = [(54, 80, 68), (88, -79, 81), (50, 0, 0), (97, -15, 94)]
    coded = np.round(np.array([colors]) * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8)
    bands = [Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(coded, 2, 0)]
    Image.merge("LAB", bands).save(tmp_path / "a.tiff")
    assert np.abs(seen(tmp_path / "a.tiff") - icc.from_lab([colors])).max() <= 12


UNCHANGED = {
    "LittleCMS's sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "another sRGB": icc.rgb_profile("sRGB"),
    "grey for RGB": icc.grey_profile(3.0),
    "CMYK for RGB": icc.cmyk_profile(LAB),
    "no profile": b"this is no profile" * 20,
    "zeros": bytes(400),
    "cut": icc.rgb_profile("Display P3")[:300],
    "cut table": icc.cmyk_profile(LAB)[:400],
}


@pytest.mark.parametrize("profile", UNCHANGED.values(), ids=UNCHANGED)
def test_other_profiles_change_nothing(tmp_path, profile):
    """Not by rounding either."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(seen(tmp_path / "a.png"), PIXELS)


def test_threads_share_a_profile(tmp_path):
    paths = []
    for index in range(6):
        paths.append(tmp_path / f"{index}.png")
        rolled = Image.fromarray(np.roll(PIXELS, index, 0))
        rolled.save(paths[-1], icc_profile=icc.rgb_profile("Display P3"))
    expected = [decode_image(path) for path in paths]
    profiles._conversion.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(decode_image, paths * 20))
    assert all(torch.equal(*pair) for pair in zip(results, expected * 20, strict=True))


def test_pillow_without_color_management(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, icc_profile=icc.rgb_profile("Display P3"))
    profiles._conversion.cache_clear()
    profiles._has_color_management.cache_clear()
    monkeypatch.setattr(profiles.features, "check", lambda name: False)
    try:
        for _ in range(2):
            assert np.array_equal(seen(path), PIXELS)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "colour profiles of pictures are ignored" in record.getMessage()
        with pytest.raises(ValueError, match="CIELab needs Pillow with LittleCMS"):
            decode_image(Image.new("LAB", (2, 3)))
    finally:
        profiles._conversion.cache_clear()
        profiles._has_color_management.cache_clear()
