"""Video files read: the pictures of the first video stream, upright, with their times."""

import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.schema import reason_of

logger = logging.getLogger(__name__)


class Picture:
    """A decoded picture.

    Attributes:
        array: (H, W, 3), uint8, RGB, turned and mirrored as the file says that it is shown.
        is_turned: whether height and width have changed places for that.
        time: in units of `time_base`; None if the file does not say it.
        time_base: in seconds.
    """

    def __init__(self, frame: Any) -> None:
        along, tilt, shear, down = _display_matrix(frame)
        array = frame.to_ndarray(format="rgb24")
        self.is_turned = abs(tilt) > abs(along)
        if self.is_turned:
            array, along, down = array.transpose(1, 0, 2), shear, tilt
        mirrors = [slice(None, None, -1 if scale < 0 else 1) for scale in (down, along)]
        self.array = np.ascontiguousarray(array[tuple(mirrors)])
        self.time: int | None = frame.pts
        self.time_base: Fraction = frame.time_base


def open_video(path: Path) -> Any:
    """Opens a video that has pictures; nothing but files is read, whatever it refers to.

    Returns:
        PyAV's container.

    Raises:
        ValueError: if it cannot be read, or has no pictures.
    """
    import av

    try:
        video = av.open(
            str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a video: {reason_in(error)}") from error
    if (stream := main_stream(video)) is not None:
        stream.thread_type = "AUTO"
        return video
    kinds = sorted({one.type for one in video.streams} - {"video"})
    video.close()
    raise ValueError(f"{path} has no pictures: it holds {' and '.join(kinds) or 'nothing'}")


def main_stream(video: Any) -> Any:
    """Returns the first video stream, but no still picture such as a cover; None without one."""
    from av.stream import Disposition

    moving = (one for one in video.streams.video if not one.disposition & Disposition.attached_pic)
    return next(moving, None)


def pictures_of(video: Any, path: Path, sound: Callable[[Any], None]) -> Iterator[Picture]:
    """Decodes the first video stream; packets of the first sound track go to `sound`.

    What is damaged is passed over, and a warning says how many pictures there were.
    """
    import av

    stream, damaged, found = main_stream(video), 0, 0
    for packet in _packets(video):
        if packet.stream.type == "audio":
            sound(packet)
            continue
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged += 1
            continue
        for frame in frames:
            found += 1
            yield Picture(frame)
    if damaged or found < stream.frames:
        counted = f" of {stream.frames}" if stream.frames else ""
        logger.warning("%s is damaged: only %d%s pictures can be read", path, found, counted)


def expected_pictures(video: Any) -> int | None:
    """The number of pictures: what the file says, or an estimate; None if nothing is known."""
    import av

    stream = main_stream(video)
    if stream.frames or not (video.duration and stream.average_rate):
        return stream.frames or None
    return int(video.duration * stream.average_rate / av.time_base)


def reason_in(error: Exception) -> str:
    """What an error of FFmpeg says, without number and path."""
    return getattr(error, "strerror", None) or reason_of(error)


def _display_matrix(frame: Any) -> tuple[int, ...]:
    """How a frame is shown: (a, b, c, d), which take x, y to ax + cy, bx + dy, in any unit."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data)[:20], "=i4").tolist()
            return a, b, c, d
    return 1, 0, 0, 1


def _packets(video: Any) -> Iterator[Any]:
    """The packets of the first video stream and sound track, as far as the file can be read."""
    import av

    packets = video.demux([main_stream(video), *video.streams.audio[:1]])
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.FFmpegError):
            return
