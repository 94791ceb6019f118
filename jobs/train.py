"""The training loop: plain torch, told by a Reporter, the same inline and in a Ray worker.

- It starts from the newest verified checkpoint of this attempt or an earlier one.
- Metrics are reported at the first and the last step, and between them at most `REPORTS_PER_S`
  times a second and about `REPORTS_PER_JOB` times a job, since each becomes an event that is kept;
  but a person who watches never waits longer than `LONGEST_SILENCE_S` (or one step).
- Checkpoints: after every `checkpoint.every_steps` steps, exactly; without it at the ends of
  epochs, but with a pause of `CHECKPOINT_PAUSE_FACTOR` times as long as the last one took to write
  (and at least `MIN_CHECKPOINT_PAUSE_S`), so that saving takes at most about 5 % of the time. One
  always at a pause and at the end.
- Commands are looked for at step boundaries: at every step by a single worker, at every
  `COMMAND_INTERVAL_STEPS`-th by several, since they have to agree.
- The first loss, gradient or weight that is not finite ends the attempt for good.

With several workers the module is wrapped in DistributedDataParallel. An encoder's own batch
normalisation then sees each worker's rows only; what the objective normalises is gathered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import mige
from jobs.build import BuiltJob
from jobs.checkpoints import CorruptCheckpoint, newest_verified, save_checkpoint
from jobs.errors import DivergedError, StoppedError, StorageUnavailableError
from jobs.reporters import COMMANDS, Reporter, new_report
from jobs.rng import capture_rng, seed_all
from jobs.run_directory import RunDirectory
from jobs.training_state import capture_state, restore_state
from jobs.wire import ProgressReport, ReportKind
from jobs.workers import Workers

REPORTS_PER_S = 10.0
REPORTS_PER_JOB = 2000
LONGEST_SILENCE_S = 10.0
MIN_CHECKPOINT_PAUSE_S = 1.0
CHECKPOINT_PAUSE_FACTOR = 20.0
COMMAND_INTERVAL_STEPS = 10
COLLAPSED_STD = 1e-6  # of the embedding, in its own units: nothing is told apart any more

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How training ended. `seconds` counts all attempts, without what was lost between them."""

    steps: int
    epochs: int
    resumed_step: int | None
    seconds: float
    metrics: Mapping[str, float]


@dataclass(slots=True, kw_only=True)
class _Marks:
    """When things last happened, by the loop's clock, and at which step it started."""

    started_at: float
    told_at: float
    saved_at: float
    first_step: int
    save_seconds: float = 0.0
    collapse_told: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


def train(
    job: BuiltJob, run: RunDirectory, reporter: Reporter, *, clock: Clock = time.monotonic
) -> TrainResult:
    """Train a built job to its last step.

    Args:
        job: changed in place: its module holds the trained weights afterwards.
        run: the attempt's directory; rank 0 writes checkpoints there.
        reporter: told of what is worth telling; asked for commands.
        clock: seconds; decides only when to report and to save.

    Raises:
        DivergedError: a loss, gradient or weight is not finite.
        StoppedError: a command to cancel or to pause; at a pause a checkpoint was written.
        StorageUnavailableError: the workers found different checkpoints.
    """
    seed_all(job.spec.seed, reporter.rank)
    loop = _Loop(job, run, reporter, clock)
    loop.run()
    return TrainResult(
        steps=loop.step,
        epochs=math.ceil(loop.step / job.sampler.steps_per_epoch),
        resumed_step=loop.resumed_step,
        seconds=loop.seconds(),
        metrics=loop.marks.metrics,
    )


class _Loop:
    """One run of the loop. `step` counts the steps that are done."""

    def __init__(self, job: BuiltJob, run: RunDirectory, reporter: Reporter, clock: Clock) -> None:
        self.job, self.run_directory, self.reporter, self.clock = job, run, reporter, clock
        self.workers = Workers(reporter.rank, reporter.world_size, job.device)
        self.total_steps = job.total_steps
        self.step, self.seconds_before = 0, 0.0
        self.resumed_step: int | None = None
        self._resume()
        now = clock()
        self.marks = _Marks(started_at=now, told_at=now, saved_at=now, first_step=self.step)
        self.module = self._wrapped().train()

    def run(self) -> None:
        """Do all steps that are left."""
        steps_per_epoch = self.job.sampler.steps_per_epoch
        while self.step < self.total_steps:
            order = self.job.sampler.epoch_order(self.step // steps_per_epoch)
            end = min(self.total_steps, (self.step // steps_per_epoch + 1) * steps_per_epoch)
            while self.step < end:
                if self.workers.world_size == 1 or self.step % COMMAND_INTERVAL_STEPS == 0:
                    self._obey()
                self._train_step(self._batch(order))
        self._obey()
        if self.step > self.marks.first_step or self.resumed_step is None:
            self._save()

    def seconds(self) -> float:
        """Time spent training, earlier attempts included."""
        return self.seconds_before + self.clock() - self.marks.started_at

    def _wrapped(self) -> nn.Module:
        if self.workers.world_size == 1:
            return self.job.module
        devices = [self.job.device] if self.job.device.type == "cuda" else None
        # Nothing in training reads a buffer that differs between ranks, and the projection of the
        # images is one: sending all of them at every step took a third of the time.
        return DistributedDataParallel(
            self.job.module, device_ids=devices, forward_sync_buffers=False
        )

    def _batch(self, order: npt.NDArray[np.int64]) -> Tensor:
        rows = self.job.sampler.rows(
            order, self.step, rank=self.workers.rank, world_size=self.workers.world_size
        )
        images = torch.from_numpy(self.job.arrays.x_train[rows]).to(self.job.device)
        config = self.job.config
        return mige.standardize_images(images, mean=config.mean, std=config.std)

    def _train_step(self, images: Tensor) -> None:
        optimizer, learning_rate = self.job.optimizer, self.job.learning_rate(self.step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad(set_to_none=True)
        try:
            output: mige.ObjectiveOutput = self.module(images)
        except mige.NumericalError as error:
            raise self._diverged(f"the embedding ({error})") from error
        output.loss.backward()  # type: ignore[no-untyped-call]
        # Every worker sees the same mean loss and the same averaged gradient, so all stop together.
        loss = self.workers.mean(output.loss.detach())
        gradients = [p.grad for p in self.job.module.parameters() if p.grad is not None]
        gradient_norm = float(nn.utils.get_total_norm(gradients))
        for name, value in (("the loss", loss), ("the gradient", gradient_norm)):
            if not math.isfinite(value):
                raise self._diverged(name)
        optimizer.step()
        self.step += 1
        self._report_metrics(output, loss, gradient_norm, learning_rate)
        if self.step < self.total_steps and self._checkpoint_due():
            self._save()

    def _report_metrics(
        self,
        output: mige.ObjectiveOutput,
        loss: float,
        gradient_norm: float,
        learning_rate: float,
    ) -> None:
        now, marks = self.clock(), self.marks
        is_edge = self.step in (marks.first_step + 1, self.total_steps)
        if not is_edge and now - marks.told_at < self._report_interval_s():
            return
        marks.told_at = now
        steps_per_s = (self.step - marks.first_step) / max(now - marks.started_at, 1e-9)
        info = {key: float(value) for key, value in output.info.items()}
        marks.metrics = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate,
            "steps_per_s": steps_per_s,
            **{key: value for key, value in info.items() if math.isfinite(value)},
        }
        progress = self._progress(loss, (self.total_steps - self.step) / steps_per_s)
        self.reporter.report(
            new_report(
                "metric",
                {"step": self.step, "epoch": progress.epoch, **marks.metrics},
                progress=progress,
            )
        )
        if info.get("z_std", 1.0) < COLLAPSED_STD and not marks.collapse_told:
            marks.collapse_told = True
            self._tell("diagnostic.collapse", z_std=info["z_std"])

    def _report_interval_s(self) -> float:
        """So long that `REPORTS_PER_JOB` of them fill the time that the whole job seems to take."""
        whole_job_s = self.seconds() * self.total_steps / self.step
        return min(LONGEST_SILENCE_S, max(1.0 / REPORTS_PER_S, whole_job_s / REPORTS_PER_JOB))

    def _progress(self, loss: float, eta_seconds: float) -> ProgressReport:
        return ProgressReport(
            step=self.step,
            total_steps=self.total_steps,
            epoch=math.ceil(self.step / self.job.sampler.steps_per_epoch),
            epochs=math.ceil(self.total_steps / self.job.sampler.steps_per_epoch),
            loss=loss,
            eta_seconds=eta_seconds,
        )

    def _obey(self) -> None:
        command = COMMANDS[self.workers.decided(COMMANDS.index(self.reporter.command()))]
        if command == "continue":
            return
        if command == "pause" and self.step != self.resumed_step:
            self._save()
        raise StoppedError(command)

    def _checkpoint_due(self) -> bool:
        every = self.job.spec.checkpoint.every_steps
        if every is not None:
            return self.step % every == 0
        if self.step % self.job.sampler.steps_per_epoch:
            return False
        pause = max(MIN_CHECKPOINT_PAUSE_S, CHECKPOINT_PAUSE_FACTOR * self.marks.save_seconds)
        return bool(self.workers.decided(self.clock() - self.marks.saved_at >= pause))

    def _save(self) -> None:
        if not all(bool(torch.isfinite(t).all()) for t in self.job.module.state_dict().values()):
            raise self._diverged("a weight")
        started = self.clock()
        rng = self.workers.rows(capture_rng())
        if self.workers.rank == 0:
            tensors, state = capture_state(self.job, rng)
            state["elapsed_s"] = self.seconds()
            keep = self.job.spec.checkpoint.keep
            save_checkpoint(self.run_directory, self.step, tensors=tensors, state=state, keep=keep)
            self._tell("checkpoint.created", fence=self.run_directory.fence)
        self.marks.saved_at = self.clock()
        self.marks.save_seconds = self.marks.saved_at - started

    def _resume(self) -> None:
        checkpoint = newest_verified(self.run_directory, on_corrupt=self._tell_corrupt)
        found = -1 if checkpoint is None else checkpoint.step
        if self.workers.mean(torch.tensor(float(found))) != found:
            raise StorageUnavailableError(
                f"Worker {self.workers.rank} found a checkpoint of step {found}, others another.",
                "All workers must see the same storage directory.",
            )
        if checkpoint is None:
            return
        restore_state(self.job, checkpoint.tensors, checkpoint.state, rank=self.workers.rank)
        self.step = self.resumed_step = checkpoint.step
        self.seconds_before = checkpoint.state["elapsed_s"]
        self._tell("attempt.resumed", fence=checkpoint.fence)

    def _tell_corrupt(self, corrupt: CorruptCheckpoint) -> None:
        self.reporter.report(
            new_report(
                "checkpoint.corrupt",
                {"step": corrupt.step, "fence": corrupt.fence, "problem": corrupt.problem},
            )
        )

    def _diverged(self, what: str) -> DivergedError:
        self._tell("diagnostic.nan", what=what)
        return DivergedError(
            f"At step {self.step} {what} is not finite.",
            "Lower optimizer.learning_rate, or raise training.batch_size; check the images for "
            "outliers.",
        )

    def _tell(self, kind: ReportKind, **data: object) -> None:
        self.reporter.report(new_report(kind, {"step": self.step, **data}))
