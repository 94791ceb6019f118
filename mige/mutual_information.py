"""Scalars whose gradient is that of I(x; z): the joint and the conditional route.

    I(x; z) = H(x) + H(z) − H(x, z)     joint route: every term by a score
    I(x; z) = H(z) − H(z | x)           conditional route: the second term in closed form

What a parameter feels of I through row i of z is n⁻¹ g_i with g_i = s_{xz,z}(x_i, z_i) − s_z(z_i).
"""

from jaxtyping import Float
from torch import Tensor

from mige.checks import check_rows
from mige.entropy import entropy_surrogate
from mige.errors import InvalidInputError
from mige.scores import InformationGradient, ScoreEstimator


def information_gradient(
    x: Tensor, z: Tensor, estimator: ScoreEstimator, *, wrt_x: bool = False, check: bool = True
) -> InformationGradient:
    """Estimate n · ∂I/∂z_i = s_{xz,z}(x_i, z_i) − s_z(z_i), and the same for x if asked.

    Args:
        x: (..., n, dx), rows paired with those of `z`.
        z: (..., n, dz).
        estimator: estimates both scores, from the same rows.
        wrt_x: also estimate the gradient in x, at the price of one more score.
        check: refuse NaN and infinity with an error, which waits for the device; False answers
            them with NaN.

    Raises:
        InvalidInputError: the numbers of rows differ, or a shape or dtype is wrong.
        NumericalError: an input is not finite or a factorisation failed.
    """
    return estimator.information_gradient(x, z, wrt_x=wrt_x, check=check)


def mutual_information_surrogate(
    x: Tensor, z: Tensor, estimator: ScoreEstimator
) -> Float[Tensor, ""]:
    """A scalar whose gradient is that of I(x; z), in nats, by the joint route.

    Its value means nothing. It is differentiable in z, and in x as well if x requires a gradient
    (two views of one image, say): then H(x) and the x block of the joint score count too.

    A deterministic encoder of continuous x has I = ∞: then the kernel's bandwidth sets the scale at
    which the pair is smoothed, and the gradient is that of the smoothed information.

    Args:
        x: (n, dx), rows paired with those of `z`; project wide inputs first.
        z: (n, dz), reparameterised, carrying the gradient.
        estimator: the score estimator of all terms.

    Raises:
        InvalidInputError: the numbers of rows differ, or a shape or dtype is wrong.
        NumericalError: an input is not finite or a factorisation failed.
    """
    gradient = information_gradient(x, z, estimator, wrt_x=x.requires_grad)
    surrogate = (gradient.z * z).sum(-1).mean()
    if gradient.x is not None:
        surrogate = surrogate + (gradient.x * x).sum(-1).mean()
    return surrogate


def conditional_mutual_information_surrogate(
    z: Tensor, std: Tensor, estimator: ScoreEstimator
) -> Float[Tensor, ""]:
    """A scalar whose gradient is that of I(x; z), in nats, for z | x ~ N(mean(x), diag(std(x)²)).

    H(z) by its score, H(z | x) = Σ_k log std_k + const in closed form, so x itself is not needed.
    Its value means nothing.

    Args:
        z: (n, d), mean + std · ε, reparameterised, carrying the gradient.
        std: standard deviation of the noise, in units of `z`: (n, d), or anything that broadcasts
            to it. A constant one adds no gradient.
        estimator: the score estimator of H(z).

    Raises:
        InvalidInputError: `std` does not broadcast to `z` or is not positive.
        NumericalError: `z` is not finite or a factorisation failed.
    """
    check_rows("z", z)
    try:
        std = std.expand(z.shape)
    except RuntimeError as error:
        raise InvalidInputError(
            f"std has shape {tuple(std.shape)}: give one that broadcasts to {tuple(z.shape)}"
        ) from error
    if not bool((std > 0).all()):
        raise InvalidInputError("std holds values that are not above 0: use softplus or exp")
    score = estimator.entropy_score(z.detach()).score
    return entropy_surrogate(z, score) - std.log().sum(-1).mean()
