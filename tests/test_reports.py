"""Reports: what they say, and that their pictures show it."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.charts import Sample, confusion_chart, iou_chart, samples_page, save_chart
from ccnet.classes import CAMVID, LabelSet
from ccnet.evaluation import Scores
from ccnet.reports import Report, describe_protocol, save_report

COLORS = LabelSet(("red", "green", "blue"), ((250, 10, 10), (10, 250, 10), (10, 10, 250)))


def make_report(**changes):
    confusion = torch.tensor([[80, 20, 0], [0, 0, 0], [10, 0, 30]])
    fields = {
        "weights": "mine",
        "dataset": "streets val",
        "protocol": {"flip": True},
        "scores": Scores(confusion, COLORS),
        "images": [("a", 70.0), ("b", math.nan), ("c", 12.5), ("d", 50.0)],
        "published": (55.0, "somebody"),
        "environment": {"device": "cpu"},
    }
    return Report(**{**fields, **changes})


def test_the_worst_images_are_those_with_the_lowest_miou():
    assert make_report().worst(2) == [2, 3]
    assert make_report().worst(10) == [2, 3, 0]


@pytest.mark.parametrize(
    ("tolerance", "confirmed"), [(0.1, False), (6.0, False), (6.1, True), (100, True)]
)
def test_a_figure_is_confirmed_within_the_tolerance(tolerance, confirmed):
    report = make_report()
    assert report.scores.miou == pytest.approx((80 / 110 + 0 + 30 / 40) * 100 / 3)
    off = abs(report.scores.miou - 55)
    assert 5.7 < off < 5.8
    shifted = make_report(published=(report.scores.miou - 6.05, "somebody"))
    assert shifted.is_confirmed(tolerance) == confirmed
    assert make_report(published=(report.scores.miou + 6.05, "x")).is_confirmed(tolerance) == (
        confirmed
    )


def test_nothing_is_confirmed_without_a_figure_or_a_measurement():
    nothing = Scores(torch.zeros(3, 3, dtype=torch.int64), COLORS)
    assert not make_report(published=None).is_confirmed(100)
    assert not make_report(scores=nothing).is_confirmed(100)
    assert "nothing to measure" in make_report(scores=nothing).summary()


def test_the_summary_names_everything_that_was_measured():
    lines = make_report().summary().splitlines()
    assert lines[0] == "mine on streets val: whole, flip, average of logits, float32"
    assert "| red | 72.7 |" in lines
    assert "| **mean (mIoU)** | **49.24** |" in lines
    assert lines[-3:] == [
        "pixel accuracy 78.57 %",
        "mean accuracy 77.50 %",
        "published mIoU 55.00 % (somebody), difference -5.76",
    ]


def test_markdown_and_json_say_the_same():
    report = make_report()
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["confusion"] == [[80, 20, 0], [0, 0, 0], [10, 0, 30]]
    assert saved["images"][:2] == [{"name": "a", "mIoU": 70.0}, {"name": "b", "mIoU": None}]
    assert (saved["published mIoU"], saved["protocol"]) == (55.0, {"flip": True})
    page = report.to_markdown(["iou.png"])
    assert "| mIoU | 49.24 % (somebody: 55.00 %) |" in page
    assert "| red | 72.73 | 80.00 | 71.43 |" in page
    assert "| green | 0.00 | - | 0.00 |" in page
    assert "](iou.png)" in page
    assert page.index("| c | 12.50 |") < page.index("| d | 50.00 |") < page.index("| a | 70.00 |")
    assert "| b |" not in page


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({}, "whole, no flip, float32"),
        (
            {"mode": "slide", "crop": [769, 769], "stride": [513, 513], "scales": [1.0]},
            "slide, crop 769x769, stride 513x513, no flip, float32",
        ),
        (
            {"scales": [0.5, 1, 1.75], "average": "probabilities", "precision": "bfloat16"},
            "whole, scales 0.5 1 1.75, no flip, average of probabilities, bfloat16",
        ),
    ],
)
def test_protocols_in_words(protocol, words):
    assert describe_protocol(protocol) == words


def pixels_of(figure, path):
    save_chart(figure, path)
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB")).reshape(-1, 3)


def count(pixels, color, tolerance=3):
    return int((np.abs(pixels.astype(int) - color).max(1) <= tolerance).sum())


def test_bars_are_as_long_as_the_iou(tmp_path):
    pixels = pixels_of(iou_chart(make_report().scores, "title"), tmp_path / "iou.png")
    red, green, blue = (count(pixels, color) for color in COLORS.colors)
    assert green == 0
    assert red / blue == pytest.approx((80 / 110) / (30 / 40), rel=0.03)


def test_a_class_that_never_occurs_has_no_bar():
    confusion = torch.diag(torch.tensor([5, 0, 7]))
    figure = iou_chart(Scores(confusion, COLORS), "title")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(names) == ["blue", "red"]


def test_the_confusion_chart_shows_shares_of_the_rows():
    axes = confusion_chart(make_report().scores, "title").axes[0]
    (image,) = axes.get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    assert np.allclose(shown[[0, 2]], [[80, 20, 0], [25, 0, 75]])
    assert np.isnan(shown[1]).all()
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "80",
        (1, 0): "20",
        (0, 2): "25",
        (2, 2): "75",
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == list(COLORS.categories)


def test_many_classes_are_drawn_without_numbers(tmp_path):
    many = Scores(torch.eye(26, dtype=torch.int64), LabelSet.numbered(26))
    figure = confusion_chart(many, "title")
    assert not figure.axes[0].texts
    assert len(pixels_of(figure, tmp_path / "many.png"))


def test_a_page_shows_each_image_beside_both_labels(tmp_path):
    image = torch.full((3, 40, 60), 100, dtype=torch.uint8)
    red, blue = torch.zeros(2, 40, 60, dtype=torch.uint8)
    blue += 2
    nothing = torch.full_like(red, 255)
    page = samples_page(
        [Sample("first", image, red, blue), Sample("second", image, blue, nothing)], COLORS, "title"
    )
    pictures = [np.asarray(axes.get_images()[0].get_array()) for axes in page.axes]
    mixed = [[round(0.35 * 100 + 0.65 * c) for c in color] for color in COLORS.colors]
    grey = [100, 100, 100]
    for picture, color in zip(
        pictures, [grey, mixed[0], mixed[2], grey, mixed[2], grey], strict=True
    ):
        assert np.abs(picture.astype(int) - color).max() <= 1
    titles = [axes.get_title(loc="left") for axes in page.axes]
    assert titles == ["first", "prediction", "labels", "second", "prediction", "labels"]
    (legend,) = page.legends
    assert [text.get_text() for text in legend.get_texts()] == ["red", "blue"]
    with pytest.raises(ValueError, match="at least one"):
        samples_page([], COLORS, "title")


def test_a_report_is_saved_with_its_pictures(make_model, tmp_path):
    model = make_model(11, label_set="camvid")
    generator = torch.Generator().manual_seed(0)
    samples = [
        (
            torch.randint(0, 256, (3, 33, 49), dtype=torch.uint8, generator=generator),
            torch.randint(0, 11, (33, 49), dtype=torch.uint8, generator=generator),
        )
        for _ in range(4)
    ]
    report = make_report(scores=Scores(torch.ones(11, 11, dtype=torch.int64), CAMVID))
    save_report(report, model, samples, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "report.md",
        "report.json",
        "iou.png",
        "confusion.png",
        "worst.png",
    }
    page = (tmp_path / "new" / "report.md").read_text()
    assert all(f"]({name}.png)" in page for name in ("iou", "confusion", "worst"))
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == report.to_dict()


def test_a_report_of_nothing_is_saved_too(model, tmp_path):
    """As of a test split, whose labels nobody has."""
    nothing = Scores(torch.zeros(3, 3, dtype=torch.int64), COLORS)
    report = make_report(scores=nothing, images=[("a", math.nan)])
    save_report(report, model, [], tmp_path)
    assert not (tmp_path / "worst.png").exists()
    assert json.loads((tmp_path / "report.json").read_text())["mIoU"] is None
