"""Outputs: the kinds of files that are made of a segmentation, by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ccnet.inference.marked_png import Origin, read_origin, save_marked
from ccnet.inference.result import Segmentation

Write = Callable[[Segmentation, Path, Origin, bool], None]
"""Writes a file that says its origin, in place of another one only if the last argument is true;
else raises FileExistsError where there is one."""


@dataclass(frozen=True)
class Output:
    """A kind of file.

    Attributes:
        suffix: of its name, after that of the picture.
        write: makes one.
        read: gives the origin that one says; None if there is none at the path. Raises ValueError
            if there is something else.
    """

    suffix: str
    write: Write
    read: Callable[[Path], Origin | None] = read_origin


def png(draw: Callable[[Segmentation], Image.Image], **options: Any) -> Write:
    """Returns what writes a drawing as a PNG; `options` are those of Pillow's writer."""

    def write(result: Segmentation, path: Path, origin: Origin, replace: bool) -> None:
        save_marked(draw(result), path, origin, replace=replace, **options)

    return write


OUTPUTS = {
    "overlay": Output(".overlay.png", png(lambda result: result.overlay())),
    "labels": Output(".labels.png", png(lambda result: result.colorize(), optimize=True)),
}
"""All kinds, in the order in which they are written."""


def named_outputs(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of outputs, each once, in the order in which they are written.

    Raises:
        ValueError: if there is none, or no such output.
    """
    given = [name.strip() for name in names]
    unknown = [name for name in given if name not in OUTPUTS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(OUTPUTS)}")
    return tuple(name for name in OUTPUTS if name in given)
