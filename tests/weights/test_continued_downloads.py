"""Downloads from an origin, a request after another: continued, waited for, kept within bounds."""

import hashlib
import io
import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
import torch
from hub_server import NOWHERE
from huggingface_hub import close_session
from raw_server import RawServer, answer
from test_sources import FOREIGN

from ccnet.weights import fetching, retries
from ccnet.weights.fetching import fetch


def big_file():
    """A checkpoint of more than what a connection that breaks off may lose."""
    file = io.BytesIO()
    torch.save({"a": torch.arange(100_000)}, file)
    return file.getvalue()


BIG = big_file()
SHA256 = hashlib.sha256(BIG).hexdigest()
CUT = answer(BIG[: len(BIG) // 2], length=len(BIG), ETag='"1"')


def rest(request, begin=0, total=None, **headers):
    """Answers with what the request asks for, or from `begin` bytes after it."""
    start = int(re.search(r"Range: bytes=(\d+)-", request)[1])
    total = total or len(BIG)
    span = f"bytes {start + begin}-{total - 1}/{total}"
    return answer(BIG[start + begin :], "206 Part", Content_Range=span, **headers)


RESUMED = {
    "the rest": ([CUT, lambda asked: rest(asked, ETag='"1"')], 2),
    "the rest, twice cut": ([CUT, lambda asked: rest(asked)[:-9], rest], 3),
    "from a date": ([CUT.replace(b'ETag: "1"', b"Last-Modified: Thu, 01 Jan 1970"), rest], 2),
    "the whole": ([CUT, answer(BIG)], 2),
    "of another file": ([CUT, lambda asked: rest(asked, ETag='"2"'), answer(BIG)], 3),
    "another part": ([CUT, lambda asked: rest(asked, begin=9), answer(BIG)], 3),
    "of another length": ([CUT, lambda asked: rest(asked, total=10**9), answer(BIG)], 3),
    "a part without a place": ([CUT, answer(BIG, "206 Part"), answer(BIG)], 3),
    "no such part": ([CUT, answer(status="416 No"), answer(BIG)], 3),
    "mixed": ([CUT.replace(BIG[100:200], bytes(100)), rest, answer(BIG)], 3),
    "busy meanwhile": ([CUT, answer(status="503 Busy"), rest], 3),
    "no version": ([CUT.replace(b'ETag: "1"', b"X: 1"), answer(BIG)], 2),
    "version not of ASCII": ([CUT.replace(b'"1"', '"é"'.encode()), answer(BIG)], 2),
    "version of Latin-1": ([CUT.replace(b'"1"', b'"\xe9"'), answer(BIG)], 2),
    "version with a tab": ([CUT.replace(b'"1"', b'"1\t2"'), answer(BIG)], 2),
    "date not of ASCII": ([CUT.replace(b'ETag: "1"', b"Last-Modified: \xe9"), answer(BIG)], 2),
    "weak version": ([CUT.replace(b'"1"', b'W/"1"'), answer(BIG)], 2),
}
"""The answers to a download that broke off, and the requests that it takes."""


@pytest.mark.parametrize(("answers", "requests"), RESUMED.values(), ids=RESUMED)
def test_broken_download_is_continued_or_begun_again(waits, tmp_path, answers, requests):
    path = tmp_path / "got.pth"
    with RawServer(*answers) as server:
        fetch(f"{server.address}/big.pth", path, SHA256[:8], progress=False)
        assert len(server.asked) == requests
    assert path.read_bytes() == BIG
    has_range = "Range: bytes=" in server.asked[1]
    assert has_range == (b'ETag: "1"' in answers[0] or b"Modified: Thu" in answers[0])
    assert ("If-Range: " in server.asked[1]) == has_range


def test_slow_but_steady_download_takes_its_time(waits, hurry, tmp_path, monkeypatch):
    """Longer in all than any of its parts may take."""
    hurry()
    monkeypatch.setattr("ccnet.weights.timed_requests.CHUNK", 2**15)
    parts = [BIG[start : start + 2**15] for start in range(0, len(BIG), 2**15)]
    slowly = [answer(length=len(BIG)), *(item for part in parts for item in (0.03, part))]
    with RawServer(slowly) as server:
        fetch(f"{server.address}/big.pth", tmp_path / "got.pth", SHA256, progress=False)
    assert (len(server.asked), waits) == (1, [])


@pytest.mark.parametrize(("advance", "requests"), [(1, 7), (10**9, 2)])
def test_only_tries_that_get_no_further_count(waits, tmp_path, monkeypatch, advance, requests):
    monkeypatch.setattr(fetching, "_ADVANCE", advance)
    monkeypatch.setattr("ccnet.weights.timed_requests.CHUNK", 2**13)
    monkeypatch.setattr(retries, "TRIES", 2)
    sixth = len(BIG) // 6

    def piece(request):
        whole = rest(request)
        return whole[: whole.index(b"\r\n\r\n") + 4 + sixth]

    with RawServer(answer(BIG[:sixth], length=len(BIG), ETag='"1"'), piece) as server:
        url, path = f"{server.address}/big.pth", tmp_path / "got.pth"
        if requests == 7:
            fetch(url, path, SHA256, progress=False)
        else:
            with pytest.raises(OSError, match="peer closed"):
                fetch(url, path, SHA256, progress=False)
        assert len(server.asked) >= requests


FUTURE = format_datetime(datetime.now(timezone.utc) + timedelta(days=1), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("7", 7), ("100000", 60), (FUTURE, 60), ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("-1", None)],
    ids=["seconds", "long", "future", "long ago", "negative"],
)
def test_pause_that_the_server_asks_for_is_kept(waits, tmp_path, asked, pause):
    with RawServer(answer(status="429 No", Retry_After=asked), answer(BIG)) as server:
        fetch(f"{server.address}/big.pth", tmp_path / "got.pth", SHA256, progress=False)
    assert waits[0] == pause or (pause is None and 0.5 <= waits[0] <= 1)


def test_more_than_any_checkpoint_has_is_not_taken(waits, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "LARGEST", 10**6)
    flood = [b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(10**5)] * 100]
    with RawServer(flood) as server, pytest.raises(OSError, match="sends more than 1000000 bytes"):
        fetch(f"{server.address}/big.pth", tmp_path / "got.pth", SHA256, progress=False)
    assert (tmp_path / "got.pth").stat().st_size < 2 * 10**6


def test_another_checkpoint_is_refused(waits, tmp_path):
    with (
        RawServer(answer(FOREIGN)) as server,
        pytest.raises(ValueError, match="not the published file"),
    ):
        fetch(f"{server.address}/big.pth", tmp_path / "got.pth", SHA256, progress=False)
    assert not waits


@pytest.mark.parametrize("place", ["itself", "its past"])
def test_https_does_not_lead_to_http(waits, tmp_path, monkeypatch, place):
    plain, safe = (
        SimpleNamespace(url=retries.client.URL(f"{scheme}://x"), history=[])
        for scheme in ("http", "https")
    )
    answered = plain if place == "itself" else SimpleNamespace(url=safe.url, history=[safe, plain])
    monkeypatch.setattr(fetching, "request", lambda *_, **__: (item for item in [answered]))
    with pytest.raises(OSError, match="leads to http://x, which is not encrypted"):
        fetch("https://x/big.pth", tmp_path / "got.pth", SHA256, progress=False)


@pytest.mark.parametrize("is_there", [True, False])
def test_proxy_of_the_environment_is_asked(waits, tmp_path, monkeypatch, is_there):
    path = tmp_path / "got.pth"
    with RawServer(answer(BIG)) as server:
        monkeypatch.setenv("HTTP_PROXY", server.address if is_there else NOWHERE)
        close_session()  # the client reads its environment when it is made
        try:
            if is_there:
                fetch("http://nothing.invalid/big.pth", path, SHA256, progress=False)
                assert server.asked[0].startswith("GET http://nothing.invalid/big.pth ")
            else:
                with pytest.raises(OSError, match="refused"):
                    fetch("http://nothing.invalid/big.pth", path, SHA256, progress=False)
        finally:
            close_session()


def test_random_numbers_stay_as_they_were_seeded(waits, tmp_path):
    import random

    random.seed(0)
    expected = random.random()
    random.seed(0)
    with RawServer(b"", answer(BIG)) as server:
        fetch(f"{server.address}/big.pth", tmp_path / "got.pth", SHA256, progress=False)
    assert random.random() == expected
