"""What every kernel promises."""

import pytest
import torch

from mige.kernels import KERNELS, Kernel, squared_distances


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
            type(kernel)(1e-3).gram(x, x), torch.eye(7).to(x), atol=1e-3, rtol=0
        )
