"""Image files on the command line: expansion of arguments, file names of the results."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from ccnet.files import is_url, user_path
from ccnet.images import is_picture_name
from ccnet.inference.marked_png import read_origin


@dataclass(frozen=True)
class Job:
    """An image file and its result files.

    Attributes:
        picture: path of the image.
        output: the folder of all results.
        name: prefix of the results' file names, including subfolders of `output`.
    """

    picture: Path
    output: Path
    name: str

    @property
    def overlay(self) -> Path:
        """Path of the overlay of the classes on the image, a PNG."""
        return self.output / f"{self.name}.overlay.png"

    @property
    def labels(self) -> Path:
        """Path of the label map, an indexed PNG."""
        return self.output / f"{self.name}.labels.png"


@dataclass
class Found:
    """What `find_jobs` has found.

    Attributes:
        jobs: the images with their results.
        failures: error messages: arguments without an image, folders that cannot be read.
        results: of this program, that are no images here.
        left_out: the number of other files in the folders, by suffix.
    """

    jobs: list[Job] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    results: set[Path] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe_left_out(self) -> list[str]:
        """Lines such as "left out: 3 files are no pictures, by suffix: 2 .txt, 1 .mov"."""
        lines = []
        if count := len(self.results):
            results = "1 result" if count == 1 else f"{count} results"
            lines.append(f"left out: {results} of this program")
        if self.left_out:
            kinds = [f"{count} {suffix}" for suffix, count in self.left_out.most_common()]
            total = self.left_out.total()
            be = "file is no picture" if total == 1 else "files are no pictures"
            lines.append(f"left out: {total} {be}, by suffix: {', '.join(kinds)}")
        return lines


def find_jobs(arguments: Iterable[str], output: Path) -> Found:
    """Finds the image files that arguments name, each once.

    Subfolders of the folder that all arguments have in common are recreated in `output`. Images in
    one folder whose names differ only in the suffix keep it in the names of their results, so that
    no two images share a result.

    Results of this program, which they say themselves, are no images where folders and patterns
    are searched. One that is named is an image, unless it is a result of another image of these.

    Args:
        arguments: files, folders (searched recursively for files with the suffix of a picture, but
            not for hidden ones) and glob patterns, in which ** matches any folders.
        output: the folder of the results.
    """
    pictures: dict[Path, Path] = {}
    named_results: set[Path] = set()
    roots, found = [], Found()
    for argument in arguments:
        try:
            root, named = _expand(argument)
        except (OSError, ValueError) as error:  # of a pattern such as "a**b"
            found.failures.append(f"no image at {argument}: {error}")
            continue
        if not named:
            reason = "and no file matches it as a pattern"
            reason = "which is a URL: download it first" if is_url(argument) else reason
            found.failures.append(f"no image at {argument}, {reason}")
            continue
        roots.append(_absolute(root))
        is_pattern = not os.path.lexists(user_path(argument))
        for path in named:
            inside = _below(path, found) if path.is_dir() else [path]
            if not inside:
                found.failures.append(f"no images in {path}")
            results = {_absolute(picture) for picture in inside if _is_result(picture)}
            (found.results if is_pattern or path.is_dir() else named_results).update(results)
            pictures.update({_absolute(picture): picture for picture in inside})
    found.results -= named_results
    for path in found.results:
        del pictures[path]
    found.jobs = _jobs(pictures, roots, output)
    if named_results:
        own = {os.path.realpath(path) for job in found.jobs for path in (job.overlay, job.labels)}
        found.results |= {path for path in named_results if os.path.realpath(path) in own}
        found.jobs = [job for job in found.jobs if _absolute(job.picture) not in found.results]
    return found


def _jobs(pictures: dict[Path, Path], roots: list[Path], output: Path) -> list[Job]:
    """Names the results of images, which are given by their absolute paths."""
    # Names must differ for "a.png" and "a.jpg", and for "a.jpg.png" and "a.jpg" with its suffix.
    names = Counter(path.with_suffix("") for path in pictures)
    names.update(path for path in pictures if path.suffix)
    jobs = []
    for path, picture in pictures.items():
        name = path.relative_to(os.path.commonpath(roots))
        stem = name.with_suffix("")
        jobs.append(Job(picture, output, str(stem if names[path.with_suffix("")] == 1 else name)))
    return jobs


def _expand(argument: str) -> tuple[Path, list[Path]]:
    """Returns the root folder of an argument, and the files and folders that it names."""
    path = user_path(argument)
    # A file may be named "street [1].jpg": only a path that does not exist is a pattern.
    if os.path.lexists(path):
        return (path if path.is_dir() else path.parent), [path]
    root = Path(*takewhile(lambda part: not set("*?[") & set(part), path.parts))
    if root == path:
        return root, []
    found = root.glob(str(path.relative_to(root)))
    return root, sorted(path for path in found if not path.name.startswith("."))


def _below(folder: Path, found: Found) -> list[Path]:
    """Finds all paths with the suffix of a picture, even folders: decoding one reports an error."""
    pictures = []
    for parent, folders, files in os.walk(folder, onerror=lambda e: found.failures.append(str(e))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [name for name in files if not name.startswith(".")]
        pictures += [Path(parent, name) for name in (*folders, *files) if is_picture_name(name)]
        others = [Path(name).suffix.lower() for name in files if not is_picture_name(name)]
        found.left_out.update(suffix or "without suffix" for suffix in others)
    return sorted(pictures)


def _is_result(path: Path) -> bool:
    """Whether a file is a result of this program, as it says itself."""
    try:
        return path.suffix.lower() == ".png" and read_origin(path) is not None
    except ValueError:
        return False


def _absolute(path: Path) -> Path:
    """Removes ".." but keeps symbolic links: a link is an image of its own."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
