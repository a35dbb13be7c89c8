"""Colour maps, overlays, heat maps, and the capture of queries and keys."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.classes import CAMVID, LabelSet
from ccnet.visualization import (
    capture_queries_and_keys,
    colorize,
    display_colors,
    heat_colors,
    heat_levels,
    heat_overlay,
    map_position,
    mark_pixel,
    overlay,
)


@pytest.fixture
def labels():
    labels = torch.randint(0, len(CAMVID), (5, 9), dtype=torch.uint8)
    labels[2, 3:] = 255
    return labels


def test_color_map_holds_the_labels_and_shows_their_colors(labels):
    colors = colorize(labels, CAMVID)
    assert (colors.mode, colors.size) == ("P", (9, 5))
    assert np.array_equal(np.array(colors), labels.numpy())
    shown = np.array(colors.convert("RGB"))
    for y, x in np.ndindex(5, 9):
        label = int(labels[y, x])
        assert tuple(shown[y, x]) == (CAMVID.colors[label] if label < 11 else (0, 0, 0))
    assert np.array_equal(np.array(colorize(labels.T, CAMVID)), labels.T.numpy())
    shown = colorize(torch.full((1, 1), 255, dtype=torch.uint8), LabelSet.numbered(255))
    assert shown.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


def test_overlay_goes_from_the_image_to_the_colors(labels):
    image = torch.randint(0, 256, (3, 5, 9), dtype=torch.uint8)
    array = image.movedim(0, -1).numpy()
    colors = np.array([*display_colors(CAMVID)])[labels.clamp(max=10).numpy()]
    ignored = (labels == 255).numpy()[..., None]
    for opacity in (0, 0.25, 1):
        shown = overlay(image, labels, CAMVID, opacity)
        assert (shown.mode, shown.size) == ("RGB", (9, 5))
        mixed = np.where(ignored, array, (1 - opacity) * array + opacity * colors)
        assert np.abs(np.array(shown) - mixed).max() <= 1
    for opacity in (-0.1, 1.5, float("nan"), "0.5", None):
        with pytest.raises(ValueError, match=rf"opacity must be in 0\.\.1, not {opacity!r}"):
            overlay(image, labels, CAMVID, opacity)
    with pytest.raises(ValueError, match=r"\(3, 9, 5\) and labels \(5, 9\) differ"):
        overlay(image.mT, labels, CAMVID)


def test_corners_of_the_image_are_corners_of_the_map():
    corners = [(0, 0), (0, 49), (32, 0), (32, 49)]
    found = [map_position(corner, (33, 50), (5, 7)) for corner in corners]
    assert found == [(0, 0), (0, 6), (4, 0), (4, 6)]
    assert map_position((16, 8), (33, 50), (5, 7)) == (2, 1)
    assert map_position((0, 3), (1, 9), (1, 1)) == (0, 0)
    for row, column in ((-1, 0), (0, -1), (33, 0), (0, 50)):
        message = rf"row {row}, column {column} .* 33 rows and 50 columns"
        with pytest.raises(ValueError, match=message):
            map_position((row, column), (33, 50), (5, 7))


def test_heat_colors_grow_lighter():
    colors = heat_colors(np.linspace(0, 1, 101)).astype(float)
    lightness = colors @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.5).all()
    assert lightness[0] < 70
    assert lightness[-1] > 240


def test_heat_is_where_the_weights_are():
    image = torch.randint(0, 256, (3, 33, 50), dtype=torch.uint8)
    weights = torch.zeros(5, 7)
    weights[1, 6], weights[3, 0] = 0.9, 0.1
    shown = np.array(heat_overlay(image, weights)).astype(int)
    assert shown.shape == (33, 50, 3)
    is_grey = shown.max(axis=-1) == shown.min(axis=-1)
    for y, x in np.ndindex(33, 50):
        assert is_grey[y, x] == (map_position((y, x), (33, 50), (5, 7)) not in {(1, 6), (3, 0)})
    assert shown[8, 49].sum() > shown[24, 0].sum()
    ones = torch.ones(5, 7)
    for invalid in (ones[None] / 35, -ones, 2 * ones, ones * torch.nan):
        with pytest.raises(ValueError, match=r"weights must be \(h, w\) in 0\.\.1"):
            heat_overlay(image, invalid)


def test_linear_scale_goes_from_nothing_to_the_top():
    weights = torch.tensor([[0, 0.1, 0.2, 0.4, 1.0]], dtype=torch.float64)
    levels = heat_levels(weights, "linear", top=0.4)
    assert levels.tolist() == [pytest.approx([0, 0.25, 0.5, 1, 1])]
    levels = heat_levels(torch.tensor([[1, 1e-3, 1e-6, 0.0]]))
    assert levels.tolist() == [pytest.approx([1, 0.5, 0, 0], abs=1e-6)]
    with pytest.raises(ValueError, match="scale must be 'logarithmic' or 'linear', not 'log'"):
        heat_levels(weights, "log")
    with pytest.raises(ValueError, match="image of 4 channels cannot be shown"):
        heat_overlay(torch.zeros(4, 1, 5, dtype=torch.uint8), weights)


def test_weights_of_different_magnitudes_have_different_colors():
    weights = torch.tensor([[1, 1e-2, 1e-4, 1e-6, 1e-9, 0]], dtype=torch.float64)
    shown = np.array(heat_overlay(torch.zeros(3, 1, 6, dtype=torch.uint8), weights)).astype(int)
    brightness = shown.sum(axis=-1)[0]
    assert (brightness[:3] > brightness[1:4]).all()
    assert brightness[2] > brightness[3] == brightness[4] == brightness[5] == 0
    assert tuple(shown[0, 0]) == tuple(heat_colors(np.ones(1))[0])


def test_mark_is_a_ring_around_the_pixel():
    image = Image.new("RGB", (90, 60), "red")
    marked = np.array(mark_pixel(image, (20, 70)))
    assert np.array_equal(np.array(image), np.array(Image.new("RGB", (90, 60), "red")))
    rows, columns = np.nonzero((marked != np.array(image)).any(axis=-1))
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (40, 140)
    assert rows.max() - rows.min() < 20
    assert tuple(marked[20, 70]) == (255, 0, 0)


def test_capture_leaves_out_other_threads(model, pixels):
    with capture_queries_and_keys(model.head.cca) as alone:
        model.predict(pixels)
    with capture_queries_and_keys(model.head.cca) as loops:
        other = threading.Thread(target=model.predict, args=(pixels.flip(1),))
        other.start()
        other.join()
        model.predict(pixels)
    assert len(loops) == len(alone) == 2
    for found, expected in zip(loops, alone, strict=True):
        assert all(map(torch.equal, found, expected))


def test_capture_ends_with_the_block(model, pixels):
    cca, inputs = model.head.cca, []
    with (
        cca.register_forward_pre_hook(lambda module, given: inputs.append(given[0].clone())),
        capture_queries_and_keys(cca) as loops,
    ):
        model.predict(pixels)
    model.predict(pixels)
    assert len(loops) == len(inputs) == 2
    with torch.inference_mode():
        for x, (query, key) in zip(inputs, loops, strict=True):
            torch.testing.assert_close(query, cca.query_conv(x).double(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(key, cca.key_conv(x).double(), rtol=1e-4, atol=1e-5)
    assert {x.dtype for loop in loops for x in loop} == {torch.float64}

    def fail():
        with capture_queries_and_keys(model.head.cca):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not model.head.cca.query_conv._forward_hooks
    assert not model.head.cca.key_conv._forward_hooks
    with pytest.raises(ValueError, match="no attention: its recurrence is 0"):
        capture_queries_and_keys(None).__enter__()
