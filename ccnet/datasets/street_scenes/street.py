"""Street scenes: layout of the street, placement of objects, rendering."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from ccnet.datasets.street_scenes.buildings import paint_building
from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.cars import paint_car
from ccnet.datasets.street_scenes.ground import paint_ground
from ccnet.datasets.street_scenes.people import paint_bicyclist, paint_pedestrian
from ccnet.datasets.street_scenes.photograph import develop
from ccnet.datasets.street_scenes.plants import paint_hedge, paint_tree
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.street_furniture import (
    paint_fence,
    paint_lamp,
    paint_sign,
    paint_traffic_light,
)
from ccnet.datasets.street_scenes.world import FAR, NEAR

# Layers: beyond the pavements, at their outer edges, and between these. Seen from the road, no
# layer is occluded by an earlier one.
BEYOND, EDGE, BETWEEN = range(3)
FURNITURE = [  # painter, probability, range of z, range of the distance from the road
    (paint_tree, 0.5, (12, 60), (0.5, 0.7)),
    (paint_lamp, 1.0, (8, 40), (0.3, 0.5)),
    (paint_sign, 0.9, (7, 28), (0.3, 0.9)),
    (paint_sign, 0.8, (8, 60), (0.3, 0.9)),
    (paint_traffic_light, 0.35, (8, 35), (0.3, 0.5)),
    (paint_lamp, 0.7, (25, 60), (0.3, 0.5)),
]


class _Plan:
    """Layout of a street: its width, the lane, and the objects placed so far.

    Args:
        rng: random generator of the street.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.half = rng.uniform(3.2, 5.4)  # half the width of the road
        self.edges = (self.half + rng.uniform(1.8, 5), self.half + rng.uniform(1.8, 5))
        self.lane = pick(rng, [-1, 1])  # the side of the road that the camera drives on
        self.things: list[tuple[int, float, Callable[[Canvas], None]]] = []

    def place(self, layer: int, depth: float, paint: Callable[..., None], **where: float) -> None:
        """Schedules `paint(canvas, **where)`; the order is by layer, then from far to near."""
        self.things.append((layer, -depth, partial(paint, **where)))

    def paint(self, canvas: Canvas) -> None:
        """Paints all placed objects."""
        for _, _, paint in sorted(self.things, key=lambda thing: thing[:2]):
            paint(canvas)


def _place_horizon(plan: _Plan) -> None:
    """Places houses and trees across the end of the street."""
    rng = plan.rng
    for x in np.arange(-110, 110, 14.0):
        house = {"x": x, "side": 1, "z0": FAR, "z1": FAR + 9, "height": rng.uniform(5, 13)}
        plan.place(BEYOND, FAR + 20, paint_building, **house)
        plan.place(BEYOND, FAR - 2, paint_tree, x=x + rng.uniform(0, 9), z=FAR - 2)


def _place_frontage(plan: _Plan, side: int, edge: float) -> None:
    """Places houses, or trees in the gaps, behind one pavement, and perhaps fences or hedges."""
    rng = plan.rng
    setback, built = pick(rng, [0.0, 2.5, 4.5]), rng.uniform(0.6, 0.97)
    storeys = rng.uniform(2.4, 5)
    edging = paint_fence if rng.random() < 0.62 else paint_hedge
    z = NEAR
    while z < FAR - 15:
        end = z + rng.uniform(6, 16)
        if rng.random() < built:
            height = max(4.5, 2.9 * (storeys + rng.uniform(-1, 1.2)))
            x = side * (edge + setback)
            plan.place(BEYOND, z, paint_building, x=x, side=side, z0=z, z1=end, height=height)
        else:
            for depth in np.arange(max(z, 5) + 1, end, 4.0):
                x = side * (edge + rng.uniform(1, 6))
                plan.place(BEYOND, depth, paint_tree, x=x, z=depth)
        if z < 70 and (setback or rng.random() < 0.4):
            plan.place(EDGE, z, edging, x=side * (edge + 0.3), z0=max(z, 3.0), z1=end)
        z = end


def _place_furniture(plan: _Plan, side: int) -> None:
    rng = plan.rng
    for paint, share, span, reach in FURNITURE:
        if rng.random() < share:
            z = rng.uniform(*span)
            plan.place(BETWEEN, z, paint, x=side * (plan.half + rng.uniform(*reach)), z=z)


def _place_people(plan: _Plan, side: int, edge: float) -> None:
    rng = plan.rng
    for _ in range(int(rng.integers(2, 7))):
        z = rng.uniform(2.4, 6.5) ** 2
        x = side * rng.uniform(plan.half + 0.5, edge - 0.3)
        plan.place(BETWEEN, z, paint_pedestrian, x=x, z=z)
    for _ in range(int(rng.integers(0, 3))):
        z = rng.uniform(2.4, 5.0) ** 2
        x = side * (plan.half - rng.uniform(0.5, 0.9))
        plan.place(BETWEEN, z, paint_bicyclist, x=x, z=z)


def _place_cars(plan: _Plan, side: int) -> None:
    """Places moving cars and, if the road is wide, parked cars."""
    rng = plan.rng
    onward = 0.0 if side == plan.lane else math.pi
    z = rng.uniform(8, 24)
    for _ in range(int(rng.integers(0, 4))):
        x = side * (plan.half * 0.36 + rng.uniform(-0.1, 0.2))
        plan.place(BETWEEN, z, paint_car, x=x, z=z, heading=onward + rng.uniform(-0.03, 0.03))
        z += rng.uniform(7, 25)
    if plan.half > 4.3 and rng.random() < 0.6:
        for z in np.arange(rng.uniform(8, 20), rng.uniform(25, 70), rng.uniform(5.5, 8)):
            plan.place(BETWEEN, z, paint_car, x=side * (plan.half - 1.0), z=z, heading=onward)


def _paint_street(canvas: Canvas) -> None:
    """Plans a street, places the camera in its lane and paints the view."""
    rng = canvas.rng
    plan = _Plan(rng)
    canvas.eye_x = plan.lane * plan.half * rng.uniform(0.3, 0.55)
    paint_ground(canvas, plan.half, plan.edges)
    _place_horizon(plan)
    for side, edge in zip((-1, 1), plan.edges, strict=True):
        _place_frontage(plan, side, edge)
        _place_furniture(plan, side)
        _place_people(plan, side, edge)
        _place_cars(plan, side)
    plan.paint(canvas)


def check_size(size: tuple[int, int]) -> None:
    """Raises ValueError if the height or the width is less than 32 pixels."""
    if min(size) < 32:
        raise ValueError(f"size is {size}; the height and the width must be at least 32 pixels")


def render_scene(
    seed: int | tuple[int, ...], size: tuple[int, int] = (360, 480)
) -> tuple[Image.Image, Image.Image]:
    """Renders one street as seen from a car.

    Args:
        seed: one non-negative integer or several; with `size` it determines every pixel.
        size: height and width in pixels, each at least 32.

    Returns:
        The RGB image, and its label map: mode "L", class indices 0..10 of `classes.CAMVID`.

    Raises:
        ValueError: if `size` is too small or `seed` is negative.
    """
    check_size(size)
    canvas = Canvas(np.random.default_rng(seed), size)
    _paint_street(canvas)
    return develop(canvas)
