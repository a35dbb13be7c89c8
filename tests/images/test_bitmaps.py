"""BMP with palettes of any colours and bits, as pictures; their numbers are tested with masks."""

from itertools import product

import numpy as np
import pytest
from bmp_files import bmp_file
from PIL import Image

from ccnet.images import decode_image

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def levels(count):
    return [(level,) * 3 for level in range(count)]


PALETTES = {
    "black and white": [BLACK, WHITE],
    "white and black": [WHITE, BLACK],
    "black": [BLACK],
    "levels 0 and 1": levels(2),
    "some levels": levels(11),
    "all levels": levels(256),
    "stretched": [(17 * level,) * 3 for level in range(16)],
    "colors": [(9, 8, 7), (0, 0, 255), (255, 0, 0)],
}


def cases():
    for bits, (name, colors) in product((1, 4, 8), PALETTES.items()):
        for options in ({}, {"is_dib": True}, {"is_short": True}, {"runs": True}):
            if options.get("runs") and bits == 1:
                continue
            whole = [*colors, *[BLACK] * 256][: 1 << bits]
            # The old header has no number of colours, so that there are all of them.
            palette = whole if options.get("is_short") else colors[: 1 << bits]
            yield pytest.param(bits, palette, options, id=f"{bits} bits, {name}, {[*options]}")


@pytest.mark.parametrize(("bits", "colors", "options"), [*cases()])
def test_palettes(tmp_path, bits, colors, options):
    path = tmp_path / "a.bmp"
    values = np.random.default_rng(bits).integers(0, len(colors), (9, 21))
    path.write_bytes(bmp_file(values, bits, colors, **options))
    expected = np.array(colors)[values]
    assert np.array_equal(decode_image(path).movedim(0, -1).numpy(), expected)
    with Image.open(path) as image:
        assert np.array_equal(decode_image(image).movedim(0, -1).numpy(), expected)
        assert np.array_equal(decode_image(image).movedim(0, -1).numpy(), expected)
