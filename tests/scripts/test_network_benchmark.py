"""The benchmark of the whole network, exercised on a small size so that it does not rot."""

import json
from types import SimpleNamespace

import network
import network_report
import network_rows
import pytest
import torch
from convolutions import convolutions_of
from random_network import random_network

import ccnet
from ccnet.classes import LabelSet
from ccnet.deployment.exported import network as exported
from ccnet.deployment.exported.contract import LOGITS, Contract
from ccnet.transforms import Preprocessing


@pytest.fixture
def measure(monkeypatch, tmp_path):
    def run(*options):
        arguments = ["--network", "ccnet_resnet18", "--size", "33x41", "--rounds", 1, *options]
        arguments += ["--output", tmp_path / "new"]
        monkeypatch.setattr("sys.argv", ["network.py", *map(str, arguments)])
        network.main()
        return tmp_path / "new"

    return run


def test_rows_are_measured_and_a_failure_is_one_of_them(measure, tmp_path):
    missing = tmp_path / "missing.onnx"
    only = "plain float32,optimised float32,missing"
    folder = measure("--only", only, "--file", missing, "--batch", 1, 2)
    assert {path.name for path in folder.iterdir()} == {
        *("network.md", "network.json", "network.png")
    }
    report = json.loads((folder / "network.json").read_text())
    plain, optimized, failed = report["rows"]
    for row in (plain, optimized):
        assert row["median_ms"].keys() == {"1", "2"}
        assert row["share"] > 0
        assert not row["error"]
    assert optimized["gflops"] < plain["gflops"] < 2 * optimized["gflops"], "an auxiliary head"
    assert optimized["peak_mb"] < plain["peak_mb"]
    assert optimized["weights_mb"] < plain["weights_mb"]
    assert failed["error"]
    text = (folder / "network.md").read_text()
    assert text.count("\n| ") == 2 + 3
    assert f"- missing.onnx: {failed['error']}" in text
    gain = plain["median_ms"]["1"] / optimized["median_ms"]["1"]
    assert f"| {optimized['median_ms']['1']:.1f} | {gain:.2f} |" in text


def test_no_row_is_an_error(measure):
    with pytest.raises(SystemExit, match="no row has one of 'nothing' in its name"):
        measure("--only", "nothing")


@pytest.mark.parametrize(("precision", "gain"), [("float32", "2.00"), ("int8", "2.00")])
def test_files_are_compared_with_the_network_in_their_precision(monkeypatch, precision, gain):
    label_set = LabelSet(("a", "b"), ((0, 0, 0), (1, 1, 1)))
    contract = Contract(LOGITS, label_set, Preprocessing(), origin={"precision": precision})
    file = exported.ExportedNetwork(lambda x: x, contract)
    monkeypatch.setattr(exported, "load_exported", lambda *_, **__: file)
    row = network_rows.Networks.file(SimpleNamespace(device="cpu"), "some.onnx")
    assert row.precision == precision
    none = dict.fromkeys(("gflops", "peak_mb", "weights_mb", "share"))
    rows = [
        {"name": name, "precision": kind, "median_ms": {1: ms}, "error": "", **none}
        for name, kind, ms in [("plain float32", "float32", 8), ("some.onnx", row.precision, 4)]
    ]
    report = {"size": (3, 4), "network": "n", "device": "cpu", "threads": 1, "torch": "2"}
    assert f"| some.onnx | 4.0 | {gain} |" in network_report.as_markdown({**report, "rows": rows})


@torch.no_grad()
def test_convolutions_alone_compute_what_they_do_in_the_network():
    model = random_network("ccnet_resnet18").eval()
    x, kinds = torch.randn(1, 3, 33, 41), []
    for one in (model, ccnet.optimize_for_inference(model, torch.float32)):
        found = convolutions_of(one, lambda one=one: one(x))
        kinds.append({(each.negative_slope, each.has_sum) for each in found})
    assert kinds[0] == {(None, False)}
    assert kinds[1] == {(None, False), (0.0, False), (0.0, True), (1.0, False)}
    for each in found:
        result = each.work("cpu")()
        assert result.shape[:2] == (1, each.kernel[0])
        assert each.negative_slope != 0 or result.min() >= 0
