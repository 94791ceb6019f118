"""Kernels, bandwidths and score estimators as a job asks for them.

Every default equals the library's, which were chosen on measurements (see `mige/README.md`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jobs.spec_base import Spec

Scale = Annotated[float, Field(gt=0, le=1e3, description="Multiplies what the rule gives.")]
Alpha = Annotated[float, Field(gt=0, le=1e3, description="Power of the tail; ∞ is the rbf.")]
SteinCorrection = Annotated[
    bool, Field(description="Make the score exact for linear functions of the samples.")
]
Iterations = Annotated[int, Field(ge=1, le=100_000)]


# --- bandwidths ---------------------------------------------------------------------------------


class MedianBandwidthSpec(Spec):
    """Bandwidth = scale × the median pairwise distance of the batch."""

    kind: Literal["median"]
    scale: Scale = 1.0


class MeanBandwidthSpec(Spec):
    """Bandwidth = scale × the root mean square pairwise distance of the batch; no sorting."""

    kind: Literal["mean"]
    scale: Scale = 1.0


class PerDimensionBandwidthSpec(Spec):
    """The median rule after every feature is divided by its own standard deviation."""

    kind: Literal["per_dimension"]
    scale: Scale = 1.0


class AutomaticBandwidthSpec(Spec):
    """Per batch the best of ¼, ½, 1, 2, 4 × scale × median by Stein's identity; six-fold work."""

    kind: Literal["automatic"]
    scale: Scale = 1.0


class FixedBandwidthSpec(Spec):
    """A bandwidth that does not follow the data."""

    kind: Literal["fixed"]
    value: float = Field(gt=0, le=1e6, description="Bandwidth, in the units of the samples.")


BandwidthSpec = Annotated[
    MedianBandwidthSpec
    | MeanBandwidthSpec
    | PerDimensionBandwidthSpec
    | AutomaticBandwidthSpec
    | FixedBandwidthSpec,
    Field(discriminator="kind"),
]
WhiteBandwidthSpec = Annotated[
    MedianBandwidthSpec | MeanBandwidthSpec | FixedBandwidthSpec, Field(discriminator="kind")
]


# --- kernels ------------------------------------------------------------------------------------


class RBFKernelSpec(Spec):
    """k(a, b) = exp(−‖a − b‖² / 2σ²)."""

    kind: Literal["rbf"]


class IMQKernelSpec(Spec):
    """The inverse multiquadric, (1 + ‖a − b‖² / 2σ²)^(−1/2)."""

    kind: Literal["imq"]


class RationalQuadraticKernelSpec(Spec):
    """(1 + ‖a − b‖² / 2ασ²)^(−α)."""

    kind: Literal["rational_quadratic"]
    alpha: Alpha = 1.0


class Matern32KernelSpec(Spec):
    """The Matérn kernel of smoothness 3/2."""

    kind: Literal["matern32"]


class Matern52KernelSpec(Spec):
    """The Matérn kernel of smoothness 5/2."""

    kind: Literal["matern52"]


class CurlFreeRBFKernelSpec(Spec):
    """The matrix-valued −σ² ∇∇ᵀ of the rbf kernel: its functions are gradients, as scores are."""

    kind: Literal["curl_free_rbf"]


class CurlFreeIMQKernelSpec(Spec):
    """The matrix-valued −σ² ∇∇ᵀ of the inverse multiquadric."""

    kind: Literal["curl_free_imq"]


class CurlFreeRationalQuadraticKernelSpec(Spec):
    """The matrix-valued −σ² ∇∇ᵀ of the rational quadratic kernel."""

    kind: Literal["curl_free_rational_quadratic"]
    alpha: Alpha = 1.0


_Scalar = (
    RBFKernelSpec
    | IMQKernelSpec
    | RationalQuadraticKernelSpec
    | Matern32KernelSpec
    | Matern52KernelSpec
)
KernelSpec = Annotated[_Scalar, Field(discriminator="kind")]
AnyKernelSpec = Annotated[
    _Scalar | CurlFreeRBFKernelSpec | CurlFreeIMQKernelSpec | CurlFreeRationalQuadraticKernelSpec,
    Field(discriminator="kind"),
]
_RBF = RBFKernelSpec(kind="rbf")


# --- score estimators ---------------------------------------------------------------------------


class GaussianResidualEstimatorSpec(Spec):
    """A fitted Gaussian score plus a kernel residual: the most accurate information gradient."""

    kind: Literal["gaussian_residual"]
    kernel: KernelSpec = _RBF
    bandwidth: WhiteBandwidthSpec = MeanBandwidthSpec(kind="mean", scale=1.5)
    ridge: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="Ridge of the residual, × the mean diagonal, for the joint route.",
    )
    entropy_ridge: float = Field(
        default=0.01, gt=0, le=10, description="The same for the conditional route's H(z)."
    )
    residual: bool = Field(default=True, description="False: the Gaussian score alone.")
    landmarks: int | None = Field(
        default=256,
        ge=1,
        le=65_536,
        description="Landmarks of the Nyström form, taken above 4 × as many rows; null: never.",
    )
    transport: bool = Field(
        default=True, description="Map margins that are plainly not normal to normal ones first."
    )
    shear: bool = Field(
        default=True, description="Take significant non-linear regressions of z on x out first."
    )


class SpectralEstimatorSpec(Spec):
    """The spectral score estimator (SSGE) as MIGE's authors use it."""

    kind: Literal["spectral"]
    kernel: KernelSpec = _RBF
    bandwidth: BandwidthSpec = MedianBandwidthSpec(kind="median")
    explained: float = Field(
        default=0.99, gt=0, le=1, description="Share of the Gram matrix's trace that is kept."
    )
    stein_correction: SteinCorrection = False


class SteinEstimatorSpec(Spec):
    """The Stein gradient estimator: the kernel Stein identities, solved with a ridge."""

    kind: Literal["stein"]
    kernel: KernelSpec = _RBF
    bandwidth: BandwidthSpec = MedianBandwidthSpec(kind="median", scale=3.0)
    ridge: float = Field(default=3e-4, gt=0, le=10, description="Added to the Gram matrix.")
    stein_correction: SteinCorrection = False


class TikhonovEstimatorSpec(Spec):
    """Tikhonov regularisation of the same identities, with scalar or curl-free kernels."""

    kind: Literal["tikhonov"]
    kernel: AnyKernelSpec = _RBF
    bandwidth: BandwidthSpec = MedianBandwidthSpec(kind="median", scale=3.0)
    regularization: float = Field(default=3e-6, gt=0, le=10, description="λ, × the rows.")
    iterations: Iterations = Field(
        default=100, description="Of conjugate gradients, which curl-free kernels take."
    )
    landmarks: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Of the Nyström form, with scalar kernels only; null: every row.",
    )
    stein_correction: SteinCorrection = False


class LandweberEstimatorSpec(Spec):
    """Landweber iteration, stopped early."""

    kind: Literal["landweber"]
    kernel: AnyKernelSpec = _RBF
    bandwidth: BandwidthSpec = MedianBandwidthSpec(kind="median", scale=2.0)
    iterations: Iterations = 10_000
    stein_correction: SteinCorrection = False


class NuMethodEstimatorSpec(Spec):
    """The nu-method: accelerated Landweber iteration, stopped early."""

    kind: Literal["nu_method"]
    kernel: AnyKernelSpec = _RBF
    bandwidth: BandwidthSpec = MedianBandwidthSpec(kind="median", scale=2.0)
    iterations: Iterations = 200
    nu: float = Field(default=1.0, gt=0, le=100, description="Order of the acceleration.")
    stein_correction: SteinCorrection = False


EstimatorSpec = Annotated[
    GaussianResidualEstimatorSpec
    | SpectralEstimatorSpec
    | SteinEstimatorSpec
    | TikhonovEstimatorSpec
    | LandweberEstimatorSpec
    | NuMethodEstimatorSpec,
    Field(discriminator="kind"),
]
