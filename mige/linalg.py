"""The only place that rescues a factorisation.

Estimators ask for a Cholesky factor or an eigendecomposition here and get either a finite answer or
a `NumericalError`; how much was added to the diagonal is part of the answer, never hidden.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, not in the stubs

from mige.errors import NumericalError

_PIVOT_FLOOR = 16  # smallest pivot, in units of n·eps·(largest diagonal entry)
_MAX_ATTEMPTS = 12


class Cholesky(NamedTuple):
    """A lower factor of `matrix + jitter · I`."""

    factor: Float[Tensor, "n n"]
    jitter: float  # in the units of the matrix


class Eigen(NamedTuple):
    """Eigenvalues in descending order and the eigenvectors as columns."""

    values: Float[Tensor, " n"]
    vectors: Float[Tensor, "n n"]


def check_finite(name: str, tensor: Float[Tensor, "..."]) -> None:
    """Raise if a value is NaN or infinite.

    Raises:
        NumericalError: naming how many values are not finite and the position of the first.
    """
    finite = torch.isfinite(tensor)
    if bool(finite.all()):
        return
    bad = (~finite).nonzero()
    raise NumericalError(
        f"{name} holds {len(bad)} of {tensor.numel()} values that are NaN or infinite, the first "
        f"at index {tuple(bad[0].tolist())}: check the data and the learning rate"
    )


def cholesky(name: str, matrix: Float[Tensor, "n n"]) -> Cholesky:
    """Factor a symmetric positive semi-definite matrix, adding to its diagonal only if it must.

    A factor whose smallest pivot is at rounding level would amplify noise, so it counts as failed:
    then a jitter, starting at that level relative to the largest diagonal entry, grows by tens.

    Args:
        name: what the matrix is, for messages.
        matrix: symmetric; only its lower triangle is read.

    Raises:
        NumericalError: the matrix is not finite, or is not positive definite even with a jitter
            as large as its diagonal.
    """
    check_finite(name, matrix)
    size = len(matrix)
    largest = float(matrix.diagonal().max())
    floor = _PIVOT_FLOOR * size * torch.finfo(matrix.dtype).eps * largest
    identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    jitter = 0.0
    for _ in range(_MAX_ATTEMPTS):
        factor, status = torch.linalg.cholesky_ex(matrix + jitter * identity)
        if int(status) == 0 and float(factor.diagonal().min()) ** 2 > floor:
            return Cholesky(factor, jitter)
        jitter = 2.0 * floor if jitter == 0.0 else 10.0 * jitter
        if not jitter <= largest:
            break
    raise NumericalError(
        f"{name} ({size} x {size}, largest diagonal entry {largest:.3g}) is not positive definite "
        f"even with a jitter of {jitter / 10.0:.3g}: it is not a covariance or Gram matrix"
    )


def eigh(name: str, matrix: Float[Tensor, "n n"]) -> Eigen:
    """Decompose a symmetric matrix; retry in float64 if the solver does not converge in float32.

    Raises:
        NumericalError: the matrix is not finite or the solver does not converge.
    """
    check_finite(name, matrix)
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except LinAlgError:
        try:
            values, vectors = torch.linalg.eigh(matrix.double())
        except LinAlgError as error:
            raise NumericalError(f"the eigenvalues of {name} did not converge: {error}") from error
    return Eigen(values.flip(0).to(matrix.dtype), vectors.flip(1).to(matrix.dtype))
