"""Image files on the command line: expansion of arguments, file names of the results."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""File name suffixes of images in a folder; upper and lower case match."""


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

    @property
    def is_done(self) -> bool:
        """Whether both results exist."""
        return self.overlay.exists() and self.labels.exists()


def find_jobs(arguments: Iterable[str], output: Path) -> tuple[list[Job], list[str]]:
    """Finds the image files that arguments name, each once.

    Subfolders of the folder that all arguments have in common are recreated in `output`. Images in
    one folder whose names differ only in the suffix keep it in the names of their results, so that
    no two images share a result. Results of other images, found among the images, are skipped.

    Args:
        arguments: files, folders (searched recursively for `SUFFIXES`) and glob patterns, in which
            ** matches any folders.
        output: the folder of the results.

    Returns:
        The images with their results, and error messages: arguments without an image and folders
        that cannot be read.
    """
    pictures: dict[Path, Path] = {}
    roots, failures = [], []
    for argument in arguments:
        root, named = _expand(argument)
        if not named:
            failures.append(f"no image at {argument}, and no file matches it as a pattern")
            continue
        roots.append(_absolute(root))
        for path in named:
            found = _below(path, failures) if path.is_dir() else [path]
            if not found:
                failures.append(f"no images in {path}")
            pictures.update({_absolute(picture): picture for picture in found})
    # Names must differ for "a.png" and "a.jpg", and for "a.jpg.png" and "a.jpg" with its suffix.
    names = Counter(path.with_suffix("") for path in pictures)
    names.update(path for path in pictures if path.suffix)
    jobs = {}
    for path, picture in pictures.items():
        name = path.relative_to(os.path.commonpath(roots))
        stem = name.with_suffix("")
        jobs[path] = Job(picture, output, str(stem if names[path.with_suffix("")] == 1 else name))
    results = {_absolute(path) for job in jobs.values() for path in (job.overlay, job.labels)}
    return [job for path, job in jobs.items() if path not in results], failures


def _expand(argument: str) -> tuple[Path, list[Path]]:
    """Returns the root folder of an argument, and the files and folders that it names."""
    path = Path(argument)
    # A file may be named "street [1].jpg": only a path that does not exist is a pattern.
    if os.path.lexists(path):
        return (path if path.is_dir() else path.parent), [path]
    root = Path(*takewhile(lambda part: not set("*?[") & set(part), path.parts))
    if root == path:
        return root, []
    found = root.glob(str(path.relative_to(root)))
    return root, sorted(path for path in found if not path.name.startswith("."))


def _below(folder: Path, failures: list[str]) -> list[Path]:
    """Finds all paths with an image suffix, even folders: decoding one reports an error."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=lambda e: failures.append(str(e))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (*folders, *(name for name in files if not name.startswith(".")))
        found += [Path(parent, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
    return sorted(found)


def _absolute(path: Path) -> Path:
    """Removes ".." but keeps symbolic links: a link is an image of its own."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
