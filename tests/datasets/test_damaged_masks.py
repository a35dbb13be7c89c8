"""Numbers that nobody drew, as JPEG and blending make them; and drawings that look like these."""

import json
import logging
from functools import partial

import numpy as np
import pytest
from mask_drawings import SIZE, blended, ellipse, rectangles, through_jpeg, write_masks
from PIL import Image, ImageFilter

from ccnet.datasets import MaskFolder


def ellipses(inside):
    return [ellipse(number, inside) for number in range(4)]


def drawn(*labels):
    """Regions of a usual size."""
    return [rectangles(number, labels).resize((300, 225), 0) for number in range(12)]


def outlined():
    """Three classes that are lines between others."""
    mask = np.asarray(rectangles(0, [0, 4, 5, 6, 7])).copy()
    mask[40:60, 30:80] = 0
    for label in (1, 2, 3):
        mask[48 + label, 30:80] = label
    mask[52:60, 30:80] = 7
    return mask


def bordered(number):
    """A cell in a border of one pixel, whose number lies between those inside and outside."""
    cell = ellipse(number)
    inside = cell.filter(ImageFilter.MinFilter(3))
    return np.asarray(cell) + np.asarray(inside)


def noise(count, number):
    return np.random.default_rng(number).integers(0, count, SIZE, np.uint8)


def layers(height, slope):
    """Eight layers on each other."""
    rows, columns = np.indices(SIZE)
    return np.clip((rows - 30 - slope * columns) // height, 0, 8).astype(np.uint8)


def rings(number):
    """Seven rings of two pixels."""
    rows, columns = np.indices(SIZE)
    distance = np.hypot(rows - 40 - 8 * number, columns - 60)
    return np.clip(7 - distance // 2, 0, 7).astype(np.uint8)


def photograph(number):
    return Image.fromarray(noise(256, number)).filter(ImageFilter.GaussianBlur(2))


DRAWN = {
    "regions": drawn(*range(21)),
    "few regions": drawn(0, 1, 2),
    "outlines between regions": [outlined()],
    "cells with borders": [bordered(number) for number in range(4)],
    "layers": [layers(1, 0), layers(2, 0.25), layers(3, 0.7)],
    "rings": [rings(number) for number in range(3)],
    "noise of 3": [noise(3, number) for number in (0, 1)],
    "noise of 20": [noise(20, number) for number in (0, 1)],
    "few pixels": [noise(5, number)[:8, :8] for number in range(4)],
}

DAMAGED = {
    "two levels, JPEG": (through_jpeg, ellipses(255)),
    "two levels, JPEG of high quality": (partial(through_jpeg, quality=95), ellipses(255)),
    "several levels, JPEG": (through_jpeg, [rectangles(n, range(0, 250, 50)) for n in range(4)]),
    "two levels, blended": (blended, ellipses(255)),
    "low numbers, blended": (blended, ellipses(15)),
    "neighbours, blended": (blended, ellipses(5)),
    "crowded classes, blended": (blended, [rectangles(n, range(21)) for n in range(12)]),
    "12 classes, blended": (blended, drawn(*range(12))),
    "12 classes, JPEG": (through_jpeg, drawn(*range(12))),
    "21 classes, JPEG of high quality": (partial(through_jpeg, quality=95), drawn(*range(21))),
    "photographs": (np.asarray, [photograph(number) for number in range(2)]),
}
"""What is done to masks."""

REASON = "lie between a lower and a higher number, as after JPEG or a resize that blends"


@pytest.mark.parametrize("masks", DRAWN.values(), ids=DRAWN)
def test_drawings_are_accepted(tmp_path, caplog, masks):
    caplog.set_level(logging.WARNING)
    folder = MaskFolder(write_masks(tmp_path / "own", masks))
    assert len(folder.label_set) == 1 + max(np.asarray(mask).max() for mask in masks)
    assert not caplog.records


@pytest.mark.parametrize(("change", "masks"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_masks_are_refused(tmp_path, change, masks):
    root = write_masks(tmp_path / "own", [change(mask) for mask in masks])
    with pytest.raises(ValueError, match=f"{REASON}.*if thin regions were drawn so, name the"):
        MaskFolder(root)


@pytest.mark.parametrize("quality", [75, 90, 95])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_pixels_above_the_numbers_drawn_are_a_warning(tmp_path, caplog, count, quality):
    caplog.set_level(logging.WARNING)
    masks = [rectangles(number, range(count)).resize((400, 300), 0) for number in range(3)]
    root = write_masks(tmp_path / "own", [through_jpeg(mask, quality) for mask in masks])
    MaskFolder(root)
    assert "nearly all of them at edges, as after JPEG" in caplog.text
    (root / "classes.json").write_text(json.dumps(["a", "b", "c", "d"][:count]))
    with pytest.raises(ValueError, match="nearly all of these are at edges, as after JPEG"):
        MaskFolder(root)


def test_too_few_names_for_damaged_masks_are_an_error(tmp_path):
    root = write_masks(tmp_path / "own", [through_jpeg(mask) for mask in ellipses(255)], ["a", "b"])
    with pytest.raises(ValueError, match=f"have the labels.*{REASON}"):
        MaskFolder(root)


@pytest.mark.parametrize(
    "masks", [[blended(mask) for mask in ellipses(15)], [layers(1, 0.7)]], ids=["blended", "layers"]
)
def test_numbers_that_all_have_names_are_a_warning(tmp_path, caplog, masks):
    caplog.set_level(logging.WARNING)
    MaskFolder(write_masks(tmp_path / "own", masks, [f"thing {index}" for index in range(16)]))
    assert f"look damaged: many pixels at edges {REASON}" in caplog.text
