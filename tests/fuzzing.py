"""Fuzz test: damaged files are read; only errors that say so, or right results, come out.

Every seed stands for one damaged file. Child processes read them, with a limit on their memory and
on the time for each, so that crashes and hangs too are found with their seed:

    python tests/fuzzing.py --minutes 30
    python tests/fuzzing.py --seed 1234 --count 1
"""

import argparse
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

MEMORY = 4 * 2**30
"""Bytes that a child may take beyond those that it needs to start."""

SECONDS = 10
"""Processor time that one file may take."""

FAULT = "fault"
"""How the names begin of the subjects with which the test itself is tried."""

_HERE = Path(__file__).resolve()


def run(
    seed: int, count: int, seconds: float, only: str = "", limit: int = SECONDS
) -> tuple[int, list[str]]:
    """Reads one damaged file for each seed.

    Args:
        seed: the first one.
        count: number of seeds.
        seconds: after which no further file is begun.
        only: begin of the names of the subjects that are damaged.
        limit: seconds of processor time that one file may take.

    Returns:
        The number of files that were read, and what failed.
    """
    end, tried, failures = seed + count, 0, []
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        while seed < end and (left := deadline - time.monotonic()) > 0 and len(failures) < 20:
            command = [sys.executable, str(_HERE), "--child", folder, "--seed", str(seed)]
            command += ["--count", str(end - seed), "--seconds", str(left), "--only", only]
            command += ["--limit", str(limit)]
            environment = {**os.environ, "HF_HOME": folder, "OMP_NUM_THREADS": "1"}
            environment["PYTHONPATH"] = os.pathsep.join([str(_HERE.parents[1]), *sys.path])
            child = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            lines = child.stdout.splitlines()
            failures += [
                line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED")
            ]
            last = max((int(one[5:]) for one in lines if one.startswith("SEED ")), default=None)
            if last is None:
                raise RuntimeError(f"the child did not start: {child.stderr[-2000:]}")
            tried += last + 1 - seed
            if child.returncode == 0:
                break
            code = child.returncode
            why = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            failures.append(f"seed {last}: ended by {why}: {child.stderr.strip()[-1500:]}")
            seed = last + 1
    return tried, failures


def _child(folder: Path, seed: int, count: int, seconds: float, only: str, limit: int) -> None:
    from fuzz_files import faults
    from fuzz_subjects import subjects

    warnings.filterwarnings("error", module=r"ccnet")
    logging.getLogger("ccnet").addHandler(_Messages())
    logging.getLogger("ccnet").propagate = False
    (folder / "made").mkdir(exist_ok=True)
    made = faults() if only.startswith(FAULT) else subjects(folder / "made")
    known = [one for one in made if one.name.startswith(only)]
    _limit_memory()
    deadline, sound = time.monotonic() + seconds, {}
    for number in range(seed, seed + count):
        if time.monotonic() > deadline:
            break
        _say(f"SEED {number}")
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, 12 * limit)
        subject = random.Random(number).choice(known)
        try:
            _try(subject, number, folder / "tried", sound)
        except Exception:
            signal.setitimer(signal.ITIMER_PROF, 0)
            shown = traceback.format_exc()[-1800:].replace("\n", "\n    ")
            _say(f"FAILED seed {number} ({subject.name}): {shown!r}")
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _try(subject, number, folder, sound) -> None:
    from fuzz_files import damaged
    from fuzz_mutations import flip_bit

    rng = random.Random(number)
    rng.random()
    if subject.name not in sound:
        sound[subject.name] = _outcome(subject, subject.content, folder)
        assert sound[subject.name] is not None or subject.name.startswith("mask "), "not sound"
    is_bit = rng.random() < 0.2
    content = flip_bit(rng, subject.content) if is_bit else damaged(subject, rng)
    found = _outcome(subject, content, folder)
    if found is not None and (subject.is_sealed or (is_bit and subject.notices_a_bit)):
        assert found == sound[subject.name], "a changed file was believed"


def _outcome(subject, content, folder) -> str | None:
    """Reads a file; None stands for an error, which says what is wrong."""
    from fuzz_files import check_message

    shutil.rmtree(folder, ignore_errors=True)
    path = folder / subject.place
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    try:
        return subject.read(folder)
    except (ValueError, OSError) as error:
        check_message(error, subject.has_report)
        return None


class _Messages(logging.Handler):
    """Formats what is logged and looks at it."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        assert "\n" not in message, f"a warning of several lines: {message}"
        assert len(message) <= 3000, f"a warning of {len(message)} characters: {message[:200]}"


def _limit_memory() -> None:
    import resource

    status = Path("/proc/self/status")
    if not status.exists():
        return  # only Linux counts all that a process has under this limit
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    used = 1024 * int(lines["VmData"].split()[0])
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, most))


def main() -> None:
    """Runs by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=int, default=SECONDS)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    seconds = options.seconds if options.minutes is None else 60 * options.minutes
    if options.child:
        chosen = options.only, options.limit
        _child(options.child, options.seed, options.count, seconds, *chosen)
        return
    tried, failures = run(options.seed, options.count, seconds, options.only, options.limit)
    _say(f"{tried} files from seed {options.seed} on, {len(failures)} failures")
    for failure in failures:
        _say(failure.replace("\\n", "\n"))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
