"""Pascal VOC 2012 on disk: the split's images, labels, and what is wrong with a folder."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_layouts import SIZES, VOC_BORDER, write_voc

from ccnet.classes import VOC
from ccnet.datasets import PascalVOC
from ccnet.images import decode_image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    write_voc(root, 3)
    return root


def test_labels_are_the_indices_of_the_palette(root):
    dataset = PascalVOC(str(root), "val")
    assert dataset.names == [f"2007_{number:06d}" for number in range(3)]
    assert dataset.label_set is VOC
    folder = root / "VOCdevkit" / "VOC2012"
    for index, name in enumerate(dataset.names):
        image, mask = dataset[index]
        assert image.shape == (3, *SIZES[index])
        assert torch.equal(image, decode_image(folder / "JPEGImages" / f"{name}.jpg"))
        with Image.open(folder / "SegmentationClass" / f"{name}.png") as file:
            shown = np.array(file.convert("RGB"))
        assert set(mask.unique().tolist()) == {*range(21), 255}
        for label, color in [*enumerate(VOC.colors), (255, VOC_BORDER)]:
            assert np.array_equal(mask == label, (shown == color).all(-1))
        assert torch.equal(dataset.labels(index), mask.as_subclass(torch.Tensor))


def test_missing_parts_are_named(root, tmp_path):
    with pytest.raises(ValueError, match=r"one of \('train', 'trainval', 'val'\), not 'test'"):
        PascalVOC(root, "test")
    with pytest.raises(
        FileNotFoundError, match=r"no .*/Segmentation/train\.txt; unpack VOCtrainval"
    ):
        PascalVOC(root, "train")
    name, _ = write_voc(tmp_path, 2)
    for folder in ("SegmentationClass", "JPEGImages"):
        (next((tmp_path / "VOCdevkit" / "VOC2012" / folder).glob(f"{name}.*"))).unlink()
    with pytest.raises(FileNotFoundError, match=rf"2 files .* are missing: .*{name}\.jpg, .*\.png"):
        PascalVOC(tmp_path, "val")
