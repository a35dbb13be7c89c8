"""Seeded drawings of city streets in perspective, each with an exact label for every pixel."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ccnet.classes import CAMVID

Color = tuple[float, float, float]
Point = tuple[float, float, float]
Pixel = tuple[float, float]
Transforms = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[tv_tensors.Image, tv_tensors.Mask]]
T = TypeVar("T")

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
SUPERSAMPLING = 2
NEAR, FAR = 1.5, 150.0  # metres ahead of the camera between which the street exists
KERB = 0.12  # metres from the road up to the pavement
# fmt: off
TEXTURE = np.array(  # per label: strength of the fine, blotchy and ground (flattened) noise
    [[0, 0, 0], [0.07, 0.1, 0], [0.04, 0, 0], [0.04, 0.04, 0.08], [0.07, 0.04, 0.08],
     [0.28, 0.16, 0], [0.02, 0.04, 0], [0.07, 0.1, 0], [0.02, 0.04, 0], [0.08, 0.06, 0],
     [0.08, 0.06, 0]], np.float32)

WHITE, BLACK, STEEL = (236, 234, 226), (26, 26, 30), (96, 100, 104)
GLASS, TYRE, LIT = (52, 62, 74), (30, 30, 32), (250, 214, 130)
WALLS = [(158, 92, 72), (176, 116, 88), (214, 196, 162), (226, 216, 198), (188, 178, 166),
         (136, 104, 88), (200, 170, 120), (168, 172, 176), (206, 160, 138)]
ROOFS = [(96, 62, 54), (84, 84, 92), (120, 76, 60), (70, 74, 80)]
GREENS = [(70, 104, 46), (92, 118, 52), (52, 88, 50), (108, 120, 56), (136, 112, 48)]
PAINTS = [(168, 32, 34), (36, 66, 130), (214, 216, 218), (40, 42, 46), (138, 144, 150),
          (28, 92, 76), (200, 172, 60), (96, 24, 40), (236, 236, 232)]
CLOTHES = [(40, 48, 82), (150, 44, 46), (60, 62, 64), (206, 184, 140), (58, 110, 92),
           (228, 226, 218), (190, 120, 40), (92, 62, 110), (84, 124, 170)]
SKINS = [(232, 190, 162), (206, 158, 124), (142, 96, 68), (92, 62, 46)]
FENCES = [(120, 92, 64), (70, 72, 76), (196, 192, 182), (48, 62, 54), (150, 126, 96)]
PLATES = [((196, 36, 40), WHITE), ((230, 232, 232), (36, 84, 164)),
          ((232, 232, 228), (28, 104, 70)), ((40, 40, 40), (238, 190, 50)),
          ((232, 230, 226), (190, 34, 40))]  # rim and face of a traffic sign
OUTLINES = [(24, 1.0), (24, 1.0), (3, 1.1), (4, 1.0), (8, 1.0), (4, 2.0)]  # corners, width
TREES = [(7.5, 0.36, 0.2), (10.0, 0.2, 0.4), (8.5, 0.24, 0.95), (5.5, 0.42, 0.0),
         (11.0, 0.32, 0.3)]  # height, half width per height, how pointed
CARS = [(4.4, 1.45, (0.5, 1.1, 2.3, 3.2)), (4.6, 1.5, (0.08, 0.5, 2.5, 3.4)),
        (3.7, 1.5, (0.06, 0.5, 1.9, 2.8)), (5.2, 2.3, (0.04, 0.1, 3.7, 4.4))]  # length, top, cabin
# fmt: on


class _Weather(NamedTuple):
    """Colours of the sky and of the light; `ambient`, `cloud` and `lit` are shares in 0..1."""

    zenith: Color
    horizon: Color
    cast: Color  # gain of each channel
    ambient: float  # share of the light that comes from everywhere
    cloud: float
    lit: float  # share of windows and lamps that are lit


WEATHERS = [
    _Weather((84, 136, 206), (204, 222, 238), (1.1, 1.09, 1.04), 0.58, 0.45, 0.02),
    _Weather((176, 184, 194), (218, 220, 222), (1.0, 1.02, 1.05), 0.86, 0.9, 0.08),
    _Weather((66, 76, 122), (236, 176, 146), (0.84, 0.78, 0.86), 0.82, 0.5, 0.5),
    _Weather((116, 156, 208), (250, 226, 184), (1.12, 1.03, 0.9), 0.5, 0.35, 0.1),
]


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _mix(a: Color, b: Color, share: float) -> Color:
    keep = 1 - share
    return a[0] * keep + b[0] * share, a[1] * keep + b[1] * share, a[2] * keep + b[2] * share


def _shade(color: Color, gain: float) -> Color:
    return color[0] * gain, color[1] * gain, color[2] * gain


def _normal(face: Sequence[Point]) -> Point:
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = face[:3]
    ux, uy, uz, vx, vy, vz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    size = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    return nx / size, ny / size, nz / size


def _noise(rng: np.random.Generator, grid: tuple[int, int], size: tuple[int, int]) -> Any:
    """Smooth noise in -1..1: a random grid (rows, columns) stretched to `size`, float32."""
    coarse = Image.fromarray(rng.uniform(-1, 1, grid).astype(np.float32))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BILINEAR))


class _Canvas:
    """A pinhole camera and the raster it paints; the fourth channel of the raster is the label.

    The world is in metres: x to the right of the road's middle, y up from the road, z ahead.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng, self.size = rng, size
        self.weather = _pick(rng, WEATHERS[:1] + WEATHERS)
        self.height, self.width = SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]
        self.focal = rng.uniform(1.15, 1.5) * max(self.height, 0.75 * self.width)
        self.eye_x, self.eye_y = 0.0, rng.uniform(1.35, 1.9)
        self.vanishing_x = self.width * rng.uniform(0.4, 0.6)
        self.horizon = self.height * rng.uniform(0.43, 0.56)
        self.bend = rng.uniform(-1, 1) * 8e-4
        self.haze = rng.uniform(140, 500)
        self.sun = (float(rng.choice([-0.7, 0.7])), 0.55, rng.uniform(-0.6, 0.1))
        self.raster = self._sky()
        self.draw = ImageDraw.Draw(self.raster)

    def _sky(self) -> Image.Image:
        rng = self.rng
        zenith, horizon, _, _, cloud, _ = self.weather
        small = (72, 96)
        rise = np.linspace(0, 1, small[0], dtype=np.float32)[:, None, None]
        blend = np.clip(rise * self.height / self.horizon, 0, 1) ** 0.8
        sky = np.array(zenith) * (1 - blend) + np.array(horizon) * blend
        cover = sum(_noise(rng, (4 * n, 2 * n), small) / n**0.7 for n in (2, 4, 8, 16))
        cover = np.clip(cover[..., None] * 1.3 + cloud - 0.5, 0, 0.85) * rng.uniform(0.5, 1)
        sky = sky + (np.array(_mix(horizon, WHITE, 0.5)) - sky) * cover
        glow = rng.uniform(0.1, 0.9) - np.linspace(0, 1, small[1])[None, :, None]
        sky = sky + 40 * (1 - self.weather.ambient) * np.exp(-9 * (glow**2 + (1 - blend) ** 2))
        raster = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
        raster = raster.resize((self.width, self.height), Image.Resampling.BILINEAR)
        raster.putalpha(SKY)
        return raster

    def project(self, point: Point) -> Pixel:
        """Raster coordinates of a point of the world; the road bends with the square of z."""
        x, y, z = point
        scale = self.focal / z
        right = x - self.eye_x + self.bend * z * z
        return self.vanishing_x + scale * right, self.horizon - scale * (y - self.eye_y)

    def _ink(self, color: Color, label: int, z: float) -> tuple[int, int, int, int]:
        r, g, b = _mix(color, self.weather.horizon, 1 - math.exp(-z / self.haze))
        return int(r), int(g), int(b), label

    def polygon(self, points: Sequence[Point], color: Color, label: int) -> bool:
        """Paint a face given clockwise; False, and nothing painted, if it is seen from behind."""
        flat = [self.project(p) for p in points]
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
        """Paint a convex prism's visible faces, lit by the sun; `glazing` fills upright faces."""
        dx, dy, dz = extrusion
        inward = sum(n * e for n, e in zip(_normal(base), extrusion, strict=True)) > 0
        near = list(base[::-1] if inward else base)
        far = [(x + dx, y + dy, z + dz) for x, y, z in near]
        sides = [[near[i - 1], far[i - 1], far[i], near[i]] for i in range(len(near))]
        for face in [near, far[::-1], *sides]:
            normal = _normal(face)
            sunlight = max(0.0, sum(n * s for n, s in zip(normal, self.sun, strict=True)))
            ambient = self.weather.ambient
            gain = ambient * (0.86 + 0.14 * normal[1]) + 1.25 * (1 - ambient) * sunlight
            if self.polygon(face, _shade(color, gain), label) and glazing and normal[1] < 0.9:
                mx, my, mz = (sum(axis) / len(face) for axis in zip(*face, strict=True))
                pane = [
                    (x + 0.17 * (mx - x), y + 0.2 * (my - y), z + 0.17 * (mz - z))
                    for x, y, z in face
                ]
                self.polygon(pane, _shade(glazing, 0.6 + 0.6 * gain), label)

    def box(self, low: Point, high: Point, color: Color, label: int) -> None:
        """Paint an upright box between two opposite corners."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        base = [(x0, y0, z0), (x0, y1, z0), (x1, y1, z0), (x1, y0, z0)]
        self.prism(base, (0, 0, z1 - z0), color, label)

    def strip(self, left: Pixel, right: Pixel, span: Pixel, color: Color, label: int) -> None:
        """Paint a band along the road from (x, y) `left` to (x, y) `right` over `span` in z."""
        steps = max(2, round(5 * math.log(span[1] / span[0])))
        stops = [span[0] * (span[1] / span[0]) ** (i / (steps - 1)) for i in range(steps)]
        for z0, z1 in zip(stops[-2::-1], stops[:0:-1], strict=True):
            face = [(*left, z0), (*left, z1), (*right, z1), (*right, z0)]
            self.polygon(face, color, label)

    def stroke(self, points: Sequence[Point], width: float, color: Color, label: int) -> None:
        """Paint a line that is `width` metres thick."""
        z = points[0][2]
        pixels = max(SUPERSAMPLING, round(self.focal * width / z))
        ink = self._ink(color, label, z)
        self.draw.line([self.project(p) for p in points], ink, pixels, joint="curve")

    def disc(self, centre: Point, radii: Pixel, color: Color, label: int) -> None:
        """Paint an ellipse that faces the camera, `radii` in metres."""
        (u, v), scale = self.project(centre), self.focal / centre[2]
        a, b = radii[0] * scale, radii[1] * scale
        self.draw.ellipse((u - a, v - b, u + a, v + b), self._ink(color, label, centre[2]))

    def develop(self) -> tuple[Image.Image, Image.Image]:
        """The photograph (surface texture, light, lens and sensor) and its labels, at `size`."""
        rng = self.rng
        labels = np.asarray(self.raster.getchannel("A"))[::SUPERSAMPLING, ::SUPERSAMPLING]
        picture = self.raster.convert("RGB").reduce(SUPERSAMPLING)
        light = np.ones(self.size, np.float32)
        for strength, grid in zip(TEXTURE.T, [(180, 240), (36, 48), (240, 40)], strict=True):
            light += np.ascontiguousarray(strength)[labels] * _noise(rng, grid, self.size)
        rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in self.size)
        light *= 1 - rng.uniform(0.02, 0.16) * (rows[:, None] ** 2 + columns**2)
        gain = np.array(self.weather.cast) * rng.uniform(0.85, 1.12) * rng.uniform(0.97, 1.03, 3)
        pixels = np.asarray(picture, np.float32) * gain.astype(np.float32)
        pixels *= light[..., None]
        pixels = (pixels - 110) * np.float32(rng.uniform(0.9, 1.15)) + 110
        noise = rng.standard_normal((*self.size, 1), np.float32)
        pixels += noise * np.float32(rng.uniform(0.8, 4))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), Image.fromarray(labels)


def _frame(x: float, y: float, z: float, heading: float) -> Callable[[float, float, float], Point]:
    """A placed object's own axes: (across, up, along) in metres to a point of the world."""
    sin, cos = math.sin(heading), math.cos(heading)

    def at(across: float, up: float, along: float) -> Point:
        return x + across * cos + along * sin, y + up, z - across * sin + along * cos

    return at


def _foliage(
    canvas: _Canvas, centre: Point, radii: Pixel, color: Color, taper: float = 0.0
) -> None:
    """Leaves in a heap of blobs, from dark below to bright on the sunny side."""
    rng = canvas.rng
    (x, y, z), (a, b) = centre, radii
    count = int(min(160, max(8, 1150 * a / z)))
    turn, out, hue, size = rng.random((4, count))
    share, angle, out = np.linspace(0, 1, count), math.tau * turn, np.sqrt(out)
    rise = np.sin(angle) * out
    width = a * (1 - taper * (rise + 1) / 2)
    rights = x + width * np.cos(angle) * out + 0.12 * a * share * canvas.sun[0]
    ups = y + b * rise + 0.08 * b * share
    sizes = (0.25 * width + 0.75 * a) * (0.4 + size) * (1.25 - 0.6 * share) * 1.8 / count**0.5
    tones = 0.5 + 0.45 * share + 0.2 * rise
    for right, up, radius, tone, tint in zip(
        *(column.tolist() for column in (rights, ups, sizes, tones, 0.25 * hue)), strict=True
    ):
        leaf = _shade(_mix(color, (150, 150, 60), tint), tone)
        canvas.disc((right, up, z), (radius, 0.85 * radius), leaf, TREE)


def _tree(canvas: _Canvas, x: float, z: float) -> None:
    rng = canvas.rng
    height, girth, taper = _pick(rng, TREES)
    height *= rng.uniform(0.75, 1.25)
    bark = _mix((84, 66, 50), (120, 112, 98), rng.random())
    canvas.stroke([(x, KERB, z), (x, 0.6 * height, z)], 0.045 * height, bark, TREE)
    centre = (x, height * 0.64, z)
    _foliage(canvas, centre, (height * girth, 0.36 * height), _pick(rng, GREENS), taper)


def _facade(canvas: _Canvas, corner: Point, along: Point, extent: Pixel, trim: Color) -> None:
    """Windows in storeys over a wall that runs from `corner` (on the ground) along a direction."""
    rng = canvas.rng
    length, height = extent
    bays, storeys = max(1, int(length / 2.7)), max(1, int(height / 2.9))
    bay, storey = length / bays, height / storeys
    wide, tall = rng.uniform(0.38, 0.62), rng.uniform(0.45, 0.62)

    def pane(s0: float, s1: float, y0: float, y1: float, color: Color) -> None:
        (x, _, z), (dx, _, dz) = corner, along
        xa, za, xb, zb = x + dx * s0, z + dz * s0, x + dx * s1, z + dz * s1
        face = [(xa, y0, za), (xa, y1, za), (xb, y1, zb), (xb, y0, zb)]
        canvas.polygon(face, color, BUILDING)

    shop = rng.random() < 0.4 and length > 5
    if shop:
        pane(0.2, length - 0.2, 0.4, 0.78 * storey, _mix(GLASS, LIT, rng.uniform(0, 0.5)))
        pane(0, length, 0.8 * storey, storey, _pick(rng, CLOTHES))
    for floor in range(1 if shop else 0, storeys):
        for column in range(bays):
            s, y = (column + 0.5) * bay, (floor + 0.3) * storey
            half = wide * bay / 2
            door = floor == 0 and column == bays // 2
            glow = rng.random() < canvas.weather.lit
            glass = LIT if glow else _shade(GLASS, 0.75 + 0.7 * rng.random())
            if corner[2] < 45:
                pane(s - half - 0.12, s + half + 0.12, y - 0.14, y + tall * storey + 0.12, trim)
            bottom, color = (0.1, _shade(trim, 0.4)) if door else (y, glass)
            pane(s - half, s + half, bottom, y + tall * storey, color)


def _building(canvas: _Canvas, x: float, side: int, z0: float, z1: float, height: float) -> None:
    rng = canvas.rng
    wall = _shade(_pick(rng, WALLS), rng.uniform(0.8, 1.08))
    depth, trim = 11 * side, _mix(wall, WHITE, 0.6)
    canvas.box((min(x, x + depth), 0, z0), (max(x, x + depth), height, z1), wall, BUILDING)
    if z0 < 75:
        dark = canvas.sun[0] * side > 0
        trim = _shade(trim, canvas.weather.ambient if dark else 0.95)
        start = (x, 0.0, z0 if side < 0 else z1)
        _facade(canvas, start, (0.0, 0.0, -float(side)), (z1 - z0, height), trim)
        corner = (min(x, x + depth), 0.0, z0)
        _facade(canvas, corner, (1.0, 0.0, 0.0), (abs(depth), height), trim)
    roof = _pick(rng, ROOFS)
    if height < 11 and rng.random() < 0.75:
        ridge = (x + depth / 2, height + rng.uniform(2, 3.6), z0)
        gable = [(x - 0.3 * side, height - 0.05, z0), ridge, (x + depth, height - 0.05, z0)]
        canvas.prism(gable, (0, 0, z1 - z0), roof, BUILDING)
        u, v, w = x + 0.4 * depth, ridge[1], z0 + 0.3 * (z1 - z0)
        low, high = (u - 0.4, v - 1, w), (u + 0.4, v + 0.8, w + 0.8)
        canvas.box(low, high, _shade(wall, 0.8), BUILDING)
    else:
        left, right = sorted((x - 0.25 * side, x + depth))
        low, high = (left, height, z0), (right, height + 0.45, z1)
        canvas.box(low, high, _mix(wall, roof, 0.5), BUILDING)


def _fence(canvas: _Canvas, x: float, z0: float, z1: float) -> None:
    rng = canvas.rng
    height, barred = rng.uniform(0.9, 1.9), rng.random() < 0.65
    wood = _pick(rng, FENCES)
    filling = _mix(wood, (70, 78, 60), 0.7) if barred else wood
    canvas.box((x - 0.05, 0.1, z0), (x + 0.05, height, z1), filling, FENCE)
    for z in np.arange(z1, z0, -0.35 if z0 < 25 else -1.2):
        post = _shade(wood, 1.15 if barred else 0.75)
        canvas.stroke([(x, 0.1, z), (x, height, z)], 0.07 if barred else 0.03, post, FENCE)
    for y in (0.3 * height, height):
        canvas.stroke([(x, y, z0), (x, y, z1)], 0.07, _shade(wood, 1.05), FENCE)


def _hedge(canvas: _Canvas, x: float, z0: float, z1: float) -> None:
    rng = canvas.rng
    green, height = _pick(rng, GREENS), rng.uniform(0.5, 0.9)
    for z in np.arange(z1, z0, -1.2 if z0 < 25 else -2.4):
        _foliage(canvas, (x, height, float(z)), (0.8, height), green)


def _lamp(canvas: _Canvas, x: float, z: float) -> None:
    rng = canvas.rng
    height, arm = rng.uniform(5, 8.5), -math.copysign(rng.uniform(0.5, 1.8), x)
    metal, girth = _shade(STEEL, rng.uniform(0.5, 1.3)), rng.uniform(0.14, 0.26)
    canvas.stroke([(x, KERB, z), (x, 1.2, z)], 1.7 * girth, metal, POLE)
    canvas.stroke([(x, KERB, z), (x, height, z), (x + arm, height + 0.3, z)], girth, metal, POLE)
    canvas.disc((x + arm, height + 0.25, z), (0.4, 0.14), _mix(metal, LIT, 0.6), POLE)


def _traffic_light(canvas: _Canvas, x: float, z: float) -> None:
    rng = canvas.rng
    canvas.stroke([(x, KERB, z), (x, 2.4, z)], 0.16, STEEL, POLE)
    canvas.box((x - 0.24, 2.3, z), (x + 0.24, 3.35, z + 0.25), BLACK, SIGN)
    on = int(rng.integers(3))
    for i, color in enumerate([(236, 48, 38), (250, 176, 40), (60, 220, 110)]):
        glow = _shade(color, 1.0 if i == on else 0.25)
        canvas.disc((x, 3.15 - 0.32 * i, z - 0.01), (0.13, 0.13), glow, SIGN)


def _sign(canvas: _Canvas, x: float, z: float) -> None:
    rng = canvas.rng
    size, height = rng.uniform(0.36, 0.75), rng.uniform(2.0, 3.0)
    canvas.stroke([(x, KERB, z), (x, height + size, z)], 0.09, _shade(STEEL, 1.3), POLE)
    (rim, plate), (corners, wide) = _pick(rng, PLATES), _pick(rng, OUTLINES)
    turn = math.pi / 4 if wide == 2.0 else math.pi / 8 if corners == 8 else 0.0
    for color, scale in ((rim, size), (plate, 0.78 * size)):
        angles = [turn + math.tau * i / corners for i in range(corners)]
        offsets = [(wide * scale * math.sin(a), scale * math.cos(a)) for a in angles]
        canvas.polygon([(x + dx, height + dy, z - 0.02) for dx, dy in offsets], color, SIGN)
    mark = _mix(plate, BLACK if sum(plate) > 450 else WHITE, 0.85)
    for y in (-0.12, 0.12):
        reach, level = 0.35 * size * wide, height + y * size * 2
        line = [(x - reach, level, z - 0.03), (x + reach, level, z - 0.03)]
        canvas.stroke(line, 0.16 * size, mark, SIGN)


def _car(canvas: _Canvas, x: float, z: float, heading: float) -> None:
    rng = canvas.rng
    at = _frame(x, 0, z, heading)
    paint = _shade(_pick(rng, PAINTS), rng.uniform(0.85, 1.1))
    length, top, cabin = _pick(rng, CARS)
    waist, half = 0.62 * top, 0.88
    ends = [(-0.98, -0.3), (-0.98, length + 0.3), (0.98, length + 0.3), (0.98, -0.3)]
    canvas.polygon([at(across, 0.01, along) for across, along in ends], (38, 38, 42), ROAD)

    def across_by(metres: float) -> Point:
        end = at(metres, 0, 0)
        return end[0] - x, 0, end[2] - z

    tyre = 0.24
    for along in (0.2 * length, 0.8 * length):
        for across in (-half, half - tyre):
            turns = [(0.32 * math.cos(a), 0.32 * math.sin(a)) for a in np.arange(0, 6.2, 0.6)]
            rim = [at(across, 0.32 + up, along + ahead) for up, ahead in turns]
            canvas.prism(rim, across_by(tyre), TYRE, CAR)
    rear, bonnet = [(0, 0.26), (0, 0.8 * waist), (0.05, waist)], (0.75 * length, waist)
    body = [*rear, bonnet, (length, 0.72 * waist), (length, 0.26)]
    upper = list(zip(cabin, (waist, top, top, waist), strict=True))
    for profile, inset, glazing in ((body, 0.0, None), (upper, 0.1, GLASS)):
        base = [at(-half + inset, up, along) for along, up in profile]
        canvas.prism(base, across_by(2 * (half - inset)), paint, CAR, glazing)

    def panel(
        across: float, up: float, width: float, height: float, color: Color, front: bool
    ) -> None:
        half_width, along = (-width, length + 0.02) if front else (width, -0.02)
        left, right, low, high = across - half_width, across + half_width, up - height, up + height
        corners = [(left, low), (left, high), (right, high), (right, low)]
        canvas.polygon([at(*corner, along) for corner in corners], color, CAR)

    for front, lamp in ((False, (196, 28, 30)), (True, (250, 246, 220))):
        panel(0, 0.36, half, 0.1, _shade(paint, 0.4), front)
        for across in (-0.7, 0.7):
            panel(across, 0.64 * waist, 0.15, 0.1, lamp, front)
        panel(0, 0.5, 0.25, 0.06, (226, 214, 150), front)


def _pedestrian(canvas: _Canvas, x: float, z: float) -> None:
    rng = canvas.rng
    size = rng.uniform(0.92, 1.1) if rng.random() < 0.8 else rng.uniform(0.6, 0.75)
    top, legs, skin = _pick(rng, CLOTHES), _shade(_pick(rng, CLOTHES), 0.6), _pick(rng, SKINS)
    stride, swing, facing = rng.uniform(-0.22, 0.22), rng.uniform(-0.25, 0.25), rng.random()

    def body(across: float, up: float) -> Point:
        return x + across * size, KERB + up * size, z

    for sign in (-1, 1):
        knee, foot = 0.08 * sign + 0.5 * sign * stride, 0.09 * sign + sign * stride
        leg = [body(0.07 * sign, 0.9), body(knee, 0.47), body(foot, 0.04)]
        canvas.stroke(leg, 0.16 * size, legs, PEDESTRIAN)
        canvas.disc(body(foot + 0.03, 0.04), (0.1 * size, 0.05 * size), BLACK, PEDESTRIAN)
        elbow, hand = 0.25 * sign + 0.4 * sign * swing, 0.22 * sign + swing * sign
        arm = [body(0.2 * sign, 1.38), body(elbow, 1.1), body(hand, 0.85)]
        canvas.stroke(arm, 0.11 * size, _shade(top, 0.85), PEDESTRIAN)
    hem = _pick(rng, [0.85, 0.85, 0.55])
    left = [(-0.21, hem), (-0.19, 1.2), (-0.22, 1.42), (-0.08, 1.5)]
    coat = left + [(-across, up) for across, up in left[::-1]]
    canvas.polygon([body(*p) for p in coat], top, PEDESTRIAN)
    canvas.disc(body(0, 1.66), (0.115 * size, 0.15 * size), skin, PEDESTRIAN)
    hair = _mix((40, 28, 22), (190, 160, 110), rng.random() ** 2)
    canvas.disc(body(0.02, 1.73 - 0.06 * facing), (0.125 * size, 0.1 * size), hair, PEDESTRIAN)
    if rng.random() < 0.3:
        canvas.disc(body(0.27, 0.85), (0.13, 0.17), _pick(rng, CLOTHES), PEDESTRIAN)


def _bicyclist(canvas: _Canvas, x: float, z: float) -> None:
    rng = canvas.rng
    at = _frame(x, 0, z, _pick(rng, [0.15, -0.2, 0.5, math.pi + 0.3, math.pi - 0.3, 1.4, -1.4]))
    frame, top, skin = _pick(rng, PAINTS), _pick(rng, CLOTHES), _pick(rng, SKINS)
    legs, helmet = _shade(_pick(rng, CLOTHES), 0.6), _pick(rng, PAINTS)

    def limb(width: float, color: Color, *points: Point) -> None:
        canvas.stroke([at(*p) for p in points], width, color, BICYCLIST)

    for hub in (-0.52, 0.52):
        turns = [math.tau * i / 16 for i in range(17)]
        limb(0.07, TYRE, *[(0, 0.35 + 0.33 * math.cos(a), hub + 0.33 * math.sin(a)) for a in turns])
    saddle, head, pedals = (0, 0.85, -0.2), (0, 0.85, 0.38), (0, 0.32, 0.02)
    limb(0.06, frame, (0, 0.35, -0.52), saddle, head, pedals, saddle)
    limb(0.06, frame, (0, 0.35, 0.52), (0, 1.02, 0.38))
    limb(0.05, BLACK, (-0.28, 1.04, 0.38), (0.28, 1.04, 0.38))
    reach = rng.uniform(-0.12, 0.12)
    for sign in (-1, 1):
        lift = sign * reach
        knee, foot = (0.13 * sign, 0.68 + lift, 0.18), (0.1 * sign, 0.28 + lift, 0.02)
        limb(0.15, legs, (0.1 * sign, 0.95, -0.18), knee, foot)
        limb(0.1, _shade(top, 0.85), (0.2 * sign, 1.4, 0.1), (0.28 * sign, 1.06, 0.36))
    limb(0.38, top, (0, 0.9, -0.2), (0, 1.47, 0.1))
    canvas.disc(at(0, 1.63, 0.18), (0.12, 0.15), skin, BICYCLIST)
    canvas.disc(at(0, 1.72, 0.16), (0.14, 0.1), helmet, BICYCLIST)


def _ground(canvas: _Canvas, half: float, edges: Pixel) -> None:
    """Road with its markings and worn patches, kerbs, pavements, and what lies beyond them."""
    rng = canvas.rng
    span, ambient = (NEAR, FAR), canvas.weather.ambient
    asphalt = _shade(_mix((104, 104, 108), (132, 124, 116), rng.random()), rng.uniform(0.75, 1.1))
    slabs = _shade(_mix((168, 160, 150), (176, 150, 132), rng.random()), rng.uniform(0.85, 1.1))
    for left, right in ((-90.0, -edges[0]), (edges[1], 90.0)):
        grass = rng.random() < 0.5
        color, label = (_pick(rng, GREENS), TREE) if grass else (slabs, PAVEMENT)
        canvas.strip((left, 0.1), (right, 0.1), span, color, label)
    canvas.strip((-half, 0), (half, 0), span, asphalt, ROAD)
    for _ in range(int(rng.integers(2, 7))):
        x, z = rng.uniform(-half, half - 1.2), rng.uniform(4, 30)
        worn = _shade(asphalt, rng.uniform(0.82, 1.12))
        patch = (z, z + rng.uniform(1, 9))
        canvas.strip((x, 0), (min(half, x + rng.uniform(0.6, 2.5)), 0), patch, worn, ROAD)
    if ambient < 0.6:
        shaded = -half if canvas.sun[0] < 0 else half
        rim = shaded * rng.uniform(-0.2, 0.7)
        left, right, end = min(shaded, rim), max(shaded, rim), rng.uniform(12, 60)
        canvas.strip((left, 0), (right, 0), (NEAR, end), _shade(asphalt, 0.62), ROAD)
    paint = _mix(asphalt, WHITE, rng.uniform(0.55, 0.9))
    for z in np.arange(rng.uniform(2, 5), 90, _pick(rng, [4.0, 6.0]))[::-1]:
        canvas.strip((-0.07, 0), (0.07, 0), (z, z + 2.2), paint, ROAD)
    for x in (-half + 0.3, half - 0.42):
        if rng.random() < 0.6:
            canvas.strip((x, 0), (x + 0.12, 0), span, paint, ROAD)
    if rng.random() < 0.3:
        z = rng.uniform(7, 22)
        for x in np.arange(-half + 0.3, half - 0.5, 1.0):
            canvas.strip((x, 0), (x + 0.5, 0), (z, z + 3), paint, ROAD)
    for sign, edge in zip((-1, 1), edges, strict=True):
        for inner, outer, color in (
            ((sign * half, KERB), (sign * edge, KERB), slabs),
            ((sign * half, 0.0), (sign * (half + 0.15), KERB), _mix(slabs, WHITE, 0.35)),
        ):
            canvas.strip(min(inner, outer), max(inner, outer), span, color, PAVEMENT)


def _street(canvas: _Canvas) -> None:
    """Lay out one street and paint it, back to front within each of three layers.

    Layer 0 is what lies beyond the pavements, 1 their outer edges, 2 all that is between these:
    seen from the road, nothing in a layer is hidden by anything in a lower one.
    """
    rng = canvas.rng
    half = rng.uniform(3.2, 5.4)
    edges = (half + rng.uniform(1.8, 5), half + rng.uniform(1.8, 5))
    lane = _pick(rng, [-1, 1])
    canvas.eye_x = lane * half * rng.uniform(0.3, 0.55)
    _ground(canvas, half, edges)
    rows: list[tuple[int, float, Callable[[_Canvas], None]]] = []

    def place(layer: int, depth: float, paint: Callable[..., None], **where: Any) -> None:
        rows.append((layer, -depth, partial(paint, **where)))

    for x in np.arange(-110, 110, 14.0):
        place(0, FAR + 20, _building, x=x, side=1, z0=FAR, z1=FAR + 9, height=rng.uniform(5, 13))
        place(0, FAR - 2, _tree, x=x + rng.uniform(0, 9), z=FAR - 2)
    for side, edge in zip((-1, 1), edges, strict=True):
        setback, built = _pick(rng, [0.0, 2.5, 4.5]), rng.uniform(0.6, 0.97)
        storeys, z = rng.uniform(2.4, 5), NEAR
        fenced = rng.random() < 0.62
        while z < FAR - 15:
            end = z + rng.uniform(6, 16)
            if rng.random() < built:
                height = max(4.5, 2.9 * (storeys + rng.uniform(-1, 1.2)))
                x = side * (edge + setback)
                place(0, z, _building, x=x, side=side, z0=z, z1=end, height=height)
            else:
                for depth in np.arange(max(z, 5) + 1, end, 4.0):
                    place(0, depth, _tree, x=side * (edge + rng.uniform(1, 6)), z=depth)
            if z < 70 and (setback or rng.random() < 0.4):
                edging = _fence if fenced else _hedge
                place(1, z, edging, x=side * (edge + 0.3), z0=max(z, 3.0), z1=end)
            z = end
        walk = half + 0.5, edge - 0.3
        for paint, share, near, far, reach in (
            (_tree, 0.5, 12, 60, (0.5, 0.7)),
            (_lamp, 1.0, 8, 40, (0.3, 0.5)),
            (_sign, 0.9, 7, 28, (0.3, 0.9)),
            (_sign, 0.8, 8, 60, (0.3, 0.9)),
            (_traffic_light, 0.35, 8, 35, (0.3, 0.5)),
            (_lamp, 0.7, 25, 60, (0.3, 0.5)),
        ):
            if rng.random() < share:
                z = rng.uniform(near, far)
                place(2, z, paint, x=side * (half + rng.uniform(*reach)), z=z)
        for _ in range(int(rng.integers(2, 7))):
            z = float(rng.uniform(2.4, 6.5) ** 2)
            place(2, z, _pedestrian, x=side * rng.uniform(*walk), z=z)
        for _ in range(int(rng.integers(0, 3))):
            z = float(rng.uniform(2.4, 5.0) ** 2)
            place(2, z, _bicyclist, x=side * (half - rng.uniform(0.5, 0.9)), z=z)
        onward = 0.0 if side == lane else math.pi
        z = rng.uniform(8, 24)
        for _ in range(int(rng.integers(0, 4))):
            x = side * (half * 0.36 + rng.uniform(-0.1, 0.2))
            place(2, z, _car, x=x, z=z, heading=onward + rng.uniform(-0.03, 0.03))
            z += rng.uniform(7, 25)
        if half > 4.3 and rng.random() < 0.6:
            for z in np.arange(rng.uniform(8, 20), rng.uniform(25, 70), rng.uniform(5.5, 8)):
                place(2, z, _car, x=side * (half - 1.0), z=z, heading=onward)
    for _, _, paint_item in sorted(rows, key=lambda row: row[:2]):
        paint_item(canvas)


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 32:
        raise ValueError(f"size is {size}; the height and the width must be at least 32 pixels")


def render_scene(
    seed: int | tuple[int, ...], size: tuple[int, int] = (360, 480)
) -> tuple[Image.Image, Image.Image]:
    """Draw one street as seen from a car.

    Args:
        seed: One non-negative integer or several; together with `size` it decides every pixel.
        size: Height and width in pixels, each at least 32.

    Returns:
        The RGB picture and an "L" picture of class indices 0..10 of `ccnet.classes.CAMVID`.
    """
    _check_size(size)
    canvas = _Canvas(np.random.default_rng(seed), size)
    _street(canvas)
    return canvas.develop()


class StreetScenes(Dataset[tuple[tv_tensors.Image, tv_tensors.Mask]]):
    """Street scenes drawn on demand, with exact labels for CamVid's eleven classes.

    Scene `index` depends on the seed, the index and the size alone.
    """

    label_set = CAMVID

    def __init__(
        self,
        length: int,
        *,
        size: tuple[int, int] = (360, 480),
        seed: int = 0,
        transforms: Transforms | None = None,
    ) -> None:
        """Describe the set; nothing is drawn yet.

        Args:
            length: How many scenes the set holds, 0 or more.
            size: Height and width of each scene in pixels, each at least 32.
            seed: Which sequence of scenes, 0 or more.
            transforms: Called as `transforms(image, mask)`; returns both, transformed.
        """
        if length < 0:
            raise ValueError(f"length is {length}; it must be 0 or more")
        _check_size(size)
        self.length, self.size, self.seed, self.transforms = length, size, seed, transforms

    def __len__(self) -> int:
        """Return the number of scenes."""
        return self.length

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Draw scene `index`.

        Returns:
            The image, uint8 (3, H, W) in 0..255, and the mask, uint8 (H, W) in 0..10, after
            `transforms` if there are any.
        """
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        picture, labels = render_scene((self.seed, index % self.length), self.size)
        image = tv_tensors.Image(torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous())
        mask = tv_tensors.Mask(torch.from_numpy(np.array(labels)))
        return (image, mask) if self.transforms is None else self.transforms(image, mask)
