"""What every objective promises."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mige import make_score_estimator
from mige.objectives import OBJECTIVES, Objective, ObjectiveOutput

# One small instance of each; a new objective adds its line.
INSTANCES = {
    "mige_infomax": lambda: OBJECTIVES["mige_infomax"](
        route="joint",
        estimator=make_score_estimator("spectral"),
        input_dim=12,
        embedding_dim=3,
        projection_dim=6,
    ),
    "mige_infomax with a bank": lambda: OBJECTIVES["mige_infomax"](
        route="joint",
        estimator=make_score_estimator(),
        input_dim=12,
        embedding_dim=3,
        projection_dim=6,
        bank_size=64,
    ),
}


def batch(n=32):
    return torch.rand(n, 3, 2, 2), torch.randn(n, 3, requires_grad=True)


def test_every_objective_has_an_instance_here():
    assert {name.split(" ")[0] for name in INSTANCES} == OBJECTIVES.keys()


@pytest.fixture(params=list(INSTANCES))
def make(request):
    return INSTANCES[request.param]


@pytest.fixture
def objective(make):
    return make()


class TestObjective:
    def test_is_an_objective_with_a_normalizer(self, objective):
        assert isinstance(objective, Objective)
        assert objective.normalizer(torch.randn(4, 3)).shape == (4, 3)

    def test_gives_a_scalar_loss_whose_gradient_reaches_the_encoder(self, objective):
        x, z = batch()
        output = objective(x, z)
        assert isinstance(output, ObjectiveOutput)
        output.loss.backward()
        assert torch.isfinite(z.grad).all()
        assert z.grad.abs().max() > 0

    def test_info_is_detached_finite_scalars(self, objective):
        info = objective(*batch()).info
        assert "sample_size" in info
        for name, value in info.items():
            assert value.shape == (), name
            assert not value.requires_grad, name
            assert torch.isfinite(value), name

    def test_half_precision_outputs_of_the_encoder_are_accepted(self, objective):
        x, z = batch()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = objective(x, z.to(torch.bfloat16))
        assert output.loss.dtype == torch.float32

    def test_a_checkpoint_carries_everything_but_noise(self, make):
        objective, other = make(), make()
        objective(*batch())
        other.load_state_dict(objective.state_dict())
        x, z = batch()
        torch.manual_seed(1)
        loss = objective(x, z).loss
        torch.manual_seed(1)
        torch.testing.assert_close(other(x, z).loss, loss)

    def test_nothing_waits_for_a_device(self, make):
        with FakeTensorMode():  # asking a fake tensor for a value raises
            objective = make().to("cuda")
            for _ in range(3):
                x, z = torch.rand(32, 3, 2, 2, device="cuda"), torch.randn(32, 3, device="cuda")
                output = objective(x, z)
            assert output.loss.device.type == "cuda"
            assert all(value.device.type == "cuda" for value in output.info.values())
