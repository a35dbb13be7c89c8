"""Cars, driving and parked."""

import math
from typing import NamedTuple

import numpy as np

from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.colors import GLASS, PAINTS, TYRE, Color, shade
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.world import CAR, ROAD, Placement

HALF_WIDTH = 0.88
TYRE_WIDTH = 0.24


class _Model(NamedTuple):
    """Profile of a car in metres; `cabin` has the corners of the part above the waist."""

    length: float
    top: float
    cabin: tuple[float, float, float, float]

    @property
    def waist(self) -> float:
        """Height of the lower edge of the windows."""
        return 0.62 * self.top


SALOON = _Model(4.4, 1.45, (0.5, 1.1, 2.3, 3.2))
ESTATE = _Model(4.6, 1.5, (0.08, 0.5, 2.5, 3.4))
HATCHBACK = _Model(3.7, 1.5, (0.06, 0.5, 1.9, 2.8))
VAN = _Model(5.2, 2.3, (0.04, 0.1, 3.7, 4.4))


def paint_car(canvas: Canvas, x: float, z: float, heading: float) -> None:
    """Paints a car with the middle of its rear at (x, z)."""
    rng = canvas.rng
    car = Placement(x, z, heading)
    paint = shade(pick(rng, PAINTS), rng.uniform(0.85, 1.1))
    model = pick(rng, [SALOON, ESTATE, HATCHBACK, VAN])
    _paint_shadow(canvas, car, model)
    _paint_wheels(canvas, car, model)
    _paint_body(canvas, car, model, paint)
    for front in (False, True):
        _paint_end(canvas, car, model, paint, front)


def _paint_shadow(canvas: Canvas, car: Placement, model: _Model) -> None:
    start, end = -0.3, model.length + 0.3
    corners = [(-0.98, start), (-0.98, end), (0.98, end), (0.98, start)]
    canvas.polygon([car.at(across, 0.01, along) for across, along in corners], (38, 38, 42), ROAD)


def _paint_wheels(canvas: Canvas, car: Placement, model: _Model) -> None:
    turns = [(0.32 * math.cos(a), 0.32 * math.sin(a)) for a in np.arange(0, 6.2, 0.6)]
    for along in (0.2 * model.length, 0.8 * model.length):
        for across in (-HALF_WIDTH, HALF_WIDTH - TYRE_WIDTH):
            rim = [car.at(across, 0.32 + up, along + ahead) for up, ahead in turns]
            canvas.prism(rim, car.across(TYRE_WIDTH), TYRE, CAR)


def _paint_body(canvas: Canvas, car: Placement, model: _Model, paint: Color) -> None:
    length, top, waist = model.length, model.top, model.waist
    rear = [(0, 0.26), (0, 0.8 * waist), (0.05, waist)]
    body = [*rear, (0.75 * length, waist), (length, 0.72 * waist), (length, 0.26)]
    cabin = list(zip(model.cabin, (waist, top, top, waist), strict=True))
    for profile, inset, glazing in ((body, 0.0, None), (cabin, 0.1, GLASS)):
        base = [car.at(-HALF_WIDTH + inset, up, along) for along, up in profile]
        canvas.prism(base, car.across(2 * (HALF_WIDTH - inset)), paint, CAR, glazing)


def _paint_end(canvas: Canvas, car: Placement, model: _Model, paint: Color, front: bool) -> None:
    """Paints the bumper, the lamps and the number plate at the front or at the rear."""

    def panel(across: float, up: float, width: float, height: float, color: Color) -> None:
        reach, along = (-width, model.length + 0.02) if front else (width, -0.02)
        left, right, low, high = across - reach, across + reach, up - height, up + height
        corners = [(left, low), (left, high), (right, high), (right, low)]
        canvas.polygon([car.at(*corner, along) for corner in corners], color, CAR)

    panel(0, 0.36, HALF_WIDTH, 0.1, shade(paint, 0.4))
    for across in (-0.7, 0.7):
        lamp = (250, 246, 220) if front else (196, 28, 30)
        panel(across, 0.64 * model.waist, 0.15, 0.1, lamp)
    panel(0, 0.5, 0.25, 0.06, (226, 214, 150))
