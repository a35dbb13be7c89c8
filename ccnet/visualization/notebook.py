"""Pictures for people: HTML for notebooks, of bounded size, and a window elsewhere."""

import os
import sys
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO

from PIL import Image, ImageShow

LARGEST_SIDE = 640
"""Of a picture in a notebook, in pixels: it is a JPEG of some 100 kB whatever it was."""


def reduced(picture: Image.Image) -> Image.Image:
    """Copies a picture, and reduces it until it fits into a square of `LARGEST_SIDE`."""
    small = picture.copy()
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return small


def pictures_html(pictures: Iterable[Image.Image], caption: str, legend: str = "") -> str:
    """Returns pictures beside one another as HTML that needs nothing else.

    Args:
        pictures: as `reduced` returns them.
        caption: text, which is escaped.
        legend: HTML.
    """
    shown = "".join(
        f'<img src="data:image/jpeg;base64,{_jpeg(picture)}" alt="" '
        'style="max-width:49%;margin-right:1%;vertical-align:top">'
        for picture in pictures
    )
    return (
        f'<figure style="margin:0"><div>{shown}</div>'
        f'<figcaption style="margin:.4em 0">{escape(caption)}</figcaption>'
        f"<div>{legend}</div></figure>"
    )


def open_window(picture: Image.Image) -> None:
    """Opens a picture in the desktop's viewer.

    Raises:
        OSError: if there is no display, or no viewer.
    """
    needs_display = sys.platform not in ("win32", "darwin", "cygwin")
    has_display = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if (needs_display and not has_display) or not ImageShow.show(picture):
        raise OSError(
            "there is no display to show it on: write it to a file, as in "
            'result.overlay(legend=True).save("overlay.png")'
        )


def is_notebook() -> bool:
    """Whether this Python is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _jpeg(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, "JPEG", quality=85, subsampling=0)
    return b64encode(file.getvalue()).decode()
