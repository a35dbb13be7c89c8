"""Reports of an evaluation: Markdown and JSON to read, pictures to look at."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ccnet.charts import Sample, confusion_chart, iou_chart, samples_page, save_chart
from ccnet.evaluation import Samples, Scores
from ccnet.files import atomic_write
from ccnet.model import CCNet
from ccnet.protocol import Protocol

_SHOWN = 6
"""How many images the page of the worst shows."""

_CAPTIONS = {
    "iou.png": "IoU of the classes",
    "confusion.png": "What the classes are labelled as",
    "worst.png": "The images with the lowest mIoU",
}


@dataclass(frozen=True)
class Report:
    """What was measured, on what, and how.

    Attributes:
        weights: the name of the weights, or their file.
        dataset: the data set and its split, as in "CamVid val".
        protocol: the keyword arguments of `CCNet.predict`.
        scores: over all images.
        images: the name and the mIoU, in percent, of every image.
        published: the registry's mIoU in percent, and whose figure it is; None if it has none.
        environment: versions, device and the like.
    """

    weights: str
    dataset: str
    protocol: Mapping[str, Any]
    scores: Scores
    images: Sequence[tuple[str, float]]
    published: tuple[float, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Weights and data set."""
        return f"{self.weights} on {self.dataset}"

    def worst(self, count: int) -> list[int]:
        """The numbers of the images with the lowest mIoU, the lowest first."""
        measured = [index for index, (_, miou) in enumerate(self.images) if not math.isnan(miou)]
        return sorted(measured, key=lambda index: self.images[index][1])[:count]

    def is_confirmed(self, tolerance: float) -> bool:
        """Whether the mIoU is the published one, give or take `tolerance` percent of mIoU."""
        if self.published is None:
            return False
        return abs(self.scores.miou - self.published[0]) <= tolerance

    def summary(self) -> str:
        """A few lines to print: protocol, classes, means, and the published figure."""
        scores = self.scores
        lines = [f"{self.title}: {describe_protocol(self.protocol)}", ""]
        if not scores.confusion.any():
            return "\n".join([*lines, "no pixel has a label: there is nothing to measure"])
        lines += [scores.table(), ""]
        lines += [f"pixel accuracy {scores.pixel_accuracy:.2f} %"]
        lines += [f"mean accuracy {scores.mean_accuracy:.2f} %"]
        if self.published:
            figure, whose = self.published
            difference = scores.miou - figure
            lines += [f"published mIoU {figure:.2f} % ({whose}), difference {difference:+.2f}"]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        return {
            "weights": self.weights,
            "dataset": self.dataset,
            "protocol": dict(self.protocol),
            **self.scores.to_dict(),
            "published mIoU": self.published and self.published[0],
            "images": [
                {"name": name, "mIoU": None if math.isnan(miou) else miou}
                for name, miou in self.images
            ],
            "environment": dict(self.environment),
        }

    def to_markdown(self, pictures: Sequence[str] = ()) -> str:
        """A page with all figures, those of the classes, and pictures of these file names."""
        scores = self.scores
        figure = f"{scores.miou:.2f} %"
        if self.published:
            figure += " ({1}: {0:.2f} %)".format(*self.published)
        lines = [f"# {self.title}", "", "| | |", "| --- | --- |"]
        lines += [
            f"| {name} | {value} |"
            for name, value in {
                "mIoU": figure,
                "pixel accuracy": f"{scores.pixel_accuracy:.2f} %",
                "mean accuracy": f"{scores.mean_accuracy:.2f} %",
                "images": len(self.images),
                "protocol": describe_protocol(self.protocol),
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
            lines.append(f"| {name} | {' | '.join(cells)} |")
        for name in pictures:
            lines += ["", f"![{_CAPTIONS[name]}]({name})"]
        lines += ["", "| worst images | mIoU (%) |", "| --- | ---: |"]
        lines += ["| {} | {:.2f} |".format(*self.images[index]) for index in self.worst(10)]
        return "\n".join(lines) + "\n"


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """A protocol in words, as in "slide, crop 769x769, stride 513x513, scales 0.75 1, flip"."""
    checked = Protocol(**protocol)
    words = [checked.mode]
    for name, size in zip(("crop", "stride"), checked.windows or (), strict=False):
        words.append(f"{name} {size[0]}x{size[1]}")
    if checked.scales != (1.0,):
        words.append("scales " + " ".join(f"{scale:g}" for scale in checked.scales))
    words.append("flip" if checked.flip else "no flip")
    if len(checked.scales) > 1 or checked.flip:
        words.append(f"average of {checked.average}")
    return ", ".join([*words, checked.precision])


def save_report(
    report: Report, model: CCNet, dataset: Samples, folder: str | os.PathLike[str]
) -> None:
    """Writes report.md and report.json, and the pictures iou.png, confusion.png and worst.png.

    Args:
        report: what was measured.
        model: segments the worst images once more, to show them.
        dataset: the images of the report.
        folder: made if need be; what it holds under these names is replaced.
    """
    charts = {
        "iou.png": iou_chart(report.scores, report.title),
        "confusion.png": confusion_chart(report.scores, report.title),
    }
    samples = []
    for index in report.worst(_SHOWN):
        image, labels = (tensor.as_subclass(Tensor) for tensor in dataset[index])
        predicted = model.predict(image, **report.protocol).labels
        name, miou = report.images[index]
        samples.append(Sample(f"{name}: mIoU {miou:.1f} %", image, predicted, labels))
    if samples:
        title = f"{report.title}: the images with the lowest mIoU"
        charts["worst.png"] = samples_page(samples, report.scores.label_set, title)
    for name, chart in charts.items():
        save_chart(chart, Path(folder, name))
    with atomic_write(Path(folder, "report.json")) as temporary:
        temporary.write_text(json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")
    with atomic_write(Path(folder, "report.md")) as temporary:
        temporary.write_text(report.to_markdown(list(charts)))
