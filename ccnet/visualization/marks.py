"""Marks on pictures: rings, boxes, arrows, lines and labels, white with a dark edge."""

import math
from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Point = Sequence[float]
"""Row and column, in pixels."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def line_width(picture: Image.Image) -> int:
    """The width of lines, in pixels, that suits the size of a picture."""
    return max(1, min(picture.size) // 180)


def mark_pixel(picture: Image.Image, pixel: Point) -> Image.Image:
    """Copies an image and draws a white ring, edged in black, around a pixel (row, column)."""
    marked = picture.copy()
    _draw_ring(marked, pixel, 5 * line_width(picture))
    return marked


def mark_way(picture: Image.Image, points: Sequence[Point]) -> Image.Image:
    """Copies an image and draws arrows from each point to the next one, a dot between them."""
    marked = picture.copy()
    for start, end in pairwise(points):
        _draw_arrow(marked, start, end, gap=(end is points[-1]) * 7 * line_width(picture))
    for point in points[1:-1]:
        _draw_ring(marked, point, 2 * line_width(picture))
    return marked


def mark_box(picture: Image.Image, center: Point, reach: float) -> Image.Image:
    """Copies an image and draws a white square, edged in black, around a point."""
    marked, line = picture.copy(), line_width(picture)
    for seam, color in ((line, "black"), (0, "white")):
        box = _around(center, reach + seam)
        ImageDraw.Draw(marked).rectangle(box, outline=color, width=line + 2 * seam)
    return marked


def mark_cross(picture: Image.Image, pixel: Point) -> Image.Image:
    """Copies an image and draws thin lines along the row and column of a pixel."""
    veil = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    draw, (row, column), line = ImageDraw.Draw(veil), pixel, line_width(picture)
    draw.line((0, row, picture.width, row), (255, 255, 255, 110), line)
    draw.line((column, 0, column, picture.height), (255, 255, 255, 110), line)
    return Image.alpha_composite(picture.convert("RGBA"), veil).convert("RGB")


def mark_labels(
    picture: Image.Image,
    labels: Sequence[tuple[Point, str]],
    font: Font,
    distance: float,
    marks: Sequence[Point] = (),
) -> Image.Image:
    """Copies an image and writes labels beside points, inside the image and not on each other.

    Args:
        picture: of mode "RGB".
        labels: points with texts.
        font: of the texts.
        distance: between a point and the nearest side of its label, in pixels.
        marks: corners of a line that labels leave free if there is room.
    """
    marked, taken = picture.copy(), list[Box]()
    draw = ImageDraw.Draw(marked)
    near = [_around(point, distance - 1) for point, _ in labels]
    lines = [_between(*pair) for pair in pairwise(marks)]
    for point, text in labels:
        left, top, right, bottom = draw.textbbox((0, 0), text, font, anchor="lt")
        boxes = _places(point, (right - left + 8, bottom - top + 8), distance, picture.size)
        costs = [
            [sum(_overlap(box, other) for other in others) for others in (taken, near, lines)]
            for box in boxes
        ]
        box = boxes[costs.index(min(costs))]
        taken.append(box)
        draw.rectangle(box, fill=(20, 20, 20))
        draw.text((box[0] + 4, box[1] + 4), text, "white", font, anchor="lt")
    return marked


def _places(
    point: Point, size: tuple[float, float], distance: float, limits: tuple[int, int]
) -> list[Box]:
    """Boxes (left, top, right, bottom) of a size around a point, moved inside of an image."""
    (row, column), (width, height) = point, size
    downs = (-height / 2, -height - distance, distance)
    corners = [
        (column + across, row + down)
        for down in downs
        for across in (distance, -distance - width, -width / 2)
        if (down, across) != (-height / 2, -width / 2)
    ]
    inside = [
        (min(max(0, x), limits[0] - width), min(max(0, y), limits[1] - height)) for x, y in corners
    ]
    return [(x, y, x + width, y + height) for x, y in inside]


def _around(point: Point, reach: float) -> Box:
    row, column = point
    return column - reach, row - reach, column + reach, row + reach


def _between(start: Point, end: Point) -> Box:
    """The box that holds two points: of a line along an axis, the line."""
    (top, bottom), (left, right) = (sorted(pair) for pair in zip(start, end, strict=True))
    return left - 1, top - 1, right + 1, bottom + 1


def _overlap(one: Box, other: Box) -> bool:
    return all(one[axis] < other[axis + 2] and other[axis] < one[axis + 2] for axis in (0, 1))


def _draw_ring(picture: Image.Image, center: Point, radius: float) -> None:
    line = line_width(picture)
    for seam, color in ((line, "black"), (0, "white")):
        box = _around(center, radius + seam)
        ImageDraw.Draw(picture).ellipse(box, outline=color, width=line + 2 * seam)


def _draw_arrow(picture: Image.Image, start: Point, end: Point, gap: float) -> None:
    """Draws an arrow that ends `gap` pixels before its end; none if that is all of it."""
    down, across = end[0] - start[0], end[1] - start[1]
    length = math.hypot(down, across)
    line = line_width(picture)
    head = 6 * line
    if length <= gap + head:
        return
    down, across = down / length, across / length
    tip = end[0] - gap * down, end[1] - gap * across
    neck = tip[0] - head * down, tip[1] - head * across
    draw = ImageDraw.Draw(picture)
    for seam, color in ((line, "black"), (0, "white")):
        draw.line((start[1], start[0], neck[1], neck[0]), color, line + 2 * seam)
        half = head / 2 + seam
        wings = [(neck[1] + side * half * down, neck[0] - side * half * across) for side in (1, -1)]
        far = tip[1] + seam * across, tip[0] + seam * down
        draw.polygon([far, *wings], color)
