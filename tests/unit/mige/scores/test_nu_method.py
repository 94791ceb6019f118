import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import CURL_FREE_KERNELS, RBFKernel
from mige.scores import NuMethodEstimator


def residual_polynomial(estimator, eigenvalues):
    """What the method leaves of the right-hand side, for each eigenvalue relative to the bound."""
    score = before = torch.zeros_like(eigenvalues)
    for momentum, size in estimator.steps():
        step = momentum * (score - before) - size * (1.0 + eigenvalues * score)
        score, before = score + step, score
    return 1.0 + eigenvalues * score


@pytest.mark.parametrize("nu", [0.5, 1.0, 2.0])
def test_what_is_left_falls_with_the_square_of_the_number_of_steps(nu):
    eigenvalues = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    worst = []
    for iterations in (10, 40, 160):
        left = residual_polynomial(NuMethodEstimator(nu=nu, iterations=iterations), eigenvalues)
        assert left.abs().max() <= 1.0 + 1e-9
        worst.append((eigenvalues**nu * left.abs()).max() * iterations ** (2.0 * nu))
    # sup λ^ν |r_t(λ)| ≤ c t^(−2ν): c stays, while plain stepping would have c grow as t^ν.
    assert worst[2] < 1.2 * worst[1]


def test_agrees_with_the_filter_of_the_eigenvalues():
    x = torch.randn(30, 3, dtype=torch.float64)
    x = x - x.mean(0)
    kernel = RBFKernel(1.7)
    gram = kernel.gram(x, x)
    bound = gram.sum(1).max()
    values, vectors = torch.linalg.eigh(gram)
    estimator = NuMethodEstimator(iterations=50, bandwidth=1.7)
    inverse = (1.0 - residual_polynomial(estimator, values / bound)) / values
    truth = -(vectors * inverse) @ (vectors.T @ kernel.grad_x(x, x).sum(0))
    torch.testing.assert_close(estimator.score(x), truth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kernel", ["rbf", *CURL_FREE_KERNELS])
def test_a_query_that_is_a_sample_gets_its_score(kernel):
    x = torch.randn(20, 4, dtype=torch.float64)
    estimator = NuMethodEstimator(kernel=kernel, iterations=30)
    torch.testing.assert_close(estimator.score(x, x[:3]), estimator.score(x)[:3])


@pytest.mark.parametrize("kernel", ["rbf", *CURL_FREE_KERNELS])
def test_stays_bounded_where_a_power_iteration_underestimates(kernel):
    scales = torch.logspace(-1.5, 0.0, 8)
    mixed = (torch.randn(200, 8) * scales) @ torch.linalg.qr(torch.randn(8, 8)).Q
    score = NuMethodEstimator(kernel=kernel, iterations=300).score(mixed)
    assert -1e-3 <= -(score * (mixed - mixed.mean(0))).sum(1).mean() <= 9.0


@pytest.mark.parametrize(
    ("options", "message"), [({"nu": 0.0}, r"nu=0\.0"), ({"iterations": 0}, "iterations=0")]
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        NuMethodEstimator(**options)
