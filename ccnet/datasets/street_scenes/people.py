"""Pedestrians and bicyclists."""

import math
from typing import NamedTuple

from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.colors import (
    BLACK,
    CLOTHES,
    PAINTS,
    SKINS,
    TYRE,
    Color,
    mix,
    shade,
)
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.world import BICYCLIST, KERB, PEDESTRIAN, Pair, Placement, Point

HEADINGS = [0.15, -0.2, 0.5, math.pi + 0.3, math.pi - 0.3, 1.4, -1.4]  # of bicycles


class _Walker(NamedTuple):
    """Paints the parts of a pedestrian; coordinates are metres (across, up) at `size` 1."""

    canvas: Canvas
    x: float
    z: float
    size: float

    def at(self, across: float, up: float) -> Point:
        return self.x + across * self.size, KERB + up * self.size, self.z

    def limb(self, width: float, color: Color, *points: Pair) -> None:
        joints = [self.at(*p) for p in points]
        self.canvas.stroke(joints, width * self.size, color, PEDESTRIAN)

    def disc(self, centre: Pair, radii: Pair, color: Color) -> None:
        scaled = radii[0] * self.size, radii[1] * self.size
        self.canvas.disc(self.at(*centre), scaled, color, PEDESTRIAN)


def paint_pedestrian(canvas: Canvas, x: float, z: float) -> None:
    """Paints an adult or a child on the pavement at (x, z)."""
    rng = canvas.rng
    size = rng.uniform(0.92, 1.1) if rng.random() < 0.8 else rng.uniform(0.6, 0.75)
    walker = _Walker(canvas, x, z, size)
    top, legs, skin = pick(rng, CLOTHES), shade(pick(rng, CLOTHES), 0.6), pick(rng, SKINS)
    stride, swing, facing = rng.uniform(-0.22, 0.22), rng.uniform(-0.25, 0.25), rng.random()
    for sign in (-1, 1):
        knee, foot = 0.08 * sign + 0.5 * sign * stride, 0.09 * sign + sign * stride
        walker.limb(0.16, legs, (0.07 * sign, 0.9), (knee, 0.47), (foot, 0.04))
        walker.disc((foot + 0.03, 0.04), (0.1, 0.05), BLACK)
        elbow, hand = 0.25 * sign + 0.4 * sign * swing, 0.22 * sign + swing * sign
        walker.limb(0.11, shade(top, 0.85), (0.2 * sign, 1.38), (elbow, 1.1), (hand, 0.85))
    hem = pick(rng, [0.85, 0.85, 0.55])
    left = [(-0.21, hem), (-0.19, 1.2), (-0.22, 1.42), (-0.08, 1.5)]
    coat = left + [(-across, up) for across, up in left[::-1]]
    canvas.polygon([walker.at(*p) for p in coat], top, PEDESTRIAN)
    walker.disc((0, 1.66), (0.115, 0.15), skin)
    hair = mix((40, 28, 22), (190, 160, 110), rng.random() ** 2)
    walker.disc((0.02, 1.73 - 0.06 * facing), (0.125, 0.1), hair)
    if rng.random() < 0.3:  # a bag, no smaller for a child
        canvas.disc(walker.at(0.27, 0.85), (0.13, 0.17), pick(rng, CLOTHES), PEDESTRIAN)


def paint_bicyclist(canvas: Canvas, x: float, z: float) -> None:
    """Paints a bicycle and its rider on the road at (x, z)."""
    rng = canvas.rng
    bicycle = Placement(x, z, pick(rng, HEADINGS))
    frame, top, skin = pick(rng, PAINTS), pick(rng, CLOTHES), pick(rng, SKINS)
    legs, helmet = shade(pick(rng, CLOTHES), 0.6), pick(rng, PAINTS)

    def tube(width: float, color: Color, *points: Point) -> None:
        canvas.stroke([bicycle.at(*p) for p in points], width, color, BICYCLIST)

    for hub in (-0.52, 0.52):
        turns = [math.tau * i / 16 for i in range(17)]
        tube(0.07, TYRE, *[(0, 0.35 + 0.33 * math.cos(a), hub + 0.33 * math.sin(a)) for a in turns])
    saddle, head, pedals = (0, 0.85, -0.2), (0, 0.85, 0.38), (0, 0.32, 0.02)
    tube(0.06, frame, (0, 0.35, -0.52), saddle, head, pedals, saddle)
    tube(0.06, frame, (0, 0.35, 0.52), (0, 1.02, 0.38))
    tube(0.05, BLACK, (-0.28, 1.04, 0.38), (0.28, 1.04, 0.38))
    reach = rng.uniform(-0.12, 0.12)
    for sign in (-1, 1):
        lift = sign * reach
        knee, foot = (0.13 * sign, 0.68 + lift, 0.18), (0.1 * sign, 0.28 + lift, 0.02)
        tube(0.15, legs, (0.1 * sign, 0.95, -0.18), knee, foot)
        tube(0.1, shade(top, 0.85), (0.2 * sign, 1.4, 0.1), (0.28 * sign, 1.06, 0.36))
    tube(0.38, top, (0, 0.9, -0.2), (0, 1.47, 0.1))
    canvas.disc(bicycle.at(0, 1.63, 0.18), (0.12, 0.15), skin, BICYCLIST)
    canvas.disc(bicycle.at(0, 1.72, 0.16), (0.14, 0.1), helmet, BICYCLIST)
