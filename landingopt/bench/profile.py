"""The performance profile of Dolan and Moré as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from landingopt.bench.summary import Record, names, performance_profile
from landingopt.figures.style import METHODS, line
from landingopt.plotting import _label, _legend, _style, _written
from landingopt.table import _power

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_profile(
    records: Sequence[Record], tols: Sequence[float], path: str | Path | None = None
) -> Figure:
    """One panel for each tolerance: the fraction of runs solved within tau times the fastest time.

    Parameters
    ----------
    records : list of Record
    tols : sequence of float
    path : str or Path, optional
        Where to write the figure; the suffix says the format.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> run = Record("p", 0, "landing", 1e-6, True, True, seconds=1.0)
    >>> [axes.get_title() for axes in plot_profile([run], [1e-6]).axes]
    ['solved to 1e-6, 1 run']
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.5, 4.8 * len(tols)), 4.0), dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tols), sharey=True, squeeze=False)[0]
    methods = names(record.method for record in records)
    profiles = [performance_profile(records, tol) for tol in tols]
    longest = max([2.0, *(f[-1] for p in profiles for f in p.factors.values() if f.size)])
    for axes, tol, profile in zip(panels, tols, profiles, strict=True):
        draw_profile(axes, profile.factors, profile.runs, methods, longest)
        axes.set_title(
            f"solved to {_power(tol)}, {profile.runs} run{'s' * (profile.runs != 1)}", fontsize=11
        )
        _label(axes, r"$\tau$: time, in units of the fastest method's", "")
    _label(panels[0], r"$\tau$: time, in units of the fastest method's", "fraction of runs solved")
    _legend(figure, panels[0])
    return _written(figure, path)


def draw_profile(
    axes: Axes,
    factors_of: Mapping[str, np.ndarray],
    runs: int,
    methods: Sequence[str],
    longest: float,
) -> None:
    """Steps that climb by 1 / runs at each of a method's factors; in the figures' colours."""
    end = 1.15 * longest
    for i, name in enumerate(methods):
        factors = factors_of.get(name, np.array([]))
        steps = np.arange(1, len(factors) + 1) / max(runs, 1)
        x = np.concatenate([[1.0], factors, [end]])
        y = np.concatenate([[0.0], steps, steps[-1:] if len(steps) else [0.0]])
        style = line(name) if name in METHODS else {**_style(i), "label": name}
        style["markevery"] = max(1, len(x) // 6)
        axes.step(x, y, where="post", clip_on=False, **style)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1.0, end)
    axes.set_ylim(0.0, 1.02)
    axes.grid(True, color="#dddddd", linewidth=0.6)
