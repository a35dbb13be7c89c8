"""Photographic effects on the painted raster: surface texture, light, lens and sensor."""

import numpy as np
from PIL import Image

from ccnet.datasets.street_scenes.canvas import SUPERSAMPLING, Canvas
from ccnet.datasets.street_scenes.sampling import smooth_noise

# Noise grid (rows, columns), and the strength of the noise for each class
# fmt: off
FINE = (180, 240), [0, 0.07, 0.04, 0.04, 0.07, 0.28, 0.02, 0.07, 0.02, 0.08, 0.08]
BLOTCHY = (36, 48), [0, 0.1, 0, 0.04, 0.04, 0.16, 0.04, 0.1, 0.04, 0.06, 0.06]
FLATTENED = (240, 40), [0, 0, 0, 0.08, 0.08, 0, 0, 0, 0, 0, 0]  # foreshortened, for the ground
# fmt: on


def develop(canvas: Canvas) -> tuple[Image.Image, Image.Image]:
    """Renders the final image and its label map, both of the canvas's `size`."""
    rng, size = canvas.rng, canvas.size
    labels = np.asarray(canvas.raster.getchannel("A"))[::SUPERSAMPLING, ::SUPERSAMPLING]
    picture = canvas.raster.convert("RGB").reduce(SUPERSAMPLING)
    light = np.ones(size, np.float32)
    for grid, strengths in (FINE, BLOTCHY, FLATTENED):
        light += np.array(strengths, np.float32)[labels] * smooth_noise(rng, grid, size)
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    light *= 1 - rng.uniform(0.02, 0.16) * (rows[:, None] ** 2 + columns**2)
    gain = np.array(canvas.weather.cast) * rng.uniform(0.85, 1.12) * rng.uniform(0.97, 1.03, 3)
    pixels = np.asarray(picture, np.float32) * gain.astype(np.float32)
    pixels *= light[..., None]
    pixels = (pixels - 110) * np.float32(rng.uniform(0.9, 1.15)) + 110
    noise = rng.standard_normal((*size, 1), np.float32)
    pixels += noise * np.float32(rng.uniform(0.8, 4))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), Image.fromarray(labels)
