"""Programs: a network as one function of tensors, traced for a range of sizes."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.nn import functional as F

from ccnet.deployment.exported.contract import AXES, LABELS, Contract
from ccnet.schema import reason_of
from ccnet.transforms import Preprocessing

TRACED = (2, 75, 91)
"""Number, height and width of the pictures in the batch that a program of any size is traced at."""


class LogitsProgram(nn.Module):
    """From normalised pictures (N, C, H, W), float32, to logits (N, K, H, W), float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype

    def forward(self, image: Tensor) -> Tensor:
        """Computes the logits of every pixel."""
        logits: Tensor = self.network(image.to(self.dtype))["out"]
        return logits.float()


class LabelsProgram(nn.Module):
    """From pictures (N, H, W, C), uint8, to labels (N, H, W), uint8."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.logits = LogitsProgram(network)
        self.is_turned = preprocessing.channel_order == "BGR"
        for name in ("mean", "std"):
            constant = torch.tensor(getattr(preprocessing, name))[:, None, None]
            self.register_buffer(name, constant, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Computes the class of every pixel: `Preprocessing`, the network, the largest logit."""
        pixels = image.movedim(-1, 1)
        if self.is_turned:
            pixels = pixels.flip(1)
        normalised = (pixels.float() - self.mean) / self.std
        logits: Tensor = self.logits(normalised)
        return logits.argmax(dim=1).to(torch.uint8)


def program_of(network: nn.Module, contract: Contract) -> nn.Module:
    """Returns the program of a network, in evaluation mode."""
    if contract.output == LABELS:
        return LabelsProgram(network, contract.preprocessing).eval()
    return LogitsProgram(network).eval()


def random_batch(size: Sequence[int], contract: Contract, seed: int = 0) -> Tensor:
    """Returns blurred noise, as a file takes it: between the pixels of noise there is no structure.

    Args:
        size: number, height and width of the pictures.
        contract: of the file.
        seed: of the noise.
    """
    count, height, width = size
    channels = contract.preprocessing.channels
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, height // 8 + 2, width // 8 + 2, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    noise = 0.2 * torch.rand(count, channels, height, width, generator=generator)
    pixels = (255 * (0.8 * smooth + noise)).to(torch.uint8)
    if contract.output == LABELS:
        return pixels.movedim(1, -1).contiguous()
    return contract.preprocessing(pixels)


@torch.no_grad()
def trace(program: nn.Module, contract: Contract) -> ExportedProgram:
    """Traces a program for all sizes that its contract has.

    Raises:
        ValueError: if the network does not take these sizes, or computes differently at some.
    """
    traced = [
        min(max(number, low), high)
        for number, (low, high) in zip(TRACED, contract.sizes, strict=True)
    ]
    axes = (0, 1, 2) if contract.output == LABELS else (0, 2, 3)
    places = list(zip(axes, AXES, contract.sizes, strict=True))
    named = {axis: Dim(name, min=low, max=high) for axis, name, (low, high) in places if low < high}
    found = dict.fromkeys(named, Dim.AUTO)
    batch = random_batch(traced, contract)
    problem: Exception | None = None
    # What PyTorch cannot prove of a range is true of it all the same, for most networks.
    for shapes in (named, found):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exported = torch.export.export(
                    program, (batch,), dynamic_shapes={"image": shapes}, strict=False
                )
        except Exception as error:
            problem = error
            continue
        for axis, name, bounds in places:
            _check_range(exported, axis, name, bounds)
        _forget_sources(exported)
        return exported
    raise ValueError(
        "PyTorch cannot export this network for a range of sizes; it may for one (size): "
        f"{reason_of(problem or ValueError())}"
    ) from problem


def _check_range(exported: ExportedProgram, axis: int, name: str, bounds: tuple[int, int]) -> None:
    """Checks that the program computes for all lengths of an axis what the network does.

    PyTorch narrows a range, and says nothing, where the network does something else outside.

    Raises:
        ValueError: if it does not; says for which it does.
    """
    low, high = bounds
    if low == high:
        return
    places = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    (given,) = exported.graph_signature.user_inputs
    length = places[given].meta["val"].shape[axis]
    found = exported.range_constraints.get(getattr(getattr(length, "node", None), "expr", None))
    if found is None:  # a number, or a multiple of one
        shown = f"{length} alone"
    elif found.lower <= max(low, 2) and found.upper >= high:  # what it found of 2 is true of 1
        return
    else:
        shown = f"{found.lower} to {found.upper}"
    advice = "" if name == AXES[0] else "; one size (--size HEIGHT,WIDTH) may be exported"
    raise ValueError(
        f"PyTorch exports this network for a {name} of {shown}, not {low} to {high}: it computes "
        f"something else outside{advice}"
    )


def _forget_sources(exported: ExportedProgram) -> None:
    """Removes the paths of files of this machine."""
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)
