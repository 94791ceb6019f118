import math

import pytest
import torch

from mige import (
    InvalidInputError,
    conditional_mutual_information_surrogate,
    make_score_estimator,
    mutual_information_surrogate,
)
from mige.mutual_information import information_gradient

ESTIMATORS = ["gaussian_residual", "spectral"]


def gaussian_pair(rho, n=256, d=4):
    x, noise = torch.randn(2, n, d, dtype=torch.float64)
    return x, rho * x + torch.sqrt(1 - rho**2) * noise


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("rho", [-0.7, 0.4, 0.8])
def test_the_gradient_for_a_gaussian_pair_is_d_rho_over_one_minus_rho_squared(name, rho):
    # 20 seeds, relative error: spectral −4 ± 3…9 %, gaussian_residual ±1 ± 3…8 %, worst 18 %; 25 %
    # still catches a sign, a factor of two, swapped arguments.
    correlation = torch.tensor(rho, dtype=torch.float64, requires_grad=True)
    mutual_information_surrogate(*gaussian_pair(correlation), make_score_estimator(name)).backward()
    assert correlation.grad.item() == pytest.approx(4 * rho / (1 - rho**2), rel=0.25)


def test_the_gradient_in_x_counts_where_x_requires_it():
    # I(u; a u + e): dI/da = d a / (1 + a²). Scaling x alone changes nothing: I(a u; ·) = I(u; ·).
    # 20 seeds: 1.44…1.60 for the truth 1.5.
    u, e = torch.randn(2, 400, 3, dtype=torch.float64)

    def gradient(through_x, through_y):
        a = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        x = a * u if through_x else u
        y = (a if through_y else a.detach()) * u + e
        mutual_information_surrogate(x, y, make_score_estimator()).backward()
        return a.grad.item()

    truth = 3 * 1.0 / 2.0
    assert gradient(through_x=False, through_y=True) == pytest.approx(truth, rel=0.2)
    assert gradient(through_x=True, through_y=True) == pytest.approx(truth, rel=0.2)
    assert gradient(through_x=True, through_y=False) == pytest.approx(0.0, abs=0.1)


def test_the_roles_of_x_and_z_can_be_exchanged():
    x, z = torch.randn(2, 64, 3, dtype=torch.float64)
    z = z + x
    estimator = make_score_estimator()
    forth = information_gradient(x, z, estimator, wrt_x=True)
    back = information_gradient(z, x, estimator, wrt_x=True)
    torch.testing.assert_close(forth.x, back.z)
    torch.testing.assert_close(forth.z, back.x)


def test_the_diagnostics_of_both_terms_are_told_apart():
    x, z = torch.randn(2, 64, 3, dtype=torch.float64)
    diagnostics = information_gradient(x, z, make_score_estimator("spectral")).diagnostics
    assert diagnostics["joint_bandwidth"] > diagnostics["bandwidth"] > 0


def test_a_float32_embedding_may_meet_float64_data():
    x, z = torch.randn(64, 3, dtype=torch.float64), torch.randn(64, 2, requires_grad=True)
    mutual_information_surrogate(x, z, make_score_estimator()).backward()
    assert z.grad.dtype == torch.float32


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("signal", [0.5, 2.0])
def test_the_conditional_route_finds_the_gradient_of_a_gaussian_channel(name, signal):
    # z = θ x + σ ε: I = d/2 ln(1 + θ²/σ²). 20 seeds: −4…+1 % ± 1…3 %, worst 8 %.
    d, std = 4, 0.8
    theta = torch.tensor(signal, dtype=torch.float64, requires_grad=True)
    x, noise = torch.randn(2, 512, d, dtype=torch.float64)
    z = theta * x + std * noise
    surrogate = conditional_mutual_information_surrogate(
        z, torch.tensor(std).double(), make_score_estimator(name)
    )
    surrogate.backward()
    truth = d * signal / (std**2 + signal**2)
    assert theta.grad.item() == pytest.approx(truth, rel=0.25)


def test_the_conditional_route_feels_a_learnt_standard_deviation():
    d = 3
    log_std = torch.tensor(math.log(0.5), dtype=torch.float64, requires_grad=True)
    x, noise = torch.randn(2, 800, d, dtype=torch.float64)
    std = log_std.exp().expand(800, d)
    surrogate = conditional_mutual_information_surrogate(
        x + std * noise, std, make_score_estimator()
    )
    surrogate.backward()
    # I = d/2 ln(1 + 1/σ²), dI/d log σ = −d / (1 + σ²); 20 seeds: worst 2.2 %.
    assert log_std.grad.item() == pytest.approx(-d / 1.25, rel=0.1)


def test_rows_that_do_not_pair_are_refused():
    with pytest.raises(InvalidInputError, match=r"x has shape \(5, 2\) and z \(6, 2\)"):
        mutual_information_surrogate(torch.randn(5, 2), torch.randn(6, 2), make_score_estimator())


@pytest.mark.parametrize("std", [torch.zeros(3), torch.tensor(-1.0), torch.ones(7, 7)])
def test_a_standard_deviation_must_be_positive_and_fit(std):
    with pytest.raises(InvalidInputError, match="std"):
        conditional_mutual_information_surrogate(torch.randn(8, 3), std, make_score_estimator())
