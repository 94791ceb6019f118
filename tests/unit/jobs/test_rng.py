"""Random generators go on exactly where they were."""

from __future__ import annotations

import random

import numpy as np
import torch

from jobs.rng import STATE_BYTES, capture_rng, restore_rng, seed_all


def draws() -> tuple[float, float, float, float]:
    return random.gauss(0, 1), random.random(), np.random.normal(), float(torch.randn(()))


def test_restored_generators_repeat_what_came_after_the_capture():
    draws()
    state = capture_rng()
    expected = draws()
    draws()
    restore_rng(state)
    assert draws() == expected


def test_states_have_one_length_so_that_workers_can_exchange_them():
    assert capture_rng().shape == (STATE_BYTES,)
    for _ in range(1000):
        draws()
    assert capture_rng().shape == (STATE_BYTES,)


def test_ranks_draw_different_numbers_and_the_same_ones_again():
    seed_all(7, 0)
    first = draws()
    seed_all(7, 1)
    second = draws()
    assert set(first).isdisjoint(second)
    seed_all(7, 0)
    assert draws() == first
