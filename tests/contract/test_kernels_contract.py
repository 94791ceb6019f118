"""What every kernel promises."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mige.kernels import KERNELS, Kernel, squared_distances


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.fixture(params=list(KERNELS))
def kernel(request):
    return KERNELS[request.param](1.7)


@pytest.fixture
def x():
    return torch.randn(7, 3, dtype=torch.float64)


@pytest.fixture
def y():
    return torch.randn(5, 3, dtype=torch.float64)


class TestKernel:
    def test_is_a_kernel(self, kernel):
        assert isinstance(kernel, Kernel)

    def test_is_one_at_distance_zero_and_symmetric(self, kernel, x):
        gram = kernel.gram(x, x)
        assert (gram.diagonal() == 1.0).all()
        torch.testing.assert_close(gram, gram.T)

    def test_is_positive_definite(self, kernel, x):
        assert torch.linalg.eigvalsh(kernel.gram(x, x)).min() > 0

    def test_falls_with_distance(self, kernel):
        squared = torch.linspace(0.0, 30.0, 50)[None, :]
        assert (kernel.gram_of(squared).diff() < 0).all()

    def test_gram_of_squared_distances_is_the_gram_matrix(self, kernel, x, y):
        torch.testing.assert_close(kernel.gram_of(squared_distances(x, y)), kernel.gram(x, y))

    def test_grad_x_matches_autograd(self, kernel, x, y):
        jacobian = torch.func.jacrev(lambda x: kernel.gram(x, y))(x)  # (7, 5, 7, 3)
        torch.testing.assert_close(kernel.grad_x(x, y), jacobian[range(7), :, range(7), :])

    def test_grad_x_sum_is_the_sum_of_grad_x(self, kernel, x, y):
        total = kernel.grad_x_sum(x, y, kernel.gram(x, y))
        torch.testing.assert_close(total, kernel.grad_x(x, y).sum(0))

    def test_depends_on_distance_over_bandwidth_only(self, kernel, x):
        scaled = type(kernel)(17.0)
        torch.testing.assert_close(scaled.gram(10.0 * x, 10.0 * x), kernel.gram(x, x))

    def test_a_small_bandwidth_gives_the_identity(self, kernel, x):
        torch.testing.assert_close(
            type(kernel)(1e-6).gram(x, x), torch.eye(7).to(x), atol=1e-4, rtol=0
        )

    def test_the_slope_is_minus_twice_the_derivative_in_the_squared_distance(self, kernel):
        squared = torch.linspace(0.1, 30.0, 50, dtype=torch.float64)[None, :].requires_grad_()
        (derivative,) = torch.autograd.grad(kernel.gram_of(squared).sum(), squared)
        torch.testing.assert_close(kernel.slope_of(squared), -2.0 * derivative)

    def test_the_slope_is_finite_at_distance_zero(self, kernel):
        assert 0.0 < kernel.slope_of(torch.zeros(1, 1)).item() < 10.0

    def test_arguments_stay_as_they_are(self, kernel, x, y):
        squared = squared_distances(x, y)
        before = squared.clone()
        kernel.gram_of(squared)
        kernel.slope_of(squared)
        assert torch.equal(squared, before)

    def test_leading_dimensions_are_batches_with_bandwidths_of_their_own(self, kernel):
        x, y = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 5, 4)
        bandwidth = 0.5 + torch.rand(2, 3)
        batched = type(kernel)(bandwidth)
        gram = batched.gram(x, y)
        total = batched.grad_x_sum(x, y, gram)
        for index in ((0, 0), (1, 2)):
            single = type(kernel)(bandwidth[index].item())
            torch.testing.assert_close(gram[index], single.gram(x[index], y[index]))
            torch.testing.assert_close(
                total[index], single.grad_x_sum(x[index], y[index], gram[index])
            )
            torch.testing.assert_close(
                batched.grad_x(x, y)[index], single.grad_x(x[index], y[index])
            )

    def test_no_intermediate_of_the_sum_of_gradients_has_the_width_as_a_third_axis(self, kernel):
        x = torch.randn(40, 60)
        gram = kernel.gram(x, x)
        with LargestTensor() as largest:
            kernel.grad_x_sum(x, x, gram)
        assert largest.numel <= 40 * 62
