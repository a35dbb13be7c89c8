"""Quantised ONNX files: values, what is quantised, metadata, errors."""

import numpy as np
import pytest
import torch

import ccnet.console
from ccnet.deployment.exported.int8.quantization import quantize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

INTEGERS = {"stem.0.weight", "layer1.0.conv1.weight", "head.convb.0.weight"}
"""The weights of the network below that are quantised; the others belong to attention and head."""


def _node(kind, inputs, *outputs, **attributes):
    return onnx.helper.make_node(kind, inputs, outputs, name=f"node_{outputs[0]}", **attributes)


def _save(path, nodes, weights, channels=3):
    helper = onnx.helper
    sizes = ["batch", channels, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", "k", "h", "w"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    network = helper.make_model(graph, producer_name="maker", ir_version=9, opset_imports=opset)
    helper.set_model_props(network, {"ccnet": '{"contract": 1}'})
    onnx.save(network, path)
    return path


@pytest.fixture
def source(tmp_path):
    """A small network: a stem, a residual block, attention, fusion, a classifier.

    The first channel of the stem is a thousandth of the others.
    """
    generator = np.random.default_rng(0)
    shapes = {
        "stem.0.weight": (8, 3, 3, 3),
        "layer1.0.conv1.weight": (8, 8, 3, 3),
        "head.cca.query_conv.weight": (8, 8, 1, 1),
        "head.convb.0.weight": (8, 8, 3, 3),
        "head.classifier.weight": (5, 16, 1, 1),
    }
    weights = {
        name: generator.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    weights["stem.0.weight"][0] /= 1000
    weights["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    weights["is_masked"] = (np.arange(8) % 2 == 0).reshape(1, 8, 1, 1)
    weights["mask"] = np.float32(-np.inf)
    wide = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        _node("Conv", ["image", "stem.0.weight"], "a", **wide, strides=[2, 2]),
        _node("Relu", ["a"], "b"),
        _node("Pad", ["b", "pads"], "padded", mode="edge"),
        _node("MaxPool", ["padded"], "c", kernel_shape=[3, 3], strides=[2, 2]),
        _node("Conv", ["c", "layer1.0.conv1.weight"], "d", **wide),
        _node("Add", ["d", "c"], "e"),
        _node("Relu", ["e"], "f"),
        _node("Conv", ["f", "head.cca.query_conv.weight"], "g"),
        _node("Where", ["is_masked", "mask", "g"], "masked"),
        _node("Concat", ["g", "masked"], "h", axis=1),
        _node("Softmax", ["h"], "softmax", axis=1),
        _node("Split", ["softmax"], "i", "masked_weights", axis=1, num_outputs=2),
        _node("Add", ["i", "f"], "j"),
        _node("Conv", ["j", "head.convb.0.weight"], "k", **wide),
        _node("Relu", ["k"], "l"),
        _node("Concat", ["f", "l"], "m", axis=1),
        _node("Conv", ["m", "head.classifier.weight"], "logits"),
    ]
    return _save(tmp_path / "float.onnx", nodes, weights)


def _batches(count=3, size=(21, 30)):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, *size, generator=generator) for _ in range(count)]


def _run(path, batch):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": batch.numpy()})[0])


@pytest.mark.parametrize("size", [(21, 30), (33, 17), (64, 64)])
def test_values_are_nearly_those_of_the_floating_point_file(source, tmp_path, size):
    quantize(source, tmp_path / "int8.onnx", _batches())
    (batch,) = _batches(1, size)
    batch = batch.expand(2, -1, -1, -1)
    expected, found = _run(source, batch), _run(tmp_path / "int8.onnx", batch)
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()


def test_small_channels_keep_their_own_scale(source, tmp_path):
    quantize(source, tmp_path / "int8.onnx", _batches())
    network = onnx.load(tmp_path / "int8.onnx")
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in network.graph.initializer}
    weights = tensors["stem.0.weight_quantized"]
    assert weights.dtype == np.int8
    assert (abs(weights.astype(int)).max(axis=(1, 2, 3)) >= 126).all()


def test_attention_and_classifier_stay_in_float(source, tmp_path):
    quantize(source, tmp_path / "int8.onnx", _batches())
    graph = onnx.load(tmp_path / "int8.onnx").graph
    tensors = {one.name: one.data_type for one in graph.initializer}
    quantised = {name for name, kind in tensors.items() if kind == onnx.TensorProto.INT8}
    stems = {name.removesuffix("_quantized") for name in quantised if "weight_quantized" in name}
    assert stems == INTEGERS
    made = {one.output[0]: one.op_type for one in graph.node}
    inputs = {node.name: [made.get(name) for name in node.input] for node in graph.node}
    assert inputs["node_e"] == ["DequantizeLinear"] * 2
    assert inputs["node_m"] == ["DequantizeLinear"] * 2
    assert inputs["node_c"] == ["DequantizeLinear"]
    assert inputs["node_h"] == ["Conv", "Where"]
    assert inputs["node_softmax"] == ["Concat"]
    assert inputs["node_j"][0] == "Split"
    assert graph.output[0].name == "logits"
    assert made["logits"] == "Conv"


def test_metadata_and_names_stay(source, tmp_path):
    quantize(source, tmp_path / "int8.onnx", _batches())
    before, after = onnx.load(source), onnx.load(tmp_path / "int8.onnx")
    assert [(one.key, one.value) for one in after.metadata_props] == [("ccnet", '{"contract": 1}')]
    assert after.producer_name == before.producer_name
    assert after.graph.input[0] == before.graph.input[0]
    assert after.graph.output[0].name == "logits"


def test_a_file_can_be_quantised_in_place_from_batches_of_several_sizes(source, tmp_path):
    quantize(source, tmp_path / "int8.onnx", iter(_batches(1) + _batches(1, (40, 9))))
    quantize(source, source, iter(_batches(1) + _batches(1, (40, 9))))
    assert source.read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_nothing_is_said(source, tmp_path, caplog, capfd):
    quantize(source, tmp_path / "int8.onnx", _batches(1))
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def _unreadable():
    yield from _batches(1)
    raise ValueError("b.png is damaged")


@pytest.mark.parametrize(
    ("batches", "problem"),
    [
        (list, "there is no picture to calibrate on"),
        (lambda: [torch.zeros(1, 4, 9, 9)], "onnxruntime cannot quantise it: .*[Ii]nvalid"),
        (_unreadable, "b.png is damaged"),
    ],
)
def test_wrong_batches(source, tmp_path, batches, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        quantize(source, tmp_path / "int8.onnx", batches())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_file_without_convolutions(tmp_path):
    source = _save(tmp_path / "a.onnx", [_node("Relu", ["image"], "logits")], {})
    with pytest.raises(ValueError, match="has no convolution to quantise"):
        quantize(source, tmp_path / "b.onnx", _batches())


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(ccnet.console, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnx and onnxruntime must be .*\[int8\]"):
        quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", _batches())
