"""Everything that the fuzz test damages."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from fuzz_files import Subject
from fuzz_mutations import change_json
from fuzz_pictures import pictures
from fuzz_weights import configurations, weights
from PIL import Image

from ccnet.datasets import MaskFolder
from ccnet.datasets.label_maps import LOSSLESS, read_label_map
from ccnet.images import decode_image


def subjects(folder: Path) -> list[Subject]:
    """Makes all subjects; the folder is for what lies beside them, and for temporary files."""
    return [*weights(folder), *configurations(folder), *_masks(folder), *_pictures()]


def _masks(folder: Path) -> Iterator[Subject]:
    values = (np.arange(24 * 32).reshape(24, 32) // 300).astype(np.uint8)

    def read(folder: Path) -> str:
        for name in ("images", "masks"):
            (folder / name).mkdir(exist_ok=True)
            if not (folder / name / "a.png").exists():
                Image.fromarray(values).save(folder / name / "a.png")
        data = MaskFolder(folder)
        image, labels = data[0]
        assert labels.shape == image.shape[-2:]
        return ""

    classes = [
        ["a", "b", "c"],
        {"categories": ["a", "b", "c"], "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]},
        {"categories": ["a", "b"], "label_ids": [1, 2], "ignore": [0, 255]},
        {"colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]], "mask_orientation": "stored"},
    ]
    for content in classes:
        changes = (change_json, change_json)
        yield Subject(
            "classes.json",
            json.dumps(content).encode(),
            "classes.json",
            read,
            changes,
            has_report=True,
        )
    Image.fromarray(values).save(folder / "mask.png")
    content = (folder / "mask.png").read_bytes()
    yield Subject("mask of a folder", content, "masks/a.png", read, has_report=True)
    yield Subject("image of a folder", content, "images/a.png", read, has_report=True)


def _pictures() -> Iterator[Subject]:
    def read(folder: Path) -> str:
        image = decode_image(folder / "a.jpg")
        assert image.dtype == torch.uint8
        assert image.dim() == 3
        assert image.shape[0] == 3
        assert 0 not in image.shape
        return ""

    def read_mask(folder: Path) -> str:
        label_map = read_label_map(folder / "a.png")
        assert label_map.values.dtype == np.uint8
        assert label_map.values.ndim == 2
        return ""

    contents = pictures()
    for name, content in contents.items():
        yield Subject(name, content, "a.jpg", read, siblings=list(contents.values()))
        if name.startswith(LOSSLESS):
            yield Subject(f"mask {name}", content, "a.png", read_mask)
