"""Score estimators by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.checks import check_flag
from mige.registry import build_from_registry
from mige.scores.base import InformationGradient, ScoreEstimate, ScoreEstimator
from mige.scores.corrected import SteinCorrectedEstimator
from mige.scores.gaussian_residual import GaussianResidualEstimator
from mige.scores.landweber import LandweberEstimator
from mige.scores.nu_method import NuMethodEstimator
from mige.scores.spectral import SpectralEstimator
from mige.scores.stein import SteinEstimator
from mige.scores.tikhonov import TikhonovEstimator

SCORE_ESTIMATORS: Mapping[str, Callable[..., ScoreEstimator]] = MappingProxyType(
    {
        "gaussian_residual": GaussianResidualEstimator,
        "spectral": SpectralEstimator,
        "stein": SteinEstimator,
        "tikhonov": TikhonovEstimator,
        "landweber": LandweberEstimator,
        "nu_method": NuMethodEstimator,
    }
)

RECOMMENDED_ESTIMATOR = "gaussian_residual"


def make_score_estimator(
    name: str | None = None, *, stein_correction: bool = False, **options: object
) -> ScoreEstimator:
    """Build a score estimator.

    Args:
        name: a name in `SCORE_ESTIMATORS`; None is the most accurate, `gaussian_residual`.
        stein_correction: make the estimate exact for linear functions of the samples, as
            `gaussian_residual` is already; see `SteinCorrectedEstimator`.
        options: keyword arguments of that estimator.

    Raises:
        InvalidInputError: the name, an option or a value is not acceptable.
    """
    check_flag("stein_correction", stein_correction)
    name = RECOMMENDED_ESTIMATOR if name is None else name
    estimator = build_from_registry(SCORE_ESTIMATORS, "score estimator", name, options)
    return SteinCorrectedEstimator(estimator) if stein_correction else estimator


__all__ = [
    "RECOMMENDED_ESTIMATOR",
    "SCORE_ESTIMATORS",
    "GaussianResidualEstimator",
    "InformationGradient",
    "LandweberEstimator",
    "NuMethodEstimator",
    "ScoreEstimate",
    "ScoreEstimator",
    "SpectralEstimator",
    "SteinCorrectedEstimator",
    "SteinEstimator",
    "TikhonovEstimator",
    "make_score_estimator",
]
