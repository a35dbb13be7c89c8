"""Street scenes written in the layout of Cityscapes, with its label ids."""

import numpy as np
from PIL import Image

from ccnet.datasets.street_scenes import render_scene

CITIES = {"train": ("aachen", "zurich"), "val": ("frankfurt", "lindau"), "test": ("berlin", "bonn")}

# The label id of Cityscapes for each class of CamVid; a bicyclist there is a rider here.
LABEL_IDS = np.array([23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 25], np.uint8)

UNLABELED = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30]
"""Every label id from 0 on that an evaluation leaves out."""

LICENSE_PLATE = 255
"""The label id -1, as 8 bits store it. The official files do without it, and the official
evaluation refuses it; other tools write it."""


def write_cityscapes(root, count, size=(128, 256), split="val", seed=0, unlabeled=UNLABELED):
    """Writes rendered scenes with all kinds of label files, alternately in two cities.

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
        instances, colors = label_ids.astype(np.uint16) * 1000, np.stack([label_ids] * 3, -1)
        kinds = {"labelIds": label_ids, "instanceIds": instances, "color": colors}
        for kind, values in kinds.items():
            Image.fromarray(values).save(labels / f"{frame}_gtFine_{kind}.png")
        (labels / f"{frame}_gtFine_polygons.json").write_text("{}")
        names.append(f"{frame}_leftImg8bit")
    return sorted(names)


def _paint_over(label_ids, unlabeled, rng):
    """Paints the ego vehicle, the rectification border, and patches of the other ids."""
    height, width = label_ids.shape
    label_ids[-height // 12 :] = 1
    label_ids[:, :2] = 2
    for label_id in unlabeled:
        top, left = rng.integers(0, height - height // 6), rng.integers(2, width - 8)
        label_ids[top : top + 3, left : left + 5] = label_id
    label_ids[0, : len(unlabeled)] = unlabeled
