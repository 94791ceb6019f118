"""Invertible maps of rows: I(T x; U z) = I(x; z), so a known truth stays known.

A transform is a function of a width and a generator that returns a `Bijection`; what is random in
it (a mixing matrix, a rotation) is a function of the generator's state.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from mige.checks import check_count

_HALF_CUBE = 1.5  # |v|^1.5: between the identity and the square
_CONDITION = 30.0
_ASINH_SCALE = 3.0
_TANH_SCALE = 1.6
_SPIRAL_TURN = 2.8  # radians of a row whose mean square is 1; they spread by 2.8 √(2/d)


class Bijection(NamedTuple):
    """A differentiable map of rows (..., d), and its inverse."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


Transform = Callable[[int, torch.Generator], Bijection]


def rotation_matrix(dim: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix, (dim, dim), float64 on the generator's device."""
    check_count("dim", dim)
    square = torch.randn(dim, dim, generator=generator, device=generator.device, dtype=torch.double)
    orthogonal, upper = torch.linalg.qr(square)
    # The Haar measure: QR alone prefers some signs.
    matrix: Tensor = orthogonal * upper.diagonal().sign()
    return matrix


def identity(_dim: int, _generator: torch.Generator) -> Bijection:
    """Rows as they are."""
    return Bijection(lambda v: v, lambda v: v)


def mixed(dim: int, generator: torch.Generator) -> Bijection:
    """A random matrix of condition number 30, its singular values spaced geometrically."""
    spread = torch.logspace(
        0.0, -math.log10(_CONDITION), dim, dtype=torch.double, device=generator.device
    )
    left, right = rotation_matrix(dim, generator), rotation_matrix(dim, generator)
    return _linear(left * spread @ right, right.mT / spread @ left.mT)


def rotated(dim: int, generator: torch.Generator) -> Bijection:
    """A random orthogonal matrix."""
    matrix = rotation_matrix(dim, generator)
    return _linear(matrix, matrix.mT)


def cube(_dim: int, _generator: torch.Generator) -> Bijection:
    """Heavy tails, and a slope of zero at zero: v³."""
    return _power(3.0)


def rotated_half_cube(dim: int, generator: torch.Generator) -> Bijection:
    """A rotation of sign(v) |v|^1.5: the margins are no longer those that were bent."""
    bend, turn = _power(_HALF_CUBE), rotated(dim, generator)
    return Bijection(
        lambda v: turn.forward(bend.forward(v)), lambda v: bend.inverse(turn.inverse(v))
    )


def asinh(_dim: int, _generator: torch.Generator) -> Bijection:
    """Light tails and two humps, the inverse hyperbolic sine of 3v."""
    return Bijection(
        lambda v: torch.asinh(_ASINH_SCALE * v), lambda v: torch.sinh(v) / _ASINH_SCALE
    )


def normal_cdf(_dim: int, _generator: torch.Generator) -> Bijection:
    """Φ(v): standard normal margins become uniform."""
    return Bijection(torch.special.ndtr, torch.special.ndtri)


def tanh(_dim: int, _generator: torch.Generator) -> Bijection:
    """Margins with a wall on each side, as saturated units have: of 1.6v."""
    return Bijection(lambda v: torch.tanh(_TANH_SCALE * v), lambda v: torch.atanh(v) / _TANH_SCALE)


def spiral(_dim: int, _generator: torch.Generator) -> Bijection:
    """Each pair of coordinates (k, k + ⌊d/2⌋) turned by 2.8 times the row's mean square.

    The norm is unchanged, so the inverse knows the angle. An odd last coordinate stays.
    """
    return Bijection(lambda v: _turn(v, _SPIRAL_TURN), lambda v: _turn(v, -_SPIRAL_TURN))


TRANSFORMS: Mapping[str, Transform] = MappingProxyType(
    {
        "identity": identity,
        "mixed": mixed,
        "rotated": rotated,
        "cube": cube,
        "rotated_half_cube": rotated_half_cube,
        "asinh": asinh,
        "normal_cdf": normal_cdf,
        "tanh": tanh,
        "spiral": spiral,
    }
)


def _linear(matrix: Tensor, inverse: Tensor) -> Bijection:
    return Bijection(lambda v: v @ matrix.to(v), lambda v: v @ inverse.to(v))


def _power(exponent: float) -> Bijection:
    return Bijection(
        lambda v: v.sign() * v.abs() ** exponent, lambda v: v.sign() * v.abs() ** (1.0 / exponent)
    )


def _turn(rows: Tensor, radians: float) -> Tensor:
    half = rows.shape[-1] // 2
    first, second, rest = rows[..., :half], rows[..., half : 2 * half], rows[..., 2 * half :]
    angle = radians * rows.square().mean(-1, keepdim=True)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos * first - sin * second, sin * first + cos * second, rest], dim=-1)
