"""What the fuzz test damages: a sound file, how it is read, and what may come of that."""

import hashlib
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fuzz_mutations import change_bytes

Change = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Subject:
    """A sound file.

    Attributes:
        name: says what it is.
        content: of the file.
        place: its path in the folder that it is written to.
        read: reads that folder; checks what comes out and returns its digest.
        changes: what knows the file's structure; its bytes are changed in any case.
        siblings: contents that are spliced with its own.
        is_sealed: whether every change is noticed that matters.
        notices_a_bit: likewise, one flipped bit.
        has_report: whether errors list the problems of several files.
    """

    name: str
    content: bytes
    place: str
    read: Callable[[Path], str]
    changes: tuple[Change, ...] = ()
    siblings: Sequence[bytes] = ()
    is_sealed: bool = False
    notices_a_bit: bool = False
    has_report: bool = False


def check_message(error: Exception, has_report: bool = False) -> None:
    """Holds an error to one line, unless it lists problems."""
    message = str(error)
    assert message.strip(), "an error without a message"
    assert len(message) <= 2000, f"a message of {len(message)} characters"
    assert has_report or "\n" not in message, f"a message of several lines: {message}"


def digest(value: Any) -> str:
    """A hash of tensors and plain values; checks that there is nothing else."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        assert value.layout == torch.strided
        assert value.untyped_storage().nbytes() <= 2**20
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        found.update(value.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(found, key)
            _feed(found, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(found, item)
    else:
        found.update(repr(value).encode(errors="surrogatepass"))


def damaged(subject: Subject, rng: random.Random) -> bytes:
    """Returns a subject's content, changed as its structure allows or byte by byte."""
    if subject.changes and rng.random() < 0.7:
        return rng.choice(subject.changes)(rng, subject.content)
    return change_bytes(rng, subject.content, subject.siblings)


def faults() -> Iterator[Subject]:
    """Yields what fails in every way that there is, for a test of the fuzz test."""

    def fail(_: Path) -> str:
        raise KeyError("a")

    def hang(_: Path) -> str:
        while True:
            pass

    def fill_memory(_: Path) -> str:
        return str(len(bytearray(2**36)))

    def crash(_: Path) -> str:
        os.kill(os.getpid(), signal.SIGSEGV)
        return ""

    def believe(folder: Path) -> str:
        return digest((folder / "a").read_bytes())

    for read in (fail, hang, fill_memory, crash):
        yield Subject(f"fault {read.__name__}", b"content", "a", read)
    yield Subject("fault believe", b"content", "a", believe, is_sealed=True)
