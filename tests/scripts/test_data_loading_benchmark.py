"""The benchmark of data loading runs and reports what it measured."""

import json


def test_data_loading_benchmark(repository, run_forked, tmp_path):
    script = repository / "scripts" / "benchmarks" / "data_loading.py"
    arguments = ["--images", 2, "--samples", 6, "--height", 64, "--width", 128, "--crop", 48]
    result = run_forked(script, *arguments, "--batch", 2, "--output", "measured", cwd=tmp_path)
    report = json.loads((tmp_path / "measured" / "data_loading.json").read_text())
    steps = {"image", "labels", "scale and crop", "scale, then crop", "flip", "colour jitter"}
    assert set(report["steps"]) == {*steps, "collate"}
    assert all(step["median_ms"] > 0 for step in report["steps"].values())
    rates = report["images_per_second_and_core"]
    means = {name: step["mean_ms"] for name, step in report["steps"].items()}
    loading = sum(means[name] for name in ("image", "labels", "scale and crop", "flip", "collate"))
    assert abs(rates["plain"]["scale and crop"] * loading / 1e3 - 1) < 1e-9
    assert rates["with colour jitter"]["scale and crop"] < rates["plain"]["scale and crop"]
    table = (tmp_path / "measured" / "data_loading.md").read_text()
    assert result.stdout.endswith(table)
    assert report["crop_ratio_of_medians"] > 0
