import inspect

import pytest
import torch

from mige.errors import InvalidInputError
from mige.scores import SCORE_ESTIMATORS, SteinCorrectedEstimator, make_score_estimator
from mige.scores.whitening import fit_whitening


def linear_moment(score, x):
    return score.T @ (x - x.mean(0)) / len(x)


@pytest.mark.parametrize("name", list(SCORE_ESTIMATORS))
class TestEveryEstimator:
    def test_the_linear_identities_hold_exactly(self, name):
        x = torch.randn(60, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 3.0
        score = make_score_estimator(name, stein_correction=True).score(x)
        torch.testing.assert_close(linear_moment(score, x), -torch.eye(4).to(x), atol=1e-8, rtol=0)
        torch.testing.assert_close(score.mean(0), torch.zeros(4).to(x), atol=1e-8, rtol=0)

    def test_badly_scaled_features_are_seen(self, name):
        scale = torch.tensor([1.0, 1e-3, 1e3, 1e-5])
        x = torch.randn(60, 4) * scale
        score = make_score_estimator(name, stein_correction=True).score(x)
        torch.testing.assert_close(
            linear_moment(score, x).diagonal(), -torch.ones(4), atol=1e-3, rtol=0
        )

    def test_queries_get_the_same_linear_function(self, name):
        x, queries = torch.randn(60, 3, dtype=torch.float64), torch.randn(9, 3).double()
        plain = make_score_estimator(name)
        corrected = make_score_estimator(name, stein_correction=True)
        at_samples = corrected.score(x) - plain.score(x)
        design = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        function = torch.linalg.lstsq(design, at_samples).solution
        expected = torch.cat([queries, torch.ones_like(queries[:, :1])], 1) @ function
        torch.testing.assert_close(
            corrected.score(x, queries) - plain.score(x, queries), expected, atol=1e-7, rtol=0
        )

    @pytest.mark.parametrize(("num", "dim"), [(1, 3), (2, 5), (5, 5), (8, 64), (20, 16)])
    def test_few_samples_give_finite_scores_of_reasonable_size(self, name, num, dim):
        x = torch.randn(num, dim)
        estimator = make_score_estimator(name, stein_correction=True)
        assert torch.isfinite(estimator.score(x, x[:1])).all()
        assert -(estimator.score(x) * (x - x.mean(0))).sum(1).mean() <= 1.05 * dim + 1.0

    def test_batches_are_corrected_one_by_one(self, name):
        x = torch.randn(2, 40, 3) * torch.tensor([1.0, 50.0])[:, None, None]
        estimator = make_score_estimator(name, stein_correction=True)
        batched = estimator.score(x)
        for i in range(2):
            torch.testing.assert_close(batched[i], estimator.score(x[i]), rtol=2e-2, atol=1e-2)


class Zero(SteinCorrectedEstimator):
    """Corrects the score zero."""

    def __init__(self):
        super().__init__(make_score_estimator("spectral"))
        self.estimator = self

    def _estimate(self, samples, queries):
        points = samples if queries is None else queries
        from mige.scores import ScoreEstimate

        return ScoreEstimate(torch.zeros_like(points), {})


@pytest.mark.parametrize("num", [100, 12, 6])
def test_the_score_zero_becomes_that_of_a_gaussian(num):
    x = torch.randn(num, 8, dtype=torch.float64)
    x = x - x.mean(0)
    whitening = fit_whitening(x)
    gaussian = -whitening.pull_back(whitening.apply(x))
    score = SteinCorrectedEstimator(Zero()).score(x)
    torch.testing.assert_close(score, gaussian, rtol=1e-8, atol=1e-8)


def test_an_exact_estimate_is_left_alone():
    x = torch.randn(200, 3, dtype=torch.float64)
    plain = make_score_estimator("gaussian_residual").score(x)
    corrected = make_score_estimator("gaussian_residual", stein_correction=True).estimate(x)
    torch.testing.assert_close(corrected.score, plain, rtol=1e-8, atol=1e-8)
    assert corrected.diagnostics["correction_share"] < 1e-12


@pytest.mark.parametrize("value", ["false", "", 0, None])
def test_whether_to_correct_is_true_or_false(value):
    unchecked = inspect.unwrap(make_score_estimator)  # as outside tests: no types are verified
    with pytest.raises(InvalidInputError, match=f"stein_correction={value!r}: give True or False"):
        unchecked("spectral", stein_correction=value)


def test_only_none_stands_for_the_recommended_estimator():
    with pytest.raises(InvalidInputError, match="score estimator='' is unknown"):
        make_score_estimator("")


@pytest.mark.parametrize("name", ["spectral", "stein"])
def test_the_correction_follows_rotations_where_the_estimator_does(name):
    x = torch.randn(80, 3, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    estimator = make_score_estimator(name, stein_correction=True)
    torch.testing.assert_close(
        estimator.score(4.0 * x @ rotation + 7.0) * 4.0,
        estimator.score(x) @ rotation,
        rtol=1e-6,
        atol=1e-6,
    )
