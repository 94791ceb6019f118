"""Kernels by name, and the rules that choose their bandwidth."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.kernels.bandwidth import (
    BANDWIDTH_RULES,
    Bandwidth,
    check_bandwidth,
    choose_bandwidth,
    median_bandwidth,
)
from mige.kernels.base import Kernel
from mige.kernels.distances import squared_distances
from mige.kernels.rbf import RBFKernel

KERNELS: Mapping[str, Callable[..., Kernel]] = MappingProxyType({"rbf": RBFKernel})
"""Each entry is called with the bandwidth."""

__all__ = [
    "BANDWIDTH_RULES",
    "KERNELS",
    "Bandwidth",
    "Kernel",
    "RBFKernel",
    "check_bandwidth",
    "choose_bandwidth",
    "median_bandwidth",
    "squared_distances",
]
