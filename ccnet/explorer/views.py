"""Views: what a network made of a picture, from which the answer to every click follows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from ccnet.inference.windows import resized
from ccnet.model import CCNet
from ccnet.visualization import AttentionRecord, display_colors, record_attention


@dataclass(frozen=True)
class View:
    """What a network made of a picture.

    Attributes:
        record: segmentation, its classes in the colours that people tell apart; queries and keys.
        logits: (K, h, w), float32: those of the feature map.
        rows: (H, h), float32: of which rows of the feature map a row of pixels is interpolated.
        columns: (W, w), float32: likewise.
        has_attention: whether the network has any, which other numbers of loops could use.
    """

    record: AttentionRecord
    logits: Tensor
    rows: Tensor
    columns: Tensor
    has_attention: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        result = self.record.result
        tensors = [result.image, result.labels, self.logits, self.rows, self.columns]
        return sum(one.nbytes for loop in [tensors, *self.record.loops] for one in loop)

    def probabilities(self, pixel: Sequence[int]) -> Tensor:
        """Computes the probabilities of all classes at a pixel: (K,), float32."""
        row, column = pixel
        logits = torch.einsum("khw,h,w->k", self.logits, self.rows[row], self.columns[column])
        return logits.softmax(0)


def look(network: CCNet, pixels: Tensor, memory_limit: float | None = None) -> View:
    """Runs a network on a picture.

    Args:
        network: with any number of loops, 0 too.
        pixels: (3, H, W), uint8, RGB.
        memory_limit: GiB that the picture may take, as estimated from its size.

    Raises:
        ValueError: if the picture is beyond the limit, or the network cannot take it.
    """
    with _captured(network.head) as outputs, torch.no_grad():
        record = record_attention(network, pixels, memory_limit)
        (logits,) = outputs
        seen = record.result.view_size
        label_set = record.result.label_set
        shown = replace(label_set, colors=display_colors(label_set))
        record = replace(record, result=replace(record.result, label_set=shown))
        rows, columns = (
            _interpolation(network, *lengths)
            for lengths in zip(logits.shape[-2:], seen, pixels.shape[-2:], strict=True)
        )
    has_attention = network.head.cca is not None
    return View(record, logits[0].float().cpu().clone(), rows, columns, has_attention)


def _interpolation(network: CCNet, positions: int, seen: int, pixels: int) -> Tensor:
    """Which positions of an axis each pixel is interpolated of: (pixels, positions), float32."""
    unit = torch.eye(positions)[None, :, :, None]  # a channel for each position
    wide = network.to_pixels(unit, (seen, 1))[0]
    return torch.cat(list(resized(iter([wide]), (seen, 1), (pixels, 1))), 1)[..., 0].T.contiguous()


@contextmanager
def _captured(module: nn.Module) -> Iterator[list[Tensor]]:
    """Records what a module gives in this thread."""
    outputs: list[Tensor] = []
    own = get_ident()

    def record(_: nn.Module, inputs: Any, output: Tensor) -> None:
        if get_ident() == own:
            outputs.append(output)

    hook = module.register_forward_hook(record)
    try:
        yield outputs
    finally:
        hook.remove()
