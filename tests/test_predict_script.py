"""`scripts/predict.py` on many pictures, good and bad."""

import importlib.util
import io
import os
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

import ccnet


@pytest.fixture
def predict(repository, weights_file, tmp_path, monkeypatch, capsys):
    """Runs the script in this process, in a new folder: its exit status, output and errors."""
    path = repository / "scripts" / "predict.py"
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        specification = importlib.util.spec_from_file_location("predict", path)
        script = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(script)
        arguments = ("--weights", weights_file, "--device", "cpu", *arguments)
        monkeypatch.setattr("sys.argv", ["predict.py", *map(str, arguments)])
        try:
            script.main()
        except SystemExit as end:
            status = end.code
        else:
            status = 0
        out, err = capsys.readouterr()
        if isinstance(status, str):  # as Python ends with one
            status, err = 1, f"{err}{status}\n"
        return status, out, err

    return run


def draw(path, seed=0, size=(9, 14)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(array).save(path)
    return path


def labels_of(path):
    with Image.open(path) as labels:
        return np.array(labels)


def cut(path, kind, length):
    """The beginning of a picture's file."""
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(
        whole, kind
    )
    path.write_bytes(whole.getvalue()[:length])


def png_of_size(path, width, height):
    """A PNG that says it has this size, with next to no pixels."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 100)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


BROKEN = {
    "broken-link.png": lambda path: path.symlink_to("nowhere.png"),
    "cut.jpg": lambda path: cut(path, "JPEG", 900),
    "cut.png": lambda path: cut(path, "PNG", 1000),
    "cut.ppm": lambda path: path.write_bytes(b"P6 40 40 255\n" + bytes(100)),
    "empty.png": lambda path: path.touch(),
    "enormous.png": lambda path: png_of_size(path, 60_000, 60_000),
    "float.tiff": lambda path: Image.new("F", (4, 3)).save(path),
    "folder.png": lambda path: path.mkdir(),
    "no-size.png": lambda path: png_of_size(path, 0, 0),
    "text.webp": lambda path: path.write_text("this is no picture\n" * 20),
}


def test_ten_broken_files_in_a_hundred(predict, tmp_path, weights_file):
    folder, out = tmp_path / "in", tmp_path / "out"
    suffixes = ("png", "jpg", "bmp", "webp", "tif")
    good = [
        draw(folder / f"{i % 7}" / f"{i:02}.{suffixes[i % 5]}", i, (8 + i % 3, 9 + i % 4))
        for i in range(90)
    ]
    for name, write in BROKEN.items():
        write(folder / name)
    status, printed, errors = predict("in", "--output", "out")
    assert status == 1
    summary, *reasons = errors.splitlines()
    assert summary == "error: 10 could not be segmented"
    assert len(reasons) == 10
    for name, reason in zip(sorted(BROKEN), reasons, strict=True):
        assert f"in{os.sep}{name}" in reason
        assert re.search("no image|cannot be read as an image: .+", reason), reason
    model = ccnet.ccnet_resnet18(weights=weights_file)
    results = {path for path in out.rglob("*") if path.is_file()}
    assert len(results) == 180
    for picture in good:
        name = out / picture.parent.name / picture.stem
        expected = model.predict(picture)
        assert np.array_equal(labels_of(f"{name}.labels.png"), expected.labels.numpy())
        with Image.open(f"{name}.overlay.png") as overlay:
            assert np.array_equal(np.array(overlay), np.array(expected.overlay()))
    assert len(printed.splitlines()) == 90
    assert "in/" not in printed

    times = {path: path.stat().st_mtime_ns for path in results}
    good_again = draw(folder / "0" / "new.png")
    status, printed, errors_again = predict("in", "--output", "out")
    assert (status, errors_again) == (1, errors)
    assert printed.splitlines()[0] == "90 of 101 have results already (see --overwrite)"
    assert len(printed.splitlines()) == 2
    assert (out / "0" / f"{good_again.stem}.labels.png").exists()
    assert {path: path.stat().st_mtime_ns for path in results} == times


def test_nothing_is_overwritten_unless_asked(predict, tmp_path):
    draw(tmp_path / "street.png")
    mine = tmp_path / "out" / "street.labels.png"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert predict("street.png", "--output", "out")[0] == 0
    assert mine.read_text() == "mine"
    assert (tmp_path / "out" / "street.overlay.png").exists(), "half a result is completed"
    status, printed, _ = predict("street.png", "--output", "out")
    assert (status, printed) == (0, "1 of 1 have results already (see --overwrite)\n")
    assert mine.read_text() == "mine"
    assert predict("street.png", "--output", "out", "--overwrite")[0] == 0
    assert labels_of(mine).shape == (9, 14)
    assert not [path for path in mine.parent.iterdir() if path.name.startswith(".")]


def test_results_in_the_folder_of_the_pictures_are_not_segmented_again(predict, tmp_path):
    draw(tmp_path / "1.png")
    draw(tmp_path / "sub" / "1.jpg")
    assert predict(".")[0] == 0
    before = set(tmp_path.rglob("*.png"))
    assert len(before) == 5
    assert predict(".")[1] == "2 of 2 have results already (see --overwrite)\n"
    assert set(tmp_path.rglob("*.png")) == before


def test_options_reach_the_network(predict, tmp_path, monkeypatch):
    draw(tmp_path / "street.png")
    real, given = ccnet.CCNet.predict, []

    def record(self, image, **options):
        given.append(options)
        return real(self, image, **options)

    monkeypatch.setattr(ccnet.CCNet, "predict", record)
    whole = {"mode": "whole", "crop": None, "stride": None, "overlap": None, "scales": [1.0]}
    whole |= {"flip": False, "average": "logits", "window_batch": 4, "precision": "float32"}
    assert predict("street.png", "--overwrite")[0] == 0
    assert given.pop() == whole
    arguments = ["--mode", "slide", "--crop", "24,32", "--stride", "20", "--scales", "0.5,1"]
    arguments += ["--flip", "--average", "probabilities", "--window-batch", "3"]
    assert predict("street.png", "--overwrite", *arguments, "--precision", "bfloat16")[0] == 0
    slide = {"mode": "slide", "crop": [24, 32], "stride": 20, "scales": [0.5, 1.0], "flip": True}
    slide |= {"average": "probabilities", "window_batch": 3, "precision": "bfloat16"}
    assert given.pop() == {**whole, **slide}
    arguments = ["--mode", "slide", "--crop", "32", "--overlap", "0.5", "--flip", "--no-flip"]
    assert predict("street.png", "--overwrite", *arguments)[0] == 0
    assert given.pop() == {**whole, "mode": "slide", "crop": 32, "overlap": 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "slide", "--crop", "9", "--stride", "10"], "leaves gaps between windows"),
        (["--crop", "769"], "crop is an option of mode='slide'"),
        (["--mode", "slide", "--crop", "big"], "argument --crop: invalid"),
        (["--scales", "1,0"], "scales must be positive"),
        (["--precision", "float16"], "argument --precision: invalid choice"),
        (["--output", "street.png"], "street.png"),
    ],
)
def test_wrong_options_stop_before_the_first_picture(predict, tmp_path, arguments, message):
    draw(tmp_path / "street.png")
    status, printed, errors = predict("street.png", *arguments)
    assert (status, printed) == (2, "")
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]


@pytest.mark.parametrize("pictures", [["street.png"], []])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "NOWHERE"], "no weights 'NOWHERE': expected one of CAMVID, DEFAULT"),
        (["--weights", "nowhere.safetensors"], "no weights at nowhere.safetensors"),
        (["--device", "warp"], "device 'warp' cannot be used"),
    ],
)
def test_a_network_that_cannot_be_had_is_one_line(predict, tmp_path, pictures, arguments, message):
    draw(tmp_path / "street.png")
    status, _, errors = predict(*pictures, *arguments)
    assert status == 1
    assert re.fullmatch(f"error: .*{re.escape(message)}.*\n", errors)
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]


def test_it_works_without_the_progress_bar(predict, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    for i in range(2):
        draw(tmp_path / f"{i}.png", i)
    status, printed, errors = predict("0.png", "1.png", "nowhere.png")
    assert status == 1
    assert re.fullmatch(r"(\d: 14 x 9 pixels in \d+\.\d\d s\n){2}", printed)
    assert errors.splitlines()[1] == "no image at nowhere.png, nor any that matches it"


def test_a_failure_of_the_network_is_told_and_the_rest_goes_on(predict, tmp_path, monkeypatch):
    real = ccnet.CCNet.predict

    def predict_or_fail(self, image, **options):
        if image.name == "0.png":
            raise RuntimeError("out of\nmemory")
        return real(self, image, **options)

    monkeypatch.setattr(ccnet.CCNet, "predict", predict_or_fail)
    for i in range(2):
        draw(tmp_path / f"{i}.png", i)
    status, printed, errors = predict("0.png", "1.png")
    assert (status, len(printed.splitlines())) == (1, 1)
    assert errors.splitlines()[1] == "0.png: RuntimeError: out of memory"
    assert (tmp_path / "1.labels.png").exists()
