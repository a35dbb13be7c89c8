"""CamVid and Cityscapes as they lie on disk: pairs, labels, and what is wrong with a folder."""

import numpy as np
import pytest
import torch
import torchvision
from cityscapes_layout import LICENSE_PLATE, UNLABELED, write_cityscapes
from PIL import Image
from torchvision import tv_tensors

from ccnet.classes import CAMVID, CITYSCAPES
from ccnet.datasets import CamVid, Cityscapes
from ccnet.transforms import decode_image


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
        assert dataset.names[index] == name[:-4]
        assert torch.equal(dataset.labels(index), mask.as_subclass(torch.Tensor))
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
    ("labels", "message"),
    [
        (
            np.full((4, 6), 12, np.uint8),
            r"has the labels \[12\], which are none of \[0, 1, .*, 11\]",
        ),
        (np.full((4, 6), 255, np.uint8), r"has the labels \[255\], which are none of"),
        (np.zeros((4, 6, 3), np.uint8), "is of mode RGB; a label map is a grey or palette image"),
        (np.full((4, 6), 5, np.uint16), "is of mode I;16B; a label map is .* of 8 bits"),
    ],
    ids=["label 12", "label 255", "RGB", "16 bits"],
)
def test_label_files_that_are_none(tmp_path, labels, message):
    write_pair(tmp_path, "train", "a.png", labels=labels)
    for read in (CamVid(tmp_path).__getitem__, CamVid(tmp_path).labels):
        with pytest.raises(ValueError, match=rf"trainannot/a\.png {message}"):
            read(0)


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


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    """Three images of each split, with every label id there is and some there are not."""
    root = tmp_path_factory.mktemp("cityscapes")
    names = {
        split: write_cityscapes(root, 3, (64, 128), split, 1, [*UNLABELED, 34, 200, LICENSE_PLATE])
        for split in ("train", "val", "test")
    }
    return root, names


def test_cityscapes_gives_train_ids(cityscapes):
    root, names = cityscapes
    train_ids = {
        kind.id % 256: kind.train_id
        for kind in torchvision.datasets.Cityscapes.classes
        if kind.train_id not in (-1, 255)
    }
    for split in ("train", "val"):
        dataset = Cityscapes(str(root), split)
        assert dataset.names == names[split]
        assert dataset.label_set is CITYSCAPES
        assert len(dataset) == 3
        for index, name in enumerate(names[split]):
            image, mask = dataset[index]
            frame = f"{name.split('_')[0]}/{name.removesuffix('_leftImg8bit')}"
            image_path = root / "leftImg8bit" / split / f"{frame}_leftImg8bit.png"
            with Image.open(root / "gtFine" / split / f"{frame}_gtFine_labelIds.png") as file:
                ids = np.array(file)
            assert {*UNLABELED, 34, 200, 255, 7, 11, 23} <= set(ids.ravel().tolist())
            expected = [[train_ids.get(label_id, 255) for label_id in row] for row in ids.tolist()]
            assert mask.tolist() == expected
            assert torch.equal(dataset.labels(index), mask.as_subclass(torch.Tensor))
            assert torch.equal(image.as_subclass(torch.Tensor), decode_image(image_path))
            assert image.dtype == mask.dtype == torch.uint8
            assert isinstance(image, tv_tensors.Image)
            assert isinstance(mask, tv_tensors.Mask)


def test_the_test_split_has_no_labels(cityscapes, tmp_path):
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


def test_what_cityscapes_lacks_is_named(cityscapes, tmp_path):
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
    with pytest.raises(FileNotFoundError) as error:
        Cityscapes(tmp_path, "val")
    assert "gtFine_trainvaltest.zip" in str(error.value)
    assert "leftImg8bit" not in str(error.value)


def test_broken_cityscapes_folders(tmp_path):
    write_cityscapes(tmp_path, 3, (64, 64))
    (tmp_path / "leftImg8bit" / "val" / "lindau" / "Thumbs.db").touch()
    assert len(Cityscapes(tmp_path, "val")) == 3
    stray = tmp_path / "leftImg8bit" / "val" / ".DS_Store"
    stray.touch()
    with pytest.raises(ValueError, match=r"\.DS_Store is a file where only the folders of cities"):
        Cityscapes(tmp_path, "val")
    stray.unlink()
    (tmp_path / "gtFine" / "val" / "lindau" / "lindau_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 3 images have no label map: .*lindau_000001"
    ):
        Cityscapes(tmp_path, "val")
