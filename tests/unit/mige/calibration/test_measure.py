"""Estimates beside truths: the numbers of a comparison, against hand-made estimators."""

import math

import pytest
import torch

from mige.calibration import (
    NETWORKS,
    PROBLEMS,
    compare,
    entropy_estimate,
    information_estimate,
    make_subject,
    measure,
    measure_cost,
    truth_of,
)
from mige.calibration.memory import peak_memory_bytes
from mige.errors import InvalidInputError

CPU = torch.device("cpu")


class Shrunk:
    """The fitted Gaussian's gradient times a factor; counts what it is given."""

    name, options, gives_scores = "shrunk", {}, True

    def __init__(self, factor=1.0):
        self.factor, self.batches = factor, []

    def gradient(self, x, z, seed):
        self.batches.append(len(z))
        joint = torch.cat([z, x], -1)
        return self.factor * (self._score(joint)[..., : z.shape[-1]] - self._score(z))

    def score(self, samples):
        return self.factor * self._score(samples)

    def minimum_samples(self, dim):
        return dim

    @staticmethod
    def _score(rows):
        rows = rows - rows.mean(-2, keepdim=True)
        covariance = rows.mT @ rows / rows.shape[-2]
        return -torch.linalg.solve(covariance, rows.mT).mT


def test_a_comparison_of_estimates_made_by_hand():
    truth = torch.tensor([3.0, 4.0])
    estimates = torch.tensor([[3.0, 4.0], [1.5, 2.0], [3.0 - 4.0, 4.0 + 3.0]])
    result = compare(estimates, truth)
    assert result.relative_error == pytest.approx((0 + 0.5 + 1) / 3)
    assert result.relative_error_std == pytest.approx(0.5)
    assert result.slope == pytest.approx((1 + 0.5 + 1) / 3)
    assert result.slope_std == pytest.approx(math.sqrt(1 / 12))
    assert result.cosine == pytest.approx((1 + 1 + 1 / math.sqrt(2)) / 3)
    assert result.bias == pytest.approx(torch.dist(estimates.mean(0), truth).item() / 5)
    scatter = (estimates - estimates.mean(0)).square().sum() / 2
    assert result.spread == pytest.approx(math.sqrt(scatter) / 5)


def test_one_estimate_has_no_spread_and_a_vanishing_one_no_direction():
    result = compare(torch.zeros(1, 2), torch.tensor([3.0, 4.0]))
    assert (result.relative_error_std, result.spread, result.slope_std) == (None, None, None)
    assert (result.relative_error, result.slope, result.cosine) == (1.0, 0.0, 0.0)
    with pytest.raises(InvalidInputError, match="truth is zero"):
        compare(torch.ones(1, 2), torch.zeros(2))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_slope_of_a_shrunken_estimator_is_its_factor(factor):
    estimate = information_estimate(Shrunk(factor), PROBLEMS["gauss"], 1000, 4, seed=0)
    truth = truth_of(PROBLEMS["gauss"], 4)
    assert estimate.shape == truth.shape == (32,)
    # n = 1000: the fitted Gaussian is within 2 % on the average over the grid.
    assert compare(estimate[None], truth).slope == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("name", ["linear_encoder", "gain"])
def test_whole_matrices_and_gains_are_estimated_too(name):
    estimate = information_estimate(Shrunk(), PROBLEMS[name], 2000, 3, seed=0)
    result = compare(estimate[None], truth_of(PROBLEMS[name], 3))
    assert result.relative_error < 0.1
    assert result.cosine > 0.995


def test_the_estimate_does_not_depend_on_how_many_samples_fit_in_a_batch(monkeypatch):
    whole, single = Shrunk(), Shrunk()
    expected = information_estimate(whole, PROBLEMS["mixed"], 20, 2, seed=3)
    monkeypatch.setattr(measure, "_BATCH_BYTES", 1)
    found = information_estimate(single, PROBLEMS["mixed"], 20, 2, seed=3)
    assert (whole.batches, single.batches) == ([32], [1] * 32)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_seeds_decide_and_nothing_else_does():
    first, again, other = (
        information_estimate(Shrunk(), PROBLEMS["mixed"], 20, 2, seed=seed) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first - other).abs().max() > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_the_entropy_gradient_of_a_network_is_estimated_in_all_weights(name):
    problem = NETWORKS[name]
    truth = truth_of(problem, 3)
    right = entropy_estimate(make_subject("gaussian_residual"), problem, 512, 3, seed=0)
    assert right.shape == truth.shape
    assert compare(right[None], truth).cosine > 0.98
    zero = entropy_estimate(Shrunk(0.0), problem, 512, 3, seed=0)
    assert zero.abs().max() == 0


def test_a_bound_has_no_entropy_gradient():
    with pytest.raises(InvalidInputError, match="'nwj' gives no scores"):
        entropy_estimate(make_subject("nwj"), NETWORKS["network"], 16, 2, seed=0)


def test_the_cost_is_a_time_and_a_number_of_bytes():
    cost = measure_cost(make_subject("gaussian_residual"), 64, 4)
    assert 0 < cost.ms < 1000
    assert 64 * 64 * 4 < cost.peak_bytes < 100 * 64 * 64 * 4


def test_the_peak_counts_what_lives_at_the_same_time():
    size = 1000 * 8

    def one_after_the_other():
        for _ in range(5):
            torch.ones(1000, dtype=torch.double)

    def all_at_once():
        return [torch.ones(1000, dtype=torch.double) for _ in range(5)]

    def in_place():
        rows = torch.ones(1000, dtype=torch.double)
        return rows.mul_(2.0).view(10, 100).T

    assert peak_memory_bytes(one_after_the_other, CPU) <= 2 * size
    assert peak_memory_bytes(all_at_once, CPU) == 5 * size
    assert peak_memory_bytes(in_place, CPU) == size
