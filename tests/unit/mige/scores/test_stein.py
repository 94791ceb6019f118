import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import RBFKernel
from mige.scores import SteinEstimator, TikhonovEstimator


def direct(x, bandwidth, ridge):
    """−(K + η I)⁻¹ ζ from the m x m x d gradients."""
    kernel = RBFKernel(bandwidth)
    ridged = kernel.gram(x, x) + ridge * torch.eye(len(x)).to(x)
    return -torch.linalg.solve(ridged, kernel.grad_x(x, x).sum(0))


@pytest.mark.parametrize("ridge", [1.0, 1e-2, 1e-4])
def test_agrees_with_the_direct_formula(ridge):
    x = torch.randn(40, 3, dtype=torch.float64)
    estimator = SteinEstimator(ridge=ridge, bandwidth=1.7)
    torch.testing.assert_close(
        estimator.score(x), direct(x - x.mean(0), 1.7, ridge), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kernel", ["rbf", "imq", "rational_quadratic", "matern32", "matern52"])
def test_a_query_gets_what_it_would_get_as_one_more_sample(kernel):
    x, queries = torch.randn(30, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    estimator = SteinEstimator(ridge=1e-2, bandwidth=1.7, kernel=kernel)
    together = [estimator.score(torch.cat([x, query[None]]))[-1] for query in queries]
    torch.testing.assert_close(
        estimator.score(x, queries), torch.stack(together), rtol=1e-9, atol=1e-9
    )


def test_is_the_tikhonov_estimator_of_matched_regularization_at_the_samples():
    x = torch.randn(50, 4, dtype=torch.float64)
    torch.testing.assert_close(
        SteinEstimator(ridge=0.02, bandwidth_scale=2.0).score(x),
        TikhonovEstimator(regularization=0.02 / 50, bandwidth_scale=2.0).score(x),
        rtol=1e-10,
        atol=1e-10,
    )


def test_far_from_all_samples_the_score_vanishes():
    x = torch.randn(50, 2, dtype=torch.float64)
    far = torch.full((1, 2), 100.0, dtype=torch.float64)
    assert SteinEstimator(bandwidth=1.0).score(x, far).abs().max() < 1e-12


def test_a_ridge_below_rounding_is_raised_to_it():
    x = torch.randn(300, 2)
    assert torch.isfinite(SteinEstimator(ridge=1e-30).score(x)).all()


def test_a_ridge_that_is_not_positive_is_refused():
    with pytest.raises(InvalidInputError, match=r"ridge=0\.0"):
        SteinEstimator(ridge=0.0)
