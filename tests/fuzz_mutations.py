"""Damage: random changes of a file's bytes, and of the JSON, pickles and archives in it."""

import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
"""Where counts, sizes and signs turn over."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 19, 255, 256, 10**9, 2**63, -(2**63), 10**30, 10**400),
    *(0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), "", "x", "0", "resnet50", "camvid"),
    *(
        "\ud800",
        "a\nb",
        "\0",
        "\x1b[2J",
        "x" * 100_000,
        [],
        {},
        [[]],
        [0] * 300,
        ["a", "a"],
        {"": 0},
    ),
    *([[0, 0, 0]] * 3, [1, 2, 3], [[256, -1, 0.5]], list(range(2000)), {"categories": ["a"]}),
)
"""Values that a field might not expect."""

TEXTS = (
    *(b"9" * 5000, b"-" + b"9" * 5000, b"1e400", b"-1e400", b"NaN", b"Infinity", b"[" * 100_000),
    *(b'{"a":' * 50_000, b"\xef\xbb\xbf", b"\xff\xfe", b"\\ud800", b'"', b"}", b",", b"\0"),
)
"""Texts that a reader of JSON might not expect."""


def flip_bit(rng: random.Random, content: bytes) -> bytes:
    """Flips one bit."""
    if not content:
        return content
    changed = bytearray(content)
    changed[_place(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def change_bytes(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Changes a few places: bits, numbers, cuts, insertions, or a part of another file."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        content = rng.choice(_CHANGES)(rng, content, others)
    return content


def _place(rng: random.Random, content: bytes) -> int:
    """A random place, the start being as likely as the rest."""
    end = len(content) if rng.random() < 0.5 else min(len(content), 64)
    return rng.randrange(max(1, end))


def _set_byte(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, content)
    return (
        content[:at]
        + bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])
        + (content[at + 1 :])
    )


def _set_number(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at, kind = _place(rng, content), rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(kind)
    number = struct.pack(kind, rng.choice(NUMBERS) % 256**size)
    return content[:at] + number + content[at + size :]


def _cut(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _remove(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at + rng.randrange(1, 40) :]


def _insert(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, content)
    return content[:at] + rng.randbytes(rng.randrange(1, 40)) + content[at:]


def _repeat(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at:][: rng.randrange(1, 200)] * rng.choice((2, 50)) + content[at:]


def _splice(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else content
    return content[: _place(rng, content)] + other[_place(rng, other) :]


def _flip(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return flip_bit(rng, content)


_CHANGES: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_flip, _flip, _set_byte, _set_number, _set_number, _cut, _remove, _insert, _repeat, _splice),
)


def change_value(rng: random.Random, value: Any) -> Any:
    """Returns a copy of a JSON-able value in which one place, at any depth, is another value."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        changed = value.copy()
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        choice = rng.random()
        if choice < 0.1:
            del changed[key]
        elif choice < 0.2 and isinstance(changed, dict):
            changed[rng.choice(("x", "", "a\nb", "categories", "mean"))] = changed[key]
        elif choice < 0.2:
            changed += [changed[key]] * rng.choice((1, 300))
        else:
            changed[key] = change_value(rng, changed[key])
        return changed
    return rng.choice((*VALUES, [value], {"a": value}, str(value)))


def change_json(rng: random.Random, content: bytes) -> bytes:
    """Changes values in a JSON text, or the text itself."""
    if rng.random() < 0.2:
        at = rng.randrange(len(content) + 1)
        return content[:at] + rng.choice(TEXTS) + content[at + rng.choice((0, 1, 4)) :]
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = change_value(rng, value)
    return json.dumps(value).encode()


def change_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Changes the header of a safetensors file, or the JSON in its metadata."""
    size = int.from_bytes(content[:8], "little")
    header, data = content[8:][:size], content[8 + size :]
    if rng.random() < 0.5:
        fields = json.loads(header)
        metadata = fields["__metadata__"]
        name = rng.choice(list(metadata))
        metadata[name] = (
            change_json(rng, metadata[name].encode()).decode(errors="replace")
            if (metadata[name].startswith("{"))
            else str(rng.choice(VALUES))
        )
        if rng.random() < 0.7:
            metadata.pop("sha256", None)
        header = json.dumps(fields).encode()
    else:
        header = change_json(rng, header)
    length = len(header) if rng.random() < 0.9 else rng.choice((*NUMBERS, len(header) + 1))
    return (length % 2**64).to_bytes(8, "little") + header + data


_OPERATIONS = (
    *(b"N", b"0", b"2", b"(", b"}", b"]", b")", b"t", b"R", b"b", b"s", b"u", b"e", b"a", b"\x81"),
    *(b"\x85", b"\x86", b"\x87", b"\x88", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"Q"),
    *(b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"X\xff\xff\xff\x7f", b"h\x00", b"q\x00", b"h\x05"),
    *(b"G\x7f\xf0\x00\x00\x00\x00\x00\x00", b"r\xff\xff\xff\xff", b"cposix\nsystem\n"),
    *(
        b"ccollections\nOrderedDict\n)R",
        b"cbuiltins\nset\n",
        b"ctorch\nSize\n",
        b"c_codecs\nencode\n",
    ),
)
"""Instructions of pickles."""


def change_pickle(rng: random.Random, content: bytes) -> bytes:
    """Changes instructions of the first pickle in a content, or their arguments."""
    starts = [at for _, _, at in pickletools.genops(content)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.choice(starts[1:])
        end = min((one for one in starts if one > at), default=len(content))
        operation = content[at:end]
        replacement = rng.choice(
            (b"", operation * 2, rng.choice(_OPERATIONS), rng.choice(_OPERATIONS) + operation)
        )
        if len(operation) > 1 and rng.random() < 0.4:
            replacement = operation[:1] + change_bytes(rng, operation[1:])
        content = content[:at] + replacement + content[end:]
        starts = [one for one in starts if one <= at]
        if len(starts) < 2:
            break
    return content


def change_archive(rng: random.Random, content: bytes) -> bytes:
    """Changes the pickle in a zip archive, with the right checksum, or a record of the archive."""
    if rng.random() < 0.6:
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
            for entry in old.infolist():
                data = old.read(entry)
                if entry.filename.endswith("data.pkl"):
                    data = change_pickle(rng, data)
                elif rng.random() < 0.1:
                    data = change_bytes(rng, data)
                new.writestr(entry.filename, data)
        return target.getvalue()
    marks = [at for at in range(len(content) - 4) if content[at : at + 4] in _RECORDS]
    at = rng.choice(marks)
    end = at + 64
    return content[:at] + change_bytes(rng, content[at:end]) + content[end:]


_RECORDS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")


def change_legacy(rng: random.Random, content: bytes) -> bytes:
    """Changes one of the pickles in the format of `torch.save` before archives."""
    file, starts = io.BytesIO(content), []
    for _ in range(5):
        starts.append(file.tell())
        for _operation in pickletools.genops(file):
            pass
    at = starts[rng.choice((2, 3, 3, 3, 4))]
    return content[:at] + change_pickle(rng, content[at:])
