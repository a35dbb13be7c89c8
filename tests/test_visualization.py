"""Colour maps and overlays."""

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.classes import CAMVID, LabelSet
from ccnet.visualization import colorize, overlay


@pytest.fixture
def labels():
    labels = torch.randint(0, len(CAMVID), (5, 9), dtype=torch.uint8)
    labels[2, 3:] = 255
    return labels


def test_a_colour_map_holds_the_labels_and_shows_their_colours(labels):
    picture = colorize(labels, CAMVID)
    assert picture.mode == "P"
    assert picture.size == (9, 5)
    assert np.array_equal(np.array(picture), labels.numpy())
    shown = np.array(picture.convert("RGB"))
    for y, x in np.ndindex(5, 9):
        label = int(labels[y, x])
        assert tuple(shown[y, x]) == (CAMVID.colors[label] if label < 11 else (0, 0, 0))


def test_a_colour_map_of_labels_that_are_not_contiguous(labels):
    assert np.array_equal(np.array(colorize(labels.T, CAMVID)), labels.T.numpy())


def test_an_overlay_goes_from_the_picture_to_the_colours(labels):
    image = torch.randint(0, 256, (3, 5, 9), dtype=torch.uint8)
    picture = image.movedim(0, -1).numpy()
    colors = np.array(colorize(labels, CAMVID).convert("RGB"))
    ignored = (labels == 255).numpy()[..., None]
    for opacity in (0, 0.25, 1):
        shown = overlay(image, labels, CAMVID, opacity)
        assert isinstance(shown, Image.Image)
        assert shown.mode == "RGB"
        assert shown.size == (9, 5)
        mixed = np.where(ignored, picture, (1 - opacity) * picture + opacity * colors)
        assert np.abs(np.array(shown) - mixed).max() <= 1


def test_ignored_pixels_are_black_with_255_classes():
    shown = colorize(torch.full((1, 1), 255, dtype=torch.uint8), LabelSet.numbered(255))
    assert shown.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
def test_an_opacity_out_of_range(labels, opacity):
    with pytest.raises(ValueError, match=rf"opacity must be in 0\.\.1, not {opacity}"):
        overlay(torch.zeros(3, 5, 9, dtype=torch.uint8), labels, CAMVID, opacity)


def test_sizes_that_differ(labels):
    with pytest.raises(ValueError, match=r"\(3, 9, 5\) and labels \(5, 9\) differ"):
        overlay(torch.zeros(3, 9, 5, dtype=torch.uint8), labels, CAMVID)
