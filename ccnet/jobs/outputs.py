"""Outputs: the kinds of files that are made of a segmentation, by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ccnet.console import require_extra
from ccnet.inference.annotations import read_coco_origin
from ccnet.inference.marked_png import Origin, read_origin, save_marked
from ccnet.inference.result import Segmentation

Write = Callable[[Segmentation, Path, Path, Origin, bool], None]
"""Writes what is made of a picture, whose path comes first, to a path. The file says its origin and
replaces another one only if the last argument is true; else raises FileExistsError where there is
one."""


@dataclass(frozen=True)
class Output:
    """A kind of file.

    Attributes:
        suffix: of its name, after that of the picture.
        write: makes one.
        extra: of this package that it needs, and the modules of that.
        read: gives the origin that one says; None if there is none at the path. Raises ValueError
            if there is something else.
    """

    suffix: str
    write: Write
    extra: tuple[str, tuple[str, ...]] | None = None
    read: Callable[[Path], Origin | None] = read_origin


def png(draw: Callable[[Segmentation], Image.Image], **options: Any) -> Write:
    """Returns what writes a drawing as a PNG; `options` are those of Pillow's writer."""

    def write(
        result: Segmentation, picture: Path, path: Path, origin: Origin, replace: bool
    ) -> None:
        save_marked(draw(result), path, origin, replace=replace, **options)

    return write


def coco(segmentation: str) -> Write:
    """Returns what writes annotations in COCO's format."""

    def write(
        result: Segmentation, picture: Path, path: Path, origin: Origin, replace: bool
    ) -> None:
        result.save_coco(path, picture.name, segmentation, origin=origin, replace=replace)

    return write


OUTPUTS = {
    "overlay": Output(".overlay.png", png(lambda result: result.overlay())),
    "legend": Output(".legend.png", png(lambda result: result.overlay(legend=True, outlines=True))),
    "labels": Output(".labels.png", png(lambda result: result.colorize(), optimize=True)),
    "polygons": Output(".polygons.json", coco("polygons"), read=read_coco_origin),
    "rle": Output(".rle.json", coco("rle"), ("coco", ("pycocotools",)), read_coco_origin),
}
"""All kinds, in the order in which they are written."""

USUAL = ("overlay", "labels")
"""Those that are written unless told otherwise."""


def named_outputs(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of outputs, each once, in the order in which they are written.

    Raises:
        ValueError: if there is none, or no such output, or an extra that one needs is missing.
    """
    given = [name.strip() for name in names]
    unknown = [name for name in given if name not in OUTPUTS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(OUTPUTS)}")
    for name in given:
        if extra := OUTPUTS[name].extra:
            require_extra(*extra)
    return tuple(name for name in OUTPUTS if name in given)
