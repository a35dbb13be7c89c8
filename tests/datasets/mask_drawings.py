"""Masks as people have them: drawn, blended, compressed; and folders of such masks."""

import io
import json

import numpy as np
from PIL import Image, ImageDraw

SIZE = 96, 128
"""Height and width of drawn masks."""


def ellipse(number, inside=1, outside=0):
    """One region on a background, at another place for each number."""
    left, top = np.random.default_rng(number).integers(10, 60, 2).tolist()
    mask = Image.new("L", SIZE[::-1], outside)
    ImageDraw.Draw(mask).ellipse([left, top, left + 50, top + 30], fill=inside)
    return mask


def rectangles(number, labels, count=30):
    """Overlapping regions of these labels on the first of them, others for each number."""
    rng = np.random.default_rng(number)
    mask = Image.new("L", SIZE[::-1], int(labels[0]))
    for _ in range(count):
        left, top, width, height = (
            rng.integers(0, 100, 2).tolist() + rng.integers(4, 40, 2).tolist()
        )
        box = [left, top, left + width, top + height]
        ImageDraw.Draw(mask).rectangle([int(edge) for edge in box], fill=int(rng.choice(labels)))
    return mask


def through_jpeg(mask, quality=75):
    file = io.BytesIO()
    mask.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")


def blended(mask):
    """At half the size, by a resize that interpolates."""
    return mask.resize((SIZE[1] // 2, SIZE[0] // 2), Image.Resampling.BILINEAR)


def painted(values, colors):
    """Numbers (H, W) with a palette."""
    mask = Image.fromarray(np.asarray(values, np.uint8))
    mask.putpalette([channel for color in colors for channel in color])
    return mask


def write_masks(root, masks, classes=None, suffix="png"):
    """Writes masks, images of their sizes, and classes.json, as a `MaskFolder`."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, mask in enumerate(masks):
        mask = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask))
        Image.new("RGB", mask.size, "olive").save(root / "images" / f"{number}.png")
        mask.save(root / "masks" / f"{number}.{suffix}")
    if classes is not None:
        (root / "classes.json").write_text(json.dumps(classes))
    return root
