"""Consoles that cannot show a name, that nobody reads, or that were closed; missing extras."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccnet.console import printable, require_extra

SAY = """
import logging, runpy, sys
from tqdm import tqdm
prepare_console = runpy.run_path(sys.argv[1])["prepare_console"]
prepare_console()
prepare_console()
logging.basicConfig(format="%(message)s")
names = ["M\\u00fcnchen", "\\u9053\\u8def", "\\N{MOTORWAY}", "bytes \\udcff"]
for name in tqdm(names * int(sys.argv[2])):
    print(name)
    logging.warning(name)
    tqdm.write(name)
open("done", "x").close()
raise SystemExit(names[0])
"""

ENCODINGS = {
    "UTF-8": ["München", "道路", "\N{MOTORWAY}", r"bytes \udcff"],
    "cp1252": ["München", r"\u9053\u8def", r"\U0001f6e3", r"bytes \udcff"],
    "ascii": [r"M\xfcnchen", r"\u9053\u8def", r"\U0001f6e3", r"bytes \udcff"],
    "ascii:strict": [r"M\xfcnchen", r"\u9053\u8def", r"\U0001f6e3", r"bytes \udcff"],
}


@pytest.fixture
def say(repository, tmp_path):
    """Starts a script that prints many names, on some console."""
    (tmp_path / "say.py").write_text(SAY)

    def start(rounds=1, redirect="", **variables):
        module = repository / "ccnet" / "console.py"  # alone: it needs no PyTorch
        command = f'exec "{sys.executable}" say.py "{module}" {rounds} {redirect}'
        options = {"cwd": tmp_path, "env": {**os.environ, **variables}, "shell": True}
        return subprocess.Popen(command, stdout=-1, stderr=-1, **options)

    return start


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_a_console_cannot_show_is_escaped(say, tmp_path, encoding):
    run = say(PYTHONIOENCODING=encoding)
    out, errors = (text.decode(encoding.partition(":")[0]) for text in run.communicate(timeout=60))
    names = ENCODINGS[encoding]
    assert out.split(os.linesep) == [*(name for name in names for _ in range(2)), ""]
    assert errors.rstrip().endswith(names[0])
    assert all(name in errors for name in names)
    assert (tmp_path / "done").exists()
    assert run.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="locales of POSIX")
def test_locale_without_an_encoding(say, tmp_path):
    run = say(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    out, _ = run.communicate(timeout=60)
    assert out.decode("ascii").splitlines()[::2] == ENCODINGS["ascii"]
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(os.name == "nt", reason="shells of POSIX")
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_console_does_not_end_a_run(say, tmp_path, redirect):
    say(redirect=redirect).communicate(timeout=60)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("redirect", ["", "2>&1"])
def test_reader_that_leaves_does_not_end_a_run(say, tmp_path, redirect):
    """As in `predict.py photos | head -1`."""
    run = say(2_000, redirect)
    assert run.stdout.readline()
    run.stdout.close()
    errors = run.stderr.read().decode()
    assert run.wait(timeout=60) == 1
    assert (tmp_path / "done").exists()
    assert "BrokenPipe" not in errors
    run.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_full_disk_is_no_success(say, tmp_path):
    run = say(2_000, "> /dev/full")
    _, errors = run.communicate(timeout=60)
    assert b"No space left on device" in errors
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("道路 München \N{MOTORWAY}", "道路 München \N{MOTORWAY}"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred\x00\x7f\x9b", r"\x1b[31mred\x00\x7f\x9b"),
        ("bytes \udcff", r"bytes \udcff"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_names_are_one_printable_line(text, shown):
    assert printable(text) == shown


WAIT = """
import hashlib, os, runpy, signal, sys, time
console = runpy.run_path(sys.argv[1])
console["prepare_console"]()
signals = signal.SIGINT, signal.SIGTERM
tell = lambda text: print(text, flush=True)
def wait():
    for _ in range(600):  # a signal just before a sleep is handled after it
        time.sleep(0.1)
def clean_up():
    tell("cleaning")
    time.sleep(0.3)
    tell("cleaned")
"""

BODIES = {
    "waits": """
try:
    tell("ready")
    wait()
finally:
    clean_up()
""",
    "ends on signals": """
with console["ending_on_second_interrupt"](), console["ending_on_signals"](signals):
    try:
        tell("ready")
        wait()
    finally:
        clean_up()
""",
    "is deaf": """
with console["ending_on_second_interrupt"]():
    tell("ready")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # handles no signal
""",
    "has ended": """
with console["ending_on_second_interrupt"](), console["ending_on_signals"](signals):
    pass
tell("ready")
wait()
""",
    "ends as it is told to": """
with console["ending_on_second_interrupt"]():
    signal.signal(signal.SIGINT, lambda *_: None)
    tell("ready")
    time.sleep(1.7)
""",
}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("body", "signals", "status", "out", "error"),
    [
        ("waits", [(0, "INT")], 130, ["cleaning", "cleaned"], ["interrupted"]),
        ("waits", [(0, "TERM")], -15, [], []),
        ("ends on signals", [(0, "INT")], 130, ["cleaning", "cleaned"], ["interrupted"]),
        ("ends on signals", [(0, "TERM")], 143, ["cleaning", "cleaned"], ["terminated"]),
        (
            *("ends on signals", [(0, "INT"), (0.1, "INT"), (0, "TERM")], 130),
            *(["cleaning", "cleaned"], ["interrupted"]),
        ),
        ("is deaf", [(0, "INT"), (0.1, "INT"), (1.2, "INT")], 130, [], ["interrupted"]),
        ("has ended", [(0, "INT")], 130, [], ["interrupted"]),
        ("has ended", [(0, "TERM")], -15, [], []),
        ("ends as it is told to", [(0, "INT"), (1.2, "INT")], 0, [], []),
    ],
)
def test_signals_end_a_script_with_one_line(
    repository, tmp_path, body, signals, status, out, error
):
    (tmp_path / "wait.py").write_text(WAIT + BODIES[body])
    command = [sys.executable, tmp_path / "wait.py", repository / "ccnet" / "console.py"]
    run = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
    try:
        assert run.stdout.readline() == "ready\n"
        for pause, name in signals:
            time.sleep(pause)
            run.send_signal(getattr(signal, f"SIG{name}"))
        written, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert written.splitlines() == out
    assert errors.split() == error
    assert run.returncode == status


def test_missing_extras_are_named(monkeypatch):
    require_extra("train", ["json"])
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = r"^tensorboard must be installed .* pip install \"ccnet-pytorch\[train\]\", or in a"
    with pytest.raises(ValueError, match=message):
        require_extra("train", ["json", "tensorboard"])
