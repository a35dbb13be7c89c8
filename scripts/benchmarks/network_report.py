"""Report of the network benchmark: Markdown table and plot."""

from pathlib import Path
from typing import Any

Report = dict[str, Any]


def as_markdown(report: Report) -> str:
    """Returns a table of all rows, and a list of those that failed."""
    height, width = report["size"]
    batches = _batches(report)
    columns = [f"batch {batch}, images/s" for batch in batches]
    titles = ["", "latency, ms", "times as fast as plain", *columns]
    titles += ["GFLOPs", "memory, MB", "weights, MB", "convolutions alone, share of the time"]
    lines = [
        f"{report['network']}, {height}x{width}, {report['device']}, {report['threads']} threads, "
        f"PyTorch {report['torch']}; medians, in turns. Times as fast as plain: as the plain "
        "network in the same precision, of 8-bit integers in float32.",
        "",
        f"| {' | '.join(titles)} |",
        f"| --- |{' ---: |' * (len(titles) - 1)}",
    ]
    for row in report["rows"]:
        rates = [_shown(_rate(row, batch), ".2f") for batch in batches]
        numbers = [_shown(row[name], ".0f") for name in ("gflops", "peak_mb", "weights_mb")]
        share = _shown(row["share"], ".0%")
        times = [_shown(_latency(row), ".1f"), _shown(_gain(row, report), ".2f")]
        lines.append(f"| {' | '.join([row['name'], *times, *rates, *numbers, share])} |")
    failed = [f"- {row['name']}: {row['error']}" for row in report["rows"] if row["error"]]
    if failed:
        lines += ["", "Failed:", "", *failed]
    return "\n".join(lines) + "\n"


def plot(report: Report, path: Path) -> None:
    """Plots the latency of every row that has one."""
    import matplotlib.pyplot as plt

    rows = [row for row in report["rows"] if _latency(row) is not None]
    figure, axis = plt.subplots(figsize=(9, 1 + 0.4 * len(rows)), layout="constrained")
    colors = ["tab:orange" if row["precision"] == "bfloat16" else "tab:blue" for row in rows]
    bars = axis.barh([row["name"] for row in rows], [_latency(row) for row in rows], color=colors)
    axis.bar_label(bars, fmt="%.0f", padding=3)
    axis.margins(x=0.1)  # for the labels
    axis.invert_yaxis()
    height, width = report["size"]
    axis.set(
        xlabel="ms", title=f"latency of one image, {height}x{width}, {report['network']}, batch 1"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _batches(report: Report) -> list[int]:
    return sorted({batch for row in report["rows"] for batch in row["median_ms"]})


def _latency(row: Report) -> float | None:
    """Returns milliseconds of the smallest batch."""
    return row["median_ms"][min(row["median_ms"])] if row["median_ms"] else None


def _rate(row: Report, batch: int) -> float | None:
    return 1e3 * batch / row["median_ms"][batch] if batch in row["median_ms"] else None


def _gain(row: Report, report: Report) -> float | None:
    name = f"plain {row['precision'].replace('int8', 'float32')}"
    plain = next((_latency(one) for one in report["rows"] if one["name"] == name), None)
    own = _latency(row)
    return plain / own if plain and own else None


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
