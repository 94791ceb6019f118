"""Estimators and bounds under one interface."""

import pytest
import torch

from mige import SCORE_ESTIMATORS, make_score_estimator
from mige.bounds import BOUNDS
from mige.calibration import BoundSubject, ScoreSubject, Subject, make_subject
from mige.errors import InvalidInputError


def pairs(batch=2, n=24, d=2):
    x, noise = torch.randn(2, batch, n, d, generator=torch.Generator().manual_seed(0))
    return x, 0.6 * x + 0.8 * noise


@pytest.mark.parametrize("name", SCORE_ESTIMATORS)
def test_a_score_estimator_gives_its_own_rows_and_scores(name):
    subject, (x, z) = make_subject(name), pairs()
    estimator = make_score_estimator(name)
    assert isinstance(subject, Subject)
    assert subject.gives_scores
    expected = estimator.information_gradient(x, z).z
    torch.testing.assert_close(subject.gradient(x, z, seed=0), expected)
    torch.testing.assert_close(subject.score(z), estimator.entropy_score(z).score)
    assert subject.minimum_samples(10) == estimator.minimum_samples(10)


@pytest.mark.parametrize("name", sorted(BOUNDS.keys() - {"ksg"}))
def test_a_bound_gives_rows_of_every_sample_and_repeats_itself(name):
    subject, (x, z) = make_subject(name, {"steps": 3}), pairs()
    state = torch.get_rng_state()
    rows = subject.gradient(x, z, seed=5)
    assert rows.shape == z.shape
    assert torch.isfinite(rows).all()
    assert rows.abs().amax((1, 2)).min() > 0
    torch.testing.assert_close(subject.gradient(x, z, seed=5), rows, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's randomness is touched
    assert not subject.gives_scores
    with pytest.raises(InvalidInputError, match=f"bound '{name}' gives no scores"):
        subject.score(z)


def test_a_bound_learns_from_more_steps():
    x, z = pairs(batch=1, n=128)
    truth = x / 0.64 * 0.6 - z * (1 / 0.64 - 1)  # joint minus marginal score
    few, many = (
        (make_subject("infonce", {"steps": steps}).gradient(x, z, seed=0) * truth).sum()
        for steps in (1, 10)
    )
    assert many > 4 * few.abs()  # measured .07 and .69 of the truth
    assert many > 0.4 * truth.square().sum()


def test_the_stein_correction_is_an_option_like_others():
    _, z = pairs(n=40)
    plain = make_subject("spectral").score(z)
    corrected = make_subject("spectral", {"stein_correction": True}).score(z)
    centred = z - z.mean(1, keepdim=True)
    identity = -torch.eye(2).expand(2, 2, 2)
    torch.testing.assert_close(corrected.mT @ centred / 40, identity, rtol=0, atol=1e-4)
    assert (plain - corrected).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("spectrall", {}, "estimator='spectrall'"),
        ("spectral", {"ridge": 1}, "no option 'ridge'"),
        ("spectral", {"name": "x"}, "no option 'name'"),
        ("spectral", {"explained": 2.0}, "explained=2.0"),
        ("spectral", {"stein_correction": "yes"}, "stein_correction='yes'"),
        ("ksg", {}, "gives a value and no gradient"),
        ("nwj", {"steps": 0}, "steps=0"),
        ("nwj", {"learning_rate": -1.0}, "learning_rate=-1.0"),
        ("nwj", {"dim_x": 3}, r"options hold \['dim_x'\]"),
        ("nwj", {"width": 3}, "no option 'width'"),
    ],
)
def test_a_subject_that_cannot_be_is_refused_by_name(name, options, said):
    with pytest.raises(InvalidInputError, match=said):
        make_subject(name, options)


def test_subjects_say_who_they_are():
    assert isinstance(make_subject("spectral"), ScoreSubject)
    subject = make_subject("nwj", {"steps": 3})
    assert isinstance(subject, BoundSubject)
    assert (subject.name, subject.options) == ("nwj", {"steps": 3})
    assert subject.minimum_samples(99) == 2
