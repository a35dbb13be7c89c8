"""Downloads from an origin: what a server or a network may do, one row an attack."""

import gzip
import hashlib
import io
import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from types import SimpleNamespace

import pytest
import torch
from hub_server import NOWHERE, assert_equal
from huggingface_hub import close_session
from raw_server import STALL, RawServer, answer, chunked, endless
from test_sources import CONVERTED, FOREIGN, at_the_origin, load

from ccnet.weights import fetching, retries
from ccnet.weights.fetching import fetch

GOOD = answer(FOREIGN)


def redirect(place):
    return answer(status="302 Found", Location=place)


TRANSIENT = {
    "says nothing": [STALL],
    "stalls in the header": [b"HTTP/1.1 200 OK\r\nContent-", STALL],
    "stalls in the body": [answer(FOREIGN[:500], length=len(FOREIGN)), STALL],
    "closes at once": b"",
    "closes in the header": GOOD[:20],
    "body cut": answer(FOREIGN[:500], length=len(FOREIGN)),
    "body cut, of no length": b"HTTP/1.0 200 OK\r\n\r\n" + FOREIGN[:500],
    "chunks cut": chunked(FOREIGN[:500]),
    "chunk of no size": chunked() + b"five\r\nabcde\r\n0\r\n\r\n",
    "garbage": b"\0\1\2 no server at all\r\n\r\n",
    "garbage status": b"HTTP/1.1 abc OK\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "line without end": b"HTTP/1.1 200 " + b"a" * 200_000,
    "thousands of headers": GOOD[:17] + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)),
    "header that is none": b"HTTP/1.1 200 OK\r\n: \r\nno colon\r\n\r\n",
    "length that is none": answer(FOREIGN, length="many"),
    "negative length": answer(FOREIGN, length=-1),
    "two lengths": answer(FOREIGN, Content_length=3),
    "interim answers without end": endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a byte of header now and then": endless(b"X", 0.05),
    "a byte of body now and then": lambda _: [answer(length=10**6), *[b"X", 0.05] * 1000],
    "chunk sizes without end": lambda _: [chunked(), *[b"0", 0.05] * 1000],
    "redirect to garbage": redirect("http://[::1"),
    "busy": answer(status="503 Busy"),
    "too many": answer(status="429 Slow down"),
    "internal error": answer(status="500 Oh"),
    "gateway": answer(status="504 Late", length=5),
}
"""What may be over the next time: answers of a server that are no file."""

PERMANENT = {
    "not there": (answer(status="404 No"), "answered 404"),
    "forbidden": (answer(status="403 No"), "answered 403"),
    "gone": (answer(status="410 No"), "answered 410"),
    "nothing": (answer(status="204 Nothing"), "answered 204"),
    "a part that nobody asked for": (answer(FOREIGN, status="206 Part"), "answered 206"),
    "not modified": (answer(status="304 Same"), "answered 304"),
    "redirect to no place": (answer(status="302 Found"), "answered 302"),
    "redirect without end": (redirect("/again"), "redirects"),
    "redirect to a file": (redirect("file:///etc/passwd"), "file://"),
    "empty": (answer(b""), "empty"),
    "a page": (answer(b"\r\n<!DOCTYPE html><html>Sign in</html>"), "an HTML page"),
    "a page said to be a file": (
        answer(b"<html>", Content_Type="application/octet-stream"),
        "an HTML page",
    ),
    "a JSON text": (answer(b'{"error": "no"}'), "a JSON text"),
    "packed": (answer(gzip.compress(FOREIGN), Content_Encoding="gzip"), "gzip data"),
    "length beyond all bounds": (answer(FOREIGN, length=10**15), "announced 10"),
    "zeros": (answer(bytes(1000)), "zeros"),
}
"""What is the same the next time, and a word of the error."""


@pytest.mark.parametrize("attack", TRANSIENT.values(), ids=TRANSIENT)
def test_what_may_pass_is_tried_again(hub, waits, monkeypatch, attack):
    monkeypatch.setattr(retries, "TRIES", 2)
    with RawServer(attack, answer(FOREIGN)) as server:
        assert_equal(load(at_the_origin(server.address)).state_dict, CONVERTED)
        assert len(server.asked) == 2
    assert 0.5 <= waits.pop() <= 1
    with RawServer(attack) as server:
        assert_named(at_the_origin(server.address, file="other.safetensors"))
        assert len(server.asked) == 2


@pytest.mark.parametrize(("attack", "said"), PERMANENT.values(), ids=PERMANENT)
def test_what_does_not_pass_ends_at_once(hub, waits, attack, said):
    with RawServer(attack) as server:
        assert said in assert_named(at_the_origin(server.address))
    assert not waits


def assert_named(weights):
    """Asserts the error that names every place, in short lines, and returns it."""
    with pytest.raises(FileNotFoundError, match=r"^Own.OWN was not found") as caught:
        load(weights)
    message = str(caught.value)
    *places, remedy = message.splitlines()
    assert weights.meta["file"] in places[1]
    assert places[-1].startswith(f"  {weights.meta['origin']['url']}: ")
    assert remedy.endswith("set CCNET_WEIGHTS_DIR to its path.")
    assert len(places[-1]) < 500
    return message


@pytest.mark.parametrize("place", [NOWHERE, "http://nothing.invalid", "http://127.0.0.1:99999"])
@pytest.mark.parametrize("is_redirected", [False, True])
def test_what_does_not_answer_is_asked_twice(hub, waits, place, is_redirected):
    with RawServer(redirect(place)) as server:
        assert_named(at_the_origin(server.address if is_redirected else place))
    assert len(waits) == 1


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
    assert has_range == (b'ETag: "1' in answers[0] or b"Last-Modified" in answers[0])
    assert ("If-Range: " in server.asked[1]) == has_range


def test_slow_but_steady_download_takes_its_time(waits, tmp_path, monkeypatch):
    """Longer in all than any of its parts may take."""
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


SOON = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=1000), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("7", 7), ("100000", 60), (SOON, 60), ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("-1", None)],
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
    with RawServer(GOOD) as server, pytest.raises(ValueError, match="not the published file"):
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
