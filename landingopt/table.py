"""The table of a comparison as aligned plain text."""

from __future__ import annotations

import math
import re
from typing import Any

_WIDTH = 120


def comparison_table(
    rows: list[dict[str, Any]], errors: dict[str, str], accuracy: float, metrics: list[str]
) -> str:
    """One line for each row of ``Comparison.rows()``; times in ms; errors in place of numbers."""
    header = _header(accuracy, metrics)
    cells = [_cells(row, metrics) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells)]
    # Names give way to the numbers where a line would not fit the terminal.
    room = max(_WIDTH - sum(widths[1:]) - 2 * len(widths[1:]), 16)
    widths[0] = min(widths[0], room)
    for texts in cells:
        texts[0] = _short_name(texts[0], room)
    # A method without a result has its error in place of the numbers.
    for i, row in enumerate(rows):
        if not _has_numbers(row):
            cells[i] = [cells[i][0]]
    lines = [_aligned(header, widths)]
    lines.append("-" * len(lines[0]))
    for row, texts in zip(rows, cells, strict=True):
        line = _aligned(texts, widths)
        if len(texts) == 1:
            line = shortened(f"{line}  {errors[row['method']]}", max(len(lines[0]), _WIDTH))
        lines.append(line)
    late = [row["method"] for row in rows if row["method"] in errors and _has_numbers(row)]
    lines += [shortened(f"{name}: {errors[name]}", _WIDTH) for name in late]
    return "\n".join(lines)


def _has_numbers(row: dict[str, Any]) -> bool:
    return math.isfinite(row["seconds"])


def _header(accuracy: float, metrics: list[str]) -> list[str]:
    return [
        "method", "status", "time [ms]", "ratio", f"to {_power(accuracy)}", "ratio", "iter",
        "f", "grad", "hess", "f - f*", "rel |grad|", "distance", *metrics,
    ]  # fmt: skip


def _cells(row: dict[str, Any], metrics: list[str]) -> list[str]:
    return [
        row["method"],
        row["status"],
        _milliseconds(row["seconds"]),
        _ratio(row["ratio"]),
        _milliseconds(row["seconds_to_accuracy"]),
        _ratio(row["ratio_to_accuracy"]),
        *(_count(row[name]) for name in ("nit", "nfev")),
        _gradients(row),
        _count(row["nhev"]),
        _small(row["gap"]),
        _small(row["relative_gradient_norm"]),
        _small(row["distance"]),
        *(_metric(row.get(name)) for name in metrics),
    ]


def _gradients(row: dict[str, Any]) -> str:
    """Full gradients; of a stochastic method as many of single terms over N."""
    whole = row.get("epoch", row["njev"]) == row["njev"]
    return _count(row["njev"]) if whole else f"{row['epoch']:.1f}"


def _aligned(cells: list[str], widths: list[int]) -> str:
    """Names and statuses to the left, numbers to the right."""
    padded = [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths))
    ]
    return "  ".join(padded).rstrip()


def _power(value: float) -> str:
    """1e-6 rather than 1e-06."""
    return re.sub(r"e([-+])0+", r"e\1", f"{value:.1e}".replace(".0e", "e"))


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _short_name(name: str, width: int) -> str:
    """Long names lose their middle: it is the end that tells ``landing, step 0.1`` from 0.2."""
    end = (width - 3) // 2
    return name if len(name) <= width else f"{name[: width - 3 - end]}...{name[-end:]}"


def _milliseconds(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}x" if value >= 99.5 else f"{value:.1f}x"


def _count(value: float) -> str:
    return f"{int(value)}" if math.isfinite(value) else "-"


def _small(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "-"


def _metric(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "-"
