"""Sources and ways of attention, against matrices of all positions; the composed maps too."""

import numpy as np
import pytest
import torch
from reference import criss_cross_positions
from torch import nn

from ccnet import CrissCrossAttention2d, attention_map
from ccnet.visualization import (
    carried_shares,
    notable_sources,
    paths,
    record_attention,
    strongest_sources,
)

SIZE = (5, 7)


def one_loop(query, key):
    """Weights (P, P) of all positions of a map over all others, one at a time."""
    _, height, width = query.shape
    weights = torch.zeros(height, width, height, width, dtype=torch.float64)
    for y, x in np.ndindex(height, width):
        cross = criss_cross_positions((y, x), (height, width))
        energies = torch.stack([query[:, y, x] @ key[:, i, j] for i, j in cross])
        for (i, j), weight in zip(cross, energies.softmax(dim=0), strict=True):
            weights[y, x, i, j] = weight
    return weights.flatten(2).flatten(0, 1)


def flat(position):
    return position[0] * SIZE[1] + position[1]


@pytest.fixture
def loops():
    """Queries and keys of three loops, float64."""
    return [tuple(torch.randn(2, 1, 3, *SIZE, dtype=torch.float64)) for _ in range(3)]


@pytest.fixture
def matrices(loops):
    return [one_loop(query[0], key[0]) for query, key in loops]


@pytest.mark.parametrize(("height", "width"), [(5, 7), (1, 6), (3, 1)])
def test_map_is_the_jacobian_of_the_recurrent_module(height, width):
    """With respect to its values: attention frozen, residual and projection left out."""
    module = CrissCrossAttention2d(8, reduction=4).double()
    nn.init.constant_(module.gamma, 0.7)
    x = torch.randn(1, 8, height, width, dtype=torch.float64)
    found = {name: [] for name in ("query_conv", "key_conv")}
    hooks = [
        getattr(module, name).register_forward_hook(lambda m, i, out, own=own: own.append(out))
        for name, own in found.items()
    ]
    with torch.no_grad():
        module(module(x))
    for hook in hooks:
        hook.remove()
    nn.init.dirac_(module.value_conv.weight)
    nn.init.zeros_(module.value_conv.bias)

    def attended(values):
        for query, key in zip(*found.values(), strict=True):
            hooks = [
                module.query_conv.register_forward_hook(lambda m, i, out, own=query: own),
                module.key_conv.register_forward_hook(lambda m, i, out, own=key: own),
            ]
            values = (module(values) - values) / module.gamma
            for hook in hooks:
                hook.remove()
        return values[:, :1]

    jacobian = torch.autograd.functional.jacobian(attended, x)[0, 0]  # (h, w, 1, C, h, w)
    loops = list(zip(*found.values(), strict=True))
    for at in np.ndindex(height, width):
        weights = attention_map(loops, at)[0]
        assert weights.sum().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(weights, jacobian[at][0, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("pixel", "position"), [((8, 40), (1, 5)), ((32, 7), (4, 1))])
def test_recorded_maps_are_those_of_the_composed_loops(model, pixels, pixel, position):
    record = record_attention(model, pixels)
    assert torch.equal(record.result.labels, model.predict(pixels).labels)
    assert record.map_size == SIZE
    first, second = (one_loop(query[0], key[0]) for query, key in record.loops)
    expected = first[flat(position)], second[flat(position)] @ first
    for weights, row in zip(record.maps(pixel), expected, strict=True):
        assert weights.sum().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(weights.flatten(), row, rtol=1e-9, atol=1e-12)
    once, twice = record.maps(pixel)
    cross = torch.zeros(SIZE, dtype=torch.bool)
    cross[position[0], :] = cross[:, position[1]] = True
    assert torch.equal(once > 0, cross)
    assert (twice > 0).all()


def test_maps_are_those_of_the_image_at_the_size_learnt_at(make_model, pixels):
    model = make_model(training_size=[24, 32])
    record = record_attention(model, pixels)
    assert record.map_size == (3, 5), "of 22x32 pixels"
    assert record.image_size == (33, 49)
    assert torch.equal(record.result.labels, model.predict(pixels).labels)
    corners = [record.pixel(position) for position in ((0, 0), (2, 4), (1, 2))]
    assert corners == [(0, 0), (32, 48), (16, 24)]
    assert [record.position(corner) for corner in corners] == [(0, 0), (2, 4), (1, 2)]


@pytest.mark.parametrize("source", [(3, 4), (0, 6), (1, 4), (3, 2), (1, 2)])
def test_what_is_carried_adds_up_to_the_weight_of_the_source(loops, matrices, source):
    position = (1, 2)
    carried = carried_shares(loops[:2], position, source)
    expected = matrices[1][flat(position)] * matrices[0][:, flat(source)]
    torch.testing.assert_close(carried.flatten(), expected, rtol=1e-9, atol=1e-12)
    total = attention_map(loops[:2], position)[0][source]
    torch.testing.assert_close(carried.sum(), total, rtol=1e-9, atol=1e-12)
    ways = [tuple(at) for at in carried.nonzero().tolist()]
    if source[0] != position[0] and source[1] != position[1]:
        assert sorted(ways) == sorted([(position[0], source[1]), (source[0], position[1])])
    else:
        cross = set(criss_cross_positions(position, SIZE))
        assert set(ways) == cross & set(criss_cross_positions(source, SIZE))


def test_paths_are_the_strongest_ways(loops, matrices):
    position, source = (1, 2), (3, 4)
    found = paths(loops[:2], position, source)
    corners = [(1, 4), (3, 2)]
    shares = {
        corner: float(matrices[1][flat(position), flat(corner)])
        * float(matrices[0][flat(corner), flat(source)])
        for corner in corners
    }
    order = sorted(corners, key=lambda corner: -shares[corner])
    assert [path.positions for path in found] == [(source, one, position) for one in order]
    assert [path.share for path in found] == pytest.approx([shares[one] for one in order])
    (direct,) = paths(loops[:1], position, (1, 6))
    assert direct.positions == ((1, 6), position)
    assert direct.share == pytest.approx(float(matrices[0][flat(position), flat((1, 6))]))
    assert paths(loops[:1], position, source) == [], "out of reach of one loop"


def test_paths_of_three_loops_are_of_one_hop_each(loops, matrices):
    position, source = (1, 2), (3, 4)
    found = paths(loops, position, source)
    assert len(found) == 2
    for path in found:
        assert (path.positions[0], path.positions[-1]) == (source, position)
        share = 1.0
        for matrix, (start, end) in zip(
            matrices, zip(path.positions[:-1], path.positions[1:], strict=True), strict=True
        ):
            assert start in criss_cross_positions(end, SIZE)
            share *= float(matrix[flat(end), flat(start)])
        assert path.share == pytest.approx(share)
    last = carried_shares(loops, position, source)
    assert found[0].positions[2] in [divmod(int(at), SIZE[1]) for at in last.flatten().topk(2)[1]]


def test_sources_are_places_apart():
    weights = torch.zeros(6, 12, dtype=torch.float64)
    weights[1, 1], weights[1, 2], weights[0, 0] = 0.3, 0.1, 0.05
    weights[5, 11], weights[0, 8] = 0.4, 0.001
    weights[5, 0] = 0.149
    found = strongest_sources(weights)
    assert [source.position for source in found] == [(1, 1), (5, 11), (5, 0)]
    assert [source.share for source in found] == pytest.approx([0.45, 0.4, 0.149])
    single = strongest_sources(weights, count=9, reach=0)
    assert [source.position for source in single][:3] == [(5, 11), (1, 1), (5, 0)]
    assert len(single) == 6, "no more than there are"
    assert [source.share for source in notable_sources(weights, least=0.2)] == pytest.approx(
        [0.45, 0.4]
    )
    assert len(notable_sources(torch.full((30, 30), 1 / 900, dtype=torch.float64))) == 3
    assert len(notable_sources(torch.full((90, 90), 1 / 8100, dtype=torch.float64))) == 1
