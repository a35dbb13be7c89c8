"""CamVid and Cityscapes on disk: pairs, labels, and errors in a folder."""

import numpy as np
import pytest
import torch
import torchvision
from cityscapes_layout import LICENSE_PLATE, UNLABELED, write_cityscapes
from PIL import Image
from torchvision import tv_tensors

from ccnet.classes import CAMVID, CITYSCAPES
from ccnet.datasets import CamVid, Cityscapes
from ccnet.images import decode_image


def check_sample(dataset, index, pixels, labels):
    """That a sample, of the right types, is these pixels (3, H, W) and labels (H, W)."""
    image, mask = dataset[index]
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(mask, tv_tensors.Mask)
    assert image.dtype == mask.dtype == torch.uint8
    assert np.array_equal(image, pixels)
    assert np.array_equal(mask, labels)
    assert torch.equal(dataset.labels(index), mask.as_subclass(torch.Tensor))


def write_pair(root, split, name, labels=None):
    rng = np.random.default_rng(sum(map(ord, name)))
    image = rng.integers(0, 256, (4, 6, 3), np.uint8)
    if labels is None:
        labels = rng.integers(0, 12, (4, 6), np.uint8)
    for folder, array in ((split, image), (f"{split}annot", labels)):
        (root / folder).mkdir(exist_ok=True)
        Image.fromarray(array).save(root / folder / name)
    return image, labels


def test_camvid_pairs_images_and_labels_by_name(tmp_path):
    written = {name: write_pair(tmp_path, "train", name) for name in ("c.png", "a.png", "b.png")}
    write_pair(tmp_path, "val", "d.png")
    dataset = CamVid(str(tmp_path), "train")
    assert dataset.names == ["a", "b", "c"]
    assert len(dataset) == 3
    assert dataset.label_set is CAMVID
    for index, name in enumerate(sorted(written)):
        pixels, labels = written[name]
        assert (labels == 11).any()
        expected = np.where(labels == 11, 255, labels)
        check_sample(dataset, index, pixels.transpose(2, 0, 1), expected)
    assert [path.name for pair in CamVid(tmp_path, "val").pairs for path in pair] == ["d.png"] * 2
    flipped = CamVid(tmp_path, transforms=lambda image, mask: (image.flip(-1), mask.flip(-1)))
    for before, after in zip(dataset[0], flipped[0], strict=True):
        assert torch.equal(after, before.flip(-1))
        assert not torch.equal(after, before)


def test_missing_folders_and_files_of_camvid_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no PNG files in .*train"):
        CamVid(tmp_path, "train")
    write_pair(tmp_path, "train", "a.png")
    with pytest.raises(FileNotFoundError, match=r"no PNG files in .*val"):
        CamVid(tmp_path, "val")
    (tmp_path / "trainannot" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no PNG files in .*trainannot"):
        CamVid(tmp_path, "train")
    for folder in ("train", "trainannot"):
        for name in ("a.png", "b.png"):
            write_pair(tmp_path, "train", name)
        (tmp_path / folder / "b.png").unlink()
        with pytest.raises(ValueError, match=r"1 files have no counterpart in .*: b\.png"):
            CamVid(tmp_path, "train")


ZEROS = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ZEROS + 12,
            r"contains unknown labels \[12\] in .* \(100 %\): the known ones are \[0\.\.11\]",
        ),
        (ZEROS + 255, r"contains unknown labels \[255\] in .* the known ones are"),
        (np.dstack([ZEROS, ZEROS, ZEROS + 1]), "has mode RGB; a mask must be a grey or palette"),
        (ZEROS + np.uint16(300), r"holds numbers in 300\.\.300"),
    ],
    ids=["label 12", "label 255", "RGB", "16 bits"],
)
def test_invalid_label_files_are_refused(tmp_path, labels, message):
    write_pair(tmp_path, "train", "a.png", labels)
    for read in (CamVid(tmp_path).__getitem__, CamVid(tmp_path).labels):
        with pytest.raises(ValueError, match=rf"trainannot/a\.png {message}"):
            read(0)
    write_pair(tmp_path, "train", "a.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png is \(4, 6\), its labels \(5, 6\)"):
        CamVid(tmp_path)[0]


def test_real_camvid(camvid_root):
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


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """Three images of each split, with every label id there is and some there are not."""
    root = tmp_path_factory.mktemp("cityscapes")
    names = {
        split: write_cityscapes(root, 3, (64, 128), split, 1, [*UNLABELED, 34, 200, LICENSE_PLATE])
        for split in ("train", "val", "test")
    }
    return root, names


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_of_cityscapes_are_train_ids(cityscapes, split):
    root, names = cityscapes
    train_ids = {
        kind.id % 256: kind.train_id
        for kind in torchvision.datasets.Cityscapes.classes
        if kind.train_id not in (-1, 255)
    }
    dataset = Cityscapes(str(root), split)
    assert dataset.names == names[split]
    assert dataset.label_set is CITYSCAPES
    assert len(dataset) == 3
    for index, name in enumerate(names[split]):
        frame = f"{name.split('_')[0]}/{name.removesuffix('_leftImg8bit')}"
        pixels = decode_image(root / "leftImg8bit" / split / f"{frame}_leftImg8bit.png")
        with Image.open(root / "gtFine" / split / f"{frame}_gtFine_labelIds.png") as file:
            ids = np.array(file)
        assert {*UNLABELED, 34, 200, 255, 7, 11, 23} <= set(ids.ravel().tolist())
        expected = [[train_ids.get(label_id, 255) for label_id in row] for row in ids.tolist()]
        check_sample(dataset, index, pixels, expected)


def test_test_split_of_cityscapes_has_no_labels(cityscapes, tmp_path):
    root, names = cityscapes
    (tmp_path / "leftImg8bit").symlink_to(root / "leftImg8bit")
    dataset = Cityscapes(tmp_path, "test", lambda image, mask: (image.flip(-1), mask))
    assert dataset.names == names["test"]
    for index in range(3):
        image, mask = dataset[index]
        assert image.shape == (3, 64, 128)
        assert mask.shape == dataset.labels(index).shape == (64, 128)
        assert (mask == 255).all()
        assert (dataset.labels(index) == 255).all()


def test_missing_parts_of_cityscapes_are_named(cityscapes, tmp_path):
    root, _ = cityscapes
    with pytest.raises(ValueError, match=r"one of \('train', 'val', 'test'\), not 'trainval'"):
        Cityscapes(root, "trainval")
    with pytest.raises(FileNotFoundError) as error:
        Cityscapes(tmp_path, "val")
    for part in (
        f"{tmp_path}/leftImg8bit/val/* and in {tmp_path}/gtFine/val/*",
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip",
        "https://www.cityscapes-dataset.com",
        "login",
    ):
        assert part in str(error.value)
    (tmp_path / "leftImg8bit").symlink_to(root / "leftImg8bit")
    with pytest.raises(FileNotFoundError, match=r"gtFine_trainvaltest\.zip") as error:
        Cityscapes(tmp_path, "val")
    assert "leftImg8bit" not in str(error.value)


def test_broken_cityscapes_folders(tmp_path):
    write_cityscapes(tmp_path, 3, (64, 64))
    (tmp_path / "leftImg8bit" / "val" / "lindau" / "Thumbs.db").touch()
    assert len(Cityscapes(tmp_path, "val")) == 3
    stray = tmp_path / "leftImg8bit" / "val" / ".DS_Store"
    stray.touch()
    with pytest.raises(ValueError, match=r"\.DS_Store is a file, but only city folders"):
        Cityscapes(tmp_path, "val")
    stray.unlink()
    (tmp_path / "gtFine" / "val" / "lindau" / "lindau_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images have no label map: .*_000001_"):
        Cityscapes(tmp_path, "val")
