"""Sound of a video, copied into another file packet by packet, without being decoded."""

import io
import logging
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_USUAL_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""By the number of channels less 1, where a file does not say which they are."""


class SoundCopy:
    """Copies a sound track.

    Args:
        output: PyAV's container of the new file.
        track: the stream to copy.
        target: what the file will be called.
        beginnings: how many seconds later each part of the film is than its own times say. The
            caller adds one where times go back, as in films that were joined.
        tolerance: by how many seconds times may go back within a part.

    Raises:
        ValueError: if the new file cannot hold it.
    """

    def __init__(
        self,
        output: Any,
        track: Any,
        target: Path,
        beginnings: list[Fraction],
        tolerance: Fraction,
    ) -> None:
        _check_header(output.format.name, track)
        self._output, self._target = output, target
        self._stream = _add_copy(output, track)
        self._beginnings, self._tolerance = beginnings, tolerance
        self._waiting: deque[Any] = deque()
        self._last: Fraction | None = None
        self._part = self._left_out = 0

    def add(self, packet: Any) -> None:
        """Takes a packet of the track, which `write` writes."""
        if packet.dts is not None:
            packet.stream = self._stream
            self._waiting.append(packet)

    def write(self, *, is_end: bool = False) -> None:
        """Writes the packets of all parts that have begun; at the end all there are.

        Raises:
            av.FFmpegError: if the file cannot be written. Packets that it refuses are left out.
        """
        import av

        while self._waiting:
            packet = self._waiting[0]
            time = packet.dts * packet.time_base
            if self._last is not None and time < self._last - self._tolerance:
                if self._part + 1 == len(self._beginnings) and not is_end:
                    return  # the picture with which this part begins is still to come
                self._part = min(self._part + 1, len(self._beginnings) - 1)
            self._last = time
            later = round(self._beginnings[self._part] / packet.time_base)
            packet.dts += later
            packet.pts = packet.dts if packet.pts is None else packet.pts + later
            self._waiting.popleft()
            try:
                self._output.mux_one(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError):
                self._left_out += 1

    def finish(self) -> None:
        """Writes what is left, and warns if packets were left out."""
        self.write(is_end=True)
        if self._left_out:
            logger.warning(
                "%s lacks some sound: %d packets of it are damaged, or overlap with others",
                self._target,
                self._left_out,
            )


def _add_copy(output: Any, track: Any) -> Any:
    stream = output.add_stream_from_template(track)
    channels = track.codec_context.channels
    if track.codec_context.layout.name == f"{channels} channels":
        if channels > len(_USUAL_LAYOUTS):
            raise ValueError(f"{channels} channels of which the file does not say what they are")
        stream.codec_context.layout = _USUAL_LAYOUTS[channels - 1]
    return stream


def _check_header(container: str, track: Any) -> None:
    """Tries to begin such a file in memory: not all that a container can hold has a use in it."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=container) as file:
            _add_copy(file, track)
            file.start_encoding()
    except av.FFmpegError as error:
        raise ValueError(f"{container} cannot hold {track.codec_context.name}") from error
