"""ADE20K on disk: pairs, labels, and what is wrong with a folder."""

import numpy as np
import pytest
import torch
from PIL import Image
from scene_layouts import SIZES, write_ade20k

from ccnet import classes
from ccnet.datasets import ADE20K
from ccnet.images import decode_image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ADEChallengeData2016")
    write_ade20k(root, 3)
    write_ade20k(root, 1, "training")
    return root


def test_labels_count_from_the_first_class(root):
    dataset = ADE20K(str(root), "val")
    assert dataset.names == [f"ADE_val_{number:08d}" for number in (1, 2, 3)]
    assert dataset.label_set is classes.ADE20K
    for index, name in enumerate(dataset.names):
        image, mask = dataset[index]
        assert image.shape == (3, *SIZES[index])
        assert torch.equal(image, decode_image(root / "images" / "validation" / f"{name}.jpg"))
        with Image.open(root / "annotations" / "validation" / f"{name}.png") as file:
            ids = np.array(file).astype(int)
        assert set(ids.ravel()) == set(range(151))
        assert np.array_equal(mask, np.where(ids == 0, 255, ids - 1))
        assert torch.equal(dataset.labels(index), mask.as_subclass(torch.Tensor))
    assert ADE20K(root).names == ["ADE_tra_00000001"]


def test_ids_beyond_the_classes_are_refused(tmp_path):
    (name,) = write_ade20k(tmp_path, 1)
    path = tmp_path / "annotations" / "validation" / f"{name}.png"
    for value, is_known in ((150, True), (151, False), (254, False), (255, True)):
        Image.new("L", SIZES[0][::-1], value).save(path)
        if is_known:
            expected = 149 if value == 150 else 255
            assert ADE20K(tmp_path, "val").labels(0).unique().tolist() == [expected]
        else:
            with pytest.raises(
                ValueError, match=rf"{name}\.png contains unknown labels \[{value}\]"
            ):
                ADE20K(tmp_path, "val").labels(0)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"one of \('train', 'val'\), not 'validation'"):
        ADE20K(tmp_path, "validation")
    with pytest.raises(FileNotFoundError, match=r"no JPG files in .*images/validation; ADE20K"):
        ADE20K(tmp_path, "val")
    first, *_ = write_ade20k(tmp_path, 2)
    (tmp_path / "annotations" / "validation" / f"._{first}.png").touch()
    assert len(ADE20K(tmp_path, "val")) == 2
    (tmp_path / "annotations" / "validation" / f"{first}.png").unlink()
    with pytest.raises(ValueError, match=rf"1 files have no counterpart in .*: {first}\.jpg"):
        ADE20K(tmp_path, "val")
