"""Trees and hedges."""

import math

import numpy as np

from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.colors import GREENS, Color, mix, shade
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.world import KERB, TREE, Pair, Point

# Height in metres, half the width per height, taper in 0..1
TREES = [(7.5, 0.36, 0.2), (10.0, 0.2, 0.4), (8.5, 0.24, 0.95), (5.5, 0.42, 0.0), (11.0, 0.32, 0.3)]


def paint_tree(canvas: Canvas, x: float, z: float) -> None:
    """Paints a tree that stands at (x, z)."""
    rng = canvas.rng
    height, girth, taper = pick(rng, TREES)
    height *= rng.uniform(0.75, 1.25)
    bark = mix((84, 66, 50), (120, 112, 98), rng.random())
    canvas.stroke([(x, KERB, z), (x, 0.6 * height, z)], 0.045 * height, bark, TREE)
    centre, radii = (x, height * 0.64, z), (height * girth, 0.36 * height)
    _paint_foliage(canvas, centre, radii, pick(rng, GREENS), taper)


def paint_hedge(canvas: Canvas, x: float, z0: float, z1: float) -> None:
    """Paints a hedge along the road from z0 to z1."""
    rng = canvas.rng
    green, height = pick(rng, GREENS), rng.uniform(0.5, 0.9)
    for z in np.arange(z1, z0, -1.2 if z0 < 25 else -2.4):
        _paint_foliage(canvas, (x, height, z), (0.8, height), green)


def _paint_foliage(
    canvas: Canvas, centre: Point, radii: Pair, color: Color, taper: float = 0.0
) -> None:
    """Paints foliage as overlapping blobs, from dark below to bright on the sunny side."""
    (x, y, z), (a, b) = centre, radii
    count = int(min(160, max(8, 1150 * a / z)))
    turn, area, hue, bulk = canvas.rng.random((4, count))
    share, angle, out = np.linspace(0, 1, count), math.tau * turn, np.sqrt(area)
    rise = np.sin(angle) * out
    width = a * (1 - taper * (rise + 1) / 2)
    columns = (
        x + width * np.cos(angle) * out + 0.12 * a * share * canvas.sun[0],
        y + b * rise + 0.08 * b * share,
        (0.25 * width + 0.75 * a) * (0.4 + bulk) * (1.25 - 0.6 * share) * 1.8 / count**0.5,
        0.5 + 0.45 * share + 0.2 * rise,
        0.25 * hue,
    )
    for right, up, radius, tone, tint in np.stack(columns, axis=1).tolist():
        leaf = shade(mix(color, (150, 150, 60), tint), tone)
        canvas.disc((right, up, z), (radius, 0.85 * radius), leaf, TREE)
