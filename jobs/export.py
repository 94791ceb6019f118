"""Stage a trained encoder: every file of the publication, the manifest last."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

import mige
from jobs.artifacts import make_private_directory, write_atomic
from jobs.build import BuiltJob
from jobs.calibrate import Calibration, calibration_text
from jobs.errors import DivergedError
from jobs.evaluate import Evaluation, loaded_encoder
from jobs.golden import GOLDEN_FILE, make_golden
from jobs.run_directory import RunDirectory
from jobs.train import TrainResult
from jobs.wire import Manifest, ManifestFile

MANIFEST_FILE = "manifest.json"
CARD_FILE, PROVENANCE_FILE, EVALUATION_FILE = "README.md", "provenance.json", "evaluation.json"
FORMAT_VERSION = 1


def export_encoder(
    job: BuiltJob,
    run: RunDirectory,
    result: TrainResult,
    evaluation: Evaluation,
    calibration: Calibration | None = None,
) -> Manifest:
    """Write everything into the attempt's `result` directory.

    Args:
        job: holds the trained weights.
        run: the attempt's directory.
        result: of the training.
        evaluation: of the trained encoder.
        calibration: of the score estimator; None if the spec does not ask for it.

    Returns:
        The manifest, as written to `manifest.json` after all other files.

    Raises:
        DivergedError: a weight is not finite: such an encoder is never staged.
        StorageFullError, StorageUnavailableError: a file cannot be written.
    """
    shutil.rmtree(run.result, ignore_errors=True)  # of a worker of this attempt that died
    make_private_directory(run.result)
    encoder = loaded_encoder(job)
    try:
        mige.save_encoder(
            encoder.encoder, job.config, run.result, normalizer=job.module.objective.normalizer
        )
    except mige.InvalidInputError as error:
        raise DivergedError(str(error), "Lower optimizer.learning_rate.") from error
    provenance = _provenance(job, run, result)
    texts = {
        GOLDEN_FILE: make_golden(encoder, torch.from_numpy(job.arrays.x_test)),
        EVALUATION_FILE: _pretty(evaluation),
        PROVENANCE_FILE: _pretty(provenance),
        CARD_FILE: model_card(job, provenance, evaluation, calibration),
    }
    files = {name: text.encode() for name, text in texts.items()}
    for name, data in {**files, **(calibration.files() if calibration else {})}.items():
        write_atomic(run.result / name, data)
    manifest = Manifest(
        files=_entries(run),
        metadata={
            "out_dim": job.config.out_dim,
            "input_shape": list(job.config.input_shape),
            "encoder_kind": job.config.kind,
            "evaluation": evaluation,
        },
    )
    write_atomic(run.result / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())
    return manifest


def _entries(run: RunDirectory) -> tuple[ManifestFile, ...]:
    entries = []
    for path in sorted(run.result.iterdir()):
        path.chmod(0o600)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries.append(ManifestFile(path=path.name, size_bytes=path.stat().st_size, sha256=digest))
    return tuple(entries)


def _provenance(job: BuiltJob, run: RunDirectory, result: TrainResult) -> dict[str, Any]:
    arrays = job.arrays
    return {
        "format_version": FORMAT_VERSION,
        "job_id": run.job_id,
        "attempts": run.fence,
        "created_at": datetime.now(UTC).isoformat(),
        "spec": job.spec.model_dump(mode="json"),
        "data": {
            "sha256": arrays.digest(),
            "num_train": len(arrays.x_train),
            "num_test": len(arrays.x_test),
            "image_shape": list(arrays.image_shape),
        },
        "training": {
            "steps": result.steps,
            "epochs": result.epochs,
            "seconds": round(result.seconds, 3),
            "resumed_step": result.resumed_step,
            "last_metrics": dict(result.metrics),
        },
        "versions": {
            "mige": mige.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def model_card(
    job: BuiltJob,
    provenance: dict[str, Any],
    evaluation: Evaluation,
    calibration: Calibration | None = None,
) -> str:
    """The README.md of a published encoder: what it is, what it is worth, how to use it."""
    config, objective, data = job.config, job.spec.objective, provenance["data"]
    shape = ", ".join(map(str, config.input_shape))
    training, versions = provenance["training"], provenance["versions"]
    return f"""# {job.spec.name or "Encoder"}

An encoder of images ({shape}) into {config.out_dim} numbers, trained without labels by maximising
the mutual information between image and embedding (`{objective.kind}`, {objective.route} route,
score estimator `{objective.estimator.kind}`).

## Use

```python
import mige

encoder = mige.load_encoder("<this folder>")
embeddings = encoder.embed(images)  # uint8 in 0..255 or floats in [0, 1], (n, {shape})
```

## What it is worth

{_results_table(evaluation)}

`random` is the same encoder with the weights it started from; `raw` the pixels themselves.
{calibration_text(calibration)}
## Where it comes from

- job `{provenance["job_id"]}`, attempt {provenance["attempts"]}, seed {job.spec.seed}
- data `{job.spec.data.kind}`: {data["num_train"]} training rows, sha256 `{data["sha256"]}`
- {training["steps"]} steps, {training["epochs"]} epochs, {training["seconds"]:.0f} s
- mige {versions["mige"]}, torch {versions["torch"]}, numpy {versions["numpy"]},
  Python {versions["python"]}

`provenance.json` holds the whole spec, `golden.json` a few inputs with their embeddings to check an
installation against, `manifest.json` the sha256 of every file.
"""


def _results_table(evaluation: Evaluation) -> str:
    if not evaluation:
        return "It was not evaluated."
    names = ("trained", "random", "raw", "num_train", "num_test")
    lines = [f"| protocol | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for protocol, results in evaluation.items():
        cells = [_cell(protocol, results.get(name)) for name in names]
        lines.append(f"| {protocol} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(protocol: str, value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if protocol.startswith("rankme") else f"{100 * value:.1f} %"


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"
