"""Batches are a function of seed, epoch and step, shared out over ranks without overlap."""

from __future__ import annotations

import numpy as np

from jobs.data.sampler import BatchSampler

SAMPLER = BatchSampler(num_rows=103, batch_size=12, seed=5)


def test_an_epoch_visits_no_row_twice_and_drops_the_rest():
    order = SAMPLER.epoch_order(3)
    steps = range(3 * SAMPLER.steps_per_epoch, 4 * SAMPLER.steps_per_epoch)
    rows = np.concatenate([SAMPLER.rows(order, s, rank=0, world_size=1) for s in steps])
    assert len(rows) == len(set(rows.tolist())) == 96


def test_ranks_share_out_the_same_global_batch():
    order = SAMPLER.epoch_order(0)
    whole = SAMPLER.rows(order, 4, rank=0, world_size=1)
    shares = [SAMPLER.rows(order, 4, rank=r, world_size=3) for r in range(3)]
    np.testing.assert_array_equal(np.concatenate(shares), whole)


def test_the_order_depends_on_seed_and_epoch_alone():
    again = BatchSampler(num_rows=103, batch_size=50, seed=5)
    other = BatchSampler(num_rows=103, batch_size=12, seed=6)
    np.testing.assert_array_equal(SAMPLER.epoch_order(1), again.epoch_order(1))
    assert (SAMPLER.epoch_order(1) != SAMPLER.epoch_order(2)).any()
    assert (SAMPLER.epoch_order(1) != other.epoch_order(1)).any()
