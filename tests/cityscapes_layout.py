"""Street scenes written as Cityscapes lays its files out, with its label ids."""

import json

import numpy as np
from PIL import Image
from scipy import ndimage
from torchvision.datasets import Cityscapes

from ccnet.street_scenes import render_scene

CITIES = {"train": ("aachen", "zurich"), "val": ("frankfurt", "lindau"), "test": ("berlin", "bonn")}

# The label id of Cityscapes for each class of CamVid; what is a bicyclist there is a rider here.
LABEL_IDS = np.array([23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 25], np.uint8)

UNLABELED = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30]
"""Every label id from 0 on that an evaluation leaves out."""

LICENSE_PLATE = 255
"""The label id -1, as 8 bits store it. The official files do without it, and the official
evaluation refuses it; other tools write it."""


def write_cityscapes(root, count, size=(128, 256), split="val", seed=0, unlabeled=UNLABELED):
    """Writes rendered scenes with all kinds of label files, in two cities by turns.

    Every label map holds each id of `unlabeled`, and the classes that the scene shows.

    Args:
        root: gets the folders `leftImg8bit` and `gtFine`.
        count: of scenes.
        size: height and width in pixels, at least 64.
        split: "train", "val" or "test".
        seed: which scenes.
        unlabeled: label ids to paint over the scene here and there.

    Returns:
        The names of the samples, as in "lindau_000000_000019_leftImg8bit", sorted.
    """
    names = []
    for index in range(count):
        picture, classes = render_scene((seed, index), size)
        label_ids = LABEL_IDS[np.asarray(classes)]
        _paint_over(label_ids, unlabeled, np.random.default_rng((seed, index)))
        city = CITIES[split][index % 2]
        frame = f"{city}_{index:06d}_000019"
        images, labels = (root / folder / split / city for folder in ("leftImg8bit", "gtFine"))
        for folder in (images, labels):
            folder.mkdir(parents=True, exist_ok=True)
        picture.save(images / f"{frame}_leftImg8bit.png", compress_level=1)
        Image.fromarray(label_ids).save(labels / f"{frame}_gtFine_labelIds.png")
        Image.fromarray(_instances(label_ids)).save(labels / f"{frame}_gtFine_instanceIds.png")
        Image.fromarray(_colors()[label_ids]).save(labels / f"{frame}_gtFine_color.png")
        polygons = {"imgHeight": size[0], "imgWidth": size[1], "objects": []}
        (labels / f"{frame}_gtFine_polygons.json").write_text(json.dumps(polygons))
        names.append(f"{frame}_leftImg8bit")
    return sorted(names)


def _paint_over(label_ids, unlabeled, rng):
    """The car that the camera rides in, the border left by rectification, patches of the rest."""
    height, width = label_ids.shape
    label_ids[-height // 12 :] = 1
    label_ids[:, :2] = 2
    for label_id in unlabeled:
        top, left = rng.integers(0, height - height // 6), rng.integers(2, width - 8)
        label_ids[top : top + 3, left : left + 5] = label_id
    label_ids[0, : len(unlabeled)] = unlabeled


def _instances(label_ids):
    """The label id, or for things that can be counted 1000 times that plus a number."""
    instances = label_ids.astype(np.uint16)
    instances[label_ids == LICENSE_PLATE] = 0
    for kind in Cityscapes.classes:
        if kind.has_instances:
            numbers, count = ndimage.label(label_ids == kind.id)
            assert count < 1000
            instances[numbers > 0] = 1000 * kind.id + numbers[numbers > 0] - 1
    return instances


def _colors():
    colors = np.zeros((256, 3), np.uint8)
    for kind in Cityscapes.classes:
        colors[kind.id] = kind.color
    return colors
