import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import RBFKernel
from mige.scores import LandweberEstimator


def by_steps(x, bandwidth, iterations):
    kernel = RBFKernel(bandwidth)
    gram, right = kernel.gram(x, x), kernel.grad_x(x, x).sum(0)
    bound = gram.sum(1).max()
    score = torch.zeros_like(x)
    for _ in range(iterations):
        score = score - (right + gram @ score) / bound
    return score


# At 24 x 2, from 106 steps on the estimator squares instead of stepping.
@pytest.mark.parametrize("iterations", [1, 2, 7, 600, 777, 1024])
@pytest.mark.parametrize("dim", [2, 16])
def test_agrees_with_stepping_one_by_one(iterations, dim):
    x = torch.randn(24, dim, dtype=torch.float64)
    x = x - x.mean(0)
    estimator = LandweberEstimator(iterations=iterations, bandwidth=1.7)
    torch.testing.assert_close(
        estimator.score(x), by_steps(x, 1.7, iterations), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kernel", ["rbf", "curl_free_rbf", "curl_free_imq"])
@pytest.mark.parametrize("iterations", [5, 400])
def test_a_query_that_is_a_sample_gets_its_score(kernel, iterations):
    x = torch.randn(20, 8, dtype=torch.float64)
    estimator = LandweberEstimator(kernel=kernel, iterations=iterations)
    torch.testing.assert_close(estimator.score(x, x[:3]), estimator.score(x)[:3])


def test_many_steps_approach_the_inverse():
    x = torch.randn(10, 8, dtype=torch.float64)
    x = x - x.mean(0)
    kernel = RBFKernel(1.0)
    truth = -torch.linalg.solve(kernel.gram(x, x), kernel.grad_x(x, x).sum(0))
    score = LandweberEstimator(iterations=2000, bandwidth=1.0).score(x)
    torch.testing.assert_close(score, truth, rtol=1e-6, atol=1e-6)


def test_the_number_of_iterations_is_checked():
    with pytest.raises(InvalidInputError, match="iterations=0"):
        LandweberEstimator(iterations=0)
