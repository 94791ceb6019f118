"""Problems by name, and the suite that scores an estimator."""

from collections.abc import Mapping
from types import MappingProxyType

from mige.calibration.base import Problem
from mige.calibration.channels import CoordinateChannel
from mige.calibration.gaussian import GainChannel, GaussianPairs, LinearEncoder, StudentPairs

PROBLEMS: Mapping[str, Problem] = MappingProxyType(
    {
        "gauss": GaussianPairs(),
        "mixed": GaussianPairs(transform_x="mixed", transform_z="mixed"),
        "cube": GaussianPairs(transform_z="cube"),
        "asinh": GaussianPairs(transform_x="asinh", transform_z="asinh"),
        "rotated_half_cube": GaussianPairs(
            transform_x="rotated_half_cube", transform_z="rotated_half_cube"
        ),
        "student": StudentPairs(),
        "bimodal": CoordinateChannel(signal="bimodal"),
        "spiral": GaussianPairs(transform_x="spiral", transform_z="spiral"),
        "square": CoordinateChannel(signal="square"),
        "sin": CoordinateChannel(signal="sin"),
        "rotated_square": CoordinateChannel(signal="square", rotate=True),
        "rotated_sin": CoordinateChannel(signal="sin", rotate=True),
        "normal_cdf": GaussianPairs(transform_x="normal_cdf", transform_z="normal_cdf"),
        "tanh": GaussianPairs(transform_z="tanh"),
        "gain": GainChannel(),
        "linear_encoder": LinearEncoder(),
    }
)
"""Every problem by name."""

SUITE = (
    "gauss",
    "mixed",
    "cube",
    "asinh",
    "rotated_half_cube",
    "student",
    "bimodal",
    "spiral",
    "square",
    "sin",
)
"""The ten problems whose geometric mean is the score of an estimator."""
