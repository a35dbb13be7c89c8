"""Files that are written again while the explorer runs are read again."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.explorer.networks import Networks
from ccnet.explorer.pictures import Pictures


def as_file(path, model):
    torch.save({"a": model.state_dict(), "b": model.state_dict()}, path)
    return f"{path}#a"


def as_folder(path, model):
    model.save_pretrained(path)
    if not (path / "dangling").is_symlink():
        (path / "dangling").symlink_to("nowhere")
    return str(path)


@pytest.mark.parametrize("write", [as_file, as_folder])
def test_weights(make_model, tmp_path, write):
    networks = Networks()
    path = tmp_path / ("weights.pth" if write is as_file else "weights")
    for seed in (1, 2):
        model = make_model(3, seed=seed)
        network = networks.get(write(path, model))
        assert torch.equal(network.head.classifier.weight, model.head.classifier.weight)


def test_picture_of_the_same_length_and_time(tmp_path):
    path, other = tmp_path / "picture.bmp", tmp_path / "other.bmp"
    for file, value in ((path, 10), (other, 200)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)
        os.utime(file, (1.6e9, 1.6e9))
    pictures = Pictures([path])
    key = next(key for key in pictures.names if key.startswith("file-"))
    assert pictures.get(key).unique().tolist() == [10]
    other.replace(path)
    assert pictures.get(key).unique().tolist() == [200]
