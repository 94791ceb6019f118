"""Relative error of dI/dρ over the calibration suite, and of a whole parameter gradient.

    python tests/benchmarks/calibration_suite.py FOLDER [--seeds 20] [--quick]
        [--configuration spectral] [--configuration gaussian_residual:transport=false] ...
        [--sizes 128 256] [--widths 8 16] [--parameters 32] [--device cuda] [--workers 4]
        [--tables-only]

A configuration is the name of a score estimator or a bound, with options after a colon:
`gaussian_residual:transport=false,ridge=0.2`. Writes to FOLDER:

- rows.jsonl: one estimate a line, as it is made. A run that is started again skips what is there;
  delete the file after a change of the estimators.
- suite.md, suite.json: for each n, d and configuration the mean ± sd over seeds of the relative L2
  error of every problem, their geometric mean over the ten of the suite, and beside it the
  relative error and the cosine of the entropy gradient in all weights of a network.
- suite.png, problems.png.

Seeds are the outermost loop: stopped early, it has fewer seeds of everything. With `--parameters 8`
each curve has 8 correlations instead of 32, where 32 eigendecompositions would take too long.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mige import MigeError
from mige.calibration import (
    NETWORKS,
    PROBLEMS,
    SUITE,
    Problem,
    Subject,
    compare,
    entropy_estimate,
    information_estimate,
    make_subject,
    truth_of,
)

SIZES = (128, 256, 512, 1024, 2048)
WIDTHS = (8, 16, 32, 64)
CONFIGURATIONS = ("spectral", "gaussian_residual")
BESIDE = ("rotated_square", "rotated_sin")  # not in the geometric mean
PROGRESS_SECONDS = 10.0
MEASURED = (*SUITE, *BESIDE, *NETWORKS)


class Cell(NamedTuple):
    """One estimate to make."""

    seed: int
    n: int
    d: int
    configuration: str
    problem: str

    def key(self, parameters: int) -> str:
        """What identifies it in rows.jsonl."""
        return json.dumps([*self, parameters])


def parse_configuration(text: str) -> Subject:
    """`name` or `name:key=value,key=value`, values as JSON where they can be."""
    name, _, options = text.partition(":")
    parsed: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        key, _, value = part.partition("=")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return make_subject(name, parsed)


def grid_of(problem: Problem, d: int, count: int) -> Tensor:
    """`count` parameters of the grid, evenly spread and symmetric."""
    grid = problem.grid(d)
    chosen = torch.linspace(0, len(grid) - 1, min(count, len(grid))).round().long()
    return grid[chosen]


def measure(subject: Subject, cell: Cell, parameters: int, device: torch.device) -> dict[str, Any]:
    """Relative error, slope and cosine of one estimate; `error` where there is none."""
    start = time.perf_counter()
    try:
        if cell.problem in NETWORKS:
            network = NETWORKS[cell.problem]
            truth = truth_of(network, cell.d)
            estimate = entropy_estimate(subject, network, cell.n, cell.d, cell.seed, device=device)
        else:
            problem = PROBLEMS[cell.problem]
            grid = grid_of(problem, cell.d, parameters)
            truth = problem.truth(grid, cell.d).flatten()
            estimate = information_estimate(
                subject, problem, cell.n, cell.d, cell.seed, grid=grid, device=device
            )
    except MigeError as error:
        return {"error": str(error)}
    found = compare(estimate[None], truth)
    return {
        "relative_error": found.relative_error,
        "slope": found.slope,
        "cosine": found.cosine,
        "seconds": round(time.perf_counter() - start, 3),
    }


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """What is measured already, by key; a line cut off by an interrupt is dropped."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows[row["key"]] = row["found"]
    return rows


def cells_of(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Everything to measure, in the order of measuring."""
    for seed in range(arguments.seeds):
        for n in arguments.sizes:
            for d in arguments.widths:
                for configuration in arguments.configuration:
                    gives_scores = parse_configuration(configuration).gives_scores
                    for problem in MEASURED:
                        if gives_scores or problem in PROBLEMS:
                            yield Cell(seed, n, d, configuration, problem)


class Job(NamedTuple):
    """What a worker needs."""

    cell: Cell
    parameters: int
    device: str


def work(job: Job) -> tuple[Job, dict[str, Any]]:
    """Measure one cell, in this process or another."""
    torch.set_num_threads(1)
    subject = parse_configuration(job.cell.configuration)
    return job, measure(subject, job.cell, job.parameters, torch.device(job.device))


def run(arguments: argparse.Namespace, rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Measure what is missing, a line at a time."""
    count, device = arguments.parameters, arguments.device
    jobs = [Job(c, count, device) for c in cells_of(arguments) if c.key(count) not in rows]
    begin, last = time.monotonic(), -math.inf
    with path.open("a") as file, contextlib.ExitStack() as stack:
        if arguments.workers == 1:
            results: Iterable[tuple[Job, dict[str, Any]]] = map(work, jobs)
        else:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(arguments.workers))
            results = pool.imap_unordered(work, jobs)
        for done, (job, found) in enumerate(results, start=1):
            key = job.cell.key(count)
            rows[key] = found
            file.write(json.dumps({"key": key, "found": found}) + "\n")
            file.flush()
            now = time.monotonic()
            if now - last > PROGRESS_SECONDS or done == len(jobs):
                minutes = (now - begin) / done * (len(jobs) - done) / 60
                name = " ".join(map(str, job.cell))
                sys.stderr.write(f"{done} of {len(jobs)}, {minutes:.0f} min left: {name}\n")
                last = now


def mean_and_std(values: list[float]) -> dict[str, float | int | None]:
    """Of the seeds that gave a number."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "seeds": len(values),
    }


def summarise(
    arguments: argparse.Namespace, rows: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """One entry per n, d and configuration: every problem, the geometric mean, the failures."""
    entries = []
    for n in arguments.sizes:
        for d in arguments.widths:
            for configuration in arguments.configuration:
                found = {
                    (seed, problem): rows.get(
                        Cell(seed, n, d, configuration, problem).key(arguments.parameters), {}
                    )
                    for seed in range(arguments.seeds)
                    for problem in MEASURED
                }
                entries.append(
                    {"n": n, "d": d, "configuration": configuration, **_entry(found, arguments)}
                )
    return entries


def _entry(
    found: dict[tuple[int, str], dict[str, Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    problems: dict[str, Any] = {}
    for problem in MEASURED:
        of_seeds = [found[seed, problem] for seed in range(arguments.seeds)]
        good = [row for row in of_seeds if "relative_error" in row]
        if good:
            problems[problem] = {
                quantity: mean_and_std([row[quantity] for row in good])
                for quantity in ("relative_error", "slope", "cosine")
            }
    logs = [
        [math.log(found[seed, problem]["relative_error"]) for problem in SUITE]
        for seed in range(arguments.seeds)
        if all("relative_error" in found[seed, problem] for problem in SUITE)
    ]
    geometric = [math.exp(sum(log) / len(log)) for log in logs]
    return {
        "problems": problems,
        "geometric_mean": mean_and_std(geometric) if geometric else None,
        "failures": sorted({row["error"] for row in found.values() if "error" in row}),
    }


def seeds_of(entries: list[dict[str, Any]]) -> str:
    """How many seeds each number is made of: those that were measured, not those asked for."""
    found = {p["relative_error"]["seeds"] for e in entries for p in e["problems"].values()}
    return " to ".join(map(str, sorted({min(found), max(found)}))) if found else "0"


def tables(entries: list[dict[str, Any]]) -> str:
    """Markdown: a table per n, a row per d and configuration; all in %, cosines as they are."""
    text = []
    for n in sorted({entry["n"] for entry in entries}):
        head = ["d", "estimator", *SUITE, "**geometric mean**", *BESIDE,
                *(f"{name}: error / cosine" for name in NETWORKS)]  # fmt: skip
        text += [f"## n = {n}\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for entry in entries:
            if entry["n"] == n:
                text.append(_table_row(entry))
        text.append("")
    failures = [
        f"- {e['configuration']}, n = {e['n']}, d = {e['d']}: {failure}"
        for e in entries
        for failure in e["failures"]
    ]
    return "\n".join([*text, *(["Failures:\n", *failures, ""] if failures else [])])


def _table_row(entry: dict[str, Any]) -> str:
    problems = entry["problems"]

    def error(name: str) -> str:
        return _percent(problems[name]["relative_error"]) if name in problems else "–"

    def both(name: str) -> str:
        return (
            f"{error(name)} / {problems[name]['cosine']['mean']:.3f}" if name in problems else "–"
        )

    geometric = entry["geometric_mean"]
    cells = [
        str(entry["d"]),
        entry["configuration"],
        *map(error, SUITE),
        f"**{_percent(geometric)}**" if geometric else "–",
        *map(error, BESIDE),
        *map(both, NETWORKS),
    ]
    return f"| {' | '.join(cells)} |"


def _percent(value: dict[str, Any]) -> str:
    mean = f"{100 * value['mean']:.1f}"
    return mean if value["std"] is None else f"{mean} ± {100 * value['std']:.1f}"


def plot_suite(entries: list[dict[str, Any]], path: Path) -> None:
    """Geometric mean, network error and network cosine against n, a column per width."""
    from matplotlib.figure import Figure

    widths = sorted({entry["d"] for entry in entries})
    figure = Figure(figsize=(3.2 * len(widths) + 1, 8), layout="constrained")
    axes = figure.subplots(3, len(widths), squeeze=False, sharex=True, sharey="row")
    for column, d in enumerate(widths):
        for configuration in dict.fromkeys(entry["configuration"] for entry in entries):
            of_this = [e for e in entries if (e["d"], e["configuration"]) == (d, configuration)]
            lines = (
                [(e["n"], e["geometric_mean"]) for e in of_this],
                [(e["n"], _network(e, "relative_error")) for e in of_this],
                [(e["n"], _network(e, "cosine")) for e in of_this],
            )
            for axis, line in zip(axes[:, column], lines, strict=True):
                _draw(axis, line, configuration)
        axes[0, column].set(title=f"d = {d}", yscale="log")
        axes[1, column].set(yscale="log")
        axes[2, column].set(xlabel="samples n")
    for axis, label in zip(
        axes[:, 0], ("suite: geometric mean", "network: relative error", "network: cosine"),
        strict=True,
    ):  # fmt: skip
        axis.set_ylabel(label)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def plot_problems(entries: list[dict[str, Any]], path: Path, d: int) -> None:
    """Relative error against n, a panel per problem, at one width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 9), layout="constrained")
    axes = figure.subplots(3, 5, sharex=True).flatten()
    for axis, problem in zip(axes, MEASURED, strict=False):
        for configuration in dict.fromkeys(entry["configuration"] for entry in entries):
            line = [
                (e["n"], e["problems"].get(problem, {}).get("relative_error"))
                for e in entries
                if (e["d"], e["configuration"]) == (d, configuration)
            ]
            _draw(axis, line, configuration)
        axis.set(title=problem, yscale="log")
    for axis in axes[len(MEASURED) :]:
        axis.remove()
    for axis in axes[len(MEASURED) - 5 : len(MEASURED)]:  # the lowest panel of each column
        axis.set_xlabel("samples n")
        axis.tick_params(labelbottom=True)
    axes[0].legend(fontsize=7)
    figure.suptitle(f"relative error of the gradient, d = {d}")
    figure.savefig(path, dpi=110)


def _network(entry: dict[str, Any], quantity: str) -> dict[str, Any] | None:
    return entry["problems"].get("network", {}).get(quantity)


def _draw(axis: Any, line: list[tuple[int, dict[str, Any] | None]], label: str) -> None:
    points = [(n, value["mean"], value["std"] or 0.0) for n, value in line if value]
    if points:
        sizes, means, spreads = zip(*points, strict=True)
        axis.errorbar(sizes, means, yerr=spreads, fmt="o-", markersize=3, capsize=2, label=label)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3)


def parse_arguments() -> argparse.Namespace:
    """The command line; `--quick` sets what is not given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the rows, tables and plots go")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--widths", type=int, nargs="+")
    parser.add_argument("--configuration", action="append", help="may be repeated")
    parser.add_argument("--parameters", type=int, default=32, help="correlations of each curve")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--quick", action="store_true", help="2 seeds, n = 128 and 256, d = 8")
    parser.add_argument("--tables-only", action="store_true", help="measure nothing more")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.seeds = arguments.seeds or (2 if quick else 20)
    arguments.sizes = arguments.sizes or ((128, 256) if quick else SIZES)
    arguments.widths = arguments.widths or ((8,) if quick else WIDTHS)
    arguments.configuration = arguments.configuration or list(CONFIGURATIONS)
    for text in arguments.configuration:
        try:
            parse_configuration(text)
        except MigeError as error:
            parser.error(f"--configuration {text}: {error}")
    return arguments


def main() -> None:
    """Measure, print and store."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_rows(folder / "rows.jsonl")
    if not arguments.tables_only:
        run(arguments, rows, folder / "rows.jsonl")
    entries = summarise(arguments, rows)
    document = {
        "seeds": arguments.seeds,
        "parameters": arguments.parameters,
        "torch": str(torch.__version__),
        "entries": entries,
    }
    (folder / "suite.json").write_text(json.dumps(document, indent=1) + "\n")
    text = (
        f"Relative L2 error of the gradient in %, mean ± sd over {seeds_of(entries)} seeds, "
        f"{arguments.parameters} parameters a curve, float32.\n\n" + tables(entries)
    )
    (folder / "suite.md").write_text(text)
    sys.stdout.write(text)
    plot_suite(entries, folder / "suite.png")
    middle = 32 if 32 in arguments.widths else arguments.widths[-1]
    plot_problems(entries, folder / "problems.png", middle)


if __name__ == "__main__":
    main()
