"""`scripts/predict.py` on a folder as people have it: many formats, and other files."""

import os
import re
import sys

import numpy as np
import pytest
from icc_profiles import rgb_profile, shown_in_srgb
from PIL import Image
from png_files import GREY, png_file
from tiff_files import RGB, tiff_file

from ccnet.images import decode_image
from ccnet.weights import write_weights


def smooth(size=(48, 64)):
    """A picture that lossy formats keep closely."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    return (np.stack([x, y, 1 - x], -1) * 180 + 40).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path):
    """A folder with a photograph of every kind, and what is to be seen of each."""
    folder, picture = tmp_path / "holiday", smooth()
    folder.mkdir()
    Image.fromarray(picture).save(
        folder / "phone.jpg", quality=98, subsampling=0, icc_profile=rgb_profile("Display P3")
    )
    samples = picture.astype(int) * 257
    (folder / "scan.tif").write_bytes(tiff_file(samples, 16, photometric=RGB, planar=True))
    seen = {"phone": shown_in_srgb(picture, "Display P3"), "scan": picture}
    if ".avif" in Image.registered_extensions():
        Image.fromarray(picture).save(folder / "web.avif", quality=95)
        seen["web"] = picture
    (folder / "notes.txt").write_text("the sea")
    (folder / ".DS_Store").touch()
    return folder, seen


def test_a_photograph_folder(predict, photographs, tmp_path):
    folder, seen = photographs
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(smooth())).save(folder / "IMG_1.HEIC", quality=95)
    seen["IMG_1"] = smooth()
    status, printed, errors = predict("holiday", "--output", "out")
    assert (status, errors) == (0, "")
    first, *lines = printed.splitlines()
    assert first == "left out: 1 file is no picture, by suffix: 1 .txt"
    assert {line.partition(":")[0] for line in lines} == set(seen)
    for path in folder.iterdir():
        if path.stem in seen:
            decoded = decode_image(path).movedim(0, -1).numpy().astype(int)
            assert np.abs(decoded - seen[path.stem]).max() <= 12, path
            assert np.abs(decoded - seen[path.stem]).mean() <= 2, path
    results = {path.name.partition(".")[0] for path in (tmp_path / "out").glob("*.png")}
    assert results == set(seen)


def test_what_is_missing_for_a_format_is_said(predict, photographs, monkeypatch):
    folder, _ = photographs
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    (folder / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    status, _, errors = predict("holiday", "--output", "out")
    assert status == 1
    summary, reason = errors.splitlines()
    assert summary == "error: 1 could not be segmented"
    assert reason.endswith(
        "a.heic cannot be read as an image: HEIC pictures need the package pillow-heif: "
        "pip install 'ccnet-pytorch[heif]'"
    )


def test_a_picture_with_a_warning_is_segmented(predict, tmp_path, caplog):
    """Once by name, and without a word of Pillow's own."""
    folder = tmp_path / "in"
    folder.mkdir()
    samples = np.random.default_rng(0).integers(0, 256, (9, 14, 3))
    odd = {"photometric": RGB, "compression": 8, "tags": {282: [1, 2]}}
    (folder / "odd.tif").write_bytes(tiff_file(samples, 8, **odd))
    (folder / "narrow.png").write_bytes(png_file(samples[..., :1], 16, GREY))
    status, printed, errors = predict("in", "--output", "out")
    assert (status, errors) == (0, "")
    assert {line.partition(":")[0] for line in printed.splitlines()} == {"narrow", "odd"}
    (record,) = caplog.records
    assert re.match(r"in.narrow\.png has more than 8 bits per sample, but", record.getMessage())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of POSIX")
def test_what_is_no_file_or_has_too_long_a_name_costs_no_other(predict, draw, tmp_path):
    draw(tmp_path / "in" / "good.png")
    long = draw(tmp_path / "in" / f"{'x' * 250}.png")
    fits = draw(tmp_path / "in" / f"{'y' * 242}.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "drawing.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )
    status, printed, errors = predict("in", "--output", "out")
    assert status == 1
    assert {line.partition(":")[0] for line in printed.splitlines()} == {"good", fits.stem}
    summary, *reasons = errors.splitlines()
    assert summary == "error: 3 could not be segmented"
    drawing, pipe, name = reasons
    assert re.search(r"drawing\.jpg cannot be read as an image: .* no format of a picture", drawing)
    assert re.search(r"pipe\.png cannot be read as an image: it is no regular file", pipe)
    assert "File name too long" in name
    assert long.stem in name


def test_large_photographs_are_seen_at_the_size_learnt_at(predict, draw, make_model, tmp_path):
    """Results say so; those at the picture's own size are others."""
    learnt = make_model(11, label_set="camvid", training_size=[24, 32])
    write_weights(tmp_path / "learnt.safetensors", learnt.to_weights())
    picture = draw(tmp_path / "a.png", size=(48, 64))
    given = ("a.png", "--output", "out", "--weights", "learnt.safetensors")
    status, printed, errors = predict(*given)
    assert (status, errors) == (0, "")
    assert printed.startswith("a: 64 x 48 pixels, seen at 32 x 24 in ")
    with Image.open(tmp_path / "out" / "a.labels.png") as image:
        assert '"fit": [32, 24], "antialias": true' in image.info["Inference"]
        assert np.array_equal(np.asarray(image), learnt.predict(picture).labels.numpy())
    status, printed, _ = predict(*given, "--fit", "none")
    assert status == 0
    assert printed.startswith("1 of 1 have results of other weights or options: kept")
    status, printed, _ = predict(*given, "--fit", "none", "--overwrite")
    assert printed.startswith("a: 64 x 48 pixels in ")
    with Image.open(tmp_path / "out" / "a.labels.png") as image:
        assert np.array_equal(np.asarray(image), learnt.predict(picture, fit=None).labels.numpy())
