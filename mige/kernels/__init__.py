"""Kernels by name, and the rules that choose their bandwidth."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.checks import check_options
from mige.errors import InvalidInputError
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
from mige.registry import build_from_registry

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


def check_kernel(
    kernel: str,
    options: Mapping[str, float],
    *,
    kernels: Mapping[str, Callable[..., object]] = KERNELS,
) -> dict[str, float]:
    """Return a copy of `options` if `kernel` takes them besides a bandwidth, which rules choose.

    Raises:
        InvalidInputError: the kernel, an option or its value is not acceptable.
    """
    own = check_options("kernel_options", options)
    if "bandwidth" in own:
        raise InvalidInputError(
            f"kernel_options={own!r}: a bandwidth is an option of the estimator, give it there"
        )
    build_from_registry(kernels, "kernel", kernel, {"bandwidth": 1.0, **own})
    return dict(options)


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
    "check_kernel",
    "choose_bandwidth",
    "mean_bandwidth",
    "median_bandwidth",
    "squared_distances",
]
