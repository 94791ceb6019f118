import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import KERNELS
from mige.scores import GaussianResidualEstimator, SpectralEstimator
from mige.scores.residual import landmark_residual, ridge_residual
from mige.scores.whitening import fit_whitening


def dense_score(x, ridge=0.1):
    """The definition with explicit n x n projections and inverses."""
    n = len(x)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / n
    a = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
    z = centred @ a
    squared = (z[:, None] - z[None]).square().sum(-1)
    width2 = squared.flatten().topk(n * n // 2).values[-1]
    gram = torch.exp(-squared / (2 * width2))
    right = (gram @ z - gram.sum(1)[:, None] * z) / width2 + gram @ z
    q = torch.cat([torch.ones(n, 1, dtype=x.dtype), z], dim=1) / n**0.5
    p = torch.eye(n, dtype=x.dtype) - q @ q.T
    projected = p @ gram @ p
    level = ridge * projected.diagonal().mean()
    residual = torch.linalg.inv(projected + level * torch.eye(n, dtype=x.dtype)) @ (p @ right)
    return (p @ residual - z) @ a.T


def ring(n):
    """Two clusters and a curved third coordinate: far from Gaussian."""
    side = torch.randint(0, 2, (n, 1)).double() * 4.0 - 2.0
    noise = torch.randn(n, 2, dtype=torch.float64)
    return torch.cat([side + 0.5 * noise[:, :1], 0.3 * side**2 + noise[:, 1:]], dim=1)


def test_agrees_with_its_definition():
    x = ring(120) @ torch.tensor([[1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    estimator = GaussianResidualEstimator(bandwidth="median", bandwidth_scale=1.0, ridge=0.1)
    torch.testing.assert_close(estimator.score(x), dense_score(x), rtol=1e-8, atol=1e-8)


def test_queries_get_the_constrained_kernel_regression_of_the_values_at_the_samples():
    z, queries = torch.randn(50, 2).double(), torch.randn(6, 2).double()
    kernel = KERNELS["rbf"](1.5)
    gram, across = kernel.gram(z, z), kernel.gram(queries, z)
    residual = ridge_residual(z, gram.clone(), kernel, 0.1, queries)
    linear, new = (torch.cat([torch.ones(len(p), 1).double(), p], 1) for p in (z, queries))
    p = torch.eye(50).double() - linear @ torch.linalg.pinv(linear)
    projected = p @ gram @ p
    ridge = 0.1 * projected.diagonal().mean() * torch.eye(50).double()
    weights = p @ torch.linalg.inv(projected + ridge) @ residual.at_samples
    expected = across @ weights - new @ torch.linalg.pinv(linear) @ gram @ weights
    torch.testing.assert_close(residual.at_queries, expected)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_with_every_sample_a_landmark_the_nystrom_form_is_the_exact_one(kernel):
    z, queries = torch.randn(2, 60, 3, dtype=torch.float64), torch.randn(2, 7, 3).double()
    chosen = KERNELS[kernel](1.5)
    exact = ridge_residual(z, chosen.gram(z, z), chosen, 0.1, queries)
    nystrom = landmark_residual(z, z, chosen, 0.1, queries)
    torch.testing.assert_close(nystrom.at_samples, exact.at_samples, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nystrom.at_queries, exact.at_queries, rtol=1e-5, atol=1e-6)


def test_the_effective_rank_is_that_of_the_gram_matrix():
    z = torch.randn(40, 2).double()
    kernel = KERNELS["rbf"](0.7)
    gram = kernel.gram(z, z)
    expected = gram.trace() ** 2 / (gram @ gram).trace()
    fitted = ridge_residual(z, gram, kernel, 0.1, None)
    torch.testing.assert_close(fitted.effective_rank, expected)


def test_landmarks_come_in_above_four_times_their_number():
    x = torch.randn(200, 3, dtype=torch.float64)
    exact = GaussianResidualEstimator(landmarks=None).score(x)
    assert torch.equal(GaussianResidualEstimator(landmarks=50).score(x), exact)
    nystrom = GaussianResidualEstimator(landmarks=49).score(x)
    assert not torch.equal(nystrom, exact)
    centred = x - x.mean(0)
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(nystrom.T @ centred / 200, -identity, rtol=0, atol=1e-8)


def test_the_spectral_form_inverts_the_leading_eigenvalues_of_the_projected_gram_matrix():
    x = ring(80)
    z = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T, correction=0))).T
    gram = torch.exp(-torch.cdist(z, z).square() / 2)
    design = torch.cat([torch.ones(80, 1).double(), z], dim=1)
    p = torch.eye(80).double() - design @ torch.linalg.pinv(design)
    values, vectors = torch.linalg.eigh(p @ gram @ p)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = int((values.cumsum(0) / values.sum() < 0.9).sum())
    right = (gram @ z - gram.sum(1)[:, None] * z) + gram @ z
    residual = vectors[:, :kept] / values[:kept] @ (vectors[:, :kept].T @ p @ right)
    score = GaussianResidualEstimator(explained=0.9, bandwidth=1.0).score(x)
    whitening = fit_whitening(x - x.mean(0))
    torch.testing.assert_close(score, whitening.pull_back(residual - z), rtol=1e-8, atol=1e-8)


def test_an_entropy_score_has_a_ridge_of_its_own():
    x = ring(60)
    estimator = GaussianResidualEstimator(ridge=0.5, entropy_ridge=0.02)
    torch.testing.assert_close(estimator.score(x), GaussianResidualEstimator(ridge=0.5).score(x))
    weak = GaussianResidualEstimator(ridge=0.02).score(x)
    torch.testing.assert_close(estimator.entropy_score(x).score, weak)


def test_margins_are_transported_for_information_but_not_for_a_score():
    x = torch.randn(256, 2, dtype=torch.float64)
    z = 0.6 * x + 0.8 * torch.randn(256, 2, dtype=torch.float64)
    plain, moved = GaussianResidualEstimator(transport=False), GaussianResidualEstimator()
    assert torch.equal(plain.score(z**3), moved.score(z**3))
    gradient = moved.information_gradient(x, z**3)
    assert 0.4 < gradient.diagnostics["joint_transported"] < 0.6  # both of z, none of x
    # The invertible map changes nothing but the chain rule's factor.
    similarity = torch.cosine_similarity(
        (gradient.z * 3.0 * z**2).flatten(), moved.information_gradient(x, z).z.flatten(), dim=0
    )
    assert similarity > 0.7  # 20 seeds: .86–.95; without transport .16–.38


@pytest.mark.parametrize("n", [23, 24, 25])
def test_an_information_gradient_is_two_scores_whether_or_not_they_share_a_whitening(n):
    # From two samples per joint dimension on the marginal's whitening is part of the joint's.
    x, z = torch.randn(2, n, 6, dtype=torch.float64)
    estimator = GaussianResidualEstimator(transport=False, shear=False, ridge=0.1)
    joint = estimator.score(torch.cat([z, x], dim=1))
    gradient = estimator.information_gradient(x, z, wrt_x=True)
    torch.testing.assert_close(gradient.z, joint[:, :6] - estimator.score(z))
    torch.testing.assert_close(gradient.x, joint[:, 6:] - estimator.score(x))


@pytest.mark.parametrize(("n", "dim"), [(64, 2), (128, 30), (64, 32)])
def test_steins_identity_for_linear_functions_holds_exactly(n, dim):
    x = torch.randn(n, dim, dtype=torch.float64) ** 3
    score = GaussianResidualEstimator().score(x)
    centred = x - x.mean(0)
    torch.testing.assert_close(score.mean(0), torch.zeros(dim).double(), rtol=0, atol=1e-9)
    identity = torch.eye(dim, dtype=torch.float64)
    torch.testing.assert_close(score.T @ centred / n, -identity, rtol=0, atol=1e-8)


def test_is_equivariant_under_affine_maps():
    x = ring(100)
    a = torch.tensor([[1.0, 30.0], [0.0, 0.1]], dtype=torch.float64)
    estimator = GaussianResidualEstimator()
    pulled_back = estimator.score(x @ a + 5.0) @ a.T
    torch.testing.assert_close(pulled_back, estimator.score(x), rtol=1e-6, atol=1e-6)


def test_features_a_hundred_times_narrower_than_the_rest_are_seen():
    x = torch.randn(256, 8, dtype=torch.float64)
    x[:, 4:] *= 0.01
    narrow = x[:, 4:] - x[:, 4:].mean(0)

    def seen(estimator):
        return float(-(estimator.score(x)[:, 4:] * narrow).sum(1).mean()) / 4

    assert seen(GaussianResidualEstimator()) == pytest.approx(1.0, abs=1e-6)
    assert seen(SpectralEstimator()) < 0.1  # why this estimator exists


def test_the_residual_sees_what_a_gaussian_cannot():
    x = torch.cat([torch.randn(400, 1) * 0.5 - 2.0, torch.randn(400, 1) * 0.5 + 2.0]).double()
    weights = torch.softmax(torch.cat([-((x + 2) ** 2), -((x - 2) ** 2)], dim=1) / 0.5, dim=1)
    truth = -(weights[:, :1] * (x + 2) + weights[:, 1:] * (x - 2)) / 0.25

    def error(**options):
        score = GaussianResidualEstimator(**options).score(x)
        return float((score - truth).norm() / truth.norm())

    assert error(residual=False) > 0.8
    assert error() < 0.6  # measured .42-.47 over 20 seeds


def test_the_residual_reaches_fresh_queries():
    def mixture(n):
        return torch.randn(n, 1).double() * 0.5 + (torch.randint(0, 2, (n, 1)) * 4.0 - 2.0).double()

    x, queries = mixture(800), mixture(200)
    q = torch.softmax(torch.cat([-((queries + 2) ** 2), -((queries - 2) ** 2)], dim=1) / 0.5, 1)
    truth = -(q[:, :1] * (queries + 2) + q[:, 1:] * (queries - 2)) / 0.25
    score = GaussianResidualEstimator().score(x, queries)
    assert float((score - truth).norm() / truth.norm()) < 0.6


@pytest.mark.parametrize(
    ("n", "dim", "shrinkage"),
    [(64, 32, 0.0), (63, 32, 0.05 * (32 / 63) ** 3), (64, 64, 0.05), (8, 64, 0.5)],
)
def test_the_correlation_is_shrunk_only_below_two_samples_per_dimension(n, dim, shrinkage):
    x = torch.randn(n, dim, dtype=torch.float64)
    whitening = fit_whitening(x - x.mean(0))
    assert whitening.shrinkage == pytest.approx(shrinkage)
    identity = torch.eye(dim, dtype=torch.float64)
    shrunk = (1 - shrinkage) * torch.corrcoef(x.T) + shrinkage * identity
    matrix = whitening.matrix * x.std(0, correction=0)
    torch.testing.assert_close(matrix @ shrunk @ matrix.T, identity)


def test_whitening_gives_the_identity_covariance_and_pulls_back_by_its_transpose():
    x = torch.randn(100, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    x = x - x.mean(0)
    whitening = fit_whitening(x)
    z = whitening.apply(x)
    torch.testing.assert_close(z.T @ z / 100, torch.eye(3, dtype=torch.float64))
    covariance = x.T @ x / 100
    torch.testing.assert_close(whitening.pull_back(z), x @ torch.linalg.inv(covariance))


@pytest.mark.parametrize(
    ("n", "dim", "used"), [(64, 47, 1.0), (64, 48, 0.0), (320, 299, 1.0), (320, 300, 0.0)]
)
def test_the_residual_needs_samples_to_spare(n, dim, used):
    diagnostics = GaussianResidualEstimator().estimate(torch.randn(n, dim).double()).diagnostics
    assert diagnostics["residual_used"] == used
    assert (diagnostics["residual_share"] > 0) == bool(used)


def test_without_the_residual_it_is_the_gaussian_score():
    x = torch.randn(50, 3, dtype=torch.float64) ** 3
    centred = x - x.mean(0)
    gaussian = -centred @ torch.linalg.inv(centred.T @ centred / 50)
    estimate = GaussianResidualEstimator(residual=False).estimate(x)
    torch.testing.assert_close(estimate.score, gaussian)
    assert estimate.diagnostics["residual_used"] == 0.0


def test_collinear_features_share_the_score_and_report_the_jitter():
    x = torch.randn(100, 2, dtype=torch.float64)
    estimate = GaussianResidualEstimator().estimate(torch.cat([x, x[:, :1]], dim=1))
    assert estimate.diagnostics["jitter"] > 0
    alone = GaussianResidualEstimator().score(x)
    together = estimate.score[:, 0] + estimate.score[:, 2]  # what a shift of the pair feels
    torch.testing.assert_close(together, alone[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "ridge=0.0"),
        ({"kernel": "cosine"}, "kernel='cosine'"),
        ({"bandwidth": "silverman"}, "bandwidth='silverman'"),
        ({"bandwidth_scale": -1.0}, "bandwidth_scale=-1.0"),
        ({"entropy_ridge": 0.0}, "entropy_ridge=0.0"),
        ({"explained": 1.5}, "explained=1.5"),
        ({"landmarks": 0}, "landmarks=0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        GaussianResidualEstimator(**options)


def test_an_entropy_score_takes_four_times_as_many_landmarks():
    x = torch.randn(100, 2, dtype=torch.float64)
    exact = GaussianResidualEstimator(landmarks=None)
    few = GaussianResidualEstimator(landmarks=10)
    assert torch.equal(few.entropy_score(x).score, exact.entropy_score(x).score)
    assert not torch.equal(few.score(x), exact.score(x))
