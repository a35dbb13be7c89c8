"""Folders that `scripts/evaluate.py` writes to are its own while it runs."""

import numpy as np
import pytest
from PIL import Image

from ccnet import locks
from ccnet.datasets import StreetScenes


@pytest.fixture
def main(load_script, tmp_path):
    """Evaluates the bundled weights on a rendered scene in CamVid's layout."""
    for folder, array in zip(("val", "valannot"), StreetScenes(1, size=(64, 96))[0], strict=True):
        (tmp_path / "camvid" / folder).mkdir(parents=True)
        picture = np.moveaxis(array.numpy(), 0, -1) if array.ndim == 3 else array.numpy()
        Image.fromarray(picture).save(tmp_path / "camvid" / folder / "frame.png")
    script = load_script("evaluate")
    start = ("camvid", "--root", str(tmp_path / "camvid"), "--device", "cpu")
    return lambda *options: script.main([*start, *map(str, options)])


@pytest.mark.parametrize("option", ["--report", "--save-label-ids"])
def test_folder_in_use_is_refused(main, tmp_path, monkeypatch, option):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    with locks.FolderLock(tmp_path / "out"):
        with pytest.raises(SystemExit, match=r"^error: .*/out is in use by another object [^\n]*$"):
            main(option, tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [locks.NAME]


def test_one_folder_may_serve_for_all(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main("--report", tmp_path / "out", "--save-label-ids", "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.md", "frame.png"} <= names
    assert not any(name.startswith(".") for name in names)
