import pytest
import torch

from mige.kernels import squared_distances


def test_distances_match_those_of_the_differences():
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    direct = (x[:, None] - y[None]).square().sum(-1)
    torch.testing.assert_close(squared_distances(x, y), direct, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 3, 64, 3136])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_equal_rows_are_exactly_zero_apart(dtype, width, offset):
    rows = torch.randn(20, width, dtype=dtype) + offset
    squared = squared_distances(rows.repeat(6, 1), rows)
    own = torch.arange(120) % 20
    assert (squared[torch.arange(120), own] == 0).all()
    squared[torch.arange(120), own] = 1.0
    assert (squared > 0).all()


def test_an_offset_that_all_rows_share_does_not_cost_digits():
    x = torch.randn(30, 4, dtype=torch.float64)
    torch.testing.assert_close(squared_distances(x + 2.0**20, x + 2.0**20), squared_distances(x, x))
