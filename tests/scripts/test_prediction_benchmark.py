"""The benchmark of prediction runs and reports what it measured."""

import json
import runpy

import pytest

from ccnet.jobs.outputs import OUTPUTS, USUAL


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


def test_both_ways_write_the_usual_results(repository, tmp_path):
    pytest.importorskip("resource")
    script = runpy.run_path(str(repository / "scripts" / "benchmarks" / "prediction.py"))
    script["write_pictures"](tmp_path / "in", 2, (36, 48))
    for way in script["WAYS"]:
        output = tmp_path / way
        output.mkdir()
        workers = [2] if way == "pipeline" else []
        script[f"run_{way}"](script["make_stages"]("stub"), tmp_path / "in", output, *workers)
        names = {path.name for path in output.iterdir()} - {"results.jsonl"}
        suffixes = [OUTPUTS[kind].suffix for kind in USUAL]
        assert names == {f"{index:06}{suffix}" for index in range(2) for suffix in suffixes}
