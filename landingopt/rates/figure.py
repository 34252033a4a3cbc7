"""The figure of a rate report. matplotlib is imported when one is drawn, and pyplot is not touched."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from landingopt.rates.judge import SeriesReport, Verdict
from landingopt.rates.laws import Law, Linear, LogOverSqrtT, Sublinear
from landingopt.rates.report import RateReport
from landingopt.rates.series import Integral, Observed, Slope, dense_enough

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by all kinds of vision.
COLOURS = {
    Verdict.CONSISTENT: "#009E73",
    Verdict.REJECTED: "#D55E00",
    Verdict.INCONCLUSIVE: "#CC79A7",
}
_RUNNING, _TAIL = "#0072B2", "#E69F00"
_DATA, _GREY, _GRID = "#bdbdbd", "#666666", "#e4e4e4"
_NAMES = {
    "||grad||^2": r"$\Vert\mathrm{grad}\,f\Vert^2$",
    "N": r"$N = \Vert X^H X - I\Vert^2 / 4$",
    "f - f*": r"$f - f^\star$",
}
_WIDTH, _HEIGHT = 3.3, 4.0  # of a panel, inches
_DPI = 125
_DASHED = (0, (5, 3))
_ROWS = 600  # of the data that are drawn
_PER_OCTAVE = 6  # means that are drawn


def plot_report(report: RateReport, path: str | Path | None = None) -> Figure:
    """Draw a report: each series against T in log-log, its means, their slopes and the promised one.

    A panel for each series. Grey: the iterates of one run. Blue and orange: the mean up to T and the
    mean over the last half (over the runs; the band is from the least run to the largest), the marks
    that were fitted, and the fitted lines. Dashed: the promised slope, at an arbitrary height. Dotted:
    where a series that fell faster than promised met its rounding.

    Parameters
    ----------
    report : RateReport
    path : str or Path, optional
        Where to write the figure; the suffix says the format (.png, .pdf, .svg).

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(5, rng=0)
    >>> figure = plot_report(lo.rates.check(problem, lo.landing(step=0.05), rng=0))
    >>> len(figure.axes)
    3
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [series for series in _one_a_name(report) if _values(report, series.name)]
    columns = max(len(shown), 1)
    height = _HEIGHT if shown else 0.42 * _HEIGHT
    figure = Figure(figsize=(max(_WIDTH * columns, 2 * _WIDTH), height), dpi=_DPI)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, series in zip(panels, shown):
        _draw(axes, report, series)
    if not shown:
        _text_panel(panels[0], report)
    head = _head(figure, report, with_reason=bool(shown))
    _arrange(figure, panels, head)
    if path is not None:
        figure.savefig(path, dpi=_DPI)
    return figure


def _one_a_name(report: RateReport) -> list[SeriesReport]:
    """The series; of several with one name (a run each) the one that decides."""
    found: dict[str, SeriesReport] = {}
    for series in report.series:
        known = found.get(series.name)
        if known is None or _SEVERITY[series.verdict] > _SEVERITY[known.verdict]:
            found[series.name] = series
    return list(found.values())


_SEVERITY = {Verdict.CONSISTENT: 0, Verdict.INCONCLUSIVE: 1, Verdict.REJECTED: 2}


# -- the panel of a series ------------------------------------------------------------------------


def _values(report: RateReport, name: str) -> list[tuple[Observed, np.ndarray]]:
    """The runs that have the series, the longest first."""
    found = []
    for run in sorted(report.runs, key=lambda run: -run.horizon):
        values: Any = {"||grad||^2": run.gradient, "N": run.infeasibility}.get(name)
        if name == "f - f*" and run.fun is not None and report.reference_value is not None:
            values = run.fun - report.reference_value
        if values is not None:
            found.append((run, np.asarray(values)))
    return found


def _draw(axes: Axes, report: RateReport, series: SeriesReport) -> None:
    runs = _values(report, series.name)
    longest, values = runs[0]
    keep = _thinned(longest.iteration)
    local = not isinstance(report.law, Sublinear)
    t = longest.iteration[keep] + (0 if local else 1)  # T = t + 1 iterates up to that one
    axes.plot(t, _positive(values[keep]), color=_DATA, linewidth=1.0, label="iterates of a run")
    if not local:
        _means(axes, runs, series, bool(getattr(report.law, "fresh", False)))
        if series.running is None and series.verdict is Verdict.CONSISTENT:
            _floor(axes, values)
    named = _guide(axes, report.law, series, longest, values)
    _finish(axes, series, local, named)


def _thinned(iteration: np.ndarray) -> np.ndarray:
    """Rows evenly spaced in log t: long traces have more than can be seen."""
    if len(iteration) <= _ROWS:
        return np.arange(len(iteration))
    wanted = np.geomspace(1.0, iteration[-1] + 1.0, _ROWS) - 1.0
    return np.unique(np.searchsorted(iteration, wanted).clip(max=len(iteration) - 1))


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0.0, values, np.nan)


def _means(
    axes: Axes, runs: list[tuple[Observed, np.ndarray]], series: SeriesReport, fresh: bool
) -> None:
    """Both means at many T; for a step fixed in advance only where runs end: each T has its own."""
    lengths = sorted({run.horizon for run, _ in runs})
    fresh = fresh and len(lengths) > 1
    grid = np.array(lengths, dtype=float) if fresh else _grid(lengths[-1])
    for colour, name, slope, tail in (
        (_RUNNING, "mean, $t < T$", series.running, False),
        (_TAIL, r"mean, $T/2 \leq t < T$", series.tail, True),
    ):
        by_run = np.full((len(runs), len(grid)), np.nan)
        for i, (run, values) in enumerate(runs):
            integral = Integral(run.iteration, values)
            for j, T in enumerate(grid):
                ended = run.horizon == T if fresh else run.horizon >= T
                if ended and (not tail or dense_enough(run, T)):
                    by_run[i, j] = integral.mean(0.5 * T if tail else 0.0, T)
        here = ~np.all(np.isnan(by_run), axis=0)
        if not here.any():
            continue
        by_run, T = by_run[:, here], grid[here]
        middle = _positive(np.nanmean(by_run, axis=0))
        low, high = np.nanmin(by_run, axis=0), np.nanmax(by_run, axis=0)
        label = name if slope is None else f"{name}: slope {_slope(slope)}"
        if fresh:
            spread = np.abs(np.array([middle - low, high - middle]))
            axes.errorbar(
                T, middle, spread, color=colour, fmt=_MARKS[tail], markersize=5, capsize=3, label=label
            )  # fmt: skip
        else:
            axes.plot(T, middle, color=colour, linewidth=1.6, label=label)
            if len(runs) > 1:
                axes.fill_between(T, _positive(low), high, color=colour, alpha=0.2, linewidth=0)
        _fit(axes, series, slope, colour, tail, marks=not fresh)


_MARKS = ("o", "s")


def _grid(horizon: int) -> np.ndarray:
    """T = 2, ..., horizon: before the first step N is rounding."""
    octaves = np.log2(max(horizon, 2))
    return np.unique(np.round(2.0 ** np.linspace(1.0, octaves, int(_PER_OCTAVE * octaves) + 1)))


def _fit(
    axes: Axes, series: SeriesReport, slope: Slope | None, colour: str, tail: bool, marks: bool
) -> None:
    """The line of least squares over the marks, a little beyond them."""
    means = series.tail_means if tail else series.running_means
    if slope is None or series.horizons is None or means is None:
        return
    T = series.horizons
    if marks:
        axes.plot(T, _positive(means), _MARKS[tail], color=colour, markersize=5, zorder=4)
    x = np.log(T)
    ends = np.array([T[0] / 1.4, T[-1] * 1.4])
    fitted = np.exp(np.mean(np.log(means)) + slope.value * (np.log(ends) - x.mean()))
    axes.plot(ends, fitted, color=colour, linewidth=0.8, zorder=4)


def _slope(slope: Slope) -> str:
    return str(slope).replace("-", "−")


def _floor(axes: Axes, values: np.ndarray) -> None:
    """Where the series ended: the median of its last fiftieth, as the verdict takes it."""
    level = float(np.median(np.abs(values[-max(1, len(values) // 50) :])))
    if level > 0.0:
        axes.axhline(level, color=_GREY, linewidth=0.9, linestyle=":", label="rounding")


def _guide(axes: Axes, law: Law, series: SeriesReport, run: Observed, values: np.ndarray) -> float:
    """What is promised, at an arbitrary height: its slope counts. Where its name stands."""
    if isinstance(law, Sublinear):
        t = _grid(run.horizon)
        if series.horizons is not None and series.running_means is not None:
            t = t[t >= series.horizons[0] / 4.0]
            height = float(series.running_means[0] / law.promise(float(series.horizons[0])))
        else:
            t = t[t >= min(8.0, t[-1])]
            integral = Integral(run.iteration, values)
            height = float(np.max([integral.mean(0.0, T) for T in t] / law.promise(t)))
        y, at = law.promise(t), 2 * len(t) // 3
    elif isinstance(law, Linear):
        positive = values[values > 0.0]
        height = float(np.sqrt(positive.max()) * np.sqrt(positive.min())) if positive.size else 1.0
        anchor = float(run.iteration[int(np.argmax(values <= height))])
        t = np.linspace(0.0, run.horizon, 64)
        y, at = law.factor ** (t - anchor), int(np.searchsorted(t, anchor))
    else:
        return np.nan
    y = 3.0 * height * y
    axes.plot(t, y, color="black", linewidth=1.0, linestyle=_DASHED, zorder=2)
    axes.annotate(
        _label(law), (t[at], y[at]), xytext=(3, 3), textcoords="offset points", fontsize=9
    )
    return float(y[at])


def _label(law: Law) -> str:
    if isinstance(law, Linear):
        return f"${law.factor:.6g}^t$"
    power = law.power if isinstance(law, Sublinear) else 0.0
    if power == 0.0:
        return "constant"
    root = {0.5: "-1/2", 1.0: "-1"}.get(power, f"{-power:g}")
    return f"$T^{{{root}}}" + (r"\log T$" if isinstance(law, LogOverSqrtT) else "$")


def _finish(axes: Axes, series: SeriesReport, local: bool, named: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_ylim(_limits(axes, named))  # before the scale, which else looks for positive data
    axes.set_yscale("log")
    if not local:
        axes.set_xscale("log")
    axes.set_xlabel("iteration $t$" if local else "iterations $T$", fontsize=9, labelpad=1.0)
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    name = _NAMES.get(series.name, series.name)
    verdict = str(series.verdict) if series.decides else "shown only"
    colour = COLOURS[series.verdict] if series.decides else _GREY
    axes.set_title(name, loc="left", fontsize=10)
    axes.set_title(verdict, loc="right", fontsize=8, color=colour, fontweight="bold")


def _limits(axes: Axes, named: float) -> tuple[float, float]:
    """Room for what was drawn: of the guide for its name, and not for the start, where N may be 0."""
    seen = [np.array([named])]
    for line in axes.lines:
        x, y = np.asarray(line.get_data(), dtype=float)
        if line.get_linestyle() != "--":
            seen.append(y[x != 1.0])
    values = np.concatenate(seen)
    values = values[np.isfinite(values) & (values > 0.0)]
    if not values.size:
        return 0.1, 1.0
    low, high = float(values.min()), float(values.max())
    span = max(np.log10(high / low), 1.0)
    return low / 10.0 ** (0.04 * span), high * 10.0 ** (0.12 * span)


# -- words ----------------------------------------------------------------------------------------


def _head(figure: Figure, report: RateReport, with_reason: bool) -> float:
    """The verdict with the law, then method and problem, then the reason, a line each; its height."""
    width, height = figure.get_size_inches()
    letters = int((width - 0.3) * 14.3)
    texts = [(f"{report.verdict} with {report.law}", 12, COLOURS[report.verdict])]
    source = f"  ({report.theorem})" if report.theorem else ""
    texts.append((textwrap.shorten(report.title + source, letters, placeholder=" …"), 9, "black"))
    if with_reason:
        texts.append((textwrap.shorten(report.reason, letters, placeholder=" …"), 9, _GREY))
    below = 0.08
    for text, size, colour in texts:
        figure.text(
            0.02, 1.0 - below / height, text, fontsize=size, color=colour, va="top", parse_math=False,
            fontweight="bold" if size > 10 else "normal",
        )  # fmt: skip
        below += 1.5 * size / 72.0
    return below


def _arrange(figure: Figure, panels: Any, head: float) -> None:
    """Panels below the head, legends below the panels; all in inches."""
    width, height = figure.get_size_inches()
    left, right, gap, line = 0.62, 0.15, 0.72, 0.155
    lines = max(len(axes.get_legend_handles_labels()[0]) for axes in panels)
    top, bottom = head + 0.32, 0.5 + line * lines
    if not lines:
        left, top, bottom = 0.02 * width, head + 0.05, 0.05
    each = (width - left - right - gap * (len(panels) - 1)) / len(panels)
    figure.subplots_adjust(
        left / width, bottom / height, 1.0 - right / width, 1.0 - top / height, gap / each
    )
    for axes in panels:
        if lines:
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.38 / (height - top - bottom)),
                fontsize=7.5, frameon=False, borderpad=0.0, labelspacing=0.25, handlelength=1.8,
            )  # fmt: skip


def _text_panel(axes: Axes, report: RateReport) -> None:
    """There was no run: what was found before it."""
    axes.axis("off")
    lines = [report.reason, *(text for holds, text in report.checks if holds is True)]
    wrapped = "\n\n".join(textwrap.fill(line, 95) for line in lines)
    axes.text(0.0, 1.0, wrapped, fontsize=9, va="top", parse_math=False)
