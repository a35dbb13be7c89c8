"""Video: pictures segmented one by one, with the times, the sound and the turn of the original."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import (
    GREEN,
    STEADY,
    UNEVEN,
    Network,
    av,
    corners_of,
    four_corners,
    read,
    record,
    turn,
)

from ccnet.inference import Segmentation
from ccnet.video import command_line as command
from ccnet.video import is_video_name, segment_video


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("times", [STEADY, UNEVEN], ids=["steady", "uneven"])
def test_every_picture_keeps_its_time(tmp_path, suffix, times):
    source, target = record(tmp_path / f"clip{suffix}", times), tmp_path / f"new/out{suffix}"
    network, done = Network(), []
    assert segment_video(network, source, target, progress=lambda *one: done.append(one)) == 10
    assert [one.name for one in (tmp_path / "new").iterdir()] == [target.name]
    pictures, found = read(target)
    assert found == times
    assert [one for one, _ in done] == list(range(1, 11))
    if suffix == ".mp4":
        assert {expected for _, expected in done} == {10}
    color = np.array([0, 200, 0])
    for index, (shown, seen) in enumerate(zip(pictures, network.seen, strict=True)):
        assert np.abs(seen[30, 40].astype(int) - 20 * index).max() <= 8
        mixed = Segmentation(
            torch.zeros(36, 48, dtype=torch.uint8), GREEN, torch.from_numpy(seen).movedim(-1, 0)
        ).overlay()
        assert np.abs(shown - np.array(mixed).astype(int))[20:, 20:].mean() <= 8
        assert shown[30, 40] @ color > shown[30, 40] @ [100, 0, 100]


TURNS = {
    "upright": ((1, 0, 0, 1), (36, 48), "RGBK"),
    "clockwise": ((0, 1, -1, 0), (48, 36), "BRKG"),
    "upside down": ((-1, 0, 0, -1), (36, 48), "KBGR"),
    "counter-clockwise": ((0, -1, 1, 0), (48, 36), "GKRB"),
    "mirrored": ((-1, 0, 0, 1), (36, 48), "GRKB"),
    "mirrored upside down": ((1, 0, 0, -1), (36, 48), "BKRG"),
    "rows as columns": ((0, 1, 1, 0), (48, 36), "RBGK"),
    "rows as columns, from behind": ((0, -1, -1, 0), (48, 36), "KGBR"),
}
"""Display matrices, the size upright, and what is in its corners then: Red, Green, Blue, blacK."""


@pytest.mark.parametrize(("matrix", "size", "corners"), TURNS.values(), ids=TURNS)
def test_pictures_are_upright(tmp_path, matrix, size, corners):
    source, target = record(tmp_path / "clip.mp4", drawn=four_corners), tmp_path / "out.mp4"
    turn(source, matrix)
    network = Network()
    segment_video(network, source, target)
    assert network.seen[0].shape == (*size, 3)
    assert corners_of(network.seen[0]) == corners
    pictures, _ = read(target)
    assert pictures[0].shape == (*size, 3)
    with av.open(str(target)) as file:
        assert next(file.decode(video=0)).rotation == 0


@pytest.mark.parametrize(("size", "written"), [((35, 47), (36, 48)), ((2, 1), (2, 2))])
def test_odd_sizes_get_a_repeated_line(tmp_path, size, written):
    source, target = record(tmp_path / "clip.mkv", STEADY[:3], size), tmp_path / "out.mp4"
    network = Network()
    segment_video(network, source, target)
    assert network.seen[0].shape == (*size, 3)
    assert read(target)[0][0].shape == (*written, 3)


def test_proportions_of_pixels_are_kept(tmp_path):
    source, target = record(tmp_path / "clip.mp4", aspect=Fraction(4, 3)), tmp_path / "out.mp4"
    for matrix, expected in (((1, 0, 0, 1), Fraction(4, 3)), ((0, 1, -1, 0), Fraction(3, 4))):
        turn(source, matrix)
        segment_video(Network(), source, target)
        with av.open(str(target)) as file:
            assert file.streams.video[0].sample_aspect_ratio == expected


TARGETS = [
    ("a/clip.mp4", "results", "results/clip.overlay.mp4"),
    ("a/clip.MOV", "results", "results/clip.overlay.MOV"),
    ("a/clip.avi", ".", "clip.overlay.mp4"),
    ("a/clip.mp4", "my.webm", "my.webm"),
    ("a/clip.mp4", "new/My.MP4", "new/My.MP4"),
]


@pytest.mark.parametrize(("video", "output", "target"), TARGETS)
def test_name_of_the_result(video, output, target):
    assert command.target_of(Path(video), Path(output)) == Path(target)


def test_names_of_videos():
    assert is_video_name("a.MP4")
    assert not any(map(is_video_name, ("a.png", "mp4", "a.mp4.png", "a.txt")))


def test_command_makes_a_video(run_forked, repository, weights_file, tmp_path):
    record(tmp_path / "clip.mp4", STEADY[:2])
    predict = [repository / "scripts" / "predict.py", "clip.mp4", "--weights", weights_file]
    predict += ["--device", "cpu", "--output", "new/seen.mp4"]
    made = run_forked(*predict, cwd=tmp_path)
    assert made.stderr == ""
    assert made.stdout.startswith("clip.mp4: 2 pictures in ")
    assert len(read(tmp_path / "new" / "seen.mp4")[1]) == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["seen.mp4"]
    refused = run_forked(*predict, cwd=tmp_path, succeeds=False)
    assert refused.stderr == (
        "error: new/seen.mp4 exists: replace it by --overwrite, or choose another name\n"
    )
