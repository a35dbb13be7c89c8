"""Sound of videos: copied where it can be, with the pictures that it belongs to."""

from itertools import pairwise

import pytest
from clips import STEADY, Network, read, record, sound_of

from ccnet.video import segment_video

COPIED = [
    ("aac", "clip.mp4", "out.mp4"),
    ("aac", "clip.mp4", "out.mkv"),
    ("pcm_s16le", "clip.mkv", "out.mp4"),
    ("pcm_s16le", "clip.mkv", "out.mov"),
    ("libopus", "clip.mkv", "out.webm"),
]


@pytest.mark.parametrize(("codec", "source", "target"), COPIED)
def test_sound_is_copied(tmp_path, caplog, codec, source, target):
    source = record(tmp_path / source, sound=codec)
    segment_video(Network(), source, tmp_path / target)
    assert sum(map(len, sound_of(source)[0])) > 50
    copied = b"".join(sound_of(tmp_path / target)[0])
    assert copied == b"".join(sound_of(source)[0])
    assert not caplog.records


@pytest.mark.parametrize(
    ("codec", "target"), [("aac", "out.webm"), ("libopus", "out.mov"), ("flac", "out.mov")]
)
def test_sound_that_cannot_be_held_is_left_out(tmp_path, caplog, codec, target):
    source = record(tmp_path / "clip.mkv", sound=codec)
    assert segment_video(Network(), source, tmp_path / target) == len(STEADY)
    assert sound_of(tmp_path / target)[0] == []
    name = codec.removeprefix("lib")
    assert f"{target} has no sound: it cannot hold that of the video, {name}" in caplog.text


def test_joined_films_follow_each_other(tmp_path):
    first, joined = record(tmp_path / "clip.ts", sound="aac"), tmp_path / "joined.ts"
    joined.write_bytes(2 * first.read_bytes())
    target = tmp_path / "out.mp4"
    assert segment_video(Network(), joined, target) == 20
    times = read(target)[1]
    assert times == [times[0] + 40 * index for index in range(20)]
    heard = sound_of(target)[1]
    assert heard[-1] - heard[0] > 700
    assert max(later - one for one, later in pairwise(heard)) < 50


def test_sound_that_overlaps_is_left_out_with_a_warning(tmp_path, caplog):
    first, joined = record(tmp_path / "clip.ts", STEADY[:5], sound="aac"), tmp_path / "joined.ts"
    joined.write_bytes(2 * first.read_bytes())
    assert segment_video(Network(), joined, tmp_path / "out.mp4") == 10
    assert "out.mp4 lacks some sound: " in caplog.text
    heard = sound_of(tmp_path / "out.mp4")[1]
    assert 500 < heard[-1] - heard[0] < 700
