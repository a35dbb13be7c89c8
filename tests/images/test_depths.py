"""PNG and PNM with 1 to 16 bits per sample: right to one grey level."""

import logging
import struct

import icc_profiles as icc
import numpy as np
import png_files as png
import pytest
import tiff_files as tiff
import torch
from PIL import Image

from ccnet.images import decode_image

SIZE = (11, 21)


def drawn(most, depth):
    """Random samples with the extremes, and what they are in 0..255."""
    samples = np.random.default_rng(most).integers(0, most + 1, (*SIZE, depth))
    samples[0, 0], samples[0, 1] = 0, most
    return samples, samples * 255 / most


@pytest.fixture
def shown(tmp_path):
    """What is seen of a file: (H, W, 3), integers."""

    def decode(content, name="picture.png"):
        (tmp_path / name).write_bytes(content)
        return decode_image(tmp_path / name).movedim(0, -1).numpy().astype(int)

    return decode


PNG_DEPTHS = [(bits, png.GREY) for bits in (1, 2, 4, 8, 16)]
PNG_DEPTHS += [(bits, color) for color in (png.RGB, png.GREY_ALPHA, png.RGBA) for bits in (8, 16)]
BANDS = {png.GREY: 1, png.RGB: 3, png.GREY_ALPHA: 1, png.RGBA: 3}


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "color"), PNG_DEPTHS)
def test_png(shown, bits, color, interlaced):
    bands = BANDS[color]
    has_alpha = color in (png.GREY_ALPHA, png.RGBA)
    samples, levels = drawn((1 << bits) - 1, bands + has_alpha)
    alpha = levels[..., bands:] / 255 if has_alpha else 1
    expected = levels[..., :bands] * alpha + 255 * (1 - alpha)
    seen = shown(png.png_file(samples, bits, color, interlaced=interlaced))
    assert np.abs(seen - expected).max() <= (2 if has_alpha else 1)


@pytest.mark.parametrize(
    ("bits", "color"), [(bits, color) for bits, color in PNG_DEPTHS if color in (png.GREY, png.RGB)]
)
def test_transparent_value_of_a_png_shows_white(shown, bits, color):
    """With all its bits: a neighbour with the same upper byte is opaque."""
    samples, levels = drawn((1 << bits) - 1, BANDS[color])
    value = samples[5, 5]
    samples[5, 6], levels[5, 6] = value, levels[5, 5]
    samples[5, 7], levels[5, 7] = value ^ 1, (value ^ 1) * 255 / ((1 << bits) - 1)
    is_clear = (samples == value).all(-1, keepdims=True)
    chunk = (b"tRNS", struct.pack(f">{len(value)}H", *value))
    seen = shown(png.png_file(samples, bits, color, chunks=[chunk]))
    assert is_clear.sum() >= 2
    assert np.abs(seen - np.where(is_clear, 255, levels)).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_a_png(shown, bits):
    samples, _ = drawn((1 << bits) - 1, 1)
    colors = np.random.default_rng(0).integers(0, 256, (1 << bits, 3), np.uint8)
    palette = (b"PLTE", colors.tobytes())
    seen = shown(png.png_file(samples, bits, png.PALETTE, chunks=[palette]))
    assert np.array_equal(seen, colors[samples[..., 0]])
    alphas = np.arange(1 << bits, dtype=np.uint8)[::-1]
    clear = (b"tRNS", alphas.tobytes())
    seen = shown(png.png_file(samples, bits, png.PALETTE, chunks=[palette, clear]))
    alpha = alphas[samples] / 255
    assert np.abs(seen - colors[samples[..., 0]] * alpha - 255 * (1 - alpha)).max() <= 1


@pytest.mark.parametrize("most", [1, 2, 15, 100, 254, 255, 256, 1023, 4095, 16383, 65534, 65535])
@pytest.mark.parametrize("magic", ["P2", "P3", "P5", "P6"])
def test_pnm_of_any_range(shown, magic, most):
    depth = 3 if magic in ("P3", "P6") else 1
    samples, levels = drawn(most, depth)
    if magic in ("P5", "P6"):
        content = samples.astype(np.uint8 if most < 256 else ">u2").tobytes()
    else:
        content = " ".join(map(str, samples.flatten())).encode()
    head = f"{magic}\n# a comment\n{SIZE[1]} {SIZE[0]}\n{most}\n".encode()
    assert np.abs(shown(head + content, f"picture.p{magic}") - levels).max() <= 1


def test_bitmaps(shown):
    samples, levels = drawn(1, 1)
    plain = b"P1\n21 11\n" + " ".join(map(str, 1 - samples.flatten())).encode()
    packed = b"P4\n21 11\n" + np.packbits(1 - samples[..., 0].astype(np.uint8), axis=1).tobytes()
    for content in (plain, packed):
        assert np.array_equal(shown(content), np.broadcast_to(levels, (*SIZE, 3)))


def narrow(kind):
    """A file of 16-bit samples with values of 12 bits."""
    grey, rgb = drawn(4095, 1)[0], drawn(4095, 3)[0]
    contents = {
        "TIFF": lambda: tiff.tiff_file(grey, 16),
        "TIFF, white is zero": lambda: tiff.tiff_file(grey, 16, photometric=tiff.MIN_IS_WHITE),
        "TIFF, offset": lambda: tiff.tiff_file(grey + 30000, 16, byte_order=">"),
        "TIFF, planar": lambda: tiff.tiff_file(rgb, 16, photometric=tiff.RGB, planar=True),
        "TIFF, compressed": lambda: tiff.tiff_file(rgb, 16, photometric=2, compression=tiff.LZW),
        "TIFF, linear": lambda: tiff.tiff_file(grey, 16, tags={34675: icc.grey_profile(1.0)}),
        "PNG": lambda: png.png_file(grey, 16, png.GREY),
        "PNG, RGB": lambda: png.png_file(rgb, 16, png.RGB),
        "PNG, opacity": lambda: png.png_file(np.dstack([rgb, grey * 16]), 16, png.RGBA),
        "PGM": lambda: b"P5 21 11 65535\n" + grey.astype(">u2").tobytes(),
        "PPM": lambda: b"P6 21 11 65535\n" + rgb.astype(">u2").tobytes(),
    }
    return contents[kind]() if kind else list(contents)


@pytest.mark.parametrize("kind", narrow(None))
def test_narrow_values_are_warned_of_once(shown, caplog, tmp_path, kind):
    for _ in range(2):
        shown(narrow(kind), "scan.file")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith(f"{tmp_path / 'scan.file'} has more than 8 bits per sample")
    assert "less than an eighth" in message
    assert "scale the values to 0..1 and pass the array" in message


def test_the_way_out_of_narrow_values(tmp_path, caplog):
    samples, levels = drawn(4095, 1)
    (tmp_path / "scan.tiff").write_bytes(tiff.tiff_file(samples, 16))
    with Image.open(tmp_path / "scan.tiff") as image:
        seen = decode_image(np.asarray(image) / 4095)
    assert (seen.movedim(0, -1) - torch.from_numpy(levels)).abs().max() <= 1
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        tiff.tiff_file(drawn(4095, 1)[0], 12),
        tiff.tiff_file(drawn(9000, 1)[0], 16),
        png.png_file(drawn(65535, 1)[0], 16, png.GREY),
        png.png_file(np.zeros((*SIZE, 3), int), 8, png.RGB),
        b"P5 21 11 4095\n" + drawn(4095, 1)[0].astype(">u2").tobytes(),
    ],
)
def test_full_range_and_eight_bits_are_not_warned_of(shown, caplog, content):
    shown(content)
    assert not caplog.records
