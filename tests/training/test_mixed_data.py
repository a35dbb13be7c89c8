"""The data sets of a recipe's mix: opened, left out, described, and trained on by a command."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from documents import snippets
from PIL import Image
from small_runs import Scenes, write_mask_folder
from torch.utils.data import Subset

from ccnet.classes import CAMVID
from ccnet.commands import train
from ccnet.datasets import LabelMeFacade, MaskFolder, Mixture, StreetScenes
from ccnet.training.fingerprint import Fingerprint
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import describe, open_datasets

FINETUNE, CAMVID_R18 = RECIPES["finetune"], RECIPES["camvid-r18"]

OTHER = {"recipe": FINETUNE, "root": "other"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """CamVid of two streets, LabelMeFacade of two cities, and two folders, all with 6 scenes."""
    root = tmp_path_factory.mktemp("roots")
    for seed, name in enumerate(("one", "two", "camvid", "facade"), 3):
        write_mask_folder(root / name, Scenes(6, seed=seed), CAMVID.categories)
    camvid, facade = root / "camvid", root / "facade"
    for kind, split in (("images", "train"), ("masks", "trainannot")):
        (camvid / kind).rename(camvid / split)
        for index, path in enumerate(sorted((camvid / split).iterdir())):
            path.rename(path.with_name(f"{'AB'[index % 2]}_{index}.png"))
        shutil.copytree(camvid / split, camvid / split.replace("train", "val"))
    shutil.copytree(facade / "masks", facade / "pseudo")
    rows = []
    for index, path in enumerate(sorted((facade / "images").iterdir())):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
        rows.append(f"{path.stem}\tstreet_{('palma', 'boston')[index % 2]}__{index}\n")
    (facade / "sources.tsv").write_text("".join(rows))
    for path in (facade / "masks").iterdir():
        with Image.open(path) as mask:
            mask.point([one if one in (0, 1, 3, 4, 5, 8) else 1 for one in range(256)]).save(path)
    return {path.name: path for path in root.iterdir()}


def mixed(roots, mix, names=(), *, recipe=CAMVID_R18, root="camvid", **fields):
    recipe = dataclasses.replace(recipe, mix=mix, **{"scenes": 0, **fields})
    return open_datasets(recipe, roots[root], mix_roots=[roots[name] for name in names])


def test_data_sets_are_joined_behind_the_first(roots):
    mix = "labelmefacade=0.5,street-scenes=0.1,folder=0.2"
    train_set, val_set, label_set = mixed(roots, mix, ["facade", "two"], scenes=9)
    assert isinstance(train_set, Mixture)
    assert [str(share) for share in train_set.shares] == ["1/5", "1/2", "1/10", "1/5"]
    assert train_set.sizes == [6, 6, 9, 6]
    assert (len(val_set), label_set) == (6, CAMVID)
    drawn, whole = train_set[7][1], LabelMeFacade(roots["facade"], pseudo=True)[1][1]
    assert torch.equal(drawn, whole)
    assert set(drawn.unique().tolist()) - {0, 1, 3, 4, 5, 8}, "of the pseudo-labels"
    assert torch.equal(train_set[-1][0], MaskFolder(roots["two"])[5][0])
    assert describe(train_set, val_set, label_set).startswith(
        "27 images to train on (of the crops 20 % from CamVid, 6 images; 50 % from LabelMeFacade, "
        "6 images; 10 % from StreetScenes, 9 images; 20 % from MaskFolder, 6 images), 6 to vali"
    )


def test_rendered_scenes_without_a_share_belong_to_the_first(roots):
    train_set, val_set, label_set = mixed(roots, "labelmefacade=0.5", ["facade"], scenes=3)
    assert train_set.sizes == [9, 6]
    assert "50 % from CamVid and StreetScenes, 9 images" in describe(train_set, val_set, label_set)
    assert mixed(roots, "street-scenes=0.5")[0].sizes == [6, 800]


@pytest.mark.parametrize(
    ("leave_out", "trained", "validated"),
    [
        ("", [6, 6], 6),
        ("A_", [3, 6], 3),
        ("palma", [6, 3], 6),
        ("A_,palma", [3, 3], 3),
        ("_1,_3", [4, 4], 2),
    ],
)
def test_images_are_left_out_of_all_and_validated_on_those_of_the_first(
    roots, leave_out, trained, validated
):
    train_set, val_set, _ = mixed(roots, "labelmefacade=0.5", ["facade"], leave_out=leave_out)
    assert train_set.sizes == trained
    assert len(val_set) == validated
    names = [train_set.datasets[0], train_set.datasets[1]]
    found = {part.dataset.names[index] for part in names if hasattr(part, "indices")
             for index in part.indices}  # fmt: skip
    assert not [name for name in found for part in leave_out.split(",") if part in name]


def test_folder_holds_out_every_fifth_of_the_first(roots):
    recipe = {"recipe": FINETUNE, "root": "one"}
    train_set, val_set, label_set = mixed(roots, "folder=0.5", ["two"], **recipe)
    assert (train_set.sizes, list(val_set.indices)) == ([4, 6], [0, 5])
    text = describe(train_set, val_set, label_set)
    assert "50 % from MaskFolder, 6 images), 2 to validate on, 11 classes: sky " in text
    pixels = [sum(part[index][1].eq(0).sum() for index in range(len(part))) for part in
              train_set.datasets]  # fmt: skip
    sky = 50 * sum(count / size / 64 / 96 for count, size in zip(pixels, (4, 6), strict=True))
    assert f" classes: sky {float(sky):.3g} %" in text


def test_classes_are_found_by_name(roots, tmp_path):
    names = (*CAMVID.categories[::-1], "river")
    write_mask_folder(tmp_path / "more", Scenes(6), names)
    recipe = dataclasses.replace(FINETUNE, mix="labelmefacade=0.5,street-scenes=0.1")
    train_set, _, _ = open_datasets(recipe, tmp_path / "more", mix_roots=[roots["facade"]])
    own = LabelMeFacade(roots["facade"], pseudo=True)[0][1]
    assert torch.equal(train_set[4][1], 10 - own)
    assert torch.equal(train_set[10][1], 10 - StreetScenes(1)[0][1])


@pytest.mark.parametrize(
    ("mix", "names", "fields", "message"),
    [
        ("labelmefacade=0.5", [], {}, r"needs 1 --mix-root \(labelmefacade\), not 0"),
        ("street-scenes=0.5", ["one"], {}, r"needs 0 --mix-root \(none\), not 1: "),
        ("", ["one"], {}, r"mix '' needs 0 --mix-root"),
        ("labelmefacade=0.5", ["one"], {}, r"no .*sources\.tsv: LabelMeFacade needs"),
        ("labelmefacade=0.5", ["facade"], {"leave_out": "paris"}, "of the 12 samples contains 'pa"),
        ("street-scenes=0.5", [], {"leave_out": "scene-0"}, "of the 6 samples contains 'scene-0'"),
        ("labelmefacade=0.5", ["facade"], {"leave_out": "street"}, "leaves no image to train on"),
        ("camvid=0.5", ["camvid"], OTHER, "of which sky, .* not am"),
        ("street-scenes=0.5", [], OTHER, "of which sky, .* not am"),
        ("folder=0.5", ["other"], {}, "other has a problem"),
    ],
)
def test_what_cannot_be_mixed_is_refused(roots, tmp_path, mix, names, fields, message):
    write_mask_folder(tmp_path / "other", Scenes(2), [f"my {name}" for name in CAMVID.categories])
    every = {**roots, "other": tmp_path / "other"}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mixed(every, mix, names, **fields)


def test_missing_folder_of_a_mix_is_named(roots):
    with pytest.raises(FileNotFoundError, match="no folder nowhere: --mix-root is that of 'labelm"):
        mixed({**roots, "no": "nowhere"}, "labelmefacade=0.5", ["no"])


def test_command_trains_on_a_mix_and_resumes(roots, weights_file, tmp_path, capsys):
    """Images of the two folders have the same names: those of the mix stay where they are."""
    arguments = ["finetune", "--root", roots["one"], "--run-dir", tmp_path / "run"]
    arguments += ["--mix", "folder=0.5", "--mix-root", roots["two"], "--weights", weights_file]
    arguments += ["--steps", 2, "--batch-size", 2, "--crop-height", 33, "--crop-width", 49]
    arguments += ["--output-stride", 32, "--precision", "float32", "--device", "cpu"]
    arguments += ["--workers", 0, "--no-balance-classes", "--tracker", "none"]
    for more in ([], ["--resume", "auto"]):
        train.main([str(one) for one in [*arguments, *more]])
    assert "best weights" in capsys.readouterr().out
    lines = (tmp_path / "run" / "data.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert [one.get("part") for one in samples] == [*[0] * 4, *[1] * 6, None, None]
    assert {one["share"] for one in samples[:10]} == {"1/2"}
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["mix"] == "folder=0.5"
    more = ["--resume", "auto", "--mix", "folder=0.25"]
    with pytest.raises(SystemExit, match=r"error: the run in .* has mix 'folder=0.5', not 'folder"):
        train.main([str(one) for one in [*arguments, *more]])


def test_data_made_small_are_the_same(roots, repository, tmp_path, monkeypatch):
    """The snippet of the documents, on whose folders the command below it trains."""
    monkeypatch.chdir(tmp_path)
    Path("CamVid").symlink_to(roots["camvid"])
    Path("LabelMeFacade").symlink_to(roots["facade"])
    code = next(one for one in snippets(repository / "docs" / "training.md") if "webp" in one)
    exec(compile(code, "snippet", "exec"), {})
    recipe = dataclasses.replace(CAMVID_R18, dataset="folder", mix="labelmefacade=0.5", scenes=2)
    small = open_datasets(recipe, "small/train", "small/val", None, ["small/labelmefacade"])
    whole = mixed(roots, "labelmefacade=0.5", ["facade"], scenes=2)
    assert small[2].categories == whole[2].categories
    assert small[0].sizes == whole[0].sizes == [8, 6]
    for one, other in ((small[0], whole[0]), (small[1], whole[1])):
        for index in range(len(other)):
            assert torch.equal(one[index][1], other[index][1])
            assert (one[index][0].float() - other[index][0].float()).abs().mean() < 8


def test_images_to_validate_on_that_a_mix_trains_on_are_named(roots, tmp_path, caplog):
    """The mix is the folder itself, or has the scenes to validate on."""
    train_set, val_set, _ = mixed(roots, "folder=0.5", ["one"], recipe=FINETUNE, root="one")
    Fingerprint(tmp_path, {"train": train_set, "val": val_set})
    said = "2 of the 2 images to validate on (scene-000000, scene-000005) are trained on: "
    (record,) = caplog.records
    assert record.message.startswith(said)
    sets = {"train": Mixture([Scenes(3)], [1]), "val": Subset(Scenes(5), [4, 1])}
    Fingerprint(tmp_path, sets)
    assert "1 of the 2 images to validate on (scene-000001) are" in caplog.records[1].message
    Fingerprint(tmp_path, {**sets, "val": Scenes(5, seed=4)})
    assert len(caplog.records) == 2
