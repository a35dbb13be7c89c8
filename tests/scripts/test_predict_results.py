"""Which results `scripts/predict.py` takes for those of a picture, and what it does with others."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from PIL import Image

import ccnet
from ccnet.inference.marked_png import Origin, read_origin, save_marked

OVERLAY, LABELS = "out/a.overlay.png", "out/a.labels.png"


@pytest.fixture
def made(predict, draw, tmp_path):
    """The results of a picture `in/a.png`, and what they are of."""
    draw(tmp_path / "in" / "a.png")
    assert predict("in", "--output", "out")[0] == 0
    origin = read_origin(tmp_path / OVERLAY)
    assert origin == read_origin(tmp_path / LABELS)
    return origin


def contents(folder):
    """The names in a folder, and what is in the files."""
    paths = [path for path in folder.iterdir() if path.suffix == ".png"]
    return {path.name: path.is_file() and path.read_bytes() for path in paths}


def mark(path, origin):
    """Replaces what a result says that it is of."""
    with Image.open(path) as image:
        image.load()
    save_marked(image, path, origin)


def test_a_result_tells_of_what_it_is_without_paths(made, tmp_path):
    with Image.open(tmp_path / LABELS) as image:
        texts = image.info
    assert texts["Software"] == "ccnet"
    assert len(made.picture) == len(made.weights) == 64
    assert texts["Picture SHA-256"] == made.picture
    assert texts["Inference"] == (
        '{"mode": "whole", "scales": [1.0], "flip": false, "average": "logits", '
        '"precision": "float32", "memory_limit": 8.5}'
    )
    assert not any("in/a.png" in str(text) or str(tmp_path) in str(text) for text in texts.values())


OTHER = Origin("0" * 64, "1" * 64, "{}")
CHANGED = "is the result of another picture, or of this one before it was changed"
MIXED = "not of one run with these weights and options: make all anew by --overwrite"
OTHERS = "have results of other weights or options: kept (--overwrite makes them anew)"
UNKNOWN = "have results that do not say of which picture they are, as of earlier versions: kept"
SAME = "have results already: skipped (see --overwrite)"
FOREIGN = "is not replaced, since it is no result of this version's: move it away"

STATES = {
    "same": ({}, SAME),
    "other-weights": ({"overlay": {"weights": "1"}, "labels": {"weights": "1"}}, OTHERS),
    "other-options": ({"overlay": {"protocol": "{}"}, "labels": {"protocol": "{}"}}, OTHERS),
    "earlier-version": ({"overlay": None, "labels": None}, UNKNOWN),
    "another-picture": ({"overlay": {"picture": "1"}, "labels": {"picture": "1"}}, CHANGED),
    "half-another-picture": ({"labels": {"picture": "1"}}, CHANGED),
    "one-of-other-weights": ({"overlay": {"weights": "1"}}, MIXED),
    "one-of-other-options": ({"labels": {"protocol": "{}"}}, MIXED),
    "one-of-an-earlier-version": ({"labels": None}, MIXED),
    "half-of-other-weights": ({"overlay": {"weights": "1"}, "labels": "gone"}, MIXED),
    "half-of-other-options": ({"overlay": "gone", "labels": {"protocol": "{}"}}, MIXED),
    "text": ({"labels": b"mine"}, FOREIGN),
    "empty": ({"overlay": b""}, FOREIGN),
    "cut": ({"overlay": "cut"}, FOREIGN),
    "folder": ({"labels": "folder"}, FOREIGN),
    "link": ({"labels": "link"}, FOREIGN),
}
"""What became of the results of a picture: other facts or other content, and what is said of it."""


def put(path, what, origin):
    if isinstance(what, dict) or what is None:
        mark(path, what and replace(origin, **what))
    elif isinstance(what, bytes):
        path.write_bytes(what)
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "link":
            path.symlink_to("nowhere")


def test_existing_results(predict, draw, tmp_path):
    made = {}
    for seed, name in enumerate(STATES):
        draw(tmp_path / "in" / f"{name}.png", seed)
    assert predict("in", "--output", "out")[0] == 0
    for name, (files, _) in STATES.items():
        made[name] = read_origin(tmp_path / f"out/{name}.labels.png")
        for kind, what in files.items():
            put(tmp_path / f"out/{name}.{kind}.png", what, made[name])
    before = contents(tmp_path / "out")
    status, printed, errors = predict("in", "--output", "out")
    assert status == 1
    assert contents(tmp_path / "out") == before
    lines = errors.splitlines()
    for name, (_, said) in STATES.items():
        if said in (SAME, OTHERS, UNKNOWN):
            count = sum(1 for _, other in STATES.values() if other == said)
            assert f"{count} of {len(STATES)} {said}" in printed
        else:
            (line,) = (line for line in lines if f"{os.sep}{name}." in line)
            assert said in line
    assert len(lines) == 1 + sum(said in (CHANGED, MIXED, FOREIGN) for _, said in STATES.values())
    status, printed, errors = predict("in", "--output", "out", "--overwrite")
    assert len(errors.splitlines()) == 1 + sum(said == FOREIGN for _, said in STATES.values())
    for name, (_, said) in STATES.items():
        files = {kind: tmp_path / f"out/{name}.{kind}.png" for kind in ("overlay", "labels")}
        if said == FOREIGN:
            assert f"{os.sep}{name}." in errors
            assert all(
                contents(tmp_path / "out")[path.name] == before[path.name]
                for path in files.values()
                if path.name in before
            )
        else:
            assert {read_origin(path) for path in files.values()} == {made[name]}


@pytest.mark.parametrize("gone", [OVERLAY, LABELS])
def test_half_a_result_of_the_same_run_is_completed(predict, made, tmp_path, gone):
    before = contents(tmp_path / "out")
    (tmp_path / gone).unlink()
    status, printed, errors = predict("in", "--output", "out")
    assert (status, errors) == (0, "")
    assert "14 x 9 pixels" in printed
    assert contents(tmp_path / "out") == before


def test_pictures_of_one_name_in_two_folders(predict, draw, tmp_path):
    for seed, name in enumerate(("p/a", "q/a", "q/b")):
        draw(tmp_path / f"{name}.png", seed)
    assert predict("p", "--output", "out")[0] == 0
    before = contents(tmp_path / "out")
    status, printed, errors = predict("q", "--output", "out")
    assert status == 1
    assert printed.startswith("b: 14 x 9 pixels")
    summary, line = errors.splitlines()
    assert summary == "error: 1 could not be segmented"
    assert line.startswith(
        f"q{os.sep}a.png: {OVERLAY.replace('/', os.sep)} is the result of another"
    )
    assert line.endswith("choose another --output, or replace it by --overwrite")
    assert before.items() < contents(tmp_path / "out").items()
    assert predict("q", "--output", "out", "--overwrite")[0] == 0
    assert predict("q", "--output", "out")[1] == f"2 of 2 {SAME}\n"
    assert predict("p", "--output", "out")[0] == 1


@pytest.mark.parametrize(
    ("way", "more"), [(["in"], 0), (["link"], 0), (["in/*"], 0), (["in", "other"], 6)]
)
def test_results_are_no_pictures_the_next_time(predict, draw, tmp_path, way, more):
    """However the folder of pictures and results is reached."""
    for seed, name in enumerate(("in/a", "in/b", "other/c")):
        draw(tmp_path / f"{name}.png", seed)
    (tmp_path / "link").symlink_to("in")
    assert predict("in", "--output", "in")[0] == 0
    for times in range(2):
        status, printed, errors = predict(*way, "--output", "link")
        assert (status, errors) == (0, "")
        left_out = 4 + more * times + ("in/*" in way)  # the records
        assert f"left out: {left_out} results of this program" in printed.splitlines()
        assert len([*tmp_path.glob("in/**/*.png")]) == 2 + 4 + more


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("theirs", ["overlay", "labels", "both"])
def test_another_run_at_the_same_moment(predict, draw, tmp_path, monkeypatch, overwrite, theirs):
    """The other one writes its results while this one draws: nothing of it is replaced."""
    draw(tmp_path / "in" / "a.png")
    names = [OVERLAY, LABELS] if theirs == "both" else [f"out/a.{theirs}.png"]
    real = ccnet.Segmentation.overlay

    def draw_and_meet(self):
        for name in names:
            save_marked(Image.new("P", (14, 9)), tmp_path / name, OTHER)
        return real(self)

    monkeypatch.setattr(ccnet.Segmentation, "overlay", draw_and_meet)
    options = ["--overwrite"] if overwrite else []
    status, _, errors = predict("in", "--output", "out", *options)
    origins = {path: read_origin(tmp_path / path) for path in (OVERLAY, LABELS)}
    if overwrite:
        assert (status, errors) == (0, "")
        assert OTHER not in origins.values()
    else:
        assert status == 1
        assert "was written by another run meanwhile" in errors
        assert all(origins[name] == OTHER for name in names)


def test_a_picture_that_changes_meanwhile(predict, draw, tmp_path, monkeypatch):
    real = ccnet.CCNet.forward

    def compute_and_change(self, x):
        draw(tmp_path / "a.png", 1)
        return real(self, x)

    draw(tmp_path / "a.png")
    monkeypatch.setattr(ccnet.CCNet, "forward", compute_and_change)
    status, _, errors = predict("a.png", "--output", "out")
    assert status == 1
    assert "a.png: the picture was changed while it was segmented" in errors
    assert not list((tmp_path / "out").iterdir())


def test_a_picture_of_ones_own_where_the_scene_is_rendered(predict, draw, tmp_path):
    mine = draw(tmp_path / "out" / "rendered-street.png")
    before = mine.read_bytes()
    status, _, errors = predict("--output", "out")
    assert (status, FOREIGN in errors) == (1, True)
    assert mine.read_bytes() == before


def test_of_two_writers_one_alone_has_a_result(tmp_path):
    together = Barrier(2)

    def write(number):
        kept = []
        for index in range(20):
            together.wait()
            try:
                path, origin = tmp_path / f"{index}.png", Origin(number)
                save_marked(Image.new("L", (9, 9)), path, origin, replace=False)
            except FileExistsError:
                continue
            kept.append(index)
        return kept

    with ThreadPoolExecutor(2) as writers:
        kept = dict(zip("ab", writers.map(write, "ab"), strict=True))
    assert sorted(kept["a"] + kept["b"]) == list(range(20))
    for number, indices in kept.items():
        assert all(read_origin(tmp_path / f"{i}.png") == Origin(number) for i in indices)
    assert len(list(tmp_path.iterdir())) == 20
