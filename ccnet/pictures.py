"""Which pictures a command line means, and what the results of each are called."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""Of what is taken for a picture in a folder, in small or capital letters."""


@dataclass(frozen=True)
class Job:
    """A picture and its results.

    Attributes:
        picture: the file.
        output: the folder of all results.
        name: the beginning of the results' names, with the folders below `output`.
    """

    picture: Path
    output: Path
    name: str

    @property
    def overlay(self) -> Path:
        """The PNG of the classes over the picture."""
        return self.output / f"{self.name}.overlay.png"

    @property
    def labels(self) -> Path:
        """The indexed PNG of the classes."""
        return self.output / f"{self.name}.labels.png"

    @property
    def is_done(self) -> bool:
        """Whether both results exist."""
        return self.overlay.exists() and self.labels.exists()


def find_jobs(arguments: Iterable[str], output: Path) -> tuple[list[Job], list[str]]:
    """The pictures that are meant, each once, and why arguments stand for none.

    Folders below the one that all arguments have in common come again in `output`. Pictures of one
    folder that differ in their suffix alone keep it in their results' names, so that no two
    pictures share a result. Results of others that lie among the pictures are left out.

    Args:
        arguments: files, folders (with all that lies below them and has one of `SUFFIXES`) and
            patterns, in which ** stands for any folders.
        output: the folder of the results.
    """
    pictures: dict[Path, Path] = {}
    roots, failures = [], []
    for argument in arguments:
        root, named = _expand(argument)
        if not named:
            failures.append(f"no image at {argument}, nor any that matches it")
            continue
        roots.append(_absolute(root))
        for path in named:
            found = _below(path, failures) if path.is_dir() else [path]
            if not found:
                failures.append(f"no pictures in {path}")
            pictures.update({_absolute(picture): picture for picture in found})
    # A picture "a.png" must not be called like "a.jpg", nor "a.jpg.png" like "a.jpg" in full.
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
    """The files and folders that an argument means, and the folder that they lie below."""
    path = Path(argument)
    # A file may well be called "street [1].jpg": only what does not exist is a pattern.
    if os.path.lexists(path):
        return (path if path.is_dir() else path.parent), [path]
    root = Path(*takewhile(lambda part: not set("*?[") & set(part), path.parts))
    if root == path:
        return root, []
    found = root.glob(str(path.relative_to(root)))
    return root, sorted(path for path in found if not path.name.startswith("."))


def _below(folder: Path, failures: list[str]) -> list[Path]:
    """All that is called like a picture: if it is none, the user is to hear of it."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=lambda e: failures.append(str(e))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (*folders, *(name for name in files if not name.startswith(".")))
        found += [Path(parent, name) for name in names if Path(name).suffix.lower() in SUFFIXES]
    return sorted(found)


def _absolute(path: Path) -> Path:
    """Without "..", but with symbolic links as they are: a link is a picture of its own."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
