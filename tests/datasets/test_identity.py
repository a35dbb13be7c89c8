"""What tells the samples of every data set from others, as the fingerprint of a run compares it."""

import dataclasses
import shutil

import pytest
import torch
from cityscapes_layout import write_cityscapes
from small_runs import Scenes, write_mask_folder
from torch.utils.data import ConcatDataset, Dataset, Subset

from ccnet.classes import CAMVID
from ccnet.datasets import CamVid, Cityscapes, LabelMeFacade, MaskFolder, Renumbered, StreetScenes
from ccnet.training.fingerprint import Fingerprint


def fingerprint(run_dir, train_set, val_set=()):
    return Fingerprint(run_dir, {"train": train_set, "val": val_set})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes with CamVid's classes."""
    root = tmp_path_factory.mktemp("own") / "six"
    write_mask_folder(root, Scenes(6), CAMVID.categories)
    return root


def camvid(root):
    (root / "images").rename(root / "train")
    (root / "masks").rename(root / "trainannot")
    return CamVid(root, "train")


def facade(root):
    for kind in ("masks", "pseudo"):
        shutil.copytree(root / "masks", root / "facade" / kind)
    (root / "facade" / "images").mkdir()
    names = [path.stem for path in (root / "masks").iterdir()]
    for name in names:
        (root / "facade" / "images" / f"{name}.jpg").write_bytes(b"a picture")
    rows = [f"{name}\tstreet_{name}\n" for name in names]
    (root / "facade" / "sources.tsv").write_text("".join(rows))
    return LabelMeFacade(root / "facade", pseudo=True)


def other_facade(root):
    shutil.copy(root / "masks" / "scene-000000.png", root / "facade/pseudo/scene-000001.png")
    return LabelMeFacade(root / "facade", pseudo=True)


def cityscapes(root):
    write_cityscapes(root / "cityscapes", 4, size=(64, 128))
    return Cityscapes(root / "cityscapes", "val")


class Wrapped(Dataset):
    """A user's own data set, which knows what it is made of."""

    def __init__(self, dataset, version="1"):
        self.dataset, self.version = dataset, version

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]

    def identify(self, index):
        return {"name": f"own {index}", "version": self.version}


class Unknown(Dataset):
    """A user's own data set without `identify`."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


RENAMED = dataclasses.replace(CAMVID, categories=CAMVID.categories[::-1])

DATASETS = {
    "camvid": (camvid, lambda root: Subset(CamVid(root, "train"), range(4)), "6 images .*, not 4"),
    "labelmefacade": (facade, other_facade, "another pseudo-label of 1: street_scene-000001"),
    "cityscapes": (
        cityscapes,
        lambda root: Cityscapes(root / "cityscapes", "test"),
        "lindau_000001_000019_leftImg8bit",
    ),
    "scenes of another seed": (
        lambda _: StreetScenes(3, seed=1),
        lambda _: StreetScenes(3, seed=2),
        "another scene of 3: scene-000000, scene-000001, scene-000002",
    ),
    "scenes of another size": (
        lambda _: StreetScenes(3),
        lambda _: StreetScenes(3, size=(64, 64)),
        "another scene of 3",
    ),
    "other numbers of classes": (
        lambda root: Renumbered(MaskFolder(root), CAMVID, CAMVID),
        lambda root: Renumbered(MaskFolder(root), RENAMED, CAMVID),
        "another classes of 6",
    ),
    "another selection": (
        lambda root: Subset(MaskFolder(root), [0, 1, 2]),
        lambda root: Subset(MaskFolder(root), [0, 1, 3]),
        "new: scene-000003; gone: scene-000002",
    ),
    "another order": (
        lambda root: Subset(MaskFolder(root), [0, 1, 2]),
        lambda root: Subset(MaskFolder(root), [0, 2, 1]),
        "another order, from scene-000001 on",
    ),
    "a part more": (
        lambda _: ConcatDataset([Scenes(2), Scenes(1)]),
        lambda _: ConcatDataset([Scenes(2), Scenes(1), Scenes(2, seed=9)]),
        r"3 images to train on, not 5 \(new: scene-000000 \(3\), scene-000001 \(2\)\)",
    ),
    "one's own": (
        lambda _: Wrapped(Scenes(2)),
        lambda _: Wrapped(Scenes(2), version="2"),
        "another version of 2: own 0, own 1",
    ),
    "one's own, selected": (
        lambda _: Subset(Wrapped(Scenes(3)), [0, 2]),
        lambda _: Subset(Wrapped(Scenes(3)), [0, 1]),
        "new: own 1; gone: own 2",
    ),
    "one's own, of which only the length is known": (
        lambda _: Unknown(2),
        lambda _: Unknown(3),
        r"2 images to train on, not 3 \(new: Unknown 2\)",
    ),
}
"""A data set, another one, and what a resumed run says."""


@pytest.mark.parametrize(("make", "other", "message"), DATASETS.values(), ids=DATASETS)
def test_every_data_set_is_told_from_others(folder, tmp_path, make, other, message):
    root = shutil.copytree(folder, tmp_path / "own")
    if other is DATASETS["cityscapes"][1]:
        write_cityscapes(root / "cityscapes", 4, size=(64, 128), split="test")
    dataset = make(root)
    before = fingerprint(tmp_path, dataset)
    before.save()
    assert before.summary["train"]["samples"] == len(dataset)
    fingerprint(tmp_path, dataset).check(before.summary, accept=False)
    with pytest.raises(ValueError, match=message):
        fingerprint(tmp_path, other(root)).check(before.summary, accept=False)


def test_what_is_not_known_is_said(tmp_path, caplog):
    caplog.set_level("INFO", "ccnet")
    fingerprint(tmp_path, ConcatDataset([Scenes(2), Subset(Unknown(3), [1])]), Unknown(2))
    (record,) = caplog.records
    assert record.message == (
        "Unknown has no method identify(index): a resumed run sees only whether its type and "
        "length are as before"
    )


def nested(depth):
    return [nested(depth - 1)] if depth else []


CIRCLE = {}
CIRCLE["again"] = CIRCLE

ODD = {
    "tensor": (torch.zeros(1), "Tensor is not JSON serializable"),
    "circle": (CIRCLE, "nested more than 64 deep"),
    "deep": (nested(100), "nested more than 64 deep"),
    "too deep for JSON": (nested(900), "nested more than 64 deep"),
}


@pytest.mark.parametrize(("version", "message"), ODD.values(), ids=ODD)
def test_what_cannot_be_recorded_is_one_line(tmp_path, version, message):
    start = r"^Wrapped: identify\(0\) must return JSON-able values by names"
    with pytest.raises(ValueError, match=start + rf", such as a dict of texts: [^\n]*{message}"):
        fingerprint(tmp_path, Wrapped(Scenes(2), version=version))


@pytest.mark.parametrize("found", [None, ["name"], {"name": ["a"]}, {"name": 1}], ids=str)
def test_what_is_no_dict_with_a_name_is_one_line(tmp_path, monkeypatch, found):
    monkeypatch.setattr(Wrapped, "identify", lambda *_: found)
    with pytest.raises(ValueError, match=r"^Wrapped: identify\(0\) must return JSON-able [^\n]*$"):
        fingerprint(tmp_path, Wrapped(Scenes(2)))
