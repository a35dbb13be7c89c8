"""Times the cases of one section of the benchmark on a GPU, in a process of its own.

Started by `gpu.py`. Prints JSON, a line each: all titles, then what was measured of each case. A
case that fails is a line too; the process ends with status 3 if the device does not recover.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from gpu_cases import Case, Operators, Work

Result = dict[str, Any]
"""Of one implementation: "ms", the median, "low" and "high", quartiles, "peak_mb"; or "error"."""


def operators_of(before: Path | None, sketches: Path | None) -> tuple["Operators", dict[str, str]]:
    """Returns implementations of attention by name, and what is wrong with others.

    Args:
        before: a checkout of another version of this package.
        sketches: a package; each module in it with a function `attend` is an implementation.
    """
    found: Operators = {}
    if before:
        # First: nodes of compiled graphs belong to the version that registers their names last.
        found["before"] = _operator_of_checkout(before)
    from ccnet import criss_cross_attention
    from ccnet.baselines import published_criss_cross_attention

    operators = {"published": published_criss_cross_attention, **found}
    operators["this"] = criss_cross_attention
    problems: dict[str, str] = {}
    if not sketches:
        return operators, problems
    sys.path.append(str(sketches.parent))
    for path in sorted(sketches.glob("[!_]*.py")):
        try:
            module = importlib.import_module(f"{sketches.name}.{path.stem}")
        except (Exception, SystemExit) as error:
            problems[path.stem] = _one_line(error)
        else:
            if hasattr(module, "attend"):
                operators[path.stem] = module.attend
    return operators, problems


def _operator_of_checkout(folder: Path) -> "Callable[..., torch.Tensor]":
    def own_modules() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] == "ccnet"]

    ours = {name: sys.modules.pop(name) for name in own_modules()}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("ccnet").criss_cross_attention
    finally:
        sys.path.remove(str(folder))
        for name in own_modules():
            del sys.modules[name]
        sys.modules.update(ours)


def milliseconds(work: "Work", device: str, repeats: int = 1) -> float:
    """Returns the time of one call, on a GPU by its own clock."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return 1e3 * (time.perf_counter() - start) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(repeats):
        work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / repeats


def measure(case: "Case", device: str, rounds: int) -> dict[str, Result]:
    """Measures a case, its implementations in turns; those that fail drop out."""
    results: dict[str, Result] = {}
    times: dict[str, list[float]] = {}
    try:
        works = case.build()
    except Exception as error:
        return {"all": {"error": _one_line(error)}}
    repeats = {}
    for name, work in works.items():
        try:
            milliseconds(work, device)
            results[name] = {"peak_mb": _peak_mb(work, device)}
            fast = 1 if device == "cpu" else round(20 / milliseconds(work, device))
            repeats[name], times[name] = max(1, min(50, fast)), []
        except Exception as error:
            results[name] = {"error": _one_line(error)}
    for _ in range(rounds):
        for name in list(times):
            try:
                times[name].append(milliseconds(works[name], device, repeats[name]))
            except Exception as error:
                results[name] = {"error": _one_line(error)}
                del times[name]
    for name, values in times.items():
        low, median, high = statistics.quantiles(values * 2, n=4)  # of one value, too
        results[name] |= {"ms": median, "low": low, "high": high}
    return results


def _peak_mb(work: "Work", device: str) -> float | None:
    if device == "cpu":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _one_line(error: BaseException) -> str:
    message = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {message}"


def recovers(device: str) -> bool:
    """Returns whether the device still works, after its unused memory was returned."""
    try:
        if device != "cpu":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def lines(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields what is printed; no case begins that would not end in time, as the last one took."""
    began = time.monotonic()
    operators, problems = operators_of(arguments.before, arguments.sketches)
    from gpu_cases import CASES, SIZES

    sizes = SIZES["cpu" if arguments.device == "cpu" else "cuda"]
    cases = CASES[arguments.section](operators, sizes, arguments.device)
    yield {"titles": [case.title for case in cases], "problems": problems}
    took = 0.0
    for case in cases[arguments.first :]:
        start = time.monotonic()
        if start + took > began + arguments.seconds:
            return
        yield {"title": case.title, "results": measure(case, arguments.device, sizes.rounds)}
        if not recovers(arguments.device):
            raise SystemExit(3)
        took = time.monotonic() - start


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__)
    result.add_argument("section")
    result.add_argument("--device", default="cuda")
    result.add_argument("--seconds", type=float, default=60, help="for all cases")
    result.add_argument("--first", type=int, default=0, help="cases before it are left out")
    result.add_argument("--before", type=Path)
    result.add_argument("--sketches", type=Path)
    return result


def main() -> None:
    for line in lines(parser().parse_args()):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
