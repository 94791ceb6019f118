import math

import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import RBFKernel


def test_gram_is_exp_of_minus_half_the_squared_distance_over_the_squared_bandwidth():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    gram = RBFKernel(2.0).gram(x, x)
    expected = math.exp(-25.0 / 8.0)
    torch.testing.assert_close(gram, torch.tensor([[1.0, expected], [expected, 1.0]]).to(gram))


def test_a_bandwidth_may_be_a_tensor_of_a_rule():
    x = torch.randn(4, 2)
    torch.testing.assert_close(RBFKernel(torch.tensor(0.7)).gram(x, x), RBFKernel(0.7).gram(x, x))


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_that_is_not_finite_and_positive_is_refused(bandwidth):
    with pytest.raises(InvalidInputError, match="bandwidth="):
        RBFKernel(bandwidth)
