"""Pictures to calibrate on: which are chosen, how a network sees them, errors."""

import numpy as np
import pytest
import torch
from PIL import Image

import ccnet
from ccnet.deployment.exported.int8.calibration import calibration_pictures, seen_pixels


def _save(path, width=8, height=6, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


@pytest.fixture(scope="module")
def network():
    return ccnet.CCNet("resnet18", 3, aux_channels=0)


def test_pictures_are_chosen_evenly(tmp_path):
    names = [f"{folder}/{index}.png" for folder in ("a", "b/c") for index in range(5)]
    paths = [_save(tmp_path / name) for name in names]
    (tmp_path / "a" / "notes.txt").write_text("")
    assert calibration_pictures(tmp_path) == paths
    assert calibration_pictures(tmp_path, 5) == paths[::2]
    assert calibration_pictures(tmp_path, 3) == [paths[0], paths[3], paths[6]]


@pytest.mark.parametrize(
    ("name", "problem"),
    [("", "no images in"), ("absent", "no image at"), ("notes", "no images in")],
)
def test_no_pictures(tmp_path, name, problem):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    with pytest.raises(ValueError, match=problem):
        calibration_pictures(tmp_path / name)


def test_results_are_no_pictures(tmp_path, network):
    result = network.eval().predict(torch.zeros(3, 33, 33, dtype=torch.uint8))
    result.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="but results of this program"):
        calibration_pictures(tmp_path)


@pytest.mark.parametrize(
    ("learnt", "size", "expected"),
    [
        (None, (8, 6), (6, 8)),
        ((48, 64), (128, 96), (48, 64)),
        ((48, 64), (96, 128), (64, 48)),
        (None, (1030, 2000), (1024, 1024)),
    ],
)
def test_pixels_are_what_the_network_sees(tmp_path, network, monkeypatch, learnt, size, expected):
    monkeypatch.setitem(network.config, "training_size", learnt)
    picture = _save(tmp_path / "a.png", *size)
    pixels = seen_pixels(network, picture)
    assert pixels.shape == (1, 3, *expected)
    assert pixels.dtype == torch.uint8
    if learnt is None:
        own = network.preprocessing.decode(picture)[None]
        top, left = (size[1] - expected[0]) // 2, (size[0] - expected[1]) // 2
        assert torch.equal(pixels, own[..., top:, left:][..., : expected[0], : expected[1]])
    else:
        reduced = Image.open(picture).resize(expected[::-1], Image.Resampling.BILINEAR)
        difference = pixels[0].movedim(0, -1).float() - torch.from_numpy(np.array(reduced)).float()
        assert difference.abs().max() <= 1


def test_other_channels(tmp_path):
    network = ccnet.CCNet("resnet18", 2, in_channels=1, aux_channels=0)
    assert seen_pixels(network, _save(tmp_path / "a.png", mode="L")).shape == (1, 1, 6, 8)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_pictures_are_named(tmp_path, network, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png") as caught:
        seen_pixels(network, calibration_pictures(tmp_path)[0])
    assert "\n" not in str(caught.value)
