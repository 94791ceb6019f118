"""`mige calibrate`: how far an estimator is from gradients that are known exactly."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.output import (
    EXIT_REJECTED,
    console,
    errors,
    fail,
    note,
    print_json,
    print_rows,
)

if TYPE_CHECKING:
    from mige.calibration import CalibrationCard
    from mige.calibration.card import Progress

_SEEDS, _QUICK_SEEDS = 10, 3
_LINES = 10  # printed on the way, where there is no terminal for a bar


def calibrate(
    estimator: Annotated[
        str,
        typer.Option(
            "--estimator", "-e", help="A score estimator, or a bound. A wrong name lists all."
        ),
    ] = "gaussian_residual",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option of it, such as ridge=0.2. May be repeated."
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=2, help="Rows of a batch.")] = 256,
    dim: Annotated[int, typer.Option("--dim", "-d", min=1, help="Width of z, and of x.")] = 32,
    dim_x: Annotated[
        int | None,
        typer.Option(min=1, help="Width of x, if it is wider than z.", show_default=False),
    ] = None,
    problem: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this problem. May be repeated. A wrong name lists all."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Estimates per problem: 10, or 3 with --quick.", show_default=False
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Five of the problems, three seeds: seconds.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to estimate: cpu, cuda, cuda:1.")] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", file_okay=False, help="Write card.json and card.png there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Measure an estimator of MI gradients where the truth is known; no service is needed.

    The card tells, for your batch size and width, how large bias and spread
    are, whether the estimate is shrunk (slope below 1), how well it points the
    right way (cosine), and what a call costs.

    Examples:
      mige calibrate --samples 256 --dim 32 --quick

      mige calibrate -e spectral --option explained=0.95 -n 128 -d 64 -o card
    """
    options = parse_options(option or [])
    if output is not None:
        _make_folder(output)  # before the work, not after it
    card = _measure(
        estimator,
        options,
        n=samples,
        d=dim,
        dim_x=dim_x,
        problems=problem,
        seeds=seeds or (_QUICK_SEEDS if quick else _SEEDS),
        quick=quick,
        device=device,
    )
    if output is not None:
        write_card(card, output)
    if as_json:
        print_json(card.to_dict())
    else:
        _print_card(card)
    if output is not None:
        note(f"{output / 'card.json'} and {output / 'card.png'}")


def parse_options(texts: list[str]) -> dict[str, Any]:
    """`key=value` as a dictionary; a value that is not JSON is taken as text."""
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise fail(f"--option {text}: write it as key=value", EXIT_REJECTED)
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def write_card(card: CalibrationCard, folder: Path) -> None:
    """Write card.json and card.png; each appears whole or not at all."""
    from jobs.artifacts import write_atomic
    from mige.calibration.plot import draw_card

    image = io.BytesIO()
    draw_card(card).savefig(image, format="png", dpi=120)
    text = json.dumps(card.to_dict(), indent=2, allow_nan=False) + "\n"
    write_atomic(folder / "card.json", text.encode())
    write_atomic(folder / "card.png", image.getvalue())


def _measure(
    estimator: str,
    options: dict[str, Any],
    *,
    n: int,
    d: int,
    dim_x: int | None,
    problems: list[str] | None,
    seeds: int,
    quick: bool,
    device: str,
) -> CalibrationCard:
    from mige import InvalidInputError, MigeError
    from mige.calibration import QUICK_PROBLEMS, STANDARD_PROBLEMS, make_subject
    from mige.calibration import calibrate as measure

    chosen = problems or list(QUICK_PROBLEMS if quick else STANDARD_PROBLEMS)
    try:
        subject = make_subject(estimator, options)
        with progress_reporter(f"{estimator}, n = {n}, d = {d}") as report:
            return measure(
                subject,
                n=n,
                d=d,
                dim_x=dim_x,
                problems=chosen,
                seeds=seeds,
                device=_device(device),
                on_progress=report,
            )
    except InvalidInputError as exc:
        raise fail(str(exc), EXIT_REJECTED) from None
    except MigeError as exc:
        raise fail(str(exc)) from None
    except RuntimeError as exc:
        # How torch says so differs by device: a class on CUDA, only a message on the CPU.
        if "memory" not in str(exc):
            raise
        raise fail(f"samples={n}, dim={d}: they do not fit into memory; take fewer") from None


def _device(name: str) -> Any:  # noqa: ANN401  (a torch.device; torch is not imported at the top)
    import torch

    from mige import InvalidInputError

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` makes tensors too, and holds no numbers
    except (RuntimeError, AssertionError) as exc:  # torch's ways to say there is none
        reason = str(exc).splitlines()[0]
        raise InvalidInputError(f"device={name!r} cannot be used ({reason}): give cpu") from None
    return device


@contextmanager
def progress_reporter(title: str) -> Iterator[Progress]:
    """A bar on a terminal, a line now and then elsewhere; both on standard error."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield _line_reporter(title)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total} {task.fields[problem]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors(), transient=True) as bar:
        task = bar.add_task(title, total=None, problem="")
        yield lambda done, total, name: bar.update(task, completed=done, total=total, problem=name)


def _line_reporter(title: str) -> Progress:
    next_share = 0.0

    def report(done: int, total: int, name: str) -> None:
        nonlocal next_share
        if done / total < next_share:
            return
        note(f"{title}: {done} of {total}, {name}")
        while next_share <= done / total:
            next_share += 1.0 / _LINES

    return report


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise fail(f"{folder}: {exc.strerror}", EXIT_REJECTED) from None


def _print_card(card: CalibrationCard) -> None:
    print_rows(
        ("PROBLEM", "ERROR", "BIAS", "SPREAD", "SLOPE", "COSINE"),
        (
            (
                name,
                _with_spread(result.accuracy.relative_error, result.accuracy.relative_error_std),
                f"{result.accuracy.bias:.1%}",
                "" if result.accuracy.spread is None else f"{result.accuracy.spread:.1%}",
                f"{result.accuracy.slope:.3f}",
                f"{result.accuracy.cosine:.4f}",
            )
            for name, result in card.problems.items()
        ),
        "nothing was measured",
    )
    out = console()
    if card.suite_error is not None:
        out.print(f"geometric mean of the suite  {card.suite_error:.1%}")
    if card.cost is not None:
        mebibytes = card.cost.peak_bytes / 2**20
        out.print(f"one information gradient     {card.cost.ms:.3g} ms, {mebibytes:.3g} MiB")
    if card.n < card.minimum_samples:
        out.print(f"{card.estimator} is meant for at least {card.minimum_samples} samples here")


def _with_spread(value: float, spread: float | None) -> str:
    return f"{value:.1%}" if spread is None else f"{value:.1%} ± {spread:.1%}"
