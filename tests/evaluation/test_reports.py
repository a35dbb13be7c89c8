"""Reports: text, Markdown, JSON, and charts by their pixels."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.classes import LabelSet
from ccnet.evaluation import Scores, prepare_label_ids
from ccnet.evaluation.charts import Sample, confusion_chart, iou_chart, samples_page, save_chart
from ccnet.evaluation.reports import Report, save_report
from ccnet.inference import InferenceProtocol
from ccnet.visualization import display_colors

COLORS = LabelSet(("red", "green", "blue"), ((250, 10, 10), (10, 250, 10), (10, 10, 250)))
NOTHING = Scores(torch.zeros(3, 3, dtype=torch.int64), COLORS)


def make_report(**changes):
    confusion = torch.tensor([[80, 20, 0], [0, 0, 0], [10, 0, 30]])
    fields = {
        "weights": "mine",
        "dataset": "streets val",
        "protocol": InferenceProtocol(flip=True),
        "scores": Scores(confusion, COLORS),
        "images": [("a", 70.0), ("b", math.nan), ("c", 12.5), ("d", 50.0)],
        "published": (55.0, "somebody"),
        "environment": {"device": "cpu"},
    }
    return Report(**{**fields, **changes})


@pytest.mark.parametrize("shift", [-6.05, 6.05])
def test_published_miou_is_confirmed_within_the_tolerance(shift):
    miou = make_report().scores.miou
    assert miou == pytest.approx((80 / 110 + 0 + 30 / 40) * 100 / 3)
    report = make_report(published=(miou + shift, "somebody"))
    confirmed = [report.is_confirmed(tolerance) for tolerance in (0.1, 6.0, 6.1, 100)]
    assert confirmed == [False, False, True, True]
    for changes in ({"published": None}, {"scores": NOTHING}, {"misfit": "3 in place of 4"}):
        assert not make_report(**changes).is_confirmed(100)
    other = make_report(misfit="3 images in place of 4")
    assert other.summary().endswith("(somebody), not comparable: 3 images in place of 4")
    assert other.to_dict()["published mIoU"] is None
    assert "somebody" not in other.to_markdown()


def test_summary_and_the_images_of_the_lowest_miou():
    lines = make_report().summary().splitlines()
    assert lines[0] == "mine on streets val: whole, flip, average of logits, float32; 4 images"
    assert "| red | 72.7 |" in lines
    assert "| **mean (mIoU)** | **49.24** |" in lines
    assert lines[-3:] == [
        "pixel accuracy 78.57 %",
        "mean accuracy 77.50 %",
        "published mIoU 55.00 % (somebody), difference -5.76",
    ]
    assert "there are no scores" in make_report(scores=NOTHING).summary()
    assert make_report().worst(2) == [2, 3]
    assert make_report().worst(10) == [2, 3, 0]


def test_markdown_and_json_say_the_same():
    report = make_report()
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert saved["confusion"] == [[80, 20, 0], [0, 0, 0], [10, 0, 30]]
    assert saved["images"][:2] == [{"name": "a", "mIoU": 70.0}, {"name": "b", "mIoU": None}]
    assert saved["published mIoU"] == 55.0
    assert InferenceProtocol(**saved["protocol"]) == report.protocol
    assert saved["environment"] == {"device": "cpu"}
    page = report.to_markdown(["iou.png"])
    assert "| mIoU | 49.24 % (somebody: 55.00 %) |" in page
    assert "| protocol | whole, flip, average of logits, float32 |" in page
    assert "| red | 72.73 | 80.00 | 71.43 |" in page
    assert "| green | 0.00 | - | 0.00 |" in page
    assert "](iou.png)" in page
    assert page.index("| c | 12.50 |") < page.index("| d | 50.00 |") < page.index("| a | 70.00 |")
    assert "| b |" not in page


def pixels_of(figure, path):
    save_chart(figure, path)
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB")).reshape(-1, 3)


def test_bars_are_as_long_as_the_iou(tmp_path):
    pixels = pixels_of(iou_chart(make_report().scores, "title"), tmp_path / "iou.png").astype(int)
    red, green, blue = (int((np.abs(pixels - color).max(1) <= 3).sum()) for color in COLORS.colors)
    assert green == 0
    assert red / blue == pytest.approx((80 / 110) / (30 / 40), rel=0.03)
    figure = iou_chart(Scores(torch.diag(torch.tensor([5, 0, 7])), COLORS), "title")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(names) == ["blue", "red"], "a class never occurs"


def test_confusion_chart_shows_shares_of_the_rows(tmp_path):
    axes = confusion_chart(make_report().scores, "title").axes[0]
    (image,) = axes.get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    assert np.allclose(shown[[0, 2]], [[80, 20, 0], [25, 0, 75]])
    assert np.isnan(shown[1]).all()
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "80", (1, 0): "20", (0, 2): "25", (2, 2): "75"}
    assert [label.get_text() for label in axes.get_yticklabels()] == list(COLORS.categories)
    many = confusion_chart(Scores(torch.eye(26, dtype=torch.int64), LabelSet.numbered(26)), "title")
    assert not many.axes[0].texts
    assert len(pixels_of(many, tmp_path / "many.png"))


@pytest.mark.parametrize("count", [3, 50, 51, 150])
def test_charts_of_many_classes_are_of_a_usual_size(count):
    """Bars stand in parts side by side, the largest first; names are as large as fits."""
    hits = torch.arange(count) + 1
    scores = Scores(torch.diag(hits) + torch.diag(count - hits[1:], 1), LabelSet.numbered(count))
    bars = iou_chart(scores, "title")
    parts = [[text.get_text() for text in axes.texts] for axes in bars.axes]
    assert [value for part in parts for value in reversed(part)] == [
        f"{iou:.1f}" for iou in sorted(scores.iou.tolist(), reverse=True)
    ]
    assert max(map(len, parts)) <= 50
    assert max(map(len, parts)) - min(map(len, parts)) <= len(parts)
    confusion = confusion_chart(scores, "title")
    for figure, limit in ((bars, 21), (confusion, 25)):
        assert max(figure.get_size_inches()) <= limit
    size = confusion.axes[0].get_yticklabels()[0].get_size()
    height = 72 * (confusion.get_size_inches()[1] - 3) / count
    assert min(10, 0.5 * height) <= size < 0.7 * height


def test_samples_page_shows_image_prediction_and_labels():
    image = torch.full((3, 40, 60), 100, dtype=torch.uint8)
    red, blue, nothing = (torch.full((40, 60), label, dtype=torch.uint8) for label in (0, 2, 255))
    samples = [Sample("first", image, red, blue), Sample("second", image, blue, nothing)]
    page = samples_page(samples, COLORS, "title")
    shown = [np.asarray(axes.get_images()[0].get_array()) for axes in page.axes]
    colors = display_colors(COLORS)
    mixed = [[round(0.35 * 100 + 0.65 * c) for c in color] for color in colors]
    grey = [100, 100, 100]
    expected = [grey, mixed[0], mixed[2], grey, mixed[2], grey]
    for array, color in zip(shown, expected, strict=True):
        assert np.abs(array.astype(int) - color).max() <= 1
    titles = [axes.get_title(loc="left") for axes in page.axes]
    assert titles == ["first", "prediction", "labels", "second", "prediction", "labels"]
    (legend,) = page.legends
    assert [text.get_text() for text in legend.get_texts()] == ["red", "blue"]
    patches = [
        [round(255 * one) for one in patch.get_facecolor()[:3]] for patch in legend.get_patches()
    ]
    assert patches == [list(colors[0]), list(colors[2])]
    with pytest.raises(ValueError, match="must not be empty"):
        samples_page([], COLORS, "title")


def test_report_is_saved_with_its_charts(tmp_path, pixels):
    labels = torch.randint(0, 3, (33, 49), dtype=torch.uint8)
    report = make_report()
    save_report(report, tmp_path / "new", [Sample("a", pixels, labels, labels)])
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"report.md", "report.json", "iou.png", "confusion.png", "worst.png"}
    page = (tmp_path / "new" / "report.md").read_text()
    assert all(f"]({name}.png)" in page for name in ("iou", "confusion", "worst"))
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == report.to_dict()
    # As of a test split, whose labels are not public:
    save_report(make_report(scores=NOTHING, images=[("a", math.nan)]), tmp_path, [])
    assert not (tmp_path / "worst.png").exists()
    assert "worst.png" not in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["mIoU"] is None


def test_names_of_any_kind_are_reported(tmp_path):
    names = {
        "a|b": r"a\|b",
        "$x^$ costs $2": "$x^$ costs $2",
        "_background_": "_background_",
        "\u9053\u8def \N{MOTORWAY}": "\u9053\u8def \N{MOTORWAY}",
        " spaces  ": " spaces  ",
    }
    label_set = LabelSet.from_config({"categories": list(names)})
    scores = Scores(torch.eye(5, dtype=torch.int64), label_set)
    odd = "bytes \udcff\n"
    report = make_report(scores=scores, dataset=odd, images=[(odd, 50.0)])
    image = torch.zeros(3, 8, 12, dtype=torch.uint8)
    labels = torch.arange(96).remainder(5).byte().reshape(8, 12)
    save_report(report, tmp_path, [Sample(odd, image, labels, labels)])
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    for shown in names.values():
        assert f"| {shown} | 100.00 | 100.00 | 20.00 |" in page
        assert f"| {shown} | 100.0 |" in report.summary()
    assert r"| bytes \udcff\n | 50.00 |" in page
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(saved["IoU"]) == list(names)
    assert saved["images"] == [{"name": odd, "mIoU": 50.0}]
    assert (tmp_path / "worst.png").exists()


def test_report_does_not_depend_on_the_locale(tmp_path, monkeypatch):
    """As on Windows, where files are written in its code page unless an encoding is given."""
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "cp1252")
    monkeypatch.setattr("io.text_encoding", lambda encoding, *_: encoding or "cp1252")
    label_set = LabelSet.from_config({"categories": ["\u9053", "\u8def"]})
    scores = Scores(torch.eye(2, dtype=torch.int64), label_set)
    save_report(make_report(scores=scores), tmp_path, [])
    assert "| \u9053 |" in (tmp_path / "report.md").read_bytes().decode("utf-8")


def test_report_without_worst_images_leaves_no_older_ones(tmp_path):
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    save_report(make_report(), tmp_path, [Sample("a", pixels, pixels[0], pixels[0])])
    assert (tmp_path / "worst.png").exists()
    save_report(make_report(), tmp_path, [])
    assert not (tmp_path / "worst.png").exists()


def test_half_a_report_has_no_page(tmp_path, monkeypatch):
    save_report(make_report(), tmp_path, [])
    monkeypatch.setattr("ccnet.evaluation.reports.save_chart", None)
    with pytest.raises(TypeError):
        save_report(make_report(images=[("new", 1.0)]), tmp_path, [])
    assert not (tmp_path / "report.md").exists()
    assert json.loads((tmp_path / "report.json").read_text())["images"][0]["name"] == "new"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("worst.png", "of a user"),
        ("report.json", "{}"),
        ("report.json", "[" * 100_000),
        ("report.json", '{"weights": "mine"}'),
        ("report.md", "of a user"),
    ],
)
def test_files_of_others_are_not_written_over(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"holds {name}, which is of no report: choose another"):
        save_report(make_report(), tmp_path, [])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, content)]


@pytest.mark.parametrize("names", [("a", "b", "a"), ("a", "../b"), ("a", "/b"), ("x/../../b",)])
def test_each_image_has_a_file_of_label_ids_of_its_own(tmp_path, names):
    with pytest.raises(ValueError, match="label ids cannot be named after the images: '"):
        prepare_label_ids(tmp_path / "ids", names)
    prepare_label_ids(tmp_path / "ids", ("a", "x/a"))
