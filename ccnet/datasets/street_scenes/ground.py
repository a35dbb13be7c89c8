"""Ground: road with markings and worn patches, kerbs, pavements, and verges."""

import numpy as np

from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.colors import GREENS, WHITE, Color, mix, shade
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.world import FAR, KERB, NEAR, PAVEMENT, ROAD, TREE, Pair

SPAN = (NEAR, FAR)


def paint_ground(canvas: Canvas, half: float, edges: Pair) -> None:
    """Paints the ground of a street.

    Args:
        canvas: to paint on.
        half: half the width of the road, in metres.
        edges: distances of the left and right pavement's outer edges from the road's middle.
    """
    rng = canvas.rng
    asphalt = shade(mix((104, 104, 108), (132, 124, 116), rng.random()), rng.uniform(0.75, 1.1))
    slabs = shade(mix((168, 160, 150), (176, 150, 132), rng.random()), rng.uniform(0.85, 1.1))
    for left, right in ((-90.0, -edges[0]), (edges[1], 90.0)):
        grass = rng.random() < 0.5
        color, label = (pick(rng, GREENS), TREE) if grass else (slabs, PAVEMENT)
        canvas.strip((left, 0.1), (right, 0.1), SPAN, color, label)
    canvas.strip((-half, 0), (half, 0), SPAN, asphalt, ROAD)
    _paint_worn_patches(canvas, half, asphalt)
    if canvas.weather.ambient < 0.6:
        _paint_shadow(canvas, half, asphalt)
    _paint_markings(canvas, half, mix(asphalt, WHITE, rng.uniform(0.55, 0.9)))
    _paint_pavements(canvas, half, edges, slabs)


def _paint_worn_patches(canvas: Canvas, half: float, asphalt: Color) -> None:
    rng = canvas.rng
    for _ in range(int(rng.integers(2, 7))):
        x, z = rng.uniform(-half, half - 1.2), rng.uniform(4, 30)
        worn = shade(asphalt, rng.uniform(0.82, 1.12))
        span = (z, z + rng.uniform(1, 9))
        canvas.strip((x, 0), (min(half, x + rng.uniform(0.6, 2.5)), 0), span, worn, ROAD)


def _paint_shadow(canvas: Canvas, half: float, asphalt: Color) -> None:
    """Paints the shadow of the houses on the side of the sun."""
    rng = canvas.rng
    shaded = -half if canvas.sun[0] < 0 else half
    left, right = sorted((shaded, shaded * rng.uniform(-0.2, 0.7)))
    span = (NEAR, rng.uniform(12, 60))
    canvas.strip((left, 0), (right, 0), span, shade(asphalt, 0.62), ROAD)


def _paint_markings(canvas: Canvas, half: float, paint: Color) -> None:
    """Paints a broken centre line, perhaps side lines, and perhaps a crossing."""
    rng = canvas.rng
    for z in np.arange(rng.uniform(2, 5), 90, pick(rng, [4.0, 6.0]))[::-1]:
        canvas.strip((-0.07, 0), (0.07, 0), (z, z + 2.2), paint, ROAD)
    for x in (-half + 0.3, half - 0.42):
        if rng.random() < 0.6:
            canvas.strip((x, 0), (x + 0.12, 0), SPAN, paint, ROAD)
    if rng.random() < 0.3:
        z = rng.uniform(7, 22)
        for x in np.arange(-half + 0.3, half - 0.5, 1.0):
            canvas.strip((x, 0), (x + 0.5, 0), (z, z + 3), paint, ROAD)


def _paint_pavements(canvas: Canvas, half: float, edges: Pair, slabs: Color) -> None:
    for side, edge in zip((-1, 1), edges, strict=True):
        top, outer = (side * half, KERB), (side * edge, KERB)
        canvas.strip(min(top, outer), max(top, outer), SPAN, slabs, PAVEMENT)
        gutter, stone = (side * half, 0.0), (side * (half + 0.15), KERB)
        canvas.strip(
            min(gutter, stone), max(gutter, stone), SPAN, mix(slabs, WHITE, 0.35), PAVEMENT
        )
