"""Legends: the classes that are in an image, with colour and share, drawn below it or as HTML."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ccnet.classes import Color, LabelSet

_INK, _PAPER, _FRAME = (30, 30, 30), (255, 255, 255), (120, 120, 120)

_SMALLEST_TEXT, _LINES_OF_PICTURE = 12, 28
"""Height of text in pixels, and how many lines of it are as high as the picture."""

_LONGEST_NAME = 30

OTHER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "arial.ttf",
    "msgothic.ttc",
    "Arial Unicode.ttf",
)
"""What systems may have for names that Pillow's font, which has only ASCII, cannot draw."""

_UNKNOWN = "\ue000"
"""A character that no font has."""

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Area = tuple[int, int, float]
"""Label, number of pixels, share of the image (0..1)."""


def class_areas(labels: Tensor, classes: int) -> list[Area]:
    """Returns the area of every class in an image, the largest first.

    Args:
        labels: (H, W), integers; those that are no class, which a caller may have set, are left
            out, but are part of the image.
        classes: how many there are.
    """
    counts = labels.flatten().bincount(minlength=classes)
    shares = (counts.double() / labels.numel()).tolist()
    areas = list(zip(range(classes), counts.tolist(), shares, strict=False))
    return sorted((area for area in areas if area[1]), key=lambda area: -area[1])


@dataclass(frozen=True)
class Entry:
    """What a legend says of a class.

    Attributes:
        label: of the class.
        name: of the class.
        color: that it is drawn in.
        share: of the image, 0..1.
    """

    label: int
    name: str
    color: Color
    share: float

    @property
    def short_name(self) -> str:
        """The name, cut where it is longer than 30 characters."""
        fits = len(self.name) <= _LONGEST_NAME
        return self.name if fits else f"{self.name[:_LONGEST_NAME]}..."

    @property
    def percentage(self) -> str:
        """The share in words, see `percentage`."""
        return percentage(self.share)


def percentage(share: float) -> str:
    """Returns a share in words, such as "41.2 %", and "< 0.1 %" for what is hardly there."""
    return f"{share:.1%}".replace("%", " %") if share >= 0.0005 or not share else "< 0.1 %"


def legend_entries(
    labels: Tensor, label_set: LabelSet, colors: Sequence[Color], shown: Sequence[int] | None = None
) -> list[Entry]:
    """Returns an entry for every class in an image, the largest first.

    Args:
        labels: (H, W), integers.
        label_set: the names of the classes.
        colors: that they are drawn in, one for each class of the label set.
        shown: the labels to leave it at; None for all.
    """
    return [
        Entry(label, label_set.categories[label], colors[label], share)
        for label, _, share in class_areas(labels, len(label_set))
        if shown is None or label in shown
    ]


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """Draws a legend below a picture, in columns, in text that fits the size of the picture.

    A name that neither Pillow's own font nor the system's usual ones can draw is replaced by
    "class" and the label.

    Args:
        picture: of mode "RGB".
        entries: in the order in which they are read: row by row.

    Returns:
        The picture on white, with the legend: at least as wide as one column of it.
    """
    size = max(_SMALLEST_TEXT, round(min(picture.size) / _LINES_OF_PICTURE))
    texts = [_text(entry, size) for entry in entries]
    swatch, gap, line = 2 * size, size // 2, size * 3 // 2
    column = max((round(font.getlength(text)) for text, font in texts), default=0)
    column += swatch + 3 * gap
    width = max(picture.width, column if entries else 0)
    columns = max(1, width // column)
    rows = -(-len(entries) // columns)
    height = picture.height + (rows * line + gap if rows else 0)
    drawn = Image.new("RGB", (width, height), _PAPER)
    drawn.paste(picture)
    draw = ImageDraw.Draw(drawn)
    for index, (entry, (text, font)) in enumerate(zip(entries, texts, strict=True)):
        row, place = divmod(index, columns)
        left = gap + place * (width // columns)
        top = picture.height + gap + row * line
        draw.rectangle((left, top, left + swatch - 1, top + size - 1), entry.color, _FRAME)
        middle = (left + swatch + gap, top + size / 2)
        draw.text(middle, text, fill=_INK, font=font, anchor="lm")
    return drawn


def legend_html(entries: Sequence[Entry]) -> str:
    """Returns a legend as HTML: names are escaped, and in the colours of the page."""
    swatch = (
        "display:inline-block;width:2em;height:1em;border:1px solid #787878;vertical-align:-2px"
    )
    return "".join(
        '<span style="display:inline-block;margin:0 1.2em .3em 0;white-space:nowrap">'
        f'<span style="{swatch};background:rgb{entry.color}"></span> '
        f"{escape(entry.short_name)} {escape(entry.percentage)}</span>"
        for entry in entries
    )


def _text(entry: Entry, size: int) -> tuple[str, _Font]:
    """What is written of a class, and the first font that has all its characters."""
    for font in _fonts(size):
        unknown = bytes(font.getmask(_UNKNOWN))
        if all(bytes(font.getmask(one)) != unknown for one in set(entry.short_name)):
            return f"{entry.short_name}  {entry.percentage}", font
    return f"class {entry.label}  {entry.percentage}", ImageFont.load_default(size)


def _fonts(size: int) -> Iterator[_Font]:
    yield ImageFont.load_default(size)
    for name in OTHER_FONTS:
        with suppress(OSError):
            yield ImageFont.truetype(name, size)
