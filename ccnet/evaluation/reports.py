"""Evaluation reports: summary, Markdown, JSON and charts."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccnet.console import printable
from ccnet.evaluation.charts import Sample, confusion_chart, iou_chart, samples_page, save_chart
from ccnet.evaluation.scores import Scores, cell
from ccnet.files import atomic_write
from ccnet.inference import InferenceProtocol

_FILES = ("report.json", "report.md", "iou.png", "confusion.png", "worst.png")

_CAPTIONS = {
    "iou.png": "IoU of the classes",
    "confusion.png": "Confusion matrix",
    "worst.png": "The images with the lowest mIoU",
}


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    Attributes:
        weights: name or file of the weights.
        dataset: data set and split, as in "CamVid val".
        protocol: the options of inference.
        scores: over all images.
        images: name and mIoU, in percent, of every image.
        published: the registry's mIoU in percent, and who measured it; None if there is none.
        misfit: how the images differ from those of the published mIoU; empty if they do not.
        note: what else is to be known of the figures; empty for nothing.
        environment: versions, device and so on.
    """

    weights: str
    dataset: str
    protocol: InferenceProtocol
    scores: Scores
    images: Sequence[tuple[str, float]]
    published: tuple[float, str] | None = None
    misfit: str = ""
    note: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Weights and data set, as in "CAMVID on CamVid val"."""
        return f"{self.weights} on {self.dataset}"

    def worst(self, count: int) -> list[int]:
        """Indices of the `count` images with the lowest mIoU, in ascending order of mIoU."""
        measured = [index for index, (_, miou) in enumerate(self.images) if not math.isnan(miou)]
        return sorted(measured, key=lambda index: self.images[index][1])[:count]

    def is_confirmed(self, tolerance: float) -> bool:
        """Whether the mIoU differs from the published one by at most `tolerance` (percent).

        That of other images is no confirmation.
        """
        if self.published is None or self.misfit:
            return False
        return abs(self.scores.miou - self.published[0]) <= tolerance

    def summary(self) -> str:
        """Text for a terminal: protocol, IoU per class, means, published mIoU."""
        scores = self.scores
        count = f"{len(self.images)} image{'s' if len(self.images) != 1 else ''}"
        lines = [f"{printable(self.title)}: {self.protocol}; {count}", ""]
        if not scores.confusion.any():
            return "\n".join([*lines, "no labelled pixels: there are no scores"])
        lines += [scores.table(), ""]
        lines += [f"pixel accuracy {scores.pixel_accuracy:.2f} %"]
        lines += [f"mean accuracy {scores.mean_accuracy:.2f} %"]
        if self.published:
            figure, whose = self.published
            difference = f"difference {scores.miou - figure:+.2f}"
            if self.misfit:
                difference = f"not comparable: {self.misfit}"
            lines += [f"published mIoU {figure:.2f} % ({whose}), {difference}"]
        lines += [f"note: {self.note}"] if self.note else []
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-able values."""
        return {
            "weights": self.weights,
            "dataset": self.dataset,
            "protocol": self.protocol.to_config(),
            **self.scores.to_dict(),
            "published mIoU": self.published[0] if self.published and not self.misfit else None,
            "images": [
                {"name": name, "mIoU": None if math.isnan(miou) else miou}
                for name, miou in self.images
            ],
            "environment": dict(self.environment),
        }

    def to_markdown(self, pictures: Sequence[str] = ()) -> str:
        """Returns the report in Markdown, with links to the charts of these file names."""
        scores = self.scores
        figure = f"{scores.miou:.2f} %"
        if self.published and not self.misfit:
            figure += " ({1}: {0:.2f} %)".format(*self.published)
        lines = [f"# {printable(self.title)}", "", "| | |", "| --- | --- |"]
        lines += [
            f"| {name} | {cell(value)} |"
            for name, value in {
                "mIoU": figure,
                "pixel accuracy": f"{scores.pixel_accuracy:.2f} %",
                "mean accuracy": f"{scores.mean_accuracy:.2f} %",
                "images": len(self.images),
                "protocol": self.protocol,
                **self.environment,
            }.items()
        ]
        lines += ["", "| class | IoU (%) | accuracy (%) | share of the pixels (%) |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        counts = scores.confusion.sum(1).double()
        shares = (100 * counts / counts.sum()).tolist()
        columns = scores.iou.tolist(), scores.accuracy.tolist(), shares
        for name, *values in zip(scores.label_set.categories, *columns, strict=True):
            cells = ("-" if math.isnan(value) else f"{value:.2f}" for value in values)
            lines.append(f"| {cell(name)} | {' | '.join(cells)} |")
        for name in pictures:
            lines += ["", f"![{_CAPTIONS[name]}]({name})"]
        lines += ["", "| worst images | mIoU (%) |", "| --- | ---: |"]
        worst = (self.images[index] for index in self.worst(10))
        lines += [f"| {cell(name)} | {miou:.2f} |" for name, miou in worst]
        return "\n".join(lines) + "\n"


def save_report(report: Report, folder: str | os.PathLike[str], worst: Sequence[Sample]) -> None:
    """Writes report.md and report.json, and the charts iou.png, confusion.png and worst.png.

    report.md, which shows the charts, is there only once all other files are of this report.

    Args:
        report: the result of an evaluation.
        folder: created if it does not exist; an older report is replaced.
        worst: the images to show in worst.png, which is not written if there are none.

    Raises:
        ValueError: if the folder holds the report of another evaluation, as
            `prepare_report`.
    """
    prepare_report(folder, report.weights, report.dataset, report.protocol)
    for name in ("report.md", "worst.png"):
        Path(folder, name).unlink(missing_ok=True)
    with atomic_write(Path(folder, "report.json")) as temporary:
        text = json.dumps(report.to_dict(), indent=1, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    charts = {
        "iou.png": iou_chart(report.scores, report.title),
        "confusion.png": confusion_chart(report.scores, report.title),
    }
    if worst:
        title = f"{report.title}: the images with the lowest mIoU"
        charts["worst.png"] = samples_page(worst, report.scores.label_set, title)
    for name, chart in charts.items():
        save_chart(chart, Path(folder, name))
    with atomic_write(Path(folder, "report.md")) as temporary:
        temporary.write_text(report.to_markdown(list(charts)), encoding="utf-8")


def prepare_report(
    folder: str | os.PathLike[str], weights: str, dataset: str, protocol: InferenceProtocol
) -> None:
    """Creates the folder of a report; one that holds another report is refused.

    Args:
        folder: need not exist.
        weights: of the new report.
        dataset: of the new report.
        protocol: of the new report.

    Raises:
        OSError: if it cannot be created, or a report in it not be read.
        ValueError: if it holds a report of other weights, data or protocol, or files of such names
            that belong to none.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    found = [name for name in _FILES if Path(folder, name).exists()]
    if not found:
        return
    expected = {"weights": weights, "dataset": dataset, "protocol": protocol.to_config()}
    try:
        older = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
        kept = {key: older[key] for key in expected}
    except (FileNotFoundError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} holds {found[0]}, which is of no report: choose another folder"
        ) from error
    if kept != expected:
        other = next(key for key in expected if kept[key] != expected[key])
        raise ValueError(
            f"{folder} holds the report of another evaluation ({other} {printable(kept[other])}, "
            f"not {printable(expected[other])}): choose another folder"
        )
