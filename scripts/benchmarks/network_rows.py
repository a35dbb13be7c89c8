"""Rows of the network benchmark: this network in its forms, and others, as functions."""

import copy
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from random_network import CLASSES, random_network
from torch import Tensor, nn
from torchvision.models import segmentation

import ccnet
from ccnet.baselines import PublishedCrissCrossAttention2d

FORMS = ("float32", "bfloat16")


class Row(NamedTuple):
    """Something that maps a batch (N, 3, H, W), float32, to logits.

    Attributes:
        call: does it.
        module: what does it, if its operations can be watched; None if not.
        precision: in which it computes, such as "float32", "bfloat16", of files also "int8".
    """

    call: Callable[[Tensor], object]
    module: nn.Module | None
    precision: str


class Plain(nn.Module):
    """A network with attention in the published formulation, which runs the auxiliary head too."""

    def __init__(self, model: ccnet.CCNet) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        if self.model.head.cca is not None:
            self.model.head.cca = PublishedCrissCrossAttention2d(self.model.head.cca)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Computes main and auxiliary logits (N, K, H, W)."""
        model = self.model
        stage3, stage4 = model.backbone(x)
        logits = [model.head(stage4)]
        if model.aux_head is not None:
            logits.append(model.aux_head(stage3))
        return [model.to_pixels(one, x.shape[-2:]) for one in logits]


class Networks:
    """The networks that rows share, each made when it is first asked for.

    Args:
        network: a name that `find_builder` knows.
        device: where they are.
    """

    def __init__(self, network: str, device: str) -> None:
        self.device = device
        self.model: ccnet.CCNet = random_network(network).eval().to(device)

    @cached_property
    def plain(self) -> nn.Module:
        """In the published formulation."""
        return Plain(self.model).eval()

    @cached_property
    def this(self) -> nn.Module:
        """In channels-last order."""
        return copy.deepcopy(self.model).to(memory_format=torch.channels_last)

    @cached_property
    def optimized(self) -> dict[str, nn.Module]:
        """By precision."""
        return {
            form: ccnet.optimize_for_inference(self.model, getattr(torch, form)) for form in FORMS
        }

    def row(self, module: nn.Module, precision: str, layout: torch.memory_format) -> Row:
        """A module that computes in a precision by autocast, on batches in a memory format."""

        def call(x: Tensor) -> object:
            is_half = precision != "float32"
            with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=is_half):
                return module(x.contiguous(memory_format=layout))

        return Row(call, module, precision)

    def compiled(self, module: nn.Module, precision: str) -> Row:
        """A module, compiled where it is first called."""
        return Row(torch.compile(module), None, precision)

    def torchvision(self, name: str, precision: str) -> Row:
        """A network of torchvision, without pretrained weights, in channels-last order."""
        build = getattr(segmentation, name)
        module = build(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
        module = module.to(self.device, memory_format=torch.channels_last)
        return self.row(module, precision, torch.channels_last)

    def file(self, path: Path) -> Row:
        """An exported file, on the CPU."""
        from ccnet.deployment.exported.network import ExportedNetwork, load_exported

        if self.device != "cpu":
            raise ValueError(f"{path} runs on the CPU, not on {self.device}")
        file = load_exported(path, trusted=True)
        if not isinstance(file, ExportedNetwork):
            raise ValueError(f"{path} gives labels: only files of logits are measured")
        return Row(file, None, file.contract.origin["precision"])


def builders(networks: Networks, files: list[Path]) -> dict[str, Callable[[], Row]]:
    """Returns what makes each row, by its name; any may fail."""
    rows: dict[str, Callable[[], Row]] = {}
    for form in FORMS:
        rows |= {
            f"plain {form}": partial(_plain, networks, form),
            f"this {form}": partial(_this, networks, form),
            f"optimised {form}": partial(_optimized, networks, form),
            f"optimised compiled {form}": partial(_compiled, networks, form),
        }
    rows |= {path.name: partial(networks.file, path) for path in files}
    for name in ("deeplabv3_resnet101", "fcn_resnet101"):
        for form in FORMS:
            rows[f"torchvision {name} {form}"] = partial(networks.torchvision, name, form)
    return rows


def _plain(networks: Networks, form: str) -> Row:
    return networks.row(networks.plain, form, torch.contiguous_format)


def _this(networks: Networks, form: str) -> Row:
    return networks.row(networks.this, form, torch.channels_last)


def _optimized(networks: Networks, form: str) -> Row:
    module = networks.optimized[form]
    return Row(module, module, form)


def _compiled(networks: Networks, form: str) -> Row:
    return networks.compiled(networks.optimized[form], form)
