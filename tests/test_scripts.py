"""The command lines, as a user runs them."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ccnet.classes import CAMVID


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (33, 49, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "my street.png")
    return tmp_path / "my street.png"


@pytest.fixture
def camvid(tmp_path):
    """A made-up data set in CamVid's layout."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder, shape, high in ((split, (40, 56, 3), 256), (f"{split}annot", (40, 56), 12)):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
            for name in ("a.png", "b.png"):
                array = rng.integers(0, high, shape, np.uint8)
                Image.fromarray(array).save(tmp_path / "camvid" / folder / name)
    return tmp_path / "camvid"


def scores_of(output):
    """mIoU in a printed table."""
    return float(re.search(r"\*\*mean \(mIoU\)\*\* \| \*\*([\d.]+)\*\*", output)[1])


def test_predict_writes_two_pictures_and_prints_the_classes(
    repository, run_python, picture, weights_file, tmp_path
):
    script = repository / "scripts" / "predict.py"
    out = tmp_path / "new folder"
    result = run_python(
        script, picture, "--output", out, "--weights", weights_file, "--device", "cpu", cwd=tmp_path
    )
    assert {path.name for path in out.iterdir()} == {
        "my street.overlay.png",
        "my street.labels.png",
    }
    with Image.open(out / "my street.overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (49, 33))
    with Image.open(out / "my street.labels.png") as labels:
        assert (labels.mode, labels.size) == ("P", (49, 33))
        assert labels.getpalette()[:33] == CAMVID.palette[:33]
        found = {CAMVID.categories[label] for label in np.unique(np.array(labels))}
    assert "my street: 49 x 33 pixels" in result.stdout
    printed = dict(re.findall(r"^  (\w[\w ]*?) +(\d+\.\d) %$", result.stdout, re.MULTILINE))
    assert printed.keys() == found
    assert sum(map(float, printed.values())) == pytest.approx(100, abs=1)
    assert result.stderr == ""


def test_predict_names_a_picture_that_is_missing(repository, run_python, weights_file, tmp_path):
    script = repository / "scripts" / "predict.py"
    arguments = ("nowhere.jpg", "--weights", weights_file, "--device", "cpu")
    result = run_python(script, *arguments, cwd=tmp_path, succeeds=False)
    assert "nowhere.jpg" in result.stderr.splitlines()[-1]


WITHOUT_EXTRAS = """
import runpy, sys
for name in ("matplotlib", "tensorboard", "torchmetrics"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_predict_draws_a_street_and_knows_it_without_extras(repository, run_python, tmp_path):
    script = repository / "scripts" / "predict.py"
    result = run_python("-c", WITHOUT_EXTRAS, script, "--output", "out", cwd=tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "rendered-street.png",
        "rendered-street.overlay.png",
        "rendered-street.labels.png",
    }
    accuracy, miou = re.search(
        r"pixel accuracy ([\d.]+) %, mIoU ([\d.]+) %", result.stdout
    ).groups()
    assert float(accuracy) >= 80
    assert float(miou) >= 50
    for name in ("road", "building", "sky"):
        assert re.search(rf"^  {name} +\d", result.stdout, re.MULTILINE)


def test_train_then_resume_then_evaluate(repository, run_python, camvid, tmp_path):
    train = [repository / "scripts" / "train.py", "camvid-r18", "--root", camvid]
    train += ["--run-dir", "run", "--steps", 1, "--batch-size", 2, "--scenes", 0, "--device", "cpu"]
    train += ["--crop-height", 33, "--crop-width", 49, "--output-stride", 32, "--workers", 0]
    train += ["--no-balance-classes"]
    trained = run_python(*train, cwd=tmp_path)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["steps"], recipe["crop_width"], recipe["balance_classes"]) == (1, 49, False)
    assert "crop_width: 49" in trained.stderr
    refused = run_python(*train, "--resume", "--learning-rate", 1, cwd=tmp_path, succeeds=False)
    assert "learning_rate 0.0015, not 1.0" in refused.stderr
    evaluate = [repository / "scripts" / "evaluate.py", "camvid", "--device", "cpu"]
    evaluate += ["--weights", "run/best.safetensors"]
    found = run_python(*evaluate, cwd=tmp_path, CAMVID_ROOT=str(camvid))
    # Training validates in bfloat16, this in float32.
    assert scores_of(found.stdout) == pytest.approx(scores_of(trained.stdout), abs=2)
    assert all(f"| {name} | " in found.stdout for name in CAMVID.categories)
    assert re.search(r"^pixel accuracy \d+\.\d\d %$", found.stdout, re.MULTILINE)
