"""Records of attention: what a network did with one image, from which maps of all pixels follow."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ccnet.attention import attention_map
from ccnet.visualization.attention import capture_queries_and_keys, map_position, nearest
from ccnet.visualization.attention_paths import Loop, Path, Position, Source, paths


@dataclass(frozen=True)
class AttentionRecord:
    """The segmentation of an image, with the queries and keys of its attention.

    The network has run: what follows is computed for each pixel without it.

    Attributes:
        result: the `Segmentation` of the image.
        loops: query and key of each loop, float64, both (1, Ck, h, w).
    """

    result: Any
    loops: list[Loop]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        height, width = self.result.labels.shape
        return height, width

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the maps, in positions."""
        height, width = self.loops[0][0].shape[-2:]
        return height, width

    def position(self, pixel: Sequence[int]) -> Position:
        """Returns the position on the map nearest to a pixel.

        Raises:
            ValueError: if the pixel is outside the image.
        """
        return map_position(pixel, self.image_size, self.map_size)

    def pixel(self, position: Position) -> Position:
        """Returns the pixel nearest to a position on the map."""
        return tuple(map(nearest, position, self.map_size, self.image_size))

    def category(self, pixel: Sequence[int]) -> str:
        """Returns the name of the class that is predicted at a pixel; "" if there is no such."""
        label = int(self.result.labels[tuple(pixel)])
        names: tuple[str, ...] = self.result.categories
        return names[label] if label < len(names) else ""

    def maps(self, pixel: Sequence[int]) -> list[Tensor]:
        """Computes from where a pixel gathers after one loop, two, and so on.

        Returns:
            An attention map (h, w), float64, of sum 1, for each number of loops.
        """
        position = self.position(pixel)
        counts = range(1, len(self.loops) + 1)
        return [attention_map(self.loops[:count], position)[0] for count in counts]

    def points(self, path: Path, pixel: Sequence[int]) -> list[Position]:
        """Returns the pixels of a path that ends at a pixel, with hops exactly along its axes."""
        end = self.position(pixel)
        return [
            tuple(
                own if at == last else near
                for at, last, own, near in zip(place, end, pixel, self.pixel(place), strict=True)
            )
            for place in path.positions
        ]

    def paths(self, pixel: Sequence[int], source: Source, loops: int) -> list[Path]:
        """Finds the strongest ways from a source to a pixel by a number of loops."""
        return paths(self.loops[:loops], self.position(pixel), source.position)


def record_attention(model: Any, image: Any, memory_limit: float | None = None) -> AttentionRecord:
    """Segments an image as a whole, and records the queries and keys of all loops.

    Args:
        model: a `CCNet`; of one without attention there are no loops.
        image: anything that `model.predict` accepts as one image.
        memory_limit: GiB that the image may take, as estimated from its size. None for no limit.

    Raises:
        ValueError: if the image cannot be read or is beyond the limit.
    """
    pixels = model.preprocessing.decode(image)
    seen = model.default_protocol.view_size(tuple(pixels.shape[-2:]))
    attention = model.head.cca
    captured: AbstractContextManager[list[Loop]] = nullcontext([])
    if attention is not None:
        captured = capture_queries_and_keys(attention)
    with captured as loops:
        # In one window, for which no others are taken.
        result = model.predict(pixels, mode="slide", crop=seen, memory_limit=memory_limit)
    return AttentionRecord(result, loops)
