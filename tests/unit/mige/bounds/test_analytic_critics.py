"""Bounds with the critic that is optimal for Gaussians: their values are known exactly.

d pairs with correlation ρ: I = −d/2 log(1 − ρ²), dI/dρ = d ρ/(1 − ρ²).
"""

import math

import pytest
import torch

from mige.bounds import Critic, make_bound

RHO = 0.6
DIM = 3
TRUTH = -DIM / 2 * math.log(1 - RHO**2)  # 0.669 nats
SLOPE = DIM * RHO / (1 - RHO**2)  # 2.81
ROWS = 1500


class LogRatio(Critic):
    """log p(x, z)/(p(x) p(z)), plus a constant, times a factor (1 is optimal)."""

    def __init__(self, offset=0.0, factor=1.0):
        super().__init__()
        # A parameter, so that the bound computes in float64.
        self.offset = torch.nn.Parameter(torch.tensor(offset, dtype=torch.float64))
        self.factor = factor

    def forward(self, x, z):
        return self.pairwise(x, z).diagonal()

    def pairwise(self, x, z):
        residual = z.square().sum(1) - 2 * RHO * x @ z.T + RHO**2 * x.square().sum(1)[:, None]
        ratio = TRUTH - 0.5 * residual / (1 - RHO**2) + 0.5 * z.square().sum(1)
        return self.factor * ratio + self.offset


class Closeness(LogRatio):
    """Recognises z = x without doubt."""

    def pairwise(self, x, z):
        return -1e6 * torch.cdist(x, z).square() + self.offset


class TrueConditional(LogRatio):
    """log p(z | x)."""

    def pairwise(self, x, z):
        return super().pairwise(x, z) - 0.5 * z.square().sum(1) - DIM / 2 * math.log(2 * math.pi)


class StandardNormal(torch.nn.Module):
    def forward(self, z):
        return -0.5 * z.square().sum(1) - DIM / 2 * math.log(2 * math.pi)


def pairs(n=ROWS, rho=RHO):
    x, noise = torch.randn(2, n, DIM, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def with_critic(name, critic, **options):
    bound = make_bound(name, DIM, DIM, critic="bilinear", **options).double()
    bound.critic = critic
    return bound


def analytic(name):
    """The bound `name` with nothing left to learn."""
    if name in {"club", "l1out", "doe"}:
        bound = make_bound(name, DIM, DIM)
        bound.conditional = TrueConditional()
        if name == "doe":
            bound.marginal = StandardNormal()
        return bound
    critic = LogRatio(offset=1.0 if name == "nwj" else 0.0)
    bound = with_critic(name, critic)
    if name == "tuba":  # a(z) = 1
        for parameter in bound.log_baseline.parameters():
            torch.nn.init.zeros_(parameter)
    return bound


def slope_of(bound, x, z):
    rows = bound.information_gradient(x, z).z
    return float((rows * (x - RHO / (1 - RHO**2) * (z - RHO * x))).sum(1).mean())


# 20 seeds, n = 1500: the value's sd is .02 (doe, .03 club), that of dI/dρ .05 to .09.
@pytest.mark.parametrize(
    ("name", "value", "slope"),
    [
        ("dv", TRUTH, SLOPE),
        ("nwj", TRUTH, SLOPE),
        ("tuba", TRUTH, SLOPE),
        ("infonce", TRUTH, SLOPE),
        ("smile", TRUTH, SLOPE),  # |log ratio| > 5 is rare here
        ("jsd", TRUTH, None),
        ("l1out", TRUTH, SLOPE),
        ("doe", TRUTH, SLOPE),
        ("club", DIM * RHO**2 / (1 - RHO**2), SLOPE),
    ],
)
def test_the_optimal_critic_gives_the_exact_value_and_gradient(name, value, slope):
    bound, (x, z) = analytic(name), pairs()
    assert float(bound.value(x, z).detach()) == pytest.approx(value, abs=0.12)
    if slope is not None:
        assert slope_of(bound, x, z) == pytest.approx(slope, abs=0.4)


@pytest.mark.parametrize("name", ["dv", "nwj", "tuba", "infonce", "jsd"])
@pytest.mark.parametrize("critic", [LogRatio(offset=1.5), LogRatio(factor=0.4), LogRatio(-2.0)])
def test_lower_bounds_stay_below_with_a_worse_critic(name, critic):
    bound = analytic(name)
    bound.critic = critic
    assert bound.direction == "lower"
    assert bound.value(*pairs()) < TRUTH + 0.12


@pytest.mark.parametrize("name", ["dv", "infonce"])
def test_a_constant_added_to_the_critic_makes_no_difference(name):
    x, z = pairs(50)
    shifted = with_critic(name, LogRatio(offset=7.0))
    torch.testing.assert_close(shifted.value(x, z), analytic(name).value(x, z))


def test_the_normalised_bounds_want_their_own_constant():
    x, z = pairs()
    shifts = torch.linspace(-1.0, 2.0, 13)
    values = [with_critic("nwj", LogRatio(float(shift))).value(x, z) for shift in shifts]
    assert shifts[torch.stack(values).argmax()] == pytest.approx(1.0, abs=0.3)


def test_infonce_saturates_at_the_log_of_its_candidates():
    x = torch.randn(64, DIM, dtype=torch.float64)
    for options, candidates in [({}, 64), ({"num_negatives": 7}, 8)]:
        value = with_critic("infonce", Closeness(), **options).value(x, x)
        torch.testing.assert_close(value, torch.tensor(candidates).double().log())


def test_smile_without_a_clip_in_reach_is_donsker_varadhan():
    x, z = pairs(80)
    wide = with_critic("smile", LogRatio(), tau=1e3)
    torch.testing.assert_close(wide.value(x, z), analytic("dv").value(x, z))
    narrow = with_critic("smile", LogRatio(), tau=1e-9)
    positives = LogRatio()(x, z).mean()
    torch.testing.assert_close(narrow.value(x, z), positives)


def test_jsd_has_the_value_of_nwj_and_the_gradient_of_its_objective():
    x, z = pairs(60)
    jsd = analytic("jsd")
    torch.testing.assert_close(jsd.value(x, z), analytic("nwj").value(x, z))
    z.requires_grad_()
    (of_objective,) = torch.autograd.grad(-jsd.loss(x, z), z)
    torch.testing.assert_close(jsd.information_gradient(x, z).z, 60 * of_objective)


def test_club_is_above_leave_one_out_which_is_above_the_information():
    x, z = pairs()
    information = analytic("dv").value(x, z)
    assert analytic("club").value(x, z) > analytic("l1out").value(x, z) + 0.5
    assert analytic("l1out").value(x, z) > information - 0.1


def test_leave_one_out_reads_too_high_with_few_rows():
    # E[−log mean p(z|x_j)] ≥ −log E by Jensen, most with few terms.
    bound = analytic("l1out")
    values = torch.stack([bound.value(*pairs(4)).detach() for _ in range(200)])
    assert values.mean() > TRUTH + 0.2


@pytest.mark.parametrize("name", ["dv", "nwj", "infonce", "jsd", "smile"])
def test_few_negatives_are_other_rows_and_all_of_them_is_the_default(name):
    x, z = pairs(20)
    offset = 1.0 if name == "nwj" else 0.0
    every = with_critic(name, LogRatio(offset)).value(x, z)
    torch.testing.assert_close(
        with_critic(name, LogRatio(offset), num_negatives=19).value(x, z), every
    )
    torch.testing.assert_close(
        with_critic(name, LogRatio(offset), num_negatives=99).value(x, z), every
    )
    few = with_critic(name, LogRatio(offset), num_negatives=3).value(x, z)
    assert torch.isfinite(few)
    assert few != every


def test_extreme_scores_do_not_overflow_in_the_logarithmic_bounds():
    x, z = pairs(20)
    steep = LogRatio(factor=1e3)  # scores of ±10,000
    for name in ("dv", "infonce", "smile"):
        bound = with_critic(name, steep)
        assert torch.isfinite(bound.value(x, z))
        assert torch.isfinite(bound.information_gradient(x, z).z).all()
