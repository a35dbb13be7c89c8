"""Dilated ResNets: torchvision's ResNets with deep stem, dilated stages, two outputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from ccnet.options import named_options
from ccnet.schema import check, flag, integer, number, one_of, several
from ccnet.transforms import MAX_CHANNELS, Preprocessing

_RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
BACKBONES = tuple(_RESNETS)

OUTPUT_STRIDES = (8, 16, 32)
DEEP_STEM = (64, 64, 128)
"""Output channels of the three 3x3 convolutions in the stem of CCNet's published ResNets."""


_RULES = {
    "name": one_of(*BACKBONES),
    "in_channels": integer(1, MAX_CHANNELS),
    "stem_widths": several(0, 10, integer(1, 4096)).or_none(),
    "output_stride": one_of(*OUTPUT_STRIDES),
    "contract_dilation": flag(),
    "ceil_mode": flag(),
    "negative_slope": number(0, 1),
}


_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
"""Before PyTorch 2.7, compiling and exporting cannot be told apart."""


class Backbone(nn.Module):
    """ResNet without classifier, whose last two stages keep the resolution by dilation.

    Args:
        name: one of "resnet18", "resnet50", "resnet101".
        in_channels: number of channels of the input.
        stem_widths: output channels of the stem's 3x3 convolutions, of which the first has stride
            2; empty for torchvision's single 7x7 convolution; None for the usual stem (7x7 for
            "resnet18", 64-64-128 for the others).
        output_stride: input pixels per pixel of the last feature map: 8, 16 or 32 (no dilation).
        contract_dilation: halve the dilation of a dilated stage's first block, as OpenMMLab does.
        ceil_mode: round the output size of the max-pool up, as the authors' code does.
        negative_slope: slope of the activations; 0 is ReLU, which `norm.convert_inplace_abn` cannot
            convert as it is.

    Attributes:
        gradient_checkpointing: in training, save only the inputs of the residual blocks, and
            recompute their activations in the backward pass; off by default.
        channels: number of channels (C3, C4) of the two outputs.
        stem_widths: output channels of the stem's 3x3 convolutions; empty for the 7x7 stem.
        slopes: of its activations, see `norm.activation_slopes`.
        preprocessing: of its ImageNet weights.
        image_size: None: it takes pictures of any size.
        settled: arguments that it changed to what it can do: none.

    Raises:
        ValueError: if an argument is of the wrong type or out of range.

    Source:
        ResNet (https://arxiv.org/abs/1512.03385), dilated as in https://arxiv.org/abs/1606.00915.
    """

    preprocessing = Preprocessing()
    image_size = None
    settled: Mapping[str, Any] = {}

    @named_options()
    def __init__(
        self,
        name: str = "resnet101",
        *,
        in_channels: int = 3,
        stem_widths: Sequence[int] | None = None,
        output_stride: int = 8,
        contract_dilation: bool = False,
        ceil_mode: bool = True,
        negative_slope: float = 0.0,
    ) -> None:
        check(locals(), _RULES)
        super().__init__()
        if stem_widths is None:
            stem_widths = () if name == "resnet18" else DEEP_STEM
        self.stem_widths = tuple(stem_widths)
        block, depths = _RESNETS[name]
        resnet = ResNet(block, list(depths))
        if stem_widths:
            stem = _deep_stem(in_channels, stem_widths)
            if stem_widths[-1] != 64:
                resnet.inplanes = stem_widths[-1]
                resnet.layer1 = resnet._make_layer(block, 64, depths[0])
        else:
            if in_channels != 3:
                resnet.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            stem = [resnet.conv1, resnet.bn1, resnet.relu]
        pool = _Pool(kernel_size=3, stride=2, padding=1, ceil_mode=ceil_mode)
        self.stem = nn.Sequential(*stem, pool)
        self.layer1 = Stage(*resnet.layer1)
        self.layer2 = Stage(*resnet.layer2)
        self.layer3 = Stage(*resnet.layer3)
        self.layer4 = Stage(*resnet.layer4)
        self.channels = (256 * block.expansion, 512 * block.expansion)
        dilation = 1
        for stage, stride in ((self.layer3, 16), (self.layer4, 32)):
            if output_stride < stride:
                contracted, dilation = dilation, 2 * dilation
                _dilate(stage, dilation, contracted if contract_dilation else dilation)
        for module in (self.stem, self.layer1):
            _initialise(module)
        self.gradient_checkpointing = False
        self.slopes = {float(negative_slope)}
        if negative_slope:
            _make_leaky(self, negative_slope)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the feature maps of the last two stages.

        Args:
            x: (N, C, H, W), normalised.

        Returns:
            (N, C3, h, w) and (N, C4, h', w'), of the same size if `output_stride` is 8.
        """
        in_training = self.training and torch.is_grad_enabled()
        options = {"checkpointed": True} if self.gradient_checkpointing and in_training else {}
        stage3 = self.stem(x)
        for stage in (self.layer1, self.layer2, self.layer3):
            stage3 = stage(stage3, **options)
        return stage3, self.layer4(stage3, **options)


class Stage(nn.Sequential):
    """Residual blocks of one resolution."""

    def forward(self, x: Tensor, *, checkpointed: bool = False) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W').

        Args:
            x: floating point.
            checkpointed: save only the inputs of the blocks for the backward pass.
        """
        for block in self:
            if checkpointed:
                x = checkpoint(block, x, use_reentrant=False, context_fn=partial(_contexts, block))
            else:
                x = block(x)
        return x


class _Pool(nn.MaxPool2d):
    """Max-pool, 3x3 with stride 2, that can be exported for a range of sizes in `ceil_mode` too.

    There, PyTorch asks whether the last window begins in the padding, and does not find out that
    none does. With the last row and column repeated, maxima are the same, and nothing is asked.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.ceil_mode and _is_exporting():
            repeated = F.pad(x, (0, 1, 0, 1), mode="replicate")
            return F.max_pool2d(repeated, self.kernel_size, self.stride, self.padding)
        pooled: Tensor = super().forward(x)
        return pooled


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Returns the contexts of a block's forward pass and of its recomputation in backward."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Normalises batches by their own statistics without updating the running statistics."""
    norms = [layer for layer in module.modules() if isinstance(layer, _NormBase)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _make_leaky(module: nn.Module, negative_slope: float) -> None:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.LeakyReLU(negative_slope, inplace=True))


def _deep_stem(in_channels: int, widths: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index, (previous, width) in enumerate(zip((in_channels, *widths), widths, strict=False)):
        stride = 2 if index == 0 else 1
        layers += [
            nn.Conv2d(previous, width, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return layers


def _dilate(stage: nn.Module, dilation: int, first_dilation: int) -> None:
    """Replaces the stride of a stage by dilation; its first block has `first_dilation`."""
    for index, block in enumerate(stage.children()):
        amount = first_dilation if index == 0 else dilation
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (amount, amount)


def _initialise(module: nn.Module) -> None:
    """Applies torchvision's initialisation to layers created after its constructor."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
