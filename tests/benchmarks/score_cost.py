"""Time and peak memory of one score call, beside the authors' formula and the bare Gram matrix.

    python tests/benchmarks/score_cost.py FOLDER [--quick] [--device cuda]

Writes cost.md, cost.json and cost.png to FOLDER. Two yardsticks:

- `bare_gram`: one matrix product and an exponential, the limit of every kernel method;
- `authors_formula`: a port of the published code, with its (n, n, d) tensors and `eigh`.

Each cell runs in a process of its own: the time is the least of several calls (processor time of
one thread; on CUDA, events), the memory the most that its tensors held at the same time, without
the workspace of one operation. A cell whose tensors would not fit is left out and marked.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mige import make_score_estimator
from mige.calibration.memory import peak_memory_bytes

SIZES = (128, 256, 512, 1024, 2048, 4096)
WIDTHS = (64, 128, 256, 512, 1024)
CONFIGURATIONS: dict[str, tuple[str, dict[str, object]]] = {
    "gaussian_residual": ("gaussian_residual", {}),
    "gaussian_residual, exact": ("gaussian_residual", {"landmarks": None}),
    "gaussian_residual, no residual": ("gaussian_residual", {"residual": False}),
    "spectral": ("spectral", {}),
    "stein": ("stein", {}),
    "tikhonov, 256 landmarks": ("tikhonov", {"landmarks": 256}),
    "nu_method": ("nu_method", {}),
    "landweber": ("landweber", {}),
}
LARGEST_BYTES = 10 * 2**30


def bare_gram(x: Tensor) -> Tensor:
    """exp(x xᵀ / 2d): what any Gram matrix costs at least."""
    return (x @ x.mT).mul_(0.5 / x.shape[1]).exp_()


def authors_formula(x: Tensor) -> Tensor:
    """The published score: every pairwise difference is kept, and its product with the kernel."""
    n = len(x)
    difference = x[:, None, :] - x[None, :, :]  # (n, n, d)
    squared = (difference**2).sum(-1)
    bandwidth = squared.sqrt().flatten().topk(n * n // 2).values[-1]
    gram = torch.exp(-squared / (2.0 * bandwidth**2))
    gradient = -gram[:, :, None] * difference / bandwidth**2  # (n, n, d)
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    kept = int((values.cumsum(0) / values.sum() < 0.99).sum())
    values, vectors = values[:kept], vectors[:, :kept]
    beta = -(n**0.5) * vectors.T @ gradient.mean(0) / values[:, None]
    psi = n**0.5 * gram @ vectors / values
    return psi @ beta


def methods() -> dict[str, Callable[[Tensor], Tensor]]:
    """Every row of the tables."""
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "bare_gram": bare_gram,
        "authors_formula": authors_formula,
    }
    for label, (name, options) in CONFIGURATIONS.items():
        found[label] = make_score_estimator(name, **options).score
    return found


def expected_bytes(method: str, n: int, d: int) -> int:
    """A lower bound of the largest tensors, to leave out what cannot fit."""
    return 4 * n * n * (4 * d if method == "authors_formula" else 4)


def measure(method: str, n: int, d: int, device: str, budget_s: float) -> dict[str, float]:
    """Milliseconds and mebibytes of one call."""
    torch.set_num_threads(1)
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).to(device)
    call = methods()[method]
    # The first call also sets up what is set up once: it gives the memory, not the time.
    peak = peak_memory_bytes(lambda: call(x), x.device)
    times: list[float] = []
    begin = time.monotonic()
    while not times or (time.monotonic() - begin < budget_s and len(times) < 20):
        times.append(_milliseconds(call, x))
    return {"ms": min(times), "mib": peak / 2**20}


def _milliseconds(call: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Processor time on a CPU, time between events on CUDA."""
    if x.device.type != "cuda":
        begin = time.process_time()
        call(x)
        return 1e3 * (time.process_time() - begin)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call(x)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def _child(method: str, n: int, d: int, device: str, budget_s: float, pipe: object) -> None:
    pipe.send(measure(method, n, d, device, budget_s))


def measure_apart(method: str, n: int, d: int, device: str, budget_s: float) -> dict[str, float]:
    """`measure` in a process of its own, so that what one leaves behind does not slow the next."""
    context = multiprocessing.get_context("spawn" if device == "cuda" else "fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(method, n, d, device, budget_s, sender))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise SystemExit(f"{method} at n = {n}, d = {d} ended without an answer") from error
    finally:
        child.join()


def table(results: dict[str, dict[str, dict[str, float]]], what: str, unit: str) -> str:
    """One Markdown table: rows are sizes, columns methods."""
    names = list(methods())
    lines = [f"| n, d | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for cell, row in results.items():
        shown = [f"{row[name][what]:.3g}" if name in row else "–" for name in names]
        lines.append(f"| {cell} | {' | '.join(shown)} |")
    return f"{unit}\n\n" + "\n".join(lines) + "\n"


def ratios(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """How far from the limit, and how far ahead of the published code."""
    lines = [
        "gaussian_residual against the two yardsticks\n",
        "| n, d | times the bare Gram matrix | authors' formula / it | memory: formula / it |",
        "|---|---|---|---|",
    ]
    for cell, row in results.items():
        ours = row["gaussian_residual"]
        over = f"{ours['ms'] / row['bare_gram']['ms']:.1f}"
        ahead = memory = "–"
        if "authors_formula" in row:
            ahead = f"{row['authors_formula']['ms'] / ours['ms']:.0f}"
            memory = f"{row['authors_formula']['mib'] / ours['mib']:.0f}"
        lines.append(f"| {cell} | {over} | {ahead} | {memory} |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, dict[str, dict[str, float]]], path: Path, width: int) -> None:
    """Time and memory against n at one width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    sizes = sorted({int(cell.split(",")[0]) for cell in results})
    for name in methods():
        points = [
            (int(cell.split(",")[0]), row[name])
            for cell, row in results.items()
            if name in row and int(cell.split(",")[1]) == width
        ]
        for axis, what in zip(axes, ("ms", "mib"), strict=True):
            axis.plot(
                [n for n, _ in points], [max(p[what], 0.05) for _, p in points], "o-", label=name
            )
    for axis, label in zip(axes, ("ms per call", "peak memory, MiB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="samples n", ylabel=label, title=f"d = {width}")
        axis.set_xticks(sizes, list(map(str, sizes)))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where cost.md, cost.json and cost.png go")
    parser.add_argument("--quick", action="store_true", help="three sizes at one width")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on each cell at most")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sizes, widths = ((256, 512, 1024), (64,)) if arguments.quick else (SIZES, WIDTHS)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for d in widths:
        for n in sizes:
            row = results.setdefault(f"{n}, {d}", {})
            for method in methods():
                if expected_bytes(method, n, d) <= LARGEST_BYTES:
                    row[method] = measure_apart(method, n, d, arguments.device, arguments.seconds)
            sys.stderr.write(f"n = {n}, d = {d}: {len(row)} methods\n")
    text = "\n".join(
        [
            table(results, "ms", "Milliseconds per call, float32"),
            table(results, "mib", "Peak memory, MiB"),
            ratios(results),
        ]
    )
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "one CPU thread"
    text = f"# Cost of a score\n\ntorch {torch.__version__}, {where}\n\n{text}"
    (arguments.folder / "cost.md").write_text(text)
    (arguments.folder / "cost.json").write_text(json.dumps(results, indent=1))
    plot(results, arguments.folder / "cost.png", widths[0])
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
