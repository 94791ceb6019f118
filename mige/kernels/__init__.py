"""Kernels by name, and the rules that choose their bandwidth."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.kernels.bandwidth import (
    BANDWIDTH_RULES,
    Bandwidth,
    check_bandwidth,
    choose_bandwidth,
    mean_bandwidth,
    median_bandwidth,
)
from mige.kernels.base import Kernel, SmoothRadialKernel
from mige.kernels.distances import squared_distances
from mige.kernels.imq import IMQKernel
from mige.kernels.matern import Matern32Kernel, Matern52Kernel
from mige.kernels.operators import CurlFreeOperator, DiagonalOperator, KernelOperator
from mige.kernels.rational_quadratic import RationalQuadraticKernel
from mige.kernels.rbf import RBFKernel

KERNELS: Mapping[str, Callable[..., Kernel]] = MappingProxyType(
    {
        "rbf": RBFKernel,
        "imq": IMQKernel,
        "rational_quadratic": RationalQuadraticKernel,
        "matern32": Matern32Kernel,
        "matern52": Matern52Kernel,
    }
)
"""Each entry is called with the bandwidth."""

CURL_FREE_KERNELS: Mapping[str, Callable[..., SmoothRadialKernel]] = MappingProxyType(
    {
        "curl_free_rbf": RBFKernel,
        "curl_free_imq": IMQKernel,
        "curl_free_rational_quadratic": RationalQuadraticKernel,
    }
)
"""The scalar kernels k of the vector-valued −σ² ∇∇ᵀ k, which `CurlFreeOperator` applies."""

__all__ = [
    "BANDWIDTH_RULES",
    "CURL_FREE_KERNELS",
    "KERNELS",
    "Bandwidth",
    "CurlFreeOperator",
    "DiagonalOperator",
    "IMQKernel",
    "Kernel",
    "KernelOperator",
    "Matern32Kernel",
    "Matern52Kernel",
    "RBFKernel",
    "RationalQuadraticKernel",
    "SmoothRadialKernel",
    "check_bandwidth",
    "choose_bandwidth",
    "mean_bandwidth",
    "median_bandwidth",
    "squared_distances",
]
