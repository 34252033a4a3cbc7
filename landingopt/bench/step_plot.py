"""The costs of a step as a figure: time over that of the bare products."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from landingopt.bench.step import KINDS, METHODS, Cell, shown
from landingopt.figures.style import label, legend, line, panels
from landingopt.plotting import _written

TITLES = {
    "square": "square: three products p x p",
    "tall": "tall: four products n p^2",
    "stack": "stacks: the products of each matrix",
}
# The figures' names, where they are longer.
STYLES = {"polar-SVD": "projection", "polar-NS": "projection, Newton–Schulz"}


def plot(cells: Sequence[Cell], path: str | Path | None = None) -> Any:
    """A panel for each kind of shape; bars are quartiles, dotted are the bare products."""
    kinds = [kind for kind in KINDS if any(cell.kind == kind for cell in cells)]
    figure, axes = panels(1, len(kinds), height=2.9)
    for axis, kind in zip(axes[0], kinds):
        here = [cell for cell in cells if cell.kind == kind]
        shapes = list(dict.fromkeys(cell.shape for cell in here))
        for name in METHODS:
            _curve(axis, [cell for cell in here if cell.method == name], shapes)
        axis.axhline(1.0, **{**line("products"), "label": "its bare products"})
        axis.set_yscale("log")
        label(axis, "", "time / bare products" if kind == kinds[0] else "", TITLES[kind])
        _ticks(axis, shapes)
    legend(figure, axes[0], columns=min(4, 2 * len(kinds)))
    return _written(figure, path)


def _curve(axis: Any, cells: Sequence[Cell], shapes: list[Any]) -> None:
    if not cells:
        return
    style = line(STYLES.get(cells[0].method, cells[0].method)) | {"markevery": 1}
    if cells[0].kind != "square":  # shapes that no line leads through
        style["linestyle"] = ""
    ratios = np.array([[c.ratio_low, c.ratio, c.ratio_high] for c in cells]).T
    around = np.maximum([ratios[1] - ratios[0], ratios[2] - ratios[1]], 0.0)
    places = [shapes.index(cell.shape) for cell in cells]
    axis.errorbar(places, ratios[1], yerr=around, elinewidth=0.8, **style)


def _ticks(axis: Any, shapes: list[Any]) -> None:
    square = all(len(shape) == 2 and shape[0] == shape[1] for shape in shapes)
    names = [str(shape[0]) if square else shown(shape).replace("x", " x ") for shape in shapes]
    axis.set_xticks(range(len(shapes)), names, fontsize=7, rotation=0 if square else 20)
    axis.set_xlim(-0.5, len(shapes) - 0.5)
    if square:
        axis.set_xlabel("p", fontsize=8.5)
