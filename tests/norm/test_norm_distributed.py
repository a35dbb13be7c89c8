"""Two gloo processes with parts of a batch, compared with one process and the whole batch."""

from dataclasses import dataclass

import pytest
import torch
from small_runs import finish, start
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from ccnet.norm import InPlaceABN, SyncBatchNorm, convert_inplace_abn, convert_sync_batchnorm

RANKS = 2
WEIGHT = torch.tensor([1.0, -0.7, 0.3, -2.0], dtype=torch.float64)
BIAS = torch.tensor([0.1, 0.4, -0.5, 0.2], dtype=torch.float64)


class _LeakyBatchNorm(nn.BatchNorm2d):
    """What `InPlaceABN` must compute, in one process."""

    def forward(self, x):
        self.num_batches_tracked += 1
        gain = self.weight.abs() + self.eps
        normalised = F.batch_norm(x, self.running_mean, self.running_var, gain, self.bias, True)
        return F.leaky_relu(normalised, 0.01)


def _blocks():
    """Two residual blocks, the first with a convolution in its shortcut."""
    downsample = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
    blocks = nn.Sequential(Bottleneck(4, 1, downsample=downsample), Bottleneck(4, 1))
    for block in blocks:
        block.relu = nn.LeakyReLU(0.01)
    for parameter in blocks.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return convert_inplace_abn(blocks)


@dataclass
class Case:
    """A module for two processes, the same for one, and how the batch is divided."""

    distributed: object
    single: object
    parts: tuple[int, int] = (3, 1)
    shape: tuple[int, ...] = (4, 5, 3)
    steps: int = 1
    dtype: torch.dtype = torch.float64
    shift: float = 0.0

    def module(self, single):
        torch.manual_seed(3)
        module = (self.single if single else self.distributed)().to(self.dtype)
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.affine:
            with torch.no_grad():
                module.weight.copy_(WEIGHT)
                module.bias.copy_(BIAS)
        return module

    def run(self, single, rows):
        """The results of a process for its rows of the batch and of the output's gradient."""
        module = self.module(single)
        generator = torch.Generator().manual_seed(4)
        for _ in range(self.steps):
            module.zero_grad()
            batch, upstream = (
                torch.randn(sum(self.parts), *self.shape, generator=generator, dtype=torch.float64)
                for _ in range(2)
            )
            x = (batch + self.shift).to(self.dtype)[rows].requires_grad_()
            output = module(x)
            output.backward(upstream.to(self.dtype)[rows])
        return {
            "output": output.detach(),
            "input gradient": x.grad,
            "parameter gradients": {name: p.grad for name, p in module.named_parameters()},
            "buffers": dict(module.named_buffers()),
        }


def _sync(**settings):
    return lambda: SyncBatchNorm(4, **settings)


def _inplace():
    return InPlaceABN(4, synchronized=True)


CASES = {
    "(N, C)": Case(_sync(), lambda: nn.BatchNorm1d(4), shape=(4,)),
    "(N, C, L)": Case(_sync(), lambda: nn.BatchNorm1d(4), shape=(4, 5)),
    "(N, C, H, W)": Case(_sync(), lambda: nn.BatchNorm2d(4)),
    "(N, C, D, H, W)": Case(_sync(), lambda: nn.BatchNorm3d(4), shape=(4, 2, 3, 4)),
    "one value a rank": Case(_sync(), lambda: nn.BatchNorm1d(4), (1, 1), shape=(4,)),
    "empty batch": Case(_sync(), lambda: nn.BatchNorm2d(4), (4, 0)),
    "cumulative": Case(_sync(momentum=None), lambda: nn.BatchNorm2d(4, momentum=None), steps=3),
    "bare": Case(
        _sync(affine=False, track_running_stats=False),
        lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
    ),
    "in place": Case(_inplace, lambda: _LeakyBatchNorm(4)),
    "in place, empty batch": Case(_inplace, lambda: _LeakyBatchNorm(4), (0, 4)),
    "converted block": Case(lambda: convert_sync_batchnorm(_blocks()), _blocks),
    "mean far from zero": Case(
        _sync(), lambda: nn.BatchNorm2d(4), dtype=torch.float32, shape=(4, 20, 20), shift=3000.0
    ),
    "half precision": Case(_sync(), lambda: nn.BatchNorm2d(4), dtype=torch.bfloat16),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-3, torch.bfloat16: 3e-2}


def _worker(folder):
    rank = dist.get_rank()
    results = {}
    for name, case in CASES.items():
        begin = sum(case.parts[:rank])
        results[name] = case.run(single=False, rows=slice(begin, begin + case.parts[rank]))
    groups = [dist.new_group([member]) for member in range(RANKS)]
    x = torch.randn(2, 4, 3, 3) + rank
    alone = SyncBatchNorm(4, process_group=groups[rank])(x)
    results["own group"] = torch.equal(alone, nn.BatchNorm2d(4)(x))
    results["eval"] = SyncBatchNorm(4).eval()(torch.full((1, 4), 2.0)) if rank == 0 else None
    with pytest.raises(ValueError, match="has 1 over all processes"):
        SyncBatchNorm(4)(torch.rand(1 - rank, 4))
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The results of each rank for all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    assert finish(start(_worker, folder, ranks=RANKS)) == [0] * RANKS
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(ranks, name):
    case = CASES[name]
    parts = [rank[name] for rank in ranks]
    whole = case.run(single=True, rows=slice(None))
    assert [len(part["output"]) for part in parts] == list(case.parts)
    joined = {key: torch.cat([part[key] for part in parts]) for key in ("output", "input gradient")}
    joined["parameter gradients"] = {
        key: sum(part["parameter gradients"][key] for part in parts)
        for key in whole["parameter gradients"]
    }
    tolerance = TOLERANCE[case.dtype]
    for buffers in (part["buffers"] for part in parts):
        joined["buffers"] = buffers
        torch.testing.assert_close(joined, whole, rtol=tolerance, atol=tolerance)


def test_what_is_not_shared_with_other_processes(ranks):
    """A process group bounds the batch, evaluation needs no other process, one value is refused."""
    assert all(rank["own group"] for rank in ranks)
    torch.testing.assert_close(ranks[0]["eval"], torch.full((1, 4), 2.0))
