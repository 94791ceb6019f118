"""One data-parallel worker of `test_gather.py`: `python gather_worker.py RANK WORLD STORE OUT`.

Trains one step of a small encoder under DDP on its own, uneven share of a batch, and (rank 0)
writes the averaged gradients of every case.
"""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mige import MigeInfomax, gather_rows, make_score_estimator

SHARES = {1: [24], 2: [17, 7], 3: [10, 1, 13]}
CASES = {
    "joint": {"route": "joint", "projection_dim": 4},
    "joint_batch_norm": {"route": "joint", "projection_dim": 4, "normalize": "batch_norm"},
    "conditional": {"route": "conditional", "noise_std": 1e-9},
    "local": {"route": "joint", "projection_dim": 4, "gather": "local"},
}


def gradients(case, rank, world_size):
    """The gradients of one case, and the running mean of its normaliser."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(24, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    encoder = torch.nn.Linear(6, 3, bias=False).double()
    encoder.weight.data.copy_(weight)
    model = DistributedDataParallel(encoder) if world_size > 1 else encoder
    objective = MigeInfomax(
        estimator=make_score_estimator("spectral"), input_dim=6, embedding_dim=3, **CASES[case]
    ).double()
    own = x.split(SHARES[world_size])[rank]
    objective(own, torch.tanh(model(own))).loss.backward()
    statistics = {key: value for key, value in objective.state_dict().items() if "mean" in key}
    return {"weight": encoder.weight.grad, **statistics}


def main(rank, world_size, store, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    results = {case: gradients(case, rank, world_size) for case in CASES}
    # Rank 0 has no rows, unless it is alone.
    local = torch.full((rank * 2 if world_size > 1 else 1, 3), float(rank))
    gathered = gather_rows(local)
    results["gathered"] = gathered.rows
    own = gathered.rows[gathered.own]
    if not torch.equal(own, local) or gathered.mean_weight != world_size / len(gathered.rows):
        raise SystemExit(f"rank {rank} got {own}, weight {gathered.mean_weight}")
    if rank == 0:
        torch.save(results, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
