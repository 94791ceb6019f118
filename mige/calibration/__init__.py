"""Problems whose mutual information gradient is known exactly, and what estimators make of them.

`mige.calibration.plot` draws a card; it alone needs matplotlib and is not imported here.
"""

from mige.calibration.base import Pairs, Problem
from mige.calibration.card import (
    QUICK_PROBLEMS,
    STANDARD_PROBLEMS,
    CalibrationCard,
    ProblemResult,
    calibrate,
)
from mige.calibration.channels import CoordinateChannel
from mige.calibration.gaussian import GainChannel, GaussianPairs, LinearEncoder, StudentPairs
from mige.calibration.measure import (
    Accuracy,
    Cost,
    compare,
    entropy_estimate,
    information_estimate,
    measure_cost,
    truth_of,
)
from mige.calibration.network import NETWORKS, NetworkEntropy
from mige.calibration.registry import PROBLEMS, SUITE
from mige.calibration.subject import BoundSubject, ScoreSubject, Subject, make_subject
from mige.calibration.transforms import TRANSFORMS, Bijection, Transform

__all__ = [
    "NETWORKS",
    "PROBLEMS",
    "QUICK_PROBLEMS",
    "STANDARD_PROBLEMS",
    "SUITE",
    "TRANSFORMS",
    "Accuracy",
    "Bijection",
    "BoundSubject",
    "CalibrationCard",
    "CoordinateChannel",
    "Cost",
    "GainChannel",
    "GaussianPairs",
    "LinearEncoder",
    "NetworkEntropy",
    "Pairs",
    "Problem",
    "ProblemResult",
    "ScoreSubject",
    "StudentPairs",
    "Subject",
    "Transform",
    "calibrate",
    "compare",
    "entropy_estimate",
    "information_estimate",
    "make_subject",
    "measure_cost",
    "truth_of",
]
