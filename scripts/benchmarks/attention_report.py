"""Report of the operator benchmark: Markdown table, growth exponents, plot."""

import math
import statistics
from pathlib import Path

Row = dict[str, float | str | int]


def as_markdown(rows: list[Row]) -> str:
    lines = [
        "| map | batch | dtype | layout | pass | operator | median ms (quartiles) "
        "| times faster than published | peak MB | kept MB |",
        "| --- | ---: | --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        lines.append(
            "| {map} | {batch} | {dtype} | {layout} | {pass} | {operator} | {median_ms:.1f} "
            "({quartile_low_ms:.1f} - {quartile_high_ms:.1f}) | {published_over_this:.2f} "
            "| {peak_mb:.1f} | {kept_mb:.3f} |".format(**row)
        )
    return "\n".join(lines) + "\n"


def fitted_exponents(rows: list[Row]) -> dict[str, float]:
    """Fits exponents of time against positions on square maps, by least squares of logarithms."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        height, width = str(row["map"]).split("x")
        if height == width:
            name = ", ".join(str(row[key]) for key in ("operator", "dtype", "layout", "pass"))
            point = math.log(float(row["positions"])), math.log(float(row["median_ms"]))
            groups.setdefault(f"{name}, batch {row['batch']}", []).append(point)
    return {
        name: statistics.linear_regression(*zip(*points, strict=True)).slope
        for name, points in groups.items()
        if len({x for x, _ in points}) > 1
    }


def plot(rows: list[Row], operators: list[str], path: Path) -> None:
    """Plots time against positions, for float32, channels-last and batch 1."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, which in zip(axes, ("forward", "forward + backward"), strict=True):
        for name in operators:
            points = sorted(
                (int(row["positions"]), float(row["median_ms"]))
                for row in rows
                if (row["operator"], row["pass"], row["batch"]) == (name, which, 1)
                and (row["dtype"], row["layout"]) == ("float32", "channels_last")
            )
            if points:
                axis.loglog(*zip(*points, strict=True), marker="o", label=name)
        axis.set(title=f"{which}, float32, channels_last, batch 1", xlabel="positions", ylabel="ms")
        axis.legend()
    figure.savefig(path, dpi=120)
