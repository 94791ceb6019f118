import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mige import gather_rows
from mige.gather import sum_over_workers

WORKER = Path(__file__).with_name("gather_worker.py")


def test_without_a_process_group_all_rows_are_ones_own():
    local = torch.randn(5, 2, requires_grad=True)
    gathered = gather_rows(local)
    assert torch.equal(gathered.rows, local)
    assert not gathered.rows.requires_grad
    assert gathered.own == slice(0, 5)
    assert gathered.mean_weight == 1 / 5


def test_without_a_process_group_a_sum_is_ones_own():
    local = torch.randn(5, 2)
    assert sum_over_workers(local) is local


def run_workers(world_size, folder):
    """The results of `world_size` processes of `gather_worker.py`."""
    out = folder / f"{world_size}.pt"
    root = str(WORKER.parents[3])
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": root}
    workers = [
        subprocess.Popen(
            [sys.executable, WORKER, str(rank), str(world_size), folder / f"s{world_size}", out],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [worker.communicate(timeout=100)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * world_size, "\n".join(outputs)
    return torch.load(out)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return run_workers(1, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_mean_of_the_workers_gradients_is_that_of_one_process(
    world_size, one_process, tmp_path
):
    many = run_workers(world_size, tmp_path)
    assert many.keys() == one_process.keys()
    for case in many.keys() - {"gathered", ("local", torch.float32), ("local", torch.float64)}:
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[case[1]]
        for key, value in one_process[case].items():
            error = (many[case][key] - value).norm() / value.norm()
            assert error < tolerance, (case, key, error)
    assert one_process["spectral", torch.float64]["sample_size"] == 29
    assert one_process["spectral_bank", torch.float64]["sample_size"] == 69
    # Local estimates are another quantity: if they agreed, nothing would have been tested.
    local = many["local", torch.float64], one_process["local", torch.float64]
    assert not torch.allclose(local[0]["weight"], local[1]["weight"], rtol=1e-2)
    assert local[0]["sample_size"] < 29
    expected = [float(rank) for rank in range(world_size) for _ in range(2 * rank)]
    assert many["gathered"][:, 0].tolist() == expected
