"""The large problems as a figure: times of whole solves and of fixed steps, over the landing's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landingopt.bench.large import Solve
from landingopt.bench.large_fixed import Step
from landingopt.bench.summary import names
from landingopt.figures.style import label, legend, line, panels
from landingopt.plotting import _written

# The figures' names, where they differ.
STYLES = {"landing-step": "landing", "QR-step": "QR"}
TORCH = {"torch-landing": "landing", "torch-LandingSGD": "landing-cg", "torch-POGO": "POGO"}


def plot(solves: Sequence[Solve], steps: Sequence[Step], path: str | Path | None = None) -> Any:
    """A panel for each table; 1 is lo.landing(), and lo.landing(step=...)."""
    from matplotlib.ticker import LogLocator, NullFormatter

    parts = [(title, rows, first) for title, rows, first in _parts(solves, steps) if rows]
    figure, axes = panels(1, len(parts), height=3.2)
    for axis, (title, rows, first) in zip(axes[0], parts):
        problems = names(row.problem for row in rows)
        for method in names(row.method for row in rows):
            here = [row for row in rows if row.method == method]
            _points(axis, method, here, problems, _ratios(here, rows, first))
        axis.axhline(1.0, color="#999999", linewidth=0.8)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.set_xticks(range(len(problems)), problems, fontsize=6.5, rotation=25, ha="right")
        axis.set_xlim(-0.5, len(problems) - 0.5)
        label(axis, "", f"time / {first}", title)
    legend(figure, axes[0], columns=2 * len(parts))
    return _written(figure, path)


def _parts(solves: Sequence[Solve], steps: Sequence[Step]) -> list[tuple[str, list[Any], str]]:
    return [
        ("a whole solve", [row for row in solves if row.solved], "landing"),
        ("a constant step, with its gradient", list(steps), "landing-step"),
    ]


def _ratios(here: Sequence[Any], rows: Sequence[Any], first: str) -> list[float]:
    """NaN where the landing was not run, or not to the end."""
    landing = {row.problem: row.seconds for row in rows if row.method == first}
    return [row.seconds / landing.get(row.problem, math.nan) for row in here]


def _points(
    axis: Any, method: str, here: Sequence[Any], problems: list[str], ratios: list[float]
) -> None:
    style = line(TORCH.get(method, STYLES.get(method, method.removeprefix("torch-"))))
    style |= {"linestyle": "", "label": method, "markevery": 1}
    if method.startswith("torch-"):  # hollow: the same step in another library
        style |= {"markerfacecolor": "none", "markeredgewidth": 1.2, "markersize": 6.5}
    axis.plot([problems.index(row.problem) for row in here], ratios, **style)
