"""Makes small ICC profiles, from the specification (ICC.1:2010), and says what they mean."""

import struct

import numpy as np

PRIMARIES = {
    "sRGB": [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)],
    "Display P3": [
        (0.51512, 0.2412, -0.00105),
        (0.29198, 0.69225, 0.04189),
        (0.1571, 0.06657, 0.78407),
    ],
    "Adobe RGB": [
        (0.60974, 0.31111, 0.01947),
        (0.20528, 0.62567, 0.06087),
        (0.14919, 0.06322, 0.74457),
    ],
}
"""XYZ of red, green and blue, adapted to D50."""

D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries, gamma=None):
    """A matrix profile, with the curve of sRGB or a power."""
    curve = _curve(gamma)
    colorants = zip(("rXYZ", "gXYZ", "bXYZ"), PRIMARIES[primaries], strict=True)
    tags = {name: b"XYZ " + bytes(4) + _fixed(*xyz) for name, xyz in colorants}
    return _profile(b"RGB ", b"XYZ ", tags | dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve))


def grey_profile(gamma):
    return _profile(b"GRAY", b"XYZ ", {"kTRC": _curve(gamma)})


def cmyk_profile(lab):
    """A table of the 16 mixtures of full and no ink; black (the last ink) varies fastest.

    Args:
        lab: (16, 3), CIELab of each.
    """
    identity = bytes(range(256))
    coded = np.round(np.array(lab) * (2.55, 1, 1) + (0, 128, 128)).astype(np.uint8)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return _profile(
        b"CMYK", b"Lab ", {"A2B0": table + 4 * identity + coded.tobytes() + 3 * identity}, b"prtr"
    )


def shown_in_srgb(pixels, primaries, gamma=None):
    """What a picture (H, W, 3) in 0..255 with such a profile is in sRGB, by the formulas."""
    values = pixels / 255
    linear = (
        values**gamma
        if gamma
        else np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    )
    xyz = linear @ np.array(PRIMARIES[primaries])
    return from_xyz(xyz)


def from_xyz(xyz):
    """CIEXYZ relative to D50 in sRGB, 0..255."""
    linear = (xyz @ np.linalg.inv(np.array(PRIMARIES["sRGB"]))).clip(0, 1)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curved


def from_lab(lab):
    """CIELab, relative to D50, in sRGB, 0..255."""
    lab = np.asarray(lab, float)
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    return from_xyz(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50)


def _fixed(*numbers):
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def _curve(gamma):
    if gamma:
        return b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma)
    parameters = _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + parameters


def _profile(space, connection, tags, kind=b"mntr"):
    text = "a test".encode("utf-16-be")
    tags = {
        "desc": b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text,
        "wtpt": b"XYZ " + bytes(4) + _fixed(*D50),
        **tags,
    }
    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name.encode() + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sIIIII12s",
        start + len(data),
        b"",
        0x04200000,
        kind,
        space,
        connection,
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0),
        b"acsp",
        b"",
        *(0, 0, 0, 0, 0),
        _fixed(*D50),
    )
    return header.ljust(128, b"\0") + table + data
