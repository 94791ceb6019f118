"""Draw a calibration card. The only module of `mige` that needs matplotlib."""

import textwrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mige.calibration.card import CalibrationCard

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_SIZE = 2.7  # inches of one small plot
_TITLE_WIDTH = 120  # characters that fit over four of them


def draw_card(card: CalibrationCard) -> Figure:
    """Bars of all relative errors, then truth against estimate for each scalar parameter.

    The figure belongs to no window and to no global state; `figure.savefig(path)` writes it.
    """
    curves = [name for name, result in card.problems.items() if result.curve is not None]
    rows = 1 + -(-len(curves) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _SIZE * 1.25, rows * _SIZE), layout="constrained")
    grid = figure.add_gridspec(rows, _COLUMNS)
    _draw_errors(figure.add_subplot(grid[0, :]), card)
    for index, name in enumerate(curves):
        axes = figure.add_subplot(grid[1 + index // _COLUMNS, index % _COLUMNS])
        _draw_curve(axes, card, name)
    figure.suptitle(textwrap.fill(_title(card), _TITLE_WIDTH), fontsize=10)
    return figure


def _title(card: CalibrationCard) -> str:
    options = ", ".join(f"{key}={value}" for key, value in card.options.items())
    parts = [f"{card.estimator}({options})", f"n = {card.n}", f"d = {card.d}"]
    if card.suite_error is not None:
        parts.append(f"geometric mean of the suite {100 * card.suite_error:.1f} %")
    if card.cost is not None:
        parts.append(f"{card.cost.ms:.3g} ms, {card.cost.peak_bytes / 2**20:.3g} MiB")
    return "   ".join(parts) + ("" if card.complete else "   (stopped early)")


def _draw_errors(axes: "Axes", card: CalibrationCard) -> None:
    results = [result.accuracy for result in card.problems.values()]
    positions = range(len(results))
    errors = [100 * accuracy.relative_error for accuracy in results]
    spreads = [100 * (accuracy.relative_error_std or 0.0) for accuracy in results]
    axes.bar(positions, errors, yerr=spreads, capsize=2, color="#4c72b0")
    axes.set_yscale("log")
    axes.set_xticks(positions, list(card.problems), rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("relative error, %")
    axes.axhline(100.0, color="0.6", linewidth=0.8)
    axes.grid(axis="y", alpha=0.3)
    for position, accuracy in zip(positions, results, strict=True):
        axes.annotate(
            f"cos {accuracy.cosine:.3f}",
            (position, 100 * (accuracy.relative_error + (accuracy.relative_error_std or 0.0))),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7,
        )


def _draw_curve(axes: "Axes", card: CalibrationCard, name: str) -> None:
    curve = card.problems[name].curve
    if curve is None:
        return
    parameter, mean, std = curve["parameter"], curve["mean"], curve["std"]
    axes.plot(parameter, curve["truth"], color="black", linewidth=1.0, label="truth")
    axes.plot(parameter, mean, color="#c44e52", linewidth=1.2, label="estimate")
    low = [m - s for m, s in zip(mean, std, strict=True)]
    high = [m + s for m, s in zip(mean, std, strict=True)]
    axes.fill_between(parameter, low, high, color="#c44e52", alpha=0.25, linewidth=0)
    axes.set_title(f"{name}: slope {card.problems[name].accuracy.slope:.2f}", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("parameter", fontsize=7)
    axes.set_ylabel("dI / d parameter, nats", fontsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, frameon=False)
