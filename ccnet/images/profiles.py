"""Colour profiles: conversion of an embedded one to sRGB, the colour space of the networks."""

import io
import logging
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from PIL import Image, features

logger = logging.getLogger(__name__)

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's mode for the colour space of a profile."""

NO_OPTIMIZATION = 0x0100
"""LittleCMS's flag, by the number that every version of Pillow takes."""

TOLERANCE = 2
"""Levels by which a profile may move a colour and still be sRGB: makers round its curve."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts a picture to sRGB by its profile, or as Pillow does without one.

    The intent is perceptual, the ICC's default, which profile makers tune for photographs; for the
    profiles of cameras and screens (three curves and a matrix) all intents are the same.

    A profile that is damaged or of another colour space than the picture is ignored. One that is
    sRGB itself changes nothing, not by rounding either.

    Args:
        image: of mode L, RGB, CMYK, LAB, or any that Pillow converts to RGB.
        profile: the ICC profile in its file.

    Returns:
        The picture, of mode RGB.

    Raises:
        ValueError: if the picture is CIELab and this build of Pillow has no colour management.
    """
    if image.mode == "LAB" or profile:
        source = image if image.mode in MODES.values() else image.convert("RGB")
        convert = _conversion(bytes(profile or b""), source.mode)
        if convert is not None:
            return convert(source)
        if image.mode == "LAB":
            raise ValueError("CIELab needs Pillow with LittleCMS; save it as RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """The conversion from a profile to sRGB, which threads may share; None if there is no need."""
    if not _has_color_management():
        return None
    from PIL import ImageCms

    # Of a grey picture only 256 values are converted: exactly, though that is slow.
    flags: Any = NO_OPTIMIZATION if mode == "L" else 0
    source = _source(profile, mode)
    if source is None:
        return None
    try:
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            flags,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode in ("L", "RGB") and _changes_nothing(transform, mode):
        return None
    return partial(_through_table, transform) if mode == "L" else transform.apply


def _source(profile: bytes, mode: str) -> Any:
    """The profile, opened; None if it is damaged or of another colour space than the picture."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if MODES.get(source.profile.xcolor_space.strip()) == mode:
            return source
    except (OSError, ValueError, TypeError):
        pass
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")) if mode == "LAB" else None


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Whether a transform moves no colour of a lattice by more than the tolerance."""
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    axes = np.meshgrid(*[levels] * len(mode))
    colors = Image.merge(mode, [Image.fromarray(axis.reshape(1, -1)) for axis in axes])
    moved = np.asarray(transform.apply(colors)).astype(int) - np.asarray(colors.convert("RGB"))
    return bool(np.abs(moved).max() <= TOLERANCE)


def _through_table(transform: Any, image: Image.Image) -> Image.Image:
    """Converts a grey picture by a table of its 256 values."""
    table = transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None]))
    return Image.merge("RGB", [image.point(list(band.tobytes())) for band in table.split()])


@cache
def _has_color_management() -> bool:
    available = features.check("littlecms2")
    if not available:
        logger.warning("colour profiles of pictures are ignored: this Pillow has no LittleCMS")
    return bool(available)
