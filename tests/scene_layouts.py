"""Small data sets in the layouts of ADE20K and Pascal VOC 2012: every label, lying and standing."""

import numpy as np
from PIL import Image

from ccnet.classes import VOC

SIZES = ((30, 40), (44, 31), (32, 32))
VOC_BORDER = (224, 224, 192)
"""The colour of 255 in the label maps of VOC, a border of objects."""


def write_ade20k(root, count, folder="validation", seed=0):
    """Writes images and label maps; returns the names, sorted."""
    names = [f"ADE_{folder[:3]}_{number:08d}" for number in range(1, count + 1)]
    for index, name in enumerate(names):
        image, blocks = _scene(index, seed, 151)
        _save(root / "images" / folder / f"{name}.jpg", Image.fromarray(image))
        _save(root / "annotations" / folder / f"{name}.png", Image.fromarray(blocks))
    return names


def write_voc(root, count, split="val", seed=0):
    """Writes images, label maps with their palette, and the list of a split; returns the names."""
    names = [f"2007_{number:06d}" for number in range(count)]
    devkit = root / "VOCdevkit" / "VOC2012"
    for index, name in enumerate(names):
        image, blocks = _scene(index, seed, 21)
        blocks[::7] = 255
        labels = Image.fromarray(blocks)
        labels.putpalette([*VOC.palette[:-3], *VOC_BORDER])
        _save(devkit / "JPEGImages" / f"{name}.jpg", Image.fromarray(image))
        _save(devkit / "SegmentationClass" / f"{name}.png", labels)
    listed = devkit / "ImageSets" / "Segmentation" / f"{split}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{name}\n" for name in names))
    return names


def _scene(index, seed, labels):
    """Random pixels, and blocks of all labels one after the other."""
    rng = np.random.default_rng((seed, index))
    height, width = SIZES[index % len(SIZES)]
    blocks = rng.permutation(np.arange(height * width) // 6 % labels).reshape(height, width)
    return rng.integers(0, 256, (height, width, 3), np.uint8), blocks.astype(np.uint8)


def _save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
