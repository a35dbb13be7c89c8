"""The benchmark for GPUs, exercised on the CPU so that it does not rot."""

import gpu
import pytest
import torch


@pytest.fixture
def measure(monkeypatch, tmp_path, capsys):
    def run(*options):
        sizes = gpu.Sizes(((3, 3),), (1,), "ccnet_resnet18", 33, 2, (33, 40), 1)
        monkeypatch.setitem(gpu.SIZES, "cpu", sizes)
        output = tmp_path / "new" / "measured.md"
        arguments = ["--device", "cpu", "--output", output, *options]
        monkeypatch.setattr("sys.argv", ["gpu.py", *map(str, arguments)])
        gpu.main()
        assert capsys.readouterr().out.rstrip() == output.read_text().rstrip()
        return output.read_text()

    return run


def test_every_case_is_timed(measure):
    text = measure()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 * 2 + 4 + 2 * 2 * 2
    assert "no time" not in text
    assert text.startswith("# Measured on a CPU, small sizes\n")
    (claim,) = (row for row in rows if row.startswith("| image of 33x40 in windows of 33 |"))
    published, this = claim.split(" | ")[1:3]
    times = float(this.split("(")[1].rstrip(")"))
    assert times == pytest.approx(float(published) / float(this.split()[0]), abs=0.01)


def test_nothing_begins_when_time_is_up(measure):
    text = measure("--minutes", 0)
    assert text.count("no time was left") == 4 + 2 * 2 * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_time_is_claimed_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "no CUDA device" in capsys.readouterr().err
