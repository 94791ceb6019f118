"""The authors' toy: every estimator and every bound beside the published curves.

    python tests/benchmarks/authors_toy.py PUBLISHED OUTPUT [--seeds 20] [--quick]

d correlated Gaussian pairs, z = ρ x + √(1 − ρ²) ε, n = 256: dI/dρ = d ρ / (1 − ρ²) is known.

PUBLISHED holds the curves of the MIGE repository (`toy/results`: mige_8.npz, mine_8.npz, ...), each
with `rho` and `gradient`. OUTPUT gets toy.md, toy.json, toy.png, and rows.jsonl, from which an
interrupted run goes on. --quick: one width, one learning rate, 2 seeds and 4 ρ.

Score estimators see 256 samples for each ρ. Bounds get two budgets: 200 Adam steps on 256 fresh
samples each (the authors' protocol: 51,200 samples for each ρ; learning rate 1e-4, and the best of
a grid, chosen afterwards with the truth in hand), or 200 steps on the same 256 samples. The
Gaussian densities of club, l1out and doe hold the truth of this problem: no such luck elsewhere.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from tables import Row, RowStore, environment, markdown, progress
from torch import Tensor

from mige import SCORE_ESTIMATORS, make_score_estimator
from mige.bounds import BOUNDS, BoundEnsemble, fit_bound, make_bound, minibatches

DIMS = (8, 16, 32)
SAMPLES = 256
STEPS = 200
PUBLISHED = ("mige", "mine", "mine-f")
FRESH_RATES = (1e-4, 1e-3, 3e-3)  # the authors' first
SAME_SAMPLES_RATE = 1e-3
KEY = ("d", "method", "protocol", "seed", "num_rhos")
OURS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in SCORE_ESTIMATORS},
    **{
        f"{name} + Stein correction": (name, {"stein_correction": True})
        for name in ("spectral", "stein")
    },
}
Gradient = Callable[[Tensor, Tensor], Tensor]


class Toy:
    """Correlated pairs for a whole grid of ρ at once."""

    def __init__(self, d: int, num_rhos: int, seed: int) -> None:
        self.d = d
        self.rhos = np.linspace(-0.8, 0.8, num_rhos)
        self._rho = torch.tensor(self.rhos, dtype=torch.float32)[:, None, None]
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self) -> tuple[Tensor, Tensor]:
        """New pairs, each (ρ, n, d)."""
        shape = (2, len(self.rhos), SAMPLES, self.d)
        x, noise = torch.randn(shape, generator=self._generator)
        return x, self._rho * x + (1 - self._rho**2).sqrt() * noise

    def derivative(self, x: Tensor, z: Tensor, rows: Tensor) -> list[float]:
        """dI/dρ from the rows n · ∂I/∂z_i by the chain rule."""
        dz = x - self._rho / (1 - self._rho**2) * (z - self._rho * x)
        return (rows * dz).sum(-1).mean(-1).tolist()

    def exact_rows(self, x: Tensor, z: Tensor) -> Tensor:
        """Joint minus marginal score of the true densities: what remains is sampling error."""
        return z - (z - self._rho * x) / (1 - self._rho**2)


def truth_of(rho: np.ndarray, d: int) -> np.ndarray:
    """The exact dI/dρ."""
    return d * rho / (1 - rho**2)


def measure_gradient(toy: Toy, gradient: Gradient) -> Row:
    """One curve of a method that needs no training; the time is that of one ρ."""
    x, z = toy.sample()
    start = time.process_time()
    rows = gradient(x, z)
    seconds = time.process_time() - start
    return _row(toy, toy.derivative(x, z, rows), None, seconds)


def measure_bound(toy: Toy, name: str, rate: float, *, fresh: bool, seed: int) -> Row:
    """One curve of a bound: training, then the gradient, both timed."""
    torch.manual_seed(seed)
    bounds = [make_bound(name, toy.d, toy.d) for _ in toy.rhos]
    start = time.process_time()
    x, z = toy.sample()
    if not bounds[0].has_gradient:
        values = [float(bound.value(*pair)) for bound, *pair in zip(bounds, x, z, strict=True)]
        return _row(toy, None, values, time.process_time() - start)
    ensemble = BoundEnsemble(bounds)
    # The same rows in a new order at every step, so that false pairs are new ones each time.
    generator = torch.Generator().manual_seed(seed)
    again = minibatches(x, z, batch_size=SAMPLES, generator=generator)
    fit_bound(ensemble, toy.sample if fresh else again, steps=STEPS, learning_rate=rate)
    gradient = ensemble.information_gradient(x, z)
    seconds = time.process_time() - start
    values = gradient.diagnostics["value"].tolist()
    return _row(toy, toy.derivative(x, z, gradient.z), values, seconds)


def _row(toy: Toy, gradient: list[float] | None, value: list[float] | None, seconds: float) -> Row:
    milliseconds = 1000 * seconds / len(toy.rhos)
    return {"rho": toy.rhos.tolist(), "gradient": gradient, "value": value, "ms": milliseconds}


def run_ours(store: RowStore, dims: Sequence[int], seeds: int, num_rhos: int) -> None:
    """Every score estimator, and the floor that exact scores leave."""
    for d in dims:
        progress(f"d = {d}: score estimators")
        for seed in range(seeds):
            toy = Toy(d, num_rhos, seed)
            key: Row = {"d": d, "protocol": "256 samples", "seed": seed, "num_rhos": num_rhos}
            store.measure(
                {**key, "method": "exact scores"},
                lambda toy=toy: measure_gradient(toy, toy.exact_rows),
            )
            for label, (name, options) in OURS.items():
                estimator = make_score_estimator(name, **options)
                toy = Toy(d, num_rhos, seed)  # the same samples for every method
                store.measure(
                    {**key, "method": label},
                    lambda toy=toy, estimator=estimator: measure_gradient(
                        toy, lambda x, z: estimator.information_gradient(x, z).z
                    ),
                )


def run_baselines(
    store: RowStore, dims: Sequence[int], rates: Sequence[float], seeds: int, num_rhos: int
) -> None:
    """Every bound under every protocol."""
    protocols = [(f"fresh, lr {rate:g}", rate, True) for rate in rates]
    protocols.insert(2, (f"same 256, lr {SAME_SAMPLES_RATE:g}", SAME_SAMPLES_RATE, False))
    for seed in range(seeds):
        for protocol, rate, fresh in protocols:
            for d in dims:
                for name in BOUNDS:
                    progress(f"seed {seed}, {protocol}, d = {d}: {name}")
                    toy = Toy(d, num_rhos, seed)
                    key = {"d": d, "method": name, "protocol": protocol, "seed": seed}
                    store.measure(
                        {**key, "num_rhos": num_rhos},
                        lambda toy=toy, name=name, rate=rate, fresh=fresh, seed=seed: measure_bound(
                            toy, name, rate, fresh=fresh, seed=seed
                        ),
                    )


def published_rows(folder: Path, dims: Sequence[int]) -> list[Row]:
    """The published curves in the shape of our own rows."""
    rows: list[Row] = []
    for d in dims:
        for name in PUBLISHED:
            with np.load(folder / f"{name}_{d}.npz") as curve:
                for seed, line in enumerate(curve["gradient"]):
                    rows.append(
                        {"d": d, "method": f"{name}, published", "protocol": "as published"}
                        | {"seed": seed, "rho": curve["rho"].tolist(), "gradient": line.tolist()}
                        | {"value": None, "ms": None}
                    )
    return rows


def rows_of(store: RowStore, dims: Sequence[int], rhos: int, baseline_rhos: int) -> list[Row]:
    """The rows of one grid: the file may hold those of a quick run too."""
    return [
        row
        for row in store.rows
        if row["d"] in dims
        and row["num_rhos"] == (baseline_rhos if row["method"] in BOUNDS else rhos)
    ]


def errors_of(row: Row) -> dict[str, float]:
    """Mean absolute error, slope against the truth, relative L2 error; and the value's error."""
    rho, errors = np.array(row["rho"]), {}
    if row["gradient"] is not None:
        truth, gradient = truth_of(rho, row["d"]), np.array(row["gradient"])
        errors["mae"] = float(abs(gradient - truth).mean())
        errors["slope"] = float(gradient @ truth / (truth @ truth))
        errors["relative"] = float(np.linalg.norm(gradient - truth) / np.linalg.norm(truth))
    if row["value"] is not None:
        information = -row["d"] / 2 * np.log(1 - rho**2)
        errors["value"] = float(abs(np.array(row["value"]) - information).mean())
    return errors


def summarise(rows: list[Row]) -> list[Row]:
    """Mean and spread over seeds of every (d, method, protocol), and the best rate of the grid."""
    groups: dict[tuple[int, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["d"], row["method"], row["protocol"]), []).append(row)
    summaries = []
    for (d, method, protocol), members in groups.items():
        errors = [errors_of(row) for row in members]
        cells = {
            name: (float(np.mean(values)), float(np.std(values)))
            for name in errors[0]
            if (values := [error[name] for error in errors])
        }
        ms = None if members[0]["ms"] is None else float(np.median([row["ms"] for row in members]))
        summaries.append(
            {"d": d, "method": method, "protocol": protocol, "seeds": len(members), "ms": ms}
            | cells
        )
    best: dict[tuple[int, str], Row] = {}
    for summary in summaries:
        if summary["protocol"].startswith("fresh") and "relative" in summary:
            rival = best.setdefault((summary["d"], summary["method"]), summary)
            if summary["relative"][0] < rival["relative"][0]:
                best[summary["d"], summary["method"]] = summary
    for summary in summaries:
        summary["best_rate"] = best.get((summary["d"], summary["method"])) is summary
    return sorted(summaries, key=lambda s: (s["d"], s.get("relative", (9.0,))[0]))


def table(summaries: list[Row]) -> str:
    """One Markdown table for all widths."""
    columns = ["d", "method", "protocol", "mean abs. error", "slope", "rel. L2 error"]
    columns += ["value's abs. error (nats)", "ms per gradient", "seeds"]
    lines = []
    for row in summaries:
        cells = [_cell(row.get(name), row["seeds"]) for name in ("mae", "slope", "relative")]
        cells += [_cell(row.get("value"), row["seeds"])]
        cost = "" if row["ms"] is None else f"{row['ms']:.3g}"
        mark = " (best)" if row["best_rate"] else ""
        lines.append([row["d"], row["method"], row["protocol"] + mark, *cells, cost, row["seeds"]])
    return markdown(columns, lines)


def _cell(value: tuple[float, float] | None, seeds: int) -> str:
    if value is None:
        return ""
    return f"{value[0]:.3f} ± {value[1]:.3f}" if seeds > 1 else f"{value[0]:.3f}"


def colours_of(rows: list[Row]) -> dict[str, tuple[float, float, float]]:
    """One colour a method, the same in every column; bounds and scores share no panel."""
    palette = colormaps["tab20"].colors
    colours = {}
    for of_bounds in (False, True):
        methods = dict.fromkeys(r["method"] for r in rows if (r["method"] in BOUNDS) == of_bounds)
        colours |= dict(zip(sorted(methods), palette, strict=False))
    return colours


def draw(rows: list[Row], summaries: list[Row]) -> Figure:
    """Curves of dI/dρ, a column for each d: score estimators above, bounds at their best below."""
    best = {(s["d"], s["method"]): s["protocol"] for s in summaries if s["best_rate"]}
    dims = sorted({row["d"] for row in rows})
    colours = colours_of(rows)
    figure = Figure(figsize=(4.5 * len(dims) + 3, 9), layout="constrained")
    axes = figure.subplots(2, len(dims), sharex=True, squeeze=False)
    for column, d in enumerate(dims):
        grid = np.linspace(-0.8, 0.8, 200)
        for axis in axes[:, column]:
            axis.plot(grid, truth_of(grid, d), "k-", linewidth=2, label="truth")
            axis.grid(alpha=0.3)
        for row in rows:
            fitted = row["method"] in BOUNDS
            shown = row["protocol"] == best.get((d, row["method"])) if fitted else True
            if row["d"] != d or row["seed"] != 0 or row["gradient"] is None or not shown:
                continue
            style = "--" if row["protocol"] == "as published" else "-"
            axis = axes[int(fitted), column]
            label = row["method"]
            axis.plot(row["rho"], row["gradient"], style, c=colours[label], lw=1, label=label)
        axes[0, column].set_title(f"d = {d}, one seed")
        axes[1, column].set_xlabel("ρ")
    for axis, what in zip(axes[:, 0], ("scores, 256 samples", "bounds, 51,200"), strict=True):
        axis.set_ylabel(f"dI/dρ ({what})")
    for axis in axes[:, -1]:
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def main() -> None:
    """Measure what is missing, then write tables and plots of all there is."""
    parser = argparse.ArgumentParser(description="The authors' toy, with every baseline.")
    parser.add_argument("published", type=Path, help="holds mige_8.npz, mine_8.npz, ...")
    parser.add_argument("output", type=Path, help="gets toy.md, toy.json, toy.png, rows.jsonl")
    parser.add_argument("--seeds", type=int, default=20, help="of the score estimators")
    parser.add_argument("--baseline-seeds", type=int, default=1, help="0: no bounds")
    parser.add_argument("--rhos", type=int, default=32, help="of the score estimators")
    parser.add_argument("--baseline-rhos", type=int, default=16, help="of the bounds")
    parser.add_argument("--quick", action="store_true", help="d = 8, one rate, 2 seeds and 4 ρ")
    arguments = parser.parse_args()
    dims, rates = DIMS, FRESH_RATES
    if arguments.quick:
        dims, rates = DIMS[:1], FRESH_RATES[:1]
        arguments.seeds, arguments.rhos = 2, 4
        arguments.baseline_seeds, arguments.baseline_rhos = 1, 4
    torch.set_num_threads(1)
    published = published_rows(arguments.published, dims)
    store = RowStore(arguments.output / "rows.jsonl", KEY)
    run_ours(store, dims, arguments.seeds, arguments.rhos)
    run_baselines(store, dims, rates, arguments.baseline_seeds, arguments.baseline_rhos)
    rows = [*published, *rows_of(store, dims, arguments.rhos, arguments.baseline_rhos)]
    summaries = summarise(rows)
    text = table(summaries)
    (arguments.output / "toy.md").write_text(text)
    record = {"environment": environment(), "summaries": summaries}
    (arguments.output / "toy.json").write_text(json.dumps(record, indent=1))
    draw(rows, summaries).savefig(arguments.output / "toy.png", dpi=120)
    print(text)  # noqa: T201  the command's output


if __name__ == "__main__":
    main()
