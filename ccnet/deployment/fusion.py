"""Fusion: activations and residual sums in the pass of the convolution before them.

oneDNN applies both to what a convolution has in the registers, so that the map is not read and
written again for each. Where there is no oneDNN, where gradients are asked for and in graphs that
are compiled or exported, the same modules compute the same in plain operations.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from ccnet.attention_kernel.multiplication import has_instructions
from ccnet.backbones.resnet import Stage
from ccnet.deployment.data_flow import sole_readers
from ccnet.deployment.folding import has_own_methods, is_observed, replace_modules
from ccnet.heads import RCCAHead

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)

_DTYPES = (torch.float32, torch.bfloat16)
"""Those of so wide a range that maps do not overflow: oneDNN's ReLU makes NaN 0."""

_is_off: ContextVar[bool] = ContextVar("_is_off", default=False)
"""Whether nothing is fused."""


@contextmanager
def without_fusion() -> Iterator[None]:
    """Fuses nothing within, which keeps NaN: oneDNN's ReLU makes them 0."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def hides_nan(x: Tensor) -> bool:
    """Whether fused convolutions would take a batch with values that are not finite."""
    if not _can_fuse(x, x) or torch._C._len_torch_dispatch_stack():  # some of which forbid to ask
        return False
    return not bool(x.sum(dtype=torch.float32).isfinite())


class FusedConv2d(nn.Conv2d):
    """Convolution, then an optional sum, then an optional activation.

    Attributes:
        negative_slope: of the activation; 0 is ReLU, 1 is none.
    """

    negative_slope: float = 1.0

    @classmethod
    def convert(cls, convolution: nn.Conv2d, negative_slope: float) -> None:
        """Turns a convolution, in place, into one that its activation follows."""
        convolution.__class__ = cls
        convolution.negative_slope = negative_slope  # type: ignore[assignment]

    def extra_repr(self) -> str:
        """Returns the arguments that the module's repr shows."""
        inherited: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{inherited}, negative_slope={self.negative_slope:g}"

    def forward(self, x: Tensor, term: Tensor | None = None, *, overwrite: bool = False) -> Tensor:
        """Convolves, adds and activates.

        Args:
            x: (N, C, H, W), floating point.
            term: (N, C', H', W'), of the same dtype, which is added to the convolution.
            overwrite: whether the result may be written over the term.

        Returns:
            (N, C', H', W').
        """
        if _can_fuse(x, self.weight) and (term is None or (_has_order(x) and _has_order(term))):
            return self._fused(x, term, overwrite)
        out = super().forward(x)
        return _activated(out if term is None else out.add_(term), self.negative_slope)

    def _fused(self, x: Tensor, term: Tensor | None, overwrite: bool) -> Tensor:
        operands = (_channels_last(x), self.weight, self.bias)
        geometry = (self.padding, self.stride, self.dilation, self.groups)
        slope = self.negative_slope
        if term is None:
            kind, numbers = ("none", []) if slope == 1 else ("leaky_relu", [slope])
            kind, numbers = ("relu", []) if slope == 0 else (kind, numbers)
            fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
                *operands, *geometry, kind, numbers, ""
            )
            return fused
        total = _channels_last(term)
        total = total.clone() if total is term and not overwrite else total
        then = "relu" if slope == 0 else None  # leaky ReLU it does not know after a sum
        total = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, *operands, *geometry, "add", 1.0, then, [], None
        )
        return total if slope == 0 else _activated(total, slope)


class FusedBasicBlock(BasicBlock):
    """Residual block of two convolutions that have taken up everything but the shortcut."""

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W'); the result may be written over x."""
        out = self.conv1(x)
        return _add_shortcut(self.conv2, out, x, self.downsample, overwrite)


class FusedBottleneck(Bottleneck):
    """Residual block of three convolutions that have taken up everything but the shortcut."""

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W'); the result may be written over x."""
        out = self.conv2(self.conv1(x))
        return _add_shortcut(self.conv3, out, x, self.downsample, overwrite)


_FUSED: dict[Any, Any] = {BasicBlock: FusedBasicBlock, Bottleneck: FusedBottleneck}


class FusedStage(Stage):
    """Residual blocks of one resolution, each of which writes over the output of the one before."""

    def forward(self, x: Tensor, *, checkpointed: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        is_own = False
        for block in self:
            is_fused = isinstance(block, FusedBasicBlock | FusedBottleneck)
            has_hooks = is_observed(block)  # which may keep its input and its output
            x = block(x, overwrite=is_own and not has_hooks) if is_fused else block(x)
            is_own = is_fused and not has_hooks
        return x


class FusedHead(RCCAHead):
    """Head that leaves features and context apart, for a `SplitConvolution`."""

    def join(self, features: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both as they are."""
        return features, context


class SplitConvolution(nn.Module):
    """Convolution of features and context side by side, without a copy that joins them.

    Args:
        convolution: that of both.
        count: the number of channels of the features.
    """

    def __init__(self, convolution: FusedConv2d, count: int) -> None:
        super().__init__()
        self.of_features = _some_channels(convolution, slice(count))
        self.of_features.bias, self.of_features.negative_slope = None, 1.0
        self.of_context = _some_channels(convolution, slice(count, None))

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        """Maps (N, count, h, w) and (N, C - count, h, w) to (N, C', h, w)."""
        features, context = both
        total: Tensor = self.of_context(context, self.of_features(features), overwrite=True)
        return total


def _some_channels(convolution: FusedConv2d, channels: slice) -> FusedConv2d:
    part = copy.deepcopy(convolution)
    weight = convolution.weight[:, channels].clone()
    part.weight = nn.Parameter(weight, requires_grad=False)
    part.in_channels = weight.shape[1]
    return part


def fuse_activations(network: nn.Module, run: Callable[[], object]) -> None:
    """Fuses residual blocks of torchvision, and activations that alone read a convolution.

    Args:
        network: changed in place, after its norms were folded; in evaluation mode.
        run: calls it.
    """
    for module in list(network.modules()):
        if has_own_methods(module):
            continue
        if type(module) in _FUSED:
            _fuse_block(module)
        elif type(module) is Stage:
            module.__class__ = FusedStage
    modules = [one for one in network.modules() if _can_follow(one) or _is_plain(one)]
    taken_up: dict[nn.Module, nn.Module] = {}
    for convolution, activation in sole_readers(modules, run).items():
        if isinstance(convolution, nn.Conv2d) and _can_follow(activation):
            FusedConv2d.convert(convolution, _slope(activation))
            taken_up[activation] = nn.Identity()
    replace_modules(network, taken_up)
    for module in list(network.modules()):
        if type(module) is RCCAHead and not has_own_methods(module):
            _split_bottleneck(module)


def _fuse_block(block: Any) -> None:
    numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
    convolutions = [getattr(block, f"conv{number}") for number in numbers]
    norms = [getattr(block, f"bn{number}") for number in numbers]
    is_folded = all(type(norm) is nn.Identity and not is_observed(norm) for norm in norms)
    if is_folded and all(map(_is_plain, convolutions)) and _can_follow(block.relu):
        for convolution in convolutions:
            FusedConv2d.convert(convolution, _slope(block.relu))
        block.__class__ = _FUSED[type(block)]
        block.relu = nn.Identity()


def _split_bottleneck(head: RCCAHead) -> None:
    convolution, *rest = head.bottleneck
    is_alone = all(type(one) is nn.Identity for one in rest)
    if not (is_alone and type(convolution) is FusedConv2d) or any(
        map(is_observed, head.bottleneck.modules())
    ):
        return
    split = SplitConvolution(convolution, convolution.in_channels - head.channels)
    head.bottleneck = nn.Sequential(split)
    head.__class__ = FusedHead


def _is_plain(module: nn.Module) -> bool:
    is_plain = type(module) is nn.Conv2d and module.padding_mode == "zeros"
    return is_plain and not isinstance(module.padding, str) and not is_observed(module)


def _can_follow(module: nn.Module) -> bool:
    return type(module) in _ACTIVATIONS and not is_observed(module)


def _slope(activation: nn.Module) -> float:
    return float(getattr(activation, "negative_slope", 0.0))


def _activated(x: Tensor, negative_slope: float) -> Tensor:
    """Activates in place."""
    if negative_slope == 0:
        return F.relu_(x)
    return x if negative_slope == 1 else F.leaky_relu_(x, negative_slope)


def _has_order(x: Tensor) -> bool:
    """Whether channels-last is another order than any other, which oneDNN's sum needs."""
    return x.shape[1] > 1 and x.shape[2:].numel() > 1


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _add_shortcut(
    last: FusedConv2d, out: Tensor, x: Tensor, downsample: nn.Module | None, overwrite: bool
) -> Tensor:
    total: Tensor
    if downsample is None:
        total = last(out, x, overwrite=overwrite)
    else:
        total = last(out, downsample(x), overwrite=_makes_its_own(downsample))
    return total


def _makes_its_own(shortcut: nn.Module) -> bool:
    """Whether what a shortcut returns is of a convolution, and in nobody else's hands."""
    layers = [one for one in shortcut.modules() if type(one) not in (nn.Sequential, nn.Identity)]
    is_made = bool(layers) and all(type(one) in (nn.Conv2d, FusedConv2d) for one in layers)
    return is_made and not any(is_observed(one) for one in shortcut.modules())


def _can_fuse(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is there, and nothing looks at the operations that it does not know."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    differentiates = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    is_watched = differentiates or torch._C._are_functorch_transforms_active()
    is_watched = is_watched or forward_ad._current_level >= 0 or _is_off.get()
    is_plain = x.device.type == "cpu" and type(x) is Tensor and x.dtype == weight.dtype
    is_plain = is_plain and not torch.is_autocast_enabled("cpu") and x.numel() > 0
    return is_plain and not is_watched and _is_fast(x.dtype)


@cache
def _is_fast(dtype: torch.dtype) -> bool:
    """Whether oneDNN convolves in a dtype on this processor."""
    is_there = torch.backends.mkldnn.is_available()
    is_there = is_there and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    return is_there and dtype in _DTYPES and has_instructions(dtype)
