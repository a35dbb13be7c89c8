"""Hold-out: the images of a run stay to train or to validate on, whatever is added to them."""

import json
import shutil

import pytest
from small_runs import Scenes, write_mask_folder

from ccnet.classes import CAMVID
from ccnet.training.holdout import earlier_sets
from ccnet.training.named_recipes import RECIPES
from ccnet.training.setup import open_datasets

RECIPE = RECIPES["finetune"]
NAMES = [f"scene-00000{index}" for index in range(6)]
BEFORE = {name: "val" if index in {0, 5} else "train" for index, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "folder"
    write_mask_folder(root, Scenes(6), CAMVID.categories)
    return root


def add(root, name):
    for part in ("images", "masks"):
        shutil.copy(root / part / f"{NAMES[1]}.png", root / part / f"{name}.png")


def remove(root, name):
    for part in ("images", "masks"):
        (root / part / f"{name}.png").unlink()


@pytest.mark.parametrize(
    ("added", "removed", "train", "val"),
    [
        ([], [], [1, 2, 3, 4], [0, 5]),
        (["a"], [], [1, 2, 3, 4], ["a", 0, 5]),
        (["a", "b", "z"], [], ["b", 1, 2, 3, 4, "z"], ["a", 0, 5]),
        ([], [0, 1], [2, 3, 4], [5]),
        (["a"], [0, 5], [1, 2, 3, 4], ["a"]),
    ],
)
def test_images_of_a_run_keep_their_set(folder, tmp_path, added, removed, train, val):
    root = shutil.copytree(folder, tmp_path / "folder")
    for name in added:
        add(root, name)
    for index in removed:
        remove(root, NAMES[index])
    parts = open_datasets(RECIPE, root, None, BEFORE)[:2]
    named = [[part.dataset.names[index] for index in part.indices] for part in parts]
    assert named == [
        [NAMES[one] if isinstance(one, int) else one for one in part] for part in (train, val)
    ]


@pytest.mark.parametrize(("kind", "use"), [("train", "validate"), ("val", "train")])
def test_images_must_be_left_to_train_and_to_validate_on(folder, kind, use):
    message = f"^none of the 6 images is one to {use} on, as .* \\(--val-root\\)$"
    with pytest.raises(ValueError, match=message):
        open_datasets(RECIPE, folder, None, dict.fromkeys(NAMES, kind))


LINES = [
    {"set": "train", "name": "a", "image": "1"},
    {"set": "val", "name": "b", "image": "2"},
    {"set": "val", "name": "a", "image": "3"},
    {"set": "train", "name": "b c", "scene": "seed 0"},
    {"set": "train", "name": "b", "image": "4", "part": 1},
    {"set": "train", "name": "c", "image": "5", "part": 0},
]


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("\n".join(map(json.dumps, LINES)), {"a": "train", "b": "val", "c": "train"}),
        (json.dumps(LINES[0]) + "\n{", {}),
        ('{"set": "train"}', {}),
        ("[1]", {}),
        ('{"image": "1", "name": [], "set": "val"}', {}),
        (None, {}),
    ],
    ids=["intact", "cut", "nameless", "list", "other types", "missing"],
)
def test_sets_of_a_run_are_read_where_there_is_one(tmp_path, text, sets):
    if text is not None:
        (tmp_path / "data.jsonl").write_text(text)
    assert earlier_sets(tmp_path) == {}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000002.pt").touch()
    assert earlier_sets(tmp_path) == sets
