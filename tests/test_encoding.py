import itertools
import math

import numpy as np
import pytest
import torch

from iso3d_core.ops.encoding import PRIMES, Level, _dense, _hashed, encode, grid_levels, hash_index, table_rows

# (levels, base, growth, log2_table): dense only, hashed only, both
GRIDS = [(4, 4, 1.5, 19), (3, 16, 1.447269237440378, 10), (4, 4, 2.0, 10)]


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def inner_points(base, count=200, seed=0):
    """Points of [0, 1]^3 whose eight nodes exist on every level: not in the last half cell of the coarsest."""
    return random(count, 3, seed=seed) * (1 - 0.6 / (base - 1))


def numpy_encode(points, table, levels, base, growth, log2_table):
    """tiny-cuda-nn's grid encoding, written from its definition."""
    features, offset = [], 0
    for level in range(levels):
        scale = base * growth**level - 1
        resolution = math.ceil(scale) + 1
        size = min((resolution**3 + 7) // 8 * 8, 2**log2_table)
        position = points * scale + 0.5
        low = np.floor(position)
        fraction = position - low
        value = np.zeros((len(points), table.shape[1]))
        for corner in itertools.product((0, 1), repeat=3):
            node = (low + corner).astype(np.uint32)
            weight = np.prod([fraction[:, i] if corner[i] else 1 - fraction[:, i] for i in range(3)], axis=0)
            if resolution**3 <= size:
                row = node[:, 0] + node[:, 1] * np.uint32(resolution) + node[:, 2] * np.uint32(resolution**2)
            else:
                row = node[:, 0] ^ (node[:, 1] * np.uint32(2654435761)) ^ (node[:, 2] * np.uint32(805459861))
            value += weight[:, None] * table[offset + (row % np.uint32(size)).astype(np.int64)]
        features.append(value)
        offset += size
    assert offset == len(table)
    return np.concatenate(features, axis=1)


@pytest.mark.parametrize("grid", GRIDS)
def test_it_is_the_grid_of_tiny_cuda_nn(grid):
    levels = grid_levels(*grid)
    points, table = inner_points(grid[1]), random(table_rows(levels), 3, seed=1) - 0.5
    ours = encode(points, table, levels)
    assert ours.shape == (200, grid[0] * 3)
    torch.testing.assert_close(ours, torch.from_numpy(numpy_encode(points.numpy(), table.numpy(), *grid)))


def test_the_grids_above_are_dense_hashed_and_both():
    assert [[level.dense for level in grid_levels(*grid)] for grid in GRIDS] == [
        [True] * 4, [False] * 3, [True, True, False, False],
    ]  # fmt: skip


@pytest.mark.parametrize("grid", [*GRIDS, (16, 16, 1.447269237440378, 19), (3, 16, 2.0, 18)])
def test_the_table_is_one_block_after_another(grid):
    count, base, growth, log2_table = grid
    levels = grid_levels(*grid)
    assert len(levels) == count
    assert levels[0].resolution == base
    end = 0
    for index, level in enumerate(levels):
        assert level.scale == pytest.approx(base * growth**index - 1)
        assert level.resolution == math.ceil(level.scale) + 1
        assert level.offset == end
        assert level.entries % 8 == 0
        if level.dense:
            assert 0 <= level.entries - level.resolution**3 < 8
        else:
            assert level.entries == 2**log2_table
        end += level.entries
    assert table_rows(levels) == end


def test_a_level_reads_its_own_rows_only():
    grid = (4, 4, 2.0, 10)
    levels = grid_levels(*grid)
    table = random(table_rows(levels), 2).requires_grad_()
    features = encode(inner_points(4), table, levels)
    for index, level in enumerate(levels):
        (gradient,) = torch.autograd.grad(features[:, 2 * index : 2 * index + 2].sum(), table, retain_graph=True)
        used = gradient.abs().sum(dim=1) > 0
        own = slice(level.offset, level.offset + level.entries)
        assert bool(used[own].any())
        used[own] = False
        assert not bool(used.any())
        # The weights of the eight corners sum to one.
        torch.testing.assert_close(gradient.sum(dim=0), torch.full((2,), 200.0, dtype=torch.float64))


def test_the_hash_is_the_one_of_32_bit_integers():
    rng = np.random.default_rng(0)
    nodes = np.concatenate([rng.integers(-3, 2**21, (500, 3)), np.array([[0, 0, 0], [1, 0, 0], [-1, -1, -1]])])
    x, y, z = (nodes.astype(np.uint32)[:, i] * np.uint32(PRIMES[i]) for i in range(3))
    for entries in (64, 2**14, 2**19, 1000):
        ours = hash_index(torch.from_numpy(nodes), entries)
        assert np.array_equal(ours.numpy(), ((x ^ y ^ z) % np.uint32(entries)).astype(np.int64))
    assert PRIMES == (1, 2654435761, 805459861)


def test_both_ways_of_reading_a_level_agree():
    n = 6
    z, y, x = torch.meshgrid(*[torch.arange(n)] * 3, indexing="ij")
    nodes = torch.stack([x, y, z], dim=-1).reshape(-1, 3)  # x runs fastest, as in a dense table
    values = random(n**3, 4, seed=2)
    dense, hashed = Level(n - 1.0, n, 0, n**3), Level(n - 1.0, n, 0, 2**18)
    rows = torch.zeros(hashed.entries, 4, dtype=torch.float64)
    where = hash_index(nodes, hashed.entries)
    assert len(where.unique()) == n**3  # no two nodes share a row, so nothing is lost
    rows[where] = values
    points = inner_points(n)
    torch.testing.assert_close(_dense(points, values, dense), _hashed(points, rows, hashed))


def test_a_linear_function_on_the_nodes_is_reproduced():
    (level,) = grid_levels(1, 8, 2.0, 12)
    z, y, x = torch.meshgrid(*[(torch.arange(8, dtype=torch.float64) - 0.5) / level.scale] * 3, indexing="ij")
    table = torch.stack([2 * x - y + 3 * z + 0.5, x], dim=-1).reshape(-1, 2)
    points = inner_points(8)
    x, y, z = points.T
    torch.testing.assert_close(encode(points, table, (level,)), torch.stack([2 * x - y + 3 * z + 0.5, x], dim=-1))


def test_beyond_the_last_node_a_dense_level_stays_constant():
    levels = grid_levels(1, 8, 2.0, 12)
    table = random(table_rows(levels), 2)
    edge = torch.tensor([[1 - 0.5 / 7, 0.3, 0.6], [1 - 0.2 / 7, 0.3, 0.6], [1.0, 0.3, 0.6]], dtype=torch.float64)
    out = encode(edge, table, levels)
    torch.testing.assert_close(out, out[:1].expand_as(out))


@pytest.mark.parametrize("log2_table", [5, 6, 12])
def test_gradients_of_points_and_table(log2_table):
    levels = grid_levels(2, 3, 1.7, log2_table)
    points = inner_points(3, 40, seed=3)
    cell = torch.stack([points * level.scale + 0.5 for level in levels])
    away = ((cell - cell.round()).abs() > 0.01).all(dim=2).all(dim=0)
    points = points[away][:6].requires_grad_()
    assert len(points) == 6
    table = random(table_rows(levels), 2, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, t: encode(p, t, levels), (points, table))
