"""One data-parallel worker of `test_gather.py`: `python gather_worker.py RANK WORLD STORE OUT`.

Trains a small encoder under DDP on its own, uneven share of two batches, the last one smaller, and
(rank 0) writes the averaged gradients of every case. In three workers, one has no rows at the end.
"""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mige import MigeInfomax, gather_rows, make_score_estimator
from mige.scores import SCORE_ESTIMATORS

SHARES = {  # of each batch, by the number of workers
    1: [[40], [29]],
    2: [[27, 13], [28, 1]],
    3: [[16, 1, 23], [17, 0, 12]],
}
JOINT = {"route": "joint", "projection_dim": 4}
CASES = {
    "joint_batch_norm": {**JOINT, "normalize": "batch_norm"},
    "conditional": {"route": "conditional", "noise_std": 1e-12, "bank_size": 100},
    "local": {**JOINT, "gather": "local"},
    **{name: {**JOINT, "estimator": name} for name in SCORE_ESTIMATORS},
    **{f"{name}_bank": {**JOINT, "estimator": name, "bank_size": 100} for name in SCORE_ESTIMATORS},
}


def gradients(case, dtype, rank, world_size):
    """The gradients of one case, what was reported, and the buffers of its objective."""
    options = dict(CASES[case])
    generator = torch.Generator().manual_seed(7)
    batches = [
        torch.randn(sum(shares), 6, generator=generator, dtype=torch.float64).to(dtype)
        for shares in SHARES[world_size]
    ]
    encoder = torch.nn.Linear(6, 3, bias=False).to(dtype)
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    encoder.weight.data.copy_(weight)
    model = DistributedDataParallel(encoder) if world_size > 1 else encoder
    estimator = make_score_estimator(options.pop("estimator", "spectral"))
    objective = MigeInfomax(estimator=estimator, input_dim=6, embedding_dim=3, **options).to(dtype)
    for batch, shares in zip(batches, SHARES[world_size], strict=True):
        own = batch.split(shares)[rank]
        output = objective(own, torch.tanh(model(own)))
        output.loss.backward()
    check_equal_on_all_workers(objective.bank)
    statistics = {key: value for key, value in objective.state_dict().items() if "mean" in key}
    results = {"weight": encoder.weight.grad, **statistics}
    return results | {"sample_size": output.info["sample_size"]}


def check_equal_on_all_workers(bank):
    """Banks hold gathered rows, bit by bit the same."""
    for buffer in () if bank is None else (bank.rows, bank.ages):
        first = buffer.clone()
        dist.broadcast(first, 0)
        if not torch.equal(first, buffer):
            raise SystemExit("the workers' banks differ")


def check_gathering(rank, world_size):
    """Rank 0 has no rows, unless it is alone; then equal shares, with one message."""
    local = torch.full((rank * 2 if world_size > 1 else 1, 3), float(rank))
    gathered = gather_rows(local)
    own = gathered.rows[gathered.own]
    if not torch.equal(own, local) or gathered.mean_weight != world_size / len(gathered.rows):
        raise SystemExit(f"rank {rank} got {own}, weight {gathered.mean_weight}")
    equal = torch.full((2, 3), float(rank))
    promised, found = gather_rows(equal, equal_shares=True), gather_rows(equal)
    if not torch.equal(promised.rows, found.rows) or promised.own != found.own:
        raise SystemExit(f"rank {rank} got {promised}, not {found}")
    return gathered.rows


def main(rank, world_size, store, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    results = {
        (case, dtype): gradients(case, dtype, rank, world_size)
        for case in CASES
        for dtype in (torch.float64, torch.float32)
    }
    results["gathered"] = check_gathering(rank, world_size)
    if rank == 0:
        torch.save(results, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
