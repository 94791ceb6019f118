"""Whether a spec can run on its data at all: pure, told before anything is stored.

The floors on the number of kernel samples n (rows of a batch that one score estimate sees, and
those of its bank) follow from the estimators:

- all: n ≥ 8. Below that a Gram matrix has one or two directions worth inverting.
- gaussian_residual: n ≥ D / 2 as well, where D is the widest vector a score is estimated of. With
  fewer rows its shrinkage saturates and most of the fitted covariance is invented.

With a bank, a batch itself needs 8 rows: fewer say nothing of how its past rows have drifted. While
the bank fills, the first steps see fewer samples than the floor.

A test keeps them at or above what the estimators themselves declare (`minimum_samples`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import MappingProxyType

from jobs.data_sources import DataDescription
from jobs.errors import SpecInvalidError
from jobs.estimator_spec import TikhonovEstimatorSpec
from jobs.spec import (
    DimConvEncoderSpec,
    JobSpec,
    MLPEncoderSpec,
    ResNet18EncoderSpec,
)

MIN_SAMPLES_ANY = 8
DIM_CONV_SIDES = (28, 32)
FLOAT_BYTES = 4
COPIES_OF_PARAMETERS = 5  # weights, gradient, Adam's two moments, the buffer of the all-reduce
COPIES_OF_PROJECTION = 2  # the matrix, and the copy that a checkpoint is written from
COPIES_OF_GRAM = 12  # distances, kernel, eigenvectors and their work space, for joint and marginal
MAX_WORKER_BYTES = 16 * 2**30
RESNET18_PARAMETERS = 11_200_000  # without the last layer
BATCH_NORMALIZED = frozenset({"dim_conv", "resnet18"})  # encoders that normalise own rows


def check_feasible(spec: JobSpec, description: DataDescription) -> None:
    """Refuse a resolved spec that cannot run.

    Args:
        spec: the resolved spec (`JobSpec.resolved()`).
        description: of the data set that the spec names.

    Raises:
        SpecInvalidError: the first thing that cannot work, its JSON pointer and a remedy.
    """
    for check in (_check_rows, _check_workers, _check_encoder, _check_objective, _check_memory):
        check(spec, description)


def kernel_samples(spec: JobSpec) -> int:
    """How many rows one score estimate sees, those of a full bank included."""
    if spec.objective.gather == "all":
        return spec.training.batch_size + spec.objective.bank_size
    return spec.training.batch_size // spec.resources.num_workers


def training_rows(spec: JobSpec, description: DataDescription) -> int:
    """How many rows of the training set are used."""
    limit = spec.training.limit_train_rows
    return description.num_train if limit is None else min(limit, description.num_train)


def worker_bytes(spec: JobSpec, description: DataDescription) -> int:
    """About how much memory one worker needs beside its libraries, in bytes.

    The arrays of the data set, the parameters with their optimiser state, the projection of the
    images, and the n × n matrices of the score estimates. Activations are left out: the batch is
    small beside these.
    """
    return sum(_bytes_by_part(spec, description).values())


def num_parameters(spec: JobSpec, description: DataDescription) -> int:
    """About how many weights the encoder has."""
    match spec.encoder:
        case MLPEncoderSpec(out_dim=out_dim, hidden_dims=hidden):
            widths = (math.prod(description.image_shape), *hidden, out_dim)
            return sum((a + 1) * b for a, b in itertools.pairwise(widths))
        case DimConvEncoderSpec(out_dim=out_dim, base_channels=base, fc_dim=fc_dim):
            channels, height, _ = description.image_shape
            convolutions = 16 * (channels * base + 2 * base**2 + 8 * base**2)
            return convolutions + 4 * base * (height // 8) ** 2 * fc_dim + fc_dim * out_dim
        case ResNet18EncoderSpec(out_dim=out_dim):
            return RESNET18_PARAMETERS + 512 * out_dim


def _check_rows(spec: JobSpec, description: DataDescription) -> None:
    rows, batch = training_rows(spec, description), spec.training.batch_size
    if batch > rows:
        limited = rows < description.num_train
        raise SpecInvalidError(
            "/training/batch_size",
            "too_large",
            f"A batch of {batch} rows is larger than the {rows} training rows"
            f"{' that limit_train_rows leaves' if limited else ''}.",
            f"Lower it to {rows} or less{', or raise limit_train_rows' if limited else ''}.",
        )


def _check_workers(spec: JobSpec, description: DataDescription) -> None:
    del description
    workers, batch = spec.resources.num_workers, spec.training.batch_size
    if spec.resources.backend == "inline" and workers != 1:
        raise SpecInvalidError(
            "/resources/num_workers",
            "infeasible_config",
            f"The inline backend is one process; {workers} workers were asked for.",
            "Set num_workers to 1, or the backend to 'ray_train'.",
        )
    if batch % workers:
        raise SpecInvalidError(
            "/training/batch_size",
            "infeasible_config",
            f"A batch of {batch} rows cannot be split evenly over {workers} workers.",
            f"Use a multiple of {workers}, such as {math.ceil(batch / workers) * workers}.",
        )
    if batch == workers and spec.encoder.kind in BATCH_NORMALIZED:
        raise SpecInvalidError(
            "/training/batch_size",
            "infeasible_config",
            f"Each of the {workers} workers would get one row, and the encoder "
            f"{spec.encoder.kind!r} normalises over the rows of a worker.",
            f"Use at least {2 * workers} rows, fewer workers, or the encoder 'mlp'.",
        )


def _check_encoder(spec: JobSpec, description: DataDescription) -> None:
    _, height, width = description.image_shape
    if spec.encoder.kind != "dim_conv":
        return
    if height != width or height not in DIM_CONV_SIDES:
        raise SpecInvalidError(
            "/encoder/kind",
            "infeasible_config",
            f"The encoder 'dim_conv' takes images of 28 or 32 pixels, these have "
            f"{height} × {width}.",
            "Use the encoder 'mlp' or 'resnet18', or images of that size.",
        )


def _check_objective(spec: JobSpec, description: DataDescription) -> None:
    objective = spec.objective
    if objective.route == "conditional" and objective.noise_std == 0:
        raise SpecInvalidError(
            "/objective/noise_std",
            "objective_infeasible",
            "The conditional route needs p(z|x) to have a density: noise_std is 0.",
            "Set noise_std above 0 (0.1 is a start), or use the joint route.",
        )
    if objective.route == "conditional" and objective.projection_dim is not None:
        raise SpecInvalidError(
            "/objective/projection_dim",
            "infeasible_config",
            "The conditional route does not look at x: a projection of x would not be used.",
            "Leave projection_dim out, or use the joint route.",
        )
    if objective.normalize == "sphere" and spec.encoder.out_dim < 2:
        raise SpecInvalidError(
            "/encoder/out_dim",
            "objective_infeasible",
            "On the unit sphere an embedding of one number is 1 or -1 whatever the image.",
            "Raise out_dim to 2 or more, or set objective.normalize to 'none'.",
        )
    _check_landmarks(spec)
    _check_bank(spec, description)
    _check_kernel_samples(spec)


def _check_landmarks(spec: JobSpec) -> None:
    estimator = spec.objective.estimator
    if not isinstance(estimator, TikhonovEstimatorSpec) or estimator.landmarks is None:
        return
    if estimator.kernel.kind.startswith("curl_free"):
        raise SpecInvalidError(
            "/objective/estimator/landmarks",
            "infeasible_config",
            f"The kernel {estimator.kernel.kind!r} has no Nyström form: landmarks would not be "
            "used.",
            "Leave landmarks out, or use a scalar kernel such as 'rbf'.",
        )


def _check_bank(spec: JobSpec, description: DataDescription) -> None:
    bank, batch = spec.objective.bank_size, spec.training.batch_size
    rows = training_rows(spec, description)
    if bank == 0:
        return
    if spec.objective.gather == "local":
        raise SpecInvalidError(
            "/objective/bank_size",
            "infeasible_config",
            "With objective.gather 'local' the workers would keep different banks.",
            "Set bank_size to 0, or objective.gather to 'all'.",
        )
    if bank + batch > rows:
        raise SpecInvalidError(
            "/objective/bank_size",
            "too_large",
            f"A bank of {bank} rows and a batch of {batch} hold more than the {rows} training "
            "rows: each image would be there more than once.",
            f"Lower bank_size to {rows - batch} or less.",
        )
    if batch < MIN_SAMPLES_ANY:
        raise SpecInvalidError(
            "/training/batch_size",
            "objective_infeasible",
            f"A batch of {batch} rows is too small to match the past rows of a bank to it.",
            f"Raise training.batch_size to {MIN_SAMPLES_ANY} or more.",
        )


def _check_kernel_samples(spec: JobSpec) -> None:
    samples, needed = kernel_samples(spec), MIN_SAMPLES[spec.objective.estimator.kind](spec)
    if samples >= needed:
        return
    workers = spec.resources.num_workers
    local = spec.objective.gather == "local" and workers > 1
    needed_batch = needed - spec.objective.bank_size
    batch = needed * workers if local else math.ceil(needed_batch / workers) * workers
    remedy = f"Raise training.batch_size to {batch} or more"
    if local:
        remedy += ", or set objective.gather to 'all'"
    elif spec.objective.gather == "all" and spec.training.batch_size >= MIN_SAMPLES_ANY:
        remedy += f", or objective.bank_size to {needed - spec.training.batch_size} or more"
    if spec.objective.estimator.kind == "gaussian_residual":
        remedy += ", lower encoder.out_dim or objective.projection_dim, or use the estimator "
        remedy += "'spectral'"
    raise SpecInvalidError(
        "/training/batch_size",
        "objective_infeasible",
        f"The estimator {spec.objective.estimator.kind!r} needs at least {needed} rows per "
        f"estimate; it would see {samples}{' on each worker' if local else ''}.",
        f"{remedy}.",
    )


def _check_memory(spec: JobSpec, description: DataDescription) -> None:
    needed = worker_bytes(spec, description)
    if needed <= MAX_WORKER_BYTES:
        return
    parts = _bytes_by_part(spec, description)
    pointer = max(parts, key=lambda part: parts[part])
    raise SpecInvalidError(
        pointer,
        "too_large",
        f"A worker would need about {needed / 2**30:.0f} GiB; the limit is "
        f"{MAX_WORKER_BYTES / 2**30:.0f} GiB.",
        _SMALLER[pointer],
    )


_SMALLER: MappingProxyType[str, str] = MappingProxyType(
    {
        "/training/batch_size": "Lower training.batch_size.",
        "/objective/bank_size": "Lower objective.bank_size.",
        "/encoder": "Make the encoder narrower.",
        "/objective/projection_dim": "Lower objective.projection_dim, or use smaller images.",
        "/data": "Use fewer or smaller images.",
    }
)


def _bytes_by_part(spec: JobSpec, description: DataDescription) -> dict[str, int]:
    """What needs the memory of a worker, by the place in the spec that sets it."""
    values = math.prod(description.image_shape)
    rows = description.num_train + description.num_test
    floats = {
        _largest_part_of_kernel(spec): kernel_samples(spec) ** 2 * COPIES_OF_GRAM,
        "/encoder": num_parameters(spec, description) * COPIES_OF_PARAMETERS,
        "/objective/projection_dim": values
        * (spec.objective.projection_dim or 0)
        * COPIES_OF_PROJECTION,
        "/data": rows * values,
    }
    return {part: count * FLOAT_BYTES for part, count in floats.items()}


def _largest_part_of_kernel(spec: JobSpec) -> str:
    bank_is_larger = spec.objective.bank_size > spec.training.batch_size
    return "/objective/bank_size" if bank_is_larger else "/training/batch_size"


def _widest(spec: JobSpec) -> int:
    return spec.encoder.out_dim + (spec.objective.projection_dim or 0)


MIN_SAMPLES: MappingProxyType[str, Callable[[JobSpec], int]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("spectral", "stein", "tikhonov", "landweber", "nu_method"), lambda _: MIN_SAMPLES_ANY
        ),
        "gaussian_residual": lambda spec: max(MIN_SAMPLES_ANY, math.ceil(_widest(spec) / 2)),
    }
)
