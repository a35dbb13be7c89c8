"""Process groups of torchrun, on several nodes and after a lost process, and devices."""

import os
import socket
import subprocess
import sys

import pytest

from ccnet.distributed import process_group, usable_device

NEW_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"

JOIN_AND_DIE_ONCE = """
import os, pathlib, signal
from ccnet import distributed
killed = pathlib.Path("killed")
with distributed.process_group("cpu"):
    rank, world_size = distributed.rank(), distributed.world_size()
    if os.environ.get("NODE") == "1" and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    ranks = distributed.all_gather(rank)
    pathlib.Path(f"finished-{rank}").write_text(f"{world_size} {ranks}")
"""

TORCHRUN = ("-m", "torch.distributed.run", "--max-restarts", "1")


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_nodes_find_each_other_after_one_lost_a_process(repository, tmp_path):
    """Though the node that lost none counts one restart less."""
    (tmp_path / "join.py").write_text(JOIN_AND_DIE_ONCE)
    torchrun = [sys.executable, *TORCHRUN, "--nnodes", "2"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    variables = {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", NEW_STORE: "1"}
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


@pytest.mark.parametrize("kind", ["without the variable", "static"])
def test_restarts_without_a_new_store_are_refused(run_python, tmp_path, monkeypatch, kind):
    monkeypatch.delenv(NEW_STORE, raising=False)
    (tmp_path / "join.py").write_text(JOIN_AND_DIE_ONCE)
    variables, meeting = {}, ("--standalone",)
    if kind == "static":
        variables, meeting = {NEW_STORE: "1"}, ("--master-port", str(free_port()))
    command = (*TORCHRUN, *meeting, "join.py")
    refused = run_python(*command, cwd=tmp_path, succeeds=False, OMP_NUM_THREADS="1", **variables)
    message = "torchrun --max-restarts needs a new store for every restart"
    assert f"ValueError: {message}: set {NEW_STORE}=1" in refused.stderr
    assert not (tmp_path / "finished-0").exists()


@pytest.mark.parametrize("name", ["warp", "cuda:99", "", "cpu:x"])
def test_missing_devices_are_named(name):
    with pytest.raises(ValueError, match=f"^device '{name}' cannot be used: [^\\n]+$"):
        usable_device(name)
    with pytest.raises(ValueError, match="cannot be used"), process_group(name):
        pass


def test_process_group_yields_the_device_of_a_single_process():
    assert usable_device("cpu").type == "cpu"
    with process_group("cpu") as device:
        assert device.type == "cpu"
