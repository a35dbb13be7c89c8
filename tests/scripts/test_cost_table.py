"""Cost table: operations and memory equal the formulas and the paper's GFLOPs."""

import json

import cost_table
import pytest
import torch
from live_memory import LiveMemory, kept_for_backward
from torch import nn

from ccnet.attention import CrissCrossAttention2d
from ccnet.baselines import NonLocalBlock2d, PublishedCrissCrossAttention2d

POSITIONS = 97 * 97
MAP_MB = 4 * POSITIONS / 1e6
"""Of one channel."""


@pytest.fixture(scope="module")
def rows():
    return {row["module"]: row for row in cost_table.cost_rows()}


def test_gflops_are_the_published_ones_and_twice_the_multiply_adds(rows):
    published = {"Non-local": 108.15, "two Non-local": 216.3}
    published |= {"RCCA, R=1": 8.26, "RCCA, R=2": 16.5, "RCCA, R=3": 24.8}
    assert {name: row["gflops"] for name, row in rows.items()} == pytest.approx(published, rel=0.01)
    projections = POSITIONS * 512 * (64 + 64 + 512)
    gathered = {"Non-local": POSITIONS, "RCCA, R=1": 97 + 97}
    for name, others in gathered.items():
        products = POSITIONS * others * (64 + 512)
        assert rows[name]["gflops"] == pytest.approx(2 * (projections + products) / 1e9, rel=1e-9)


def test_memory_of_criss_cross_attention_is_that_of_its_maps(rows):
    # Query, key; value, what is gathered, the output.
    loop = (2 * 64 + 3 * 512) * MAP_MB
    for loops in (1, 2, 3):
        assert rows[f"RCCA, R={loops}"]["kept_mb"] == pytest.approx(loops * loop, rel=1e-6)


def test_memory_is_ordered(rows):
    names = ("RCCA, R=1", "RCCA, R=2", "RCCA, R=3", "Non-local", "two Non-local")
    for row in rows.values():
        assert 0 < row["kept_mb"] < row["peak_forward_mb"] < row["peak_step_mb"]
    for kind in ("kept_mb", "peak_forward_mb", "peak_step_mb"):
        values = [rows[name][kind] for name in names]
        assert values == sorted(values)
    assert rows["Non-local"]["kept_mb"] > POSITIONS * MAP_MB


@pytest.mark.parametrize("module", [CrissCrossAttention2d, NonLocalBlock2d])
def test_kept_memory_is_what_autograd_saves_and_the_output(module):
    block = module(512).to("meta")
    x = torch.empty(1, 512, 97, 97, device="meta", requires_grad=True)
    saved = kept_for_backward(lambda: block(x), (x, *block.parameters()))
    assert cost_table.count_cost(block)["kept_mb"] == pytest.approx(saved / 1e6 + 512 * MAP_MB)


def test_live_memory_follows_storages():
    outside = torch.ones(500)
    with LiveMemory() as memory:
        first = torch.zeros(1000)
        view = first[10:].view(-1, 10)
        first.add_(1)
        outside.add_(1)
        assert memory.live == 4000
        second = outside + 1
        assert memory.live == 6000
        del first
        assert memory.live == 6000
        del view
        assert memory.live == 2000
        del second
    assert (memory.live, memory.peak) == (0, 6000)


def test_published_formulation_replaces_the_module():
    module = CrissCrossAttention2d(16).double()
    nn.init.constant_(module.gamma, 0.7)
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(PublishedCrissCrossAttention2d(module)(x), module(x))


def test_script_reports_counts_and_times(tmp_path, monkeypatch, capsys):
    arguments = ["--size", "33x49", "--batch", "2", "--rounds", "2", "--device", "cpu"]
    arguments += ["--json", str(tmp_path / "new" / "cost.json")]
    monkeypatch.setattr("sys.argv", ["cost_table.py", *arguments])
    cost_table.main()
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "new" / "cost.json").read_text())
    assert len(report["cost"]) == 5
    measured = [row["measured"] for row in report["timing"]]
    assert measured == ["training step of batch 2", "evaluated image"]
    for row in report["timing"]:
        assert 0 < row["this_fastest_s"] <= row["this_s"]
        assert row["published_over_this"] == row["published_s"] / row["this_s"]
    assert "| RCCA, R=2 | 16.54 | 16.5 |" in printed
    assert "ccnet_resnet18 at 33x49" in printed
    ours, theirs = printed.split("Not measured here")
    assert "14 min 32 s" not in ours
    assert "14 min 32 s" in theirs
