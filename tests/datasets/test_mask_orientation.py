"""Masks of images that EXIF orientation turns: drawn on the upright image or on stored pixels."""

import json
import logging
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from ccnet.datasets import MaskFolder

VALUES = np.zeros((6, 9), np.uint8)
VALUES[:2, :3], VALUES[4:, 7:] = 1, 2

UPRIGHT = {
    2: np.fliplr(VALUES),
    3: np.rot90(VALUES, 2),
    4: np.flipud(VALUES),
    5: VALUES.T,
    6: np.rot90(VALUES, -1),
    7: np.rot90(VALUES, 2).T,
    8: np.rot90(VALUES),
}
"""How viewers show the values that are stored with each EXIF orientation."""

KEEPS_SIZE = (2, 3, 4)


def save(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {".jpg": {"quality": 100}, ".webp": {"lossless": True}}.get(path.suffix, {})
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **lossless)


@pytest.fixture
def write(tmp_path):
    """Writes images with an orientation, and masks with one; gives back the folder."""

    def write(*pairs, choice=None, suffixes=("png", "png")):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir()
        for number, (orientation, mask, own) in enumerate(pairs):
            picture = np.dstack([80 * VALUES] * 3)
            save(tmp_path / "images" / f"{number}.{suffixes[0]}", picture, orientation)
            save(tmp_path / "masks" / f"{number}.{suffixes[1]}", mask, own)
        if choice:
            (tmp_path / "classes.json").write_text(json.dumps({"mask_orientation": choice}))
        return tmp_path

    return write


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def check(folder, index=0):
    """That labels are those of the upright image, whose red channel shows them."""
    image, labels = folder[index]
    assert labels.tolist() == np.rint(np.asarray(image[0]) / 80).astype(int).tolist()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("is_upright", [True, False], ids=["upright", "stored"])
def test_masks_fit_as_they_are_said_to_be_drawn(write, warned, suffix, orientation, is_upright):
    mask, choice = (UPRIGHT[orientation], "upright") if is_upright else (VALUES, "stored")
    root = write((orientation, mask, 1), choice=choice, suffixes=(suffix, "png"))
    check(MaskFolder(root))
    assert not warned()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_size_tells_how_a_mask_is_drawn(write, warned, orientation):
    folder = MaskFolder(write((orientation, VALUES, 1), (orientation, UPRIGHT[orientation], 1)))
    if orientation in KEEPS_SIZE:
        assert "2 of 2 images are turned or mirrored by an EXIF orientation" in warned()
        offered = '{"mask_orientation": "upright"} in classes.json, or "stored" there'
        assert f'taken as "upright"; give {offered}' in warned()
        check(folder, 1)
    else:
        assert not warned()
        check(folder, 0)
        check(folder, 1)


def xmp(orientation):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'


def png_text(orientation):
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp(orientation))
    return {"pnginfo": text}


def as_text(orientation):
    """EXIF data whose orientation is a string, which viewers ignore."""
    entry = struct.pack("<HHI4s", 0x0112, 2, 2, str(orientation).encode())
    return {"quality": 100, "exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)}


ODD_PLACES = {
    "XMP in a TIFF": ("tif", lambda turn: {"tiffinfo": {700: xmp(turn).encode()}}),
    "XMP in a compressed TIFF": (
        "tif",
        lambda turn: {"tiffinfo": {700: xmp(turn).encode()}, "compression": "tiff_lzw"},
    ),
    "XMP in a PNG": ("png", png_text),
    "text in a JPEG": ("jpg", as_text),
    "a rational number": ("tif", lambda turn: {"tiffinfo": rational(turn)}),
}


def rational(orientation):
    tags = ImageFileDirectory_v2()
    tags.tagtype[0x0112] = 5
    tags[0x0112] = IFDRational(orientation)
    return tags


@pytest.mark.parametrize(("suffix", "options"), ODD_PLACES.values(), ids=ODD_PLACES)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_image_and_mask_agree_on_odd_orientations(write, orientation, suffix, options):
    """Whether or not they are taken for one."""
    root = write((1, VALUES, 1), choice="stored", suffixes=(suffix, "png"))
    picture = Image.fromarray(np.dstack([80 * VALUES] * 3))
    picture.save(root / "images" / f"0.{suffix}", **options(orientation))
    check(MaskFolder(root))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_mask_with_the_orientation_of_its_image_is_turned_with_it(
    write, warned, orientation, suffix
):
    check(MaskFolder(write((orientation, VALUES, orientation), suffixes=("png", suffix))))
    assert not warned()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_with_an_orientation_of_its_own_is_turned_as_viewers_do(write, suffix):
    check(MaskFolder(write((1, UPRIGHT[6], 8), suffixes=("png", suffix))))


def test_masks_whose_size_tells_speak_for_the_others(write, warned):
    folder = MaskFolder(write((6, VALUES, 1), (3, VALUES, 1), (1, VALUES, 1)))
    assert "1 of 3 images are turned or mirrored" in warned()
    assert 'taken as "stored"' in warned()
    for index in range(3):
        check(folder, index)


def test_misfits_and_wrong_choices_are_errors(write):
    root = write((6, VALUES[:4], 1))
    with pytest.raises(
        ValueError, match="has 6 x 9 pixels by its EXIF orientation 6, its mask 9 x 4 pixels"
    ):
        MaskFolder(root)
    (root / "classes.json").write_text('{"mask_orientation": "applied"}')
    with pytest.raises(ValueError, match="must be 'upright' or 'stored', not 'applied'"):
        MaskFolder(root)
