"""ClassFolder: images of classes, in a folder or a zip archive, to pre-train a backbone on."""

import hashlib
import io
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from ccnet.datasets.identity import identify_file
from ccnet.distributed import rank
from ccnet.files import atomic_write, file_state, user_path
from ccnet.images import UNREADABLE, decode_image, is_picture_name
from ccnet.images.formats import open_picture, quiet

logger = logging.getLogger(__name__)

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
"""Names of folders that hold folders of classes, in place of images of one."""

LONGEST_REPORT = 10
"""Maximum number of files that an error message lists."""


class ClassFolder(Dataset[tuple[Tensor, int]]):
    """Images in one folder per class, `CLASS/NAME.jpg` or deeper, or a zip archive of that.

    Folders that all images share, such as `train/`, are passed over, and so are hidden files and
    files whose suffix is of no image format. All images are decoded once, scaled and cropped to
    squares of one size, into a file that is mapped into memory. Later uses of the same images find
    it; it can be removed at any time.

    A sample is an image (3, size, size), uint8, RGB in 0..255, and the number of its class.

    Args:
        source: the folder or the archive.
        cache: the folder of that file, which has 3 x size x size bytes per image.
        size: side of the images, in pixels: the shorter side is scaled to it, the middle is kept.
        progress: show a progress bar while decoding.

    Attributes:
        classes: the names of the folders, sorted.
        names: of the images, from the folder of their class on.
        labels: the number of each image's class.

    Raises:
        FileNotFoundError: if there is neither a folder nor an archive.
        ValueError: if it does not hold images of two classes or more, if its folders are splits, or
            if some images cannot be read.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        cache: str | os.PathLike[str],
        size: int,
        *,
        progress: bool = True,
    ) -> None:
        source = user_path(source)
        with ExitStack() as stack:
            stamps, decode = _open(source, stack)
            shown = [name for name in stamps if not _is_hidden(name)]
            names = sorted(filter(is_picture_name, shown))
            suffixes = (PurePosixPath(name).suffix for name in set(shown).difference(names))
            others = Counter(suffix or "without a suffix" for suffix in suffixes)
            if others and rank() == 0:
                kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
                logger.warning("%s: left out what is no picture by its suffix: %s", source, kinds)
            folders, shared = _class_folders(source, names)
            self.classes = sorted(set(folders))
            numbers = {name: number for number, name in enumerate(self.classes)}
            self.labels = [numbers[folder] for folder in folders]
            stamp = repr([size, *((name, stamps[name]) for name in names)])
            digest = hashlib.sha256(stamp.encode()).hexdigest()
            path = user_path(cache) / f"images-{digest[:16]}.npy"
            if (packed := _packed(path, (len(names), 3, size, size))) is None:
                _pack(path, source, names, decode, size, progress)
                packed = np.load(path, mmap_mode="r")
        self.images = packed
        self._folder = source if source.is_dir() else None
        self.names = [_within(name, shared) for name in names]
        self._files = [(name, stamps[name]) for name in names]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.array(self.images[index])), self.labels[index]

    def identify(self, index: int) -> dict[str, Any]:
        """Returns what tells a picture from others: equal in a folder and in an archive of it.

        But for pictures above 128 KiB: of an archive the checksum of the whole entry is known, of a
        folder that of both ends.
        """
        name, stamp = self._files[index]
        if self._folder:
            return {"name": self.names[index], "image": identify_file(self._folder / name)}
        size, checksum = stamp
        return {"name": self.names[index], "image": f"{size} {checksum:08x}"}


def _within(name: str, folders: int) -> str:
    return PurePosixPath(*PurePosixPath(name).parts[folders:]).as_posix()


def _open(
    source: Path, stack: ExitStack
) -> tuple[Mapping[str, tuple[int, ...]], Callable[[str], Tensor]]:
    """Returns what tells each file's contents from others, by its name, and a decoder of files."""
    if source.is_dir():
        files = [path for path in source.rglob("*") if path.is_file()]
        states = {path.relative_to(source).as_posix(): file_state(path) for path in files}
        return states, lambda name: decode_image(source / name)
    if not source.exists():
        raise FileNotFoundError(f"no folder or archive of classes at {source}")
    try:
        archive = stack.enter_context(zipfile.ZipFile(source))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source} is neither a folder nor an intact zip archive") from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    stamps = {entry.filename: (entry.file_size, entry.CRC) for entry in entries}
    return stamps, lambda name: _decode_entry(archive, name)


def _decode_entry(archive: zipfile.ZipFile, name: str) -> Tensor:
    with quiet(), open_picture(io.BytesIO(archive.read(name))) as file:
        return decode_image(file)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _class_folders(source: Path, names: list[str]) -> tuple[list[str], int]:
    """Returns the first folder of each image that not all share, its class; how many they share."""
    parents = [PurePosixPath(name).parent.parts for name in names]
    columns = zip(*parents, strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    folders = ["".join(parent[shared : shared + 1]) for parent in parents]
    if len(set(folders)) < 2 or "" in folders:
        alone = names[folders.index("")] if len(set(folders)) > 1 else None
        reason = f"{alone} is in none" if alone else f"{len(names)} images, no two classes"
        raise ValueError(f"{source} must hold a folder of images per class: {reason}")
    if SPLITS.issuperset(folder.lower() for folder in folders):
        found = " and ".join(sorted(set(folders)))
        raise ValueError(
            f"{source} must hold a folder of images per class, not one per split: give one of "
            f"{found} alone"
        )
    return folders, shared


def _packed(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Returns the images of an earlier use; None if there are none, or the file is damaged."""
    try:
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return None
    except (EOFError, ValueError):
        images = np.empty(0, np.uint8)
    if images.shape == shape and images.dtype == np.uint8:
        return images
    logger.warning("%s is damaged: the images are decoded again", path)
    return None


def _pack(
    path: Path,
    source: Path,
    names: list[str],
    decode: Callable[[str], Tensor],
    size: int,
    progress: bool,
) -> None:
    """Writes all images, (N, 3, size, size), uint8, as a NumPy file."""
    with atomic_write(path) as temporary:
        shape = len(names), 3, size, size
        packed = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def store(index: int) -> str | None:
            try:
                packed[index] = _square(decode(names[index]), size).numpy()
            except (*UNREADABLE, zipfile.BadZipFile) as error:
                return f"{names[index]}: {str(error).removeprefix(f'{source / names[index]} ')}"
            return None

        with (
            ThreadPoolExecutor() as pool,
            closing(pool.map(store, range(len(names)))) as results,  # type: ignore[type-var]
        ):  # an error or Ctrl-C cancels what has not begun
            hidden = None if progress else True
            bar = tqdm(results, "decoding", len(names), unit="image", disable=hidden)
            problems = [problem for problem in bar if problem]
        packed.flush()
        if problems:
            more = len(problems) - LONGEST_REPORT
            shown = problems[:LONGEST_REPORT] + ([f"... and {more} more"] if more > 0 else [])
            raise ValueError("\n  ".join([f"{source} has unreadable images:", *shown]))


def _square(image: Tensor, size: int) -> Tensor:
    if image.shape[-2:] == (size, size):
        return image
    height, width = image.shape[-2:]
    factor = size / min(height, width)
    scaled = [max(size, round(factor * side)) for side in (height, width)]
    square: Tensor = F.center_crop(F.resize(image, scaled, antialias=True), [size, size])
    return square
