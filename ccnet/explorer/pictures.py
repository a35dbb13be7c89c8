"""Pictures of the explorer: rendered scenes, files of the command line, and what is uploaded."""

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccnet.datasets.street_scenes import StreetScenes
from ccnet.explorer.bounded import BoundedStore
from ccnet.files import file_state
from ccnet.images import UNREADABLE, decode_image
from ccnet.images.formats import open_picture, quiet
from ccnet.schema import reason_of

SEED, SCENES = 20181128, 4
"""Of the rendered scenes. Training uses small seeds, so no network was trained on them."""

MOST_BYTES = 32 * 2**20
"""Of an uploaded file."""

MOST_PIXELS = 50_000_000
"""Of an uploaded picture."""

MOST_SIDE = 1280
"""In pixels, of a picture as it is explored: larger ones are reduced."""

KEPT = 256 * 2**20
"""Bytes of pixels that are kept."""


class UnknownPictureError(ValueError):
    """There is no such picture, or it is no longer kept."""


class Pictures:
    """Pictures by their ids.

    Args:
        paths: of pictures to choose, before the rendered scenes.

    Attributes:
        names: of the pictures that can be chosen, by their ids.
    """

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        self._paths = {f"file-{index}": path for index, path in enumerate(paths)}
        self._scenes = StreetScenes(SCENES, seed=SEED)
        self._kept: BoundedStore[Tensor] = BoundedStore(KEPT, lambda pixels: pixels.nbytes)
        self.names = {key: path.name for key, path in self._paths.items()}
        self.names |= {f"scene-{index}": f"rendered street {index + 1}" for index in range(SCENES)}

    def add(self, content: bytes) -> str:
        """Keeps an uploaded picture, and returns its id, which only its content tells.

        Raises:
            ValueError: if it is too large, or no picture.
        """
        if len(content) > MOST_BYTES:
            raise ValueError(
                f"the file has {len(content) / 2**20:.0f} MiB, but may have {MOST_BYTES >> 20}"
            )
        if not content:
            raise ValueError("the file is empty")
        key = f"upload-{hashlib.sha256(content).hexdigest()}"
        self._kept.get_or_make(key, lambda: _decode(content))
        return key

    def get(self, key: str) -> Tensor:
        """Returns the pixels of a picture: (3, H, W), uint8, RGB, neither side over `MOST_SIDE`.

        Raises:
            OSError: if a file is gone.
            UnknownPictureError: if there is no such picture.
            ValueError: if a file is no picture, or too large.
        """
        if key in self.names:
            return self._kept.get_or_make((key, self.state(key)), lambda: self._make(key))
        pixels = self._kept.get(key)
        if pixels is None:
            raise UnknownPictureError("this picture is no longer kept: choose it again")
        return pixels

    def state(self, key: str) -> tuple[int, ...]:
        """What changes when the file of a picture is written again."""
        return file_state(self._paths[key]) if key in self._paths else ()

    def _make(self, key: str) -> Tensor:
        if key in self._paths:
            return _decode(self._paths[key].read_bytes())
        image: Tensor = self._scenes[int(key.removeprefix("scene-"))][0]
        return image.as_subclass(Tensor)


def _decode(content: bytes) -> Tensor:
    try:
        with quiet(), open_picture(io.BytesIO(content)) as picture:
            width, height = picture.size
    except UNREADABLE as error:
        is_large = isinstance(error, Image.DecompressionBombError)
        told = "is too large" if is_large else "cannot be read as a picture"
        raise ValueError(f"the file {told}: {reason_of(error)}") from error
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"the picture has {width} x {height} pixels, which is {width * height / 1e6:.0f} "
            f"million, but may have {MOST_PIXELS // 10**6} million"
        )
    pixels = decode_image(content)
    factor = MOST_SIDE / max(pixels.shape[-2:])
    if factor >= 1:
        return pixels
    height, width = (max(1, math.floor(side * factor + 0.5)) for side in pixels.shape[-2:])
    planes = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)
        for plane in pixels.numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))
