"""Exported files read back: the same results, for threads too, and files that are refused."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ccnet
from ccnet.deployment.exported.formats.onnx_metadata import read_metadata, seal
from ccnet.weights import write_weights

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(
    torch.__version__.startswith(("2.6.", "2.7.")), reason="this PyTorch cannot export"
)


@pytest.fixture
def picture():
    return torch.randint(0, 256, (3, 50, 71), dtype=torch.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit": None},
        {"scales": (1.0, 1.5), "flip": True},
        {"mode": "slide", "crop": 40, "fit": None},
    ],
)
def test_predict_is_that_of_the_network(opened, small, picture, options):
    expected = small.predict(picture, return_probabilities=True, **options)
    found = opened(".onnx").predict(picture, return_probabilities=True, **options)
    assert isinstance(found, ccnet.Segmentation)
    assert found.label_set == expected.label_set
    assert found.view_size == expected.view_size
    assert (found.labels == expected.labels).float().mean() > 0.999
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=0, atol=1e-4)


def test_labels_are_those_of_the_network_at_the_pictures_size(opened, small, picture, caplog):
    network = opened(".onnx", True)
    expected = small.predict(picture, fit=None)
    found = network.predict(picture)
    assert (found.labels == expected.labels).float().mean() > 0.999
    assert found.categories == expected.categories
    assert torch.equal(found.image, expected.image)
    assert "at its own size, 71 x 50, and the network learnt from images like" in caplog.text
    caplog.clear()
    first, second = network.predict([picture, picture[:, :48, :64]], fit=None)
    assert first.labels.equal(found.labels)
    assert second.labels.shape == (48, 64)
    assert not caplog.records
    with pytest.raises(TypeError, match="gives labels at the image's own size: export logits"):
        network.predict(picture, flip=True)


@pytest.mark.parametrize("with_preprocessing", [False, True])
def test_sizes_that_a_file_does_not_take_are_refused(opened, with_preprocessing):
    network = opened(".onnx", with_preprocessing)
    picture = torch.zeros(3, 32, 50, dtype=torch.uint8)
    message = "33 to 8192 pixels wide and 33 to 8192 high, not 1 of 50 x 32"
    with pytest.raises(ValueError, match=message):
        network.predict(picture, fit=None)
    with pytest.raises(ValueError, match=r"images\[0\]: .* not 1 of 50 x 32"):
        network.predict([picture], fit=None)


def test_threads_share_a_file(opened, picture):
    predict = opened(".onnx").predict
    expected = predict(picture)
    with ThreadPoolExecutor(4) as threads:
        assert all(found == expected for found in threads.map(predict, [picture] * 12))


def test_a_program_of_pytorch_has_to_be_trusted(exported):
    with pytest.raises(ValueError, match=r"can run code when it is read, .* trusted=True"):
        ccnet.load_exported(exported(".pt2").path)


def weights(path, small, content):
    write_weights(path, small.to_weights())


def checkpoint(path, small, content):
    torch.save({}, path)


def foreign(path, small, content):
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    opset = [helper.make_opsetid("", 18)]
    graph = helper.make_graph(nodes, "other", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def without_seal(content):
    return content.rpartition(b"rP\n\x0cccnet_sha256")[0]


def broken_metadata(path, small, content):
    path.write_bytes(without_seal(content).replace(b'"label_set"', b'"label_get"'))
    seal(path)


def changed(path, small, content):
    path.write_bytes(content.replace(b'"Sky"', b'"Sea"').replace(b'"sky"', b'"sea"'))
    assert path.read_bytes() != content


def overwritten(path, small, content):
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(4096) + content[middle + 4096 :])


def extended(path, small, content):
    path.write_bytes(content + content[-82:])


REFUSED = {
    "nothing": (lambda *_: None, "no exported file at"),
    "folder": (lambda path, *_: path.mkdir(), "it is a folder"),
    "empty": (lambda path, *_: path.touch(), "it is an empty file"),
    "page": (lambda path, *_: path.write_text("<html>"), "an HTML page"),
    "noise": (lambda path, *_: path.write_bytes(b"\x01" * 999), "it is no ONNX file, or cut short"),
    "half": (lambda path, _, content: path.write_bytes(content[:9999]), "or cut short"),
    "weights": (weights, "holds weights, it is no exported file: ccnet export --weights PATH"),
    "checkpoint": (checkpoint, "is a checkpoint of PyTorch, no exported file: ccnet export"),
    "foreign": (foreign, "its metadata has no 'ccnet': ccnet export did not write it"),
    "metadata": (broken_metadata, "its metadata 'ccnet' is damaged"),
    "changed": (changed, "it is damaged or was changed: its SHA-256 is not its 'ccnet_sha256'"),
    "overwritten": (overwritten, "it is damaged or was changed"),
    "extended": (extended, "it is damaged or was changed"),
    "unsealed": (
        lambda path, _, content: path.write_bytes(without_seal(content)),
        "its metadata has no 'ccnet_sha256': ccnet export did not write it as it is",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_in_one_line(exported, small, tmp_path, kind):
    make, message = REFUSED[kind]
    path = tmp_path / "model.onnx"
    make(path, small, exported(".onnx").path.read_bytes())
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        ccnet.load_exported(path)
    assert "\n" not in str(error.value)


def test_metadata_are_those_that_onnx_reads(exported):
    import onnx

    path = exported(".onnx").path
    network = onnx.load(path)
    onnx.checker.check_model(network)
    expected = {entry.key: entry.value for entry in network.metadata_props}
    assert read_metadata(path) == expected
    assert list(expected)[-1] == "ccnet_sha256"


@pytest.mark.parametrize("part", ["/data/weights/", "ccnet.json"])
def test_damaged_programs_are_refused(exported, tmp_path, part):
    content = bytearray(exported(".pt2").path.read_bytes())
    with zipfile.ZipFile(exported(".pt2").path) as archive:
        inside = max((one for one in archive.infolist() if part in one.filename), key=_size)
        place = content.index(archive.read(inside)[:64], inside.header_offset) + 40
    content[place] ^= 1
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"cannot be used: it is damaged: \S*{part}.* has changed"
    ):
        ccnet.load_exported(path, trusted=True)


def _size(entry):
    return entry.file_size


def test_without_onnxruntime_the_extra_is_named(exported, monkeypatch):
    path = exported(".onnx").path
    monkeypatch.setattr("ccnet.console.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r'onnxruntime must be .*"ccnet-pytorch\[export\]"'):
        ccnet.load_exported(path)
