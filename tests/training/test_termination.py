"""Signals that ask a run to end, and those that the process ignores."""

import os
import signal
import sys

import pytest

from ccnet.training.termination import Termination

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("ignored", [False, True])
def test_signals_ask_for_the_end_unless_they_are_ignored(number, ignored):
    """As under nohup, or in the background of a shell's script; SIGTERM counts nevertheless."""
    handler = signal.SIG_IGN if ignored else signal.SIG_DFL
    before = signal.signal(number, handler)
    try:
        termination = Termination()
        with termination.awaited():
            os.kill(os.getpid(), number)
        assert termination.requested == (not ignored or number == signal.SIGTERM)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
