"""Cases of the benchmark on a GPU: the operator, the network, and what CCNet-Pure-Pytorch reports.

In each, implementations of attention do the same work; they are given by name.
"""

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from attention_operator import LAYOUTS, make_inputs
from random_network import CLASSES, random_network
from torch import Tensor, nn

from ccnet import CCNet
from ccnet.losses import OhemCrossEntropyLoss, SegmentationLoss

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]
Operators = dict[str, Operator]
Work = Callable[[], object]


class Sizes(NamedTuple):
    """What is measured."""

    maps: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    network: str
    crop: int
    training_batch: int
    image: tuple[int, int]
    rounds: int


SIZES = {
    "cuda": Sizes(((97, 97), (129, 129)), (8, 1, 2), "ccnet_resnet101", 769, 2, (1024, 2048), 11),
    "cpu": Sizes(((9, 9),), (2, 1), "ccnet_resnet18", 65, 2, (96, 128), 2),
}


COMPILED = ("published", "before", "this")
"""What is also measured in compiled graphs."""


class Case(NamedTuple):
    """One piece of work.

    Attributes:
        title: what is done.
        build: returns the work of each implementation, ready to be called.
    """

    title: str
    build: Callable[[], dict[str, Work]]


def operator_cases(operators: Operators, sizes: Sizes, device: str) -> list[Case]:
    """Forward, and forward with backward; the most telling first."""
    grid = itertools.product(
        sizes.maps, sizes.batches, ("bfloat16", "float32"), reversed(LAYOUTS), PASSES
    )
    return [
        Case(
            f"{batch}x{size[0]}x{size[1]}, {dtype}, {layout}, {name}",
            partial(_operator_works, operators, size, batch, dtype, layout, device, PASSES[name]),
        )
        for size, batch, dtype, layout, name in grid
    ]


def compiled_cases(operators: Operators, sizes: Sizes, device: str) -> list[Case]:
    """The same for the first size and batch, with compiled operators beside."""
    backend = "aot_eager" if device == "cpu" else "inductor"

    def build(plain: Case) -> dict[str, Work]:
        torch.compiler.reset()  # each case is compiled for itself
        return plain.build()

    compiled = {
        f"{name}, compiled": torch.compile(operator, fullgraph=True, backend=backend)
        for name, operator in operators.items()
        if name in COMPILED
    }
    few = sizes._replace(maps=sizes.maps[:1], batches=sizes.batches[:1])
    cases = operator_cases(operators | compiled, few, device)
    return [Case(case.title, partial(build, case)) for case in cases]


def network_cases(operators: Operators, sizes: Sizes, device: str) -> list[Case]:
    """A forward pass for inference, and a training step, of the whole network."""
    network = _Network(operators, sizes, device)
    batch, crop = sizes.training_batch, f"{sizes.crop}x{sizes.crop}"
    works = {"forward pass": network.inference, "training step, OHEM": network.training}
    options = (("channels_last", True), ("NCHW", False))
    return [
        Case(
            f"{name}, {batch}x{crop}, {'bfloat16 autocast' if half else 'float32'}, {layout}",
            partial(build, batch, layout, half),
        )
        for (layout, half), (name, build) in itertools.product(options, works.items())
    ]


def claim_cases(operators: Operators, sizes: Sizes, device: str) -> list[Case]:
    """What the first implementation in pure PyTorch reported times of."""
    network = _Network(operators, sizes, device)
    image = "x".join(map(str, sizes.image))
    return [
        Case(
            f"training step, 1x{sizes.crop}x{sizes.crop}, OHEM, float32, NCHW",
            partial(network.training, 1, "NCHW", False),
        ),
        Case(f"image of {image} in windows of {sizes.crop}", network.evaluation),
    ]


CASES = {
    "operator": operator_cases,
    "compiled": compiled_cases,
    "network": network_cases,
    "claim": claim_cases,
}


def _forward(operator: Operator, inputs: list[Tensor], _: Tensor) -> None:
    with torch.no_grad():
        operator(*inputs)


def _forward_backward(operator: Operator, inputs: list[Tensor], upstream: Tensor) -> None:
    torch.autograd.grad(operator(*inputs), inputs, upstream)


PASSES = {"forward": _forward, "forward + backward": _forward_backward}


def _operator_works(
    operators: Operators,
    size: tuple[int, int],
    batch: int,
    dtype: str,
    layout: str,
    device: str,
    run: Callable[[Operator, list[Tensor], Tensor], None],
) -> dict[str, Work]:
    inputs = make_inputs(size, batch, getattr(torch, dtype), layout, device)
    upstream = torch.ones_like(inputs[2])
    return {name: partial(run, operator, inputs, upstream) for name, operator in operators.items()}


class _Attention(nn.Module):
    """The criss-cross module with another operator."""

    def __init__(self, module: nn.Module, operator: Operator) -> None:
        super().__init__()
        self.module, self.operator = module, operator

    def forward(self, x: Tensor) -> Tensor:
        module = self.module
        convolutions = module.query_conv, module.key_conv, module.value_conv
        attended = self.operator(*(project(x) for project in convolutions))
        return module.gamma.to(attended.dtype) * attended + x


class _Network:
    """A network in which the operator is exchanged from call to call."""

    def __init__(self, operators: Operators, sizes: Sizes, device: str) -> None:
        self.operators, self.sizes, self.device = operators, sizes, device

    @cache  # noqa: B019 - there are few, and they live as long as their process
    def model(self) -> tuple[CCNet, dict[str, nn.Module]]:
        model = random_network(self.sizes.network).to(self.device)
        module = model.head.cca
        attentions = {name: _Attention(module, use) for name, use in self.operators.items()}
        return model, attentions

    def training(self, batch: int, layout: str, half: bool) -> dict[str, Work]:
        images = self._images(batch, layout)
        labels = torch.randint(0, CLASSES, (batch, *images.shape[2:]), device=self.device)
        loss = SegmentationLoss(main=OhemCrossEntropyLoss())
        model = self.model()[0].train().to(memory_format=LAYOUTS[layout])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device, torch.bfloat16, enabled=half):
                outputs = model(images)
            loss(outputs, labels).backward()
            optimizer.step()

        return self._with_each_operator(step)

    def inference(self, batch: int, layout: str, half: bool) -> dict[str, Work]:
        images = self._images(batch, layout)
        model = self.model()[0].eval().to(memory_format=LAYOUTS[layout])

        def infer() -> None:
            with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=half):
                model(images)

        return self._with_each_operator(infer)

    def evaluation(self) -> dict[str, Work]:
        model, image = self.model()[0].eval(), torch.rand(3, *self.sizes.image)
        return self._with_each_operator(
            lambda: model.predict(image, mode="slide", crop=self.sizes.crop)
        )

    def _images(self, batch: int, layout: str) -> Tensor:
        images = torch.randn(batch, 3, self.sizes.crop, self.sizes.crop, device=self.device)
        return images.contiguous(memory_format=LAYOUTS[layout])

    def _with_each_operator(self, work: Work) -> dict[str, Work]:
        model, attentions = self.model()

        def run(attention: nn.Module) -> None:
            model.head.cca = attention
            work()

        return {name: partial(run, attention) for name, attention in attentions.items()}
