"""Results of a picture: the files of a job, of which picture they are, and what made them."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from enum import Enum
from pathlib import Path

from ccnet.files import sha256_of
from ccnet.images import check_is_file
from ccnet.inference.marked_png import Origin
from ccnet.inference.result import Segmentation
from ccnet.jobs.jobs import Job
from ccnet.jobs.outputs import OUTPUTS, Output


class Standing(Enum):
    """Which results a picture has already."""

    NONE = "none, or not all of them"
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


def standing(job: Job, origin: Origin, kinds: Collection[str]) -> Standing:
    """Looks which results there are.

    Args:
        job: the picture with the paths of its results.
        origin: what they are to say.
        kinds: those that are asked for, one or more; others may be whatever they are.

    Raises:
        ValueError: if there are files in the way: what is no result, results of another picture,
            or some that are not of one run.
    """
    found = {job.path(kind): OUTPUTS[kind].read(job.path(kind)) for kind in kinds}
    present = {path: its for path, its in found.items() if its is not None}
    for path, its in present.items():
        if its.picture not in ("", origin.picture):
            raise ValueError(
                f"{path} is the result of another picture, or of this one before it was changed: "
                "choose another --output, or replace it by --overwrite"
            )
    is_whole = len(present) == len(kinds)
    origins = set(present.values())
    if not is_whole and origins <= {origin}:
        return Standing.NONE
    if not is_whole or len(origins) > 1:
        raise ValueError(
            f"{' and '.join(map(str, present))} {'are' if len(present) > 1 else 'is'} not of one "
            "run with these weights and options: make all anew by --overwrite"
        )
    (its,) = origins
    if its == origin:
        return Standing.SAME
    return Standing.OTHER if its.picture else Standing.UNKNOWN


def refuse_foreign(job: Job, kinds: Iterable[str]) -> None:
    """Raises ValueError if there is something in the way that is no result."""
    for kind in kinds:
        OUTPUTS[kind].read(job.path(kind))


def save_results(
    job: Job, result: Segmentation, origin: Origin, kinds: Iterable[str], *, overwrite: bool
) -> None:
    """Writes the results of a picture.

    Several processes may do that at once: who writes the first kind has the picture. Nothing of
    the same origin is written again.

    Args:
        job: the picture with the paths of its results.
        result: the segmentation of the picture.
        origin: what the files say.
        kinds: what to write.
        overwrite: whether to replace results of any origin.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if there are files in the way, or another process writes them at this moment.
    """
    files = {job.path(kind): OUTPUTS[kind] for kind in kinds}
    for path, output in files.items():
        if overwrite or output.read(path) is None:
            try:
                output.write(result, job.picture, path, origin, overwrite)
            except FileExistsError:
                if output.read(path) is None:
                    raise
        _check_is_ours(path, output, origin)


def check_results(job: Job, origin: Origin, kinds: Iterable[str]) -> None:
    """Raises ValueError if a result is not of an origin: another run has written it meanwhile."""
    for kind in kinds:
        _check_is_ours(job.path(kind), OUTPUTS[kind], origin)


def _check_is_ours(path: Path, output: Output, origin: Origin) -> None:
    if output.read(path) != origin:
        raise ValueError(
            f"{path} was written by another run meanwhile: choose another --output, or run again "
            "with --overwrite when that one has ended"
        )
