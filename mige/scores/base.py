"""What a score estimator is, and the handling of samples that all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mige.checks import check_samples
from mige.errors import InvalidInputError
from mige.linalg import check_finite


class ScoreEstimate(NamedTuple):
    """A score and the numbers needed to judge it."""

    score: Float[Tensor, "*b n d"]  # 1 / units of the samples; detached
    diagnostics: Mapping[str, Float[Tensor, "*b"]]  # one number per batch, on the samples' device


class InformationGradient(NamedTuple):
    """n times the gradient of I(x; z) in each row of z (and of x); detached."""

    z: Float[Tensor, "*b n dz"]
    x: Float[Tensor, "*b n dx"] | None  # None unless asked for
    diagnostics: Mapping[str, Float[Tensor, "*b"]]  # of H(z); of H(x, z) with "joint_" before them


class ScoreEstimator(ABC):
    """Estimates the score ∇ log q from samples of q, stateless from call to call.

    Samples may have leading dimensions: each matrix of the last two is a batch of its own.

    A subclass implements `_estimate` and `minimum_samples`. `_estimate` gets float32 or float64
    samples that are centred and whose constant features are zero; it decides by shapes and
    options alone and reads nothing back from the device, so that CUDA need not wait and
    `torch.compile` sees one graph.

    Every estimator answers degenerate samples in the same way: a constant feature gets score zero
    and is counted in `num_constant`; where all samples are identical (a single row included) every
    score is zero and `degenerate` is 1; NaN or infinity is an error, never an answer.
    """

    def score(
        self, samples: Tensor, queries: Tensor | None = None, *, check: bool = True
    ) -> Float[Tensor, "*b n d"]:
        """Estimate the score at `queries`, or at the samples themselves.

        Args:
            samples: draws from q, (..., m, d) floating point. Half precision is computed in
                float32.
            queries: points to evaluate at, (..., n, d) with the same leading dimensions; None means
                `samples`.
            check: refuse NaN and infinity, in the input or the answer, with an error. That waits
                for the device; False does not, and answers such input with NaN throughout.

        Returns:
            The score, (..., n, d), in 1 / units of `samples`. Detached: no gradient flows through.

        Raises:
            InvalidInputError: a shape or dtype is wrong.
            NumericalError: an input is not finite or a factorisation failed.
        """
        return self.estimate(samples, queries, check=check).score

    def estimate(
        self, samples: Tensor, queries: Tensor | None = None, *, check: bool = True
    ) -> ScoreEstimate:
        """Like `score`, together with diagnostics of the same computation.

        All estimators give `num_constant` and `degenerate`; those with a kernel also `bandwidth`
        and `effective_rank` = (tr K)² / tr K², a smooth count of the Gram matrix's directions.
        """
        check_samples("samples", samples)
        if queries is not None:
            _check_queries(queries, samples)
        with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
            samples = samples.to(working_dtype(samples))
            queries = None if queries is None else queries.to(samples)
            if check:
                check_finite("samples", samples)
                if queries is not None:
                    check_finite("queries", queries)
            estimate = self._estimate_live(samples, queries)
            if check:
                check_finite("the score", estimate.score)
            return estimate

    def entropy_score(self, samples: Tensor, *, check: bool = True) -> ScoreEstimate:
        """The score at the samples, estimated for averages over them.

        That is what an entropy's gradient is: −E[(∂z/∂ψ)ᵀ s(z)]. Averages forgive noise and not
        bias, so an estimator may smooth less here than where a single score counts. Arguments,
        diagnostics and errors as in `estimate`.
        """
        check_samples("samples", samples)
        with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
            samples = samples.to(working_dtype(samples))
            if check:
                check_finite("samples", samples)
            live = LiveSamples.of(samples)
            estimate = self._entropy_score(live.shift(samples))
            score = live.blank(estimate.score)
            if check:
                check_finite("the score", score)
            return ScoreEstimate(score, {**live.diagnostics(), **estimate.diagnostics})

    def information_gradient(
        self, x: Tensor, z: Tensor, *, wrt_x: bool = False, check: bool = True
    ) -> InformationGradient:
        """Estimate n · ∂I/∂z_i = s_{xz,z}(x_i, z_i) − s_z(z_i), and the same for x if asked.

        Args:
            x: (..., n, dx), rows paired with those of `z`.
            z: (..., n, dz).
            wrt_x: also estimate the gradient in x, at the price of one more score.
            check: as in `score`.

        Raises:
            InvalidInputError: the numbers of rows differ, or a shape or dtype is wrong.
            NumericalError: an input is not finite or a factorisation failed.
        """
        check_samples("x", x)
        check_samples("z", z)
        if x.shape[:-1] != z.shape[:-1]:
            raise InvalidInputError(
                f"x has shape {tuple(x.shape)} and z {tuple(z.shape)}: give as many rows of one as "
                "of the other, in pairs"
            )
        dtype = working_dtype(x, z)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            x, z = x.detach().to(dtype), z.detach().to(dtype)
            if check:
                check_finite("x", x)
                check_finite("z", z)
            gradient = self._information_gradient(x, z, wrt_x=wrt_x)
            if check:
                check_finite("the information gradient", gradient.z)
                if gradient.x is not None:
                    check_finite("the information gradient in x", gradient.x)
            return gradient

    @abstractmethod
    def minimum_samples(self, dim: int) -> int:
        """The fewest samples of width `dim` from which this estimator is meant to work.

        Fewer still give a finite answer; it just says little about q.
        """

    @abstractmethod
    def _estimate(
        self, samples: Float[Tensor, "*b m d"], queries: Float[Tensor, "*b n d"] | None
    ) -> ScoreEstimate:
        """Estimate from clean samples; see the class docstring."""

    def _entropy_score(self, samples: Float[Tensor, "*b m d"]) -> ScoreEstimate:
        """As `_estimate` without queries; for estimators that have something better."""
        return self._estimate(samples, None)

    def _information_gradient(
        self, x: Float[Tensor, "*b n dx"], z: Float[Tensor, "*b n dz"], *, wrt_x: bool
    ) -> InformationGradient:
        """The difference of two estimated scores, for pairs of the same dtype."""
        joint = self._estimate_live(torch.cat([z, x], dim=-1), None)
        marginal = self._estimate_live(z, None)
        joint_z, joint_x = joint.score[..., : z.shape[-1]], joint.score[..., z.shape[-1] :]
        gradient_x = joint_x - self._estimate_live(x, None).score if wrt_x else None
        return InformationGradient(
            joint_z - marginal.score,
            gradient_x,
            both_diagnostics(marginal.diagnostics, joint.diagnostics),
        )

    def _estimate_live(
        self, samples: Float[Tensor, "*b m d"], queries: Float[Tensor, "*b n d"] | None
    ) -> ScoreEstimate:
        """Centre, blank constant features before and after, and let no bad value go unseen."""
        live = LiveSamples.of(samples)
        shifted = None if queries is None else live.shift(queries)
        estimate = self._estimate(live.shift(samples), shifted)
        score = live.blank(estimate.score)
        if queries is not None:
            score = torch.where(LiveSamples.of(queries).finite, score, torch.nan)
        return ScoreEstimate(score, {**live.diagnostics(), **estimate.diagnostics})


class LiveSamples(NamedTuple):
    """What is common to the handling of samples: their centre, and what must not be trusted."""

    centre: Float[Tensor, "*b 1 d"]
    constant: Bool[Tensor, "*b 1 d"]  # features with one finite value only
    finite: Bool[Tensor, "*b 1 1"]

    @classmethod
    def of(cls, samples: Float[Tensor, "*b m d"]) -> "LiveSamples":
        """Look at samples."""
        low, high = samples.amin(-2, keepdim=True), samples.amax(-2, keepdim=True)
        return cls(
            samples.mean(-2, keepdim=True),
            (low == high) & torch.isfinite(low),
            (torch.isfinite(low) & torch.isfinite(high)).all(-1, keepdim=True),
        )

    def shift(self, points: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """Points relative to the centre; constant features become zero."""
        return torch.where(self.constant, 0.0, points - self.centre)

    def blank(self, score: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """The score with zeros for constant features, and NaN where the samples were not finite."""
        return torch.where(self.finite, torch.where(self.constant, 0.0, score), torch.nan)

    def leading(self, dim: int) -> "LiveSamples":
        """Of the first `dim` features; what is not finite elsewhere still counts."""
        return self._replace(centre=self.centre[..., :dim], constant=self.constant[..., :dim])

    def diagnostics(self) -> dict[str, Float[Tensor, "*b"]]:
        """`num_constant`, and `degenerate`: 1 where all samples are identical."""
        return {
            "num_constant": self.constant.sum((-2, -1)).to(self.centre),
            "degenerate": self.constant.all(-1).all(-1).to(self.centre),
        }


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Float64 if any tensor is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def both_diagnostics(
    marginal: Mapping[str, Tensor], joint: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Those of H(z) as they are, those of H(x, z) with "joint_" before their names."""
    return {**marginal, **{f"joint_{key}": value for key, value in joint.items()}}


def _check_queries(queries: Tensor, samples: Tensor) -> None:
    check_samples("queries", queries)
    if queries.shape[-1] != samples.shape[-1]:
        raise InvalidInputError(
            f"queries have {queries.shape[-1]} features but samples have {samples.shape[-1]}: "
            "give both in the same space"
        )
    if queries.shape[:-2] != samples.shape[:-2]:
        raise InvalidInputError(
            f"queries have leading dimensions {tuple(queries.shape[:-2])} but samples "
            f"{tuple(samples.shape[:-2])}: give one set of queries per set of samples"
        )
