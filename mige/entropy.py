"""A scalar whose gradient is that of an entropy."""

from jaxtyping import Float
from torch import Tensor

from mige.errors import InvalidInputError


def entropy_surrogate(samples: Tensor, score: Tensor) -> Float[Tensor, ""]:
    """A scalar whose gradient is that of H(q_ψ), in nats. Its value means nothing.

    For reparameterised samples z = E_ψ(x), ∇_ψ H = −E[(∂z/∂ψ)ᵀ ∇_z log q(z)], which is the gradient
    of −mean_i s_i · z_i with the score s held fixed. The published code of the same name has the
    opposite sign: its gradient is that of −H.

    Args:
        samples: z, (m, d), carrying the gradient.
        score: ∇ log q at the samples, (m, d), in 1 / units of the samples; detached here.

    Raises:
        InvalidInputError: the two shapes differ.
    """
    if samples.shape != score.shape or samples.ndim != 2:
        raise InvalidInputError(
            f"samples have shape {tuple(samples.shape)} and score {tuple(score.shape)}: "
            "give one score row per sample, both (rows, features)"
        )
    return -(score.detach() * samples).sum(-1).mean()
