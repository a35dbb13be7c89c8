"""Search for pictures: arguments of the command line become jobs."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path

from ccnet.files import irregularity, is_url, user_path
from ccnet.images.formats import picture_suffixes
from ccnet.jobs.jobs import Folder, Job, Jobs, stem_of
from ccnet.jobs.outputs import OUTPUTS

RECORDS = re.compile(r"results(\.[a-z0-9-]+\.[a-z0-9_]{8})?\.jsonl")
"""The names of files that hold a line for each of many results: one for all, or a part of it."""

_READERS = {Path(output.suffix).suffix: output.read for output in OUTPUTS.values()}
"""What reads the origin of a result, by the suffix of its file."""


@dataclass
class Found:
    """What `find_jobs` has found.

    Attributes:
        jobs: the images with their results; of those that are found in folders and by patterns
            some may be results themselves: see `is_result`.
        failures: error messages: arguments without an image, folders that cannot be read.
        results: the number of results of this program that are no images here, as far as known.
        left_out: the number of other files in the folders, by suffix.
        links: the number of links to folders in the folders, which are not followed.
        named_results: absolute paths of results that are images, since they are named.
    """

    jobs: Jobs
    failures: list[str] = field(default_factory=list)
    results: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    named_results: set[str] = field(default_factory=set)
    links: int = 0

    def is_result(self, job: Job) -> bool:
        """Whether a job is of a result of this program, which is no image here."""
        is_named = _absolute(job.picture) in self.named_results
        return is_record(job.picture) or (_is_result(job.picture) and not is_named)

    def count_pictures(self, most: int) -> int:
        """Counts the jobs that are of no results, up to `most`: files of so many are opened."""
        pictures = (job for job in self.jobs if not self.is_result(job))
        return sum(1 for _ in islice(pictures, most))

    def describe_left_out(self) -> list[str]:
        """Lines such as "left out: 3 files are no pictures, by suffix: 2 .txt, 1 .mov"."""
        lines = []
        if self.left_out:
            kinds = [f"{count} {suffix}" for suffix, count in self.left_out.most_common()]
            total = self.left_out.total()
            be = "file is no picture" if total == 1 else "files are no pictures"
            lines.append(f"left out: {total} {be}, by suffix: {', '.join(kinds)}")
        if self.links:
            links = "1 link to a folder" if self.links == 1 else f"{self.links} links to folders"
            lines.append(f"left out: {links}: name what is to be searched")
        return lines


def find_jobs(arguments: Iterable[str], output: Path) -> Found:
    """Finds the image files that arguments name, each once.

    Subfolders of the folder that all arguments have in common are recreated in `output`. Images in
    one folder whose names differ only in the suffix keep it in the names of their results, so that
    no two images share a result.

    Results of this program, which they say themselves, are no images where folders and patterns
    are searched. One that is named is an image, unless it is a result of another image of these.
    No file is opened here but PNGs and annotations that are named, or differ from another image in
    the suffix alone: whether others are results is asked when their turn comes.

    Args:
        arguments: files, folders (searched recursively for files with the suffix of a picture, but
            not for hidden ones) and glob patterns, in which ** matches any folders.
        output: the folder of the results.
    """
    search = _Search()
    for argument in arguments:
        try:
            search.add(argument)
        except (OSError, ValueError) as error:  # of a pattern such as "a**b"
            search.failures.append(f"no image at {argument}: {error}")
    return search.finish(output)


class _Search:
    """Collects the images of arguments, by folder."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.links = 0
        self.named_results: set[str] = set()
        self._roots: list[str] = []
        self._found: dict[str, tuple[Path, set[str]]] = {}

    def add(self, argument: str) -> None:
        """Adds the images of an argument."""
        path = user_path(argument)
        # A file may be named "street [1].jpg": only a path that does not exist is a pattern.
        if os.path.lexists(path):
            self._roots.append(_absolute(path if path.is_dir() else path.parent))
            self._add_path(path, is_named=True)
            return
        root = Path(*takewhile(lambda part: not set("*?[") & set(part), path.parts))
        count = 0
        if root != path:
            for match in root.glob(str(path.relative_to(root))):
                if not match.name.startswith("."):
                    self._add_path(match)
                    count += 1
        if count:
            self._roots.append(_absolute(root))
            return
        reason = "and no file matches it as a pattern"
        reason = "which is a URL: download it first" if is_url(argument) else reason
        self.failures.append(f"no image at {argument}, {reason}")

    def _add_path(self, path: Path, *, is_named: bool = False) -> None:
        if path.is_dir():
            if not self._add_below(path):
                self.failures.append(f"no images in {path}")
            return
        self._put(path.parent, [path.name])
        if is_named and _is_result(path):
            self.named_results.add(_absolute(path))

    def _add_below(self, folder: Path) -> int:
        """Adds all paths with the suffix of a picture, even folders: decoding reports an error."""
        pictures: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._sort_in(entry, pictures, folders)
        except OSError as error:
            self.failures.append(str(error))
        if pictures:
            self._put(folder, pictures)
        return len(pictures) + sum(self._add_below(folder / name) for name in sorted(folders))

    def _sort_in(self, entry: os.DirEntry[str], pictures: list[str], folders: list[str]) -> None:
        if entry.name.startswith("."):
            return
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder:
            folders.append(entry.name)
        suffix = _suffix(entry.name)
        if suffix in picture_suffixes():
            pictures.append(entry.name)
        elif is_folder:
            pass
        elif entry.is_dir():
            self.links += 1
        else:
            self.left_out[suffix or "without suffix"] += 1

    def _put(self, folder: Path, names: Iterable[str]) -> None:
        _, known = self._found.setdefault(_absolute(folder), (folder, set()))
        known.update(names)

    def finish(self, output: Path) -> Found:
        """Names the results of all images."""
        folders, count = {}, 0
        while self._found:
            place, (given, found) = self._found.popitem()
            names, twins = sorted(found), _twins_among(found)
            results = {name for name in twins if self._is_searched_result(given / name)}
            if results:
                names = [name for name in names if name not in results]
                twins, count = _twins_among(names), count + len(results)
            folders[place] = Folder(given, names, set(map(stem_of, twins)))
        folders = dict(reversed(folders.items()))
        root = os.path.commonpath(self._roots) if self._roots else ""
        if self.named_results:
            count += self._leave_out_own(folders, Jobs(folders, root, output))
        jobs = Jobs(folders, root, output)
        return Found(jobs, self.failures, count, self.left_out, self.named_results, self.links)

    def _is_searched_result(self, path: Path) -> bool:
        return _is_result(path) and _absolute(path) not in self.named_results

    def _leave_out_own(self, folders: dict[str, Folder], jobs: Jobs) -> int:
        """Removes named results of images among these; returns how many."""
        own = {os.path.realpath(job.path(kind)) for job in jobs for kind in OUTPUTS}
        removed = {path for path in self.named_results if os.path.realpath(path) in own}
        for path in map(Path, removed):
            folders[str(path.parent)].names.remove(path.name)
        self.named_results -= removed
        return len(removed)


def _twins_among(names: Collection[str]) -> list[str]:
    """Finds the names of which another one has the stem, or is the stem."""
    stems = set(map(stem_of, names))
    if len(stems) == len(names) and not any(name in stems for name in names if _suffix(name)):
        return []
    counts = Counter(map(stem_of, names))
    counts.update(name for name in names if name in stems and _suffix(name))
    return [name for name in names if counts[stem_of(name)] > 1]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _is_result(path: Path) -> bool:
    """Whether a file is a result of this program, as it says itself."""
    try:
        read = _READERS.get(path.suffix.lower())
        return read is not None and read(path) is not None
    except ValueError:
        return False


def is_record(path: Path) -> bool:
    """Whether a file holds records of results, by its name and its first bytes."""
    try:
        if not RECORDS.fullmatch(path.name) or irregularity(path):
            return False
        with path.open("rb") as file:
            return file.read(8) in (b"", b'{"name":')
    except OSError:
        return False


def _absolute(path: Path) -> str:
    """Removes ".." but keeps symbolic links: a link is an image of its own."""
    return os.path.abspath(path)  # noqa: PTH100 - resolve() follows links
