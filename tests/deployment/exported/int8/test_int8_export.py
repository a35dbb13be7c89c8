"""Exports in 8-bit integers: calibrated, compared, kept or refused, and which runtime runs them."""

import importlib.util
import logging
import shutil

import pytest
import torch
from PIL import Image

import ccnet
from ccnet.deployment.exported import comparison
from ccnet.deployment.exported.formats import onnx_files, openvino_runtime

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        torch.__version__.startswith(("2.6.", "2.7.")), reason="this PyTorch cannot export"
    ),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(3):
        coarse = torch.rand(3, 8, 10, generator=torch.Generator().manual_seed(index))
        pixels = (255 * torch.nn.functional.interpolate(coarse[None], (52, 70))[0]).byte()
        Image.fromarray(pixels.movedim(0, -1).numpy()).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def quantised(small, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "small.onnx"
    lines = []
    results = ccnet.export_network(small, path, int8=pictures, tell=lines.append)
    return path, lines, results


def test_a_file_in_integers_is_small_and_agrees_on_the_pictures(quantised, exported):
    path, lines, results = quantised
    assert path.stat().st_size < 0.4 * exported(".onnx").path.stat().st_size
    assert "calibrating on 3 pictures" in lines
    *floats, integers = results
    assert all(result.difference < 1e-4 for result in floats)
    assert integers.size[0] == 3
    assert 0.9 < integers.equal < 1


@pytest.mark.parametrize("has_openvino", [True, False])
def test_the_file_is_read_by_the_runtime_that_is_there(
    quantised, small, pictures, monkeypatch, caplog, has_openvino
):
    if not has_openvino:
        monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
        monkeypatch.setattr(openvino_runtime, "require_extra", pytest.fail)
    else:
        monkeypatch.setattr("onnxruntime.InferenceSession", pytest.fail)
    assert importlib.util.find_spec("openvino")
    with caplog.at_level(logging.WARNING):
        network = ccnet.load_exported(quantised[0])
    assert network.contract.is_in_integers
    assert ("brings OpenVINO" in caplog.text) is not has_openvino
    found, expected = (one.predict(pictures / "0.png") for one in (network, small))
    assert (found.labels == expected.labels).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "torch"}, "int8 is for files of format onnx, not torch"),
        ({"dtype": "bfloat16"}, "float32, not bfloat16"),
        ({"int8": "nothing-here"}, "nothing-here"),
    ],
)
def test_what_does_not_go_with_integers_is_refused(small, pictures, tmp_path, options, message):
    suffix = ".pt2" if options.get("format") == "torch" else ".onnx"
    with pytest.raises((ValueError, OSError), match=message):
        ccnet.export_network(small, tmp_path / f"a{suffix}", **{"int8": pictures, **options})
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_refused(quantised, tmp_path):
    content = bytearray(quantised[0].read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged or was changed"):
        ccnet.load_exported(path)


def test_pictures_are_read_before_anything_takes_time(small, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("ccnet.deployment.exported.export.trace", pytest.fail)
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    (folder / "bad.png").write_bytes((folder / "0.png").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"bad\.png"):
        ccnet.export_network(small, tmp_path / "a.onnx", int8=folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_that_does_not_agree_is_not_kept(small, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "LEAST_IN_INTEGERS", 1.01)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"of before")
    with pytest.raises(ValueError, match=r"8-bit integers .* does not agree .*% of labels equal"):
        ccnet.export_network(small, path, int8=pictures)
    assert path.read_bytes() == b"of before"
    assert list(tmp_path.iterdir()) == [path]
