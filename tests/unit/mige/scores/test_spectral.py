import pytest
import torch

from mige.errors import InvalidInputError
from mige.scores import SpectralEstimator
from mige.scores.spectral import kept_eigenvalues


def published_score(x, queries, explained=0.99):
    """The estimator as the authors' notebook computes it, with its M x M x D gradients."""
    diff = x[:, None, :] - x[None, :, :]
    distances = diff.square().sum(-1).sqrt()
    width = distances.flatten().topk(distances.numel() // 2).values[-1]
    gram = torch.exp(-distances.square() / (2 * width**2))
    grad_x1 = gram[:, :, None] * -diff / width**2
    values, vectors = torch.linalg.eigh(gram)
    share = values.flip(0).cumsum(0) / values.sum()
    count = int((share < explained).sum())
    values, vectors = values[-count:], vectors[:, -count:]
    num = len(x)
    beta = -(vectors.T @ grad_x1.mean(0)) * num**0.5 / values[:, None]
    cross = torch.exp(-(queries[:, None] - x[None]).square().sum(-1) / (2 * width**2))
    return num**0.5 * cross @ vectors / values @ beta


@pytest.mark.parametrize(("num", "dim"), [(20, 1), (64, 3), (128, 16), (100, 40)])
@pytest.mark.parametrize("explained", [0.9, 0.99])
def test_agrees_with_the_published_formula_to_1e_10(num, dim, explained):
    x = torch.randn(num, dim, dtype=torch.float64) + 3.0
    estimator = SpectralEstimator(explained=explained)
    truth = published_score(x, x, explained)
    torch.testing.assert_close(estimator.score(x), truth, rtol=1e-10, atol=1e-10)
    queries = torch.randn(9, dim, dtype=torch.float64) + 3.0
    truth = published_score(x, queries, explained)
    torch.testing.assert_close(estimator.score(x, queries), truth, rtol=1e-10, atol=1e-10)


def test_the_kept_eigenvalues_have_cumulative_shares_strictly_below_the_threshold():
    values = torch.tensor([4.0, 3.0, 2.0, 1.0])  # shares .4 .7 .9 1
    assert kept_eigenvalues(values, 0.9).tolist() == [True, True, False, False]
    assert kept_eigenvalues(values, 0.91).tolist() == [True, True, True, False]


def test_at_least_one_eigenvalue_is_kept():
    # The published code slices [-0:] here and keeps all.
    assert kept_eigenvalues(torch.tensor([99.5, 0.3, 0.2]), 0.99).tolist() == [True, False, False]


def test_eigenvalues_equal_to_the_last_kept_one_are_kept_with_it():
    values = torch.tensor([4.0, 2.0, 2.0, 2.0])  # shares .4 .6 .8 1
    assert kept_eigenvalues(values, 0.7).tolist() == [True, True, True, True]
    rounded = values - torch.tensor([0.0, 0.0, 3e-7, 6e-7])  # as a float32 solver gives them
    assert kept_eigenvalues(rounded, 0.7).tolist() == [True, True, True, True]


@pytest.mark.parametrize("explained", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_a_cut_inside_a_degenerate_eigenspace_does_not_make_the_row_order_matter(explained):
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6)
    order = torch.randperm(64)
    estimator = SpectralEstimator(explained=explained)
    torch.testing.assert_close(
        estimator.score(corners[order]), estimator.score(corners)[order], rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("seed", range(10))
def test_eigenvalues_at_rounding_level_are_never_inverted(seed):
    # The cumulative share of some of these ends just below 1, so the threshold alone keeps all.
    values = torch.rand(50, generator=torch.Generator().manual_seed(seed)).sort().values.flip(0)
    values = torch.cat([values + 0.1, torch.linspace(1e-7, -1e-7, 50)])
    assert not kept_eigenvalues(values, 1.0)[50:].any()


def test_keeping_everything_is_still_finite():
    score = SpectralEstimator(explained=1.0).score(torch.randn(100, 2))
    assert torch.isfinite(score).all()


def test_more_than_half_equal_samples_fall_back_to_the_mean_distance():
    x = torch.randn(40, 3)
    x[:35] = x[0]
    estimate = SpectralEstimator().estimate(x)
    assert estimate.diagnostics["bandwidth_fell_back"] == 1.0
    assert torch.isfinite(estimate.score).all()
    assert estimate.score.abs().max() > 0


def test_diagnostics_say_what_was_kept():
    diagnostics = SpectralEstimator(explained=0.9).estimate(torch.randn(64, 4)).diagnostics
    assert 0.5 < diagnostics["kept_share"] < 0.9
    assert 1 <= diagnostics["num_kept"] < 64
    assert 1 <= diagnostics["effective_rank"] <= 64
    assert diagnostics["bandwidth_fell_back"] == 0.0


def test_a_bandwidth_scale_scales_the_bandwidth():
    x = torch.randn(32, 3)
    one = SpectralEstimator().estimate(x).diagnostics["bandwidth"]
    two = SpectralEstimator(bandwidth_scale=2.0).estimate(x).diagnostics["bandwidth"]
    torch.testing.assert_close(two, 2.0 * one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explained": 0.0}, "explained=0.0"),
        ({"explained": 1.5}, "explained=1.5"),
        ({"kernel": "cosine"}, "kernel='cosine' is unknown: choose one of .*'rbf'"),
        ({"bandwidth": "silverman"}, "bandwidth='silverman'"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0"),
        ({"bandwidth_scale": 0.0}, "bandwidth_scale=0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        SpectralEstimator(**options)
