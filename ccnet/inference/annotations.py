"""Annotations: label maps as a data set in COCO's format, for tools that edit or count them.

Source: https://cocodataset.org/#format-data (object detection).
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccnet.classes import LabelSet
from ccnet.console import require_extra
from ccnet.files import atomic_write
from ccnet.inference.marked_png import KEYWORD, PROGRAM, Origin, origin_in, texts_of
from ccnet.inference.polygons import regions_of
from ccnet.schema import check, one_of
from ccnet.visualization.labels import to_array
from ccnet.visualization.legend import class_areas

SEGMENTATIONS = ("polygons", "rle")
"""How COCO's format may hold areas."""

_START, _END, _MOST_INFO = b'{"info":', b"]}", 2**16
"""How files begin and end, and how many bytes are read to know what they are of."""

_Labels = NDArray[np.uint8]


def coco_dataset(
    images: Mapping[Any, Any], label_set: LabelSet, segmentation: str = "polygons"
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
        images: by their file names or paths, labels (H, W), uint8, tensors or arrays. Pixels of no
            class have no annotation.
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
    for image_id, (name, given) in enumerate(images.items(), start=1):
        labels = torch.as_tensor(given)
        if labels.ndim != 2:
            raise ValueError(f"labels must be (H, W), not {tuple(labels.shape)}, of {name}")
        height, width = labels.shape
        shares = {
            label_set.categories[label]: share
            for label, _, share in class_areas(labels, len(label_set))
        }
        image = {"id": image_id, "file_name": os.fspath(name), "width": width, "height": height}
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
        "info": {"description": "segmented by ccnet", KEYWORD: PROGRAM},
        "licenses": [],
        "images": described,
        "annotations": annotations,
        "categories": categories,
    }


def save_coco(
    images: Mapping[Any, Any],
    label_set: LabelSet,
    path: str | os.PathLike[str],
    segmentation: str = "polygons",
    *,
    origin: Origin | None = None,
    replace: bool = True,
) -> None:
    """Writes `coco_dataset` as JSON, which says that this program made it.

    Args:
        images: as of `coco_dataset`.
        label_set: as of `coco_dataset`.
        path: of the file.
        segmentation: as of `coco_dataset`.
        origin: which the file tells, in "info"; `read_coco_origin` reads it.
        replace: whether to replace a file at `path`.

    Raises:
        FileExistsError: if there is something at `path`, and it is not to be replaced.
        ValueError: as `coco_dataset`; if the file name does not end in .json.
    """
    if Path(path).suffix.lower() != ".json":
        raise ValueError(f"annotations can only be saved as .json, not as {path}")
    data = coco_dataset(images, label_set, segmentation)
    data["info"] |= texts_of(origin)
    with atomic_write(path, replace=replace) as temporary:
        temporary.write_text(json.dumps(data, separators=(",", ":")), encoding="utf-8")


def read_coco_origin(path: Path) -> Origin | None:
    """Reads what a file of `save_coco` is of; only its beginning and end are read.

    Returns:
        None if there is nothing at the path.

    Raises:
        ValueError: if there is something else, or such a file is not complete.
    """
    if not os.path.lexists(path):
        return None
    info = _info_of(path) if path.is_file() else {}
    return origin_in(info, path)


def _info_of(path: Path) -> dict[str, Any]:
    """The first value of a complete file of `save_coco`; empty for any other file."""
    with path.open("rb") as file:
        start = file.read(_MOST_INFO)
        file.seek(-min(len(_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
        if not start.startswith(_START) or file.read() != _END:
            return {}
    try:
        info, _ = json.JSONDecoder().raw_decode(start[len(_START) :].decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


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
