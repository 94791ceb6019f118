"""Problems in closed form: Gaussian pairs behind invertible maps, Student-t pairs, channels."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mige.calibration.base import (
    Pairs,
    Problem,
    check_correlation,
    correlation_grid,
    standard_normal,
)
from mige.calibration.transforms import TRANSFORMS
from mige.checks import check_choice, check_count, check_positive
from mige.errors import InvalidInputError

_WEIGHT_STREAM = 4 * 10**9  # not a seed that a caller is likely to sample with


@dataclass(frozen=True, kw_only=True)
class GaussianPairs(Problem):
    """d pairs of correlation ρ, each side seen through an invertible map.

    u ~ N(0, I), v = ρu + √(1−ρ²) ε, x = T(u), z = U(v): I = −d/2 · log(1−ρ²) for any T and U, so
    dI/dρ = dρ/(1−ρ²). With identities this is the toy of Wen et al. (ICLR 2020, arXiv 2005.01123).

    Attributes:
        transform_x: T, a name in `TRANSFORMS`.
        transform_z: U.
    """

    transform_x: str = "identity"
    transform_z: str = "identity"

    def __post_init__(self) -> None:
        check_choice("transform_x", self.transform_x, TRANSFORMS.keys())
        check_choice("transform_z", self.transform_z, TRANSFORMS.keys())

    def grid(self, d: int) -> Float[Tensor, " p"]:  # noqa: ARG002  the same at any width
        """The authors' 32 correlations."""
        return correlation_grid()

    def sample(
        self, n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator
    ) -> Pairs:
        """Draw pairs; the parameter is ρ."""
        u, v = _correlated(n, d, parameter, generator)
        transform_x = TRANSFORMS[self.transform_x](d, generator)
        transform_z = TRANSFORMS[self.transform_z](d, generator)
        return Pairs(transform_x.forward(u), transform_z.forward(v))

    def information(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """−d/2 · log(1−ρ²)."""
        check_correlation(parameter)
        return -0.5 * d * torch.log1p(-parameter.square())

    def truth(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """dρ/(1−ρ²)."""
        check_correlation(parameter)
        return d * parameter / (1.0 - parameter.square())


@dataclass(frozen=True, kw_only=True)
class StudentPairs(Problem):
    """Correlated Gaussian pairs, both sides divided by one random scale: a multivariate t.

    (x, z) = (u, v) / √w with w ~ χ²_k / k, shared by a row's 2d coordinates. The scale adds
    dependence, but none that ρ changes: I = −d/2 · log(1−ρ²) + const(k, d), dI/dρ = dρ/(1−ρ²).

    Attributes:
        degrees: k, degrees of freedom; an integer.
    """

    degrees: int = 5

    def __post_init__(self) -> None:
        check_count("degrees", self.degrees)

    def grid(self, d: int) -> Float[Tensor, " p"]:  # noqa: ARG002  the same at any width
        """The authors' 32 correlations."""
        return correlation_grid()

    def sample(
        self, n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator
    ) -> Pairs:
        """Draw pairs; the parameter is ρ."""
        u, v = _correlated(n, d, parameter, generator)
        chi = standard_normal(n, self.degrees, parameter, generator)
        scale = chi.square().mean(-1, keepdim=True).rsqrt()
        return Pairs(u * scale, v * scale)

    def information(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """2 h(t of width d) − h(t of width 2d), from the entropy of the multivariate t."""
        check_correlation(parameter)
        constant = 2.0 * _student_entropy(d, self.degrees) - _student_entropy(2 * d, self.degrees)
        return constant - 0.5 * d * torch.log1p(-parameter.square())

    def truth(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """dρ/(1−ρ²)."""
        check_correlation(parameter)
        return d * parameter / (1.0 - parameter.square())


@dataclass(frozen=True)
class GainChannel(Problem):
    """z = θx + e with x, e ~ N(0, I): I = d/2 · log(1+θ²), dI/dθ = dθ/(1+θ²).

    Unlike the authors' toy, H(z) depends on the parameter, so the marginal term is put to the test.
    """

    def grid(self, d: int) -> Float[Tensor, " p"]:  # noqa: ARG002  the same at any width
        """16 gains from 0.25 to 2."""
        return torch.linspace(0.25, 2.0, 16, dtype=torch.double)

    def sample(
        self, n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator
    ) -> Pairs:
        """Draw pairs; the parameter is θ."""
        x = standard_normal(n, d, parameter, generator)
        noise = standard_normal(n, d, parameter, generator)
        return Pairs(x, parameter[..., None, None] * x + noise)

    def information(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """d/2 · log(1+θ²)."""
        return 0.5 * d * torch.log1p(parameter.square())

    def truth(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """dθ/(1+θ²)."""
        return d * parameter / (1.0 + parameter.square())


@dataclass(frozen=True, kw_only=True)
class LinearEncoder(Problem):
    """z = Wx + σe with x, e ~ N(0, I): the gradient in a whole weight matrix, in closed form.

    I = ½ log det(I + WWᵀ/σ²), ∂I/∂W = (σ²I + WWᵀ)⁻¹ W. The parameter is W, (..., d, d).

    Attributes:
        noise: σ.
    """

    noise: float = 0.5

    def __post_init__(self) -> None:
        check_positive("noise", self.noise)

    def grid(self, d: int) -> Float[Tensor, "p d d"]:
        """4 matrices with singular values spread from 0.3 to 1.5, as a trained layer's are."""
        check_count("d", d)
        generator = torch.Generator().manual_seed(_WEIGHT_STREAM)
        values = torch.linspace(0.3, 1.5, d, dtype=torch.double)
        noise = torch.randn(4, d, d, generator=generator, dtype=torch.double)
        left, right = torch.linalg.qr(noise), torch.linalg.qr(noise.mT)
        matrices: Tensor = left.Q * values @ right.Q
        return matrices

    def sample(
        self, n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator
    ) -> Pairs:
        """Draw pairs; the parameter is W."""
        self._check(parameter, d)
        x = standard_normal(n, d, parameter, generator, event=2)
        noise = standard_normal(n, d, parameter, generator, event=2)
        return Pairs(x, x @ parameter.mT + self.noise * noise)

    def information(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """½ log det(I + WWᵀ/σ²)."""
        self._check(parameter, d)
        return 0.5 * (torch.logdet(self._covariance(parameter)) - 2.0 * d * math.log(self.noise))

    def truth(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """(σ²I + WWᵀ)⁻¹ W."""
        self._check(parameter, d)
        gradient: Tensor = torch.linalg.solve(self._covariance(parameter), parameter)
        return gradient

    def _covariance(self, weight: Tensor) -> Tensor:
        """The covariance of z."""
        identity = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
        covariance: Tensor = weight @ weight.mT + self.noise**2 * identity
        return covariance

    def _check(self, parameter: Tensor, d: int) -> None:
        if parameter.shape[-2:] != (d, d):
            raise InvalidInputError(
                f"parameter has shape {tuple(parameter.shape)}: give weights (..., {d}, {d})"
            )


def _correlated(
    n: int, d: int, rho: Tensor, generator: torch.Generator
) -> tuple[Float[Tensor, "*batch n d"], Float[Tensor, "*batch n d"]]:
    """Draw u ~ N(0, I) and v = ρu + √(1−ρ²) ε."""
    check_correlation(rho)
    u = standard_normal(n, d, rho, generator)
    noise = standard_normal(n, d, rho, generator)
    rho = rho[..., None, None]
    return u, rho * u + (1.0 - rho.square()).sqrt() * noise


def _student_entropy(d: int, degrees: int) -> float:
    """Entropy of the standard multivariate t of width d, in nats."""
    half, half_both = 0.5 * degrees, 0.5 * (degrees + d)
    digamma = torch.special.digamma(torch.tensor([half_both, half], dtype=torch.double))
    log_constant = (
        math.lgamma(half_both) - math.lgamma(half) - 0.5 * d * math.log(degrees * math.pi)
    )
    return half_both * float(digamma[0] - digamma[1]) - log_constant
