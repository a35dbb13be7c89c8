"""Precision: what a device is fast at, on processors without instructions for it too."""

import math
import os
import platform
from pathlib import Path

import pytest
import torch

from ccnet import precision
from ccnet.precision import describe_slowness, fast_precision, slowdown

CPU = torch.device("cpu")
CUDA = torch.device("cuda")

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""With these in its environment, PyTorch computes as on a processor without bfloat16."""

needs_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86 is simulated"
)

SIMULATED = """
import logging
import torch
from ccnet.classes import LabelSet
from ccnet.inference.segment import segment
from ccnet.inference.protocol import InferenceProtocol
from ccnet.precision import fast_precision, slowdown
from ccnet.transforms import Preprocessing

class Network(torch.nn.Conv2d):
    def forward(self, x):
        return {"out": super().forward(x)}

logging.basicConfig(format="%(message)s")
threads = torch.get_num_threads()
cpu, network = torch.device("cpu"), Network(3, 2, 1)
print(fast_precision(cpu), slowdown("bfloat16", cpu, training=True) > 2)
pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
for precision in ("float32", "bfloat16", "bfloat16"):
    protocol = InferenceProtocol(precision=precision)
    segment(network, pixels, Preprocessing(), LabelSet.numbered(2), protocol)
assert threads == torch.get_num_threads()
"""


@needs_x86
def test_processor_without_bfloat16_trains_in_float32(run_forked, tmp_path):
    result = run_forked("-c", SIMULATED, cwd=tmp_path, **AVX2)
    assert result.stdout.split() == ["float32", "True"]
    warnings = result.stderr.splitlines()
    assert len(warnings) == 1, "once, and only where it is asked for"
    assert warnings[0].startswith("bfloat16 takes ")
    assert warnings[0].endswith(" times as long as float32 on this cpu device")


def _has_matrix_instructions():
    processor = Path("/proc/cpuinfo")
    return (
        processor.exists() and "amx_bf16" in processor.read_text() and not AVX2.keys() & os.environ
    )


@pytest.mark.skipif(not _has_matrix_instructions(), reason="the processor is slow at bfloat16")
def test_processor_with_bfloat16_trains_in_it():
    assert fast_precision(CPU) == "bfloat16"
    assert describe_slowness("bfloat16", CPU, training=True) == ""


@pytest.fixture
def anew(monkeypatch):
    """Nothing is remembered."""
    monkeypatch.setattr(precision, "_slowdown", precision._slowdown.__wrapped__)


def test_a_measurement_leaves_no_trace(anew):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"):
        assert 0 < slowdown("bfloat16", CPU, training=False) < math.inf
    with torch.no_grad():
        assert 0 < slowdown("bfloat16", CPU, training=True) < math.inf
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("supported", "expected"), [(True, "bfloat16"), (False, "float32")], ids=["new", "old"]
)
def test_cuda_devices_are_asked(anew, monkeypatch, supported, expected):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda emulated=True: asked.append(emulated) or supported
    )
    assert fast_precision(CUDA) == expected
    assert asked == [False], "emulation is slow"
    slowness = describe_slowness("bfloat16", CUDA, training=False)
    assert slowness == ("" if supported else "bfloat16 is emulated on this cuda device")
    assert describe_slowness("float16", CUDA, training=True) == ""


def test_devices_without_a_dtype_compute_in_float32(anew, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr("torch.nn.functional.conv2d", fail)
    assert fast_precision(CPU) == "float32"


def test_float32_is_not_slow():
    assert describe_slowness("float32", CPU, training=True) == ""
