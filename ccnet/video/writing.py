"""Video files written: pictures with their times, and the sound of another file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccnet.video.reading import Picture, main_stream, reason_in
from ccnet.video.sound import SoundCopy

logger = logging.getLogger(__name__)

ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "h264", {"crf": "18"}),
    ".m4v": ("mp4", "h264", {"crf": "18"}),
    ".mov": ("mov", "h264", {"crf": "18"}),
    ".mkv": ("matroska", "h264", {"crf": "18"}),
    ".webm": ("webm", "vp9", {"crf": "28", "b": "0", "deadline": "good", "cpu-used": "4"}),
}
"""By suffix, container, codec and its options: a quality, not a bit rate."""

_LIMITED, _BT709 = 1, 1
"""FFmpeg's numbers of the range and the colours of HD television."""

_USUAL_RATE = Fraction(25)

_GOES_BACK = 2
"""By how many pictures times go back where films were joined: by less, they are only inexact."""


class VideoWriter:
    """Writes a video; its size is that of the first picture.

    Args:
        path: of the file.
        target: what it will be called.
        video: PyAV's container of the original.

    Attributes:
        pictures: how many were written.
        is_finishing: whether `finish` was called.

    Raises:
        OSError: of all methods, if it cannot be written.
    """

    def __init__(self, path: Path, target: Path, video: Any) -> None:
        import av

        self.pictures, self.is_finishing = 0, False
        self._target, self._original = target, main_stream(video)
        container, codec, options = ENCODERS[target.suffix.lower()]
        self._output = av.open(str(path), "w", format=container)
        rate = self._original.average_rate or self._original.guessed_rate or _USUAL_RATE
        self._stream = self._output.add_stream(codec, rate=rate, options=options)
        self._step = 1 / Fraction(rate)
        self._beginnings = [Fraction(0)]  # in seconds; see `SoundCopy`
        self._sound = self._copied(video.streams.audio[0]) if video.streams.audio else None
        self._last: int | None = None
        self._sizes: dict[tuple[int, ...], tuple[int, int]] = {}  # drawn, by those of pictures

    def _copied(self, track: Any) -> SoundCopy | None:
        tolerance = _GOES_BACK * self._step
        try:
            return SoundCopy(self._output, track, self._target, self._beginnings, tolerance)
        except ValueError:
            name = track.codec_context.name
            told = "%s has no sound: it cannot hold that of the video, %s"
            logger.warning(told, self._target, name)
            return None

    def copy_sound(self, packet: Any) -> None:
        """Writes a packet of the original's sound, once the first picture has begun the file."""
        if self._sound is not None:
            self._sound.add(packet)
            if self.pictures:
                self._write_sound()

    def _write_sound(self) -> None:
        if self._sound is not None:
            with self._failing():
                self._sound.write()

    def write(self, pixels: NDArray[np.uint8], picture: Picture) -> None:
        """Writes an image (H, W, 3), uint8, RGB, at the time of a picture of the original."""
        import av

        height, width = pixels.shape[:2]
        usual = self._sizes.setdefault(picture.array.shape, (height, width))
        if usual != (height, width):
            raise ValueError(
                f"draw must return images of one size: this is one of {width} x {height} pixels, "
                f"but before they had {usual[1]} x {usual[0]}"
            )
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self.pictures:
            self._begin(pixels, picture)
        context = self._stream.codec_context
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            context.width, context.height, "yuv420p", dst_colorspace=_BT709
        )
        frame.pts, frame.time_base = self._time(picture), picture.time_base
        with self._failing():
            self._output.mux(self._stream.encode(frame))
        self.pictures += 1
        self._write_sound()

    def _begin(self, pixels: NDArray[np.uint8], picture: Picture) -> None:
        context, aspect = self._stream.codec_context, self._original.sample_aspect_ratio
        context.height, context.width = pixels.shape[:2]
        context.pix_fmt, context.time_base = "yuv420p", picture.time_base
        context.color_range, context.colorspace = _LIMITED, _BT709
        if aspect:
            context.sample_aspect_ratio = 1 / aspect if picture.is_turned else aspect

    def _time(self, picture: Picture) -> int:
        """The time of the picture, later than the last one's; a step later if there is none.

        Where times go back, another film has been joined, which is to follow the first.
        """
        if self._last is None:
            self._last = picture.time or 0
            return self._last
        base, last = picture.time_base, self._last
        step = max(1, round(self._step / base))
        time = last + step
        if picture.time is not None:
            time = picture.time + round(self._beginnings[-1] / base)
        if last - time >= _GOES_BACK * step:
            self._beginnings.append(self._beginnings[-1] + (last + step - time) * base)
            time = last + step
        self._last = max(time, last + 1)
        return self._last

    def finish(self) -> None:
        """Writes what the encoder still holds, and ends the file."""
        self.is_finishing = True
        with self._failing():
            self._output.mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.finish()
            self._output.close()

    def abandon(self) -> None:
        """Closes the file, whatever is in it; nothing if it is finished."""
        with suppress(Exception):
            self._output.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        import av

        try:
            yield
        except av.FFmpegError as error:
            raise OSError(f"{self._target} cannot be written: {reason_in(error)}") from error
