"""Video: every picture of a film segmented, and its overlay written as another film."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccnet.console import require_extra, signals_held
from ccnet.files import atomic_write, irregularity, user_path
from ccnet.inference.memory import DEFAULT_LIMIT
from ccnet.inference.protocol import InferenceProtocol
from ccnet.inference.result import Segmentation
from ccnet.schema import shown
from ccnet.video.reading import expected_pictures, open_video, pictures_of
from ccnet.video.writing import ENCODERS, VideoWriter

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
    }
)
"""Of files that are read."""


class Segmenter(Protocol):
    """A network with `predict`."""

    def predict(
        self, image: Any, protocol: InferenceProtocol | None = None, *, memory_limit: float | None
    ) -> Segmentation:
        """Segments an image."""
        ...


def is_video_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the suffix of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def segment_video(
    model: Segmenter,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    protocol: InferenceProtocol | None = None,
    *,
    draw: Callable[[Segmentation], Image.Image] = Segmentation.overlay,
    replace: bool = True,
    memory_limit: float | None = DEFAULT_LIMIT,
    progress: Callable[[int, int | None], object] = lambda done, expected: None,
) -> int:
    """Segments a video picture by picture, and writes what is drawn of them as a video.

    Each picture is shown as long as that of the source, upright, in the same proportions; the first
    sound track is copied where the new file can hold it, and else left out, with a warning. A side
    of an odd number of pixels gets one more, a repeated one: so the common pixel format needs it.
    Memory holds a few pictures, whatever the length.

    On KeyboardInterrupt, or if a file cannot be read or written, the pictures so far are kept where
    that can be, as NAME.partial.SUFFIX, which can be played. While a file is being ended, signals
    wait for it.

    Args:
        model: the network.
        source: path of a video.
        target: path of the new one, .mp4, .m4v, .mov or .mkv (H.264), or .webm (VP9).
        protocol: the options of inference; None for the network's own.
        draw: makes an image from the segmentation of a picture; all are to be of one size.
        replace: whether to replace a file at `target`.
        memory_limit: GiB that each picture may take; see `CCNet.predict`.
        progress: called after each picture with their number so far, and in all, which is an
            estimate, and None if nothing is known.

    Returns:
        The number of pictures.

    Raises:
        FileNotFoundError: if there is no file at `source`.
        FileExistsError: if there is one at `target`, and it is not to be replaced.
        OSError: if the new file cannot be written.
        ValueError: if the video cannot be read or has no pictures, the target has another suffix,
            is the source, PyAV, the extra `video`, is missing, or what is drawn is no image or has
            another size than what was drawn of a picture as large.
    """
    source, target = user_path(source), user_path(target)
    check_video(source, target, replace=replace)
    with (
        ExitStack() as end,
        open_video(source) as video,
        atomic_write(target, replace=replace) as temporary,
    ):
        writer = VideoWriter(temporary, target, video)
        expected = expected_pictures(video)
        try:
            for picture in pictures_of(video, source, writer.copy_sound):
                result = model.predict(picture.array, protocol, memory_limit=memory_limit)
                writer.write(_pixels_of(draw(result)), picture)
                progress(writer.pictures, expected)
            if not writer.pictures:
                raise ValueError(f"{source} has no picture that can be decoded")
            end.enter_context(signals_held())
            writer.finish()
        except (KeyboardInterrupt, OSError):
            if writer.pictures and not writer.is_finishing:
                end.enter_context(signals_held())
                _keep(writer, temporary, target.with_suffix(f".partial{target.suffix}"))
            raise
        finally:
            writer.abandon()
    return writer.pictures


def check_video(source: Path, target: Path, *, replace: bool) -> None:
    """Checks what can be known before a network is built.

    Raises:
        OSError: as `segment_video`.
        ValueError: as `segment_video`.
    """
    require_extra("video", ["av"])
    if target.suffix.lower() not in ENCODERS:
        raise ValueError(
            f"a video can be written as {', '.join(ENCODERS)}, not as {target}: "
            f"choose a name such as {target.with_suffix('.mp4')}"
        )
    if not source.exists():
        raise FileNotFoundError(f"no video at {source}")
    if problem := irregularity(source):
        raise ValueError(f"{source} cannot be read as a video: {problem}")
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the video itself: choose another name for the result")
    if problem := irregularity(target):
        raise ValueError(f"{target} is not replaced: {problem}")
    if target.exists() and not replace:
        raise FileExistsError(f"{target} exists: choose another name, or have it replaced")
    open_video(source).close()


def _pixels_of(drawn: Any) -> NDArray[np.uint8]:
    """What was drawn as RGB: (H, W, 3)."""
    pixels = np.asarray(drawn.convert("RGB") if isinstance(drawn, Image.Image) else drawn)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"draw must return a PIL image, not {shown(drawn)}")
    return pixels


def _keep(writer: VideoWriter, temporary: Path, part: Path) -> None:
    """Ends a file before its time, and gives it another name, if that can be done."""
    try:
        writer.finish()
        with atomic_write(part) as place:
            temporary.replace(place)
    except OSError as error:
        logger.warning("the first %d pictures are lost: %s", writer.pictures, error)
    else:
        logger.warning("the first %d pictures are in %s", writer.pictures, part)
