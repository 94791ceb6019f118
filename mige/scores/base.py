"""What a score estimator is, and the handling of samples that all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_rows
from mige.errors import InvalidInputError
from mige.linalg import check_finite


class ScoreEstimate(NamedTuple):
    """A score and the numbers needed to judge it."""

    score: Float[Tensor, "n d"]  # 1 / units of the samples; detached
    diagnostics: Mapping[str, Float[Tensor, ""]]  # 0-d, finite, on the samples' device


class ScoreEstimator(ABC):
    """Estimates the score ∇ log q from samples of q, stateless from call to call.

    A subclass implements `_estimate` for samples that are centred, finite, float32 or float64,
    with at least two rows and no constant feature, and `minimum_samples`.

    Every estimator answers degenerate samples in the same way: a constant feature gets score zero
    and is counted in `num_constant`; where all samples are identical (a single row included) every
    score is zero and `degenerate` is 1; NaN or infinity is an error, never an answer.
    """

    def score(self, samples: Tensor, queries: Tensor | None = None) -> Float[Tensor, "n d"]:
        """Estimate the score at `queries`, or at the samples themselves.

        Args:
            samples: draws from q, (m, d) floating point. Half precision is computed in float32.
            queries: points to evaluate at, (n, d); None means `samples`.

        Returns:
            The score, (n, d), in 1 / units of `samples`. Detached: no gradient flows through it.

        Raises:
            InvalidInputError: a shape or dtype is wrong.
            NumericalError: an input is not finite or a factorisation failed.
        """
        return self.estimate(samples, queries).score

    def estimate(self, samples: Tensor, queries: Tensor | None = None) -> ScoreEstimate:
        """Like `score`, together with diagnostics of the same computation.

        All estimators give `num_constant` and `degenerate`; those with a kernel also `bandwidth`
        and `effective_rank` = (tr K)² / tr K², a smooth count of the Gram matrix's directions.
        """
        check_rows("samples", samples)
        points = samples if queries is None else check_rows("queries", queries)
        if points.shape[1] != samples.shape[1]:
            raise InvalidInputError(
                f"queries have {points.shape[1]} features but samples have {samples.shape[1]}: "
                "give both in the same space"
            )
        with torch.no_grad(), torch.autocast(samples.device.type, enabled=False):
            dtype = torch.float64 if samples.dtype == torch.float64 else torch.float32
            samples = samples.to(dtype)
            check_finite("samples", samples)
            if queries is not None:
                queries = queries.to(samples)
                check_finite("queries", queries)
            return self._estimate_live(samples, queries)

    @abstractmethod
    def minimum_samples(self, dim: int) -> int:
        """The fewest samples of width `dim` from which this estimator is meant to work.

        Fewer still give a finite answer; it just says little about q.
        """

    @abstractmethod
    def _estimate(
        self, samples: Float[Tensor, "m d"], queries: Float[Tensor, "n d"] | None
    ) -> ScoreEstimate:
        """Estimate from clean samples; see the class docstring."""

    def _estimate_live(
        self, samples: Float[Tensor, "m d"], queries: Float[Tensor, "n d"] | None
    ) -> ScoreEstimate:
        """Set constant features aside, centre the others, and put the answer back in place."""
        live = samples.amax(0) > samples.amin(0)
        num_live = int(live.sum())
        score = torch.zeros_like(samples if queries is None else queries)
        diagnostics = {
            "num_constant": samples.new_tensor(float(samples.shape[1] - num_live)),
            "degenerate": samples.new_tensor(float(num_live == 0)),
        }
        if num_live == 0:
            return ScoreEstimate(score, diagnostics)
        if num_live < samples.shape[1]:
            samples = samples[:, live]
            queries = None if queries is None else queries[:, live]
        centre = samples.mean(0)
        estimate = self._estimate(samples - centre, None if queries is None else queries - centre)
        score[:, live] = estimate.score
        return ScoreEstimate(score, {**diagnostics, **estimate.diagnostics})
