"""A figure of attention: where one pixel of an image gathers, loop by loop, and how to read it."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ccnet.schema import shown
from ccnet.visualization.attention_paths import Source, notable_sources
from ccnet.visualization.heat import HEAT_DECADES, HeatScale, heat_colors, heat_overlay, to_picture
from ccnet.visualization.marks import (
    Font,
    Point,
    mark_box,
    mark_cross,
    mark_labels,
    mark_pixel,
    mark_way,
)
from ccnet.visualization.record import AttentionRecord, record_attention

INK, GAP, COLUMNS = "#222222", 12, 2
NUMBERS = ("no", "one", "two", "three", "four", "five")
WIDTHS = 16, 4096
"""Of panels, in pixels: from, to."""

MAGNIFIED = 7
"""Positions along each axis of what is magnified."""

HOW_TO_READ = (
    "Ring: the pixel. Boxes: the strongest sources of its attention, with their share and the "
    "class predicted there; the strongest is magnified. Arrows: the way that its information "
    "takes, one hop along a row or a column for each loop. Lines: all that one loop can reach.",
    "A distant source, or one of another class, is no mistake: attention adds context to what the "
    "pixel itself shows, and does not outline objects.",
)
"""Sentences under the figure."""


def attention_figure(
    model: Any,
    image: Any,
    pixel: Sequence[int] | None = None,
    *,
    scale: HeatScale = "logarithmic",
    width: int = 480,
    memory_limit: float | None = None,
) -> Image.Image:
    """Draws from where one pixel of an image gathers, after each loop of attention.

    Args:
        model: a `CCNet` with attention.
        image: anything that `model.predict` accepts as one image.
        pixel: row and column; None for the centre.
        scale: of the colours: "logarithmic", which shows small shares too, or "linear".
        width: of a panel, in pixels, 16 to 4096.
        memory_limit: GiB that the image may take, as estimated from its size. None for no limit.

    Returns:
        A PIL image of mode "RGB": panels two by two with the image, the prediction, and a map for
        each number of loops; below them the scale and how to read it.

    Raises:
        ValueError: if the network has no attention, the pixel is outside the image, the image
            cannot be read or shown or is beyond the limit, or there is no such scale or width.

    Example:
        >>> attention_figure(model, "street.jpg", (60, 40)).save("attention.png")
    """
    pixel = None if pixel is None else _checked(pixel)
    _check_width(width)
    record = record_attention(model, image, memory_limit)
    pixel = [side // 2 for side in record.image_size] if pixel is None else pixel
    return draw_attention(record, pixel, scale=scale, width=width)


def draw_attention(
    record: AttentionRecord,
    pixel: Sequence[int],
    *,
    scale: HeatScale = "logarithmic",
    width: int = 480,
) -> Image.Image:
    """Draws the figure of `attention_figure` of what is recorded of an image."""
    pixel = _checked(pixel)
    _check_width(width)
    if not record.loops:
        raise ValueError("the model has no attention: its recurrence is 0, but must be 1 or more")
    maps = record.maps(pixel)
    top = max(float(weights.max()) for weights in maps) if scale == "linear" else 1.0
    font = ImageFont.load_default(width / 26)
    sheet = _Sheet(record, pixel, width, font)
    panels = {
        f"Pixel at row {pixel[0]}, column {pixel[1]}": sheet.of_image(),
        "Prediction": sheet.of_prediction(),
    }
    for count, weights in enumerate(maps, start=1):
        panels[_title(count)] = sheet.of_map(count, weights, scale, top)
    return _stack(_grid(panels, font), _legend(scale, top, COLUMNS * (width + GAP) - GAP, font))


def _checked(pixel: Any) -> list[int]:
    """Returns row and column of a pixel, which may be an array."""
    values = pixel.tolist() if hasattr(pixel, "tolist") else pixel
    if not (
        isinstance(values, Sequence)
        and len(values) == 2
        and all(isinstance(at, Integral) and not isinstance(at, bool) for at in values)
    ):
        raise ValueError(f"pixel must be two whole numbers, row and column, not {shown(pixel)}")
    return [int(at) for at in values]


def _check_width(width: Any) -> None:
    narrowest, widest = WIDTHS
    if not (isinstance(width, Integral) and narrowest <= int(width) <= widest):
        raise ValueError(
            f"width must be a whole number in {narrowest}..{widest}, not {shown(width)}"
        )


def _title(count: int) -> str:
    number = NUMBERS[count] if count < len(NUMBERS) else str(count)
    return f"Attention after {number} loop{'s' if count > 1 else ''}"


class _Sheet:
    """Panels of one pixel of a record, all of one size."""

    def __init__(
        self, record: AttentionRecord, pixel: Sequence[int], width: int, font: Font
    ) -> None:
        height, columns = record.image_size
        self.record, self.pixel, self.font = record, tuple(pixel), font
        self.factor = width / columns
        self.size = width, max(1, round(height * self.factor))
        self.cell = max(self.size[0] / record.map_size[1], self.size[1] / record.map_size[0])

    def of_image(self) -> Image.Image:
        picture = self._resized(to_picture(self.record.result.image))
        return mark_pixel(picture, self._at(self.pixel))

    def of_prediction(self) -> Image.Image:
        panel = mark_pixel(self._resized(self.record.result.overlay()), self._at(self.pixel))
        label = self.record.category(self.pixel)
        return self._labelled(panel, [(self.pixel, label)])

    def of_map(self, count: int, weights: Tensor, scale: HeatScale, top: float) -> Image.Image:
        record, sources = self.record, notable_sources(weights)
        plain = self._resized(heat_overlay(record.result.image, weights, scale, top))
        panel = mark_cross(plain, self._at(self.pixel)) if count == 1 else plain
        for source in sources:
            panel = mark_box(panel, self._at(record.pixel(source.position)), 3 * self.cell)
        way = [
            self._at(point)
            for path in record.paths(self.pixel, sources[0], count)[:1]
            for point in record.points(path, self.pixel)
        ]
        panel = mark_way(panel, way)
        panel = mark_pixel(panel, self._at(self.pixel))
        labels = [(record.pixel(source.position), self._words(source)) for source in sources]
        return self._with_inset(
            self._labelled(panel, labels, way), plain, record.pixel(sources[0].position)
        )

    def _resized(self, picture: Image.Image) -> Image.Image:
        return picture.resize(self.size, Image.Resampling.LANCZOS)

    def _at(self, pixel: Sequence[int]) -> tuple[float, ...]:
        return tuple((at + 0.5) * self.factor for at in pixel)

    def _words(self, source: Source) -> str:
        category = self.record.category(self.record.pixel(source.position))
        return f"{category} {100 * source.share:.0f} %"

    def _labelled(
        self,
        panel: Image.Image,
        labels: Sequence[tuple[Sequence[int], str]],
        way: Sequence[Point] = (),
    ) -> Image.Image:
        placed = [(self._at(pixel), text) for pixel, text in labels if text]
        return mark_labels(panel, placed, self.font, 4 * self.cell, way)

    def _with_inset(
        self, panel: Image.Image, plain: Image.Image, pixel: Sequence[int]
    ) -> Image.Image:
        """Pastes what is around a pixel, magnified, into the corner farthest from all marks."""
        side = min(self.size) // 3
        if side < MAGNIFIED:
            return panel
        reach = min(MAGNIFIED / 2 * self.cell, *(side / 2 for side in self.size))
        row, column = self._at(pixel)
        left = min(max(0, column - reach), self.size[0] - 2 * reach)
        top = min(max(0, row - reach), self.size[1] - 2 * reach)
        region = (left, top, left + 2 * reach, top + 2 * reach)
        inset = plain.resize((side, side), Image.Resampling.NEAREST, box=region)
        line = max(1, side // 60)
        framed = Image.new("RGB", (side + 2 * line, side + 2 * line), "white")
        framed.paste(inset, (line, line))
        corners = [(0, 0), (0, self.size[0]), (self.size[1], 0), (self.size[1], self.size[0])]
        marks = [(row, column), self._at(self.pixel)]
        far = max(
            corners,
            key=lambda corner: min(
                (corner[0] - at[0]) ** 2 + (corner[1] - at[1]) ** 2 for at in marks
            ),
        )
        place = (
            0 if far[1] == 0 else self.size[0] - framed.width,
            0 if far[0] == 0 else self.size[1] - framed.height,
        )
        panel = panel.copy()
        panel.paste(framed, place)
        return panel


def _grid(panels: dict[str, Image.Image], font: Font) -> Image.Image:
    """Lays panels out in rows of `COLUMNS`, with titles above."""
    width, height = next(iter(panels.values())).size
    line = round(width / 14)
    rows = -(-len(panels) // COLUMNS)
    step = width + GAP, line + height + GAP
    sheet = Image.new("RGB", (COLUMNS * step[0] - GAP, rows * step[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, panel) in enumerate(panels.items()):
        left, top = index % COLUMNS * step[0], index // COLUMNS * step[1]
        draw.text((left, top + line / 2), title, INK, font, anchor="lm")
        sheet.paste(panel, (left, top + line))
    return sheet


def _legend(scale: HeatScale, top: float, width: int, font: Font) -> Image.Image:
    """Draws the colour bar with its labels, and how to read the figure."""
    line = round(width / COLUMNS / 14)
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    words = [row for text in HOW_TO_READ for row in _wrapped(text, width, font, draw)]
    legend = Image.new("RGB", (width, 3 * line + round(0.8 * line) * len(words)), "white")
    draw = ImageDraw.Draw(legend)
    title = f"Share of the attention, on a {scale} scale:"
    draw.text((0, line / 2), title, INK, font, anchor="lm")
    levels = np.tile(np.linspace(0, 1, width), (line // 2, 1))
    legend.paste(Image.fromarray(heat_colors(levels)), (0, line))
    for third, anchor in enumerate(("lm", "mm", "mm", "rm")):
        share = top * (third / 3 if scale == "linear" else 10 ** (HEAT_DECADES * (third / 3 - 1)))
        percent = f"{100 * share:.3g} %" if share >= 1e-4 or not share else f"{100 * share:.4f} %"
        at = third / 3 * (width - 1), 2.1 * line
        text = f"{percent} or less" if third == 0 and scale != "linear" else percent
        draw.text(at, text, INK, font, anchor=anchor)
    for index, row in enumerate(words):
        draw.text((0, 3 * line + 0.8 * line * index), row, INK, font, anchor="lt")
    return legend


def _wrapped(text: str, width: int, font: Font, draw: ImageDraw.ImageDraw) -> list[str]:
    """Breaks a text into lines of at most a width, in pixels."""
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and draw.textlength(longer, font) > width:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows


def _stack(above: Image.Image, below: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (above.width, above.height + below.height), "white")
    sheet.paste(above, (0, 0))
    sheet.paste(below, (0, above.height))
    return sheet
