"""Annotations: label maps as a data set in COCO's format, for tools that edit or count them.

Source: https://cocodataset.org/#format-data (object detection).
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccnet.classes import LabelSet
from ccnet.console import require_extra
from ccnet.files import atomic_write
from ccnet.inference.polygons import regions_of
from ccnet.schema import check, one_of
from ccnet.visualization.labels import to_array
from ccnet.visualization.legend import class_areas

SEGMENTATIONS = ("polygons", "rle")
"""How COCO's format may hold areas."""

_Labels = NDArray[np.uint8]


def coco_dataset(
    images: Mapping[str, Tensor], label_set: LabelSet, segmentation: str = "polygons"
) -> dict[str, Any]:
    """Returns label maps as a data set in COCO's format, JSON-able.

    Polygons hold the labels exactly: filled, each gives its pixels and no other. There is an
    annotation for every region, the pixels of a class that hang together by their edges; its one
    polygon runs along the edges of pixels, and is joined to its holes by cuts of no width.

    Run lengths ("rle", compressed as by `pycocotools`) hold them exactly too. There is one
    annotation for every class in an image, which is `iscrowd`, as the format says of any number of
    objects.

    Beside what the format asks for, categories have "color", annotations "share" (0..1, of their
    image), and images "shares": by name, the largest first, that of each class in it.

    Args:
        images: by their file names, labels (H, W), uint8. Pixels of no class have no annotation.
        label_set: the classes; the id of a category is its label plus 1, since 0 means none in many
            tools.
        segmentation: one of `SEGMENTATIONS`; "rle" needs the extra `coco`.

    Raises:
        ValueError: if there is no such segmentation, or `pycocotools` is missing.
    """
    check({"segmentation": segmentation}, {"segmentation": one_of(*SEGMENTATIONS)})
    if segmentation == "rle":
        require_extra("coco", ["pycocotools"])
    find = _polygons if segmentation == "polygons" else _run_lengths
    described: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, labels) in enumerate(images.items(), start=1):
        height, width = labels.shape
        shares = {
            label_set.categories[label]: share
            for label, _, share in class_areas(labels, len(label_set))
        }
        image = {"id": image_id, "file_name": name, "width": width, "height": height}
        described.append(image | {"shares": shares})
        for label, found in find(to_array(labels), len(label_set)):
            ids = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": label + 1,
            }
            annotations.append(ids | found | {"share": found["area"] / labels.numel()})
    categories = [
        {"id": label + 1, "name": name, "supercategory": "", "color": list(color)}
        for label, (name, color) in enumerate(
            zip(label_set.categories, label_set.colors, strict=True)
        )
    ]
    return {
        "info": {"description": "segmented by ccnet"},
        "licenses": [],
        "images": described,
        "annotations": annotations,
        "categories": categories,
    }


def save_coco(
    images: Mapping[str, Tensor],
    label_set: LabelSet,
    path: str | os.PathLike[str],
    segmentation: str = "polygons",
) -> None:
    """Writes `coco_dataset` as JSON.

    Raises:
        ValueError: as `coco_dataset`; if the file name does not end in .json.
    """
    if Path(path).suffix.lower() != ".json":
        raise ValueError(f"annotations can only be saved as .json, not as {path}")
    text = json.dumps(coco_dataset(images, label_set, segmentation), separators=(",", ":"))
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _polygons(labels: _Labels, classes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for region in regions_of(labels, classes):
        yield (
            region.label,
            {
                "segmentation": [region.polygon.ravel().tolist()],
                "area": region.area,
                "bbox": list(region.box),
                "iscrowd": 0,
            },
        )


def _run_lengths(labels: _Labels, classes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    from pycocotools import mask as masks

    for label in np.unique(labels[labels < classes]).tolist():
        runs = masks.encode(np.asfortranarray(labels == label, dtype=np.uint8))
        yield (
            label,
            {
                "segmentation": {"size": list(labels.shape), "counts": runs["counts"].decode()},
                "area": int(masks.area(runs)),
                "bbox": [int(side) for side in masks.toBbox(runs)],
                "iscrowd": 1,
            },
        )
