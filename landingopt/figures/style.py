"""The look of the library's figures: a method has one colour in all of them.

The colours are Okabe and Ito's, told apart by all kinds of vision; dashes and markers tell them apart in
print. Figures are made without pyplot, so no global state of matplotlib is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# name: (colour, dash, marker)
METHODS: dict[str, tuple[str, Any, str]] = {
    "landing": ("#0072B2", "-", "o"),
    "landing, parameter-free": ("#0072B2", (0, (5, 1.5)), "p"),
    "landing-lbfgs": ("#003A5C", (0, (5, 1.5)), "s"),
    "landing-cg": ("#4C9FD0", (0, (3, 1.2)), "^"),
    "landing-newton": ("#0072B2", (0, (1.2, 1.2)), "D"),
    "POGO": ("#56B4E9", "-", "v"),
    "QR": ("#D55E00", "-", "s"),
    "CholeskyQR": ("#D55E00", (0, (3, 1.2)), "P"),
    "projection": ("#009E73", "-", "^"),
    "projection, Newton–Schulz": ("#009E73", (0, (3, 1.2)), "<"),
    "Cayley": ("#CC79A7", "-", "D"),
    "exponential": ("#E69F00", "-", "X"),
    "trivialization": ("#E69F00", (0, (1.5, 1.2)), "h"),
    "penalty": ("#7F7F7F", "-", "d"),
    "pymanopt": ("#000000", (0, (3, 1.2)), "*"),
    "pymanopt-sd": ("#B0B0B0", (0, (3, 1.2)), "v"),
    "pymanopt-cg": ("#000000", (0, (3, 1.2)), "*"),
    "pymanopt-tr": ("#707070", (0, (1.2, 1.2)), "P"),
    "SGD": ("#56B4E9", "-", "v"),
    "SAGA": ("#0072B2", "-", "o"),
    "SVRG": ("#CC79A7", "-", "D"),
    "bound": ("#000000", (0, (2, 2)), ""),
    "products": ("#000000", ":", ""),
}
WIDTH = 3.4  # inches a panel: readable at column width
_TEXT = 8.5


def line(name: str) -> dict[str, Any]:
    """Colour, dash and marker of a method for ``axes.plot``; its label too."""
    colour, dash, marker = METHODS[name]
    return {
        "color": colour,
        "linestyle": dash,
        "marker": marker,
        "label": name,
        "linewidth": 1.4,
        "markersize": 4.5,
        "markeredgewidth": 0.0,
        "markevery": (0.0, 0.14),
    }


def panels(rows: int, columns: int, *, height: float = 2.7) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, an array (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH * columns, height * rows + 0.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.tick_params(labelsize=_TEXT - 1)
        each.grid(True, color="#e2e2e2", linewidth=0.6)
        each.set_axisbelow(True)
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
    return figure, axes


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    axes.set_xlabel(x, fontsize=_TEXT)
    axes.set_ylabel(y, fontsize=_TEXT)
    if title:
        axes.set_title(title, fontsize=_TEXT + 0.5)


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 4) -> None:
    """One legend below all panels, each name once."""
    found: dict[str, Any] = {}
    for each in axes:
        for handle, name in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=columns, frameon=False,
        fontsize=_TEXT, handlelength=2.8,
    )  # fmt: skip


def above(values: np.ndarray, floor: float) -> np.ndarray:
    """For logarithmic axes: nothing below the floor."""
    return np.maximum(np.asarray(values, dtype=float), floor)


def thinned(count: int, most: int = 200) -> np.ndarray:
    """Which of so many points to keep: all, or about ``most``, closer at the start."""
    if count <= most:
        return np.arange(count)
    first = np.arange(most // 4)
    rest = np.geomspace(most // 4, count - 1, 3 * most // 4)
    return np.unique(np.concatenate([first, np.round(rest).astype(int), [count - 1]]))
