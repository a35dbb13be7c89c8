"""TIFF in every layout: right to one grey level, or refused by name."""

import re
from itertools import product

import numpy as np
import pytest
from PIL import Image
from tiff_files import (
    CMYK,
    DEFLATE,
    FLOAT,
    GREY,
    LAB,
    LZW,
    MIN_IS_WHITE,
    PALETTE,
    RGB,
    SIGNED,
    UNCOMPRESSED,
    YCBCR,
    tiff_file,
)

from ccnet.images import decode_image

HEIGHT, WIDTH = 7, 13
BITS = (1, 2, 4, 6, 8, 10, 12, 14, 16)
UNSPECIFIED, MULTIPLIED, OPACITY = 0, 1, 2


@pytest.fixture
def shown(tmp_path):
    """What is seen of a file: (H, W, 3), integers."""

    def decode(content):
        path = tmp_path / "picture.tiff"
        path.write_bytes(content)
        return decode_image(path).movedim(0, -1).numpy().astype(int)

    return decode


@pytest.fixture
def attempt(shown):
    """Likewise, or the message with which the file is refused."""

    def decode(content):
        try:
            return shown(content)
        except ValueError as error:
            return str(error)

    return decode


def drawn(bits, depth):
    """Random samples with the extremes, and what they are in 0..255."""
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (HEIGHT, WIDTH, depth))
    samples[0, 0], samples[0, 1] = 0, (1 << bits) - 1
    return samples, samples * 255 / ((1 << bits) - 1)


def is_read(photometric, bits, byte_order, compression):
    """Which cells of the grid must be read; the others may be refused."""
    if photometric == MIN_IS_WHITE and byte_order == ">" and bits == 16:
        return compression == UNCOMPRESSED
    return compression == UNCOMPRESSED or bits in (8, 16) or (photometric != RGB and bits <= 4)


@pytest.mark.parametrize("compression", [UNCOMPRESSED, LZW, DEFLATE])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("photometric", [GREY, MIN_IS_WHITE, RGB])
def test_whole_grid(attempt, photometric, bits, compression):
    samples, levels = drawn(bits, 3 if photometric == RGB else 1)
    expected = 255 - levels if photometric == MIN_IS_WHITE else levels
    for byte_order, planar, tile in product("<>", (False, True), (None, (16, 16))):
        cell = {"photometric": photometric, "byte_order": byte_order, "compression": compression}
        content = tiff_file(samples, bits, planar=planar, tile=tile, **cell)
        seen = attempt(content)
        if isinstance(seen, str):
            assert not is_read(bits=bits, **cell), (cell, planar, tile)
            assert re.search(
                rf"picture\.tiff .* of {bits} bits, .*; save it as grey or RGB with 8 or 16", seen
            )
        else:
            assert np.abs(seen - expected).max() <= 1, (cell, planar, tile)


KINDS = [
    (RGB, ()),
    (RGB, (UNSPECIFIED,)),
    (RGB, (UNSPECIFIED, UNSPECIFIED)),
    (RGB, (MULTIPLIED,)),
    (RGB, (OPACITY,)),
    (RGB, (OPACITY, UNSPECIFIED)),
    (RGB, (UNSPECIFIED, OPACITY)),
    (GREY, (UNSPECIFIED,)),
    (GREY, (MULTIPLIED,)),
    (GREY, (OPACITY,)),
]


@pytest.mark.parametrize("compression", [UNCOMPRESSED, DEFLATE])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("photometric", "extra"), KINDS)
def test_only_declared_opacity_is_opacity(attempt, photometric, extra, bits, compression):
    """Near infrared as a fourth band, with or without the tag of extra samples, is no opacity."""
    bands = 3 if photometric == RGB else 1
    samples, _ = drawn(bits, bands + max(1, len(extra)))
    alpha = np.ones((HEIGHT, WIDTH, 1))
    for index, kind in enumerate(extra):
        if kind in (MULTIPLIED, OPACITY):
            most = (1 << bits) - 1
            alpha = samples[..., bands + index, None] / most
            if kind == MULTIPLIED:
                samples[..., :bands] = samples[..., :bands] * alpha
    levels = samples[..., :bands] * 255 / ((1 << bits) - 1)
    expected = levels * (1 if MULTIPLIED in extra else alpha) + 255 * (1 - alpha)
    for byte_order, planar in product("<>", (False, True)):
        content = tiff_file(
            samples,
            bits,
            photometric=photometric,
            byte_order=byte_order,
            planar=planar,
            compression=compression,
            extra=extra,
        )
        seen = attempt(content)
        if isinstance(seen, str):
            assert compression != UNCOMPRESSED
            assert planar or len(extra) > 1 or photometric == GREY, "common layouts are read"
            assert re.search("a TIFF of .* (is not supported; save it|or not supported)", seen)
        else:  # 16 bits are cut to 8 before they are divided by opacity, and blended
            tolerance = 3 if MULTIPLIED in extra else 1 if bits == 8 else 2
            assert np.abs(seen - expected).max() <= tolerance


@pytest.mark.parametrize("compression", [UNCOMPRESSED, DEFLATE])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_cmyk_is_told_from_near_infrared(shown, bits, planar, compression):
    samples, levels = drawn(bits, 4)
    options = {"planar": planar, "compression": compression}
    ink, black = 255 - levels[..., :3], 255 - levels[..., 3:]
    seen = shown(tiff_file(samples, bits, photometric=CMYK, **options))
    assert np.abs(seen - ink * black / 255).max() <= 2
    with pytest.raises(ValueError, match="save it as grey or RGB"):
        shown(tiff_file(samples, bits, photometric=CMYK, tags={332: [2]}, **options))


@pytest.mark.parametrize("compression", [UNCOMPRESSED, LZW, DEFLATE])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_palettes(shown, byte_order, bits, planar, compression):
    samples, _ = drawn(bits, 1)
    colors = np.random.default_rng(0).integers(0, 65536, (3, 1 << bits))
    options = {"planar": planar, "compression": compression, "byte_order": byte_order}
    for unit in (257, 1):  # the specification's 16 bits, and 8 as some writers keep to
        tags = {320: (colors * unit // 257).flatten().tolist()}
        seen = shown(tiff_file(samples, bits, photometric=PALETTE, tags=tags, **options))
        assert np.abs(seen - colors.T[samples[..., 0]] / 257).max() <= 1


@pytest.mark.parametrize(("bits", "photometric"), [(1, 0), (4, 1), (8, 0), (16, 1)])
def test_bits_in_opposite_order(shown, bits, photometric):
    samples, levels = drawn(bits, 1)
    content = bytearray(
        tiff_file(samples, bits, photometric=photometric, rows=HEIGHT, tags={266: [2]})
    )
    for index in range(8, 8 + HEIGHT * ((WIDTH * bits + 7) // 8)):
        content[index] = int(f"{content[index]:08b}"[::-1], 2)
    assert np.abs(shown(content) - (levels if photometric else 255 - levels)).max() <= 1


REFUSED = {
    "signed": (8, GREY, 1, {339: [SIGNED]}, "signed sample per pixel, of 8 bits"),
    "signed, 16 bits": (16, RGB, 3, {339: [SIGNED] * 3}, "3 signed samples"),
    "floating point": (32, GREY, 1, {339: [FLOAT]}, "floating-point sample"),
    "32 bits": (32, GREY, 1, {}, "of 32 bits"),
    "four bands without colours": (8, GREY, 4, {338: [0, 0, 0]}, "4 samples per pixel.* grey"),
    "different depths": (8, RGB, 3, {258: [5, 6, 5]}, r"of \(5, 6, 5\) bits"),
    "colour filter array": (16, 32803, 1, {}, "raw sensor"),
    "preview": (8, RGB, 3, {254: [1]}, "first page is a preview; develop"),
    "subsampled": (8, YCBCR, 3, {}, "YCbCr.* uncompressed"),
    "planar CIELab": (8, LAB, 3, {284: [2]}, "CIELab"),
    "empty strips": (8, GREY, 1, {278: [0]}, "strips or tiles are 13 x 0"),
    "cut": (8, GREY, 1, {257: [900]}, "the file ends early"),
    "sparse strip": (8, GREY, 1, {273: [8, 0], 279: [52, 0]}, "it is sparse"),
    "sparse tile": (8, GREY, 1, {322: [16], 323: [16], 324: [0], 325: [0]}, "it is sparse"),
    "enormous": (1, GREY, 1, {256: [60000], 257: [60000]}, "beyond limits"),
}


@pytest.mark.parametrize(
    ("bits", "photometric", "depth", "tags", "reason"), REFUSED.values(), ids=REFUSED
)
def test_other_layouts_are_refused_by_name(shown, bits, photometric, depth, tags, reason):
    samples = drawn(min(bits, 16), depth)[0]
    with pytest.raises(ValueError, match=rf"picture\.tiff cannot be read .*{reason}"):
        shown(tiff_file(samples, bits, photometric=photometric, tags=tags))


@pytest.mark.parametrize("compression", [UNCOMPRESSED, DEFLATE])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(shown, orientation, compression):
    samples, levels = drawn(16, 3)
    tags = {274: [orientation]}
    options = {"photometric": RGB, "planar": True, "compression": compression}
    turned = np.rot90(levels, {3: 2, 4: 2, 6: -1, 7: -1, 8: 1, 5: 1}.get(orientation, 0))
    if orientation in (2, 4):
        turned = turned[:, ::-1]
    elif orientation in (5, 7):
        turned = turned[::-1]
    seen = shown(tiff_file(samples, 16, tags=tags, **options))
    assert seen.shape == turned.shape
    assert np.abs(seen - turned).max() <= 1


def test_opened_images_are_read_like_their_files(shown, tmp_path):
    """Pillow alone shows noise, an opaque fourth band, a negative."""
    samples, _ = drawn(16, 3)
    contents = [
        tiff_file(samples, 16, photometric=RGB, planar=True),
        tiff_file(samples[..., :1], 16, photometric=MIN_IS_WHITE, compression=DEFLATE),
        tiff_file(drawn(8, 4)[0], 8, photometric=RGB, compression=DEFLATE),
    ]
    for content in contents:
        expected = shown(content)
        with Image.open(tmp_path / "picture.tiff") as image:
            assert np.array_equal(decode_image(image).movedim(0, -1).numpy(), expected)


def test_pixels_that_pillow_has_already_misread_are_refused(tmp_path):
    for bits, is_right in ((8, True), (16, False)):
        samples, levels = drawn(bits, 3)
        (tmp_path / "a.tiff").write_bytes(tiff_file(samples, bits, photometric=RGB, planar=True))
        with Image.open(tmp_path / "a.tiff") as image:
            image.load()
            if is_right:
                assert np.array_equal(decode_image(image).movedim(0, -1).numpy(), levels)
            else:
                with pytest.raises(ValueError, match="planar, uncompressed is not supported"):
                    decode_image(image)
