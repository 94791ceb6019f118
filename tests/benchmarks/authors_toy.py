"""Print the authors' toy beside their published curves.

    python tests/benchmarks/authors_toy.py FOLDER [--seeds 5]

FOLDER holds the curves of the MIGE repository (`toy/results`: mige_8.npz, mine_8.npz, ...), each
with `rho` and `gradient`.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from mige import ScoreEstimator, make_score_estimator, mutual_information_surrogate

DIMS = (8, 16, 32)
PUBLISHED = ("mige", "mine", "mine-f")
OURS = ("spectral", "gaussian_residual")


def truth_of(rho: np.ndarray, d: int) -> np.ndarray:
    """The exact dI/dρ of d pairs."""
    return d * rho / (1 - rho**2)


def summary(rho: np.ndarray, gradient: np.ndarray, d: int) -> tuple[float, float, float]:
    """Mean absolute error, slope against the truth, relative L2 error of one curve."""
    truth = truth_of(rho, d)
    error = gradient - truth
    return (
        float(abs(error).mean()),
        float(gradient @ truth / (truth @ truth)),
        float(np.linalg.norm(error) / np.linalg.norm(truth)),
    )


def estimate(estimator: ScoreEstimator, rhos: np.ndarray, d: int, seed: int) -> np.ndarray:
    """The estimated dI/dρ over a grid, from 256 fresh samples each."""
    generator = torch.Generator().manual_seed(seed)
    curve = []
    for value in rhos:
        rho = torch.tensor(float(value), requires_grad=True)
        x, noise = torch.randn(2, 256, d, generator=generator)
        surrogate = mutual_information_surrogate(
            x, rho * x + torch.sqrt(1 - rho**2) * noise, estimator
        )
        curve.append(float(torch.autograd.grad(surrogate, rho)[0]))
    return np.array(curve)


def main() -> None:
    """Print one row per method and dimension."""
    parser = argparse.ArgumentParser(description="The authors' toy beside their published curves.")
    parser.add_argument("folder", type=Path, help="holds mige_8.npz, mine_8.npz, ...")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rhos = np.linspace(-0.8, 0.8, 32)
    write = sys.stdout.write
    write("| d | method | mean abs. error | slope | rel. L2 error | ms per gradient |\n")
    write("|---|---|---|---|---|---|\n")
    for d in DIMS:
        for name in PUBLISHED:
            with np.load(arguments.folder / f"{name}_{d}.npz") as curve:
                rows = [summary(curve["rho"], line, d) for line in curve["gradient"]]
            write(_row(d, f"{name}, published", rows, None))
        for name in OURS:
            start = time.perf_counter()
            estimator = make_score_estimator(name)
            seeds = range(arguments.seeds)
            rows = [summary(rhos, estimate(estimator, rhos, d, seed), d) for seed in seeds]
            write(_row(d, name, rows, time.perf_counter() - start))


def _row(d: int, method: str, rows: list[tuple[float, float, float]], seconds: float | None) -> str:
    mean, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
    pairs = zip(mean, spread, strict=True)
    cells = [f"{m:.3f} ± {s:.3f}" if len(rows) > 1 else f"{m:.3f}" for m, s in pairs]
    cost = "" if seconds is None else f"{1000 * seconds / (32 * len(rows)):.1f}"
    return f"| {d} | {method} | {' | '.join(cells)} | {cost} |\n"


if __name__ == "__main__":
    main()
