"""The data sets of a recipe, and the weights that its network starts from."""

import dataclasses
import shutil

import pytest
import torch
from PIL import Image
from small_runs import Scenes, small_backbones, small_model, write_mask_folder

from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import CamVid, StreetScenes
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import build_model, describe, open_datasets
from ccnet.weights import ModelWeights, write_weights

RECIPE = RECIPES["finetune"]
OTHER_NAMES = tuple(f"my {name}" for name in CAMVID.categories)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes with CamVid's classes."""
    root = tmp_path_factory.mktemp("own") / "camvid"
    write_mask_folder(root, Scenes(6), CAMVID.categories)
    return root


def test_every_fifth_image_or_another_folder_is_held_out(folder):
    train_set, val_set, label_set = open_datasets(RECIPE, folder)
    assert (list(train_set.indices), list(val_set.indices)) == ([1, 2, 3, 4], [0, 5])
    assert label_set.categories == CAMVID.categories
    train_set, val_set, _ = open_datasets(RECIPE, folder, folder)
    assert (len(train_set), len(val_set)) == (6, 6)


def blank(path):
    with Image.open(path) as mask:
        Image.new("L", mask.size, 255).save(path)


def test_images_to_train_and_to_validate_on_need_labels(folder, tmp_path):
    for name, indices in (("validate", [0, 5]), ("train", [1, 2, 3, 4])):
        root = shutil.copytree(folder, tmp_path / name)
        for index in indices:
            blank(sorted((root / "masks").iterdir())[index])
        with pytest.raises(ValueError, match=rf"of the {len(indices)} images to {name} on has a "):
            open_datasets(RECIPE, root)
    for path in (root / "masks").iterdir():
        blank(path)
    with pytest.raises(ValueError, match=r"train has a problem:\n.* no readable mask has a pixel"):
        open_datasets(RECIPE, folder, root)


def test_data_are_described_by_the_shares_of_their_classes(folder):
    train_set, val_set, label_set = open_datasets(RECIPE, folder)
    counts = sum(train_set[index][1].flatten().bincount(minlength=256) for index in range(4))
    counts = counts[:11].double()
    shares = (100 * counts / counts.sum()).tolist()
    shown = [f"{name} {share:.3g} %" for name, share in zip(CAMVID.categories, shares, strict=True)]
    text = f"4 images to train on, 2 to validate on, 11 classes: {', '.join(shown)}"
    assert describe(train_set, val_set, label_set) == text
    text = f"3 images to train on, 1 to validate on, 11 classes: {', '.join(CAMVID.categories)}"
    assert describe(StreetScenes(3), StreetScenes(1), CAMVID) == text
    many = LabelSet(tuple(f"c{number}" for number in range(150)), ((0, 0, 0),) * 150)
    assert describe(StreetScenes(3), StreetScenes(1), many).endswith(", c18, c19 and 130 more")


def test_classes_without_a_pixel_are_few_words(tmp_path):
    for number, name in enumerate(("images", "masks") * 5):
        (tmp_path / name).mkdir(exist_ok=True)
        mask = Image.new("L", (8, 8), 38)
        mask.paste(0, (0, 0, 4, 8))
        mask.save(tmp_path / name / f"{number // 2}.png")
    text = describe(*open_datasets(RECIPE, tmp_path))
    start = "4 images to train on, 1 to validate on, 39 classes: class 0 50 %, class 38 50 %; witho"
    assert text.startswith(start)
    assert text.endswith("class 5, and 32 more")


@pytest.fixture(scope="module")
def camvid(folder, tmp_path_factory):
    """Six scenes of three sequences to train on, and one to validate on, in CamVid's layout."""
    root = tmp_path_factory.mktemp("camvid")
    masks = {"train": folder / "images", "trainannot": folder / "masks"}
    for split, source in masks.items():
        (root / split).mkdir()
        for index, path in enumerate(sorted(source.iterdir())):
            shutil.copy(path, root / split / f"{'ABC'[index // 2]}_{index}.png")
    for split in ("", "annot"):
        (root / f"val{split}").mkdir()
        shutil.copy(root / f"train{split}" / "A_0.png", root / f"val{split}" / "D_0.png")
    return root


@pytest.mark.parametrize(
    ("leave_out", "trained", "validated"),
    [
        ("", range(6), range(1)),
        ("B_", [0, 1, 4, 5], [2, 3]),
        ("A_,C_5", [2, 3, 4], [0, 1, 5]),
    ],
)
@pytest.mark.parametrize("scenes", [0, 2])
def test_named_images_are_left_out_and_validated_on(camvid, leave_out, trained, validated, scenes):
    recipe = dataclasses.replace(RECIPES["camvid-r18"], leave_out=leave_out, scenes=scenes)
    train_set, val_set, label_set = open_datasets(recipe, camvid)
    whole = CamVid(camvid, "train" if leave_out else "val")
    assert label_set.categories == CAMVID.categories
    assert len(train_set) == len(trained) + scenes
    for position, index in enumerate(trained):
        assert torch.equal(train_set[position][0], CamVid(camvid, "train")[index][0])
    assert len(val_set) == len(validated)
    for position, index in enumerate(validated):
        assert torch.equal(val_set[position][0], whole[index][0])


def test_images_of_a_folder_are_left_out(folder):
    recipe = dataclasses.replace(RECIPE, leave_out="3,5")
    train_set, val_set, _ = open_datasets(recipe, folder)
    assert (list(train_set.indices), list(val_set.indices)) == ([0, 1, 2, 4], [3, 5])
    with pytest.raises(ValueError, match="images of '3,5' are the validation set: leave the"):
        open_datasets(recipe, folder, folder)


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        ("0006R0", "no name of the 6 samples contains '0006R0'; they are such as"),
        ("0,1,2,3,4,5", "leaves no image to train on"),
    ],
)
def test_leaving_out_nothing_or_everything_is_refused(folder, leave_out, message):
    with pytest.raises(ValueError, match=message):
        open_datasets(dataclasses.replace(RECIPE, leave_out=leave_out), folder)


def test_rendered_scenes_are_added_to_the_training_set(folder):
    recipe = dataclasses.replace(RECIPE, scenes=3, seed=7)
    train_set, val_set, label_set = open_datasets(recipe, folder)
    assert (len(train_set), len(val_set)) == (4 + 3, 2)
    assert label_set.categories == CAMVID.categories
    scenes = StreetScenes(3, seed=7)
    for index in range(3):
        for found, expected in zip(train_set[4 + index], scenes[index], strict=True):
            assert torch.equal(found, expected)


def test_rendered_scenes_are_not_added_to_other_classes(tmp_path):
    write_mask_folder(tmp_path / "own", Scenes(2), OTHER_NAMES)
    with pytest.raises(ValueError, match=r"scenes is 3, .* scenes must be 0"):
        open_datasets(dataclasses.replace(RECIPE, scenes=3), tmp_path / "own")


def test_missing_folder_is_named():
    message = "^--root is missing: give your folder with images/ and masks/$"
    with pytest.raises(ValueError, match=message):
        open_datasets(RECIPE)


def recipe_from(folder, weights):
    write_weights(folder / "given.safetensors", weights)
    return dataclasses.replace(RECIPE, weights=str(folder / "given.safetensors"))


def label_set_of(categories):
    return dataclasses.replace(CAMVID, categories=categories)


@pytest.mark.parametrize("has_aux_head", [True, False], ids=["aux head", "no aux head"])
@pytest.mark.parametrize("categories", [CAMVID.categories, OTHER_NAMES], ids=["same", "other"])
def test_fine_tuning_keeps_every_tensor_that_fits(make_model, tmp_path, categories, has_aux_head):
    """All but the classifiers of other classes, and an auxiliary head that the weights lack."""
    trained = make_model(11, label_set="camvid", aux_channels=None if has_aux_head else 0)
    trained.card_details = {"license": "X", "weights": "Y", "metrics": {}}
    recipe = recipe_from(tmp_path, trained.to_weights())
    model = build_model(recipe, label_set_of(categories))
    assert model.label_set.categories == categories
    assert model.backbone.layer4[0].conv1.stride == (1, 1)
    assert model.card_details == {"license": "X", "weights": "derived from Y"}
    given, found = trained.state_dict(), model.state_dict()
    assert given.keys() <= found.keys() == make_model(11).state_dict().keys()
    for name, value in found.items():
        is_fresh = "classifier" in name and categories != CAMVID.categories
        if name in given:
            assert torch.equal(value, given[name]) != is_fresh, name
        else:
            assert name.startswith("aux_head"), name
            assert not has_aux_head


@pytest.mark.parametrize("categories", [CAMVID.categories, OTHER_NAMES], ids=["same", "other"])
@pytest.mark.parametrize(
    "name", ["backbone.stages.0.0.weight", "head.cca.gamma", "aux_head.conv.1.running_mean"]
)
def test_fine_tuning_refuses_weights_that_lack_a_tensor(tmp_path, name, categories):
    weights = small_model().to_weights()
    tensors = {key: value for key, value in weights.state_dict.items() if key != name}
    assert len(tensors) == len(weights.state_dict) - 1
    recipe = recipe_from(tmp_path, ModelWeights(tensors, weights.config))
    with small_backbones(), pytest.raises(ValueError, match=f"missing {name}"):
        build_model(recipe, label_set_of(categories))
