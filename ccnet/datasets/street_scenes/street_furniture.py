"""Street furniture: fences, street lamps, traffic lights and traffic signs."""

import math

import numpy as np

from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.colors import BLACK, LIT, STEEL, WHITE, mix, shade
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.world import FENCE, KERB, POLE, SIGN

FENCES = [(120, 92, 64), (70, 72, 76), (196, 192, 182), (48, 62, 54), (150, 126, 96)]
SIGNALS = [(236, 48, 38), (250, 176, 40), (60, 220, 110)]  # from top to bottom
SIGN_COLORS = [  # rim and face
    ((196, 36, 40), WHITE),
    ((230, 232, 232), (36, 84, 164)),
    ((232, 232, 228), (28, 104, 70)),
    ((40, 40, 40), (238, 190, 50)),
    ((232, 230, 226), (190, 34, 40)),
]
SIGN_SHAPES = [  # corners, width per height, angle of the first corner
    (24, 1.0, 0.0),
    (24, 1.0, 0.0),
    (3, 1.1, 0.0),
    (4, 1.0, 0.0),
    (8, 1.0, math.pi / 8),
    (4, 2.0, math.pi / 4),
]


def paint_fence(canvas: Canvas, x: float, z0: float, z1: float) -> None:
    """Paints a fence of bars or of boards along the road from z0 to z1."""
    rng = canvas.rng
    height, barred = rng.uniform(0.9, 1.9), rng.random() < 0.65
    wood = pick(rng, FENCES)
    filling = mix(wood, (70, 78, 60), 0.7) if barred else wood
    post, thickness = (shade(wood, 1.15), 0.07) if barred else (shade(wood, 0.75), 0.03)
    canvas.box((x - 0.05, 0.1, z0), (x + 0.05, height, z1), filling, FENCE)
    for z in np.arange(z1, z0, -0.35 if z0 < 25 else -1.2):
        canvas.stroke([(x, 0.1, z), (x, height, z)], thickness, post, FENCE)
    for y in (0.3 * height, height):
        canvas.stroke([(x, y, z0), (x, y, z1)], 0.07, shade(wood, 1.05), FENCE)


def paint_lamp(canvas: Canvas, x: float, z: float) -> None:
    """Paints a street lamp at (x, z) whose arm reaches over the road."""
    rng = canvas.rng
    height, arm = rng.uniform(5, 8.5), -math.copysign(rng.uniform(0.5, 1.8), x)
    metal, girth = shade(STEEL, rng.uniform(0.5, 1.3)), rng.uniform(0.14, 0.26)
    canvas.stroke([(x, KERB, z), (x, 1.2, z)], 1.7 * girth, metal, POLE)
    canvas.stroke([(x, KERB, z), (x, height, z), (x + arm, height + 0.3, z)], girth, metal, POLE)
    canvas.disc((x + arm, height + 0.25, z), (0.4, 0.14), mix(metal, LIT, 0.6), POLE)


def paint_traffic_light(canvas: Canvas, x: float, z: float) -> None:
    """Paints a traffic light at (x, z) with one of its three lamps lit."""
    canvas.stroke([(x, KERB, z), (x, 2.4, z)], 0.16, STEEL, POLE)
    canvas.box((x - 0.24, 2.3, z), (x + 0.24, 3.35, z + 0.25), BLACK, SIGN)
    on = int(canvas.rng.integers(3))
    for i, color in enumerate(SIGNALS):
        glow = shade(color, 1.0 if i == on else 0.25)
        canvas.disc((x, 3.15 - 0.32 * i, z - 0.01), (0.13, 0.13), glow, SIGN)


def paint_sign(canvas: Canvas, x: float, z: float) -> None:
    """Paints a traffic sign on its pole at (x, z), with two lines in place of a symbol."""
    rng = canvas.rng
    size, height = rng.uniform(0.36, 0.75), rng.uniform(2.0, 3.0)
    canvas.stroke([(x, KERB, z), (x, height + size, z)], 0.09, shade(STEEL, 1.3), POLE)
    (rim, face), (corners, wide, turn) = pick(rng, SIGN_COLORS), pick(rng, SIGN_SHAPES)
    angles = [turn + math.tau * i / corners for i in range(corners)]
    for color, scale in ((rim, size), (face, 0.78 * size)):
        offsets = [(wide * scale * math.sin(a), scale * math.cos(a)) for a in angles]
        canvas.polygon([(x + dx, height + dy, z - 0.02) for dx, dy in offsets], color, SIGN)
    mark = mix(face, BLACK if sum(face) > 450 else WHITE, 0.85)
    for y in (-0.12, 0.12):
        reach, level = 0.35 * size * wide, height + y * size * 2
        line = [(x - reach, level, z - 0.03), (x + reach, level, z - 0.03)]
        canvas.stroke(line, 0.16 * size, mark, SIGN)
