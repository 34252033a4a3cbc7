"""The costs of a step as text and as CSV."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from landingopt.bench.step import Cell, shown
from landingopt.table import _aligned

HEADER = (
    "shape", "method", "time [us]", "bare [us]", "/ products", "quartiles", "/ written", "products",
    "calls", "views", "layer [us]",
)  # fmt: skip


def table(cells: Sequence[Cell]) -> str:
    """A line for each shape and method; of the bare products the time once for a shape."""
    lines, before = [], None
    for cell in cells:
        first = cell.shape != before
        before = cell.shape
        lines.append(
            [
                shown(cell.shape) if first else "",
                cell.method,
                _digits(1e6 * cell.seconds),
                _digits(1e6 * cell.bare_seconds) if first else "",
                _digits(cell.ratio),
                f"{_digits(cell.ratio_low)} - {_digits(cell.ratio_high)}",
                _digits(cell.written_ratio),
                _count(cell.products),
                _count(cell.calls),
                _count(cell.views),
                _layer(cell.layer_us),
            ]
        )
    widths = [max(map(len, column)) for column in zip(HEADER, *lines)]
    top = _aligned(list(HEADER), widths)
    return "\n".join([top, "-" * len(top), *(_aligned(line, widths) for line in lines)])


def _digits(value: float) -> str:
    """Three digits: 1.23, 12.3, 1235."""
    return (
        f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0.01 else f"{value:.1e}"
    )


def _count(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 1):g}"


def _layer(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def write_csv(cells: Sequence[Cell], path: str | Path) -> None:
    """One row for each cell, with the names of its fields."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [item.name for item in dataclasses.fields(Cell)])
        writer.writeheader()
        for cell in cells:
            writer.writerow(dataclasses.asdict(cell) | {"shape": shown(cell.shape)})
