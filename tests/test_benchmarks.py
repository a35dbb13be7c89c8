"""The measuring scripts run and report what they measured; they do not judge how fast it was."""

import json
import re


def test_operator_benchmark_reports_every_case(repository, run_python, tmp_path):
    script = repository / "scripts" / "benchmarks" / "attention_operator.py"
    arguments = ["--sizes", "4x4", "5x5", "--batches", 1, "--dtypes", "float32"]
    arguments += ["--layouts", "channels_last", "--seconds", 0.001, "--output", "measured"]
    run_python(script, *arguments, cwd=tmp_path)
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


def test_precision_check_finds_constant_maps_exact(repository, run_python, tmp_path):
    script = repository / "scripts" / "check_precision.py"
    result = run_python(script, "--largest", 6, "--seeds", 2, cwd=tmp_path)
    ours = re.search(r"\| this \| (\d+) of 25 \| 0 \|", result.stdout)
    assert ours[1] == "25"
    assert len(re.findall(r"^\| (this|published) \| \w+\d+ \|", result.stdout, re.MULTILINE)) == 14
