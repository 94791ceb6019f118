"""The nearest-neighbour estimator against its definition and known values."""

import math

import pytest
import torch
from scipy.special import digamma

from mige.bounds import make_bound
from mige.errors import InvalidInputError


def by_definition(x, z, k):
    """Algorithm 1 of Kraskov et al., one row at a time."""
    n, total = len(x), 0.0
    for i in range(n):
        dx = [float((x[i] - x[j]).abs().max()) for j in range(n) if j != i]
        dz = [float((z[i] - z[j]).abs().max()) for j in range(n) if j != i]
        radius = sorted(max(a, b) for a, b in zip(dx, dz, strict=True))[k - 1]
        total += digamma(sum(a < radius for a in dx) + 1) + digamma(sum(b < radius for b in dz) + 1)
    return digamma(k) + digamma(n) - total / n


@pytest.mark.parametrize("k", [1, 3, 7])
def test_agrees_with_its_definition(k):
    x = torch.randn(30, 2, dtype=torch.float64)
    z = x[:, :1] + torch.randn(30, 1, dtype=torch.float64)
    value = make_bound("ksg", 2, 1, neighbors=k).value(x, z)
    assert float(value) == pytest.approx(by_definition(x, z, k), abs=1e-12)


# 20 seeds, n = 1000, d = 1: bias below .02, sd .03-.05.
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_finds_the_information_of_one_gaussian_pair(rho):
    x, noise = torch.randn(2, 1000, 1)
    value = make_bound("ksg", 1, 1).value(x, rho * x + math.sqrt(1 - rho**2) * noise)
    assert float(value) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.2)


def test_rescaling_x_or_z_alone_changes_little():
    x, noise = torch.randn(2, 500, 1)
    z = x + noise
    bound = make_bound("ksg", 1, 1)
    assert float(bound.value(100.0 * x, z)) == pytest.approx(float(bound.value(x, z)), abs=0.3)


def test_duplicated_rows_are_survived():
    x = torch.randn(10, 2, dtype=torch.float64).repeat(6, 1)
    value = make_bound("ksg", 2, 2).value(x, x)
    assert float(value) == pytest.approx(by_definition(x, x, 3), abs=1e-12)


def test_needs_more_rows_than_neighbors():
    bound = make_bound("ksg", 2, 2, neighbors=5)
    with pytest.raises(InvalidInputError, match="x has 5 rows: neighbors=5 needs at least 6"):
        bound.value(torch.randn(5, 2), torch.randn(5, 2))
    assert torch.isfinite(bound.value(torch.randn(6, 2), torch.randn(6, 2)))
