"""Paths with "~": in arguments, environment variables and options, and on command lines."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import changed, trainer

import ccnet
from ccnet.commands import evaluate
from ccnet.datasets import CamVid
from ccnet.files import user_path
from ccnet.images import decode_image
from ccnet.jobs.search import find_jobs
from ccnet.training.class_folder import ClassFolder
from ccnet.training.setup import build_model, open_datasets
from ccnet.weights import CCNet_ResNet18_Weights, read_weights
from ccnet.weights.pickles import read_pickle
from ccnet.zoo import ccnet_resnet18


@pytest.fixture
def home(monkeypatch, tmp_path, weights_file):
    """A home with a picture, CamVid's folders, weights and a checkpoint; the work is elsewhere."""
    (tmp_path / "home" / "photos").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    home = tmp_path / "home"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    Image.new("RGB", (8, 6), (1, 2, 3)).save(home / "photos" / "a.png")
    for split in ("train", "val"):
        for folder, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (home / "camvid" / folder).mkdir(parents=True)
            Image.new(mode, (8, 6)).save(home / "camvid" / folder / "a.png")
    (home / "mine.safetensors").symlink_to(weights_file)
    torch.save({"weight": torch.ones(1)}, home / "mine.pth")
    yield home
    assert list((tmp_path / "elsewhere").iterdir()) == []


PLACES = {
    "a picture": lambda: decode_image("~/photos/a.png"),
    "pictures of the command line": lambda: find_jobs(["~/photos"], Path()),
    "a pattern of the command line": lambda: find_jobs(["~/pho*/*.png"], Path()),
    "a data set": lambda: CamVid("~/camvid", "val"),
    "a data set of a run": lambda: open_datasets(changed(dataset="camvid"), "~/camvid"),
    "weights of a run": lambda: build_model(
        changed(weights="~/mine.safetensors"), CamVid("~/camvid").label_set
    ),
    "weights": lambda: ccnet_resnet18(weights="~/mine.safetensors"),
    "weights by their path": lambda: read_weights(Path("~/mine.safetensors")),
    "weights of a backbone": lambda: ccnet_resnet18(weights_backbone="~/mine.safetensors"),
    "weights of a run's backbone": lambda: build_model(
        changed(weights_backbone="~/mine.safetensors"), CamVid("~/camvid").label_set
    ),
    "a checkpoint": lambda: read_pickle("~/mine.pth"),
    "images of classes": lambda: ClassFolder("~/camvid", "~/cache", 8),
}


@pytest.mark.parametrize("read", PLACES.values(), ids=PLACES)
def test_home_is_found(home, read):
    found = read()
    if isinstance(found, tuple) and isinstance(found[0], list):
        jobs, failures = found
        assert [job.picture.name for job in jobs] == ["a.png"]
        assert failures == []


def test_files_are_written_in_the_home(home, model, pixels):
    result = model.predict(pixels)
    result.save("~/out/labels.png")
    model.save_pretrained("~/saved")
    assert ccnet.CCNet.from_pretrained("~/saved").config == model.config
    trainer(Path("~/run"), changed(steps=1, validate_every=1)).run()
    assert (home / "out" / "labels.png").exists()
    assert (home / "saved" / "model.safetensors").exists()
    assert (home / "run" / "best.safetensors").exists()


def test_folder_of_weights_in_a_variable(home, monkeypatch, weights_file):
    monkeypatch.setattr("ccnet.weights.downloads.BUNDLED_DIRS", ())
    monkeypatch.setattr("ccnet.weights.downloads.verify", lambda *_: None)
    (home / CCNet_ResNet18_Weights.CAMVID.meta["file"]).symlink_to(weights_file)
    monkeypatch.setenv("CCNET_WEIGHTS_DIR", "~")
    assert len(ccnet_resnet18(weights="CAMVID").label_set) == 11


@pytest.mark.parametrize("given", ["option", "variable"])
def test_commands_take_them(home, monkeypatch, given):
    arguments = ["camvid", "--device", "cpu", "--weights", "~/mine.safetensors"]
    if given == "option":
        arguments.append("--root=~/camvid")
    else:
        monkeypatch.setenv("CAMVID_ROOT", "~/camvid")
    evaluate.main([*arguments, "--report=~/report"])
    assert (home / "report" / "report.md").exists()


@pytest.mark.parametrize(
    "name",
    ["predict", "train", "pretrain", "attention", "convert", "publish_zoo"],
)
def test_every_path_option_is_expanded(home, name):
    given = {
        "predict": ["a.png", "--output=~/out"],
        "train": ["camvid-r18", "--run-dir=~/run", "--root=~/camvid", "--val-root=~/val"],
        "pretrain": ["~/images.zip", "--run-dir=~/run"],
        "attention": ["~/a.png", "--output=~/out/a.png"],
        "convert": ["~/a.pth", "--output=~/out"],
        "publish_zoo": ["--owner=us", "--name=a", "--file=~/a.pth", "--output=~/out", "--pins=~/b"],
    }
    parsed = import_module(f"ccnet.commands.{name}").parse_arguments(given[name])
    values = vars(parsed[0] if isinstance(parsed, tuple) else parsed).values()
    paths = [value for value in values if isinstance(value, Path)]
    assert len(paths) == sum("~" in argument for argument in given[name])
    assert all(home in path.parents for path in paths)


@pytest.mark.parametrize("name", ["~no such user.png", "a~b.png", "folder/~", "./~/a", "", "."])
def test_other_names_stay(name):
    assert user_path(name) == Path(name)
