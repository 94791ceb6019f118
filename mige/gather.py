"""Rows of all data-parallel workers, without gradients.

A mutual-information loss does not decompose over shards: the mean of per-worker estimates is more
biased than one estimate from all rows. So every worker gathers all rows, computes the same score,
and lets the gradient flow through its own rows only. DDP then *averages* gradients over workers;
with `mean_weight` on the sum over own rows that average is exactly the gradient of the mean over
all rows, whatever the shares of the workers.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor


class GatheredRows(NamedTuple):
    """All workers' rows, in the order of ranks, and where this worker's own lie."""

    rows: Float[Tensor, "total d"]  # detached
    own: slice
    world_size: int

    @property
    def mean_weight(self) -> float:
        """What a sum over own rows is multiplied by: world_size / total."""
        return self.world_size / len(self.rows)


def gather_rows(local: Float[Tensor, "n d"], *, equal_shares: bool = False) -> GatheredRows:
    """Gather the rows of every worker; the identity where there is no process group.

    Workers may hold different numbers of rows, none included. All must call it: it is a
    collective, and it takes two messages (the sizes, then the padded rows). The sizes are read by
    the host, which waits for the device.

    Args:
        local: this worker's rows; the width must be the same on all workers.
        equal_shares: a promise that all workers hold as many rows: one message and no waiting. If
            it is broken, the message fails, or never arrives.
    """
    local = local.detach()
    if not (dist.is_available() and dist.is_initialized()):
        return GatheredRows(local, slice(0, len(local)), 1)
    world_size, rank = dist.get_world_size(), dist.get_rank()
    if equal_shares:
        sizes = [len(local)] * world_size
    else:
        sizes = [int(size) for size in _all_gather(torch.tensor([len(local)], device=local.device))]
    padded = local
    if len(local) < max(sizes):
        padded = local.new_zeros(max(sizes), local.shape[1])
        padded[: len(local)] = local
    parts = _all_gather(padded)
    rows = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    start = sum(sizes[:rank])
    return GatheredRows(rows, slice(start, start + len(local)), world_size)


def sum_over_workers(local: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum of a tensor over all workers, differentiable; the identity without a process group.

    Backward sums the incoming gradients over workers: what each worker holds is the derivative of
    the sum of all workers' losses, as `mean_weight` assumes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return local
    total: Tensor = _SumOverWorkers.apply(local)
    return total


class _SumOverWorkers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, local: Tensor) -> Tensor:  # noqa: ARG004  autograd's signature
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _all_gather(local: Int[Tensor, " 1"] | Float[Tensor, "n d"]) -> list[Tensor]:
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local.contiguous())
    return parts
