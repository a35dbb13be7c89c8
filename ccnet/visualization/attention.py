"""Queries and keys of attention, captured; positions of pixels on feature maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

from torch import Tensor, nn


@contextmanager
def capture_queries_and_keys(attention: nn.Module | None) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Records the query and key of each criss-cross attention loop that runs inside.

    Other threads may use the network meanwhile: only loops in this thread count. Query and key are
    in float64 for `attention.attention_map`: attention may be so sharp that float32 rounds most
    weights to 0.

    Args:
        attention: the criss-cross attention module, such as `model.head.cca`.

    Yields:
        A list, filled at exit: the query and key of each loop, in order, both (N, Ck, *spatial), on
        the CPU.

    Raises:
        ValueError: if `attention` is None: the recurrence of the network is 0.

    Example:
        >>> from ccnet import attention_map
        >>> with capture_queries_and_keys(model.head.cca) as loops:
        ...     result = model.predict("street.jpg")
        >>> weights = attention_map(loops, position=(20, 30))
    """
    if attention is None:
        raise ValueError("the model has no attention: its recurrence is 0, but must be 1 or more")
    captured: tuple[list[Tensor], list[Tensor]] = ([], [])
    own = get_ident()

    def record(into: list[Tensor], output: Tensor) -> None:
        if get_ident() == own:
            into.append(output)

    hooks = [
        attention.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, into=into: record(into, output)
        )
        for name, into in zip(("query_conv", "key_conv"), captured, strict=True)
    ]
    loops: list[tuple[Tensor, Tensor]] = []
    try:
        yield loops
    finally:
        for hook in hooks:
            hook.remove()
    for query, key in zip(*captured, strict=True):
        # Copied: inference tensors cannot take part in autograd.
        loops.append((_float64_copy(query), _float64_copy(key)))


def map_position(
    pixel: Sequence[int], image_size: Sequence[int], map_size: Sequence[int]
) -> tuple[int, ...]:
    """Returns the position on a smaller feature map nearest to a pixel, with corners aligned.

    Args:
        pixel: row and column.
        image_size: height and width of the image, in pixels.
        map_size: height and width of the feature map.

    Raises:
        ValueError: if the pixel is outside the image.
    """
    (row, column), (height, width) = pixel, image_size
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"row {row}, column {column} is outside the image of {height} rows "
            f"and {width} columns, counted from 0"
        )
    return tuple(map(nearest, pixel, image_size, map_size))


def nearest(at: int, pixels: int, positions: int) -> int:
    """Returns the index of `positions` nearest to one of `pixels` on an axis, with ends aligned."""
    if pixels == 1:
        return positions // 2
    return round(at * (positions - 1) / (pixels - 1))


def _float64_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().clone()
