"""The wheel: all that is needed, weights included, and nothing that is not."""

import zipfile

import pytest

from ccnet.explorer.server import FILES

USE = """
import sys
from pathlib import Path
import ccnet
from ccnet.weights.downloads import load_registered
target = Path(sys.argv[1]).resolve()
assert Path(ccnet.__file__).resolve().is_relative_to(target), ccnet.__file__
found = load_registered(ccnet.CCNet_ResNet18_Weights.DEFAULT).source
assert Path(found).is_relative_to(target), found
model = ccnet.ccnet_resnet18(weights="DEFAULT")
assert not model.training
assert "bicyclist" in model.label_set.categories
from PIL import Image
from ccnet.__main__ import main
Image.new("RGB", (64, 48)).save("photo.png")
try:
    main(["predict", "photo.png", "--output", "results", "--device", "cpu"])
except SystemExit as end:
    assert end.code == 0, end
"""


@pytest.fixture(scope="module")
def wheel(repository, run_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run_python("-m", "pip", "wheel", *options, repository, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_package_weights_and_licence(wheel, repository):
    assert wheel.name.startswith("ccnet_pytorch-")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = (repository / "ccnet").rglob("*.py")
    assert {str(path.relative_to(repository)) for path in sources} <= names
    assert {
        "ccnet/py.typed",
        "ccnet/weights/pins.json",
        *(f"ccnet/explorer/page/{name}" for name, _ in FILES.values()),
        "ccnet/bundled/ccnet_resnet18_camvid.safetensors",
        "ccnet/bundled/ccnet_resnet18_camvid.md",
    } <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"ccnet"}
    licences = {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}
    assert not [name for name in names if "__pycache__" in name]
    (path,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    commands = zipfile.ZipFile(wheel).read(path).decode()
    assert commands.split() == ["[console_scripts]", "ccnet", "=", "ccnet.__main__:main"]


def test_installed_package_finds_its_weights_and_predicts(wheel, run_python, tmp_path):
    target = tmp_path / "installed"
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", target)
    run_python("-m", "pip", "install", *options, wheel, cwd=tmp_path)
    run_python("-c", USE, target, cwd=tmp_path, PYTHONPATH=str(target))
    assert (tmp_path / "results" / "photo.overlay.png").exists()
