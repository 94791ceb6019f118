"""Ray Train (V2): one group of workers that run the training loop of one attempt.

The loop saves and finds its own verified checkpoints, so a worker group that Ray starts again only
calls the loop again; Ray's checkpoints and `report()` (a barrier) are not used.
"""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import get_device
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer

from jobs.errors import SpecInvalidError, StoppedError
from jobs.ray_backend.environment import STANDBY_RESOURCE
from jobs.ray_backend.errors import RUN_FAILURES, translate
from jobs.ray_backend.output import redirect_output
from jobs.ray_backend.policies import JobFailurePolicy, OwnHeadScalingPolicy
from jobs.run_directory import RunDirectory
from jobs.spec import ResourcesSpec
from jobs.wire import Launch

# Each is a process or a round of calls at every start. The cleaner only matters if the controller
# dies while its driver lives on; ours ends with the attempt. We have no Ray data sets.
_NOT_NEEDED = (PlacementGroupCleanerCallback, DatasetsCallback)
_RESTARTS = 2
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class GroupShape:
    """How many workers, and what Ray sets aside for each."""

    num_workers: int
    cpus: int
    gpus: int

    @classmethod
    def of(cls, resources: ResourcesSpec) -> "GroupShape":
        """The shape that a spec asks for."""
        return cls(resources.num_workers, resources.cpus_per_worker, resources.gpus_per_worker)

    def scaling(self) -> ScalingConfig:
        """The shape in Ray Train's words; no processors: a slot for standby groups."""
        resources: dict[str, float] = {"CPU": self.cpus} if self.cpus else {STANDBY_RESOURCE: 1}
        if self.gpus:
            resources["GPU"] = self.gpus
        return ScalingConfig(
            num_workers=self.num_workers,
            use_gpu=self.gpus > 0,
            resources_per_worker=resources,
        )


class JobTrainer(TorchTrainer):
    """A `TorchTrainer` that starts only what a job needs and does not retry what cannot help.

    It overrides two private methods of Ray 2.60; the version is pinned, and a test of each holds.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, _NOT_NEEDED)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:  # noqa: ANN401
        arguments["failure_policy"] = JobFailurePolicy(arguments["failure_policy"].failure_config)
        arguments["scaling_policy"] = OwnHeadScalingPolicy(
            arguments["scaling_policy"].scaling_config
        )
        result: Result = super()._initialize_and_run_controller(**arguments)  # type: ignore[assignment]
        return result


def check_capacity(shape: GroupShape) -> None:
    """Compare what a group needs with all that the cluster has, whoever uses it now.

    Raises:
        SpecInvalidError: the group could never start.
    """
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, each, field in (
        ("CPU", shape.cpus, "cpus_per_worker"),
        ("GPU", shape.gpus, "gpus_per_worker"),
    ):
        wanted = each * shape.num_workers
        if wanted > total.get(name, 0):
            raise SpecInvalidError(
                f"/resources/{'num_workers' if shape.num_workers > 1 else field}",
                "infeasible_config",
                f"{shape.num_workers} workers with {each} {name} each need {wanted} {name}; "
                f"the cluster has {total.get(name, 0):g}.",
                "Ask for fewer workers or for less for each.",
            )


def start(shape: GroupShape, source: dict[str, str], *, storage: Path) -> Future[None]:
    """`fit` in a thread of its own, so that the main thread stays free for signals."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            fit(shape, source, storage=storage)
        except BaseException as error:  # noqa: BLE001 - raised again by `future.result()`
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    return future


def fit(shape: GroupShape, source: dict[str, str], *, storage: Path) -> None:
    """Run the loop on a group of workers until it ends. Blocks.

    Args:
        shape: how many workers.
        source: where the workers find their attempt; see `train_worker`.
        storage: an existing directory for Ray Train's own files.

    Raises:
        StoppedError: the attempt was told to stop and did.
        JobError, MemoryError or the worker's own error: what `jobs.ray_backend.errors` makes of it.
    """
    trainer = JobTrainer(
        train_worker,
        train_loop_config=source,
        scaling_config=shape.scaling(),
        run_config=RunConfig(
            name="train",
            storage_path=str(storage),
            failure_config=FailureConfig(
                max_failures=_RESTARTS,
                controller_failure_limit=_RESTARTS,  # Ray's default retries for ever in silence
            ),
        ),
    )
    try:
        result: Result = trainer.fit()  # type: ignore[assignment]
    except RUN_FAILURES as error:
        raise translate(error) from error
    if result.return_value is not None:
        raise StoppedError(result.return_value)


def train_worker(source: dict[str, str]) -> str | None:
    """What every worker runs. Returns the command that stopped the attempt, if one did.

    Args:
        source: `attempt_file`: the launch; or `assignment_file`: a file that will hold the path of
            the launch, or nothing if the group is not needed after all.
    """
    if "attempt_file" in source:
        attempt_file: Path | None = Path(source["attempt_file"])
    else:
        rehearse()
        Path(source["ready_file"]).touch()
        attempt_file = wait_for_assignment(Path(source["assignment_file"]))
    if attempt_file is None:
        return None
    return _run(Launch.model_validate_json(attempt_file.read_bytes()))


def _run(launch: Launch) -> str | None:
    from jobs.reporters import FileReporter
    from jobs.worker import run_worker

    # Straight into the attempt's log: through Ray's log monitor the last lines would be lost.
    run = RunDirectory(Path(launch.storage), launch.job_id, launch.fence)
    redirect_output(run.log_file)
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    try:
        run_worker(launch, FileReporter(run, rank=rank, world_size=world_size), device=get_device())
    except StoppedError as error:
        return error.command  # no failure; rank 0's answer counts, and it evaluates alone
    return None


def wait_for_assignment(file: Path) -> Path | None:
    """Sleep until the file appears; it appears whole. None: the group is not needed."""
    while not file.exists():
        time.sleep(_LOOK_EVERY_S)
    text = file.read_text(encoding="utf-8")
    return Path(text) if text else None


def rehearse() -> None:
    """Do once, before it counts, what is slow the first time: imports, and a step of an optimiser.

    The first step of any torch optimiser imports `torch._dynamo`: 2 s.
    """
    import jobs.worker  # noqa: F401 - for the import's sake

    torch.set_num_threads(1)
    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.Adam(layer.parameters())
    rows = layer(torch.ones(4, 1, 4, 4))
    (torch.linalg.eigvalsh(rows.mT @ rows).sum() + rows.sum()).backward()
    optimizer.step()
