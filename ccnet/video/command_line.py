"""The part of `ccnet predict` that is for a video: one film in, one film out."""

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from ccnet.console import ENDS, ending_on_second_interrupt, ending_on_signals, printable
from ccnet.files import user_path
from ccnet.inference import InferenceProtocol
from ccnet.video.film import Segmenter, check_video, is_video_name, segment_video


def video_of(arguments: argparse.Namespace) -> Path | None:
    """Returns the path of the video, if the command line is for one."""
    if len(arguments.images) != 1:
        return None
    path = user_path(arguments.images[0])
    return path if is_video_name(path) and not path.is_dir() else None


def target_of(video: Path, output: Path) -> Path:
    """Returns the path of the result: a video, or NAME.overlay.mp4 or so in a folder."""
    if is_video_name(output) and not output.is_dir():
        return output
    suffix = video.suffix if video.suffix.lower() in (".mkv", ".mov", ".webm") else ".mp4"
    return output / f"{video.stem}.overlay{suffix}"


def check_clip(video: Path, arguments: argparse.Namespace) -> None:
    """Checks all that can be before a network is built.

    Raises:
        OSError: if there is no such file, or one in the way.
        ValueError: if it is no video, the result cannot be written, or PyAV is missing.
    """
    target = target_of(video, arguments.output)
    if target.exists() and not arguments.overwrite:
        raise FileExistsError(f"{target} exists: replace it by --overwrite, or choose another name")
    check_video(video, target, replace=True)


def segment_clip(
    video: Path, arguments: argparse.Namespace, model: Segmenter, protocol: InferenceProtocol
) -> None:
    """Segments a video with a progress bar, and says what was made.

    Raises:
        KeyboardInterrupt: if a signal arrives that is to end it; the pictures so far are kept.
        OSError: as `segment_video`.
        ValueError: as `segment_video`.
    """
    target = target_of(video, arguments.output)
    start = time.perf_counter()
    with (
        ending_on_second_interrupt(),
        ending_on_signals(ENDS),
        tqdm(unit=" pictures", disable=None) as bar,
    ):

        def advance(done: int, expected: int | None) -> None:
            bar.total = expected if expected is None else max(done, expected)
            bar.update()

        pictures = segment_video(
            model,
            video,
            target,
            protocol,
            replace=arguments.overwrite,
            memory_limit=arguments.memory_limit,
            progress=advance,
        )
    seconds = time.perf_counter() - start
    count = "1 picture" if pictures == 1 else f"{pictures} pictures"
    print(f"{printable(video.name)}: {count} in {seconds:.1f} s")
    print(f"  video       {printable(target)}")
