"""Estimators compile into one graph: nothing in them is decided by values.

In a fresh interpreter, because the run-time shape checks of the test run cannot be traced.
"""

import subprocess
import sys

import pytest

from mige.scores import SCORE_ESTIMATORS

SCRIPT = """
import sys
import torch
from mige.scores import make_score_estimator

torch.set_num_threads(1)
torch.manual_seed(0)
x, z = torch.randn(2, 3, 40, 3, dtype=torch.float64)

for name in sys.argv[1:]:
    estimator = make_score_estimator(name)

    def gradient(x, z):
        return estimator.information_gradient(x, z, check=False).z

    compiled = torch.compile(gradient, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, z), gradient(x, z))
"""


@pytest.mark.slow
def test_every_estimator_compiles_into_one_graph_with_the_same_answer():
    command = [sys.executable, "-c", SCRIPT, *SCORE_ESTIMATORS]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
