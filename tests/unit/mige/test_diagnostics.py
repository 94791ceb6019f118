import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mige import InvalidInputError, make_score_estimator
from mige.diagnostics import (
    condition_number,
    effective_rank,
    effective_sample_size,
    feature_health,
    gradient_agreement,
    gradient_cosine,
    held_out_stein_residuals,
    stein_residuals,
)

SAMPLE_NUMBERS = {  # each takes samples alone
    "effective_rank": effective_rank,
    "condition_number": condition_number,
    "stein_mean": lambda z: stein_residuals(-z, z).mean,
    "stein_linear": lambda z: stein_residuals(-z, z).linear,
    "held_out": lambda z: held_out_stein_residuals(make_score_estimator(), z, check=False).linear,
    "num_dead": lambda z: feature_health(z).num_dead,
    "agreement": lambda z: (
        gradient_agreement(z, z.flip(-1), make_score_estimator(), check=False).cosine
    ),
}


@pytest.mark.parametrize("name", SAMPLE_NUMBERS)
def test_batches_of_samples_give_one_number_each_as_if_alone(name):
    samples = torch.randn(2, 3, 64, 4, dtype=torch.float64)
    together = SAMPLE_NUMBERS[name](samples)
    assert together.shape == (2, 3)
    torch.testing.assert_close(together[1, 2], SAMPLE_NUMBERS[name](samples[1, 2]))


@pytest.mark.parametrize("name", sorted(SAMPLE_NUMBERS.keys() - {"condition_number"}))
def test_nothing_waits_for_a_device(name):
    with FakeTensorMode():  # asking a fake tensor for a value raises
        assert SAMPLE_NUMBERS[name](torch.randn(64, 4, device="cuda")).shape == ()


def test_the_exact_score_leaves_sampling_noise_in_any_units():
    n, d = 4000, 8
    scale = torch.logspace(-3, 3, d).double()
    samples = torch.randn(n, d).double() * scale + 4.0
    residuals = stein_residuals(-(samples - 4.0) / scale**2, samples)
    assert residuals.mean == pytest.approx(math.sqrt(1 / n), rel=0.5)
    assert residuals.linear == pytest.approx(math.sqrt(d / n), rel=0.3)


def test_a_shrunk_and_a_shifted_score_are_told_by_how_much():
    samples = torch.randn(4000, 8).double()
    assert stein_residuals(-0.6 * samples, samples).linear == pytest.approx(0.4, abs=0.05)
    assert stein_residuals(0.5 - samples, samples).mean == pytest.approx(0.5, abs=0.05)
    assert stein_residuals(torch.zeros(50, 3), torch.randn(50, 3), target=0.0).linear == 0


# The mean of 300 times 3.3 is not 3.3 in float32.
@pytest.mark.parametrize("level", [0.0, 2.0, 3.3])
def test_constant_features_do_not_count_against_a_score(level):
    samples = torch.randn(300, 4)
    samples[:, 1] = level
    residuals = stein_residuals(make_score_estimator().score(samples), samples)
    assert residuals.mean < 1e-4
    assert residuals.linear < 1e-4


def test_out_of_sample_residuals_are_those_of_unseen_rows():
    samples = torch.randn(400, 8).double()
    estimator = make_score_estimator(residual=False)
    inside = stein_residuals(estimator.score(samples), samples)
    outside = held_out_stein_residuals(estimator, samples)
    assert inside.linear < 1e-6
    assert 0.5 * math.sqrt(8 / 200) < outside.linear < 2 * math.sqrt(8 / 200)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1.0, 1, 1, 1], 4.0), ([5.0, 0, 0, 0], 1.0), ([2.0, 2, 0, 0], 2.0), ([0.0, 0, 0, 0], 0.0)],
)
def test_kishs_sample_size_counts_equal_rows(weights, expected):
    assert effective_sample_size(torch.tensor(weights)) == pytest.approx(expected)


def test_the_effective_rank_counts_directions():
    samples = torch.randn(5000, 6).double()
    assert effective_rank(samples) == pytest.approx(6, rel=0.02)
    assert effective_rank(samples[:, :2] @ torch.randn(2, 6).double()) <= 2.0
    assert effective_rank(torch.ones(10, 6)) == 0


def test_the_condition_number_is_that_of_the_covariance():
    orthonormal, _ = torch.linalg.qr(torch.randn(200, 4).double())
    orthonormal = orthonormal - orthonormal.mean(0)
    orthonormal, _ = torch.linalg.qr(orthonormal)
    samples = orthonormal * torch.tensor([1.0, 2.0, 5.0, 10.0]).double() + 3.0
    assert condition_number(samples) == pytest.approx(100.0, rel=1e-6)
    assert torch.isinf(condition_number(samples[:4]))
    assert torch.isinf(condition_number(torch.cat([samples, samples], dim=1)))


def test_dead_constant_and_saturated_features_are_counted():
    n = 1000
    z = torch.randn(n, 6)
    z[:, 0] = 0.0  # constant, and a ReLU that never opened
    z[:, 1] = torch.where(torch.arange(n) < 5, z[:, 1].abs(), 0.0)  # one that hardly opens
    z[:, 2] = torch.tanh(40.0 * z[:, 2])  # a tanh at its limits
    z[:, 3] = 3.7 + 1e-5 * z[:, 3]  # a constant after batch normalisation
    health = feature_health(z)
    assert [value.item() for value in health] == [2.0, 2.0, 1.0]
    relu = torch.relu(torch.randn(n, 6))
    assert [value.item() for value in feature_health(relu)] == [0.0, 0.0, 0.0]


def test_features_far_narrower_than_others_still_count_as_alive():
    z = torch.randn(500, 3) * torch.tensor([1.0, 1e-2, 1e-3])
    assert feature_health(z).num_constant == 0


def test_the_cosine_of_two_gradients_spans_all_parameters():
    a = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    assert gradient_cosine(a, [t * 2 for t in a]) == pytest.approx(1.0)
    assert gradient_cosine(a, [torch.tensor([0.0, 1.0]), torch.tensor([[0.0]])]) == 0
    assert gradient_cosine(a, [-a[0], a[1]]) == pytest.approx((16 - 9) / 25)
    assert gradient_cosine(a, [t * 0 for t in a]) == 0


def test_halves_agree_where_there_is_signal_and_not_where_there_is_none():
    x, noise = torch.randn(2, 512, 8).double()
    estimator = make_score_estimator()
    strong = gradient_agreement(x, x + noise, estimator)
    assert strong.cosine > 0.8
    assert strong.whole_batch > strong.cosine
    none = gradient_agreement(x, noise, estimator)
    assert abs(none.cosine) < 0.4


def test_constant_features_do_not_count_in_the_agreement_of_halves():
    x, noise = torch.randn(2, 300, 4)
    padded = torch.cat([x, torch.full((300, 1), 3.3)], dim=1)
    estimator = make_score_estimator("stein")  # whose gradients have a mean
    alone = gradient_agreement(x, x + noise, estimator)
    together = gradient_agreement(padded, x + noise, estimator)
    torch.testing.assert_close(together.cosine, alone.cosine, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: held_out_stein_residuals(make_score_estimator(), torch.randn(3, 2)), "3 rows"),
        (lambda: gradient_cosine([], []), "at least one"),
        (lambda: gradient_cosine([torch.zeros(2)], [torch.zeros(3)]), r"\(2,\)"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
