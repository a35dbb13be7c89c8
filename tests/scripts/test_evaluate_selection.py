"""`scripts/evaluate.py` on some of the images, and on data sets with fewer classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.datasets import LabelMeFacade
from ccnet.weights import write_weights
from ccnet.zoo import ccnet_resnet18


@pytest.fixture
def main(load_script):
    script = load_script("evaluate")
    return lambda *arguments: script.main(["--device", "cpu", *map(str, arguments)])


def printed_table(capsys):
    """The numbers of the printed table by name."""
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    accuracy = next(line for line in lines if line.startswith("pixel accuracy"))
    return {name: float(value) for name, value in rows[2:-1]}, float(accuracy.split()[2])


def test_classes_are_found_by_name_in_a_network_that_has_more(main, make_model, capsys, tmp_path):
    """Water is class 2 of the network and 0 of the data set; sand is never right."""
    weights = tmp_path / "mine.safetensors"
    model = make_model(3, label_set={"categories": ["grass", "sand", "water"]})
    write_weights(weights, model.to_weights())
    (tmp_path / "classes.json").write_text(json.dumps(["water", "grass"]))
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    predicted = model.predict(image).labels
    assert predicted.unique().tolist() == [0, 1, 2]
    labels = torch.tensor([1, 1, 0])[predicted.long()]
    labels[:4] = 1
    for folder, array in (("images", image), ("masks", labels.to(torch.uint8).numpy())):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    main("folder", "--root", tmp_path, "--weights", weights)
    found, accuracy = printed_table(capsys)
    assert found.keys() == {"water", "grass"}
    for name, own, theirs in (("water", 0, 2), ("grass", 1, 0)):
        both, either = (
            (labels == own) & (predicted == theirs),
            (labels == own) | (predicted == theirs),
        )
        assert found[name] == pytest.approx(100 * both.sum().item() / either.sum().item(), abs=0.06)
    right = torch.where(labels == 0, 2, 0) == predicted
    assert accuracy == pytest.approx(100 * right.double().mean().item(), abs=0.006)
    with pytest.raises(SystemExit, match="--save-label-ids needs weights of the same classes as"):
        main("folder", "--root", tmp_path, "--weights", weights, "--save-label-ids", tmp_path / "x")


@pytest.fixture
def facades(tmp_path):
    """Three photographs, in which the bundled weights are right but for pixels of no class."""
    model = ccnet_resnet18(weights="DEFAULT")
    root = tmp_path / "facades"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(3):
        image = np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8)
        Image.fromarray(image).save(root / "images" / f"{index}.jpg")
        labels = model.predict(root / "images" / f"{index}.jpg").labels.clone()
        labels[torch.isin(labels, torch.tensor([2, 6, 7, 9, 10]))] = 255
        labels[0] = 255 if index else 8
        Image.fromarray(labels.numpy()).save(root / "masks" / f"{index}.png")
    rows = "0\tboston__1\n1\tpalma__1\n2\tpalma__2\n"
    (root / "sources.tsv").write_text(rows)
    return root


def test_images_are_chosen_by_parts_of_their_names(main, facades, capsys):
    main("labelmefacade", "--root", facades)
    assert "CAMVID on LabelMeFacade: whole" in capsys.readouterr().out
    main("labelmefacade", "--root", facades, "--only", "palma")
    found, accuracy = printed_table(capsys)
    assert accuracy == 100
    assert found.keys() == set(LabelMeFacade(facades).label_set.categories)
    main("labelmefacade", "--root", facades, "--only", "__1", "--limit", 1)
    assert printed_table(capsys)[1] < 100
    for options, message in (
        (["--only", "paris"], "no name of the 3 samples contains 'paris'"),
        (["--only", "palma", "--confirm"], "--confirm needs all images: remove --limit and --only"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {message}"):
            main("labelmefacade", "--root", facades, *options)
