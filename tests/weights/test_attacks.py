"""Attacks on weights: a table with one row for each, of what is read and what is said of it.

Every row ends in an error of one line, at once.
"""

import json
import time

import pytest
import torch
from fuzz_files import check_message
from hub_server import Repository
from safetensors.torch import save
from torch import nn

import ccnet
from ccnet.backbones import Backbone
from ccnet.model import CCNet
from ccnet.weights import ModelWeights
from ccnet.weights.serialization import load_strictly

NAN, INFINITY = float("nan"), float("inf")
CONFIG = {"backbone": "resnet18", "num_classes": 3, "recurrence": 2}
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
NAMES = ["a", "b", "c"]
TRUTHS = torch.ones(2, dtype=torch.bool)


def header(content, size=None, data=bytes(4)):
    """A safetensors file with this header, as JSON or as bytes."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    length = (len(text) if size is None else size).to_bytes(8, "little")
    return {"a.safetensors": length + text + data}


def embedded(**metadata):
    """A safetensors file with this metadata."""
    return header({"__metadata__": metadata, "a": ENTRY})


def text(content):
    """A folder with this config.json."""
    return {"model.safetensors": save({"a": torch.zeros(1)}), "config.json": content}


def fields(**changes):
    """A folder whose config.json has these fields."""
    return text(json.dumps({**CONFIG, **changes}).encode())


def labels(**changes):
    return fields(label_set={"categories": NAMES, **changes})


def checkpoint(content):
    """A pickle with this content."""
    return {"a.pth": content}


def network(**tensors):
    """A checkpoint with these tensors of a network."""
    found = {"head.bottleneck.4.weight": torch.ones(5, 3)}
    found |= {f"layer3.{index}.conv1.weight": torch.ones(1) for index in range(2)}
    return checkpoint({**found, **{key.replace("__", "."): one for key, one in tensors.items()}})


def recorded(config):
    """A checkpoint of OpenMMLab that records this configuration."""
    found = {"decode_head.conv_seg.weight": torch.ones(5, 3)}
    found |= {f"backbone.layer3.{index}.conv1.weight": torch.ones(1) for index in range(2)}
    return checkpoint({"state_dict": found, "meta": {"config": config}})


def shared(width, depth):
    """A mapping that holds one another, which holds another, each many times."""
    value = dict.fromkeys(map(str, range(width)))
    for _ in range(depth):
        value = dict.fromkeys(map(str, range(width)), value)
    return value


def endless():
    value = []
    value.append(value)
    return value


DAMAGED, NO_JSON = "is not an intact safetensors file: ", "config.json is not JSON: "
UNLIKE, NAME = "does not describe a CCNet: ", "the name of a class must be "

ATTACKS = {
    "header of brackets": (header(b"[" * 100_000), DAMAGED),
    "header of mappings": (header(b'{"a":' * 100_000), DAMAGED + ".*recursion"),
    "header of 2**63 bytes": (header({"a": ENTRY}, 2**63), DAMAGED + ".*too large"),
    "header beyond the file": (header({"a": ENTRY}, 1000), DAMAGED),
    "header that is no UTF-8": (header(b'{"\xff": 1}'), DAMAGED + ".*UTF-8"),
    "header with a mark": (header(b"\xef\xbb\xbf{}"), DAMAGED),
    "header with NaN": (header(b'{"a":{"dtype":"F32","shape":[NaN]}}'), DAMAGED),
    "header with a long number": (header(b'{"a": ' + b"9" * 5000 + b"}"), DAMAGED),
    "header with a long text": (header({"a" * 10**6: 3}), DAMAGED),
    "header of spaces": (header(b"{}".ljust(10**7), data=b""), "no state dict"),
    "header without metadata": (header({"__metadata__": None, "a": ENTRY}), "unknown checkpoint"),
    "two tensors in one place": (header({"a": ENTRY, "b": ENTRY}), DAMAGED),
    "tensor beyond the file": (
        header({"a": {**ENTRY, "shape": [2**40], "data_offsets": [0, 2**42]}}),
        DAMAGED,
    ),
    "size that overflows": (header({"a": {**ENTRY, "shape": [2**62, 2**62]}}), DAMAGED),
    "unknown dtype": (header({"a": {**ENTRY, "dtype": "X9"}}), DAMAGED),
    "name of two lines": (
        header({"a\nb": ENTRY, "__metadata__": {"config": json.dumps(CONFIG)}}),
        r"the weights do not fit the network: missing",
    ),
    "a thousand networks": (
        header(
            {
                f"{index}.head.classifier.weight": {**ENTRY, "shape": [0], "data_offsets": [0, 0]}
                for index in range(1000)
            },
            data=b"",
        ),
        "has 1000 networks, more than 100",
    ),
    "metadata of brackets": (embedded(config="[" * 100_000), "unknown checkpoint family"),
    "label set in metadata that is a text": (
        embedded(config=json.dumps({**CONFIG, "label_set": "x"})),
        UNLIKE + "unknown label set 'x'",
    ),
    "brackets": (text(b"[" * 100_000), NO_JSON),
    "mappings": (text(b'{"a":' * 100_000), NO_JSON),
    "many levels": (text(b'{"a":' * 300 + b"1" + b"}" * 300), "nested more than 64 deep"),
    "5000 digits": (text(b'{"recurrence": ' + b"9" * 5000 + b"}"), NO_JSON),
    "no UTF-8": (text(b'{"\xff": 1}'), NO_JSON),
    "nothing": (text(b""), NO_JSON),
    "20 MB": (text(b"{}".ljust(20_000_000)), "has 20000000 bytes"),
    "argument of two lines": (fields(**{"a\nb": 1}), UNLIKE + ".*unexpected keyword"),
    "long argument": (fields(**{"a" * 10**6: 1}), UNLIKE + ".*unexpected keyword"),
    "1e400 loops": (text(b'{"backbone":"resnet18","num_classes":3,"recurrence":1e400}'), "not inf"),
    "10**9 loops": (fields(recurrence=10**9), UNLIKE + "recurrence must be .* not 1000000000"),
    "10**400 loops": (fields(recurrence=10**400), "recurrence must be .* of 1329 bits"),
    "many backbones": (fields(backbone=["x"] * 10**5), "backbone must be one of"),
    "wide stem": (fields(backbone_options={"stem_widths": [10**9]}), "stem_widths must be"),
    "long stem": (fields(backbone_options={"stem_widths": [64] * 20_000}), "stem_widths must be"),
    "no options": (fields(backbone_options=[1]), "backbone_options must be .*a mapping"),
    "long option": (fields(preprocessing={"a" * 10**6: 1}), "preprocessing has only mean"),
    "infinite mean": (fields(preprocessing={"mean": [INFINITY] * 3}), "mean must be"),
    "label set of no kind": (fields(label_set=3), UNLIKE + "a label set must be a name or a mapp"),
    "no classes": (labels(categories=[]), "1 to 255 classes, not 0"),
    "100000 classes": (labels(categories=NAMES * 33_334), "1 to 255 classes, not 100002"),
    "10**6 values": (labels(categories=[0] * 10**6), "holds more than 1000000 values"),
    "empty name": (labels(categories=["a", "b", ""]), f"{NAME}1 to 500 characters"),
    "name of two lines, of a class": (labels(categories=["a", "b", "c\n"]), f"{NAME}1 to 500"),
    "name with a control character": (labels(categories=["a", "b", "\x1b[2J"]), f"{NAME}1 to 500"),
    "half a character": (labels(categories=["a", "b", "\ud800"]), f"{NAME}1 to 500"),
    "long name": (labels(categories=["a", "b", "c" * 10**6]), f"{NAME}1 to 500"),
    "no name": (labels(categories=["a", "b", None]), f"{NAME}a text, not None"),
    "truth for a name": (labels(categories=["a", "b", True]), f"{NAME}a text, not True"),
    "name of 400 digits": (labels(categories=["a", "b", 10**400]), f"{NAME}a text, not an integer"),
    "colour out of range": (labels(colors=[[0, 0, 256]] * 3), "three whole numbers in 0..255"),
    "colour of truths": (labels(colors=[[True, 0, 0]] * 3), "three whole numbers in 0..255"),
    "zero for colours": (labels(colors=0), "colors must be a list of colours, not 0"),
    "long id": (labels(label_ids=[0, 1, 10**400]), "label_ids must be up to .* of 32 bits"),
    "70000 ignored ids": (labels(ignore=list(range(70_000))), "ignore must be up to 65536"),
    "100000 fields": (labels(**dict.fromkeys(map(str, range(10**5)))), "a label set has no field"),
    "mappings in one another": (checkpoint(shared(1000, 4)), "damaged.* more than 1000000 values"),
    "list that holds itself": (checkpoint({"a": endless()}), "damaged.*nested more than 100 deep"),
    "pipeline that holds itself": (recorded({"test_pipeline": endless()}), "nested more than 100"),
    "product without end": (
        recorded("a = 99999\n" + "a *= a\n" * 40 + "model = dict(decode_head=dict(in_index=a))"),
        "the weights do not fit",
    ),
    "lists in one another": (
        recorded("a = [1]\n" + "a = [a, a]\n" * 40 + "model = dict(decode_head=dict(type=a))"),
        "the weights do not fit",
    ),
    "levels without end": (recorded("a = dict()\n" + "a = dict(a=a)\n" * 3000), "do not fit"),
    "name of infinite loops": (
        recorded({"model": {"decode_head": {"recurrence": INFINITY}}}),
        "its recorded configuration has a wrong value: cannot convert float infinity",
    ),
    "scalar classifier": (network(head__bottleneck__4__weight=torch.ones(())), "has the shape ()"),
    "empty classifier": (network(head__bottleneck__4__weight=torch.ones(0, 3)), "must be in 1..25"),
    "sparse tensor": (
        network(a=torch.ones(2).to_sparse()),
        "holds more than tensors .*_sparse_tensor",
    ),
    "complex tensor": (network(a=torch.ones(2) * 1j), "a is torch.complex64"),
    "float8 tensor": (network(a=torch.ones(2).to(torch.float8_e5m2)), "holds more than|a is torch"),
    "overlapping tensor": (network(a=torch.ones(7).as_strided((5, 3), (1, 1))), "than its storage"),
    "truths": (network(dsn__0__bias=TRUTHS, dsn__1__running_mean=TRUTHS), "do not fit the network"),
}
"""What each one writes, and what is said."""


@pytest.mark.parametrize(("files", "message"), ATTACKS.values(), ids=ATTACKS)
def test_attack_is_refused_at_once(files, message, tmp_path):
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            torch.save(content, tmp_path / name)
    path = tmp_path if len(files) > 1 else tmp_path / next(iter(files))
    started = time.process_time()
    with pytest.raises((ValueError, OSError), match=message) as caught:
        ccnet.ccnet_resnet18(weights=path)
    assert time.process_time() - started < 5
    check_message(caught.value)
    assert str(path) in str(caught.value)


VALUES = {
    "too large for float32": ("gamma", torch.tensor([1e300], dtype=torch.float64), "not finite in"),
    "not a number": ("gamma", torch.tensor([NAN]), "values that are not finite"),
    "infinite variance": ("running_var", torch.full((128,), INFINITY), "values that are not fin"),
    "negative variance": ("running_var", torch.full((128,), -1.0), "has values below 0"),
    "negative count": ("num_batches_tracked", torch.tensor(-1), r"is no number in 0\.\.\d+"),
    "huge count": ("num_batches_tracked", torch.tensor(2**62), r"is no number in 0\.\.\d+"),
    "count that is no number": ("num_batches_tracked", torch.tensor(NAN), r"is no number in 0"),
    "half a count": ("num_batches_tracked", torch.tensor(0.5), r"is no number in 0"),
    "complex count": ("num_batches_tracked", torch.tensor(1j), "is torch.complex64: "),
    "complex": ("gamma", torch.tensor([1 + 1j]), "is torch.complex64: "),
    "integers": ("gamma", torch.tensor([1]), "is torch.int64: the network needs floating-point"),
    "sparse": ("gamma", torch.ones(1).to_sparse(), "is sparse, nested or quantized"),
    "without values": ("gamma", torch.ones(1, device="meta"), "has no values"),
    "without end": ("gamma", torch.ones(1).expand(2**60), r"is \(1152921504606846976,\) instead"),
    "text": ("gamma", "x", "is a str, not a tensor"),
    "nothing": ("gamma", None, "is a NoneType, not a tensor"),
}
"""The name of a tensor, its value and what is said."""


@pytest.fixture(scope="module")
def sound(make_model):
    return make_model(3).to_weights()


@pytest.mark.parametrize(("end", "value", "message"), VALUES.values(), ids=VALUES)
def test_values_that_are_no_weights_are_refused(end, value, message, sound):
    name = next(one for one in sound.state_dict if one.startswith("head") and one.endswith(end))
    state = {**sound.state_dict, name: value}
    with pytest.raises(ValueError, match=f"memory: the weights .* network: {name} .*{message}"):
        ccnet.ccnet_resnet18(weights=ModelWeights(state, sound.config))


def test_values_are_compared_with_the_range_of_the_network():
    module = nn.BatchNorm2d(2).half()
    state = {**module.state_dict(), "weight": torch.tensor([1.0, 70_000.0])}
    with pytest.raises(
        ValueError, match=r"weight has values that are not finite in torch\.float16"
    ):
        load_strictly(module, state)
    assert module.weight.tolist() == [1, 1]


def test_nothing_of_a_false_size_is_made(sound, monkeypatch):
    """Sizes are compared on the meta device before new classifiers take memory."""
    devices = []

    def make(*arguments, **options):
        devices.append(torch.empty(0).device.type)
        return Backbone(*arguments, **options)

    monkeypatch.setattr("ccnet.backbones.choice.Backbone", make)
    config = {**sound.config, "backbone_options": {"stem_widths": [8]}}
    with pytest.raises(ValueError, match="the weights do not fit the network"):
        CCNet.from_weights(ModelWeights(sound.state_dict, config), num_classes=7)
    assert devices == ["meta", "meta"]


DOORS = ["file", "folder", "from_pretrained", "hub", "constructor", "builder", "arguments"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("name", "value"),
    [("recurrence", 10**9), ("negative_slope", "x"), ("label_set", {"categories": [""] * 3})],
)
def test_every_door_refuses(door, name, value, sound, tmp_path, hub):
    config = {**sound.config, name: value}
    tensors, text = save({"a": torch.zeros(1)}, {"config": json.dumps(config)}), json.dumps(config)
    if door == "file":
        (tmp_path / "a.safetensors").write_bytes(tensors)
    else:
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "model.safetensors").write_bytes(tensors)
    files = {"config.json": text.encode(), "model.safetensors": tensors}
    hub.repositories["me/model"] = Repository(files)
    doors = {
        "file": lambda: ccnet.ccnet_resnet18(weights=tmp_path / "a.safetensors"),
        "folder": lambda: ccnet.ccnet_resnet18(weights=tmp_path),
        "from_pretrained": lambda: CCNet.from_pretrained(tmp_path),
        "hub": lambda: ccnet.ccnet_resnet18(weights="hf://me/model"),
        "constructor": lambda: CCNet(**config),
        "builder": lambda: ccnet.ccnet_resnet18(**{"num_classes": 3, name: value}),
        "arguments": lambda: ccnet.ccnet_resnet18(weights=sound, **{name: value}),
    }
    message = "the name of a class must be 1" if name == "label_set" else f"{name} must be "
    with pytest.raises(ValueError, match=message):
        doors[door]()
