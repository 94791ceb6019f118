"""What every test gets: a fixed seed, and one thread where torch is in use."""

import random
import sys

import pytest


@pytest.fixture(autouse=True)
def _seeded_and_single_threaded():
    random.seed(0)
    # Only where a test module has imported it: the control side's tests stay free of torch.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
