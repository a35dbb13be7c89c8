"""Fetching: a checkpoint from any server, through the HTTP client of huggingface_hub.

That client takes proxies (HTTPS_PROXY, NO_PROXY) and certificates (SSL_CERT_FILE) from the
environment, or from what `huggingface_hub.set_client_factory` was given.
"""

import hashlib
import re
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import constants
from huggingface_hub.utils.tqdm import tqdm

from ccnet.weights.file_kinds import ZEROS, foreign_kind
from ccnet.weights.retries import FAILURES, Patience, client, reason
from ccnet.weights.timed_requests import request

LARGEST = 2**30
"""Bytes beyond which nothing is downloaded: no checkpoint of these networks has half of them."""

_ADVANCE = 2**20
"""Bytes that a try must add to make up for its failure."""


def fetch(url: str, path: Path, sha256: str, *, progress: bool = True) -> None:
    """Downloads a checkpoint and verifies it.

    A download that breaks off or stalls for HF_HUB_DOWNLOAD_TIMEOUT seconds (10) is continued, or
    begun again where the server cannot continue, until five tries in a row have got no further.

    Args:
        url: of the file, on http or https; https does not lead to http.
        path: of the file to be written; incomplete after an error.
        sha256: its SHA-256, or the beginning of it.
        progress: show a progress bar.

    Raises:
        OSError: if the file cannot be had; in one line.
        ValueError: if the server has another file of weights.
    """
    patience = Patience(url)
    try:
        with path.open("wb") as file, _bar(url, progress) as bar:
            download = _Download(url, file, bar)
            while True:
                furthest = download.furthest
                try:
                    download.receive()
                    download.check(path, sha256)
                    return
                except FAILURES as error:
                    if download.furthest - furthest >= _ADVANCE:
                        patience.failures = 0
                    patience.wait(error)
    except AnotherFileError:
        raise
    except FAILURES as error:
        raise OSError(reason(error)) from error


class AnotherFileError(ValueError):
    """A server has another file than the published one."""


class _Download:
    """What has been received of a file, over several requests."""

    def __init__(self, url: str, file: BinaryIO, bar: Any) -> None:
        self.url, self.file, self.bar = url, file, bar
        self.furthest = 0
        self.total: int | None = None
        self._restart()

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.size = 0
        self.digest = hashlib.sha256()
        self.version = ""
        self.is_pieced = False
        if self.bar.n:
            self.bar.reset()

    def receive(self) -> None:
        """Sends one request for what is missing, and writes what comes."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "ccnet"}
        if self.size and self.version:
            headers |= {"Range": f"bytes={self.size}-", "If-Range": self.version}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with closing(
            request("GET", self.url, headers=headers, timeout=timeout, follow_redirects=True)
        ) as parts:
            self._begin(next(parts), "Range" in headers)
            for part in parts:
                self._write(part)
        if self.total is not None and self.size != self.total:
            raise client.RemoteProtocolError(f"{self.size} bytes came of {self.total}")

    def _begin(self, response: Any, continues: bool) -> None:
        """Finds out what an answer holds, and starts again unless it is the rest of the file."""
        for hop in (*response.history, response):
            if self.url.startswith("https:") and hop.url.scheme != "https":
                raise OSError(f"leads to {hop.url}, which is not encrypted")
        if response.status_code == 416 and continues:
            self._restart()
            raise client.RemoteProtocolError("the file has changed meanwhile")
        response.raise_for_status()
        if response.status_code == 206 and continues:
            if not self._is_rest(response.headers):
                self._restart()
                raise client.RemoteProtocolError("another part of the file came than was asked for")
            self.is_pieced = True
        elif response.status_code == 200:
            self._restart()
            length = response.headers.get("Content-Length")
            self.total = int(length) if length else None
            self.version = _version(response.headers)
        else:
            raise OSError(f"the server answered {response.status_code} where 200 was expected")
        if self.total is not None and self.total > LARGEST:
            raise OSError(f"the server announced {self.total} bytes, more than {LARGEST}")
        self.bar.total = self.total

    def _is_rest(self, headers: Any) -> bool:
        """Whether a part begins where the last one ended, and belongs to the same file."""
        span = re.fullmatch(
            r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})", headers.get("Content-Range", "")
        )
        if not span or _version(headers) not in ("", self.version):
            return False
        begin, last, total = map(int, span.groups())
        return begin == self.size and last + 1 == total and self.total in (None, total)

    def _write(self, part: bytes) -> None:
        self.file.write(part)
        self.digest.update(part)
        self.size += len(part)
        self.furthest = max(self.furthest, self.size)
        self.bar.update(len(part))
        if self.size > LARGEST:
            raise OSError(f"the server sends more than {LARGEST} bytes")

    def check(self, path: Path, sha256: str) -> None:
        """Compares the file with its hash; what is no checkpoint at all is another answer."""
        found = self.digest.hexdigest()
        if sha256 and found.startswith(sha256):
            return
        self.file.flush()
        kind = foreign_kind(path)
        is_nothing = not self.size or kind == ZEROS
        if is_nothing and self.total is None:  # cut before the first byte, or among the first zeros
            self._restart()
            raise client.RemoteProtocolError(f"the server answered with {kind}")
        if kind:
            raise OSError(f"the server answered with {kind}")
        problem = f"is not the published file: its SHA-256 is {found}, not {sha256}"
        if self.total is None or self.is_pieced:  # perhaps cut short, or parts of two files
            self._restart()
            raise client.RemoteProtocolError(problem)
        raise AnotherFileError(f"{self.url} {problem}")


def _version(headers: Any) -> str:
    """What tells one version of a file from another; not weak tags, of equal meaning alone.

    Nor what cannot be sent back: text that is not of printable ASCII characters.
    """
    tag: str = headers.get("ETag", "")
    date: str = headers.get("Last-Modified", "")
    version = date if not tag or tag.startswith("W/") else tag
    return version if version.isascii() and version.isprintable() else ""


def _bar(url: str, progress: bool) -> Any:
    return tqdm(  # type: ignore[no-untyped-call]
        desc=url.rpartition("/")[2][-40:],
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        delay=1e-3,  # nothing is shown before something comes
        disable=not progress,
    )
