"""Network as `optimize_for_inference` returns it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from ccnet.deployment.optimized.convolution import hides_nan, without_fusion
from ccnet.model import CCNet
from ccnet.transforms import check_batch
from ccnet.weights.serialization import ModelWeights

Self = TypeVar("Self", bound="OptimizedCCNet")

_NO_WEIGHTS = (
    "a network from optimize_for_inference has no weights to save: its norms are part of its "
    "convolutions; save the network that it was made of"
)


class OptimizedCCNet(CCNet):
    """What `optimize_for_inference` makes of a `CCNet`.

    Attributes:
        output_dtype: dtype of the parameters of the network that it was made of, in which it
            returns what that would.
    """

    output_dtype: torch.dtype
    resizes_logits = True  # `forward` is that of `CCNet`, and `predict` may leave this to itself

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in: that of its weights."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, *, return_rcca: bool = False) -> dict[str, Tensor]:
        """Computes the logits of every pixel, as `CCNet.forward` does in evaluation mode.

        Args:
            x: (N, C, H, W), of any floating-point dtype and in any memory format.
            return_rcca: also return the output of the recurrent attention.

        Raises:
            ValueError: if x is not such a batch, or its size is none that the backbone takes.
        """
        check_batch(x, self.preprocessing.channels)
        with self._own_dtype(x.device):
            x = x.to(self.dtype)
            if not torch._C._are_functorch_transforms_active():  # which may hide an axis
                x = x.contiguous(memory_format=torch.channels_last)
            compute = super().forward
            if hides_nan(x):
                compute = without_fusion()(compute)
            outputs = compute(x, return_rcca=return_rcca)
        given = self.output_dtype
        dtypes = {"out": torch.promote_types(given, torch.float32), "rcca": given}
        return {name: tensor.to(dtypes[name]) for name, tensor in outputs.items()}

    def to_pixels(self, logits: Tensor, size: Sequence[int] | None) -> Tensor:
        """Resizes logits (N, K, h, w) as `CCNet.to_pixels` does, and faster than channels-last."""
        return super().to_pixels(logits.contiguous(), size)

    def _own_dtype(self, device: torch.device) -> AbstractContextManager[Any]:
        """Keeps autocast, which would cast for nothing, from weights in half precision."""
        is_half = self.dtype in (torch.bfloat16, torch.float16)
        if is_half and torch.amp.is_autocast_available(device.type):
            return torch.autocast(device.type, enabled=False)
        return nullcontext()

    def train(self: Self, mode: bool = True) -> Self:
        """Stays in evaluation mode.

        Raises:
            ValueError: if training mode is asked for.
        """
        if mode:
            raise ValueError(
                "a network from optimize_for_inference cannot be trained: it has no norms and no "
                "auxiliary head; train the network that it was made of"
            )
        return super().train(False)

    def to_weights(self) -> ModelWeights:
        """Raises ValueError: there are none that a `CCNet` could load."""
        raise ValueError(_NO_WEIGHTS)

    def save_pretrained(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises ValueError, as `to_weights` does."""
        raise ValueError(_NO_WEIGHTS)

    def push_to_hub(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raises ValueError, as `to_weights` does."""
        raise ValueError(_NO_WEIGHTS)
