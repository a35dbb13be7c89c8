"""Hashes: SHA-256 of files against published ones, and lists of them as sha256sum writes."""

from pathlib import Path

from ccnet.files import atomic_write, irregularity, sha256_of


def verify(path: Path, sha256: str | None) -> None:
    """Checks the SHA-256 of a file against a full hash or a prefix of one; None skips the check.

    Raises:
        ValueError: if the hashes differ.
    """
    if sha256 is None:
        return
    if not sha256:
        raise ValueError(f"{path} cannot be verified against an empty hash")
    found = sha256_of(path)
    if not found.startswith(sha256):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 is {found}, not {sha256}. "
            "Download it again, or pass its path as weights= to use it anyway."
        )


def write_sums(path: Path, sums: dict[str, str]) -> None:
    """Writes a list of hashes by the names of the files."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()))


def read_sums(path: Path) -> dict[str, str]:
    """Reads a list of hashes by the names of the files; what cannot be read is left out."""
    try:
        if irregularity(path):
            return {}
        text = path.read_text(errors="replace")
    except OSError:
        return {}
    lines = (line.split() for line in text.splitlines())
    return {line[1]: line[0] for line in lines if len(line) == 2}
