"""Video: interrupted, damaged, in the way or no video at all."""

import argparse
import os
import signal

import pytest
from clips import STEADY, Network, read, record, record_sound
from PIL import Image

from ccnet.console import ending_on_signals
from ccnet.video import command_line as command
from ccnet.video import segment_video
from ccnet.video.writing import VideoWriter


def test_interrupted_run_keeps_what_it_has(tmp_path, caplog):
    source, target = record(tmp_path / "clip.mp4", sound="aac"), tmp_path / "new" / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        segment_video(Network(interrupted_at=4), source, target)
    assert [one.name for one in target.parent.iterdir()] == ["out.partial.mp4"]
    assert read(target.with_name("out.partial.mp4"))[1] == STEADY[:4]
    assert "the first 4 pictures are in" in caplog.text
    target.with_name("out.partial.mp4").unlink()
    with pytest.raises(KeyboardInterrupt):
        segment_video(Network(interrupted_at=0), source, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_while_the_file_is_ended_waits_for_it(tmp_path, monkeypatch, name):
    finish, number = VideoWriter.finish, getattr(signal, name)

    def interrupted(self):
        signal.raise_signal(number)
        finish(self)

    monkeypatch.setattr(VideoWriter, "finish", interrupted)
    source, target = record(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), ending_on_signals([number]):
        segment_video(Network(), source, target)
    assert read(target)[1] == STEADY
    assert {one.name for one in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}


def test_failing_file_leaves_what_is_there(tmp_path, monkeypatch):
    source, target = record(tmp_path / "clip.mp4"), tmp_path / "out.mp4"

    def fail(done, _):
        if done == 4:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        segment_video(Network(), source, target, progress=fail)
    assert read(tmp_path / "out.partial.mp4")[1] == STEADY[:4]
    (tmp_path / "out.partial.mp4").unlink()
    monkeypatch.setattr(VideoWriter, "finish", lambda self: fail(4, None))
    with pytest.raises(OSError, match="no space left"):
        segment_video(Network(), source, target, progress=fail)
    assert [one.name for one in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
def test_command_that_is_terminated_keeps_what_it_has(tmp_path):
    class Terminated(Network):
        def predict(self, *image, **options):
            if len(self.seen) == 3:
                signal.raise_signal(signal.SIGTERM)
            return super().predict(*image, **options)

    arguments = argparse.Namespace(output=tmp_path, overwrite=False, memory_limit=1)
    source = record(tmp_path / "clip.mp4")
    with pytest.raises(KeyboardInterrupt) as raised:
        command.segment_clip(source, arguments, Terminated(), None)
    assert raised.value.args == (signal.SIGTERM,)
    assert read(tmp_path / "clip.overlay.partial.mp4")[1] == STEADY[:3]
    names = {one.name for one in tmp_path.iterdir()}
    assert names == {"clip.mp4", "clip.overlay.partial.mp4"}


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


@pytest.mark.parametrize("mode", ["P", "L", "RGBA"])
def test_pictures_of_any_mode_can_be_drawn(tmp_path, mode):
    source, target = record(tmp_path / "clip.mp4", STEADY[:2]), tmp_path / "out.mp4"
    drawn = Image.new("RGB", (48, 36), "red").convert(mode)
    assert segment_video(Network(), source, target, draw=lambda _: drawn) == 2
    assert (read(target)[0][0].std(axis=(0, 1)) < 2).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([None], "draw must return a PIL image, not None"),
        ([(48, 36), (48, 38)], "this is one of 48 x 38 pixels, but before they had 48 x 36"),
    ],
)
def test_drawings_that_are_none_are_refused(tmp_path, sizes, message):
    source, drawn = record(tmp_path / "clip.mp4"), iter(sizes)
    with pytest.raises(ValueError, match=message):
        segment_video(
            Network(),
            source,
            tmp_path / "out.mp4",
            draw=lambda _: (size := next(drawn)) and Image.new("RGB", size),
        )
    assert [one.name for one in tmp_path.iterdir()] == ["clip.mp4"]
