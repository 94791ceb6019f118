import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import KERNELS
from mige.scores import TikhonovEstimator


def dense_curl_free(x, y, bandwidth):
    """The curl-free Gaussian kernel as an (m·d, n·d) matrix, and its divergence in y, (m, d)."""
    diff = x[:, None] - y[None]
    gram = KERNELS["rbf"](bandwidth).gram(x, y)[..., None, None]
    outer = diff[..., :, None] * diff[..., None, :] / bandwidth**2
    matrix = gram * (torch.eye(x.shape[1]).to(x) - outer)  # (m, n, d, d)
    squared = diff.square().sum(-1, keepdim=True) / bandwidth**2
    divergence = gram[..., 0] * (x.shape[1] + 2 - squared) * diff / bandwidth**2
    return matrix.transpose(1, 2).reshape(x.numel(), y.numel()), divergence.sum(1)


@pytest.fixture
def x():
    x = torch.randn(16, 3, dtype=torch.float64)
    return x - x.mean(0)


@pytest.fixture
def queries():
    return torch.randn(5, 3, dtype=torch.float64)


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_agrees_with_the_direct_formula(kernel, x, queries):
    k = KERNELS[kernel](1.7)
    shift = 1e-3 * len(x)
    right = k.grad_x(x, x).sum(0)
    truth = -torch.linalg.solve(k.gram(x, x) + shift * torch.eye(len(x)).to(x), right)
    estimator = TikhonovEstimator(kernel=kernel, regularization=1e-3, bandwidth=1.7)
    torch.testing.assert_close(estimator.score(x), truth, rtol=1e-9, atol=1e-9)
    elsewhere = -(k.grad_x(x, queries).sum(0) + k.gram(queries, x) @ truth) / shift
    torch.testing.assert_close(estimator.score(x, queries), elsewhere, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("regularization", [1e-2, 1e-4])
def test_curl_free_agrees_with_the_solution_by_the_whole_matrix(regularization, x, queries):
    matrix, divergence = dense_curl_free(x, x, 1.7)
    shift = regularization * len(x)
    truth = -torch.linalg.solve(matrix + shift * torch.eye(x.numel()).to(x), divergence.flatten())
    estimator = TikhonovEstimator(
        kernel="curl_free_rbf", regularization=regularization, bandwidth=1.7, iterations=300
    )
    estimate = estimator.estimate(x)
    assert estimate.diagnostics["solver_residual"] < 1e-12
    torch.testing.assert_close(estimate.score, truth.view_as(x), rtol=1e-9, atol=1e-9)
    across, divergence = dense_curl_free(queries, x, 1.7)
    elsewhere = -(divergence + (across @ truth).view_as(queries)) / shift
    torch.testing.assert_close(estimator.score(x, queries), elsewhere, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", ["rbf", "curl_free_rbf", "curl_free_imq"])
@pytest.mark.parametrize("iterations", [3, 40])
def test_a_query_that_is_a_sample_gets_its_score_converged_or_not(kernel, iterations, x):
    estimator = TikhonovEstimator(kernel=kernel, iterations=iterations)
    torch.testing.assert_close(estimator.score(x, x), estimator.score(x), rtol=1e-6, atol=1e-6)


def test_the_solver_residual_is_that_of_the_equation_solved(x):
    matrix, divergence = dense_curl_free(x, x, 1.7)
    estimator = TikhonovEstimator(
        kernel="curl_free_rbf", regularization=1e-4, bandwidth=1.7, iterations=5
    )
    estimate = estimator.estimate(x)
    left = (matrix + 1e-4 * len(x) * torch.eye(x.numel()).to(x)) @ estimate.score.flatten()
    expected = (left + divergence.flatten()).norm() / divergence.norm()
    assert expected > 1e-3
    torch.testing.assert_close(estimate.diagnostics["solver_residual"], expected)


def test_curl_free_scores_of_a_normal_are_close():
    x = torch.randn(256, 4)
    for kernel in ("curl_free_rbf", "curl_free_imq", "curl_free_rational_quadratic"):
        score = TikhonovEstimator(kernel=kernel).score(x)
        assert torch.cosine_similarity(score.flatten(), -x.flatten(), dim=0) > 0.8


def test_landmarks_give_the_least_squares_solution_in_their_span(x, queries):
    k, marks = KERNELS["rbf"](1.0), x[::2]
    between = k.gram(marks, x)
    normal = between @ between.T + 1e-3 * len(x) * k.gram(marks, marks)
    weights = torch.linalg.solve(normal, k.grad_x(x, marks).sum(0))
    estimator = TikhonovEstimator(bandwidth=1.0, regularization=1e-3, landmarks=8)
    torch.testing.assert_close(estimator.score(x), -between.T @ weights, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        estimator.score(x, queries), -k.gram(queries, marks) @ weights, rtol=1e-8, atol=1e-8
    )


def test_nearly_all_landmarks_are_nearly_all_samples():
    x = torch.randn(100, 2, dtype=torch.float64)
    full = TikhonovEstimator(regularization=1e-3, bandwidth=1.5).score(x)
    most = TikhonovEstimator(regularization=1e-3, bandwidth=1.5, landmarks=90).score(x)
    assert (most - full).norm() < 1e-2 * full.norm()


def test_as_many_landmarks_as_samples_are_all_samples(x):
    full = TikhonovEstimator().score(x)
    assert torch.equal(TikhonovEstimator(landmarks=16).score(x), full)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularization": -1.0}, r"regularization=-1\.0"),
        ({"iterations": 0}, "iterations=0"),
        ({"landmarks": 0}, "landmarks=0"),
        ({"landmarks": 5, "kernel": "curl_free_rbf"}, "landmarks=5 with kernel='curl_free_rbf'"),
        ({"kernel": "curl_free_matern52"}, "kernel='curl_free_matern52' is unknown"),
        ({"kernel_options": {"alpha": 2.0}}, "'rbf' has no option 'alpha'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        TikhonovEstimator(**options)
