"""The networks inside bounds."""

import pytest
import torch

from mige.bounds.critics import CRITICS, make_critic, mlp, off_diagonal, partners, score_pairs
from mige.bounds.densities import GaussianConditional, GaussianMixture
from mige.errors import InvalidInputError

CASES = {
    "bilinear": lambda: make_critic("bilinear", 3, 5),
    "separable": lambda: make_critic("separable", 3, 5, (16, 8)),
    "concat": lambda: make_critic("concat", 3, 5, (16, 16)),
    "conditional": lambda: GaussianConditional(3, 5, hidden=(16,)),
}


def make(name):
    critic = CASES[name]().double()
    for parameter in critic.parameters():  # a bilinear critic starts at zero
        torch.nn.init.normal_(parameter, std=0.5)
    return critic


def test_every_critic_is_tested_here():
    assert CRITICS.keys() < CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_all_combinations_agree_with_pairs_one_by_one(name):
    critic = make(name)
    x, z = torch.randn(7, 3).double(), 50.0 + torch.randn(4, 5).double()
    scores = critic.pairwise(x, z)
    assert scores.shape == (7, 4)
    one_by_one = torch.stack([critic(row.expand(4, 3), z) for row in x])
    torch.testing.assert_close(scores, one_by_one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_their_gradients_agree_as_well(name):
    critic = make(name)
    x, z = torch.randn(6, 3).double(), torch.randn(6, 5).double().requires_grad_()
    (paired,) = torch.autograd.grad(critic(x, z).sum(), z)
    (diagonal,) = torch.autograd.grad(critic.pairwise(x, z).diagonal().sum(), z)
    torch.testing.assert_close(paired, diagonal)


@pytest.mark.parametrize("num_negatives", [None, 1, 3, 5, 6, 9])
def test_false_pairs_are_the_partners_of_each_row_and_never_itself(num_negatives):
    critic = make("separable")
    x, z = torch.randn(7, 3).double(), torch.randn(7, 5).double()
    positives, negatives = score_pairs(critic, x, z, num_negatives)
    others = partners(7, num_negatives, z.device)
    count = 6 if num_negatives is None else min(num_negatives, 6)
    assert others.shape == negatives.shape == (7, count)
    assert all(len({i, *row.tolist()}) == count + 1 for i, row in enumerate(others))
    scores = critic.pairwise(x, z)
    torch.testing.assert_close(positives, scores.diagonal())
    torch.testing.assert_close(negatives, scores.gather(1, others))


@pytest.mark.parametrize("n", [2, 3, 6])
def test_dropping_the_diagonal_keeps_the_order_of_each_row(n):
    matrix = torch.arange(n * n).reshape(n, n)
    expected = [[n * i + j for j in range(n) if j != i] for i in range(n)]
    assert off_diagonal(matrix).tolist() == expected


def test_a_bilinear_critic_starts_without_any_dependence():
    critic = make_critic("bilinear", 3, 5)
    assert (critic.pairwise(torch.randn(4, 3), torch.randn(4, 5)) == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cosine"}, r"critic='cosine' is unknown: .*'separable'"),
        ({"name": "bilinear", "hidden": (8,)}, "no option 'hidden'"),
        ({"name": "concat", "hidden": ()}, r"hidden=\(\) is empty"),
        ({"name": "concat", "hidden": (8, 0)}, r"hidden\[1\]=0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(InvalidInputError, match=message):
        make_critic(dim_x=3, dim_z=5, **options)


def test_a_network_without_hidden_layers_is_linear():
    assert len(mlp(3, (), 2)) == 1


def test_the_conditional_density_is_that_of_torch_distributions():
    density = make("conditional")
    x, z = torch.randn(6, 3).double(), torch.randn(6, 5).double()
    mean, log_std = density._parameters_at(x)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(z).sum(1)
    torch.testing.assert_close(density(x, z), expected)


def test_all_combinations_keep_their_digits_far_from_the_origin():
    density = make("conditional")
    torch.nn.init.constant_(density.network[-1].bias[:5], 3000.0)
    x, z = torch.randn(6, 3), 3000.0 + torch.randn(6, 5)
    exact = density.pairwise(x.double(), z.double())
    torch.testing.assert_close(density.float().pairwise(x, z).double(), exact, rtol=1e-3, atol=0.02)


def test_the_conditional_density_cannot_become_infinitely_narrow():
    density = make("conditional")
    torch.nn.init.constant_(density.network[-1].bias, -1e4)
    x, z = torch.randn(6, 3).double(), torch.randn(6, 5).double()
    assert torch.isfinite(density(x, z)).all()


def test_the_mixture_density_is_that_of_torch_distributions():
    mixture = GaussianMixture(5, components=3).double()
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter)
    distributions = torch.distributions
    expected = distributions.MixtureSameFamily(
        distributions.Categorical(logits=mixture.logits),
        distributions.Independent(distributions.Normal(mixture.means, mixture.log_stds.exp()), 1),
    )
    z = torch.randn(6, 5).double()
    torch.testing.assert_close(mixture(z), expected.log_prob(z))
