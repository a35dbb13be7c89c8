"""Weights, configurations and checkpoints for the fuzz test."""

import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_files import Subject, check_message, digest
from fuzz_mutations import change_archive, change_json, change_legacy, change_safetensors
from safetensors.torch import save, save_file

from ccnet.model import CCNet
from ccnet.training.checkpoint import load_checkpoint, save_checkpoint
from ccnet.weights import ModelWeights, write_weights
from ccnet.weights.backbones import read_backbone
from ccnet.weights.sources import load_weights


def _network(conv: str, classifier: str, layer: str = "layer") -> dict[str, torch.Tensor]:
    """A few tensors with the names of a family: enough to be recognised, and measured."""
    state = {f"{layer}3.{i}.conv1.weight": torch.randn(2, 2, 3, 3) for i in range(2)}
    state |= {f"{conv}.weight": torch.randn(4, 3, 3, 3), f"{classifier}.weight": torch.randn(5, 3)}
    state |= {f"{layer}1.0.bn1.{name}": torch.rand(2) for name in ("weight", "running_mean")}
    return {**state, f"{layer}1.0.bn1.num_batches_tracked": torch.tensor(3)}


@cache
def _states() -> dict[str, dict[str, Any]]:
    meta = {
        "CLASSES": ("a", "b", "c", "d", "e"),
        "PALETTE": [[1, 2, 3]] * 5,
        "config": "norm = dict(type='BN')\nmodel = dict(decode_head=dict(recurrence=2), "
        "backbone=dict(norm_cfg=norm, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)))\n",
    }
    openmmlab = _network("backbone.stem.0", "decode_head.conv_seg", "backbone.layer")
    own = _network("backbone.stem.0", "head.classifier", "backbone.layer")
    return {
        "authors": _network("conv1", "head.bottleneck.3"),
        "pure": {
            "state_dict": _network("module.conv1", "module.head.bottleneck.4", "module.layer")
        },
        "openmmlab": {"meta": meta, "state_dict": openmmlab, "optimizer": {"lr": np.float64(0.1)}},
        "own": {"epoch": 3, "model": own, "ema": [torch.randn(5, 3)]},
    }


def _config(**changes: Any) -> dict[str, Any]:
    with torch.device("meta"):
        return CCNet("resnet18", 3, label_set={"categories": ["a", "b", "c"]}, **changes).config


def weights(folder: Path) -> Iterator[Subject]:
    torch.manual_seed(0)
    config, details = _config(), {"license": "MIT", "metrics": {"x": {"mIoU": 3.5}}}
    state = _states()["own"]["model"]
    write_weights(folder / "own", ModelWeights(state, config, details))
    own, bare = (folder / "own").read_bytes(), save(state, metadata={"config": "{}"})
    for name, content in (("safetensors", own), ("bare safetensors", bare)):
        yield Subject(
            *(name, content, "a.safetensors", _read_weights, (change_safetensors,), (own, bare)),
            notices_a_bit=name == "safetensors",
        )
    for family, checkpoint in _states().items():
        contents = []
        for is_archive in (True, False):
            torch.save(checkpoint, at := io.BytesIO(), _use_new_zipfile_serialization=is_archive)
            contents.append(at.getvalue())
        for content, change in zip(contents, (change_archive, change_legacy), strict=True):
            is_archive = change is change_archive
            yield Subject(
                *(f"{family} {'archive' if is_archive else 'legacy'}", content, "a.pth"),
                *(_read_weights, (change,), contents),
                notices_a_bit=is_archive,
            )
    resnet = {**_network("conv1", "fc"), "layer4.1.conv2.weight": torch.randn(2, 2, 3, 3)}
    torch.save(resnet, folder / "resnet.pth")
    content = (folder / "resnet.pth").read_bytes()
    yield Subject("backbone", content, "a.pth", _read_backbone, (change_archive,))
    run = {"model": state, "step": 3, "recipe": {"norm": "plain"}, "config": config}
    save_checkpoint(folder / "run.pt", {**run, "details": details})
    content = (folder / "run.pt").read_bytes()
    changes = (change_archive,)
    yield Subject("sealed run", content, "run.pt", _read_run, changes, is_sealed=True)
    torch.save({**run, "details": details}, folder / "run.pt")
    content = (folder / "run.pt").read_bytes()
    yield Subject("run without a seal", content, "run.pt", _read_run, changes, notices_a_bit=True)


def configurations(folder: Path) -> Iterator[Subject]:
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    beside = (folder / "model.safetensors").read_bytes()
    options = {"stem_widths": [8, 16], "output_stride": 16}
    pixels = {"mean": [1.0, 2.0, 3.0], "channel_order": "BGR"}
    for config in (_config(), _config(backbone_options=options, preprocessing=pixels)):

        def read(folder: Path) -> str:
            (folder / "model.safetensors").write_bytes(beside)
            loaded = load_weights(folder, "resnet18")
            with torch.device("meta"):
                try:
                    model = CCNet(**loaded.config)
                except TypeError as error:
                    if "unexpected keyword" not in str(error):
                        raise
                    raise ValueError("an unknown argument") from error
            json.dumps(model.config).encode()
            _show(model)
            _build(loaded)
            return ""

        content = json.dumps(config).encode()
        yield Subject("config.json", content, "config.json", read, (change_json, change_json))


def _show(model: CCNet) -> None:
    """Does what a user would see of a configuration."""
    str(model.generate_model_card()).encode()
    assert len(model.label_set.palette) == 768
    for name in model.label_set.categories:
        assert name == name.encode().decode()


def _read_weights(folder: Path) -> str:
    (path,) = folder.iterdir()
    loaded = load_weights(path, "resnet18", progress=False)
    _build(loaded)
    return digest([loaded.state_dict, loaded.config, loaded.details])


def _build(weights: ModelWeights) -> None:
    """Builds the network, for which some tensors always are missing."""
    for changes in ({}, {"num_classes": 7}):
        try:
            CCNet.from_weights(weights, **changes)
        except ValueError as error:
            check_message(error)
        else:
            raise AssertionError("a network without some of its tensors was built")


def _read_backbone(folder: Path) -> str:
    return digest(read_backbone(folder / "a.pth").state_dict)


def _read_run(folder: Path) -> str:
    return digest(load_checkpoint(folder / "run.pt"))
