"""Training of bounds, alone and together."""

import pickle

import pytest
import torch

from mige.bounds import BoundEnsemble, fit_bound, make_bound, minibatches
from mige.errors import InvalidInputError, NumericalError


def make(name="infonce", **options):
    return make_bound(name, 2, 2, **({"hidden": (8, 4)} | options))


def pairs(*shape):
    x = torch.randn(*shape, 2)
    return x, x + 0.3 * torch.randn(*shape, 2)


def test_the_history_starts_with_the_loss_before_training():
    bound, (x, z) = make(), pairs(20)
    before = bound.loss(x, z).detach()
    losses = fit_bound(bound, lambda: (x, z), steps=10, learning_rate=1e-2)
    assert losses.shape == (10,)
    assert losses[0] == before
    assert bound.loss(x, z) < before
    assert not losses.requires_grad


def test_the_training_mode_is_left_as_it_was():
    bound, (x, z) = make().eval(), pairs(20)
    fit_bound(bound, lambda: (x, z), steps=1)
    assert not bound.training
    ensemble = BoundEnsemble([make("mine"), make("mine")]).eval()
    fit_bound(ensemble, lambda: pairs(2, 20), steps=1)
    assert not ensemble.training
    state = pickle.dumps(ensemble.state_dict())
    ensemble.loss(*pairs(2, 20))  # in evaluation mode the running mean stands still
    assert pickle.dumps(ensemble.state_dict()) == state


def test_a_bound_without_parameters_has_nothing_to_fit():
    assert len(fit_bound(make_bound("ksg", 2, 2), lambda: pairs(20), steps=5)) == 0


def test_a_loss_that_is_not_finite_is_an_error():
    x, z = pairs(20)
    with pytest.raises(NumericalError, match="loss holds"):
        fit_bound(make(), lambda: (x, z * torch.nan), steps=3)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 5, "learning_rate": 0.0}])
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(InvalidInputError, match=f"{list(options)[-1]}="):
        fit_bound(make(), lambda: pairs(20), **options)


def test_minibatches_are_different_pairs_of_the_sample():
    x = torch.arange(10.0)[:, None]
    sampler = minibatches(x, -x, batch_size=4, generator=torch.Generator().manual_seed(0))
    seen = set()
    for _ in range(20):
        rows_x, rows_z = sampler()
        assert torch.equal(rows_z, -rows_x)
        assert len(set(rows_x.flatten().tolist())) == 4
        seen |= set(rows_x.flatten().tolist())
    assert seen == set(range(10))


def test_minibatches_of_an_ensemble_take_the_same_rows_of_every_member():
    x, z = pairs(3, 10)
    sampler = minibatches(x, z, batch_size=10, generator=torch.Generator().manual_seed(0))
    rows_x, rows_z = sampler()
    assert rows_x.shape == (3, 10, 2)
    torch.testing.assert_close((rows_z - rows_x).sum(1), (z - x).sum(1))


@pytest.mark.parametrize("batch_size", [0, 1, 11])
def test_a_batch_size_out_of_range_is_refused(batch_size):
    with pytest.raises(InvalidInputError, match=f"batch_size={batch_size}"):
        minibatches(*pairs(10), batch_size=batch_size, generator=torch.Generator())


class TestBoundEnsemble:
    def test_copies_its_members(self):
        members = [make(), make()]
        before = pickle.dumps([member.state_dict() for member in members])
        fit_bound(BoundEnsemble(members), lambda: pairs(2, 20), steps=3, learning_rate=0.1)
        assert pickle.dumps([member.state_dict() for member in members]) == before

    def test_keeps_its_members_apart(self):
        ensemble = BoundEnsemble([make(), make()])
        x, z = pairs(2, 20)
        first = ensemble.value(x, z)
        x[1] += 1.0
        second = ensemble.value(x, z)
        assert second[0] == first[0]
        assert second[1] != first[1]

    def test_survives_pickling(self):
        ensemble = BoundEnsemble([make("mine"), make("mine")])
        fit_bound(ensemble, lambda: pairs(2, 20), steps=2)
        x, z = pairs(2, 20)
        copy = pickle.loads(pickle.dumps(ensemble))
        assert torch.equal(copy.value(x, z), ensemble.value(x, z))
        assert torch.equal(copy.loss(x, z), ensemble.loss(x, z))

    def test_moves_to_float64(self):
        ensemble = BoundEnsemble([make(), make()]).double()
        x, z = pairs(2, 20)
        assert ensemble.value(x, z).dtype == torch.float64

    @pytest.mark.parametrize("bounds", [[], [make(), make("dv")]])
    def test_refuses_members_that_are_not_alike(self, bounds):
        with pytest.raises(InvalidInputError, match="at least one, all alike"):
            BoundEnsemble(bounds)

    def test_refuses_bounds_without_parameters(self):
        with pytest.raises(InvalidInputError, match="KSG has no parameters to stack"):
            BoundEnsemble([make_bound("ksg", 2, 2)])

    def test_refuses_samples_for_another_number_of_members(self):
        ensemble = BoundEnsemble([make(), make()])
        with pytest.raises(InvalidInputError, match=r"x has shape \(3, 20, 2\): give \(2, n"):
            ensemble.value(*pairs(3, 20))
        with pytest.raises(InvalidInputError, match="x has shape"):
            ensemble.value(*pairs(20))
