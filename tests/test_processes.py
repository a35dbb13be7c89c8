"""Processes that find each other, on several nodes, also after one of them was lost."""

import os
import socket
import subprocess
import sys

import pytest

from ccnet.processes import joined, usable_device

JOIN_AND_DIE_ONCE = """
import os, pathlib, signal
from ccnet import processes
killed = pathlib.Path("killed")
with processes.joined("cpu"):
    rank, count = processes.rank_and_count()
    if os.environ["NODE"] == "1" and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    ranks = processes.gather(rank)
    pathlib.Path(f"finished-{rank}").write_text(f"{count} {ranks}")
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_nodes_find_each_other_after_one_lost_a_process(repository, tmp_path):
    """Though the node that lost none counts one restart less."""
    (tmp_path / "join.py").write_text(JOIN_AND_DIE_ONCE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--max-restarts"]
    torchrun += ["1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    variables = {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            [*torchrun, "--rdzv-conf", f"is_host={int(node == 0)}", "join.py"],
            cwd=tmp_path,
            env={**os.environ, **variables, "NODE": str(node)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    try:
        printed = [node.communicate(timeout=120)[0] for node in nodes]
    finally:
        for node in nodes:
            node.terminate()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(printed)
    assert (tmp_path / "killed").exists()
    for rank in range(2):
        assert (tmp_path / f"finished-{rank}").read_text() == "2 [0, 1]"


@pytest.mark.parametrize("name", ["warp", "cuda:99", "", "cpu:x"])
def test_devices_that_are_not_there_are_named(name):
    with pytest.raises(ValueError, match=f"^device '{name}' cannot be used: [^\\n]+$"):
        usable_device(name)
    with pytest.raises(ValueError, match="cannot be used"), joined(name):
        pass


def test_the_device_that_is_there():
    assert usable_device("cpu").type == "cpu"
    with joined("cpu") as device:
        assert device.type == "cpu"
