"""Answers of the explorer: what the page shows, as JSON-able values and pictures.

No answer depends on an earlier one, or on who asks: a request names picture, weights, loops and
pixel. What was computed is kept for the next request within bounds.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ccnet.explorer.bounded import BoundedStore
from ccnet.explorer.networks import MOST_LOOPS, Networks
from ccnet.explorer.pictures import MOST_BYTES, MOST_PIXELS, Pictures
from ccnet.explorer.views import View, look
from ccnet.inference.memory import DEFAULT_LIMIT
from ccnet.visualization import (
    HEAT_DECADES,
    heat_colors,
    heat_levels,
    heat_opacity,
    notable_sources,
)
from ccnet.visualization.attention_paths import Path as Way
from ccnet.visualization.attention_paths import Source
from ccnet.visualization.heat import to_picture

KEPT = 256 * 2**20
"""Bytes of views that are kept."""


class Explorer:
    """Answers the questions of the page.

    Args:
        paths: of pictures to choose, besides the rendered scenes.
        weights: path of a file of weights to choose, besides the registered ones, or the name of
            registered ones as in `Networks.names`, to begin with.
        device: where networks run.
        memory_limit: GiB that a picture may take, as estimated from its size.
        allows_files: whether any file of weights may be chosen.
    """

    def __init__(
        self,
        paths: Sequence[Path] = (),
        weights: str | None = None,
        device: torch.device | str = "cpu",
        *,
        memory_limit: float | None = DEFAULT_LIMIT,
        allows_files: bool = True,
    ) -> None:
        self.pictures = Pictures(paths)
        self.networks = Networks(weights, device, allows_files=allows_files)
        self._first = weights or next(iter(self.networks.names))
        self._views: BoundedStore[View] = BoundedStore(KEPT, lambda view: view.nbytes)
        self._memory_limit = memory_limit

    def options(self) -> dict[str, Any]:
        """What can be chosen, what begins, and the colours of attention."""
        levels = np.linspace(0, 1, 256)
        colors = np.column_stack([heat_colors(levels), np.rint(255 * heat_opacity(levels))])
        return {
            "pictures": _choices(self.pictures.names),
            "weights": _choices(self.networks.names),
            "first_weights": self._first,
            "allows_files": self.networks.allows_files,
            "most_loops": MOST_LOOPS,
            "most_bytes": MOST_BYTES,
            "most_pixels": MOST_PIXELS,
            "decades": HEAT_DECADES,
            "heat": colors.astype(int).tolist(),
        }

    def view(self, picture: str, weights: str, loops: int | None = None) -> dict[str, Any]:
        """The segmentation of a picture in words: its size, and the classes with their shares.

        Args:
            picture: its id.
            weights: their name.
            loops: their number; None for that of the weights.
        """
        view = self._view(picture, weights, loops)
        result = view.record.result
        classes = result.to_dict()["classes"]
        return {
            "loops": len(view.record.loops),
            "trained_loops": self.networks.get(weights).head.recurrence,
            "has_attention": view.has_attention,
            "size": list(view.record.image_size),
            "map_size": list(view.logits.shape[-2:]),
            "classes": [
                {"name": name, "color": one["color"], "share": one["share"]}
                for name, one in classes.items()
            ],
        }

    def picture(self, picture: str) -> Image.Image:
        """The picture itself, RGB."""
        return to_picture(self.pictures.get(picture))

    def labels(self, picture: str, weights: str, loops: int | None = None) -> Image.Image:
        """The labels in the colours of their classes."""
        record = self._view(picture, weights, loops).record
        drawn: Image.Image = record.result.colorize()
        return drawn

    def attention(
        self, picture: str, weights: str, loops: int | None, row: int, column: int
    ) -> dict[str, Any]:
        """What is seen at a pixel: probabilities, and for each number of loops where from.

        Raises:
            ValueError: if the pixel is outside the picture.
        """
        view = self._view(picture, weights, loops)
        record, pixel = view.record, (row, column)
        height, width = record.image_size
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f"row {row}, column {column} is outside the picture of {height} rows and {width} "
                "columns"
            )
        maps = record.maps(pixel) if record.loops else []
        return {
            "pixel": [row, column],
            "class": record.category(pixel),
            "probabilities": _ranked(view.probabilities(pixel), record.result.label_set),
            "maps": [
                _describe_map(view, pixel, count, weights)
                for count, weights in enumerate(maps, start=1)
            ],
        }

    def _view(self, picture: str, weights: str, loops: int | None) -> View:
        if loops is None:
            loops = self.networks.get(weights).head.recurrence
        states = self.pictures.state(picture), self.networks.state(weights)
        pixels, key = self.pictures.get(picture), (picture, weights, loops, states)
        if (kept := self._views.get(key)) is not None:
            return kept
        network = self.networks.get(weights, loops)  # here: nobody else waits for a download
        return self._views.get_or_make(key, lambda: look(network, pixels, self._memory_limit))


def _describe_map(
    view: View, pixel: tuple[int, int], count: int, weights: Tensor
) -> dict[str, Any]:
    record, top = view.record, float(weights.max())
    sources = notable_sources(weights)
    return {
        "loops": count,
        "top": top,
        "sum": float(weights.sum()),
        "levels": {
            "logarithmic": _encoded(heat_levels(weights)),
            "linear": _encoded(heat_levels(weights, "linear", top)),
        },
        "sources": [_describe_source(view, source) for source in sources],
        "paths": [
            {
                "points": [list(point) for point in record.points(path, pixel)],
                "share": path.share,
                "words": _words(path),
            }
            for path in record.paths(pixel, sources[0], count)
        ],
    }


def _describe_source(view: View, source: Source) -> dict[str, Any]:
    pixel = view.record.pixel(source.position)
    return {
        "pixel": list(pixel),
        "share": source.share,
        "class": view.record.category(pixel),
        "color": _color(view.record.result, pixel),
    }


def _words(path: Way) -> str:
    """Says along what a path goes, from the source to the pixel."""
    loops = list(enumerate(zip(path.positions[:-1], path.positions[1:], strict=True), 1))
    moves = [
        (loop, "column" if start[0] != end[0] else "row")
        for loop, (start, end) in loops
        if start != end
    ]
    if len(moves) == len(loops):
        return ", then ".join(f"along the {line}" for _, line in moves)
    return ", then ".join(f"along the {line} in loop {loop}" for loop, line in moves) or "to itself"


def _color(result: Any, pixel: tuple[int, ...]) -> list[int]:
    label = int(result.labels[pixel])
    colors = result.label_set.colors
    return list(colors[label]) if label < len(colors) else [0, 0, 0]


def _ranked(probabilities: Tensor, label_set: Any) -> list[dict[str, Any]]:
    """Classes with their probabilities, the most probable first."""
    order = probabilities.argsort(descending=True).tolist()
    return [
        {
            "name": label_set.categories[label],
            "color": list(label_set.colors[label]),
            "probability": float(probabilities[label]),
        }
        for label in order
    ]


def _choices(names: dict[str, str]) -> list[dict[str, str]]:
    return [{"id": key, "name": name} for key, name in names.items()]


def _encoded(levels: NDArray[np.float64]) -> str:
    """Levels (h, w) in 0..1 as bytes 0..255, row by row, in Base64."""
    return base64.b64encode(np.rint(255 * levels).astype(np.uint8).tobytes()).decode()
