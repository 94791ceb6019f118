"""MINE's running mean."""

import pytest
import torch

from mige.bounds import make_bound


def make(**options):
    torch.manual_seed(3)
    return make_bound(
        "mine", 2, 2, critic="separable", hidden=(8, 4), num_negatives=None, **options
    )


def batches(count=4):
    return [torch.randn(2, 16, 2) for _ in range(count)]


def gradients(bound, x, z, *, mean=None):
    """Of −E_p[f] + E_q[e^f]/m, written out; m None is the batch's own mean."""
    scores = bound.critic.pairwise(x, z)
    others = scores[~torch.eye(len(x), dtype=torch.bool)].exp()
    denominator = others.mean().detach() if mean is None else mean
    objective = -scores.diagonal().mean() + others.mean() / denominator
    return torch.autograd.grad(objective, list(bound.parameters())), others.mean().detach()


def test_the_gradient_has_the_running_mean_in_its_denominator():
    bound = make(rate=0.25)
    running = None
    for x, z in batches():
        _, mean = gradients(bound, x, z)
        running = mean if running is None else 0.75 * running + 0.25 * mean
        expected, _ = gradients(bound, x, z, mean=running)
        got = torch.autograd.grad(bound.loss(x, z), list(bound.parameters()))
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(bound.log_mean.exp(), running)


def test_the_losss_value_is_minus_the_bound():
    bound = make()
    for x, z in batches():
        torch.testing.assert_close(bound.loss(x, z), -bound.value(x, z))


def test_a_rate_of_one_is_donsker_varadhan():
    bound, plain = make(rate=1.0), make_bound("dv", 2, 2, hidden=(8, 4))
    plain.load_state_dict(bound.state_dict() | {}, strict=False)
    for x, z in batches():
        got = torch.autograd.grad(bound.loss(x, z), list(bound.parameters()))
        expected = torch.autograd.grad(plain.loss(x, z), list(plain.parameters()))
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_only_training_moves_the_average():
    bound = make()
    (first, second) = batches(2)
    bound.loss(*first)
    before = bound.log_mean.clone()
    bound.eval()
    bound.loss(*second)
    bound.value(*second)
    assert torch.equal(bound.log_mean, before)
    bound.train()
    bound.loss(*second)
    assert not torch.equal(bound.log_mean, before)


def test_the_average_is_part_of_the_state():
    bound, other = make(), make()
    (first, second) = batches(2)
    bound.loss(*first)
    other.load_state_dict(bound.state_dict())
    assert torch.equal(other.log_mean, bound.log_mean)
    assert torch.equal(other.loss(*second), bound.loss(*second))


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_huge_scores_do_not_overflow_the_average(scale):
    bound = make()
    x, z = batches(1)[0]
    bound.loss(scale * x, scale * z)
    assert torch.isfinite(bound.log_mean)
