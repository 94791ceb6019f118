"""The only place that rescues a factorisation.

Estimators ask for a Cholesky factor or an eigendecomposition here, of one matrix or of a batch.
Nothing is read back from the device: a factorisation that cannot be rescued gives NaN, which
`check_finite` turns into a named error where a caller asks for it. How much was added to a diagonal
is part of the answer, never hidden.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, not in the stubs

from mige.errors import NumericalError

_PIVOT_FLOOR = 16  # smallest pivot, in units of n·eps·(largest diagonal entry)
_RESCUES = (2.0, 200.0)  # jitters, in units of that floor


class Cholesky(NamedTuple):
    """A lower factor of `matrix + jitter · I`; NaN where no jitter that was tried is enough."""

    factor: Float[Tensor, "*b n n"]
    jitter: Float[Tensor, "*b"]  # in the units of the matrix


class Eigen(NamedTuple):
    """Eigenvalues in descending order, eigenvectors as columns; NaN if the matrix has any."""

    values: Float[Tensor, "*b n"]
    vectors: Float[Tensor, "*b n n"]


def check_finite(name: str, tensor: Float[Tensor, "..."]) -> None:
    """Raise if a value is NaN or infinite. This waits for the device.

    Raises:
        NumericalError: naming how many values are not finite and the position of the first.
    """
    if bool(torch.isfinite(tensor.sum())):  # one pass; a sum that overflows needs a second look
        return
    finite = torch.isfinite(tensor)
    if bool(finite.all()):
        return
    bad = (~finite).nonzero()
    raise NumericalError(
        f"{name} holds {len(bad)} of {tensor.numel()} values that are NaN or infinite, the first "
        f"at index {tuple(bad[0].tolist())}: check the data and the learning rate"
    )


def cholesky(matrix: Float[Tensor, "*b n n"]) -> Cholesky:
    """Factor symmetric positive semi-definite matrices, adding to a diagonal only where it must.

    A factor whose smallest pivot is at rounding level would amplify noise, so it counts as failed:
    then a jitter, relative to the largest diagonal entry, is added. Two are tried; each exceeds
    what rounding can take from a covariance or Gram matrix.

    Args:
        matrix: symmetric; only the lower triangles are read.
    """
    factor, sound = _factor(matrix)
    jitter = torch.zeros_like(matrix[..., 0, 0])
    # Asking costs nothing on a CPU; elsewhere the further factorisations cost less than waiting.
    if matrix.device.type == "cpu" and not torch.compiler.is_compiling() and bool(sound.all()):
        return Cholesky(factor, jitter)
    floor = _pivot_floor(matrix)
    for multiple in _RESCUES:
        candidate = multiple * floor
        rescued, holds = _factor(matrix, candidate)
        take = ~sound & holds
        factor = torch.where(take[..., None, None], rescued, factor)
        jitter = torch.where(take, candidate, jitter)
        sound = sound | holds
    return Cholesky(torch.where(sound[..., None, None], factor, torch.nan), jitter)


def cholesky_ridged(matrix: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b n n"]:
    """Factor matrices whose diagonal already carries a ridge; none is rescued.

    Where a matrix is not positive definite, the first entry of its factor is NaN.
    """
    factor: Tensor
    factor, status = torch.linalg.cholesky_ex(matrix)
    # One entry is enough: every solve with the factor begins there.
    first = factor[..., 0, 0]
    first.copy_(torch.where(status == 0, first, torch.nan))
    return factor


def eigh(matrix: Float[Tensor, "*b n n"]) -> Eigen:
    """Decompose symmetric matrices; retry in float64 if the solver does not converge in float32.

    The solver itself waits for the device: what must not wait takes a Cholesky factor.

    Raises:
        NumericalError: the solver does not converge, even in float64.
    """
    finite = torch.isfinite(matrix).all(-1).all(-1)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    solvable = torch.where(finite[..., None, None], matrix, identity)
    try:
        values, vectors = torch.linalg.eigh(solvable)
    except LinAlgError:
        try:
            values, vectors = torch.linalg.eigh(solvable.double())
        except LinAlgError as error:
            raise NumericalError(
                f"the eigenvalues of a {matrix.shape[-1]} x {matrix.shape[-1]} Gram matrix did not "
                f"converge: {error}; choose an estimator that needs none, such as gaussian_residual"
            ) from error
    values = torch.where(finite[..., None], values.to(matrix.dtype), torch.nan)
    return Eigen(values.flip(-1), vectors.to(matrix.dtype).flip(-1))


def _pivot_floor(matrix: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b"]:
    largest = matrix.diagonal(dim1=-2, dim2=-1).amax(-1)
    return _PIVOT_FLOOR * matrix.shape[-1] * torch.finfo(matrix.dtype).eps * largest


def _factor(
    matrix: Float[Tensor, "*b n n"], jitter: Float[Tensor, "*b"] | None = None
) -> tuple[Float[Tensor, "*b n n"], Bool[Tensor, "*b"]]:
    """The factor of matrix + jitter · I, and whether it is fit for use."""
    floor = _pivot_floor(matrix)
    if jitter is not None:
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        matrix = matrix + jitter[..., None, None] * identity
    factor, status = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal(dim1=-2, dim2=-1).amin(-1) ** 2
    return factor, (status == 0) & (pivots > floor)
