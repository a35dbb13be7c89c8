"""ONNX files run by OpenVINO: values, threads, signals, errors."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from forked_python import processes
from torch.nn import functional as F

import ccnet.console
from ccnet.deployment.exported.formats.openvino_runtime import open_with_openvino
from ccnet.deployment.exported.int8.quantization import quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")

WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path):
    """A network of one convolution."""
    helper = onnx.helper
    kind, sizes = onnx.TensorProto.FLOAT, ["n", 3, "height", "width"]
    weight = onnx.numpy_helper.from_array(WEIGHT.numpy(), "stem.0.weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", weight.name], ["logits"], name="node")],
        "network",
        [helper.make_tensor_value_info("image", kind, sizes)],
        [helper.make_tensor_value_info("logits", kind, ["n", 4, "h", "w"])],
        [weight],
    )
    opset = [helper.make_opsetid("", 18)]
    network = helper.make_model(graph, ir_version=9, opset_imports=opset)
    onnx.save(network, tmp_path / "network.onnx")
    return tmp_path / "network.onnx"


def test_values(path):
    run = open_with_openvino(path)
    for size in [(1, 3, 9, 7), (2, 3, 5, 30), (1, 3, 9, 7)]:
        batch = torch.randn(size)
        torch.testing.assert_close(run(batch), F.conv2d(batch, WEIGHT), rtol=1e-5, atol=1e-5)
    channels_last = torch.randn(1, 3, 9, 7).contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(channels_last, WEIGHT)
    torch.testing.assert_close(run(channels_last), expected, rtol=1e-5, atol=1e-5)


def test_results_are_not_overwritten_by_the_next(path):
    run = open_with_openvino(path)
    batches = torch.randn(2, 1, 3, 9, 7)
    first, _ = run(batches[0]), run(batches[1])
    torch.testing.assert_close(first, F.conv2d(batches[0], WEIGHT), rtol=1e-5, atol=1e-5)


def test_threads_share_it(path):
    run = open_with_openvino(path)
    batches = list(torch.randn(40, 1, 3, 33, 65))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, batches))
    for batch, result in zip(batches, results, strict=True):
        torch.testing.assert_close(result, F.conv2d(batch, WEIGHT), rtol=1e-4, atol=1e-4)


def let_files_go(path):
    """In the order of opening; then a signal is handled."""
    first, second = open_with_openvino(path), open_with_openvino(path)
    del first
    del second
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_signals_are_handled_after_files_were_let_go(path):
    process = processes.Process(target=let_files_go, args=(path,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0


def test_quantised_files(path):
    pytest.importorskip("onnxruntime")
    batch = torch.randn(1, 3, 30, 40)
    quantize(path, path, [batch])
    run = open_with_openvino(path)
    expected = F.conv2d(batch, WEIGHT)
    assert 0 < (run(batch) - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("content", [None, b"", b"no network", b"\x08\x09:\x02"])
def test_what_is_no_network(path, content):
    content = path.read_bytes()[:-40] if content is None else content
    path.write_bytes(content)
    with pytest.raises(ValueError, match="OpenVINO cannot load it: ") as caught:
        open_with_openvino(path)
    assert "\n" not in str(caught.value)


def test_missing_package(path, monkeypatch):
    monkeypatch.setattr(ccnet.console, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"openvino must be .*\[int8\]"):
        open_with_openvino(path)


def test_zeros_are_taken(path):
    run = open_with_openvino(path)
    assert np.count_nonzero(run(torch.zeros(1, 3, 9, 9)).numpy()) == 0
