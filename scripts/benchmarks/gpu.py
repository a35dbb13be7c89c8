"""Benchmark on a GPU: operator, network, tests, what CCNet-Pure-Pytorch reports; in six minutes.

    PYTHONPATH=. python scripts/benchmarks/gpu.py --before v0.1 --output gpu-benchmark.md

Times with CUDA events, in turns, the operator against its published formulation, plain and in
compiled graphs, then both in a whole network: passes and training steps, a step at 769x769 with
OHEM and one sample, and an evaluated image of 1024x2048 in windows; then runs the tests marked
`gpu`. --before adds another version of this package, and --sketches other implementations.

Writes Markdown, and JSON beside it, after each case. Each section is a process of its own, started
anew after a case in which it ends or hangs. What does not fit into the time is listed as such.
With `--device cpu` the same runs on small sizes. The exit status is 1 if a test or a case failed.
"""

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from gpu_report import SECTIONS, Report

import ccnet
from ccnet.console import prepare_console
from ccnet.files import user_path

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("gpu_worker.py")

SHARES = {"operator": 0.4, "compiled": 0.6, "network": 0.75, "claim": 0.85}
"""The part of the time by whose end each section ends; the rest is for the tests."""

LONGEST_SILENCE = 120.0
"""Seconds after which a case counts as hanging."""


class WorkerError(Exception):
    """A process ended early; `case_is_done` if it had told the result of its last case."""

    def __init__(self, message: str, case_is_done: bool) -> None:
        super().__init__(message)
        self.case_is_done = case_is_done


def worker(options: list[object], limit: float) -> Iterator[dict[str, Any]]:
    """Runs a process of `gpu_worker.py`; yields its lines.

    Raises:
        WorkerError: if it failed, or nothing came for too long, or the limit has passed.
    """
    command = [sys.executable, str(WORKER), *map(str, options)]
    stopped = threading.Event()

    @contextmanager
    def in_time() -> Iterator[None]:
        alarm = threading.Timer(min(LONGEST_SILENCE, max(0, limit - time.monotonic())), stop)
        alarm.start()
        try:
            yield
        finally:
            alarm.cancel()

    def stop() -> None:
        stopped.set()
        process.kill()

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            line = "-"
            while line:
                with in_time():
                    line = process.stdout.readline()
                if line.startswith("{"):
                    yield json.loads(line)
            with in_time():
                status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status:
        why = "was stopped, it took too long" if stopped.is_set() else f"ended with status {status}"
        raise WorkerError(f"the process {why}", case_is_done=status == 3)


def measured(
    section: str, options: list[object], deadline: float, limit: float, report: Report
) -> Iterator[dict[str, Any]]:
    """Yields the rows of a section as they come, then those that were not measured."""
    titles, done = ["all"], 0
    while done < len(titles) and (seconds := deadline - time.monotonic()) > 0:
        more = [section, *options, "--first", done, "--seconds", seconds]
        try:
            for line in worker(more, limit):
                if "titles" in line:
                    titles = line["titles"]
                    report.problems |= line["problems"]
                else:
                    done += 1
                    yield line
            break
        except WorkerError as error:
            if not error.case_is_done and done < len(titles):
                yield {"title": titles[done], "missing": str(error), "failed": True}
                done += 1
    for title in titles[done:]:
        yield {"title": title, "missing": "no time was left"}


def tests(seconds: float) -> tuple[str, bool]:
    """Runs the tests marked `gpu`; returns pytest's last line, and whether none failed."""
    if importlib.util.find_spec("pytest") is None:
        return "not run, pytest is not installed", True
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    try:
        result = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s", False
    lines = result.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return "; ".join([*lines[-1:], *failed]) or "pytest printed nothing", result.returncode == 0


@contextmanager
def checkout_of(version: str) -> Iterator[Path]:
    """Yields a folder that holds a version: itself, or for a revision, a worktree for the while."""
    if (Path(version) / "ccnet").is_dir():
        yield Path(version).resolve()
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder, "checkout")
        subprocess.run([*git, "add", "--quiet", "--detach", checkout, version], check=True)
        try:
            yield checkout
        finally:
            subprocess.run([*git, "remove", "--force", checkout], check=True)


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses what would cost measurements."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu exercises the same on small sizes")
    sketches, before = arguments.sketches, arguments.before
    if sketches and not any(sketches.glob("[!_]*.py")):
        parser.error(f"--sketches {sketches}: no folder with modules")
    if before and not (Path(before) / "ccnet").is_dir():
        revision = ["rev-parse", "--verify", "--quiet", f"{before}^{{commit}}"]
        if subprocess.run(["git", "-C", str(ROOT), *revision], capture_output=True).returncode:
            parser.error(f"--before {before}: neither a folder with ccnet/ nor a git revision")


def facts(arguments: argparse.Namespace) -> dict[str, str]:
    on_cpu = arguments.device == "cpu"
    found = {
        "device": "a CPU, small sizes" if on_cpu else torch.cuda.get_device_name(),
        "PyTorch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "ccnet": ccnet.__version__,
    }
    return found | ({"before": arguments.before} if arguments.before else {})


def run(arguments: argparse.Namespace, before: Path | None, report: Report) -> bool:
    """Measures everything into the report; returns whether all went well."""
    began, seconds = time.monotonic(), 60 * arguments.minutes
    options: list[object] = ["--device", arguments.device]
    for name, folder in (("--before", before), ("--sketches", arguments.sketches)):
        options += [name, folder] if folder else []
    for section in arguments.sections:
        deadline = began + seconds * SHARES[section]
        for row in measured(section, options, deadline, began + seconds, report):
            report.rows.append({"section": section, **row})
            report.write(arguments.output)
            print(f"{time.monotonic() - began:4.0f} s  {section}: {shown(row)}", flush=True)
    passed = True
    report.tests = "need a GPU"
    if arguments.device != "cpu":
        report.tests, passed = tests(max(1, began + seconds - time.monotonic()))
    report.write(arguments.output)
    return passed and not report.failures() and not report.problems


def shown(row: dict[str, Any]) -> str:
    cells = [
        f"{name} {result['ms']:.3f} ms" if "ms" in result else f"{name} {result['error'][:60]}"
        for name, result in row.get("results", {}).items()
    ]
    return f"{row['title']}: {row.get('missing') or ', '.join(cells)}"


def main() -> None:
    prepare_console()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=6, help="for everything together")
    parser.add_argument("--output", type=user_path, default=Path("gpu-benchmark.md"))
    parser.add_argument("--before", help="folder or git revision of another version")
    parser.add_argument(
        "--sketches", type=user_path, help="package whose modules have a function `attend`"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args()
    check(parser, arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that checkout and processes go
    report = Report(facts(arguments))
    with checkout_of(arguments.before) if arguments.before else nullcontext() as before:
        went_well = run(arguments, before, report)
    print(report.markdown())
    sys.exit(not went_well)


if __name__ == "__main__":
    main()
