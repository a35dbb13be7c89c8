"""Jobs: images with the file names of their results, each once."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from ccnet.jobs.outputs import OUTPUTS


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

    def path(self, kind: str) -> Path:
        """Path of a result, of one of the kinds in `OUTPUTS`."""
        return self.output / f"{self.name}{OUTPUTS[kind].suffix}"


@dataclass
class Folder:
    """Images in one folder.

    Attributes:
        given: its path, as it was given.
        names: of the files, sorted and each once.
        twins: stems of the results of several of them, which are named by the whole name.
    """

    given: Path
    names: list[str]
    twins: set[str]


class Jobs:
    """The jobs of all images: a sequence of which each is made when it is asked for.

    Only the names of the files are held, some 100 bytes each.

    Args:
        folders: the images, by the absolute path of their folder.
        root: the absolute path of the folder that all have in common.
        output: the folder of the results.
    """

    def __init__(self, folders: dict[str, Folder], root: str, output: Path) -> None:
        self._folders = list(folders.values())
        self._places = [os.path.relpath(path, root) for path in folders]
        self._ends = list(accumulate(len(folder.names) for folder in self._folders))
        self._output = output

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Job:
        folder, place, name = self._find(index)
        stem = stem_of(name)
        prefix = Path(place, name if stem in folder.twins else stem)
        return Job(folder.given / name, self._output, str(prefix))

    def __iter__(self) -> Iterator[Job]:
        return (self[index] for index in range(len(self)))

    def key(self, index: int) -> str:
        """Names an image among all, whichever others there are: its path from the common folder."""
        _, place, name = self._find(index)
        return Path(place, name).as_posix()

    def _find(self, index: int) -> tuple[Folder, str, str]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        folder = self._folders[number]
        return folder, self._places[number], folder.names[index - self._ends[number]]


def stem_of(name: str) -> str:
    """The name of a file without its suffix."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - a Path takes several times longer
