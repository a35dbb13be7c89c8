"""Canvas: a camera in the street and the shapes that it paints."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import ImageDraw

from ccnet.datasets.street_scenes.colors import Color, mix, shade
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.weather import WEATHERS, draw_sky
from ccnet.datasets.street_scenes.world import Pair, Point, dot, unit_normal

SUPERSAMPLING = 2


def _faces_of_prism(base: Sequence[Point], extrusion: Point) -> list[list[Point]]:
    """Returns the faces of a convex prism, their corners clockwise as seen from outside."""
    dx, dy, dz = extrusion
    inward = dot(unit_normal(base), extrusion) > 0
    near = list(base[::-1] if inward else base)
    far = [(x + dx, y + dy, z + dz) for x, y, z in near]
    sides = [[near[i - 1], far[i - 1], far[i], near[i]] for i in range(len(near))]
    return [near, far[::-1], *sides]


def _pane(face: Sequence[Point]) -> list[Point]:
    """Shrinks a face towards its centre, which leaves a frame."""
    mx, my, mz = (sum(axis) / len(face) for axis in zip(*face, strict=True))
    return [(x + 0.17 * (mx - x), y + 0.2 * (my - y), z + 0.17 * (mz - z)) for x, y, z in face]


class Canvas:
    """A pinhole camera and the raster it paints: RGB, and the class label as fourth channel.

    The raster is `SUPERSAMPLING` times as high and as wide as the final image.

    Args:
        rng: random generator of camera, weather, sky and all objects.
        size: height and width of the final image, in pixels.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng, self.size = rng, size
        self.weather = pick(rng, WEATHERS)
        height, width = SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]
        self.focal = rng.uniform(1.15, 1.5) * max(height, 0.75 * width)
        self.eye_x, self.eye_y = 0.0, rng.uniform(1.35, 1.9)
        self.vanishing_x = width * rng.uniform(0.4, 0.6)
        self.horizon = height * rng.uniform(0.43, 0.56)
        self.bend = rng.uniform(-1, 1) * 8e-4
        self.haze = rng.uniform(140, 500)
        self.sun = (float(rng.choice([-0.7, 0.7])), 0.55, rng.uniform(-0.6, 0.1))
        self.raster = draw_sky(rng, self.weather, (height, width), self.horizon)
        self.draw = ImageDraw.Draw(self.raster)

    def polygon(self, points: Sequence[Point], color: Color, label: int) -> bool:
        """Paints a face with clockwise corners if it faces the camera; returns whether it does."""
        flat = [self._project(p) for p in points]
        (ax, ay), (bx, by), (cx, cy) = flat[0], flat[len(flat) // 3], flat[2 * len(flat) // 3]
        seen = (bx - ax) * (cy - ay) > (cx - ax) * (by - ay)
        if seen:
            self.draw.polygon(flat, self._ink(color, label, points[0][2]))
        return seen

    def prism(
        self,
        base: Sequence[Point],
        extrusion: Point,
        color: Color,
        label: int,
        glazing: Color | None = None,
    ) -> None:
        """Paints the visible faces of a convex prism, lit; `glazing` fills upright faces."""
        for face in _faces_of_prism(base, extrusion):
            normal = unit_normal(face)
            light = self._light(normal)
            if self.polygon(face, shade(color, light), label) and glazing and normal[1] < 0.9:
                self.polygon(_pane(face), shade(glazing, 0.6 + 0.6 * light), label)

    def box(self, low: Point, high: Point, color: Color, label: int) -> None:
        """Paints an upright box between two opposite corners."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        base = [(x0, y0, z0), (x0, y1, z0), (x1, y1, z0), (x1, y0, z0)]
        self.prism(base, (0, 0, z1 - z0), color, label)

    def strip(self, left: Pair, right: Pair, span: Pair, color: Color, label: int) -> None:
        """Paints a band along the road from `left` (x, y) to `right` (x, y), over `span` in z."""
        steps = max(2, round(5 * math.log(span[1] / span[0])))
        stops = [span[0] * (span[1] / span[0]) ** (i / (steps - 1)) for i in range(steps)]
        for z0, z1 in zip(stops[-2::-1], stops[:0:-1], strict=True):
            face = [(*left, z0), (*left, z1), (*right, z1), (*right, z0)]
            self.polygon(face, color, label)

    def stroke(self, points: Sequence[Point], width: float, color: Color, label: int) -> None:
        """Paints a polyline of `width` metres."""
        z = points[0][2]
        pixels = max(SUPERSAMPLING, round(self.focal * width / z))
        ink = self._ink(color, label, z)
        self.draw.line([self._project(p) for p in points], ink, pixels, joint="curve")

    def disc(self, centre: Point, radii: Pair, color: Color, label: int) -> None:
        """Paints an ellipse that faces the camera; `radii` are in metres."""
        (u, v), scale = self._project(centre), self.focal / centre[2]
        a, b = radii[0] * scale, radii[1] * scale
        self.draw.ellipse((u - a, v - b, u + a, v + b), self._ink(color, label, centre[2]))

    def _project(self, point: Point) -> Pair:
        """Projects a world point to raster coordinates; the road bends with the square of z."""
        x, y, z = point
        scale = self.focal / z
        right = x - self.eye_x + self.bend * z * z
        return self.vanishing_x + scale * right, self.horizon - scale * (y - self.eye_y)

    def _light(self, normal: Point) -> float:
        """Computes the brightness of a face with this normal: diffuse light and sunlight."""
        ambient, sunlight = self.weather.ambient, max(0.0, dot(normal, self.sun))
        return ambient * (0.86 + 0.14 * normal[1]) + 1.25 * (1 - ambient) * sunlight

    def _ink(self, color: Color, label: int, z: float) -> tuple[int, int, int, int]:
        """Returns the four channels of the raster; haze makes distant colours paler."""
        r, g, b = mix(color, self.weather.horizon, 1 - math.exp(-z / self.haze))
        return int(r), int(g), int(b), label
