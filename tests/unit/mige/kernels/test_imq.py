import torch

from mige.kernels import IMQKernel, RationalQuadraticKernel


def test_the_convention_is_one_over_the_root_of_one_plus_squared_over_twice_sigma_squared():
    squared = torch.tensor([[0.0, 24.0]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(IMQKernel(2.0).gram_of(squared), expected)


def test_it_is_the_rational_quadratic_kernel_of_alpha_one_half_with_root_two_bandwidth():
    squared = torch.rand(4, 5, dtype=torch.float64) * 9.0
    imq, other = IMQKernel(1.3), RationalQuadraticKernel(1.3 * 2.0**0.5, alpha=0.5)
    for method in ("gram_of", "slope_of"):
        torch.testing.assert_close(getattr(imq, method)(squared), getattr(other, method)(squared))
    for method in ("curvature_of", "curvature_change_of"):  # times σ²
        doubled = 2.0 * getattr(imq, method)(squared)
        torch.testing.assert_close(doubled, getattr(other, method)(squared))
