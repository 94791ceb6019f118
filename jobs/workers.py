"""Agreement between the workers of a job; trivial for one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Workers:
    """The group of workers, as one of them sees it. Every method is a collective."""

    rank: int
    world_size: int
    device: torch.device

    def mean(self, value: Tensor) -> float:
        """The mean of a scalar over all workers."""
        if self.world_size == 1:
            return float(value)
        total = value.detach().clone().to(self.device, torch.float64)
        dist.all_reduce(total)
        return float(total) / self.world_size

    def decided(self, number: int) -> int:
        """What rank 0 says."""
        if self.world_size == 1:
            return number
        decision = torch.tensor([number], device=self.device)
        dist.broadcast(decision, src=0)
        return int(decision.item())

    def rows(self, own: Tensor) -> Tensor:
        """Every worker's vector as one row of a matrix, on the CPU."""
        if self.world_size == 1:
            return own[None].cpu()
        own = own.to(self.device)
        rows = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(rows, own)
        return torch.stack(rows).cpu()
