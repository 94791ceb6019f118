"""Score estimators by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.registry import build_from_registry
from mige.scores.base import InformationGradient, ScoreEstimate, ScoreEstimator
from mige.scores.gaussian_residual import GaussianResidualEstimator
from mige.scores.spectral import SpectralEstimator

SCORE_ESTIMATORS: Mapping[str, Callable[..., ScoreEstimator]] = MappingProxyType(
    {"gaussian_residual": GaussianResidualEstimator, "spectral": SpectralEstimator}
)

RECOMMENDED_ESTIMATOR = "gaussian_residual"


def make_score_estimator(name: str | None = None, **options: object) -> ScoreEstimator:
    """Build a score estimator.

    Args:
        name: a name in `SCORE_ESTIMATORS`; None is the most accurate, `gaussian_residual`.
        options: keyword arguments of that estimator.

    Raises:
        InvalidInputError: the name, an option or a value is not acceptable.
    """
    return build_from_registry(
        SCORE_ESTIMATORS, "score estimator", name or RECOMMENDED_ESTIMATOR, options
    )


__all__ = [
    "RECOMMENDED_ESTIMATOR",
    "SCORE_ESTIMATORS",
    "GaussianResidualEstimator",
    "InformationGradient",
    "ScoreEstimate",
    "ScoreEstimator",
    "SpectralEstimator",
    "make_score_estimator",
]
