import pytest
import torch

from mige import InvalidInputError, MigeInfomax, NumericalError, make_score_estimator
from mige.drift import DIAGNOSTICS, match_moments
from mige.mutual_information import mutual_information_surrogate

SPECTRAL = make_score_estimator("spectral")


def joint(**changes):
    options = {
        "route": "joint",
        "estimator": SPECTRAL,
        "input_dim": 8,
        "embedding_dim": 3,
        "projection_dim": 6,
    }
    return MigeInfomax(**{**options, **changes})


def conditional(**changes):
    options = {
        "route": "conditional",
        "estimator": make_score_estimator(),
        "input_dim": 8,
        "embedding_dim": 3,
        "noise_std": 0.5,
    }
    return MigeInfomax(**{**options, **changes})


def test_the_joint_route_is_the_surrogate_of_the_projected_images():
    objective = joint().double()
    x, z = torch.rand(40, 2, 2, 2).double(), torch.randn(40, 3).double().requires_grad_()
    (ours,) = torch.autograd.grad(objective(x, z).loss, z)
    projected = x.flatten(1) @ objective.projection
    surrogate = mutual_information_surrogate(projected, z, SPECTRAL)
    (theirs,) = torch.autograd.grad(-surrogate, z)
    torch.testing.assert_close(ours, theirs)


def test_minimising_the_loss_raises_the_information_of_a_channel():
    # z = a x + noise: more signal is more information, so the loss falls with a.
    x, noise = torch.randn(256, 8), torch.randn(256, 3)
    for objective in (joint(estimator=make_score_estimator()), conditional(noise_std=1.0)):
        a = torch.tensor(1.0, requires_grad=True)
        objective(x, a * x[:, :3] + 0.3 * noise).loss.backward()
        assert a.grad < -0.1


def test_the_conditional_route_knows_a_gaussian_channels_gradient():
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.randn(512, 8, dtype=torch.float64)
    conditional().double()(x, a * x[:, :3]).loss.backward()
    truth = 3 * 2.0 / (0.5**2 + 2.0**2)
    assert -a.grad.item() == pytest.approx(truth, rel=0.15)


def test_noise_is_drawn_from_torchs_generator():
    objective = conditional()
    x, z = torch.rand(20, 8), torch.randn(20, 3)
    torch.manual_seed(5)
    one = objective(x, z).loss
    assert objective(x, z).loss != one
    torch.manual_seed(5)
    assert objective(x, z).loss == one


def test_the_projection_comes_from_its_seed_and_travels_with_checkpoints():
    assert torch.equal(joint().projection, joint().projection)
    assert not torch.equal(joint().projection, joint(projection_seed=1).projection)
    restored = joint(projection_seed=1)
    restored.load_state_dict(joint().state_dict())
    assert torch.equal(restored.projection, joint().projection)


def test_the_normalizer_comes_before_the_information():
    x, z = torch.rand(40, 8), torch.randn(40, 3)
    objective = joint(normalize="sphere")
    torch.testing.assert_close(objective(x, 7.0 * z).loss, objective(x, z).loss)


def test_info_tells_scale_rank_and_kernel():
    z = torch.randn(64, 3) * torch.tensor([1.0, 1.0, 0.0])
    info = joint()(torch.rand(64, 8), z).info
    assert info["sample_size"] == 64
    assert info["z_std"] == pytest.approx(2 / 3, abs=0.15)
    assert info["z_effective_rank"] == pytest.approx(2.0, abs=0.15)
    assert info["num_constant"] == 1.0
    assert {"bandwidth", "num_kept", "kept_share", "joint_bandwidth"} <= info.keys()


def test_info_tells_dead_and_saturated_features_and_how_far_the_identities_are_off():
    z = torch.randn(64, 3)
    z[:, 0], z[:, 1] = torch.tanh(40 * z[:, 0]), 0.0
    info = joint()(torch.rand(64, 8), z).info
    assert (info["z_num_dead"], info["z_num_saturated"]) == (1.0, 1.0)
    z = torch.randn(64, 3)
    info = conditional()(torch.rand(64, 8), z).info
    assert info["stein_mean"] < 1e-4  # this estimator is exact for linear functions
    assert info["stein_linear"] < 1e-4


def test_a_bank_enlarges_the_sample_and_leaves_the_batch_to_feel_the_gradient():
    objective = joint(estimator=make_score_estimator(), bank_size=100)
    for expected in (32, 64, 96, 128, 132):
        z = torch.randn(32, 3, requires_grad=True)
        output = objective(torch.rand(32, 8), z)
        assert output.info["sample_size"] == expected
    output.loss.backward()
    assert z.grad.shape == (32, 3)
    torch.testing.assert_close(z.grad.sum(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert set(DIAGNOSTICS) <= output.info.keys()
    assert DIAGNOSTICS[0] not in joint()(torch.rand(32, 8), z).info


def test_a_banks_gradient_is_that_of_the_whole_sample_at_the_batchs_rows():
    estimator = make_score_estimator()
    objective = joint(estimator=estimator, bank_size=64).double()
    old_x, x = torch.rand(2, 64, 8).double()
    old_z, z = torch.randn(2, 64, 3).double()
    objective(old_x, old_z)
    past = torch.cat([old_x @ objective.projection, old_z], 1)
    now = torch.cat([x @ objective.projection, z], 1)
    ages = torch.arange(2).repeat_interleave(64)
    rows = match_moments(torch.cat([now, past]), ages, num_current=64, num_fixed=6).rows
    expected = estimator.information_gradient(rows[:, :6], rows[:, 6:]).z[:64]
    objective(x, z.requires_grad_()).loss.backward()
    torch.testing.assert_close(z.grad, -(expected - expected.mean(0)) / 64)


def test_a_refused_batch_is_not_stored():
    objective = conditional(bank_size=50)
    with pytest.raises(NumericalError):
        objective(torch.rand(16, 8), torch.full((16, 3), torch.nan))
    assert len(objective.bank) == 0


def test_a_worker_without_rows_that_estimates_alone_adds_no_gradient():
    z = torch.zeros(0, 3, requires_grad=True)
    joint(gather="local")(torch.rand(0, 8), z).loss.backward()
    assert z.grad.shape == (0, 3)


def test_collapsed_embeddings_give_no_gradient_and_say_so():
    z = torch.ones(16, 3, requires_grad=True)
    output = joint()(torch.rand(16, 8), z)
    output.loss.backward()
    assert (z.grad == 0).all()
    assert output.info["degenerate"] == 1.0
    assert output.info["z_effective_rank"] == 0.0


def test_embeddings_that_are_not_finite_are_refused():
    z = torch.randn(16, 3)
    z[3, 1] = torch.nan
    with pytest.raises(NumericalError, match="NaN or infinite"):
        joint()(torch.rand(16, 8), z)


@pytest.mark.parametrize(
    ("name", "projection_dim", "expected"),
    [
        ("spectral", 32, 2),
        ("gaussian_residual", 32, 24),
        ("gaussian_residual", None, 8),
    ],
)
def test_the_required_batch_follows_the_estimator_and_the_widths(name, projection_dim, expected):
    required = MigeInfomax.required_batch_size(
        estimator=make_score_estimator(name), embedding_dim=16, projection_dim=projection_dim
    )
    assert required == expected


@pytest.mark.parametrize(
    ("build", "changes", "message"),
    [
        (joint, {"route": "both"}, "route='both' is unknown"),
        (joint, {"gather": "none"}, "gather='none' is unknown"),
        (joint, {"normalize": "layer"}, "normalize='layer' is unknown"),
        (joint, {"projection_dim": None}, "projection_dim=None with route='joint'"),
        (joint, {"projection_dim": 0}, "dim_out=0"),
        (joint, {"noise_std": -1.0}, "noise_std=-1.0"),
        (joint, {"embedding_dim": 0}, "embedding_dim=0"),
        (conditional, {"projection_dim": 4}, "projection_dim=4 with route='conditional'"),
        (joint, {"bank_size": -1}, "bank_size=-1"),
        (joint, {"bank_size": 8, "gather": "local"}, "bank_size=8 with gather='local'"),
        (conditional, {"noise_std": 0.0}, "noise_std=0 with route='conditional'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(build, changes, message):
    with pytest.raises(InvalidInputError, match=message):
        build(**changes)


@pytest.mark.parametrize(("x", "z"), [((4, 9), (4, 3)), ((4, 8), (4, 2)), ((4, 8), (5, 3))])
def test_shapes_that_do_not_fit_are_refused(x, z):
    with pytest.raises(InvalidInputError, match="input_dim"):
        joint()(torch.rand(x), torch.rand(z))
