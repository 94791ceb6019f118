import pytest
import torch

from mige.errors import NumericalError
from mige.linalg import check_finite, cholesky, cholesky_ridged, eigh


def test_a_well_conditioned_matrix_is_factored_without_jitter():
    a = torch.randn(20, 8, dtype=torch.float64)
    matrix = a.T @ a
    factor, jitter = cholesky(matrix)
    assert jitter == 0.0
    torch.testing.assert_close(factor @ factor.T, matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_singular_matrix_gets_a_jitter_at_rounding_level(dtype):
    a = torch.randn(20, 4, dtype=dtype)
    a = torch.cat([a, a[:, :2]], dim=1)
    matrix = a.T @ a
    factor, jitter = cholesky(matrix)
    assert 0.0 < jitter < 1e4 * torch.finfo(dtype).eps * float(matrix.diagonal().max())
    expected = matrix + jitter * torch.eye(6, dtype=dtype)
    torch.testing.assert_close(factor @ factor.T, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [8, 128, 512])
def test_rank_one_covariances_of_any_size_are_rescued(dtype, size):
    row = torch.randn(size, dtype=dtype)
    factor, jitter = cholesky(row[:, None] * row)
    assert torch.isfinite(factor).all()
    assert jitter > 0


@pytest.mark.parametrize("size", [7, 511, 512, 513])
def test_a_ridged_matrix_is_factored_as_it_is_at_any_size(size):
    a = torch.randn(2, size, 4, dtype=torch.float64)
    matrices = a @ a.mT + 0.1 * torch.eye(size)
    factor = cholesky_ridged(matrices)
    assert factor.shape == (2, size, size)
    torch.testing.assert_close(factor, torch.linalg.cholesky(matrices))


def test_each_matrix_of_a_batch_gets_its_own_jitter():
    a = torch.randn(3, 20, 4)
    a[1, :, 3] = a[1, :, 0]
    matrices = a.mT @ a
    factor, jitter = cholesky(matrices)
    assert (jitter > 0).tolist() == [False, True, False]
    for i in range(3):
        alone = cholesky(matrices[i])
        torch.testing.assert_close(factor[i], alone.factor)
        torch.testing.assert_close(jitter[i], alone.jitter)


@pytest.mark.parametrize("matrix", [torch.tensor([[1.0, 5.0], [5.0, 1.0]]), -torch.eye(3)])
def test_a_matrix_that_is_no_covariance_gives_nan_and_leaves_its_neighbours_alone(matrix):
    sound = torch.eye(len(matrix))
    factor = cholesky(torch.stack([sound, matrix])).factor
    assert torch.equal(factor[0], sound)
    assert torch.isnan(factor[1]).all()
    solution = torch.cholesky_solve(sound, cholesky_ridged(matrix))
    assert torch.isnan(solution).all()


def test_nan_in_one_matrix_of_a_batch_gives_nan_there_only():
    matrices = torch.eye(3).repeat(2, 1, 1)
    matrices[1, 1, 1] = torch.nan
    for factor in (cholesky(matrices).factor, cholesky_ridged(matrices)):
        assert torch.equal(factor[0], torch.eye(3))
        assert torch.isnan(torch.cholesky_solve(torch.eye(3), factor[1])).all()
    values = eigh(matrices).values
    assert torch.equal(values[0], torch.ones(3))
    assert torch.isnan(values[1]).all()


def test_a_value_that_is_not_finite_is_an_error_that_says_where():
    matrix = torch.eye(3)
    matrix[1, 2] = torch.nan
    with pytest.raises(NumericalError, match=r"m holds 1 of 9 values .* index \(1, 2\)"):
        check_finite("m", matrix)


def test_finite_values_pass():
    check_finite("x", torch.tensor([1e38, -1e38, 0.0]))


def test_eigenvalues_descend_and_rebuild_the_matrix():
    a = torch.randn(2, 6, 6, dtype=torch.float64)
    matrix = a + a.mT
    values, vectors = eigh(matrix)
    assert (values.diff() <= 0).all()
    torch.testing.assert_close(vectors @ torch.diag_embed(values) @ vectors.mT, matrix)
