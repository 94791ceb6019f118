"""The entropy gradient of a network: its determinant, its truth, and the floor."""

import pytest
import torch

from mige.calibration import NETWORKS, NetworkEntropy
from mige.errors import InvalidInputError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_log_determinant_is_that_of_the_jacobian(name):
    problem = NETWORKS[name]
    parameter, rows = problem.parameter(5), problem.inputs(7, 5, generator())
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: problem.embed(row[None], parameter)[0])
    )(rows)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(problem.log_det(rows, parameter), expected)


def exact_score(problem, rows, parameter):
    """∇_z log q = J⁻ᵀ (∇_w log p − ∇_w log|det J|), by the change of variables, for Gaussian w."""
    leaf = rows.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem.log_det(leaf, parameter).sum(), leaf)
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: problem.embed(row[None], parameter)[0])
    )(rows)
    return torch.linalg.solve(jacobian.mT, (-rows - slope)[..., None])[..., 0]


def test_exact_scores_lead_to_the_truth():
    problem = NETWORKS["network"]
    rows = problem.inputs(50_000, 2, generator(), reflected=True)
    parameter = problem.parameter(2).requires_grad_()
    score = exact_score(problem, rows, parameter.detach())
    surrogate = -(score * problem.embed(rows, parameter)).sum(-1).mean()
    (estimate,) = torch.autograd.grad(surrogate, parameter)
    truth = problem.truth(2)
    # Scores bring scatter of their own: measured .008 ± .003 over 8 seeds.
    assert float((estimate - truth).norm() / truth.norm()) < 0.03


@pytest.mark.parametrize("name", NETWORKS)
def test_the_truth_is_the_limit_of_the_floor(name):
    problem = NETWORKS[name]
    truth = problem.truth(4)
    errors = [
        float((problem.from_inputs(problem.inputs(n, 4, generator(5))) - truth).norm())
        for n in (64, 16_384)
    ]
    assert errors[1] / float(truth.norm()) < 0.02
    assert errors[0] > 4 * errors[1]  # 1/√n would be 16


def test_the_last_bias_moves_no_entropy_and_the_weights_do():
    truth = NETWORKS["network"].truth(3)
    assert truth.shape == (3 * 3 * 3 + 3 * 3,)
    assert truth[-3:].abs().max() == 0
    assert truth[:27].reshape(3, 9).norm(dim=1).min() > 0.5


def test_asking_for_the_truth_again_cannot_spoil_it():
    problem = NETWORKS["network"]
    problem.truth(3).zero_()
    assert problem.truth(3).norm() > 1


def test_clusters_are_ten_narrow_ones_and_the_same_each_time():
    problem = NETWORKS["clustered_network"]
    rows = torch.cat([problem.inputs(500, 6, generator(seed)) for seed in (0, 1)])
    squared = torch.cdist(rows, rows).square() / (2 * 6 * 0.33**2)
    neighbours = (squared < 3.0).double().mean(1)  # of the same cluster, about a tenth of all
    assert float(neighbours.mean()) == pytest.approx(0.1, abs=0.05)
    assert float(rows.var(0).sum()) > 2  # of 6: the centres are far apart


def test_reflected_rows_are_mirror_images_in_their_centres():
    for problem in NETWORKS.values():
        rows = problem.inputs(8, 3, generator(), reflected=True)
        middle = (rows[:4] + rows[4:]) / 2
        if problem.source == "gauss":
            assert middle.abs().max() == 0
        else:
            assert middle.norm(dim=1).min() > 0.1
            assert (rows[:4] - rows[4:]).norm(dim=1).min() > 0.1


def test_weights_centres_and_samples_of_one_seed_have_nothing_in_common():
    seed = 3
    problem = NetworkEntropy(source="clusters", network=seed)
    weights = problem.parameter(10)[:100]
    assert (problem.inputs(10, 10, generator(seed)).flatten() - weights).abs().min() > 1e-6
    assert NetworkEntropy(network=4).parameter(3)[0] != NetworkEntropy(network=5).parameter(3)[0]


def test_a_batch_of_parameters_is_a_batch_of_networks():
    problem = NETWORKS["network"]
    parameters = torch.stack([problem.parameter(3), NetworkEntropy(network=7).parameter(3)])
    rows = problem.inputs(5, 3, generator()).expand(2, 5, 3)
    z = problem.embed(rows, parameters)
    torch.testing.assert_close(z[1], problem.embed(rows[1], parameters[1]))
    torch.testing.assert_close(
        problem.log_det(rows, parameters)[0], problem.log_det(rows[0], parameters[0])
    )


def test_bad_arguments_of_a_network_are_named():
    with pytest.raises(InvalidInputError, match="source='uniform'"):
        NetworkEntropy(source="uniform")
    with pytest.raises(InvalidInputError, match="d=0"):
        NETWORKS["network"].parameter(0)
    with pytest.raises(InvalidInputError, match="n=0"):
        NETWORKS["network"].inputs(0, 2, generator())
