"""CamVid as it lies on disk: pairs, labels, and what is wrong with a folder that is none."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from ccnet.classes import CAMVID
from ccnet.datasets import CamVid


def write_pair(root, split, name, size=(4, 6), labels=None):
    rng = np.random.default_rng(sum(map(ord, name)))
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    if labels is None:
        labels = rng.integers(0, 12, size, np.uint8)
    for folder, array in ((split, image), (f"{split}annot", labels)):
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(array).save(root / folder / name)
    return image, labels


def test_samples_are_pictures_with_their_labels_by_name(tmp_path):
    written = {name: write_pair(tmp_path, "train", name) for name in ("c.png", "a.png", "b.png")}
    write_pair(tmp_path, "val", "d.png")
    dataset = CamVid(str(tmp_path), "train")
    assert len(dataset) == 3
    assert dataset.label_set is CAMVID
    for index, name in enumerate(sorted(written)):
        image, mask = dataset[index]
        pixels, labels = written[name]
        assert isinstance(image, tv_tensors.Image)
        assert isinstance(mask, tv_tensors.Mask)
        assert image.dtype == mask.dtype == torch.uint8
        assert np.array_equal(image.movedim(0, -1).numpy(), pixels)
        assert np.array_equal(mask.numpy(), np.where(labels == 11, 255, labels))
        assert (labels == 11).any()
    assert [path.name for pair in CamVid(tmp_path, "val").pairs for path in pair] == ["d.png"] * 2


def test_transforms_are_given_both(tmp_path):
    write_pair(tmp_path, "train", "a.png")
    plain, flipped = (
        CamVid(tmp_path, transforms=transforms)
        for transforms in (None, lambda image, mask: (image.flip(-1), mask.flip(-1)))
    )
    for before, after in zip(plain[0], flipped[0], strict=True):
        assert torch.equal(after, before.flip(-1))
        assert not torch.equal(after, before)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no PNG files in .*train"):
        CamVid(tmp_path, "train")
    write_pair(tmp_path, "train", "a.png")
    with pytest.raises(FileNotFoundError, match=r"no PNG files in .*val"):
        CamVid(tmp_path, "val")
    (tmp_path / "trainannot" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no PNG files in .*trainannot"):
        CamVid(tmp_path, "train")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_files_without_a_partner_are_named(tmp_path, folder):
    for name in ("a.png", "b.png"):
        write_pair(tmp_path, "train", name)
    (tmp_path / folder / "b.png").unlink()
    with pytest.raises(ValueError, match=r"1 files are in only one of .*: b\.png"):
        CamVid(tmp_path, "train")


@pytest.mark.parametrize(
    "labels",
    [
        np.full((4, 6), 12, np.uint8),
        np.full((4, 6), 255, np.uint8),
        np.zeros((4, 6, 3), np.uint8),
        np.full((4, 6), 5, np.uint16),
    ],
    ids=["label 12", "label 255", "RGB", "16 bits"],
)
def test_label_files_that_are_none(tmp_path, labels):
    write_pair(tmp_path, "train", "a.png", labels=labels)
    with pytest.raises(ValueError, match=r"a\.png is no 8-bit label image with labels 0\.\.11"):
        CamVid(tmp_path)[0]


def test_sizes_that_differ_are_named(tmp_path):
    write_pair(tmp_path, "train", "a.png", labels=np.zeros((5, 6), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png is \(4, 6\), its labels \(5, 6\)"):
        CamVid(tmp_path)[0]


def test_the_real_data(camvid_root):
    assert len(CamVid(camvid_root, "train")) == 367
    val = CamVid(camvid_root, "val")
    assert len(val) == 101
    counts = torch.zeros(256, dtype=torch.int64)
    for index in range(0, 101, 5):
        image, mask = val[index]
        assert image.shape == (3, 360, 480)
        counts += mask.as_subclass(torch.Tensor).flatten().bincount(minlength=256)
    assert counts[11:255].sum() == 0
    shares = counts / counts.sum()
    largest = {CAMVID.categories[label] for label in shares[:11].topk(4).indices.tolist()}
    assert largest <= {"sky", "building", "road", "tree", "pavement"}
    assert {"building", "road"} <= largest
    assert 0.15 < shares[CAMVID.categories.index("road")] < 0.45
    assert (shares[:11] > 0).all()
    assert 0 < shares[255] < 0.1
