"""The three known code bases' CCNet, each written out from its definition, and their checkpoints.

Nothing here uses the package: this is what the package's conversion is held against.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
CAFFE_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)


@dataclass(frozen=True)
class Definition:
    """How a code base computes; the names, of convolutions and norms, are those of its files."""

    stem: tuple[tuple[int, str, str], ...]  # widths and names
    backbone: str
    conva: tuple[str, str]
    cca: str
    gamma: str
    convb: tuple[str, str]
    bottleneck: tuple[str, str]
    classifier: str
    aux: tuple[str, str]
    aux_classifier: str
    aux_width: int  # between the auxiliary head's two convolutions
    in_place_norm: bool = False  # scales by |w| + eps instead of w
    slope: float = 0.0  # in the heads; the backbone's is 0 everywhere
    contracted: bool = False  # a dilated stage's first block has half its dilation
    ceil_mode: bool = True
    counts: bool = True  # `num_batches_tracked` is in the checkpoint
    aux_bias: bool = True  # of the auxiliary head's first convolution
    align_corners: bool = True


_AUTHORS_NAMES = {
    "stem": ((64, "conv1", "bn1"), (64, "conv2", "bn2"), (128, "conv3", "bn3")),
    "backbone": "",
    "conva": ("head.conva.0", "head.conva.1"),
    "cca": "head.cca",
    "gamma": "head.cca.gamma",
    "convb": ("head.convb.0", "head.convb.1"),
    "bottleneck": ("head.bottleneck.0", "head.bottleneck.1"),
    "aux": ("dsn.0", "dsn.1"),
    "aux_width": 512,
}
AUTHORS = Definition(
    **_AUTHORS_NAMES,
    classifier="head.bottleneck.3",
    aux_classifier="dsn.3",
    in_place_norm=True,
    slope=0.01,
    counts=False,
)
PURE_PYTORCH = Definition(**_AUTHORS_NAMES, classifier="head.bottleneck.4", aux_classifier="dsn.4")
OPENMMLAB = Definition(
    stem=(
        (32, "backbone.stem.0", "backbone.stem.1"),
        (32, "backbone.stem.3", "backbone.stem.4"),
        (64, "backbone.stem.6", "backbone.stem.7"),
    ),
    backbone="backbone.",
    conva=("decode_head.convs.0.conv", "decode_head.convs.0.bn"),
    cca="decode_head.cca",
    gamma="decode_head.cca.gamma.scale",
    convb=("decode_head.convs.1.conv", "decode_head.convs.1.bn"),
    bottleneck=("decode_head.conv_cat.conv", "decode_head.conv_cat.bn"),
    classifier="decode_head.conv_seg",
    aux=("auxiliary_head.convs.0.conv", "auxiliary_head.convs.0.bn"),
    aux_classifier="auxiliary_head.conv_seg",
    aux_width=256,
    contracted=True,
    ceil_mode=False,
    aux_bias=False,
)
DEFINITIONS = {"authors": AUTHORS, "pure": PURE_PYTORCH, "openmmlab": OPENMMLAB}


def random_state(definition: Definition, depth: str = "resnet50", num_classes: int = 19):
    """A state dict with the names and shapes of this code base, every value random."""
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, size: int, bias: bool = False, scale=1.0):
        std = scale / (inputs * size * size) ** 0.5
        state[f"{name}.weight"] = std * torch.randn(outputs, inputs, size, size)
        if bias:
            state[f"{name}.bias"] = torch.randn(outputs) / 2

    def norm(name: str, width: int):
        signs = torch.randint(0, 2, (width,)) * 2 - 1
        state[f"{name}.weight"] = signs * (0.5 + torch.rand(width))
        state[f"{name}.bias"] = torch.randn(width) / 2
        state[f"{name}.running_mean"] = torch.randn(width) / 4
        state[f"{name}.running_var"] = 0.5 + torch.rand(width)
        if definition.counts:
            state[f"{name}.num_batches_tracked"] = torch.tensor(60_000)

    width = 3
    for outputs, name, norm_name in definition.stem:
        conv(name, width, outputs, 3)
        norm(norm_name, outputs)
        width = outputs
    expansion = 1 if depth == "resnet18" else 4
    for stage, blocks in enumerate(DEPTHS[depth]):
        planes = 64 * 2**stage
        for index in range(blocks):
            block = f"{definition.backbone}layer{stage + 1}.{index}"
            shapes = ((width, planes, 3), (planes, planes, 3))
            if expansion == 4:
                shapes = ((width, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1))
            for number, shape in enumerate(shapes, start=1):
                conv(f"{block}.conv{number}", *shape)
                norm(f"{block}.bn{number}", shape[1])
            if width != planes * expansion or (stage and index == 0):
                conv(f"{block}.downsample.0", width, planes * expansion, 1)
                norm(f"{block}.downsample.1", planes * expansion)
            width = planes * expansion
    inner = width // 4
    conv(definition.conva[0], width, inner, 3)
    norm(definition.conva[1], inner)
    conv(f"{definition.cca}.query_conv", inner, inner // 8, 1, bias=True, scale=0.3)
    conv(f"{definition.cca}.key_conv", inner, inner // 8, 1, bias=True, scale=0.3)
    conv(f"{definition.cca}.value_conv", inner, inner, 1, bias=True)
    is_scalar = definition.gamma.endswith(".scale")
    state[definition.gamma] = torch.tensor(0.8) if is_scalar else torch.tensor([0.8])
    conv(definition.convb[0], inner, inner, 3)
    norm(definition.convb[1], inner)
    conv(definition.bottleneck[0], width + inner, inner, 3)
    norm(definition.bottleneck[1], inner)
    conv(definition.classifier, inner, num_classes, 1, bias=True)
    conv(definition.aux[0], width // 2, definition.aux_width, 3, bias=definition.aux_bias)
    norm(definition.aux[1], definition.aux_width)
    conv(definition.aux_classifier, definition.aux_width, num_classes, 1, bias=True)
    return state


def forward(definition: Definition, state: dict[str, Tensor], x: Tensor, recurrence: int = 2):
    """The logits (out, aux) of preprocessed images (N, 3, H, W), at their size, in x's dtype."""
    state = {name: value.to(x.dtype) for name, value in state.items()}

    def conv(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, dilation)

    def norm(name: str, x: Tensor) -> Tensor:
        values = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (state[f"{name}.{k}"][:, None, None] for k in values)
        if definition.in_place_norm:
            weight = weight.abs() + 1e-5
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def head(names: tuple[str, str], x: Tensor) -> Tensor:
        x = norm(names[1], conv(names[0], x))
        return torch.where(x > 0, x, definition.slope * x)

    def block(name: str, x: Tensor, stride: int, dilation: int) -> Tensor:
        is_bottleneck = f"{name}.conv3.weight" in state
        dilations = (1, dilation, 1) if is_bottleneck else (dilation, dilation)
        strides = (1, stride, 1) if is_bottleneck else (stride, 1)
        y = x
        for index, pair in enumerate(zip(strides, dilations, strict=True)):
            y = norm(f"{name}.bn{index + 1}", conv(f"{name}.conv{index + 1}", y, *pair))
            if index + 1 < len(strides):
                y = y.relu()
        if f"{name}.downsample.0.weight" in state:
            x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride))
        return (y + x).relu()

    def attend(x: Tensor) -> Tensor:
        query, key, value = (
            conv(f"{definition.cca}.{part}_conv", x) for part in ("query", "key", "value")
        )
        in_column = torch.einsum("ncyx,nczx->nyxz", query, key)
        in_row = torch.einsum("ncyx,ncyz->nyxz", query, key)
        height, width = x.shape[-2:]
        itself = torch.eye(height, dtype=torch.bool)[None, :, None, :]
        energies = torch.cat([in_column.masked_fill(itself, -torch.inf), in_row], dim=-1)
        columns, rows = energies.softmax(dim=-1).split([height, width], dim=-1)
        gathered = torch.einsum("nyxz,nczx->ncyx", columns, value)
        gathered = gathered + torch.einsum("nyxz,ncyz->ncyx", rows, value)
        return state[definition.gamma] * gathered + x

    size = x.shape[-2:]
    for index, (_, name, norm_name) in enumerate(definition.stem):
        x = norm(norm_name, conv(name, x, stride=2 if index == 0 else 1)).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=definition.ceil_mode)
    stages = []
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
        index = 0
        while f"{definition.backbone}layer{stage}.{index}.conv1.weight" in state:
            halved = definition.contracted and index == 0 and dilation > 1
            amount = dilation // 2 if halved else dilation
            name = f"{definition.backbone}layer{stage}.{index}"
            x = block(name, x, stride if index == 0 else 1, amount)
            index += 1
        stages.append(x)
    context = head(definition.conva, x)
    for _ in range(recurrence):
        context = attend(context)
    context = head(definition.convb, context)
    out = conv(definition.classifier, head(definition.bottleneck, torch.cat([x, context], dim=1)))
    aux = conv(definition.aux_classifier, head(definition.aux, stages[2]))
    return tuple(
        F.interpolate(y, size, mode="bilinear", align_corners=definition.align_corners)
        for y in (out, aux)
    )


def mmseg_checkpoint(state: dict[str, Tensor], align_corners: bool):
    """A checkpoint as mmsegmentation wraps it."""
    config = f"model = dict(decode_head=dict(type='CCHead', align_corners={align_corners}))"
    meta = {"mmseg_version": "0.5.0+b57fb2b", "config": config}
    return {"meta": meta, "state_dict": state}


def difference(one, other):
    """The largest difference, relative to the largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


def random_input(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)


def small_state(family, num_classes=19):
    return random_state(DEFINITIONS[family], "resnet18", num_classes)
