"""Processes that join, started by torchrun or by something else, lost processes, and devices."""

import json
import os
import socket

import forked_python
import pytest
from small_runs import trainer

from ccnet.distributed import (
    process_group,
    refuse_stray,
    usable_device,
    world_size,
)
from ccnet.launchers import LAUNCHERS, started_processes

NEW_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"

HERE = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}

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

TORCHRUN = (*forked_python.TORCHRUN, "--max-restarts", "1")


def raiser(error):
    def fail(*_):
        raise error

    return fail


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture
def start_all(repository, tmp_path):
    """Starts Python programs at the same time, which must all succeed."""
    usual = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}

    def start_all(programs):
        printed = tmp_path / "printed"
        started = [
            forked_python.start(arguments, tmp_path, usual | variables, printed, printed)
            for arguments, variables in programs
        ]
        for process in started:
            process.join(timeout=120)
            process.terminate()
        assert [process.exitcode for process in started] == [0] * len(started), printed.read_text()

    return start_all


def test_nodes_find_each_other_after_one_lost_a_process(start_all, tmp_path):
    """Though the node that lost none counts one restart less."""
    script = tmp_path / "join.py"
    script.write_text(JOIN_AND_DIE_ONCE)
    torchrun = [*TORCHRUN, "--nnodes", 2]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}"]
    start_all(
        (
            [*torchrun, "--rdzv-conf", f"is_host={int(node == 0)}", script],
            {NEW_STORE: "1", "NODE": str(node)},
        )
        for node in range(2)
    )
    assert (tmp_path / "killed").exists()
    for rank in range(2):
        assert (tmp_path / f"finished-{rank}").read_text() == "2 [0, 1]"


@pytest.mark.parametrize("kind", ["without the variable", "static"])
def test_restarts_without_a_new_store_are_refused(run_forked, tmp_path, monkeypatch, kind):
    monkeypatch.delenv(NEW_STORE, raising=False)
    (tmp_path / "join.py").write_text(JOIN_AND_DIE_ONCE)
    variables, meeting = {}, ("--standalone",)
    if kind == "static":
        variables, meeting = {NEW_STORE: "1"}, ("--master-port", str(free_port()))
    command = (*TORCHRUN, *meeting, tmp_path / "join.py")
    refused = run_forked(*command, cwd=tmp_path, succeeds=False, OMP_NUM_THREADS="1", **variables)
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


JOIN = """
import json, pathlib
from ccnet import distributed
with distributed.process_group("cpu"):
    rank, world_size = distributed.rank(), distributed.world_size()
    with distributed.process_group("cpu"):
        ranks = distributed.all_gather(rank)
assert distributed.world_size() == 1
pathlib.Path(f"joined-{rank}.json").write_text(json.dumps([world_size, ranks]))
"""


def test_processes_of_any_launcher_join(start_all, tmp_path):
    """Started by hand, with the variables that Kubernetes' operators set."""
    (tmp_path / "join.py").write_text(JOIN)
    shared = {"WORLD_SIZE": "2", **HERE, "MASTER_PORT": str(free_port()), "SLURM_NTASKS": "2"}
    start_all((["join.py"], {**shared, "RANK": str(rank)}) for rank in range(2))
    for rank in range(2):
        assert json.loads((tmp_path / f"joined-{rank}.json").read_text()) == [2, [0, 1]]


@pytest.fixture
def variables(monkeypatch):
    """Sets variables of the environment, without those of any launcher."""
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", *HERE}
    for name in names.union(*LAUNCHERS) - {""}:
        monkeypatch.delenv(name, raising=False)
    return lambda **values: [monkeypatch.setenv(*item) for item in values.items()]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"RANK": "", "WORLD_SIZE": ""},
        {"SLURM_NTASKS": "1"},
        {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"},  # one interactive step of a larger job
        {"SLURM_NTASKS": "4", "RANK": "0", "WORLD_SIZE": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {name: "0" for one in LAUNCHERS for name in (one.rank, one.local_rank) if name},
        {"WORLD_SIZE": "1"},
        {"TORCHELASTIC_MAX_RESTARTS": ""},
        {"PMI_SIZE": "2", "RANK": "0", "WORLD_SIZE": "1"},
    ],
)
def test_single_process(variables, values):
    variables(**values)
    assert started_processes() == 1
    refuse_stray()
    with process_group("cpu") as device:
        assert device.type == "cpu"
        assert world_size() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(
            ({name: "3"}, rf"{name} is 3, .* each work alone: set RANK=\${one.rank}, WORLD_SIZE")
            for one in LAUNCHERS
            for name in (one.size, one.rank)
            if name
        ),
        ({"SLURM_NPROCS": "4", "SLURM_PROCID": "0"}, r".* LOCAL_RANK=\$SLURM_LOCALID, MASTER"),
        ({"WORLD_SIZE": "1", "SLURM_NTASKS": "4"}, "SLURM_NTASKS is 4, but RANK and .* not both"),
        ({"TORCHELASTIC_MAX_RESTARTS": "abc"}, "TORCHELASTIC_MAX_RESTARTS is 'abc': it must be"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "99999"},
            "MASTER_PORT is 99999: it must be from 1 to 65535",
        ),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM_NTASKS is 4, .* each work alone"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, "SLURM_NTASKS is 4"),
        ({"SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "2"}, "PMI_SIZE is 2"),
        ({"RANK": "0"}, "WORLD_SIZE must be set as well"),
        ({"WORLD_SIZE": "2", **HERE}, "RANK must be set as well"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT must be set as well"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": ""},
            "MASTER_PORT must be set as well",
        ),
        ({"RANK": "2", "WORLD_SIZE": "2", **HERE}, "RANK is 2: it must be below WORLD_SIZE"),
        ({"RANK": "-1", "WORLD_SIZE": "2", **HERE}, "RANK is '-1': it must be a number, 0 or more"),
        ({"RANK": "0", "WORLD_SIZE": "two", **HERE}, "WORLD_SIZE is 'two': it must be a number"),
        ({"RANK": "0", "WORLD_SIZE": "0", **HERE}, "RANK is 0: it must be below WORLD_SIZE"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "http"},
            "MASTER_PORT is 'http': it must be a number",
        ),
    ],
)
def test_processes_that_cannot_join_are_refused(variables, values, message):
    variables(**values)
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"), process_group("cpu"):
        pass


def test_lost_meeting_place_is_one_line(variables, monkeypatch):
    variables(RANK="1", WORLD_SIZE="2", **HERE)
    lost = RuntimeError("The client socket has timed out.\nException raised from ...")
    monkeypatch.setattr("torch.distributed.init_process_group", raiser(lost))
    message = r"^rank 1 of 2 cannot join .* localhost:29500: The client socket has timed out\.$"
    with pytest.raises(ConnectionError, match=message), process_group("cpu"):
        pass


def test_unknown_address_is_told_at_once(variables, monkeypatch, caplog):
    """And awaited, as the names of clusters come to be known late."""
    variables(RANK="1", WORLD_SIZE="2", MASTER_ADDR="nowhere.invalid", MASTER_PORT="29500")
    monkeypatch.setattr("socket.getaddrinfo", raiser(socket.gaierror(-2, "unknown")))
    monkeypatch.setattr("torch.distributed.init_process_group", raiser(RuntimeError("lost")))
    with pytest.raises(ConnectionError, match="lost"), process_group("cpu"):
        pass
    assert "MASTER_ADDR is 'nowhere.invalid', which is not found" in caplog.text


def test_trainer_refuses_to_train_alone_beside_others(variables, tmp_path):
    """Without the group, each process would train alone and write to the same folder."""
    variables(RANK="0", WORLD_SIZE="2", **HERE)
    with pytest.raises(
        ValueError, match=r"^2 processes .* enter ccnet\.distributed\.process_group"
    ):
        trainer(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "values", "chosen"),
    [
        ("cuda", {"LOCAL_RANK": "1"}, "cuda:1"),
        ("cuda", {"SLURM_LOCALID": "2"}, "cuda:2"),
        ("cuda", {"OMPI_COMM_WORLD_LOCAL_RANK": "3"}, "cuda:3"),
        ("cuda", {"LOCAL_RANK": "0", "SLURM_LOCALID": "2"}, "cuda:0"),
        ("cuda:1", {"LOCAL_RANK": "0"}, "cuda:1"),
        ("cuda", {}, None),
    ],
)
def test_device_is_that_of_the_local_rank(variables, monkeypatch, asked, values, chosen):
    variables(RANK="1", WORLD_SIZE="2", **HERE, **values)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    usable = []

    def stop(name):
        usable.append(name)
        raise ValueError("far enough")

    monkeypatch.setattr("ccnet.distributed.usable_device", stop)
    message = "far enough" if chosen else "there are 4 CUDA devices: set LOCAL_RANK"
    with pytest.raises(ValueError, match=message), process_group(asked):
        pass
    assert usable == ([chosen] if chosen else [])
