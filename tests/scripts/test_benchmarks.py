"""The measuring scripts run and report what they measured; they do not judge how fast it was."""

import json
import os
import re

import pytest


def test_operator_benchmark_reports_every_case(repository, run_forked, tmp_path):
    script = repository / "scripts" / "benchmarks" / "attention_operator.py"
    arguments = ["--sizes", "4x4", "5x5", "--batches", 1, "--dtypes", "float32"]
    arguments += ["--layouts", "channels_last", "--seconds", 0.001, "--output", "measured"]
    run_forked(script, *arguments, cwd=tmp_path)
    names = {path.name for path in (tmp_path / "measured").iterdir()}
    assert names == {"operator.md", "operator.json", "operator.png"}
    report = json.loads((tmp_path / "measured" / "operator.json").read_text())
    cases = {(row["map"], row["pass"], row["operator"]) for row in report["rows"]}
    assert len(report["rows"]) == len(cases) == 2 * 2 * 4
    kept = {row["operator"]: row["kept_mb"] for row in report["rows"] if row["kept_mb"]}
    assert kept["this"] == 2 * 4 * 25 / 1e6
    assert kept["published"] > 10 * kept["this"]
    assert len(report["exponents"]) == 8
    table = (tmp_path / "measured" / "operator.md").read_text()
    assert len(table.splitlines()) == 2 + len(report["rows"])


MMCV = """
import torch
from torch import nn
from ccnet.baselines import published_criss_cross_attention

class CrissCrossAttention(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.query_conv = self.key_conv = self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = nn.Linear(1, 1)

    def forward(self, x):
        assert x.shape[2:] == (4, 6)
        projected = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        return self.gamma(published_criss_cross_attention(*projected)) + x
"""


def test_operator_benchmark_takes_mmcv_where_it_is(repository, run_forked, tmp_path):
    """A package of that name with the interface of mmcv's module stands in for it."""
    package = tmp_path / "packages" / "mmcv"
    (package / "ops").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "ops" / "__init__.py").write_text(MMCV)
    script = repository / "scripts" / "benchmarks" / "attention_operator.py"
    arguments = ["--sizes", "4x6", "--batches", 2, "--layouts", "NCHW", "--seconds", 0.001]
    path = os.pathsep.join(map(str, (repository, package.parent)))
    run_forked(script, *arguments, "--output", "measured", cwd=tmp_path, PYTHONPATH=path)
    report = json.loads((tmp_path / "measured" / "operator.json").read_text())
    found = {(row["dtype"], row["pass"]) for row in report["rows"] if row["operator"] == "mmcv"}
    assert found == {("float32", "forward"), ("float32", "forward + backward")}


def test_precision_check_finds_constant_maps_exact(repository, run_forked, tmp_path):
    script = repository / "scripts" / "check_precision.py"
    result = run_forked(script, "--largest", 6, "--seeds", 2, cwd=tmp_path)
    ours = re.search(r"\| this \| (\d+) of 25 \| 0 \|", result.stdout)
    assert ours[1] == "25"
    assert len(re.findall(r"^\| (this|published) \| \w+\d+ \|", result.stdout, re.MULTILINE)) == 14


def test_input_sizes_are_rows_of_a_table(repository, run_forked, weights_file, tmp_path):
    script = repository / "scripts" / "benchmarks" / "input_size.py"
    arguments = ["street-scenes", "--weights", weights_file, "--every", 60, "--noise", 5]
    result = run_forked(script, *arguments, "--factors", 0.05, 0.1, cwd=tmp_path)
    lines = [line.split(" | ") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["| images of", "| ---", "| 24 x 18", "| 48 x 36"]
    assert all(re.fullmatch(r"\d+\.\d", line[1]) for line in lines[2:])
    assert all(line[1] == line[2].rstrip(" |") for line in lines[2:]), "no size is known"


@pytest.mark.slow
def test_memory_of_inference_is_measured_beside_the_plain_network(repository, run_python, tmp_path):
    pytest.importorskip("resource")
    script = repository / "scripts" / "benchmarks" / "inference_memory.py"
    options = [
        "--network",
        "ccnet_resnet18",
        "--size",
        33,
        65,
        "--works",
        "plain network",
        "predict",
    ]
    found = run_python(script, *options, cwd=tmp_path).stdout.splitlines()
    assert [line.split(" | ")[0] for line in found[2:]] == ["| plain network", "| predict"]
