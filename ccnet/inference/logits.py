"""Logits of the pixels: computed from those of a feature map, in bands of columns, on demand."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks

from ccnet.inference.protocol import Size

Resize = Callable[[Tensor, Size], Tensor]
"""Bilinear interpolation of maps (N, K, h, w) to a size."""

MAX_VALUES = 2**22
"""About how many logits a band has."""

MIN_COLUMNS = 128
"""Least width of a band: to small maps PyTorch applies another kernel, which rounds otherwise."""


@dataclass(frozen=True)
class PixelLogits:
    """Logits (K, H, W) of a picture, of which columns are computed on demand.

    Bilinear interpolation is separable, so it is done along all rows first, at the height of the
    feature map, and then along the columns that are asked for. The values are bit for bit those of
    one interpolation of everything; bands of rows would not be, since PyTorch's interpolation has
    no offset.

    Attributes:
        wide: (1, K, h, W): h is H if all logits are there.
        size: H and W.
        resize: the interpolation.
    """

    wide: Tensor
    size: Size
    resize: Resize

    @classmethod
    def of(cls, logits: Tensor, size: Size, resize: Resize) -> "PixelLogits":
        """Takes logits (1, K, h, w) of a feature map, or of the pixels themselves."""
        if logits.shape[-2:] != size:
            logits = logits.contiguous()  # channels-last, interpolation rounds by the size
            rows = size[0]
            if len(column_bands(logits.shape[1] * size[0] * size[1], size[1])) > 1:
                rows = logits.shape[2]
            logits = resize(logits, (rows, size[1]))
        return cls(logits, size, resize)

    def columns(self, start: int, stop: int) -> Tensor:
        """Computes some columns: (K, H, stop - start)."""
        height, width = self.size
        if self.wide.shape[2] == height:
            return self.wide[0, :, :, start:stop]
        first = max(0, min(start, width - MIN_COLUMNS))
        part = self.wide[..., first : max(stop, first + MIN_COLUMNS)]
        resized = self.resize(part, (height, part.shape[3]))[0]
        return resized[:, :, start - first : stop - first]


def column_bands(values: int, width: int) -> list[slice]:
    """Cuts the columns of a map into bands as wide as each other.

    Args:
        values: number of all values of the map.
        width: of the map, in pixels.
    """
    count = max(1, min(values // MAX_VALUES, width // MIN_COLUMNS))
    edges = [index * width // count for index in range(count + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


def _is_own(model: nn.Module, name: str) -> bool:
    """Whether a method is of a class that knows of `resizes_logits`, not of one derived from it."""
    makers: list[Any] = [cls for cls in type(model).__mro__ if name in vars(cls)]
    is_known = bool(makers) and "resizes_logits" in vars(makers[0])
    return is_known and name not in vars(model)


def leave_resizing(replica: nn.Module, model: nn.Module) -> Resize | None:
    """Has a replica of a network give the logits of its feature map; returns its interpolation.

    Returns:
        None, and changes nothing, if the network has none of its own, or someone else's code sees
        its output or takes its place: hooks, another `forward` or `to_pixels`, a compiled network.
    """
    has_hooks = model._forward_hooks or _global_forward_hooks
    is_own = _is_own(model, "forward") and _is_own(model, "to_pixels")
    if replica is model or has_hooks or not is_own:
        return None
    replica.resizes_logits = False  # type: ignore[assignment]
    resize: Resize = replica.to_pixels  # type: ignore[assignment]
    return resize
