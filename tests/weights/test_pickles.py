"""Checkpoints with more than tensors, and files that are no checkpoints."""

import argparse
import collections
import datetime
import gzip
import io
import pathlib
import pickle
import shlex
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

import ccnet
from ccnet.weights.pickles import read_pickle

STATE = {"a": torch.arange(12.0).reshape(3, 4).T, "b": torch.ones(2, dtype=torch.bfloat16)}


class Box:
    """A type that only this file knows."""


class Network(torch.nn.Module):
    """A module that is saved whole."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(3, 2)


LET_IN = {
    "NumPy number": np.float64(3.5),
    "NumPy truth": np.bool_(True),
    "NumPy text": np.str_("road"),
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "array by columns": np.asfortranarray(np.ones((2, 3))),
    "array of names": np.array(["road", "car"]),
    "empty array": np.zeros((0, 3)),
    "state of a generator": np.random.RandomState(3).get_state(),
    "version of PyTorch": torch.__version__,
    "plain values": [1, 2.5, None, True, "text", b"bytes", 1 + 2j, {3}, (torch.Size([2]),)],
    "counter": collections.Counter([1, 2, 2]),
    "type of numbers": torch.float16,
    "device": torch.device("cuda:1"),
    "schedule": torch.optim.lr_scheduler.MultiStepLR(
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1), [1, 2]
    ).state_dict(),
}


@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("value", LET_IN.values(), ids=LET_IN)
def test_values_without_code_are_read(value, is_archive, tmp_path):
    content = {"state_dict": STATE, "value": value}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_archive)
    found = read_pickle(tmp_path / "a.pth")
    assert repr(found["value"]) == repr(value)
    assert type(found["value"]) is type(value)
    for name, tensor in STATE.items():
        assert torch.equal(found["state_dict"][name], tensor)


@pytest.mark.parametrize("package", [b"numpy.core.", b"numpy._core."])
def test_numpy_of_either_generation_may_have_written_the_file(package, tmp_path):
    torch.save({"number": np.float64(3.5), "array": np.arange(3)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(tmp_path / "b.pth", "w") as target,
    ):
        for entry in source.infolist():
            content = source.read(entry).replace(b"numpy._core.", b"numpy.core.")
            target.writestr(entry.filename, content.replace(b"numpy.core.", package))
    found = read_pickle(tmp_path / "b.pth")
    assert (found["number"], found["array"].tolist()) == (3.5, [0, 1, 2])


STRANGE = {"epoch": 3, "state_dict": STATE}
FOREIGN = {
    "Namespace": ({**STRANGE, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    "path": ({**STRANGE, "x": {"y": [pathlib.PurePosixPath("x")]}}, "pathlib.PurePosixPath"),
    "own type": ({**STRANGE, "x": Box()}, "test_pickles.Box"),
    "function": ({**STRANGE, "f": len}, "builtins.len"),
    "date": ({**STRANGE, "x": datetime.date(2020, 1, 2)}, "datetime.date"),
    "default dictionary": ({**STRANGE, "x": collections.defaultdict(list)}, "defaultdict"),
    "array of objects": ({**STRANGE, "x": np.array([1, "x"], dtype=object)}, r"dtype\('O8'\)"),
    "type in the state": (
        {"state_dict": {**STATE, "x": pathlib.PurePosixPath("x")}},
        "pathlib.PurePosixPath",
    ),
    "beside the tensors": ({**STATE, "args": argparse.Namespace()}, "argparse.Namespace"),
    "whole module": (Network(), "test_pickles.Network"),
    "module beside the tensors": ({**STRANGE, "x": torch.nn.Linear(1, 1)}, "nn.modules.linear"),
    "module under a key": (
        {"model": Network(), "scores": {"a": np.float64(3)}},
        "test_pickles.Network",
    ),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("content", "name"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_type_is_named_with_the_line_that_saves_the_rest(content, name, protocol, tmp_path):
    torch.save(content, tmp_path / "it's mine.ckpt", pickle_protocol=protocol)
    with pytest.raises(ValueError, match=rf"mine\.ckpt holds more than .*{name}") as caught:
        read_pickle(tmp_path / "it's mine.ckpt")
    message = str(caught.value)
    assert "\n" not in message
    assert "only if you trust its author" in message
    python, option, code = shlex.split(message[message.index("python -c") :])
    assert (python, option) == ("python", "-c")
    exec(code, {})  # what the user would run
    saved = read_pickle(tmp_path / "it's mine.weights.pth")
    saved = saved.get("state_dict", saved)
    expected = Network().state_dict().keys() if "Network" in name else STATE.keys()
    assert saved.keys() == expected


def pickled(*operations):
    """An archive whose pickle is these operations: what else would torch.save not write?"""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"".join(operations) + b".")
        archive.writestr("a/data/0", bytes(16))
        archive.writestr("a/version", "3\n")
    return file.getvalue()


def called(name, *arguments):
    module, _, function = name.rpartition(".")
    return b"c%s\n%s\n" % (module.encode(), function.encode()) + b"".join(arguments) + b"R"


def number(value):
    return b"\x8a\x08" + value.to_bytes(8, "little")


def storage(elements):
    kind = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    return kind + number(elements) + b"tQ"


def tensor(elements, size, stride=1, offset=0):
    shape = number(size) + b"\x85" + number(stride) + b"\x85"
    hooks = called("collections.OrderedDict", b")")
    parts = storage(elements), number(offset), shape, b"\x89", hooks
    return b"}X\x01\x00\x00\x00a" + called("torch._utils._rebuild_tensor_v2", b"(", *parts, b"t")


LARGE = 20 * 10**9
ATTACKS = {
    "bytearray": b"}X\x01\x00\x00\x00a" + called("builtins.bytearray", number(LARGE), b"\x85"),
    "set": b"}X\x01\x00\x00\x00a" + called("builtins.set", number(LARGE), b"\x85"),
    "set of a range": b"}X\x01\x00\x00\x00a"
    + called("builtins.set", called("builtins.range", number(LARGE), b"\x85"), b"\x85"),
    "counter": b"}X\x01\x00\x00\x00a" + called("collections.Counter", number(LARGE), b"\x85"),
    "storage": tensor(LARGE, 4) + b"s",
    "size": tensor(4, LARGE) + b"s",
    "offset": tensor(4, 4, offset=1) + b"s",
    "stride": tensor(4, 4, stride=2) + b"s",
    "array": b"}X\x01\x00\x00\x00a"
    + called(
        *("numpy.core.multiarray._reconstruct", b"(cnumpy\nndarray\n", number(LARGE) + b"\x85"),
        *(b"X\x01\x00\x00\x00bt",),
    ),
    "dtype": b"}X\x01\x00\x00\x00a"
    + called("numpy.dtype", b"X\x02\x00\x00\x00f8\x89\x88\x87")
    + b"(K\x03X\x01\x00\x00\x00<NNNM\x00\x10K\x08K\x3ftbs",
    "keys of one hash": b"}("
    + b"".join(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") for k in range(40_000))
    + b"u",
    "set of one hash": b"}X\x01\x00\x00\x00a"
    + called(
        "builtins.set",
        b"](",
        *(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") for k in range(40_000)),
        b"e\x85",
    ),
    "copies of a text": b"}X\x40\x42\x0f\x00"
    + (bytes(10**6) + b"q\x010")
    + (called("_codecs.encode", b"h\x01X\x06\x00\x00\x00latin1\x86") + b"0") * 300,
    "copies of a size": b"}("
    + (b"K\x01" * 50_000 + b"tq\x010")
    + (called("torch.Size", b"h\x01\x85") + b"0") * 300,
    "nested key": b"}" + b")2\x86" * 40 + b"Ns",
    "memo": b"}r\xff\xff\xff\xff" + b"X\x01\x00\x00\x00a" + number(1) + b"s0h\x00",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_pickle_that_would_take_all_memory_is_refused(attack, tmp_path):
    (tmp_path / "a.pth").write_bytes(pickled(attack))
    with pytest.raises(ValueError, match=r"a\.pth (is damaged|holds more than)"):
        read_pickle(tmp_path / "a.pth")


BEYOND = ["storage", "size", "offset", "stride", "copies of a text", "copies of a size"]


@pytest.mark.parametrize("attack", BEYOND)
def test_size_beyond_the_file_is_found_before_anything_is_made(attack, tmp_path):
    (tmp_path / "a.pth").write_bytes(pickled(ATTACKS[attack]))
    with pytest.raises(ValueError, match=r"a\.pth is damaged.* a size in it is beyond"):
        read_pickle(tmp_path / "a.pth")


def test_archive_that_the_attacks_change_is_read(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickled(tensor(4, 4), b"s"))
    assert torch.equal(read_pickle(tmp_path / "a.pth")["a"], torch.zeros(4))


def archive_of(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return file.getvalue()


def tar_of_a_file():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    return file.getvalue()


KINDS = {
    "a TorchScript program": archive_of("a/data.pkl", "a/constants.pkl", "a/code/x.py"),
    "a program of torch.export": archive_of("a/archive_format", "a/models/model.json"),
    "a network of Keras": archive_of("config.json", "model.weights.h5"),
    "an archive of NumPy arrays": archive_of("a.npy", "b.npy"),
    "a zip archive around a checkpoint": archive_of("folder/model.pth"),
    "a zip archive with photo.jpg": archive_of("photo.jpg"),
    "an ONNX network": b"\x08\x08\x12\x07pytorch\x1a\x052.6.0:" + bytes(90),
    "a TFLite network": b"\x1c\x00\x00\x00TFL3" + bytes(90),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(90),
    "the index of a TensorFlow checkpoint": bytes(20) + b"x" + bytes.fromhex("57fb808b247547db"),
    "a tar archive": tar_of_a_file(),
    "an HTML page": b"\n<!DOCTYPE HTML><html><title>Google Drive - Virus scan warning</title>",
    "an XML text": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a JSON text": b'{"message": "Not Found"}',
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    "gzip data": gzip.compress(b"content"),
    "a PNG picture": b"\x89PNG\r\n\x1a\n" + bytes(90),
    "a GGUF file": b"GGUF" + bytes(90),
    "empty": b"",
    "a file of zeros": bytes(4096),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
def test_other_file_is_called_what_it_is(kind, content, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    is_archive = suffix == ".safetensors" and content.startswith(b"PK")
    expected = "a checkpoint of PyTorch: rename it" if is_archive else kind
    with pytest.raises(ValueError, match=rf"a\{suffix} is (damaged|not an intact).*{expected}"):
        ccnet.ccnet_resnet18(weights=path)


def test_pickle_of_another_program_gives_the_line_for_it(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": STATE}))
    with pytest.raises(ValueError, match=r"a\.pth holds more than .*pickle\.load\(open\("):
        read_pickle(tmp_path / "a.pth")


@pytest.mark.parametrize("field", ["name", "offset", "size", "checksum"])
def test_changed_directory_of_an_archive_is_noticed(field, tmp_path):
    """Two entries of one directory that name each other's tensors, and the like."""
    torch.save({"a": torch.zeros(4), "b": torch.ones(4)}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    first, second = (content.rindex(b"a/data/%d" % index) for index in (0, 1))
    span = {"name": (0, 8), "offset": (-4, 0), "size": (-26, -18), "checksum": (-30, -26)}[field]
    one, other = (slice(at + span[0], at + span[1]) for at in (first, second))
    content[one], content[other] = content[other], content[one]
    if field == "size":
        struct.pack_into("<II", content, first - 26, 8, 8)
    (tmp_path / "b.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"b\.pth is damaged"):
        read_pickle(tmp_path / "b.pth")
