import pytest
import torch

from mige.kernels import squared_distances


def test_distances_match_those_of_the_differences():
    x, y = torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    direct = (x[:, None] - y[None]).square().sum(-1)
    torch.testing.assert_close(squared_distances(x, y), direct, rtol=1e-12, atol=1e-12)


def test_leading_dimensions_are_batches():
    x, y = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 5, 4)
    squared = squared_distances(x, y)
    assert squared.shape == (2, 3, 7, 5)
    torch.testing.assert_close(squared[1, 2], squared_distances(x[1, 2], y[1, 2]))


def test_float32_is_as_accurate_as_rounding_allows():
    x = torch.randn(200, 64, dtype=torch.float64)
    exact = squared_distances(x, x)
    single = squared_distances(x.float(), x.float()).double()
    norms = x.square().sum(1)[:, None] + x.square().sum(1)
    assert ((single - exact).abs() / norms).max() < 3e-6


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
