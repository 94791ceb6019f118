"""The loop's reporter inside a Ray Train worker."""

from pathlib import Path

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from jobs.reporters import CommandName, ControlFile, ReportWriter
from jobs.run_directory import RunDirectory
from jobs.wire import Launch, Report

_COMMANDS: tuple[CommandName, ...] = ("continue", "cancel", "pause")


class RayTrainReporter:
    """Rank 0 writes the reports and reads the command; the others are told it."""

    def __init__(self, run: RunDirectory, *, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self._writer = ReportWriter(run.reports_file)
        self._control = ControlFile(run.control_file)

    @classmethod
    def of(cls, launch: Launch) -> "RayTrainReporter":
        """The reporter of the worker that calls this."""
        context = ray.train.get_context()
        run = RunDirectory(Path(launch.storage), launch.job_id, launch.fence)
        return cls(run, rank=context.get_world_rank(), world_size=context.get_world_size())

    def report(self, report: Report) -> None:
        """Append one report (rank 0; other ranks: nothing)."""
        if self.rank == 0:
            self._writer.append(report)

    def command(self) -> CommandName:
        """What is wanted now; with several workers a collective: every rank must call it."""
        if self.world_size == 1:
            return self._control.read()
        wanted = self._control.read() if self.rank == 0 else "continue"
        # NCCL moves tensors of the GPU only.
        on_gpu = dist.get_backend() == "nccl"
        device = ray.train.torch.get_device() if on_gpu else torch.device("cpu")
        index = torch.tensor([_COMMANDS.index(wanted)], device=device)
        dist.broadcast(index, src=0)
        return _COMMANDS[int(index.item())]
