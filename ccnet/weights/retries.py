"""Retries: which errors of a download may pass, and how long to wait for that."""

import importlib
import logging
import random
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # its client's

logger = logging.getLogger(__name__)

client: Any = importlib.import_module(HTTPError.__module__.partition(".")[0])
"""The HTTP client that huggingface_hub brings: httpx, or httpx2 since its 2.0."""

FAILURES = (OSError, HTTPError, client.InvalidURL, client.StreamError, RuntimeError, ValueError)
"""Everything that the client raises for what a server or a network does."""

TRIES = 5
"""How often a server that answers is asked before its error counts."""

TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
"""Answers that may be another the next time."""

_TRIES_WITHOUT_ANSWER = 2
_LONGEST_PAUSE = 60.0

_random = random.Random()  # of its own: a download changes no seeded training


class NoAnswerError(TimeoutError):
    """A server that has taken a connection says nothing."""


class Patience:
    """Waits after each failure in a row, longer every time, and gives up in the end.

    Where nothing answers (no such name, connection refused, no route, a certificate that is not
    trusted, a server that says nothing) that is after one more try; where a connection cannot be
    made in time, at once.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.failures = 0

    def wait(self, error: Exception) -> None:
        """Waits before the next try; raises the error where there should be none."""
        self.failures += 1
        if self.failures >= _tries(error):
            raise error
        pause = _asked_pause(error)
        if pause is None:
            pause = 2 ** (self.failures - 1) * _random.uniform(0.5, 1)
        logger.warning("%s: %s; trying again in %.1f s", self.place, reason(error), pause)
        time.sleep(pause)


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    status = status_of(error)
    if status is not None:
        return f"the server answered {status}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _tries(error: Exception) -> int:
    status = status_of(error)
    if status is not None:
        return TRIES if status in TRANSIENT_STATUS else 1
    if isinstance(error, (client.ConnectError, client.ProxyError, NoAnswerError)):
        return _TRIES_WITHOUT_ANSWER
    if isinstance(error, client.ConnectTimeout):
        return 1
    passing = (client.TimeoutException, client.NetworkError, client.RemoteProtocolError)
    return TRIES if isinstance(error, (TimeoutError, *passing)) else 1


def status_of(error: Exception) -> int | None:
    """The status that a server answered with, if that is the error."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _asked_pause(error: Exception) -> float | None:
    """The seconds that a server asks to wait, in either form of Retry-After, within bounds."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    try:
        if asked.isdigit():
            seconds = float(asked)
        else:
            date = parsedate_to_datetime(asked)
            seconds = (date - datetime.now(date.tzinfo and timezone.utc)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0), _LONGEST_PAUSE)
