import pytest
import torch

from mige.errors import InvalidInputError
from mige.scores import (
    GaussianResidualEstimator,
    SpectralEstimator,
    SteinEstimator,
    TikhonovEstimator,
)
from mige.scores.kernel_based import linear_violation, standard_deviation


def skewed(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).exp()


@pytest.mark.parametrize("estimator", [SpectralEstimator, SteinEstimator])
def test_per_dimension_is_the_estimate_of_standardised_samples_pulled_back(estimator):
    x, queries = skewed(50, 3), skewed(4, 3)
    spread = x.std(0, unbiased=False)
    standard = estimator().score(x / spread) / spread
    torch.testing.assert_close(estimator(bandwidth="per_dimension").score(x), standard)
    torch.testing.assert_close(
        estimator(bandwidth="per_dimension").score(x, queries),
        estimator().score(x / spread, queries / spread) / spread,
    )


def test_per_dimension_sees_features_that_are_much_narrower():
    x = torch.randn(200, 3) * torch.tensor([1.0, 1e-4, 1.0])
    moment = -(SteinEstimator(bandwidth="per_dimension").score(x) * x).mean(0)
    assert moment.min() > 0.8
    moment = -(SteinEstimator(bandwidth="median").score(x) * x).mean(0)
    assert moment.min() < 0.1


def test_automatic_takes_the_scale_with_the_least_violation():
    x = torch.stack([torch.randn(60, 2), skewed(60, 2, dtype=torch.float32) * 100.0])
    estimate = SteinEstimator(bandwidth="automatic", ridge=1e-2).estimate(x)
    for i in range(2):
        fixed = {}
        for multiple in (0.25, 0.5, 1.0, 2.0, 4.0):
            scale = multiple * 3.0
            score = SteinEstimator(bandwidth_scale=scale, ridge=1e-2).score(x[i])
            centred = x[i] - x[i].mean(0)
            fixed[scale] = (linear_violation(centred, score).item(), score)
        best = min(fixed, key=lambda scale: fixed[scale][0])
        assert estimate.diagnostics["chosen_bandwidth_scale"][i] == best
        torch.testing.assert_close(estimate.score[i], fixed[best][1], rtol=1e-3, atol=1e-3)


def test_automatic_serves_queries_with_the_same_bandwidth():
    x, queries = torch.randn(40, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    estimate = TikhonovEstimator(bandwidth="automatic").estimate(x, queries)
    scale = estimate.diagnostics["chosen_bandwidth_scale"].item()
    fixed = TikhonovEstimator(bandwidth_scale=scale).score(x, queries)
    torch.testing.assert_close(estimate.score, fixed, rtol=1e-6, atol=1e-6)


def test_the_violation_is_zero_for_the_score_of_the_fitted_gaussian():
    x = torch.randn(50, 3, dtype=torch.float64)
    x = x - x.mean(0)
    score = -x @ torch.linalg.inv(x.T @ x / 50)
    assert linear_violation(x, score) < 1e-20
    assert linear_violation(x, 0.5 * score) == pytest.approx(0.75)


def test_the_standard_deviation_neither_overflows_nor_vanishes_nor_is_zero():
    x = torch.randn(50, 3)
    x = (x - x.mean(0)) * torch.tensor([1e30, 1e-30, 0.0])
    spread = standard_deviation(x).squeeze()
    unit = (x[:, 0] / 1e30).square().mean().sqrt()
    torch.testing.assert_close(spread[0] / 1e30, unit)
    assert 0.0 < spread[1] < 1e-29
    assert spread[2] == 1.0


def test_kernel_options_reach_the_kernel():
    x = torch.randn(30, 2)
    scores = [
        SteinEstimator(kernel="rational_quadratic", kernel_options=options).score(x)
        for options in ({}, {"alpha": 1.0}, {"alpha": 0.3})
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


@pytest.mark.parametrize("estimator", [SteinEstimator, TikhonovEstimator])
def test_float32_queries_are_as_accurate_as_float64_ones(estimator):
    x, queries = torch.randn(128, 4), torch.randn(20, 4)
    exact = estimator().score(x.double(), queries.double())
    single = estimator().score(x, queries)
    assert single.dtype == torch.float32
    assert (single - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "cosine"}, "kernel='cosine' is unknown: choose one of .*'rbf'"),
        ({"kernel": "curl_free_rbf"}, "kernel='curl_free_rbf' is unknown"),
        ({"kernel": "rational_quadratic", "kernel_options": {"alpha": -1.0}}, r"alpha=-1\.0"),
        ({"kernel_options": {"bandwidth": 2.0}}, "kernel_options=.*an option of the estimator"),
        ({"bandwidth": "silverman"}, "bandwidth='silverman' is unknown: give one of .*'mean'"),
        ({"bandwidth": -1.0}, r"bandwidth=-1\.0"),
        ({"bandwidth_scale": 0.0}, r"bandwidth_scale=0\.0"),
    ],
)
@pytest.mark.parametrize("estimator", [SteinEstimator, GaussianResidualEstimator])
def test_options_out_of_range_are_refused(estimator, options, message):
    with pytest.raises(InvalidInputError, match=message):
        estimator(**options)
