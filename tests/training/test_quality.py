"""What a small network learns from nothing in a few minutes, from rendered scenes or from files."""

import pytest
from small_runs import Scenes, assert_same_end, small_model, trainer, write_mask_folder

from ccnet.classes import CAMVID
from ccnet.datasets import MaskFolder, StreetScenes
from ccnet.evaluation import evaluate
from ccnet.training.engine import Trainer
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import build_model, open_datasets
from ccnet.zoo import ccnet_resnet18


@pytest.mark.slow
def test_untrained_network_learns_streets(tmp_path):
    recipe = RECIPES["street-scenes-r18"]
    train_set, val_set, label_set = open_datasets(recipe)
    Trainer(build_model(recipe, label_set), train_set, val_set, recipe, tmp_path).run()
    trained = ccnet_resnet18(weights=tmp_path / "best.safetensors")
    unseen = StreetScenes(40, size=(recipe.crop_height, recipe.crop_width), seed=1_000_000)
    scores = evaluate(trained, unseen)
    assert scores.miou >= 60, scores.iou


def test_scenes_in_a_folder_teach_the_same(finished, tmp_path):
    """To the bit: so what is learned from scenes is learned from one's own files as well."""
    write_mask_folder(tmp_path / "own", Scenes(), CAMVID.categories)
    folder = MaskFolder(tmp_path / "own")
    assert folder.label_set.categories == small_model().label_set.categories
    trainer(tmp_path / "read", train_set=folder).run()
    assert_same_end(tmp_path / "read", finished[0], same_data=False)
