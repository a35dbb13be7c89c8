"""Video: pictures segmented one by one, with the times, the sound and the turn of the original."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ccnet.classes import LabelSet
from ccnet.commands import video as command
from ccnet.inference import Segmentation
from ccnet.inference.video import is_video_name, segment_video

av = pytest.importorskip("av", reason="needs the extra video")

GREEN = LabelSet(("all",), ((0, 200, 0),))
STEADY = [40 * index for index in range(10)]
UNEVEN = [0, 40, 80, 200, 500, 520, 530, 900, 1000, 1600]
MILLISECONDS = Fraction(1, 1000)


class Network:
    """Finds that a picture is all of one class."""

    def __init__(self, interrupted_at=None):
        self.seen, self.interrupted_at = [], interrupted_at

    def predict(self, image, protocol=None, *, memory_limit):
        if len(self.seen) == self.interrupted_at:
            raise KeyboardInterrupt
        self.seen.append(image)
        image = torch.from_numpy(image).movedim(-1, 0)
        return Segmentation(torch.zeros(image.shape[1:], dtype=torch.uint8), GREEN, image)


def picture(index, height, width):
    """Ever lighter grey with a white upper left corner."""
    pixels = np.full((height, width, 3), min(255, 20 * index), np.uint8)
    pixels[: height // 3, : width // 3] = 255
    return pixels


def record(path, times=STEADY, size=(36, 48), sound=False, aspect=None):
    codec = "vp9" if path.suffix == ".webm" else "h264"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", MILLISECONDS
        if any(side % 2 for side in size):  # as screen recorders write them
            stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        track = file.add_stream("aac", rate=44100) if sound else None
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECONDS
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track:
            wave = np.zeros((1, 44100 * 2 // 5), np.float32)
            heard = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 44100, 0
            file.mux(track.encode(heard))
            file.mux(track.encode(None))
    return path


def record_sound(path):
    with av.open(str(path), "w") as file:
        track = file.add_stream("aac", rate=44100)
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 9999), np.float32), "fltp", "mono")
        heard.sample_rate, heard.pts = 44100, 0
        file.mux(track.encode(heard))
        file.mux(track.encode(None))


def turn(path, matrix):
    """Writes a display matrix (a, b, c, d) into an MP4 file's track header."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * one for one in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def read(path):
    """Pictures (H, W, 3), and their times in milliseconds."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        times = [round(1000 * frame.pts * frame.time_base) for frame in frames]
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in frames], times


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
    "upright": ((1, 0, 0, 1), (36, 48), (0, 0)),
    "clockwise": ((0, 1, -1, 0), (48, 36), (0, -1)),
    "upside down": ((-1, 0, 0, -1), (36, 48), (-1, -1)),
    "counter-clockwise": ((0, -1, 1, 0), (48, 36), (-1, 0)),
}
"""Display matrices, the size upright, and the corner that is white then."""


@pytest.mark.parametrize(("matrix", "size", "corner"), TURNS.values(), ids=TURNS)
def test_pictures_are_upright(tmp_path, matrix, size, corner):
    source, target = record(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    turn(source, matrix)
    network = Network()
    segment_video(network, source, target)
    assert network.seen[0].shape == (*size, 3)
    assert network.seen[0][corner].min() > 230
    opposite = tuple(-1 - one for one in corner)
    assert network.seen[0][opposite].max() < 30
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


def test_sound_is_copied_where_it_can_be(tmp_path, caplog):
    source = record(tmp_path / "clip.mp4", sound=True)

    def sound(path):
        with av.open(str(path)) as file:
            return (
                [bytes(one) for one in file.demux(audio=0) if one.size]
                if file.streams.audio
                else []
            )

    assert len(sound(source)) > 10
    for suffix in (".mp4", ".mkv"):
        segment_video(Network(), source, tmp_path / f"out{suffix}")
        assert sound(tmp_path / f"out{suffix}") == sound(source)
    assert not caplog.records
    segment_video(Network(), source, tmp_path / "out.webm")
    assert sound(tmp_path / "out.webm") == []
    assert "out.webm has no sound: it cannot hold that of the video, aac" in caplog.text


def test_interrupted_run_keeps_what_it_has(tmp_path, caplog):
    source, target = record(tmp_path / "clip.mp4", sound=True), tmp_path / "new" / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        segment_video(Network(interrupted_at=4), source, target)
    assert [one.name for one in target.parent.iterdir()] == ["out.partial.mp4"]
    assert read(target.with_name("out.partial.mp4"))[1] == STEADY[:4]
    assert "the first 4 pictures are in" in caplog.text
    target.with_name("out.partial.mp4").unlink()
    with pytest.raises(KeyboardInterrupt):
        segment_video(Network(interrupted_at=0), source, target)
    assert list(target.parent.iterdir()) == []


def test_failing_network_leaves_nothing(tmp_path):
    source, target = record(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    target.write_bytes(b"before")
    with pytest.raises(AttributeError):
        segment_video(None, source, target)
    assert target.read_bytes() == b"before"
    assert {one.name for one in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}


def test_cut_video_is_read_to_its_end(tmp_path, caplog):
    whole = record(tmp_path / "clip.mkv", [40 * k for k in range(60)])
    part, target = tmp_path / "part.mkv", tmp_path / "out.mp4"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    count = segment_video(Network(), part, target)
    assert 0 < count < 60
    assert read(target)[1] == [40 * k for k in range(count)]


@pytest.fixture
def files(tmp_path):
    """Files that are no videos, and one that is."""
    record(tmp_path / "clip.mp4")
    record_sound(tmp_path / "sound.mp4")
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile http://127.0.0.1:9/a.mp4\n")
    (tmp_path / "there.mp4").write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    return tmp_path


REFUSED = [
    ("gone.mp4", "out.mp4", FileNotFoundError, "no video at .*gone.mp4"),
    ("folder.mp4", "out.mp4", ValueError, "cannot be read as a video: it is a folder"),
    ("empty.mp4", "out.mp4", ValueError, "empty.mp4 cannot be read as a video: "),
    ("text.mp4", "out.mp4", ValueError, "text.mp4 cannot be read as a video: Invalid data"),
    ("cut.mp4", "out.mp4", ValueError, "cut.mp4 cannot be read as a video: "),
    ("list.mp4", "out.mp4", ValueError, "list.mp4 cannot be read as a video: "),
    ("sound.mp4", "out.mp4", ValueError, "sound.mp4 has no pictures: it holds audio"),
    ("clip.mp4", "out.avi", ValueError, r"as \.mp4, .*, not as .*: choose .*out\.mp4"),
    ("clip.mp4", "out", ValueError, r"as \.mp4, .*, not as .*: choose .*out\.mp4"),
    ("clip.mp4", "clip.mp4", ValueError, "is the video itself"),
    ("clip.mp4", "folder.mp4", ValueError, "folder.mp4 is not replaced: it is a folder"),
    ("clip.mp4", "there.mp4", FileExistsError, "there.mp4 exists: choose another name"),
    ("clip.mp4", "there.mp4/out.mp4", OSError, "there.mp4"),
]


@pytest.mark.parametrize(
    ("source", "target", "error", "message"), REFUSED, ids=[f"{row[0]}-{row[1]}" for row in REFUSED]
)
def test_what_is_refused(files, source, target, error, message):
    before = {path: path.is_file() and path.read_bytes() for path in files.iterdir()}
    with pytest.raises(error, match=message) as raised:
        segment_video(Network(), files / source, files / target, replace=False)
    assert "\n" not in str(raised.value)
    assert {path: path.is_file() and path.read_bytes() for path in files.iterdir()} == before


def test_missing_extra_is_named(files, monkeypatch):
    monkeypatch.setattr("ccnet.console.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"av must be installed.*\[video\]"):
        segment_video(Network(), files / "clip.mp4", files / "out.mp4")


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
