"""Everything that training goes on from, as flat tensors and JSON numbers, and back.

Weights and buffers (`module.*`), the optimiser's tensors (`optimizer.<parameter>.<key>`), its
groups, and every worker's random generators (`rng`, one row a rank). The position in the data and
the learning rate are functions of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from jobs.build import BuiltJob
from jobs.rng import restore_rng

MODULE, OPTIMIZER, RNG = "module.", "optimizer.", "rng"


def capture_state(job: BuiltJob, rng: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and numbers of a job's state.

    Args:
        job: what is trained.
        rng: the generators of all workers, one row each.
    """
    optimizer = job.optimizer.state_dict()
    tensors = {f"{MODULE}{key}": value for key, value in job.module.state_dict().items()}
    for index, entry in optimizer["state"].items():
        tensors |= {f"{OPTIMIZER}{index}.{key}": value for key, value in entry.items()}
    copies = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return copies | {RNG: rng}, {"optimizer_groups": optimizer["param_groups"]}


def restore_state(
    job: BuiltJob, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, rank: int
) -> None:
    """Put a job into a captured state.

    A worker whose rank did not exist when the state was captured keeps its own fresh generators.
    """
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(OPTIMIZER):
            index, _, name = key.removeprefix(OPTIMIZER).partition(".")
            moments.setdefault(int(index), {})[name] = value
    module = {k.removeprefix(MODULE): v for k, v in tensors.items() if k.startswith(MODULE)}
    job.module.load_state_dict(module)
    job.optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer_groups"]})
    if rank < len(tensors[RNG]):
        restore_rng(tensors[RNG][rank])
