"""Buildings: walls with windows, doors and shops, under pitched or flat roofs."""

from typing import NamedTuple

from ccnet.datasets.street_scenes.canvas import Canvas
from ccnet.datasets.street_scenes.colors import CLOTHES, GLASS, LIT, WHITE, Color, mix, shade
from ccnet.datasets.street_scenes.sampling import pick
from ccnet.datasets.street_scenes.world import BUILDING, Pair, Point

DEPTH = 11  # metres from the front wall to the back wall
# fmt: off
WALLS = [(158, 92, 72), (176, 116, 88), (214, 196, 162), (226, 216, 198), (188, 178, 166),
         (136, 104, 88), (200, 170, 120), (168, 172, 176), (206, 160, 138)]
ROOFS = [(96, 62, 54), (84, 84, 92), (120, 76, 60), (70, 74, 80)]
# fmt: on


class _Wall(NamedTuple):
    """An upright wall on the ground, from the (x, z) `start` in the direction (x, z) `along`."""

    start: Pair
    along: Pair
    length: float
    height: float

    def part(self, s0: float, s1: float, y0: float, y1: float) -> list[Point]:
        """Returns a rectangle of the wall: `s0` to `s1` along it, `y0` to `y1` in height."""
        (x, z), (dx, dz) = self.start, self.along
        xa, za, xb, zb = x + dx * s0, z + dz * s0, x + dx * s1, z + dz * s1
        return [(xa, y0, za), (xa, y1, za), (xb, y1, zb), (xb, y0, zb)]


def paint_building(
    canvas: Canvas, x: float, side: int, z0: float, z1: float, height: float
) -> None:
    """Paints a house with its front at `x`, left (-1) or right (1) of the road, from z0 to z1."""
    rng = canvas.rng
    wall = shade(pick(rng, WALLS), rng.uniform(0.8, 1.08))
    left, right = sorted((x, x + DEPTH * side))
    canvas.box((left, 0, z0), (right, height, z1), wall, BUILDING)
    if z0 < 75:
        dark = canvas.sun[0] * side > 0
        trim = shade(mix(wall, WHITE, 0.6), canvas.weather.ambient if dark else 0.95)
        start = (x, z0 if side < 0 else z1)
        _paint_facade(canvas, _Wall(start, (0, -side), z1 - z0, height), trim)
        _paint_facade(canvas, _Wall((left, z0), (1, 0), DEPTH, height), trim)
    roof = pick(rng, ROOFS)
    if height < 11 and rng.random() < 0.75:
        _paint_pitched_roof(canvas, x, side, (z0, z1), height, roof, shade(wall, 0.8))
    else:
        left, right = sorted((x - 0.25 * side, x + DEPTH * side))
        low, high = (left, height, z0), (right, height + 0.45, z1)
        canvas.box(low, high, mix(wall, roof, 0.5), BUILDING)


def _paint_facade(canvas: Canvas, wall: _Wall, trim: Color) -> None:
    """Paints windows in storeys, and a door or a shop on the ground floor."""
    rng = canvas.rng
    bays, storeys = max(1, int(wall.length / 2.7)), max(1, int(wall.height / 2.9))
    bay, storey = wall.length / bays, wall.height / storeys
    half_width, window_height = rng.uniform(0.38, 0.62) * bay / 2, rng.uniform(0.45, 0.62) * storey
    shop = rng.random() < 0.4 and wall.length > 5
    if shop:
        _paint_shop(canvas, wall, storey)
    for floor in range(1 if shop else 0, storeys):
        for column in range(bays):
            middle, low = (column + 0.5) * bay, (floor + 0.3) * storey
            left, right, high = middle - half_width, middle + half_width, low + window_height
            glow = rng.random() < canvas.weather.lit
            glass = LIT if glow else shade(GLASS, 0.75 + 0.7 * rng.random())
            if wall.start[1] < 45:
                frame = wall.part(left - 0.12, right + 0.12, low - 0.14, high + 0.12)
                canvas.polygon(frame, trim, BUILDING)
            door = floor == 0 and column == bays // 2
            bottom, color = (0.1, shade(trim, 0.4)) if door else (low, glass)
            canvas.polygon(wall.part(left, right, bottom, high), color, BUILDING)


def _paint_shop(canvas: Canvas, wall: _Wall, storey: float) -> None:
    """Paints a shop window and the band above it."""
    window = wall.part(0.2, wall.length - 0.2, 0.4, 0.78 * storey)
    canvas.polygon(window, mix(GLASS, LIT, canvas.rng.uniform(0, 0.5)), BUILDING)
    band = wall.part(0, wall.length, 0.8 * storey, storey)
    canvas.polygon(band, pick(canvas.rng, CLOTHES), BUILDING)


def _paint_pitched_roof(
    canvas: Canvas, x: float, side: int, span: Pair, eaves: float, color: Color, chimney: Color
) -> None:
    """Paints a roof whose ridge runs along the road, with a chimney near its front."""
    z0, z1 = span
    depth, ridge = DEPTH * side, eaves + canvas.rng.uniform(2, 3.6)
    gable = [
        (x - 0.3 * side, eaves - 0.05, z0),
        (x + depth / 2, ridge, z0),
        (x + depth, eaves - 0.05, z0),
    ]
    canvas.prism(gable, (0, 0, z1 - z0), color, BUILDING)
    x, z = x + 0.4 * depth, z0 + 0.3 * (z1 - z0)
    canvas.box((x - 0.4, ridge - 1, z), (x + 0.4, ridge + 0.8, z + 0.8), chimney, BUILDING)
