"""What a small network learns from nothing in a few minutes, from drawings or from files."""

import json

import pytest
from PIL import Image
from small_runs import Scenes, assert_same_end, changed, small_model, trainer

from ccnet.classes import CAMVID
from ccnet.datasets import MaskFolder
from ccnet.evaluation import evaluate
from ccnet.street_scenes import StreetScenes
from ccnet.training.engine import Trainer
from ccnet.training.recipes import RECIPES
from ccnet.training.setup import build_model, open_datasets
from ccnet.zoo import ccnet_resnet18


@pytest.mark.slow
def test_a_network_that_starts_from_nothing_learns_streets(tmp_path):
    recipe = RECIPES["street-scenes-r18"]
    train_set, val_set, label_set = open_datasets(recipe)
    Trainer(build_model(recipe, label_set), train_set, val_set, recipe, tmp_path).run()
    trained = ccnet_resnet18(weights=tmp_path / "best.safetensors")
    unseen = StreetScenes(40, size=(recipe.crop_height, recipe.crop_width), seed=1_000_000)
    scores = evaluate(trained, unseen)
    assert scores.miou >= 60, scores.iou


def test_scenes_in_a_folder_teach_the_same(tmp_path):
    """To the bit: so what is learned from drawings is learned from one's own files as well."""
    scenes = Scenes()
    for folder in ("images", "masks"):
        (tmp_path / "own" / folder).mkdir(parents=True)
    for index, name in enumerate(scenes.names):
        for folder, array in zip(("images", "masks"), scenes[index], strict=True):
            pixels = array.movedim(0, -1) if folder == "images" else array
            Image.fromarray(pixels.numpy()).save(tmp_path / "own" / folder / f"{name}.png")
    (tmp_path / "own" / "classes.json").write_text(json.dumps(list(CAMVID.categories)))
    folder = MaskFolder(tmp_path / "own")
    assert folder.label_set.categories == small_model().label_set.categories
    trainer(tmp_path / "drawn", changed(steps=2)).run()
    trainer(tmp_path / "read", changed(steps=2), train_set=folder).run()
    assert_same_end(tmp_path / "drawn", tmp_path / "read")
