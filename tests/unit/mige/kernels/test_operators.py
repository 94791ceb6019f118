import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mige.kernels import (
    CURL_FREE_KERNELS,
    KERNELS,
    CurlFreeOperator,
    DiagonalOperator,
    squared_distances,
)

OPERATORS = [
    *((DiagonalOperator, KERNELS[name]) for name in KERNELS),
    *((CurlFreeOperator, kernel) for kernel in CURL_FREE_KERNELS.values()),
]


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def block(operator, kernel, a, b):
    """Γ(a, b) by autograd, d x d."""
    value = lambda a, b: kernel.gram(a[None], b[None]).squeeze()  # noqa: E731
    if operator is DiagonalOperator:
        return value(a, b) * torch.eye(len(a)).to(a)
    return kernel.bandwidth**2 * torch.func.jacrev(torch.func.jacrev(value, 1), 0)(a, b)


def dense(operator, kernel, x, y):
    """Γ as a matrix of m·d rows and n·d columns."""
    rows = [torch.cat([block(operator, kernel, a, b) for b in y], 1) for a in x]  # (d, n·d)
    return torch.cat(rows)


@pytest.fixture(params=OPERATORS, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def case(request):
    operator, constructor = request.param
    kernel = constructor(1.3)
    x = torch.randn(4, 3, dtype=torch.float64)
    y = torch.randn(5, 3, dtype=torch.float64)
    x, y = x - y.mean(0), y - y.mean(0)
    return operator, kernel, x, y


class TestOperator:
    def test_applies_the_matrix_of_second_derivatives(self, case):
        operator, kernel, x, y = case
        values = torch.randn(5, 3, dtype=torch.float64)
        expected = (dense(operator, kernel, x, y) @ values.flatten()).reshape(4, 3)
        result = operator(kernel, x, y).apply(values)
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)

    def test_the_divergence_matches_autograd(self, case):
        operator, kernel, x, y = case

        def at(a):
            def of(b):
                jacobian = torch.func.jacrev(lambda b: block(operator, kernel, b, a))(b)
                return jacobian.diagonal(dim1=0, dim2=2).sum(-1)  # Σ_k ∂Γ_kl/∂b_k

            return sum(of(b) for b in y)

        expected = torch.stack([at(a) for a in x])
        result = operator(kernel, x, y).divergence()
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-10)

    def test_the_bound_is_above_the_largest_eigenvalue_and_not_far(self, case):
        operator, kernel, _, y = case
        matrix = dense(operator, kernel, y + 1e-9, y)  # Matérn has no derivative at 0 in code
        largest = torch.linalg.eigvalsh(0.5 * (matrix + matrix.T)).max()
        bound = operator(kernel, y, y).norm_bound()
        assert largest <= bound * (1.0 + 1e-6)
        assert bound <= 3.0 * largest

    def test_the_effective_rank_is_that_of_the_whole_matrix_per_feature(self, case):
        operator, kernel, _, y = case
        matrix = dense(operator, kernel, y + 1e-9, y)
        expected = matrix.trace() ** 2 / matrix.square().sum() / 3
        torch.testing.assert_close(
            operator(kernel, y, y).effective_rank(), expected, rtol=1e-5, atol=0
        )

    def test_the_level_is_the_diagonal_of_the_matrix_at_distance_zero(self, case):
        operator, kernel, _, y = case
        values = torch.eye(3, dtype=torch.float64)[:1]
        result = operator(kernel, y[:1], y[:1]).apply(values)
        torch.testing.assert_close(result, operator(kernel, y, y).level * values)

    def test_leading_dimensions_are_batches(self, case):
        operator, kernel, _, _ = case
        x, y, values = torch.randn(2, 6, 3), torch.randn(2, 4, 3), torch.randn(2, 4, 3)
        bandwidth = torch.tensor([0.7, 1.9])
        batched = operator(type(kernel)(bandwidth), x, y)
        square = operator(type(kernel)(bandwidth), x, x)
        for i in range(2):
            single = operator(type(kernel)(bandwidth[i].item()), x[i], y[i])
            own = operator(type(kernel)(bandwidth[i].item()), x[i], x[i])
            torch.testing.assert_close(batched.apply(values)[i], single.apply(values[i]))
            torch.testing.assert_close(
                batched.divergence()[i], single.divergence(), rtol=1e-4, atol=1e-5
            )
            torch.testing.assert_close(square.norm_bound()[i], own.norm_bound())
            torch.testing.assert_close(square.effective_rank()[i], own.effective_rank())

    def test_nothing_larger_than_a_gram_matrix_is_formed(self, case):
        operator, kernel, _, _ = case
        x = torch.randn(40, 30)
        with LargestTensor() as largest:
            built = operator(kernel, x, x)
            built.apply(torch.randn(40, 30))
            built.divergence()
            built.norm_bound()
            built.effective_rank()
        assert largest.numel <= 40 * 40

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_float32_neither_overflows_nor_vanishes_at_extreme_units(self, case, scale):
        operator, kernel, _, y = case
        y, values = y.float(), torch.randn(5, 3)
        one = operator(type(kernel)(1.3), y, y)
        scaled = operator(type(kernel)(1.3 * scale), y * scale, y * scale)
        torch.testing.assert_close(scaled.apply(values), one.apply(values), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            scaled.divergence() * scale, one.divergence(), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("constructor", CURL_FREE_KERNELS.values(), ids=CURL_FREE_KERNELS.keys())
def test_a_constant_feature_changes_nothing_in_the_curl_free_divergence(constructor):
    x = torch.randn(6, 3, dtype=torch.float64)
    padded = torch.cat([x, torch.zeros(6, 2, dtype=torch.float64)], 1)
    narrow, wide = (CurlFreeOperator(constructor(1.3), p, p) for p in (x, padded))
    torch.testing.assert_close(wide.divergence()[:, :3], narrow.divergence())
    torch.testing.assert_close(wide.effective_rank(), narrow.effective_rank())


def test_known_squared_distances_are_used():
    x = torch.randn(6, 3)
    squared = 4.0 * squared_distances(x, x)
    operator = DiagonalOperator(KERNELS["rbf"](2.0), x, x, squared)
    torch.testing.assert_close(operator.gram, KERNELS["rbf"](1.0).gram(x, x))
