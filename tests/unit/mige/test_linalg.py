import pytest
import torch

from mige.errors import NumericalError
from mige.linalg import check_finite, cholesky, eigh


def test_a_well_conditioned_matrix_is_factored_without_jitter():
    a = torch.randn(20, 8, dtype=torch.float64)
    matrix = a.T @ a
    factor, jitter = cholesky("a", matrix)
    assert jitter == 0.0
    torch.testing.assert_close(factor @ factor.T, matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_singular_matrix_gets_the_smallest_jitter_that_works(dtype):
    a = torch.randn(20, 4, dtype=dtype)
    a = torch.cat([a, a[:, :2]], dim=1)
    matrix = a.T @ a
    factor, jitter = cholesky("a", matrix)
    assert 0.0 < jitter < 1e4 * torch.finfo(dtype).eps * float(matrix.diagonal().max())
    expected = matrix + jitter * torch.eye(6, dtype=dtype)
    torch.testing.assert_close(factor @ factor.T, expected)


def test_a_matrix_far_from_positive_definite_is_an_error_that_names_it():
    with pytest.raises(NumericalError, match=r"the covariance .* is not positive definite"):
        cholesky("the covariance", torch.tensor([[1.0, 5.0], [5.0, 1.0]]))


def test_a_matrix_with_a_negative_diagonal_is_an_error():
    with pytest.raises(NumericalError, match="not positive definite"):
        cholesky("m", -torch.eye(3))


@pytest.mark.parametrize("factorise", [cholesky, eigh])
def test_nan_is_an_error_that_says_where(factorise):
    matrix = torch.eye(3)
    matrix[1, 2] = torch.nan
    with pytest.raises(NumericalError, match=r"1 of 9 values .* index \(1, 2\)"):
        factorise("m", matrix)


def test_finite_values_pass():
    check_finite("x", torch.tensor([1e38, -1e38, 0.0]))


def test_eigenvalues_descend_and_rebuild_the_matrix():
    a = torch.randn(6, 6, dtype=torch.float64)
    matrix = a + a.T
    values, vectors = eigh("m", matrix)
    assert (values.diff() <= 0).all()
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, matrix)
