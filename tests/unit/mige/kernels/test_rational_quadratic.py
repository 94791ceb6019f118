import pytest
import torch

from mige.errors import InvalidInputError
from mige.kernels import RationalQuadraticKernel, RBFKernel


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5, 0.3])
def test_the_formula_holds_at_whole_half_and_other_alphas(alpha):
    squared = torch.rand(3, 4, dtype=torch.float64) * 20.0
    expected = (1.0 + squared / (2.0 * alpha * 1.7**2)) ** -alpha
    kernel = RationalQuadraticKernel(1.7, alpha=alpha)
    torch.testing.assert_close(kernel.gram_of(squared), expected)


def test_a_large_alpha_is_the_gaussian_kernel():
    squared = torch.rand(3, 4, dtype=torch.float64) * 20.0
    torch.testing.assert_close(
        RationalQuadraticKernel(1.7, alpha=1e7).gram_of(squared),
        RBFKernel(1.7).gram_of(squared),
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("alpha", [0.5, 0.7, 1.0])
def test_the_slope_from_the_gram_matrix_is_that_from_distances(alpha):
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    kernel = RationalQuadraticKernel(1.7, alpha=alpha)
    total = kernel.grad_x_sum(x, y, kernel.gram(x, y))
    torch.testing.assert_close(total, kernel.grad_x(x, y).sum(0))


def test_an_alpha_that_is_not_positive_is_refused():
    with pytest.raises(InvalidInputError, match=r"alpha=0\.0"):
        RationalQuadraticKernel(1.0, alpha=0.0)
