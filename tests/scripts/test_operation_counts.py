"""Off the CPU: few operations, few bytes, however many samples, and nothing for the host."""

import itertools

import attention_operator
import pytest
import torch
from operation_counts import OperationCount, operator_counts, step_counts

from ccnet.attention_kernel.multiplication import widens

MOST_OPERATIONS = (20, 36)
"""Forward, backward."""
MOST_BYTES = {"float32": (1.0, 1.1), "float16": (1.25, 1.5)}
"""Times those of the published formulation."""
if not widens("meta"):  # before PyTorch 2.8
    MOST_BYTES["float16"] = (1.25, 1.6)


def counts(name, batch, dtype, layout, size=(97, 97)):
    dtype = getattr(torch, dtype)
    inputs = attention_operator.make_inputs(size, batch, dtype, layout, "meta")
    return operator_counts(attention_operator.OPERATORS[name], inputs)


@pytest.mark.parametrize("layout", attention_operator.LAYOUTS)
@pytest.mark.parametrize("dtype", MOST_BYTES)
def test_operations_are_few_and_as_many_for_every_batch_size(dtype, layout):
    found = set()
    for batch in (1, 2, 3, 8):
        passes = zip(
            counts("this", batch, dtype, layout),
            counts("published", batch, dtype, layout),
            MOST_OPERATIONS,
            MOST_BYTES[dtype],
            strict=True,
        )
        for (operations, moved), (_, published), most, times in passes:
            assert operations <= most
            assert moved <= times * published
            if batch > 1:
                found.add(operations)
    assert len(found) == 2


def test_bytes_are_those_of_what_is_read_and_written():
    first, second = torch.ones(10, 6), torch.ones(6, 7)
    with OperationCount() as counted:
        product = first @ second
        product.t().add_(1)
        torch.empty(5).copy_(torch.ones(5))
        torch.mm(first, second, out=product)
    assert counted.operations == 5
    sizes = 60 + 42 + 70, 70 + 70, 5, 5 + 5, 60 + 42 + 70
    assert counted.moved == 4 * sum(sizes)


def test_training_step_needs_no_host_and_grows_with_no_batch():
    steps = {
        (batch, published): step_counts("ccnet_resnet18", (batch, 3, 65, 97), published=published)
        for batch, published in itertools.product((2, 3), (False, True))
    }
    operations = {key: [count[0] for count in step.values()] for key, step in steps.items()}
    assert operations[2, False] == operations[3, False]
    assert operations[2, False][1] <= 74, "of both losses"
    assert steps[2, False]["forward"][0] < steps[2, True]["forward"][0]
    for step in steps.values():
        assert list(step) == ["forward", "loss", "backward"]
        assert all(moved > 0 for _, moved in step.values())


def test_tables_show_the_counts(monkeypatch, capsys):
    monkeypatch.setattr(attention_operator, "COUNTED_SIZE", (5, 6))
    monkeypatch.setattr(attention_operator, "COUNTED_STEP", ("ccnet_resnet18", (2, 3, 33, 33)))
    monkeypatch.setattr("sys.argv", ["attention_operator.py", "--count"])
    attention_operator.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 * 2 * 2 * 2 + 1 + 2 + 3
    operations, moved = counts("this", 8, "float16", "NCHW", (5, 6))[1]
    (row,) = (line for line in lines if line.startswith("| 8, float16, NCHW | backward |"))
    assert f" {operations}, {moved:.2f} " in row
