"""What can be calibrated: anything that gives n · ∂I/∂z_i for paired rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds import BOUNDS, Bound, BoundEnsemble, fit_bound
from mige.checks import check_choice, check_count, check_positive
from mige.errors import InvalidInputError
from mige.registry import build_from_registry
from mige.scores import SCORE_ESTIMATORS, ScoreEstimator, SteinCorrectedEstimator


@runtime_checkable
class Subject(Protocol):
    """An estimator of MI gradients under test."""

    @property
    def name(self) -> str:
        """A name in a registry."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """What distinguishes this configuration, as JSON has it."""
        ...

    def gradient(
        self, x: Float[Tensor, "b n dx"], z: Float[Tensor, "b n dz"], seed: int
    ) -> Float[Tensor, "b n dz"]:
        """The rows n · ∂I/∂z_i of b samples at once; detached.

        Args:
            x: rows paired with those of `z`.
            z: detached.
            seed: of whatever the estimator draws itself.
        """
        ...

    @property
    def gives_scores(self) -> bool:
        """Whether `score` can be asked."""
        ...

    def score(self, samples: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """∇ log q at the samples.

        Raises:
            InvalidInputError: this subject estimates none.
        """
        ...

    def minimum_samples(self, dim: int) -> int:
        """The fewest rows of pairs with `dim` features in all that it is meant for."""
        ...


@dataclass(frozen=True)
class ScoreSubject:
    """A score estimator under the name and options that a card is to show."""

    estimator: ScoreEstimator
    name: str
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def gives_scores(self) -> bool:
        """It does."""
        return True

    def gradient(
        self,
        x: Float[Tensor, "b n dx"],
        z: Float[Tensor, "b n dz"],
        seed: int,  # noqa: ARG002  score estimators draw nothing
    ) -> Float[Tensor, "b n dz"]:
        """Joint minus marginal score."""
        return self.estimator.information_gradient(x, z).z

    def score(self, samples: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The score, estimated for averages over the samples."""
        return self.estimator.entropy_score(samples).score

    def minimum_samples(self, dim: int) -> int:
        """The estimator's own."""
        return self.estimator.minimum_samples(dim)


@dataclass(frozen=True)
class BoundSubject:
    """A bound on MI, fitted anew on the very rows whose gradient is asked: an equal sample budget.

    Options beside the bound's own: `steps` (200) and `learning_rate` (1e-3) of Adam over all rows.

    Raises:
        InvalidInputError: the name, an option or a value is not acceptable, or the bound has no
            gradient.
    """

    name: str
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("bound", self.name, BOUNDS.keys())
        if widths := self.options.keys() & {"dim_x", "dim_z"}:
            raise InvalidInputError(f"options hold {sorted(widths)}: the samples give the widths")
        check_count("steps", self._fit_option("steps"))
        check_positive("learning_rate", self._fit_option("learning_rate"))
        if not self._make(1, 1).has_gradient:
            raise InvalidInputError(
                f"bound {self.name!r} gives a value and no gradient: choose another one"
            )

    def gradient(
        self, x: Float[Tensor, "b n dx"], z: Float[Tensor, "b n dz"], seed: int
    ) -> Float[Tensor, "b n dz"]:
        """Fit one bound per sample, then differentiate it in z."""
        with torch.random.fork_rng(devices=[]):  # parameters come from torch's own generator
            torch.manual_seed(seed)
            bounds = [self._make(x.shape[-1], z.shape[-1]) for _ in x]
        ensemble = BoundEnsemble(bounds).to(x.device)
        steps, rate = self._fit_option("steps"), self._fit_option("learning_rate")
        fit_bound(
            ensemble,
            lambda: (x, z),
            steps=check_count("steps", steps),
            learning_rate=check_positive("learning_rate", rate),
        )
        return ensemble.information_gradient(x, z).z.to(z)

    @property
    def gives_scores(self) -> bool:
        """It does not."""
        return False

    def score(
        self,
        samples: Float[Tensor, "b n d"],  # noqa: ARG002
    ) -> Float[Tensor, "b n d"]:
        """Refuse: a bound has none."""
        raise InvalidInputError(f"bound {self.name!r} gives no scores: take a score estimator")

    def minimum_samples(self, dim: int) -> int:  # noqa: ARG002  no limit that depends on the width
        """Two: one row has no false pair."""
        return 2

    def _make(self, dim_x: int, dim_z: int) -> Bound:
        options = {**self._own_options(), "dim_x": dim_x, "dim_z": dim_z}
        return build_from_registry(BOUNDS, "bound", self.name, options)

    def _fit_option(self, name: str) -> object:
        return self.options.get(name, {"steps": 200, "learning_rate": 1e-3}[name])

    def _own_options(self) -> dict[str, object]:
        fit = {"steps", "learning_rate"}
        return {key: value for key, value in self.options.items() if key not in fit}


def make_subject(name: str, options: Mapping[str, object] | None = None) -> Subject:
    """A score estimator or a bound, by name.

    Args:
        name: in `SCORE_ESTIMATORS` or `BOUNDS`.
        options: keyword arguments of it; for score estimators also `stein_correction`, for bounds
            those of the fit.

    Raises:
        InvalidInputError: the name, an option or a value is not acceptable.
    """
    check_choice("estimator", name, SCORE_ESTIMATORS.keys() | BOUNDS.keys())
    if name in SCORE_ESTIMATORS:
        return ScoreSubject(_build_estimator(name, options or {}), name, options or {})
    return BoundSubject(name, options or {})


def _build_estimator(name: str, options: Mapping[str, object]) -> ScoreEstimator:
    own = dict(options)
    correction = own.pop("stein_correction", False)
    if not isinstance(correction, bool):
        raise InvalidInputError(f"stein_correction={correction!r}: give true or false")
    estimator = build_from_registry(SCORE_ESTIMATORS, "score estimator", name, own)
    return SteinCorrectedEstimator(estimator) if correction else estimator
