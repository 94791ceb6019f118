"""InfoMax by mutual information gradient estimation: maximise I(x; z)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bank import SampleBank
from mige.checks import check_choice, check_count, check_positive
from mige.diagnostics import effective_rank, feature_health, stein_residuals
from mige.errors import InvalidInputError
from mige.gather import GatheredRows, gather_rows
from mige.linalg import check_finite
from mige.mutual_information import information_gradient
from mige.normalization import make_normalizer
from mige.objectives.base import Objective, ObjectiveOutput
from mige.projections import gaussian_projection
from mige.scores import ScoreEstimator

ROUTES = ("joint", "conditional")
GATHER_MODES = ("all", "local")


class MigeInfomax(Objective):
    r"""Maximises I(xP; z) (joint route) or I(x; z) (conditional route) by its estimated gradient.

    The embedding is z = normalizer(encoder output), and what the information is measured of is
    z + noise_std · ε. The loss is minus a surrogate: its gradient is that of −I in nats, its value
    means nothing.

    - *joint*: I = H(xP) + H(z) − H(xP, z) with a fixed Gaussian projection P of the flattened
      images. The recommended recipe is this route, `normalize="none"`, no noise, the `spectral`
      estimator and `projection_dim` = 2 · `embedding_dim`: it gave the best features of all
      single-view recipes that were tried.
    - *conditional*: z | x is Gaussian with standard deviation `noise_std`, so H(z | x) is constant
      and I = H(z) − const. With a bounded z and weak noise this makes noise-like codes: where the
      channel's capacity, d/2 · ln(1 + 1/noise_std²) nats, exceeds ln(number of images), it does not
      constrain.

    On a CPU, values that are not finite are refused with an error. Elsewhere nothing waits for the
    device: such values give a loss that is not finite.

    `info` for logs, of all rows that the workers gathered:

    - `sample_size`: rows that the score was estimated from, those of the bank included;
    - `z_std` (mean over features), `z_effective_rank`, `z_num_dead`, `z_num_saturated`: see
      `mige.diagnostics`;
    - `stein_mean`, `stein_linear`: how far the score (conditional route) is from the Stein
      identities, or the gradient (joint route) from an affine map of z changing nothing. Of a
      gradient of size g (in units of 1 / σ_z), about g √(1/n) and g √(d/n) are sampling noise;
    - with a bank, `bank_mean_shift`, `bank_scale_shift`, `bank_dependence_shift`, `bank_misfit`:
      see `mige.drift.match_moments`;
    - the estimator's diagnostics of H(z) and, on the joint route, those of H(xP, z) with "joint_"
      before them.

    Args:
        route: "joint" or "conditional".
        estimator: the score estimator of every term.
        input_dim: number of values of one image, C · H · W.
        embedding_dim: width of the encoder's output.
        projection_dim: width of xP; the conditional route has no use for it and takes None.
        projection_seed: makes P; P itself is a buffer, so checkpoints carry it.
        noise_std: standard deviation of the noise added to z, in units of the normalised z; the
            conditional route needs it above 0.
        normalize: a name in `mige.normalization.NORMALIZERS`.
        gather: "all" estimates from every data-parallel worker's rows; "local" from own rows,
            which is cheaper and more biased.
        equal_shares: a promise that all workers' batches have as many rows, which saves a wait for
            the device at every step; see `mige.gather_rows`.
        bank_size: how many past rows enlarge the sample that the score is estimated from; see
            `SampleBank`. Checkpoints carry them. The gradient's mean over the batch is then
            subtracted. 0: none.

    Raises:
        InvalidInputError: an argument is outside its range or does not fit the route.

    Source:
        Wen et al., ICLR 2020 (arXiv 2005.01123).
    """

    projection: Float[Tensor, "input_dim projection_dim"] | None
    bank: SampleBank | None

    def __init__(
        self,
        *,
        route: str,
        estimator: ScoreEstimator,
        input_dim: int,
        embedding_dim: int,
        projection_dim: int | None = None,
        projection_seed: int = 0,
        noise_std: float = 0.0,
        normalize: str = "none",
        gather: str = "all",
        equal_shares: bool = False,
        bank_size: int = 0,
    ) -> None:
        super().__init__()
        self.route = check_choice("route", route, ROUTES)
        self.gather = check_choice("gather", gather, GATHER_MODES)
        self.input_dim = check_count("input_dim", input_dim)
        self.embedding_dim = check_count("embedding_dim", embedding_dim)
        self.noise_std = check_positive("noise_std", noise_std, zero_allowed=True)
        self.equal_shares = equal_shares
        self.estimator = estimator
        self.normalizer = make_normalizer(normalize, embedding_dim, across_workers=gather == "all")
        if (projection_dim is None) != (route == "conditional"):
            raise InvalidInputError(
                f"projection_dim={projection_dim!r} with route={route!r}: the joint route needs a "
                "width (2 · embedding_dim is a good one), the conditional route takes none"
            )
        if route == "conditional" and self.noise_std == 0.0:
            raise InvalidInputError(
                "noise_std=0 with route='conditional': without noise z | x has no density; "
                "give noise_std above 0 or take the joint route"
            )
        projection = None
        if projection_dim is not None:
            generator = torch.Generator().manual_seed(projection_seed)
            projection = gaussian_projection(input_dim, projection_dim, generator=generator)
        self.register_buffer("projection", projection)
        self.bank = self._make_bank(bank_size, projection_dim or 0)

    @staticmethod
    def required_batch_size(
        *, estimator: ScoreEstimator, embedding_dim: int, projection_dim: int | None
    ) -> int:
        """The smallest batch, over all gathered workers, from which the estimator is meant to work.

        That is `estimator.minimum_samples` of the widest rows that it sees, embedding_dim +
        projection_dim: 2 for `spectral`, half of that width for `gaussian_residual`. Smaller
        batches (a last, partial one) still give finite gradients.
        """
        return estimator.minimum_samples(embedding_dim + (projection_dim or 0))

    def forward(self, x: Tensor, encoder_output: Tensor) -> ObjectiveOutput:
        """Compute the loss of one batch; see the class.

        A worker may have no rows where the others' are gathered, or alone.

        Raises:
            InvalidInputError: a shape does not fit `input_dim` or `embedding_dim`.
            NumericalError: on a CPU, an input is not finite or a factorisation failed.
        """
        self._check_shapes(x, encoder_output)
        with torch.autocast(encoder_output.device.type, enabled=False):
            half = encoder_output.dtype in (torch.float16, torch.bfloat16)
            z = self.normalizer(encoder_output.float() if half else encoder_output)
            if self.noise_std > 0.0:
                z = z + self.noise_std * torch.randn_like(z)
            gathered = self._gathered_rows(x, z)
            if not len(gathered.rows):
                return ObjectiveOutput(z.sum(), {"sample_size": z.new_zeros(())})
            gradient, info = self._information_gradient(gathered.rows)
            loss = -gathered.mean_weight * (gradient[gathered.own] * z).sum()
        return ObjectiveOutput(loss, info)

    def _gathered_rows(self, x: Tensor, z: Float[Tensor, "n d"]) -> GatheredRows:
        """The rows of xP and z that the score is estimated from, but for the bank's."""
        rows = z.detach()
        if self.projection is not None:
            projected = x.detach().flatten(1).to(z) @ self.projection.to(z)
            rows = torch.cat([projected, rows], dim=1)
        if self.gather == "all":
            return gather_rows(rows, equal_shares=self.equal_shares)
        return GatheredRows(rows, slice(0, len(rows)), 1)

    def _information_gradient(
        self, batch: Float[Tensor, "n w"]
    ) -> tuple[Float[Tensor, "n d"], dict[str, Float[Tensor, ""]]]:
        """N · ∂I/∂z of the rows of a batch, and what the logs show."""
        check = batch.device.type == "cpu"
        if check:
            check_finite("the batch of projected images and embeddings", batch)
        rows, drift = batch, dict[str, Tensor]()
        if self.bank is not None:
            rows, diagnostics = self.bank.enlarge(batch)
            drift = dict(diagnostics)
        width = batch.shape[1] - self.embedding_dim
        estimated: Mapping[str, Tensor]
        if self.projection is None:
            score, estimated = self.estimator.entropy_score(rows, check=check)
            gradient, target = -score[: len(batch)], 1.0
        else:
            whole = information_gradient(
                rows[:, :width], rows[:, width:], self.estimator, check=check
            )
            gradient, target, estimated = whole.z[: len(batch)], 0.0, whole.diagnostics
        z = batch[:, width:]
        health, stein = feature_health(z), stein_residuals(gradient, z, target=target)
        if self.bank is not None:
            # Adding a constant to z changes no information, but only in sample is that exact. What
            # is left pushes the embedding's mean away from the bank's, faster at every step.
            gradient = gradient - gradient.mean(0)
        return gradient, {
            "sample_size": z.new_full((), float(len(rows))),
            "z_std": z.std(0, correction=0).mean(),
            "z_effective_rank": effective_rank(z),
            "z_num_dead": health.num_dead,
            "z_num_saturated": health.num_saturated,
            "stein_mean": stein.mean,
            "stein_linear": stein.linear,
            **drift,
            **estimated,
        }

    def _make_bank(self, bank_size: int, projection_dim: int) -> SampleBank | None:
        if check_positive("bank_size", bank_size, zero_allowed=True) == 0:
            return None
        if self.gather == "local":
            raise InvalidInputError(
                f"bank_size={bank_size} with gather='local': workers would keep different banks; "
                "gather 'all' or leave the bank out"
            )
        return SampleBank(bank_size, projection_dim + self.embedding_dim, num_fixed=projection_dim)

    def _check_shapes(self, x: Tensor, encoder_output: Tensor) -> None:
        if math.prod(x.shape[1:]) != self.input_dim or encoder_output.shape != (
            len(x),
            self.embedding_dim,
        ):
            raise InvalidInputError(
                f"x has shape {tuple(x.shape)} and the encoder's output "
                f"{tuple(encoder_output.shape)}: expected (n, ...) with {self.input_dim} values "
                f"per image (input_dim) and (n, {self.embedding_dim}) (embedding_dim)"
            )
