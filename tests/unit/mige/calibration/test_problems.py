"""Problems with exact answers: the answers themselves, and samples that belong to them."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import simpson
from scipy.stats import multivariate_t

from mige.calibration import (
    PROBLEMS,
    SUITE,
    CoordinateChannel,
    GaussianPairs,
    LinearEncoder,
    StudentPairs,
)
from mige.calibration.channels import SIGNALS, pair_information
from mige.errors import InvalidInputError

RHOS = (-0.8, -0.3, 0.0, 0.45, 0.8)
CORRELATED = sorted(PROBLEMS.keys() - {"gain", "linear_encoder"})
CHANNELS = sorted(name for name in PROBLEMS if isinstance(PROBLEMS[name], CoordinateChannel))
CLOSED_FORM = sorted(PROBLEMS.keys() - set(CHANNELS))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_closed_form_gradient_is_that_of_the_information(name):
    problem = PROBLEMS[name]
    parameter = problem.grid(3).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.information(parameter, 3).sum(), parameter)
    torch.testing.assert_close(problem.truth(parameter.detach(), 3), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("name", CHANNELS)
def test_the_gradient_of_a_channel_is_the_slope_of_its_information(name, rho):
    problem, step = PROBLEMS[name], 1e-4
    ends = torch.tensor([rho - step, rho + step], dtype=torch.double)
    low, high = problem.information(ends, 3)
    truth = problem.truth(torch.tensor(rho, dtype=torch.double), 3)
    assert float(truth) == pytest.approx(float(high - low) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("rho", RHOS)
def test_the_integral_agrees_with_the_closed_form_of_the_linear_channel(rho):
    information, slope = pair_information("linear", rho)
    assert information == pytest.approx(-0.5 * math.log(1 - rho**2), abs=1e-10)
    assert slope == pytest.approx(rho / (1 - rho**2), abs=1e-10)


@pytest.mark.parametrize("rho", [-0.8, 0.3, 0.7])
@pytest.mark.parametrize("name", ["bimodal", "square", "sin"])
def test_the_integral_agrees_with_another_one_of_the_joint_density(name, rho):
    # I = ∫∫ p(x) p(z|x) log p(z|x)/p(z), by Simpson's rule in NumPy, on other grids.
    x, z = np.linspace(-8, 8, 2001), np.linspace(-9, 45, 1601)
    if name == "bimodal":
        hump = math.sqrt(1 - 0.92**2)
        source = sum(np.exp(-0.5 * ((x - m) / hump) ** 2) for m in (-0.92, 0.92)) / (2 * hump)
    else:
        source = np.exp(-0.5 * x**2)
    source = source / math.sqrt(2 * math.pi)
    sent = {
        "bimodal": x,
        "square": (x**2 - 1) / math.sqrt(2),
        "sin": np.sin(2 * x) / math.sqrt((1 - math.exp(-8)) / 2),
    }[name]
    z = z if rho > 0 or name != "square" else -z[::-1]
    log_kernel = -0.5 * (z[:, None] - rho * sent) ** 2 / (1 - rho**2)
    log_kernel -= 0.5 * math.log(2 * math.pi * (1 - rho**2))
    kernel = np.exp(log_kernel)
    log_marginal = np.log(np.maximum(simpson(kernel * source, x=x), 1e-300))
    inside = simpson(kernel * (log_kernel - log_marginal[:, None]), x=z, axis=0)
    assert pair_information(name, rho)[0] == pytest.approx(simpson(source * inside, x=x), abs=1e-7)


@pytest.mark.parametrize("d", [1, 4])
def test_the_information_of_a_student_pair_follows_from_its_entropies(d):
    correlation = np.eye(2 * d)
    correlation[:d, d:] = correlation[d:, :d] = 0.6 * np.eye(d)
    expected = 2 * multivariate_t(shape=np.eye(d), df=5).entropy()
    expected -= multivariate_t(shape=correlation, df=5).entropy()
    information = StudentPairs().information(torch.tensor(0.6, dtype=torch.double), d)
    assert float(information) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_whole_grid_is_sampled_at_once_each_entry_from_noise_of_its_own(name):
    problem = PROBLEMS[name]
    grid = problem.grid(4)
    x, z = problem.sample(9, 4, grid, generator())
    assert x.shape == z.shape == (len(grid), 9, 4)
    assert x.dtype == torch.float64
    assert (x[0] - x[1]).abs().min() > 0
    again = problem.sample(9, 4, grid, generator())
    torch.testing.assert_close(again.z, z, rtol=0, atol=0)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("d", [1, 3])
def test_any_width_and_single_precision_work(name, d):
    problem = PROBLEMS[name]
    parameter = problem.grid(d)[-1].float()
    x, z = problem.sample(5, d, parameter, generator())
    assert x.shape == z.shape == (5, d)
    assert x.dtype == z.dtype == torch.float32
    assert problem.truth(parameter, d).shape == parameter.shape
    assert torch.isfinite(problem.truth(parameter, d)).all()


@pytest.mark.parametrize("name", CORRELATED)
def test_samples_are_differentiable_in_the_parameter_and_only_z_depends_on_it(name):
    problem, rho, step = PROBLEMS[name], torch.tensor(0.4, dtype=torch.double), 1e-5
    at = rho.clone().requires_grad_()
    x, z = problem.sample(6, 4, at, generator())
    assert not x.requires_grad
    weight = torch.randn(6, 4, dtype=torch.double)
    (slope,) = torch.autograd.grad((weight * z).sum(), at)
    low, high = (problem.sample(6, 4, rho + s, generator()) for s in (-step, step))
    torch.testing.assert_close(low.x, high.x, rtol=0, atol=0)
    difference = (weight * (high.z - low.z)).sum() / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["bimodal", "square", "sin"])
def test_a_channel_sends_a_unit_signal_with_the_given_correlation(name):
    rho = torch.tensor(0.6, dtype=torch.double)
    x, z = PROBLEMS[name].sample(100_000, 2, rho, generator())
    sent = SIGNALS[name].apply(x)
    # Standard errors of 200,000 values: below .005 for the means, .015 for the square's variance.
    assert float(x.mean()) == pytest.approx(0.0, abs=0.015)
    assert float(x.var()) == pytest.approx(1.0, abs=0.015)
    assert float(sent.mean()) == pytest.approx(0.0, abs=0.015)
    assert float(sent.var()) == pytest.approx(1.0, abs=0.04)
    assert float(z.var()) == pytest.approx(1.0, abs=0.02)
    assert float((sent * z).mean()) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("name", ["square", "sin"])
def test_rotation_hides_the_coordinates_and_nothing_else(name):
    rho = torch.tensor(0.7, dtype=torch.double)
    plain, turned = (PROBLEMS[k].sample(50, 6, rho, generator()) for k in (name, f"rotated_{name}"))
    for before, after in zip(plain, turned, strict=True):
        torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1))
        assert (after - before).abs().max() > 0.5


@pytest.mark.parametrize("name", ["gauss", "gain", "linear_encoder"])
def test_exact_scores_on_the_samples_give_the_exact_gradient(name):
    """Row gradients s_joint − s_marginal of the true Gaussian, pulled back through the samples."""
    problem, d, n = PROBLEMS[name], 2, 100_000
    parameter = problem.grid(d)[-1].requires_grad_()
    x, z = problem.sample(n, d, parameter, generator())
    value = parameter.detach()
    gain = {"gauss": value * torch.eye(d), "gain": value * torch.eye(d)}.get(name, value).double()
    noise = {"gauss": 1 - value**2, "gain": torch.tensor(1.0)}.get(name, torch.tensor(0.25))
    marginal = gain @ gain.mT + noise * torch.eye(d)
    rows = -(z - x @ gain.mT) / noise + torch.linalg.solve(marginal, z.mT).mT
    surrogate = (rows.detach() * z).sum(-1).mean()
    (estimate,) = torch.autograd.grad(surrogate, parameter)
    truth = problem.truth(value, d)
    assert float((estimate - truth).norm() / truth.norm()) < 0.03  # one seed: below .01


def test_the_suite_is_made_of_ten_problems():
    assert len(set(SUITE)) == 10
    assert set(SUITE) <= PROBLEMS.keys()


@pytest.mark.parametrize("name", CORRELATED)
@pytest.mark.parametrize("rho", [1.0, -1.5, math.nan])
def test_a_correlation_outside_the_open_interval_is_refused(name, rho):
    problem, parameter = PROBLEMS[name], torch.tensor([0.1, rho])
    for call in (lambda: problem.truth(parameter, 2), lambda: problem.information(parameter, 2),
                 lambda: problem.sample(3, 2, parameter, generator())):  # fmt: skip
        with pytest.raises(InvalidInputError, match="parameter="):
            call()


def test_bad_arguments_are_named():
    with pytest.raises(InvalidInputError, match="transform_x='cubed'"):
        GaussianPairs(transform_x="cubed")
    with pytest.raises(InvalidInputError, match="signal='cos'"):
        CoordinateChannel(signal="cos")
    with pytest.raises(InvalidInputError, match="degrees=0"):
        StudentPairs(degrees=0)
    with pytest.raises(InvalidInputError, match="noise=0"):
        LinearEncoder(noise=0.0)
    with pytest.raises(InvalidInputError, match=r"give weights \(\.\.\., 2, 2\)"):
        LinearEncoder().truth(torch.zeros(3, 3), 2)
    with pytest.raises(InvalidInputError, match="n=0"):
        PROBLEMS["gain"].sample(0, 2, torch.tensor(1.0), generator())
    with pytest.raises(InvalidInputError, match="d=0"):
        PROBLEMS["gauss"].sample(3, 0, torch.tensor(0.5), generator())
    with pytest.raises(InvalidInputError, match=r"0\.995"):
        pair_information("square", 0.999)
