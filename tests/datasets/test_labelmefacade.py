"""LabelMeFacade: six classes as drawn, or eleven with pseudo-labels; left out by place."""

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.classes import CAMVID, LabelSet
from ccnet.datasets import LabelMeFacade, Renumbered, select

SOURCES = {"0000": "street_boston__1", "0001": "street_palma__2", "0002": "street_palma__3"}
MASK = [[0, 1, 3, 4], [5, 8, 255, 1]]
PSEUDO = [[0, 9, 2, 3], [255, 6, 7, 10]]


@pytest.fixture
def root(tmp_path):
    for folder in ("images", "masks", "pseudo"):
        (tmp_path / folder).mkdir()
    for name in SOURCES:
        Image.new("RGB", (4, 2), (int(name), 0, 0)).save(tmp_path / "images" / f"{name}.jpg")
        for folder, labels in (("masks", MASK), ("pseudo", PSEUDO)):
            Image.fromarray(np.array(labels, np.uint8)).save(tmp_path / folder / f"{name}.png")
    rows = [f"{name}\t{source}\n" for name, source in SOURCES.items()]
    (tmp_path / "sources.tsv").write_text("".join(rows))
    return tmp_path


def test_masks_have_six_classes_and_the_names_tell_the_place(root):
    data = LabelMeFacade(root)
    assert data.names == list(SOURCES.values())
    assert data.label_set.categories == ("sky", "building", "road", "pavement", "tree", "car")
    assert data.label_set.label_ids == (0, 1, 3, 4, 5, 8)
    assert data.label_set.colors[5] == CAMVID.colors[8]
    image, labels = data[2]
    assert image.shape == (3, 2, 4)
    assert labels.tolist() == [[0, 1, 2, 3], [4, 5, 255, 1]]


def test_pseudo_labels_add_the_five_classes_alone(root):
    data = LabelMeFacade(root, pseudo=True)
    assert data.label_set == CAMVID
    assert data[1][1].tolist() == [[0, 9, 2, 4], [5, 6, 7, 10]]
    assert data[1][1].dtype == torch.uint8


def test_incomplete_folders_are_refused(root):
    (root / "images" / "0001.jpg").unlink()
    with pytest.raises(ValueError, match=r"sources\.tsv must have .* each of the 2 images"):
        LabelMeFacade(root)
    (root / "sources.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*sources\.tsv"):
        LabelMeFacade(root)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [("palma", [1, 2]), ("boston", [0]), ("__3, boston", [0, 2]), ("street", [0, 1, 2])],
)
def test_samples_are_selected_by_parts_of_their_names(parts, expected):
    assert select(list(SOURCES.values()), parts) == expected


@pytest.mark.parametrize("parts", ["paris", "palma,paris", "palma,", ""])
def test_parts_of_no_name_are_refused(parts):
    with pytest.raises(ValueError, match=r"no name of the 3 samples contains '(paris)?'"):
        select(list(SOURCES.values()), parts)


def test_classes_are_found_by_name(root):
    drawn = LabelMeFacade(root)
    data = Renumbered(drawn, drawn.label_set, CAMVID)
    assert (len(data), data.classes, data.label_set) == (3, [0, 1, 3, 4, 5, 8], CAMVID)
    image, labels = data[0]
    assert torch.equal(image, drawn[0][0])
    assert labels.tolist() == MASK
    few = LabelSet.from_config({"categories": ("pavement", "road", "building", "sky")})
    with pytest.raises(ValueError, match="of which tree, car are not among the 4 of the network"):
        Renumbered(drawn, drawn.label_set, few)
