"""The benchmark for GPUs, exercised on the CPU so that it does not rot."""

import json
import shutil
import subprocess
import sys

import gpu
import gpu_cases
import gpu_worker
import pytest
import torch

OPERATOR, COMPILED, NETWORK, CLAIM = 2 * 2 * 2, 2 * 2 * 2, 2 * 2, 2
"""Cases of each section."""


def in_this_process(options, limit):
    yield from gpu_worker.lines(gpu_worker.parser().parse_args([*map(str, options)]))


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Runs the benchmark; returns its exit status, Markdown and JSON."""
    sizes = gpu_cases.Sizes(((3, 3),), (1,), "ccnet_resnet18", 33, 2, (33, 40), 1)
    monkeypatch.setitem(gpu_cases.SIZES, "cpu", sizes)

    def run(*options, worker=in_this_process):
        monkeypatch.setattr(gpu, "worker", worker)
        output = tmp_path / "new" / "measured.md"
        arguments = ["--device", "cpu", "--output", output, *options]
        monkeypatch.setattr("sys.argv", ["gpu.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            gpu.main()
        return (
            end.value.code,
            output.read_text(),
            json.loads(output.with_suffix(".json").read_text()),
        )

    return run


@pytest.fixture
def other_version(tmp_path):
    """A checkout of another version of the package, which fails for bfloat16."""
    package = tmp_path / "other" / "ccnet"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from ccnet.attention import criss_cross_attention\n__all__ = ['criss_cross_attention']\n"
    )
    (package / "attention.py").write_text(
        "import torch\n"
        "def criss_cross_attention(query, key, value):\n"
        "    if query.dtype == torch.bfloat16:\n"
        "        raise RuntimeError('out of memory')\n"
        "    return 2 * value + 0 * (query + key).sum()\n"
    )
    return package.parent


def test_every_case_is_timed(measure, capsys):
    status, text, found = measure("--sections", "operator", "network", "claim")
    assert status == 0
    assert len(found["rows"]) == OPERATOR + NETWORK + CLAIM
    assert text.startswith("# Measured on a CPU, small sizes\n")
    for row in found["rows"]:
        assert list(row["results"]) == ["published", "this"]
        assert all(0 < one["low"] <= one["ms"] <= one["high"] for one in row["results"].values())
    (claim,) = (row for row in text.splitlines() if row.startswith("| image of 33x40 in windows"))
    published, this = (float(cell.split()[0]) for cell in claim.split(" | ")[1:])
    assert float(claim.split("(")[2].rstrip(") |")) == pytest.approx(published / this, abs=0.01)
    assert capsys.readouterr().out.count(" s  ") == len(found["rows"])


def test_another_version_and_sketches_are_measured_and_may_fail(measure, other_version):
    sketches = other_version / "sketches"
    sketches.mkdir()
    (sketches / "doubled.py").write_text("def attend(query, key, value):\n    return 2 * value\n")
    (sketches / "broken.py").write_text("import no_such_module\n")
    (sketches / "parts.py").write_text("")
    options = ["--before", other_version, "--sketches", sketches, "--sections", "operator"]
    status, text, found = measure(*options)
    assert status == 1
    assert (
        "- broken was not measured: ModuleNotFoundError: No module named 'no_such_module'" in text
    )
    assert "- failed: before: RuntimeError: out of memory (4 cases)" in text
    for row in found["rows"]:
        assert list(row["results"]) == ["published", "before", "this", "doubled"]
        assert ("ms" in row["results"]["before"]) == ("float32" in row["title"])
        assert ("ms" in row["results"]["doubled"]) == row["title"].endswith("forward")
    assert "- operator: this is " in text
    assert sys.modules["ccnet"] is gpu.ccnet


def test_compiled_operators_stand_beside_the_plain_ones(measure, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda operator, **_: operator)
    status, _, found = measure("--sections", "compiled")
    assert status == 0
    names = ["published", "this", "published, compiled", "this, compiled"]
    assert [list(row["results"]) for row in found["rows"]] == [names] * COMPILED


def test_nothing_begins_when_time_is_up(measure):
    status, text, _ = measure("--minutes", 0)
    assert status == 0
    assert text.count("no time was left") == 4


def test_what_no_longer_fits_is_left_out(measure, monkeypatch):
    clock = iter(range(0, 10**6, 10))  # seconds: each case takes 10
    monkeypatch.setattr(gpu_worker.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(gpu_worker, "measure", lambda *_: {})
    options = gpu_worker.parser().parse_args(["operator", "--device", "cpu", "--seconds", "55"])
    assert len(list(gpu_worker.lines(options))) == 1 + 2


@pytest.mark.parametrize(("status", "blamed"), [(3, False), (-9, True)])
def test_a_section_goes_on_after_a_case_that_ends_its_process(measure, status, blamed):
    """After the first case; if that one had told its result, it is not blamed."""
    starts = []

    def worker(options, limit):
        first = options[options.index("--first") + 1]
        starts.append(first)
        for line in [
            {"titles": list("abcd"), "problems": {}},
            *[{"title": "x", "results": {}}] * 4,
        ]:
            yield line
            if first == 0 and "title" in line:
                raise gpu.WorkerError("the process ended", case_is_done=not blamed)

    worker_status, _, found = measure("--sections", "claim", worker=lambda *_: worker(*_))
    assert starts == [0, 1 + blamed]
    assert worker_status == blamed
    failed = [row["title"] for row in found["rows"] if row.get("failed")]
    assert failed == ["b"] * blamed


def test_processes_that_end_early_are_told(monkeypatch, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("import sys, time\nprint('{}', flush=True)\nexec(sys.argv[1])\n")
    monkeypatch.setattr(gpu, "WORKER", script)
    monkeypatch.setattr(gpu, "LONGEST_SILENCE", 1)
    assert list(gpu.worker(["print('other words')"], limit=float("inf"))) == [{}]
    for code, done, message in (
        ("sys.exit(3)", True, "ended with status 3"),
        ("sys.exit(1)", False, "ended with status 1"),
        ("time.sleep(60)", False, "was stopped, it took too long"),
    ):
        lines = gpu.worker([code], limit=float("inf"))
        assert next(lines) == {}
        with pytest.raises(gpu.WorkerError, match=message) as raised:
            next(lines)
        assert raised.value.case_is_done == done


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_revision_is_checked_out_for_the_while(monkeypatch, tmp_path):
    repository = tmp_path / "repository"
    (repository / "ccnet").mkdir(parents=True)
    (repository / "ccnet" / "old.py").touch()
    git = ["git", "-C", repository, "-c", "user.name=me", "-c", "user.email=me@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    (repository / "ccnet" / "old.py").unlink()
    monkeypatch.setattr(gpu, "ROOT", repository)
    with gpu.checkout_of("v1") as folder:
        assert (folder / "ccnet" / "old.py").is_file()
    assert not folder.exists()
    assert len(subprocess.check_output([*git, "worktree", "list"]).splitlines()) == 1
    with gpu.checkout_of(repository) as folder:
        assert folder == repository


def test_tests_are_left_out_where_pytest_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert gpu.tests(60) == ("not run, pytest is not installed", True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_time_is_claimed_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.slow
def test_whole_benchmark_in_processes_of_its_own(repository, run_python, tmp_path):
    script = repository / "scripts" / "benchmarks" / "gpu.py"
    result = run_python(script, "--device", "cpu", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert "failed" not in result.stdout
    assert "this, compiled" in (tmp_path / "gpu-benchmark.md").read_text()
