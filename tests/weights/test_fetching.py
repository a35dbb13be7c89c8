"""Downloads from an origin: what a server or a network may do, one row an attack."""

import gzip

import pytest
from hub_server import NOWHERE, assert_equal
from raw_server import STALL, RawServer, answer, chunked, endless
from test_sources import CONVERTED, FOREIGN, at_the_origin, load

from ccnet.weights import retries

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
    "body cut at once, of no length": b"HTTP/1.0 200 OK\r\n\r\n",
    "body cut among zeros, of no length": b"HTTP/1.0 200 OK\r\n\r\n" + bytes(9),
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
    "empty": (answer(b""), "answered with an empty file"),
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
def test_what_may_pass_is_tried_again(hub, waits, hurry, monkeypatch, attack):
    hurry(attack)
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
