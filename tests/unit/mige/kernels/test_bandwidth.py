import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import (
    check_bandwidth,
    choose_bandwidth,
    mean_bandwidth,
    median_bandwidth,
    squared_distances,
)


@pytest.mark.parametrize("num_samples", [2, 3, 4, 7, 12])
def test_the_median_is_the_authors_element_of_all_ordered_pairs(num_samples):
    x = torch.randn(num_samples, 3, dtype=torch.float64)
    squared = squared_distances(x, x)
    descending = squared.sqrt().flatten().sort(descending=True).values
    # The published code: torch.topk(distances, k=n * n // 2)[0][:, -1].
    torch.testing.assert_close(
        median_bandwidth(squared), descending[num_samples**2 // 2 - 1], rtol=1e-13, atol=0
    )


def test_zero_self_distances_count_in_the_median():
    x = torch.tensor([[0.0], [1.0], [3.0]])  # distances 0 0 0 1 1 2 2 3 3, rank 4 from the top: 2
    assert median_bandwidth(squared_distances(x, x)).item() == pytest.approx(2.0)


def test_the_mean_rule_is_twice_the_total_variance():
    x = torch.randn(50, 4, dtype=torch.float64)
    variance = (x - x.mean(0)).square().mean(0).sum()
    torch.testing.assert_close(
        mean_bandwidth(squared_distances(x, x)).square(), 2.0 * variance, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("rule", ["median", "mean", 0.7])
def test_each_batch_gets_a_bandwidth_of_its_own(rule):
    x = torch.randn(3, 2, 9, 4) * torch.tensor([1.0, 10.0])[:, None, None]
    x[1, 1, :8] = x[1, 1, 0]  # falls back
    x[2, 0] = 1.0  # identical samples
    squared = squared_distances(x, x)
    batched = choose_bandwidth(rule, squared, scale=2.0)
    for index in ((0, 0), (0, 1), (1, 1), (2, 0)):
        single = choose_bandwidth(rule, squared[index], scale=2.0)
        torch.testing.assert_close(batched.value[index], single.value)
        assert batched.fell_back[index] == single.fell_back
        assert batched.degenerate[index] == single.degenerate
    assert batched.degenerate.sum() == 1


def test_a_rule_is_scaled_and_a_fixed_number_is_not():
    x = torch.randn(10, 2)
    squared = squared_distances(x, x)
    rule = choose_bandwidth("median", squared, scale=3.0)
    assert rule.value == 3.0 * median_bandwidth(squared)
    assert choose_bandwidth(0.5, squared, scale=3.0).value == 0.5


def test_a_median_of_zero_falls_back_to_the_mean_nonzero_distance():
    x = torch.tensor([[0.0], [0.0], [0.0], [0.0], [0.0], [3.0]])
    bandwidth = choose_bandwidth("median", squared_distances(x, x))
    assert bandwidth.value.item() == pytest.approx(3.0)
    assert bandwidth.fell_back
    assert not bandwidth.degenerate


def test_identical_samples_are_reported_and_get_a_harmless_bandwidth():
    bandwidth = choose_bandwidth("median", torch.zeros(4, 4))
    assert bandwidth.degenerate
    assert bandwidth.value == 1.0
    assert not bandwidth.fell_back


@pytest.mark.parametrize("rule", ["silverman", 0.0, -2.0, float("nan")])
def test_an_unknown_rule_or_number_is_refused(rule):
    with pytest.raises(InvalidInputError, match="bandwidth="):
        check_bandwidth(rule)
