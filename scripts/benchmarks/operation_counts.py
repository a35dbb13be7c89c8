"""Counts of tensor operations and of the bytes that they move; on the meta device, for example.

That device takes the code path of every device but the CPU, computes nothing, and raises an error
where a result would be needed on the host.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ccnet.baselines import PublishedCrissCrossAttention2d
from ccnet.losses import OhemCrossEntropyLoss, SegmentationLoss
from ccnet.zoo import NETWORKS

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]
Count = tuple[int, float]
"""Operations and GB (1e9 bytes)."""

_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_OVERWRITING = {"copy_", "fill_", "zero_"}


class OperationCount(TorchDispatchMode):
    """Context that counts the operations in it, except views and allocations.

    Attributes:
        operations: their number.
        moved: the bytes of the tensors that each reads, and of those that it writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.moved = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        name = function.overloadpacket.__name__
        written = _tensors(result)
        if written and not function.is_view and name not in _ALLOCATIONS | {"_unsafe_view"}:
            only_written = {
                argument.name for argument in function._schema.arguments if argument.is_out
            }
            inputs = [value for key, value in kwargs.items() if key not in only_written]
            read = _tensors((args[name in _OVERWRITING :], inputs))
            self.operations += 1
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in read + written)
        return result

    @property
    def count(self) -> Count:
        """Operations and GB."""
        return self.operations, self.moved / 1e9


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def operator_counts(operator: Operator, inputs: Sequence[Tensor]) -> tuple[Count, Count]:
    """Counts forward and backward of an operator, from the second call on."""
    operator(*inputs)
    with OperationCount() as forward:
        output = operator(*inputs)
    upstream = torch.empty_like(output)
    with OperationCount() as backward:
        torch.autograd.grad(output, inputs, upstream)
    return forward.count, backward.count


def step_counts(network: str, shape: Sequence[int], *, published: bool) -> dict[str, Count]:
    """Counts the parts of a training step on the meta device, channels-last, float32.

    Args:
        network: name of a network.
        shape: (N, 3, H, W) of the images.
        published: whether attention is computed in the published formulation.
    """
    with torch.device("meta"):
        model = NETWORKS[network](num_classes=19).train().to(memory_format=torch.channels_last)
        images = torch.empty(shape).contiguous(memory_format=torch.channels_last)
        labels = torch.empty(shape[0], *shape[2:], dtype=torch.uint8)
    if published:
        model.head.cca = PublishedCrissCrossAttention2d(model.head.cca)
    criterion: nn.Module = SegmentationLoss(main=OhemCrossEntropyLoss())
    with OperationCount() as forward:
        outputs = model(images)
    with OperationCount() as loss:
        value = criterion(outputs, labels)
    parameters = list(model.parameters())
    with OperationCount() as backward:
        torch.autograd.grad(value, parameters)
    parts = {"forward": forward, "loss": loss, "backward": backward}
    return {name: part.count for name, part in parts.items()}


def operator_table(
    operators: dict[str, Operator],
    make_inputs: Callable[..., list[Tensor]],
    size: tuple[int, int],
    batches: Sequence[int],
    dtypes: Sequence[str],
    layouts: Sequence[str],
) -> str:
    """Counts operators on the meta device; returns a Markdown table."""
    lines = [
        "| batch, dtype, layout | pass | " + " | ".join(operators) + " |",
        "| --- | --- |" + " ---: |" * len(operators),
    ]
    for batch, dtype, layout in itertools.product(batches, dtypes, layouts):
        inputs = make_inputs(size, batch, getattr(torch, dtype), layout, "meta")
        counts = [operator_counts(operator, inputs) for operator in operators.values()]
        for name, passes in zip(("forward", "backward"), zip(*counts, strict=True), strict=True):
            lines.append(f"| {batch}, {dtype}, {layout} | {name} | {_cells(passes)} |")
    return "\n".join(lines)


def step_table(network: str, shape: Sequence[int]) -> str:
    """Counts a training step with this operator and with the published one, in Markdown."""
    this, published = (step_counts(network, shape, published=which) for which in (False, True))
    title = f"{network}, {'x'.join(map(str, shape))}, float32, channels-last, OHEM and auxiliary"
    lines = [f"| {title} | this | published |", "| --- | ---: | ---: |"]
    lines += [f"| {part} | {_cells((this[part], published[part]))} |" for part in this]
    return "\n".join(lines)


def _cells(counts: Sequence[Count]) -> str:
    return " | ".join(f"{operations}, {gigabytes:.2f}" for operations, gigabytes in counts)
