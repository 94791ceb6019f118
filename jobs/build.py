"""The one translation from a spec to data, encoder, objective and optimiser. No defaults here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import mige
from jobs.data import ImageArrays, load_data
from jobs.data.sampler import BatchSampler
from jobs.estimator_spec import EstimatorSpec, FixedBandwidthSpec
from jobs.spec import (
    DimConvEncoderSpec,
    EncoderSpec,
    JobSpec,
    MLPEncoderSpec,
)


class TrainingModule(nn.Module):
    """Encoder and objective as one module, so that one wrapper covers all their parameters."""

    def __init__(self, encoder: nn.Module, objective: mige.Objective) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective

    def forward(self, images: Tensor) -> mige.ObjectiveOutput:
        """The objective of standardised images (n, C, H, W)."""
        output: mige.ObjectiveOutput = self.objective(images, self.encoder(images))
        return output


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltJob:
    """All that the training loop works on."""

    spec: JobSpec
    arrays: ImageArrays
    config: mige.EncoderConfig
    module: TrainingModule
    optimizer: torch.optim.Optimizer
    sampler: BatchSampler
    device: torch.device

    @property
    def total_steps(self) -> int:
        """How many steps the whole training takes."""
        training = self.spec.training
        steps = training.epochs * self.sampler.steps_per_epoch
        return steps if training.max_steps is None else min(steps, training.max_steps)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step (from 0). A function of the step: nothing to store."""
        peak = self.spec.optimizer.learning_rate
        if self.spec.training.schedule == "constant":
            return peak
        return peak * 0.5 * (1.0 + math.cos(math.pi * step / self.total_steps))


def build(spec: JobSpec, data_root: Path | None, *, device: torch.device) -> BuiltJob:
    """Build what a resolved spec describes.

    The weights are a function of `spec.seed` alone, the same on every worker.

    Raises:
        SpecInvalidError: the data set is missing.
        DataInvalidError: the data set cannot be read.
    """
    arrays = load_data(spec.data, data_root).limited(spec.training.limit_train_rows)
    config = encoder_config(spec, arrays)
    module = TrainingModule(
        build_encoder(config, seed=spec.seed), build_objective(spec, arrays.image_shape)
    ).to(device)
    return BuiltJob(
        spec=spec,
        arrays=arrays,
        config=config,
        module=module,
        optimizer=torch.optim.AdamW(
            module.parameters(),
            lr=spec.optimizer.learning_rate,
            weight_decay=spec.optimizer.weight_decay,
        ),
        sampler=BatchSampler(
            num_rows=len(arrays.x_train), batch_size=spec.training.batch_size, seed=spec.seed
        ),
        device=device,
    )


def encoder_config(spec: JobSpec, arrays: ImageArrays) -> mige.EncoderConfig:
    """What the published encoder will say of itself."""
    mean, std = arrays.channel_statistics()
    return mige.EncoderConfig(
        kind=spec.encoder.kind,
        input_shape=arrays.image_shape,
        out_dim=spec.encoder.out_dim,
        mean=mean,
        std=std,
        options=_encoder_options(spec.encoder),
        normalize=spec.objective.normalize,
    )


def build_encoder(config: mige.EncoderConfig, *, seed: int) -> nn.Module:
    """The untrained encoder of a config; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return mige.make_encoder(
            config.kind, input_shape=config.input_shape, out_dim=config.out_dim, **config.options
        )


def build_objective(spec: JobSpec, image_shape: tuple[int, int, int]) -> mige.Objective:
    """The objective of a spec."""
    objective = spec.objective
    return mige.OBJECTIVES[objective.kind](
        route=objective.route,
        estimator=build_estimator(objective.estimator),
        input_dim=math.prod(image_shape),
        embedding_dim=spec.encoder.out_dim,
        projection_dim=objective.projection_dim,
        projection_seed=spec.seed,
        noise_std=objective.noise_std,
        normalize=objective.normalize,
        gather=objective.gather,
        equal_shares=True,  # a batch is a multiple of the workers, and each is whole
        bank_size=objective.bank_size,
    )


def build_estimator(estimator: EstimatorSpec) -> mige.ScoreEstimator:
    """The score estimator of a spec: its fields are the library's options, two of them nested."""
    options = estimator.model_dump(exclude={"kind", "kernel", "bandwidth"})
    kernel_options = estimator.kernel.model_dump(exclude={"kind"})
    bandwidth = estimator.bandwidth
    if isinstance(bandwidth, FixedBandwidthSpec):
        options["bandwidth"] = bandwidth.value
    else:
        options |= {"bandwidth": bandwidth.kind, "bandwidth_scale": bandwidth.scale}
    return mige.make_score_estimator(
        estimator.kind, kernel=estimator.kernel.kind, kernel_options=kernel_options, **options
    )


def _encoder_options(encoder: EncoderSpec) -> dict[str, object]:
    match encoder:
        case MLPEncoderSpec(hidden_dims=hidden_dims):
            return {"hidden_dims": hidden_dims}
        case DimConvEncoderSpec(base_channels=base, fc_dim=fc_dim):
            return {"channels": (base, 2 * base, 4 * base), "hidden_dim": fc_dim}
        case _:
            return {}
