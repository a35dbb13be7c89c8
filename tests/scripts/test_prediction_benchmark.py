"""The benchmark of prediction runs and reports what it measured."""

import json

import pytest


@pytest.mark.slow
def test_prediction_benchmark(repository, run_python, tmp_path):
    pytest.importorskip("resource")
    script = repository / "scripts" / "benchmarks" / "prediction.py"
    arguments = ["--small", 3, "--large", 1, "--small-size", 36, 48, "--large-size", 60, 80]
    options = ["--networks", "stub", "--output", "measured"]
    result = run_python(script, *arguments, *options, cwd=tmp_path)
    rows = json.loads((tmp_path / "measured" / "prediction.json").read_text())["rows"]
    assert len(rows) == 2 * 2 * 2
    assert {(row["processes"], row["way"]) for row in rows} == {
        (processes, way) for processes in (1, 2) for way in ("serial", "pipeline")
    }
    assert all(row["pictures_per_second"] > 0 and row["peak_mib"] > 0 for row in rows)
    assert result.stdout == (tmp_path / "measured" / "prediction.md").read_text()
