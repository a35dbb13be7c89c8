"""Exporting networks: what the files compute and hold, and what is refused."""

import copy
import json
import os
import signal
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

import ccnet
from ccnet.commands.export import main, parse_arguments
from ccnet.deployment.exported.comparison import compare, sizes_to_compare
from ccnet.deployment.exported.contract import ANY_SIZE, LABELS, LOGITS, Contract
from ccnet.deployment.exported.export import export_network
from ccnet.deployment.exported.formats import FORMATS
from ccnet.deployment.exported.programs import TRACED, program_of, trace
from ccnet.weights.serialization import fingerprint

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(
    torch.__version__.startswith(("2.6.", "2.7.")), reason="this PyTorch cannot export"
)


def contract_of_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return json.loads(session.get_modelmeta().custom_metadata_map["ccnet"])


def contract_of_program(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/ccnet.json"))
        return json.loads(archive.read(name))


CONTRACTS = {".onnx": contract_of_onnx, ".pt2": contract_of_program}


@pytest.mark.parametrize("suffix", CONTRACTS)
@pytest.mark.parametrize("size", [(1, 33, 33), (3, 52, 85), (2, 64, 47)])
def test_files_agree_with_the_network_on_any_size(opened, small, suffix, size):
    batch = torch.randn(size[0], 3, *size[1:])
    with torch.no_grad():
        expected = small(batch)["out"]
    torch.testing.assert_close(opened(suffix)(batch)["out"], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", CONTRACTS)
def test_files_tell_the_memory_that_runtimes_take(opened, small, suffix):
    assert opened(suffix).contract.numbers_per_pixel > 1.5 * small._footprint().numbers


@pytest.mark.parametrize("suffix", CONTRACTS)
def test_each_export_is_compared_on_untraced_sizes(exported, suffix):
    file = exported(suffix)
    sizes = [result.size for result in file.results]
    assert {(1, 33, 33), (1, 192, 256), (1, 257, 193)} < set(sizes)
    assert {count for count, *_ in sizes} == {1, 2}
    assert not {TRACED[1], TRACED[2]} & {side for _, *sides in sizes for side in sides}
    assert any(side % 2 for _, *sides in sizes for side in sides)
    assert all(result.difference < 1e-4 and result.equal > 0.999 for result in file.results)
    assert any("100.00% of labels equal" in line for line in file.lines)
    siblings = [path.name for path in file.path.parent.iterdir()]
    assert not [name for name in siblings if name.startswith((".", f"{file.path.name}."))]


@pytest.mark.parametrize("suffix", CONTRACTS)
def test_metadata_tell_all_that_one_needs(exported, small, suffix, repository):
    path = exported(suffix).path
    content = CONTRACTS[suffix](path)
    assert content["label_set"]["categories"] == list(small.label_set.categories)
    assert content["label_set"]["colors"][0] == list(small.label_set.colors[0])
    taken = content["input"]
    assert (taken["name"], taken["layout"], taken["dtype"]) == ("image", "NCHW", "float32")
    assert (taken["batch"], taken["height"], taken["width"]) == ([1, 1024], [33, 8192], [33, 8192])
    assert content["preprocessing"]["mean"] == list(small.preprocessing.mean)
    origin = content["origin"]
    assert origin["ccnet"] == ccnet.__version__
    assert origin["license"] == "CC-BY-NC-4.0"
    assert origin["weights_sha256"] == fingerprint(small.to_weights())
    if suffix == ".onnx":
        assert str(repository).encode() not in path.read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            assert str(repository).encode() not in b"".join(map(archive.read, archive.namelist()))


def test_network_is_traced_for_the_named_sizes(exported):
    program = torch.export.load(exported(".pt2").path)
    ranges = sorted((each.lower, each.upper) for each in program.range_constraints.values())
    # PyTorch 2.8 finds wider ones itself; what it found of 2 is true of 1.
    for (lower, upper), (low, high) in zip(ranges, sorted(ANY_SIZE), strict=True):
        assert lower <= max(2, low)
        assert upper >= high


class Switching(torch.nn.Module):
    """Gives other logits where a batch has a property."""

    def __init__(self, has_property):
        super().__init__()
        self.conv, self.has_property = torch.nn.Conv2d(3, 4, 1), has_property

    def forward(self, x):
        logits = self.conv(x)
        return {"out": -logits if self.has_property(*x.shape) else logits}


@pytest.mark.parametrize(
    ("has_property", "message"),
    [
        (lambda n, c, h, w: w > 200, r"a width of \d+ to 200, not 33 to 8192: .*--size"),
        (lambda n, c, h, w: h < 70, r"a height of 70 to \w+, not 33 to 8192: .*--size"),
        (lambda n, c, h, w: w == 91, r"a width of 91 alone, not 33 to 8192: .*--size"),
        (lambda n, c, h, w: n > 4, r"a batch of \d+ to 4, not 1 to 1024"),
        (lambda n, c, h, w: h % 2 == 0, r"file does not (run|agree)"),
        (lambda n, c, h, w: w % 32 == 0, r"file does not (run|agree)"),
        (lambda n, c, h, w: h * w > 40_000, r"file does not (run|agree)"),
    ],
)
def test_a_network_that_treats_some_sizes_otherwise_is_refused(small, has_property, message):
    contract = Contract(LOGITS, small.label_set, small.preprocessing)
    program = program_of(Switching(has_property), contract)

    def trace_and_compare():
        run = trace(program, contract).module()
        for size in sizes_to_compare(contract):
            compare(run, program, contract, size, torch.float32)

    with pytest.raises(ValueError, match=message):
        trace_and_compare()


@pytest.mark.parametrize(
    "config",
    [
        {"preprocessing": {"channel_order": "BGR", "mean": [104, 117, 123], "std": [1, 2, 3]}},
        {"in_channels": 1},
        {"in_channels": 4},
    ],
)
def test_preprocessing_of_a_file_is_that_of_the_network(make_model, config):
    network = make_model(recurrence=0, **config)
    channels = network.preprocessing.channels
    program = program_of(network, Contract(LABELS, network.label_set, network.preprocessing))
    picture = torch.randint(0, 256, (channels, 40, 51), dtype=torch.uint8)
    with torch.no_grad():
        (labels,) = program(picture.movedim(0, -1)[None])
    assert labels.equal(network.predict(picture, fit=None).labels)


def test_labels_are_those_of_the_network(exported, small):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported(".onnx", True).path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 50, 61, 3), np.uint8)
    (labels,) = session.run(None, {"image": pictures})
    assert (labels.dtype, labels.shape) == (np.uint8, (2, 50, 61))
    for picture, found in zip(pictures, labels, strict=True):
        expected = small.predict(picture, fit=None).labels.numpy()
        assert (found == expected).mean() > 0.999


@pytest.mark.slow
def test_a_file_for_one_size_takes_that_alone(small, tmp_path):
    path = tmp_path / "one.pt2"
    ccnet.export_network(small, path, size=(40, 57))
    opened = ccnet.load_exported(path, trusted=True)
    batch = torch.randn(3, 3, 40, 57)
    with torch.no_grad():
        torch.testing.assert_close(opened(batch)["out"], small(batch)["out"], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="57 pixels wide and 40 high, not 1 of 57 x 41"):
        opened(torch.randn(1, 3, 41, 57))


def test_a_file_that_disagrees_is_not_left_behind(exported, small, tmp_path, monkeypatch):
    content = exported(".pt2").path.read_bytes()
    form = replace(FORMATS["torch"], write=lambda _, path, __: path.write_bytes(content))
    monkeypatch.setitem(FORMATS, "torch", form)
    monkeypatch.setattr("ccnet.deployment.exported.export.trace", lambda *_: None)
    kept, new = tmp_path / "kept.pt2", tmp_path / "new.pt2"
    kept.write_bytes(b"an older file")
    other = copy.deepcopy(small)
    torch.nn.init.normal_(other.head.classifier.weight)
    with pytest.raises(ValueError, match=r"does not agree with the network: 1 x 131x65: diff"):
        ccnet.export_network(other, kept)
    assert kept.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [kept]
    ccnet.export_network(small, new)
    assert new.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.tflite", {}, r"must end in \.onnx or \.pt2, not '\.tflite'"),
        ("model", {}, r"must end in \.onnx or \.pt2, not ''"),
        ("model.onnx", {"format": "torch"}, r"format torch must end in \.pt2, not '\.onnx'"),
        ("model.onnx", {"format": "coreml"}, "format must be one of 'onnx', 'torch', 'aoti'"),
        ("model.onnx", {"dtype": "int8"}, "dtype must be None or one of 'float32', 'float16'"),
        ("model.onnx", {"size": (0, 3)}, "size must be None or a list of 2, each an integer in 1"),
        ("model.onnx", {"size": 33}, "size must be None or a list of 2"),
        ("file/model.onnx", {}, "file"),
        ("folder.onnx", {}, r"folder\.onnx cannot be written: it is a folder"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    small, tmp_path, monkeypatch, name, options, message
):
    monkeypatch.setattr("ccnet.deployment.exported.export.trace", lambda *_: None)
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises((ValueError, OSError), match=message) as error:
        ccnet.export_network(small, tmp_path / name, **options)
    assert "\n" not in str(error.value)


def test_optimised_networks_are_refused(small, tmp_path):
    optimized = ccnet.optimize_for_inference(small, torch.float32)
    with pytest.raises(ValueError, match=r"cannot be exported.*: export the network that it was"):
        export_network(optimized, tmp_path / "network.pt2")


def test_what_is_missing_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setattr("ccnet.deployment.exported.export.trace", lambda *_: None)
    monkeypatch.setattr("ccnet.console.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r'must be installed .*"ccnet-pytorch\[export\]"'):
        ccnet.export_network(small, tmp_path / "model.onnx")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"format aoti needs a C\+\+ compiler, such as g\+\+"):
        ccnet.export_network(small, tmp_path / "model.pt2", format="aoti")
    monkeypatch.setattr("torch.__version__", "2.6.0+cpu")
    with pytest.raises(ValueError, match=r"onnx takes PyTorch 2\.8 or newer, and this is 2\.6\.0"):
        ccnet.export_network(small, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_command_exports_and_says_what_it_does(exported, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ccnet.commands.export.find_builder", lambda _: lambda weights: small)
    monkeypatch.setattr("ccnet.deployment.exported.export.trace", lambda *_: None)
    content = exported(".onnx", True).path.read_bytes()
    form = replace(FORMATS["onnx"], write=lambda _, path, __: path.write_bytes(content))
    monkeypatch.setitem(FORMATS, "onnx", form)
    path = tmp_path / "new" / "model.onnx"
    main(["--output", str(path), "--with-preprocessing"])
    printed = capsys.readouterr().out
    for text in ("tracing", "writing onnx", "comparing", "written", "sha256", "about 64 x 48"):
        assert text in printed
    assert printed.count("x 131x65: 100.00% of labels equal") == 1
    assert path.exists()
    with pytest.raises(SystemExit, match=r"^error: the name of the file must end in"):
        main(["--output", str(tmp_path / "model.txt")])


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_an_export_that_is_ended_leaves_nothing(small, tmp_path, monkeypatch, name):
    def end(*_):
        assert list(tmp_path.iterdir())
        assert callable(signal.getsignal(signal.Signals[name]))
        os.kill(os.getpid(), signal.Signals[name])
        time.sleep(9)

    monkeypatch.setattr("ccnet.commands.export.find_builder", lambda _: lambda weights: small)
    monkeypatch.setattr("ccnet.deployment.exported.export.trace", end)
    with pytest.raises(KeyboardInterrupt) as error:
        main(["--output", str(tmp_path / "model.pt2")])
    assert error.value.args == (signal.Signals[name],)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["480x640", "480", "480,", "480,640,3", "-1,2", "a,b"])
def test_wrong_sizes_say_how_one_is_written(text, capsys):
    assert parse_arguments(["--output", "a.onnx", "--size", "480,640"]).size == [480, 640]
    with pytest.raises(SystemExit):
        parse_arguments(["--output", "a.onnx", f"--size={text}"])
    expected = f"must be height and width, such as 480,640, not '{text}'"
    assert expected in capsys.readouterr().err
