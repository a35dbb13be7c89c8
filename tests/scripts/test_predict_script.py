"""`scripts/predict.py` on many images, good and bad."""

import os
import re

import numpy as np
import pytest
from PIL import Image

import ccnet
from ccnet.classes import CAMVID
from ccnet.inference import InferenceProtocol, prediction

BROKEN = {
    "broken-link.png": lambda path: path.symlink_to("nowhere.png"),
    "cut.png": lambda path: path.write_bytes(path.with_name("good.png").read_bytes()[:1000]),
    "empty.png": lambda path: path.touch(),
    "float.tiff": lambda path: Image.new("F", (4, 3)).save(path),
    "folder.png": lambda path: path.mkdir(),
    "text.webp": lambda path: path.write_text("this is no image\n" * 20),
}


def test_six_broken_files_among_many(predict, draw, tmp_path, weights_file):
    folder, out = tmp_path / "in", tmp_path / "out"
    suffixes = ("png", "jpg", "bmp", "webp", "tif")
    good = [draw(folder / "good.png", size=(40, 40))]
    for i in range(30):
        path = folder / f"{i % 7}" / f"{i:02}.{suffixes[i % 5]}"
        good.append(draw(path, i, (8 + i % 3, 9 + i % 4)))
    for name, write in BROKEN.items():
        write(folder / name)
    status, printed, errors = predict("in", "--output", "out")
    assert status == 1
    summary, *reasons = errors.splitlines()
    assert summary == "error: 6 could not be segmented"
    assert len(reasons) == 6
    for name, reason in zip(sorted(BROKEN), reasons, strict=True):
        assert f"in{os.sep}{name}" in reason
        assert re.search("no image|cannot be read as an image: .+", reason), reason
    model = ccnet.ccnet_resnet18(weights=weights_file)
    results = set(out.rglob("*.png"))
    assert len(results) == 2 * len(good)
    for path in good:
        name = out / path.relative_to(folder).with_suffix("")
        expected = model.predict(path)
        for kind, image in (("labels", expected.labels), ("overlay", expected.overlay())):
            with Image.open(f"{name}.{kind}.png") as file:
                assert np.array_equal(np.asarray(file), np.asarray(image))
    assert len(printed.splitlines()) == len(good)
    assert "in/" not in printed

    times = {path: path.stat().st_mtime_ns for path in results}
    draw(folder / "0" / "new.png")
    status, printed, errors_again = predict("in", "--output", "out")
    assert (status, errors_again) == (1, errors)
    done = f"{len(good)} of {len(good) + len(BROKEN) + 1} have results already"
    assert printed.splitlines()[-1] == f"{done}: skipped (see --overwrite)"
    assert len(printed.splitlines()) == 2
    assert (out / "0" / "new.labels.png").exists()
    assert {path: path.stat().st_mtime_ns for path in results} == times


def test_single_image_is_described(predict, draw, tmp_path):
    draw(tmp_path / "my street.png", size=(33, 49))
    status, printed, errors = predict("my street.png", "--output", "new folder")
    assert (status, errors) == (0, "")
    out = tmp_path / "new folder"
    assert len(list(out.iterdir())) == 2
    with Image.open(out / "my street.overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (49, 33))
    with Image.open(out / "my street.labels.png") as labels:
        assert (labels.mode, labels.size) == ("P", (49, 33))
        assert labels.getpalette()[:33] == CAMVID.palette[:33]
        found = {CAMVID.categories[label] for label in np.unique(np.array(labels))}
    assert "my street: 49 x 33 pixels" in printed
    shares = dict(re.findall(r"^  (\w[\w ]*?) +(\d+\.\d) %$", printed, re.MULTILINE))
    assert shares.keys() == found
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=1)


def test_results_alone_are_overwritten(predict, draw, tmp_path):
    """Whatever else has the name of one stays, whether a picture, a label map or no image."""
    pictures = [draw(tmp_path / f"in/{name}.png") for name in ("a", "b", "c", "d")]
    assert predict(*pictures, "--output", "in")[0] == 0
    for picture in pictures:
        draw(picture, 1, (12, 20))
    draw(tmp_path / "in/a.overlay.png", 2)
    Image.new("P", (14, 9)).save(tmp_path / "in/b.labels.png")
    (tmp_path / "in/c.labels.png").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.glob("in/[abc].*")}
    status, _, errors = predict(*pictures, "--output", "in", "--overwrite")
    assert status == 1
    assert {path: path.read_bytes() for path in before} == before
    for name in ("a.overlay", "b.labels", "c.labels"):
        assert f"in{os.sep}{name}.png is not replaced, since it is no result" in errors
    for kind in ("labels", "overlay"):
        with Image.open(tmp_path / f"in/d.{kind}.png") as result:
            assert result.size == (20, 12)


def test_protocol_reaches_the_network(predict, draw, tmp_path, monkeypatch):
    draw(tmp_path / "street.png")
    real, given = prediction.segment, []

    def record(model, image, *, protocol, **options):
        given.append(protocol)
        return real(model, image, protocol=protocol, **options)

    monkeypatch.setattr(prediction, "segment", record)
    assert predict("street.png")[0] == 0
    assert given == [InferenceProtocol()]
    options = "--overwrite --mode slide --crop 24,32 --scales 0.5,1 --flip"
    assert predict("street.png", *options.split())[0] == 0
    assert given[1:] == [InferenceProtocol("slide", crop=(24, 32), scales=(0.5, 1), flip=True)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "slide", "--crop", "9", "--stride", "10"], "gaps between windows"),
        (["--crop", "769"], "crop is an option of mode='slide'"),
        (["--scales", "1,0"], "scales must be positive"),
        (["--output", "street.png"], "street.png"),
    ],
)
def test_invalid_options_stop_before_the_first_image(predict, draw, tmp_path, arguments, message):
    draw(tmp_path / "street.png")
    status, printed, errors = predict("street.png", *arguments)
    assert (status, printed) == (2, "")
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]


@pytest.mark.parametrize("images", [["street.png"], []])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "NOWHERE"], "unknown weights 'NOWHERE': expected one of CAMVID, DEFAULT"),
        (["--weights", "nowhere.safetensors"], "no weights at nowhere.safetensors"),
        (["--device", "warp"], "device 'warp' cannot be used"),
    ],
)
def test_network_that_cannot_be_loaded_is_one_line(
    predict, draw, tmp_path, images, arguments, message
):
    draw(tmp_path / "street.png")
    status, _, errors = predict(*images, *arguments)
    assert status == 1
    assert re.fullmatch(f"error: .*{re.escape(message)}.*\n", errors)
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]


def test_missing_image_and_failure_of_the_network_do_not_stop_the_rest(
    predict, draw, tmp_path, monkeypatch
):
    real = ccnet.CCNet.forward

    def compute_or_fail(self, x):
        if x.shape[-1] == 20:
            raise RuntimeError("out of\nmemory")
        return real(self, x)

    monkeypatch.setattr(ccnet.CCNet, "forward", compute_or_fail)
    draw(tmp_path / "0.png", size=(9, 20))
    draw(tmp_path / "1.png")
    status, printed, errors = predict("0.png", "1.png", "nowhere.png")
    assert status == 1
    assert re.fullmatch(r"1: 14 x 9 pixels in \d+\.\d\d s\n", printed)
    missing = "no image at nowhere.png, and no file matches it as a pattern"
    assert {*errors.splitlines()[1:]} == {missing, "0.png: RuntimeError: out of memory"}
    assert (tmp_path / "1.labels.png").exists()
