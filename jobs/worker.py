"""What one worker of an attempt does, from the spec to the staged encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from jobs.build import build
from jobs.calibrate import calibrate_job
from jobs.errors import SpecInvalidError, StoppedError
from jobs.evaluate import check_labels, evaluate
from jobs.export import export_encoder
from jobs.processes import available_cpus
from jobs.reporters import Reporter, new_report
from jobs.run_directory import RunDirectory
from jobs.states import Phase
from jobs.train import train
from jobs.wire import Launch


def run_worker(launch: Launch, reporter: Reporter, *, device: torch.device | None = None) -> None:
    """Train; then, on rank 0, evaluate and stage the encoder.

    With several workers, torch's process group must be up; every worker calls this.

    Args:
        launch: what to do.
        reporter: knows this worker's place, is told what happens and asked for commands.
        device: where to train; None: the CPU, or the first GPU if the spec asks for one.

    Raises:
        StoppedError: a command to cancel or pause was obeyed.
        SpecInvalidError, DataInvalidError: no other attempt can do better.
        DivergedError: something was not finite; nothing is staged.
    """
    run = RunDirectory(Path(launch.storage), launch.job_id, launch.fence)
    _enter(reporter, Phase.LOADING_DATA)
    data_root = None if launch.data_root is None else Path(launch.data_root)
    torch.set_num_threads(min(launch.spec.resources.cpus_per_worker, available_cpus()))
    job = build(launch.spec, data_root, device=device or _device(launch))
    check_labels(job.arrays, launch.spec.evaluation)
    _enter(reporter, Phase.TRAINING)
    result = train(job, run, reporter)
    if reporter.rank != 0:
        return
    _enter(reporter, Phase.EVALUATING)
    evaluation = evaluate(job, obey=lambda: _obey(reporter))
    reporter.report(new_report("evaluation", dict(evaluation)))
    calibration = calibrate_job(
        job,
        obey=lambda: _obey(reporter),
        tell=lambda data: reporter.report(new_report("calibration", data)),
    )
    _obey(reporter)
    _enter(reporter, Phase.EXPORTING)
    export_encoder(job, run, result, evaluation, calibration)


def _obey(reporter: Reporter) -> None:
    """Stop if that is wanted. Training is over and its last checkpoint is written."""
    command = reporter.command()
    if command != "continue":
        raise StoppedError(command)


def _enter(reporter: Reporter, phase: Phase) -> None:
    reporter.report(new_report("phase", {"phase": phase.value}))


def _device(launch: Launch) -> torch.device:
    if launch.spec.resources.gpus_per_worker == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SpecInvalidError(
            "/resources/gpus_per_worker",
            "infeasible_config",
            "The spec asks for a GPU and this machine has none that torch can use.",
            "Set gpus_per_worker to 0.",
        )
    return torch.device("cuda")
