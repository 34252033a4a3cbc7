"""Figures of comparisons and of single runs. matplotlib is imported when one is drawn.

The figures are made without pyplot, so no global state of matplotlib is touched.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landingopt._compare import Comparison, _by_row, problem_name
from landingopt.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without yellow (too faint on white): told apart by all kinds of vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_FLOOR = "#777777"
_GAP = r"$f - f^\star$ at the feasible point"
_DISTANCE = r"distance  $\Vert X^H X - I\Vert_F$"
_GAP_FLOOR = r"rounding floor $u\,|f^\star|$"
_DISTANCE_FLOOR = "rounding floor $u$"
_MARKERS_PER_LINE = 7
# An axis is logarithmic where the longest run is this much longer than the shortest.
_WIDE_RANGE = 4.0


def plot_comparison(comparison: Comparison, path: str | Path | None = None) -> Figure:
    """Draw a comparison: f - f* against iterations and against time, and the distance.

    f is taken at the feasible point, summed over a separable stack, and the distance is the largest
    of the stack. What lies under the rounding of f* (u |f*|) or of the identity (u), zeros and
    negative differences included, is drawn at that floor, which is a thin dotted line.

    Parameters
    ----------
    comparison : Comparison
        Of :func:`landingopt.compare`.
    path : str or Path, optional
        Where to write the figure; the suffix says the format (.png, .pdf, .svg).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        Where no method has a result.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(6, rng=0)
    >>> comparison = lo.compare(problem, [lo.landing()], rng=0, repeats=1)
    >>> figure = plot_comparison(comparison)
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['iteration', 'time [ms]', 'iteration']
    """
    names = [row["method"] for row in comparison.rows() if row["method"] in comparison.results]
    if not names:
        raise ValueError(f"no method has finished a run, so nothing to draw: {comparison.errors}")
    curves = {name: comparison.curves(name) for name in names}
    figure, (by_iteration, by_time, distance) = _three_panels()
    gap_floor = _gap_floor(comparison, curves)
    unit = comparison.unit_roundoff

    panels = (
        (by_iteration, "iteration", "gap", gap_floor, _GAP_FLOOR),
        (by_time, "milliseconds", "gap", gap_floor, _GAP_FLOOR),
        (distance, "iteration", "distance", unit, _DISTANCE_FLOOR),
    )
    for axes, x, y, floor, floor_name in panels:
        ends = []
        # The order of methods in the call decides the colours; the legend follows the table.
        for name in names:
            style = _style(list(comparison.methods).index(name))
            horizontal = _horizontal(curves[name], x)
            axes.plot(horizontal, _clipped(curves[name][y], floor), label=name, **style)
            ends.append(float(horizontal[-1]))
        _scale_x(axes, x, ends, [curves[name] for name in names])
        _space_markers(axes)
        _finish(axes, floor, _all_values(curves, y), floor_name)
    gap_label, distance_label = _GAP, _DISTANCE
    if np.ndim(comparison.first_gradient_norm):
        gap_label, distance_label = f"sum of {_GAP}", f"largest {_DISTANCE}"
    _label(by_iteration, "iteration", gap_label)
    _label(by_time, "time [ms]", gap_label)
    _label(distance, "iteration", distance_label)
    _title(figure, comparison)
    _legend(figure, by_iteration)
    return _written(figure, path)


def plot_trace(
    result: Result, path: str | Path | None = None, *, reference_value: float | None = None
) -> Figure:
    """Draw one run: f at the feasible point, the gradient norm, and the distance.

    Parameters
    ----------
    result : Result
        Of ``lo.minimize``. For a separable stack f is summed, and the norms are the largest.
    path : str or Path, optional
        Where to write the figure; the suffix says the format.
    reference_value : float, optional
        f*: draws f - f* on a logarithmic axis instead of f itself.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import landingopt as lo
    >>> result = lo.minimize(lo.problems.Procrustes.random(6, rng=0), rng=0)
    >>> len(plot_trace(result).axes)
    3
    """
    figure, (value, gradient, distance) = _three_panels()
    trace = result.trace
    iteration, style = trace["iteration"], _style(0)
    unit = _unit_roundoff(result.x)
    fun = _by_row(trace["feasible_fun"], np.sum)
    if reference_value is None:
        value.plot(iteration, fun, **style)
        value.grid(True, color="#dddddd", linewidth=0.6)
        _label(value, "iteration", "$f$ at the feasible point")
    else:
        floor = max(unit * abs(reference_value), np.finfo(float).tiny)
        value.plot(iteration, _clipped(fun - reference_value, floor), **style)
        _finish(value, floor, fun - reference_value, _GAP_FLOOR)
        _label(value, "iteration", _GAP)
    norm = _by_row(trace["gradient_norm"], np.max)
    gradient.plot(iteration, _clipped(norm, np.finfo(float).tiny), **style)
    _finish(gradient, None, norm, "")
    _label(gradient, "iteration", r"$\Vert\mathrm{grad}\,f\Vert_F$")
    far = _by_row(trace["distance"], np.max)
    distance.plot(iteration, _clipped(far, unit), **style)
    _finish(distance, unit, far, _DISTANCE_FLOOR)
    _label(distance, "iteration", _DISTANCE)
    for axes in figure.axes:
        _space_markers(axes)
    name = getattr(result.method, "name", type(result.method).__name__)
    figure.suptitle(
        f"{name}: {result.nit} iterations, {1e3 * result.seconds:.3g} ms", fontsize=12, y=0.975
    )
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 1.02), w_pad=2.0)
    return _written(figure, path)


# -- parts of a figure ------------------------------------------------------------------------


def _three_panels() -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 4.0), dpi=150)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, 3)


def _style(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the method with this index."""
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": ("-", "--")[index // len(_COLOURS) % 2],
        "linewidth": 1.4,
        "markersize": 5.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
        "zorder": 3.0,
    }


def _horizontal(curves: dict[str, np.ndarray], x: str) -> np.ndarray:
    return 1e3 * curves["seconds"] if x == "milliseconds" else curves["iteration"]


def _scale_x(axes: Axes, x: str, ends: list[float], curves: list[dict[str, np.ndarray]]) -> None:
    """Linear where the runs are of about the same length, else logarithmic."""
    longest, shortest = max(ends), max(min(ends), 1e-300)
    if longest <= _WIDE_RANGE * shortest:
        axes.set_xlim(0.0, 1.02 * longest if longest > 0 else 1.0)
        return
    if x == "iteration":
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.4)
        axes.set_xlim(0.0, 1.3 * longest)
        decades = [k for k in range(19) if 10**k <= 1.3 * longest]
        labels = [str(10**k) if k <= 3 else f"$10^{{{k}}}$" for k in decades]
        axes.set_xticks([0, *(10**k for k in decades)], ["0", *labels])
        between = (m * 10**k for k in decades for m in range(2, 10))
        axes.set_xticks([tick for tick in between if tick <= 1.3 * longest], minor=True)
        return
    firsts = [float(_horizontal(c, x)[min(1, len(c["seconds"]) - 1)]) for c in curves]
    axes.set_xscale("log")
    axes.set_xlim(0.5 * min(first for first in firsts if first > 0), 1.3 * longest)


def _space_markers(axes: Axes) -> None:
    """Few markers a line, evenly spaced along the axis as drawn, shifted from line to line."""
    forward = axes.transData.transform
    for i, line in enumerate(axes.lines):
        x = np.asarray(line.get_xdata(), dtype=float)
        drawn = forward(np.column_stack([x, np.ones_like(x)]))[:, 0]
        shift = (i % len(_MARKERS)) / len(_MARKERS) / _MARKERS_PER_LINE
        wanted = np.linspace(0.0, 1.0, _MARKERS_PER_LINE, endpoint=False) + shift
        places = np.searchsorted(drawn, drawn[0] + wanted * (drawn[-1] - drawn[0]))
        line.set_markevery(np.unique(np.append(places, len(x) - 1)).tolist())


def _all_values(curves: dict[str, dict[str, np.ndarray]], y: str) -> np.ndarray:
    return np.concatenate([c[y] for c in curves.values()])


def _clipped(values: np.ndarray, floor: float) -> np.ndarray:
    """Values at least at the floor, so that lines reach it instead of vanishing; nan stays."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values), np.maximum(values, floor), np.nan)


def _gap_floor(comparison: Comparison, curves: dict[str, dict[str, np.ndarray]]) -> float:
    """The rounding of f*, u |f*|: for f* = 0 the smallest positive difference."""
    floor = comparison.unit_roundoff * abs(comparison.reference_value)
    if floor > 0.0:
        return floor
    gaps = _all_values(curves, "gap")
    positive = gaps[gaps > 0.0]
    return float(positive.min()) if positive.size else np.finfo(float).tiny


def _finish(axes: Axes, floor: float | None, values: np.ndarray, floor_name: str) -> None:
    """A logarithmic vertical axis, a light grid, and the floor where the data come near it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    positive = values[np.isfinite(values) & (values > 0.0)]
    top = float(positive.max()) if positive.size else 1.0
    bottom = float(positive.min()) if positive.size else top
    if floor is not None and np.any(values <= 1e3 * floor):
        bottom = floor
        axes.axhline(floor, color=_FLOOR, linewidth=0.8, linestyle=":", zorder=1.0)
        axes.annotate(
            floor_name, (0.0, floor), xycoords=("axes fraction", "data"),
            xytext=(4, -3), textcoords="offset points", ha="left", va="top", fontsize=8,
            color=_FLOOR,
        )  # fmt: skip
        bottom /= 10.0 ** (0.07 * max(math.log10(max(top / bottom, 10.0)), 1.0))
    axes.set_ylim(bottom / 2.0, top * 3.0)
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_minor_locator(LogLocator(subs=(1.0,), numticks=40))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=10)
    axes.set_ylabel(y, fontsize=10)
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _title(figure: Figure, comparison: Comparison) -> None:
    value = comparison.reference_value
    origin = f"$f^\\star$ = {value:.6g} ({comparison.reference_source})"
    figure.suptitle(f"{problem_name(comparison.problem)},  {origin}", fontsize=12, y=0.975)


def _legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, in a row below them."""
    handles, labels = axes.get_legend_handles_labels()
    # About 130 characters fit below the panels; a handle takes the room of eight.
    columns = max(1, min(len(labels), 130 // (max(map(len, labels)) + 8)))
    below = 0.22 * math.ceil(len(labels) / columns)  # inches
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + below - 0.22)
    figure.legend(
        handles, labels, loc="lower center", ncols=columns, frameon=False, fontsize=10,
        handlelength=2.6,
    )  # fmt: skip
    bottom = (0.09 + below) / figure.get_size_inches()[1]
    figure.tight_layout(rect=(0.0, bottom, 1.0, 1.02), w_pad=2.0)


def _unit_roundoff(x: Any) -> float:
    from landingopt import _xp

    while isinstance(x, (dict, tuple)):
        x = next(iter(x.values() if isinstance(x, dict) else x))
    return _xp.unit_roundoff(x)


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
