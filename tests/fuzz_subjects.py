"""Subjects of the fuzz test: sound files, how each is damaged, and how it is read."""

import hashlib
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_mutations import (
    change_archive,
    change_bytes,
    change_json,
    change_legacy,
    change_safetensors,
)
from fuzz_pictures import pictures
from PIL import Image
from safetensors.torch import save, save_file

from ccnet.datasets import MaskFolder
from ccnet.datasets.label_maps import LOSSLESS, read_label_map
from ccnet.images import decode_image
from ccnet.model import CCNet
from ccnet.training.checkpoint import load_checkpoint, save_checkpoint
from ccnet.weights import ModelWeights, write_weights
from ccnet.weights.backbones import read_backbone
from ccnet.weights.sources import load_weights

Change = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Subject:
    """A sound file.

    Attributes:
        name: says what it is.
        content: of the file.
        place: its path in the folder that it is written to.
        read: reads that folder; checks what comes out and returns its digest.
        changes: what knows the file's structure; its bytes are changed in any case.
        siblings: contents that are spliced with its own.
        is_sealed: whether every change is noticed that matters.
        notices_a_bit: likewise, one flipped bit.
        has_report: whether errors list the problems of several files.
    """

    name: str
    content: bytes
    place: str
    read: Callable[[Path], str]
    changes: tuple[Change, ...] = ()
    siblings: Sequence[bytes] = ()
    is_sealed: bool = False
    notices_a_bit: bool = False
    has_report: bool = False


def subjects(folder: Path) -> list[Subject]:
    """Makes all subjects; the folder is for what lies beside them, and for temporary files."""
    return [*_weights(folder), *_configurations(folder), *_masks(folder), *_pictures()]


def digest(value: Any) -> str:
    """A hash of tensors and plain values; checks that there is nothing else."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        assert value.layout == torch.strided
        assert value.untyped_storage().nbytes() <= 2**20
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        found.update(value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(found, key)
            _feed(found, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(found, item)
    else:
        found.update(repr(value).encode(errors="surrogatepass"))


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
        "pure": {"state_dict": _network("module.conv1", "module.head.bottleneck.4", "module.layer")},
        "openmmlab": {"meta": meta, "state_dict": openmmlab, "optimizer": {"lr": np.float64(0.1)}},
        "own": {"epoch": 3, "model": own, "ema": [torch.randn(5, 3)]},
    }


def _config(**changes: Any) -> dict[str, Any]:
    with torch.device("meta"):
        return CCNet("resnet18", 3, label_set={"categories": ["a", "b", "c"]}, **changes).config


def _weights(folder: Path) -> Iterator[Subject]:
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


def _configurations(folder: Path) -> Iterator[Subject]:
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    beside = (folder / "model.safetensors").read_bytes()
    options = {"stem_widths": [8, 16], "output_stride": 16}
    pixels = {"mean": [1.0, 2.0, 3.0], "channel_order": "BGR"}
    for config in (_config(), _config(backbone_options=options, preprocessing=pixels)):

        def read(folder: Path) -> str:
            (folder / "model.safetensors").write_bytes(beside)
            weights = load_weights(folder, "resnet18")
            with torch.device("meta"):
                try:
                    model = CCNet(**weights.config)
                except TypeError as error:
                    if "unexpected keyword" not in str(error):
                        raise
                    raise ValueError("an unknown argument") from error
            json.dumps(model.config).encode()
            print_to_nowhere(model)
            _build(weights)
            return ""

        content = json.dumps(config).encode()
        yield Subject("config.json", content, "config.json", read, (change_json, change_json))


def print_to_nowhere(model: CCNet) -> None:
    """Does what a user would see of a configuration."""
    str(model.generate_model_card()).encode()
    assert len(model.label_set.palette) == 768
    for name in model.label_set.categories:
        assert name == name.encode().decode()


def _read_weights(folder: Path) -> str:
    (path,) = folder.iterdir()
    weights = load_weights(path, "resnet18", progress=False)
    _build(weights)
    return digest([weights.state_dict, weights.config, weights.details])


def _build(weights: ModelWeights) -> None:
    """Builds the network, for which some tensors always are missing."""
    for changes in ({}, {"num_classes": 7}):
        try:
            CCNet.from_weights(weights, **changes)
        except ValueError as error:
            check_message(error)
        else:
            raise AssertionError("a network without some of its tensors was built")


def check_message(error: Exception, has_report: bool = False) -> None:
    """Holds an error to one line, unless it lists problems."""
    message = str(error)
    assert message.strip(), "an error without a message"
    assert len(message) <= 2000, f"a message of {len(message)} characters"
    assert has_report or "\n" not in message, f"a message of several lines: {message}"


def _read_backbone(folder: Path) -> str:
    return digest(read_backbone(folder / "a.pth").state_dict)


def _read_run(folder: Path) -> str:
    return digest(load_checkpoint(folder / "run.pt"))


def _masks(folder: Path) -> Iterator[Subject]:
    values = (np.arange(24 * 32).reshape(24, 32) // 300).astype(np.uint8)

    def read(folder: Path) -> str:
        for name in ("images", "masks"):
            (folder / name).mkdir(exist_ok=True)
            if not (folder / name / "a.png").exists():
                Image.fromarray(values).save(folder / name / "a.png")
        data = MaskFolder(folder)
        image, labels = data[0]
        assert labels.shape == image.shape[-2:]
        return ""

    classes = [
        ["a", "b", "c"],
        {"categories": ["a", "b", "c"], "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]},
        {"categories": ["a", "b"], "label_ids": [1, 2], "ignore": [0, 255]},
        {"colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "mask_orientation": "stored"},
    ]
    for content in classes:
        changes = (change_json, change_json)
        yield Subject(
            "classes.json",
            json.dumps(content).encode(),
            "classes.json",
            read,
            changes,
            has_report=True,
        )
    Image.fromarray(values).save(folder / "mask.png")
    content = (folder / "mask.png").read_bytes()
    yield Subject("mask of a folder", content, "masks/a.png", read, has_report=True)
    yield Subject("image of a folder", content, "images/a.png", read, has_report=True)


def _pictures() -> Iterator[Subject]:
    def read(folder: Path) -> str:
        image = decode_image(folder / "a.jpg")
        assert image.dtype == torch.uint8
        assert image.dim() == 3
        assert image.shape[0] == 3
        assert 0 not in image.shape
        return ""

    def read_mask(folder: Path) -> str:
        label_map = read_label_map(folder / "a.png")
        assert label_map.values.dtype == np.uint8
        assert label_map.values.ndim == 2
        return ""

    contents = pictures()
    for name, content in contents.items():
        yield Subject(name, content, "a.jpg", read, siblings=list(contents.values()))
        if name.startswith(LOSSLESS):
            yield Subject(f"mask {name}", content, "a.png", read_mask)


def faults() -> Iterator[Subject]:
    """Yields what fails in every way that there is, for a test of the fuzz test."""

    def fail(_: Path) -> str:
        raise KeyError("a")

    def hang(_: Path) -> str:
        while True:
            pass

    def fill_memory(_: Path) -> str:
        return str(len(bytearray(2**36)))

    def crash(_: Path) -> str:
        os.kill(os.getpid(), signal.SIGSEGV)
        return ""

    def believe(folder: Path) -> str:
        return digest((folder / "a").read_bytes())

    for read in (fail, hang, fill_memory, crash):
        yield Subject(f"fault {read.__name__}", b"content", "a", read)
    yield Subject("fault believe", b"content", "a", believe, is_sealed=True)


def damaged(subject: Subject, rng: random.Random) -> bytes:
    """Returns a subject's content, changed as its structure allows or byte by byte."""
    if subject.changes and rng.random() < 0.7:
        return rng.choice(subject.changes)(rng, subject.content)
    return change_bytes(rng, subject.content, subject.siblings)
