"""Processes forked from one that has imported PyTorch, which takes a fresh interpreter seconds."""

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import types
from pathlib import Path

processes = multiprocessing.get_context("forkserver")
"""Starts processes that share no state with this one and need not import everything again."""

processes.set_forkserver_preload(["ccnet.training.engine", "torch.utils.tensorboard", "pytest"])

IMPORTED_ANEW = ("ccnet", "huggingface_hub")
"""What reads its environment, or is tested, is not taken from the process that is forked."""

TORCHRUN = ("-m", "torch.distributed.run", "--start-method", "fork", "--run-path")
"""torchrun, whose workers are forked too; the script needs an absolute path."""


@functools.cache
def _usual_path():
    """Where an interpreter looks for modules without PYTHONPATH."""
    command = [sys.executable, "-E", "-c", "import sys; print('\\n'.join(sys.path[1:]))"]
    return subprocess.check_output(command, text=True).splitlines()


def start(arguments, cwd, variables, output, errors):
    """Starts what `python *arguments` would, in an environment, with files for what it prints."""
    command = list(map(str, arguments))
    process = processes.Process(
        target=_become, args=(command, cwd, variables, output, errors, _usual_path())
    )
    process.start()
    return process


def run(arguments, cwd, variables, timeout):
    """Runs what `python *arguments` would; the result is that of `subprocess.run`."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "output"), Path(folder, "errors")
        process = start(arguments, cwd, variables, *files)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout)
        printed = (file.read_text() if file.exists() else "" for file in files)
        return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _become(arguments, cwd, variables, output, errors, usual_path):
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for stream, path in ((1, output), (2, errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, stream)
        os.close(file)
    for name in [name for name in sys.modules if name.partition(".")[0] in IMPORTED_ANEW]:
        del sys.modules[name]
    first, *rest = arguments
    given = variables.get("PYTHONPATH", "").split(os.pathsep)
    folder = "" if first in ("-c", "-m") else str(Path(first).parent)
    sys.path[:] = [folder, *filter(None, given), *usual_path]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
