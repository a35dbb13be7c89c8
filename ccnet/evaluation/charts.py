"""Evaluation charts: IoU per class, confusion matrix, images with the lowest mIoU."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ccnet.classes import Color, LabelSet
from ccnet.console import printable
from ccnet.evaluation.scores import Scores
from ccnet.files import atomic_write
from ccnet.visualization import display_colors, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT = "#222222", "#8a8a8a"
_MOST_CLASSES_WITH_NUMBERS = 25
_MOST_BARS = 50
"""In one part of the chart of IoUs."""


@dataclass(frozen=True)
class Sample:
    """An image with its prediction and its labels.

    Attributes:
        title: shown above the image.
        image: (3, H, W), uint8, RGB.
        predicted: (H, W), uint8: the predicted classes.
        labels: (H, W), uint8: the true classes, or 255 (ignored).
    """

    title: str
    image: Tensor
    predicted: Tensor
    labels: Tensor


def iou_chart(scores: Scores, title: str) -> "Figure":
    """Bar chart of the IoU of every class that occurs, with a line at the mean."""
    classes = zip(
        scores.iou.tolist(), scores.label_set.categories, scores.label_set.colors, strict=True
    )
    bars = sorted((iou, _text(name), color) for iou, name, color in classes if iou == iou)
    parts = max(1, math.ceil(len(bars) / _MOST_BARS))
    rows = math.ceil(len(bars) / parts)
    figure = _figure(7 * parts, 1.3 + 0.3 * rows)
    for part, axes in enumerate(reversed(figure.subplots(1, parts, squeeze=False)[0])):
        _draw_bars(axes, bars[part * rows : (part + 1) * rows], scores.miou)
    figure.axes[0].set_title(_text(title), loc="left", fontsize=11)
    return figure


def _draw_bars(axes: "Axes", bars: Sequence[tuple[float, str, Color]], mean: float) -> None:
    values, names, colors = zip(*bars, strict=True) if bars else ((), (), ())
    axes.barh(
        range(len(bars)),
        values,
        color=[_fraction(color) for color in colors],
        edgecolor=_INK,
        linewidth=0.5,
    )
    for row, value in enumerate(values):
        axes.text(value + 1, row, f"{value:.1f}", va="center", color=_INK, fontsize=9)
    axes.axvline(mean, color=_INK, linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(bars)), names)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"IoU in percent; dashed: their mean, {mean:.2f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def confusion_chart(scores: Scores, title: str) -> "Figure":
    """Confusion matrix, in percent of the pixels of each true class (row)."""
    names, count = list(map(_text, scores.label_set.categories)), len(scores.label_set)
    shares = 100 * scores.confusion.double() / scores.confusion.sum(1, keepdim=True)
    cell = max(0.14, 0.38 * min(1, _MOST_CLASSES_WITH_NUMBERS / count))  # inches
    side = 3.0 + cell * count
    figure = _figure(side + 0.6, side)
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    if count <= _MOST_CLASSES_WITH_NUMBERS:
        for row, column in shares.ge(0.5).nonzero().tolist():
            value = shares[row, column].item()
            color = "white" if value > 55 else _INK
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, size=8)
    axes.set_xticks(range(count), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names)
    axes.tick_params(labelsize=min(10, 43 * cell))  # points, of the 72 in an inch
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(_text(title), loc="left", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.7, label="percent of the true class")
    return figure


def samples_page(samples: Sequence[Sample], label_set: LabelSet, title: str) -> "Figure":
    """Figure with a row for every sample: image, overlay of the prediction, overlay of the labels.

    Raises:
        ValueError: if there is no sample.
    """
    from matplotlib.patches import Patch

    if not samples:
        raise ValueError("samples must not be empty")
    column = 4.2
    heights = [column * sample.image.shape[-2] / sample.image.shape[-1] + 0.3 for sample in samples]
    shown = [
        label
        for label in range(len(label_set))
        if any(
            (sample.predicted == label).any() or (sample.labels == label).any()
            for sample in samples
        )
    ]
    colors = display_colors(label_set)
    legend_rows = -(-len(shown) // 6)
    height = sum(heights) + 0.6 + 0.3 * legend_rows
    figure = _figure(3 * column, height)
    grid = figure.subplots(len(samples), 3, squeeze=False, height_ratios=heights)
    for row, sample in zip(grid, samples, strict=True):
        pictures = {
            sample.title: sample.image.movedim(0, -1).numpy(),
            "prediction": overlay(sample.image, sample.predicted, label_set, 0.65),
            "labels": overlay(sample.image, sample.labels, label_set, 0.65),
        }
        for axes, (name, picture) in zip(row, pictures.items(), strict=True):
            axes.imshow(picture)
            axes.set_title(_text(name), loc="left", fontsize=9, color=_INK)
            axes.axis("off")
    figure.suptitle(_text(title), x=0.01, ha="left", fontsize=12)
    figure.legend(
        handles=[
            Patch(
                facecolor=_fraction(colors[label]),
                edgecolor=_FAINT,
                label=_text(label_set.categories[label]),
            )
            for label in shown
        ],
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=9,
    )
    return figure


def save_chart(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure as a PNG, atomically; characters that the font lacks are boxes in it."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from")
        figure.savefig(temporary, format="png", dpi=130, facecolor="white")


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _text(name: str) -> str:
    """A name as Matplotlib is to draw it: "$" begins no formula, "_" does not hide it."""
    text = printable(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _fraction(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255
