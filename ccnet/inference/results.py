"""Results of a picture: the files of a job, of which picture they are, and what made them."""

from dataclasses import replace
from enum import Enum
from pathlib import Path

from ccnet.files import sha256_of
from ccnet.images import check_is_file
from ccnet.inference.image_files import Job
from ccnet.inference.marked_png import Origin, read_origin, save_marked
from ccnet.inference.result import Segmentation


class Standing(Enum):
    """Which results a picture has already."""

    NONE = "none, or the first of two"
    SAME = "of this picture, these weights and options"
    OTHER = "of this picture, but of other weights or options"
    UNKNOWN = "they do not say of which picture, as of earlier versions"


def origin_of(picture: Path, maker: Origin) -> Origin:
    """What a result of a picture says.

    Args:
        picture: its path.
        maker: weights and protocol.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if there is no regular file.
    """
    check_is_file(picture)
    return replace(maker, picture=sha256_of(picture))


def standing(job: Job, origin: Origin) -> Standing:
    """Looks which results there are.

    Args:
        job: the picture with the paths of its results.
        origin: what they are to say.

    Raises:
        ValueError: if there are files in the way: what is no result, results of another picture,
            or two that are not of one run.
    """
    found = {path: read_origin(path) for path in (job.overlay, job.labels)}
    present = {path: its for path, its in found.items() if its is not None}
    for path, its in present.items():
        if its.picture not in ("", origin.picture):
            raise ValueError(
                f"{path} is the result of another picture, or of this one before it was changed: "
                "choose another --output, or replace it by --overwrite"
            )
    if not present or list(present.values()) == [origin]:
        return Standing.NONE
    if len(present) == 1 or len(set(present.values())) > 1:
        raise ValueError(
            f"{' and '.join(map(str, present))} {'are' if len(present) > 1 else 'is'} not of one "
            "run with these weights and options: make both anew by --overwrite"
        )
    its = present[job.overlay]
    if its == origin:
        return Standing.SAME
    return Standing.OTHER if its.picture else Standing.UNKNOWN


def save_results(job: Job, result: Segmentation, origin: Origin, *, overwrite: bool) -> None:
    """Writes overlay and label map.

    Several processes may do that at once: who writes the overlay first has the picture. Nothing of
    the same origin is written again.

    Args:
        job: the picture with the paths of its results.
        result: the segmentation of the picture.
        origin: what the files say.
        overwrite: whether to replace results of any origin.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if there are files in the way, or another process writes them at this moment.
    """
    files = {
        job.overlay: (result.overlay, {}),
        job.labels: (result.colorize, {"optimize": True}),
    }
    for path, (draw, options) in files.items():
        found = read_origin(path)
        if overwrite or found is None:
            try:
                save_marked(draw(), path, origin, replace=overwrite, **options)
            except FileExistsError:
                if read_origin(path) is None:
                    raise
        _check_is_ours(path, origin)
    for path in files:
        _check_is_ours(path, origin)


def _check_is_ours(path: Path, origin: Origin) -> None:
    if read_origin(path) != origin:
        raise ValueError(
            f"{path} was written by another run meanwhile: choose another --output, or run again "
            "with --overwrite when that one has ended"
        )
