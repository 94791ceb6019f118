"""Which rows each rank sees at each step: a pure function of seed, epoch and step.

Nothing has to be stored to resume but the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSampler:
    """Shuffled batches without replacement; the rows left over at an epoch's end are dropped.

    `batch_size` counts the rows of all ranks together; each rank takes its slice of every batch, so
    the rows of a step do not depend on how many ranks share them.
    """

    num_rows: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the rows."""
        return self.num_rows // self.batch_size

    def epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of the rows in an epoch (from 0)."""
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.num_rows)

    def rows(
        self, order: npt.NDArray[np.int64], step: int, *, rank: int, world_size: int
    ) -> npt.NDArray[np.int64]:
        """The rows of one rank at a step, counted from 0 over all epochs.

        Args:
            order: `epoch_order` of the epoch that the step belongs to.
            step: counted from 0 over all epochs.
            rank: which slice of the batch.
            world_size: how many slices there are; divides `batch_size`.
        """
        start = (step % self.steps_per_epoch) * self.batch_size
        share = self.batch_size // world_size
        first = start + rank * share
        return order[first : first + share]
