"""Mutual information gradient estimation: scores from samples, and what they train.

A pure library on torch: no environment, no logging set-up; files only in `mige.encoders.io`.
`import mige` imports neither torchvision nor matplotlib.
"""

from mige.bank import SampleBank
from mige.encoders import ENCODERS, make_encoder
from mige.encoders.config import EncoderConfig
from mige.encoders.io import LoadedEncoder, load_encoder, save_encoder
from mige.encoders.preprocessing import standardize_images
from mige.entropy import entropy_surrogate
from mige.errors import InvalidInputError, MigeError, NumericalError
from mige.evaluation import ProbeResult, knn_probe, linear_probe, rank_me
from mige.gather import GatheredRows, gather_rows
from mige.kernels import KERNELS, Kernel
from mige.mutual_information import (
    conditional_mutual_information_surrogate,
    information_gradient,
    mutual_information_surrogate,
)
from mige.objectives import OBJECTIVES, MigeInfomax, Objective, ObjectiveOutput
from mige.projections import gaussian_projection
from mige.scores import (
    SCORE_ESTIMATORS,
    ScoreEstimate,
    ScoreEstimator,
    make_score_estimator,
)

__version__ = "0.1.0"

__all__ = [
    "ENCODERS",
    "KERNELS",
    "OBJECTIVES",
    "SCORE_ESTIMATORS",
    "EncoderConfig",
    "GatheredRows",
    "InvalidInputError",
    "Kernel",
    "LoadedEncoder",
    "MigeError",
    "MigeInfomax",
    "NumericalError",
    "Objective",
    "ObjectiveOutput",
    "ProbeResult",
    "SampleBank",
    "ScoreEstimate",
    "ScoreEstimator",
    "conditional_mutual_information_surrogate",
    "entropy_surrogate",
    "gather_rows",
    "gaussian_projection",
    "information_gradient",
    "knn_probe",
    "linear_probe",
    "load_encoder",
    "make_encoder",
    "make_score_estimator",
    "mutual_information_surrogate",
    "rank_me",
    "save_encoder",
    "standardize_images",
]
