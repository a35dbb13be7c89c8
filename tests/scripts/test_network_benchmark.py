"""The benchmark of the whole network, exercised on a small size so that it does not rot."""

import json

import network
import pytest


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
