"""Quality of an embedding without labels."""

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_rows
from mige.linalg import check_finite

_EPSILON = 1e-7  # of the paper; keeps log(0) out


@torch.no_grad()
def rank_me(embeddings: Tensor) -> float:
    """RankMe: exp of the entropy of the normalised singular values, between 1 and d.

    p_k = σ_k / Σ σ + 1e-7, RankMe = exp(−Σ p_k ln p_k): a smooth rank that falls when an embedding
    collapses to few directions. The embeddings are not centred, as in the paper.

    Args:
        embeddings: (n, d); a few thousand rows are enough.

    Raises:
        InvalidInputError: the shape or dtype is wrong.
        NumericalError: a value is not finite.

    Source:
        Garrido et al., ICML 2023 (arXiv 2210.02885).
    """
    check_rows("embeddings", embeddings)
    check_finite("embeddings", embeddings)
    # d x d instead of an SVD of n x d; in float64, since squaring halves the digits.
    gram = embeddings.double().T @ embeddings.double()
    singular: Float[Tensor, " d"] = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny) + _EPSILON
    return float(torch.exp(-(share * share.log()).sum()))
