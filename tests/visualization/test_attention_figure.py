"""The figure of attention: its panels, marks and scales, for any number of loops."""

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.visualization import attention_figure, draw_attention, heat_overlay, record_attention
from ccnet.visualization.attention_figure import GAP


@pytest.fixture(scope="module")
def record(model):
    torch.manual_seed(3)
    return record_attention(model, torch.randint(0, 256, (3, 132, 196), dtype=torch.uint8))


@pytest.mark.parametrize("recurrence", [1, 3])
def test_there_is_a_panel_for_every_loop(make_model, pixels, recurrence):
    figure = attention_figure(make_model(recurrence=recurrence), pixels, (0, 0), width=98)
    assert figure.width == 2 * 98 + GAP
    rows = {1: 2, 3: 3}[recurrence]
    panels = rows * (round(98 / 14) + 66 + GAP)
    assert panels < figure.height < panels + 150


def test_figure_shows_the_panels_in_order(record):
    pixel = 20, 150
    figure = np.array(draw_attention(record, pixel, width=196))
    line, across = round(196 / 14), 196 + GAP
    down = line + 132 + GAP
    image = record.result.image.movedim(0, -1).numpy()
    heat = [np.asarray(heat_overlay(record.result.image, one)) for one in record.maps(pixel)]
    expected = [image, np.asarray(record.result.overlay()), *heat]
    marked = []
    for index, panel in enumerate(expected):
        left, top = index % 2 * across, index // 2 * down + line
        shown = figure[top : top + 132, left : left + 196]
        same = (shown == panel).all(axis=-1)
        marked.append((~same).mean())
        others = [(shown == other).all(axis=-1).mean() for other in expected if other is not panel]
        assert same.mean() > max(0.3, *others)
        assert not same[10:31, 140:161].all(), "the ring"
    assert 0 < marked[0] < marked[1] < marked[2]


def test_scale_changes_the_maps_alone(record):
    logarithmic, linear = (
        np.array(draw_attention(record, (66, 98), scale=scale, width=196))
        for scale in ("logarithmic", "linear")
    )
    assert logarithmic.shape == linear.shape
    first = round(196 / 14) + 132
    assert np.array_equal(logarithmic[:first], linear[:first])
    assert (logarithmic[first:] != linear[first:]).any()
    with pytest.raises(ValueError, match="scale must be 'logarithmic' or 'linear', not 'log'"):
        draw_attention(record, (66, 98), scale="log")


def test_pixel_is_the_centre_unless_given(model, pixels):
    figure = attention_figure(model, Image.fromarray(pixels.movedim(0, -1).numpy()), width=98)
    assert figure.tobytes() == attention_figure(model, pixels, (16, 24), width=98).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1), (9, 200)])
def test_pictures_of_any_form_can_be_drawn(model, size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    figure = attention_figure(model, image, (size[0] - 1, size[1] - 1), width=60)
    assert figure.width == 2 * 60 + GAP


def test_grey_pictures_can_be_drawn(make_model):
    image = torch.randint(0, 256, (1, 33, 49), dtype=torch.uint8)
    assert attention_figure(make_model(in_channels=1), image, width=60).mode == "RGB"


def test_figure_refuses(make_model, model, pixels):
    with pytest.raises(ValueError, match="row 33, column 0 is outside the image"):
        attention_figure(model, pixels, (33, 0))
    for pixel in ((1.5, 2), (1,), (1, 2, 3), "ab", 7, (True, 2), torch.tensor([0.5, 1])):
        with pytest.raises(ValueError, match="pixel must be two whole numbers, row and column"):
            attention_figure(model, pixels, pixel)
    for width in (15, 4097, 0, -1, 99.5, None):
        with pytest.raises(ValueError, match=r"width must be a whole number in 16\.\.4096, not "):
            attention_figure(model, pixels, width=width)
    with pytest.raises(ValueError, match="no attention: its recurrence is 0"):
        attention_figure(make_model(recurrence=0), pixels)
    image = torch.zeros(4, 33, 49, dtype=torch.uint8)
    with pytest.raises(ValueError, match="image of 4 channels cannot be shown"):
        attention_figure(make_model(in_channels=4), image)
