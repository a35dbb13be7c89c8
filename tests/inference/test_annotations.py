"""Annotations: COCO's format, as pycocotools reads it, holds the labels to the pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ccnet.classes import ADE20K, LabelSet
from ccnet.inference import Segmentation
from ccnet.inference.annotations import coco_dataset, read_coco_origin, save_coco
from ccnet.inference.marked_png import Origin
from ccnet.inference.polygons import regions_of

LABEL_SET = LabelSet.numbered(3)


def drawn(*rows):
    """A label map: a digit a pixel, "." for none."""
    return torch.tensor([[255 if one == "." else int(one) for one in row] for row in rows]).byte()


MAPS = {
    "one pixel": drawn("0"),
    "one class": drawn("111", "111"),
    "nothing": drawn("..", ".."),
    "hole": drawn("000", "010", "000"),
    "hole of nothing": drawn("000", "0.0", "000"),
    "two holes in a row": drawn("00000", "01020", "00000"),
    "a hole above another": drawn("0000", "0100", "0010", "0000"),
    "holes that touch": drawn("00000", "01000", "00100", "01000", "00000"),
    "ring in a ring": drawn("000000", "011110", "010010", "010110", "011110", "000000"),
    "hole at the corner": drawn("0100", "0010", "0000"),
    "diagonal pixels": drawn("01", "10"),
    "chessboard": drawn("01010", "10101", "01010"),
    "spiral": drawn("00000", "01110", "01000", "01111", "00000"),
    "column": drawn(*"0120011"),
    "row": drawn("0012210"),
    "wide hole under a step": drawn("001111", "000000", "022220", "020020", "000000"),
}  # fmt: skip


decoding = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
"""pycocotools 2.0.11 warns so when it decodes with NumPy 2."""


def filled(annotations, shape):
    """Draws the annotations as pycocotools does; none may cover another."""
    masks = pytest.importorskip("pycocotools.mask", reason="needs the extra coco")
    height, width = shape
    labels = np.full(shape, 255)
    for one in annotations:
        runs = one["segmentation"]
        if isinstance(runs, list):
            runs = masks.merge(masks.frPyObjects(runs, height, width))
        area = masks.decode(runs) == 1
        assert (labels[area] == 255).all()
        labels[area] = one["category_id"] - 1
        rows, columns = area.nonzero()
        left, top = columns.min(), rows.min()
        box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert (one["area"], one["bbox"]) == (area.sum(), box)
        assert one["share"] == pytest.approx(area.mean())
    return labels


@decoding
@pytest.mark.parametrize("segmentation", ["polygons", "rle"])
@pytest.mark.parametrize("labels", MAPS.values(), ids=MAPS)
def test_annotations_are_the_labels(labels, segmentation):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    found = coco_dataset({"a.png": labels}, LABEL_SET, segmentation)["annotations"]
    assert np.array_equal(filled(found, labels.shape), labels.numpy())


@decoding
def test_random_labels_have_their_polygons():
    rng = np.random.default_rng(0)
    for _ in range(60):
        shape = tuple(rng.integers(1, 13, 2))
        labels = torch.from_numpy(rng.integers(0, 3, shape).astype(np.uint8))
        labels[labels == 2] = 255
        found = coco_dataset({"a": labels}, LABEL_SET)["annotations"]
        assert np.array_equal(filled(found, shape), labels.numpy())


def test_polygon_is_the_outline_with_a_cut_to_the_hole():
    labels = MAPS["hole"].numpy()
    outer, inner = regions_of(labels, 3)
    assert (outer.label, outer.area, outer.box) == (0, 8, (0, 0, 3, 3))
    corners = [
        (0, 0),
        (3, 0),
        (3, 3),
        (0, 3),
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 2),
        (2, 1),
        (1, 1),
        (0, 1),
    ]
    assert list(map(tuple, outer.polygon.tolist())) == corners
    assert inner.polygon.tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]
    assert [one.label for one in regions_of(MAPS["diagonal pixels"].numpy(), 3)] == [0, 1, 1, 0]


@decoding
@pytest.mark.parametrize("segmentation", ["polygons", "rle"])
def test_pycocotools_reads_the_file(tmp_path, capsys, segmentation):
    coco = pytest.importorskip("pycocotools.coco", reason="needs the extra coco")
    street, square = MAPS["hole"], MAPS["two holes in a row"]
    images = {"street.jpg": street, "Plätze/1.png": square}
    save_coco(images, LABEL_SET, tmp_path / "new" / "all.json", segmentation)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["all.json"]
    read = coco.COCO(tmp_path / "new" / "all.json")
    assert [one["file_name"] for one in read.loadImgs([1, 2])] == list(images)
    assert [one["name"] for one in read.loadCats([1, 2, 3])] == list(LABEL_SET.categories)
    for image, labels in zip((1, 2), images.values(), strict=True):
        shown = np.full(labels.shape, 255)
        for one in read.loadAnns(read.getAnnIds(image)):
            assert one["iscrowd"] == (segmentation == "rle")
            shown[read.annToMask(one) == 1] = one["category_id"] - 1
        assert np.array_equal(shown, labels.numpy())
    size = {one["file_name"]: (one["width"], one["height"]) for one in read.loadImgs([1, 2])}
    assert size == {"street.jpg": (3, 3), "Plätze/1.png": (5, 3)}
    shares = read.loadImgs(1)[0]["shares"]
    assert shares == {"class 0": pytest.approx(8 / 9), "class 1": pytest.approx(1 / 9)}


def test_result_as_annotations(tmp_path):
    result = Segmentation(MAPS["hole"], LABEL_SET, torch.zeros(3, 3, 3, dtype=torch.uint8))
    data = result.to_coco("street.jpg")
    assert json.loads(json.dumps(data)) == data
    assert data == coco_dataset({"street.jpg": result.labels}, LABEL_SET)
    assert data["images"][0]["file_name"] == "street.jpg"
    result.save_coco(tmp_path / "street.polygons.json")
    assert json.loads((tmp_path / "street.polygons.json").read_text()) == result.to_coco("street")
    given = {Path("street.jpg"): result.labels.numpy()}
    assert coco_dataset(given, LABEL_SET) == data
    with pytest.raises(ValueError, match=r"labels must be \(H, W\), not \(1, .*of street.jpg"):
        coco_dataset({"street.jpg": result.labels[None]}, LABEL_SET)
    result.save_coco(tmp_path / "a.json", "street.jpg")
    assert json.loads((tmp_path / "a.json").read_text()) == data
    with pytest.raises(ValueError, match=r"only be saved as \.json, not as .*a\.png"):
        result.save_coco(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match="segmentation must be one of 'polygons', 'rle', not 'box'"
    ):
        result.to_coco("a.jpg", "box")


def test_file_says_what_it_is_of(tmp_path):
    path = tmp_path / "a.b.rle.json"
    result = Segmentation(MAPS["hole"], LABEL_SET, torch.zeros(3, 3, 3, dtype=torch.uint8))
    assert read_coco_origin(path) is None
    result.save_coco(path)
    assert read_coco_origin(path) == Origin()
    origin = Origin("1" * 64, "2" * 64, '{"flip": true}')
    with pytest.raises(FileExistsError):
        result.save_coco(path, origin=origin, replace=False)
    result.save_coco(tmp_path / "a.b.polygons.json", origin=origin, replace=False)
    assert read_coco_origin(tmp_path / "a.b.polygons.json") == origin
    data = json.loads((tmp_path / "a.b.polygons.json").read_text())
    assert data["images"][0]["file_name"] == "a.b"


FOREIGN = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "other JSON": lambda content: b'{"info":{"description":"mine"},"images":[]}',
    "no mapping": lambda content: b'{"info":[["ccnet"]]}',
    "nested": lambda content: b'{"info":' + b"[" * 60_000 + b"]}",
    "no JSON": lambda content: b"\x00\xff" + content,
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_no_other_file_passes_for_a_result(tmp_path, change):
    path = tmp_path / "a.json"
    save_coco({"a": MAPS["hole"]}, LABEL_SET, path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.json is not replaced, since it is no result"):
        read_coco_origin(path)


def test_many_classes_and_large_labels():
    labels = torch.arange(150, dtype=torch.uint8).reshape(10, 15).repeat_interleave(40, 1)
    found = coco_dataset({"a": labels}, ADE20K)
    assert [one["category_id"] for one in found["annotations"]] == list(range(1, 151))
    assert len(found["categories"]) == 150


def test_run_lengths_are_made_without_a_warning():
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    (one, other) = coco_dataset({"a": MAPS["hole"]}, LABEL_SET, "rle")["annotations"]
    assert one["segmentation"]["size"] == [3, 3]
    assert isinstance(one["segmentation"]["counts"], str)
    assert (one["area"], other["area"], other["bbox"]) == (8, 1, [1, 1, 1, 1])


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("ccnet.console.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pycocotools must be installed.*\[coco\]"):
        coco_dataset({"a": MAPS["hole"]}, LABEL_SET, "rle")
    assert coco_dataset({"a": MAPS["hole"]}, LABEL_SET)["annotations"]
