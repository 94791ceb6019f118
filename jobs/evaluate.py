"""What a trained encoder is worth, by the protocols of `mige.evaluation`, beside two baselines.

`random` is the same encoder with the weights it started from, `raw` the pixels themselves. Where a
limit applies, evenly spaced rows are used, so that sorted data sets keep all their classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import mige
from jobs.build import BuiltJob, build_encoder, build_objective
from jobs.data import ImageArrays
from jobs.data.image_arrays import unit_scale
from jobs.errors import DataInvalidError
from jobs.spec import EvaluationSpec
from mige.evaluation import KNN, LINEAR_PROBE

RANK_ME = "rankme@1"
MAX_CLASSES = 10_000
MAX_RAW_VALUES = 2**28  # of both splits together; beyond it raw pixels are not probed (1 GiB)

Evaluation = dict[str, dict[str, float | int]]
Embed = Callable[[Tensor], Tensor]
Judge = Callable[[Tensor, Tensor], float]  # of the embeddings of both splits


def check_labels(arrays: ImageArrays, spec: EvaluationSpec) -> None:
    """Refuse labels that no probe could use, before any training.

    Raises:
        DataInvalidError: fewer than two classes among the rows that are used, or far too many.
    """
    if not (spec.linear_probe or spec.knn):
        return
    classes = len(np.unique(_subset(arrays.y_train, spec.limit_rows)))
    if not 2 <= classes <= MAX_CLASSES:
        raise DataInvalidError(
            f"The training labels hold {classes} classes.",
            f"A probe needs 2 to {MAX_CLASSES}; or switch evaluation.linear_probe and knn off.",
        )


def loaded_encoder(job: BuiltJob) -> mige.LoadedEncoder:
    """The trained encoder as it will be published; puts it in eval mode."""
    return mige.LoadedEncoder(job.module.encoder, job.module.objective.normalizer, job.config)


def untrained_encoder(job: BuiltJob) -> mige.LoadedEncoder:
    """The same encoder with the weights that training started from."""
    objective = build_objective(job.spec, job.arrays.image_shape)
    encoder = build_encoder(job.config, seed=job.spec.seed)
    return mige.LoadedEncoder(encoder, objective.normalizer, job.config).to(job.device)


def evaluate(job: BuiltJob, *, obey: Callable[[], None]) -> Evaluation:
    """Run the protocols that the spec asks for.

    Args:
        job: a trained one; its weights stay as they are.
        obey: called before each embedding and each protocol; raises to stop.

    Returns:
        By protocol (`name@version`): the result of `trained` and of the baselines, and how many
        rows it comes from. Probes give accuracies in [0, 1], RankMe a rank.
    """
    spec, arrays = job.spec.evaluation, job.arrays
    train = torch.from_numpy(_subset(arrays.x_train, spec.limit_rows))
    test = torch.from_numpy(_subset(arrays.x_test, spec.limit_rows))
    labels = _labels(arrays, spec.limit_rows)
    evaluation: Evaluation = {}
    for name, embed in _embeddings(job, train, test).items():
        obey()
        embedded = embed(train), embed(test)
        for protocol, judge in _judges(spec, labels, name).items():
            obey()
            counts: dict[str, float | int] = {"num_train": len(train), "num_test": len(test)}
            evaluation.setdefault(protocol, counts)[name] = judge(*embedded)
    return evaluation


def _embeddings(job: BuiltJob, train: Tensor, test: Tensor) -> Mapping[str, Embed]:
    embeddings: dict[str, Embed] = {"trained": _on_cpu(loaded_encoder(job))}
    if job.spec.evaluation.baselines:
        embeddings["random"] = _on_cpu(untrained_encoder(job))
        if train.numel() + test.numel() <= MAX_RAW_VALUES:
            embeddings["raw"] = _pixels
    return embeddings


def _judges(spec: EvaluationSpec, labels: tuple[Tensor, Tensor], name: str) -> Mapping[str, Judge]:
    y_train, y_test = labels
    judges: dict[str, Judge] = {}
    if spec.linear_probe:
        judges[LINEAR_PROBE] = lambda train, test: (
            mige.linear_probe(train, y_train, test, y_test).accuracy
        )
    if spec.knn:
        judges[KNN] = lambda train, test: mige.knn_probe(train, y_train, test, y_test).accuracy
    if name != "raw":
        judges[RANK_ME] = lambda train, _test: mige.rank_me(train)
    return judges


def _labels(arrays: ImageArrays, limit: int | None) -> tuple[Tensor, Tensor]:
    """Labels of both splits as 0, 1, ...: their values may be anything."""
    train, test = (_subset(y, limit) for y in (arrays.y_train, arrays.y_test))
    _, places = np.unique(np.concatenate([train, test]), return_inverse=True)
    return torch.from_numpy(places[: len(train)]), torch.from_numpy(places[len(train) :])


def _subset(rows: npt.NDArray[np.generic], limit: int | None) -> npt.NDArray[np.generic]:
    if limit is None or len(rows) <= limit:
        return rows
    return rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]


def _on_cpu(encoder: mige.LoadedEncoder) -> Embed:
    return lambda images: encoder.embed(images).cpu()


def _pixels(images: Tensor) -> Tensor:
    return torch.from_numpy(unit_scale(images.numpy())).flatten(1)
