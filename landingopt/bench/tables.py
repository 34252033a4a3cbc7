"""The records as text and as CSV."""

from __future__ import annotations

import csv
import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from landingopt.bench.summary import (
    ProblemRatios,
    Record,
    mean_ratio,
    names,
    problem_ratios,
)
from landingopt.table import _aligned, _milliseconds, _power, _ratio


def runs_table(records: Sequence[Record], tols: Sequence[float]) -> str:
    """A line for each problem and method: medians over the seeds, at the first tolerance."""
    first = tols[0]
    ratios = {row.problem: row for row in problem_ratios(records, first)}
    header = [
        "problem", "method", *(_power(tol) for tol in tols), "time [ms]", "f", "grad", "hess",
        "products", "x best", "x ideal", "",
    ]  # fmt: skip
    lines: list[list[str]] = []
    for problem in names(r.problem for r in records):
        shown = problem
        for method in names(r.method for r in records if r.problem == problem):
            runs = [r for r in records if r.problem == problem and r.method == method]
            lines.append([shown, method, *_cells(runs, tols, ratios[problem]), _ends(runs, tols)])
            shown = ""
    return _text(header, lines)


def _cells(runs: list[Record], tols: Sequence[float], ratios: ProblemRatios) -> list[str]:
    cells = []
    for tol in tols:
        at = [r for r in runs if r.tol == tol]
        cells.append(f"{sum(r.solved for r in at)}/{len(at)}")
    solved = [r for r in runs if r.tol == tols[0] and r.solved]
    method = runs[0].method
    if not solved:
        return cells + ["-"] * 7
    cells.append(_milliseconds(statistics.median(r.seconds for r in solved)))
    for name in ("nfev", "njev", "nhev", "products"):
        value = statistics.median(getattr(r, name) for r in solved)
        cells.append("-" if math.isnan(value) else f"{value:.0f}")
    cells.append(_ratio2(ratios.ratios.get(method, math.nan)))
    cells.append(_ratio2(ratios.ideal.get(method, math.nan)))
    return cells


def _ends(runs: list[Record], tols: Sequence[float]) -> str:
    """How the unsolved runs ended; WRONG where the solver claims what the judge does not find."""
    words = []
    for tol in tols:
        ends = Counter(
            f"{'WRONG: ' * r.claimed}{r.status}" for r in runs if r.tol == tol and not r.solved
        )
        words += [f"{_power(tol)}: {count} {word}" for word, count in ends.items()]
    return ", ".join(words)


def ratios_table(records: Sequence[Record], tol: float) -> str:
    """A line for each problem: the best of pymanopt over each of ours; geometric means below."""
    rows = problem_ratios(records, tol)
    methods = names(r.method for r in records if r.ours)
    header = [
        "problem", "best of pymanopt", *methods, "best of ours", "recommended", "x ideal", "",
    ]  # fmt: skip
    lines = []
    for row in rows:
        note = "" if row.compared == row.seeds else f"{row.compared} of {row.seeds} seeds compared"
        lines.append(
            [
                row.problem,
                " ".join(name.removeprefix("pymanopt-") for name in row.opponents) or "none solved",
                *(_ratio2(row.ratios.get(name, math.nan)) for name in methods),
                _ratio2(row.best_ratio),
                row.best or "-",
                _ratio2(row.best_ideal),
                note,
            ]
        )
    means: tuple[tuple[str, Literal["ratios", "ideal", "whole"]], ...] = (
        ("geometric mean", "ratios"),
        ("... to pymanopt with an ideal cache", "ideal"),
        ("... of whole calls of lo.minimize", "whole"),
    )
    for label, kind in means:
        of_each = (_ratio2(mean_ratio(rows, name, kind)) for name in methods)
        lines.append([label, "", *of_each, _ratio2(mean_ratio(rows, None, kind)), *[""] * 3])
    return _text(header, lines)


def _ratio2(value: float) -> str:
    """Two digits after the point where a factor is small."""
    return f"{value:.2f}x" if math.isfinite(value) and value < 9.95 else _ratio(value)


def _text(header: list[str], lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    # The last column is a note: it stands at the left of its place.
    texts = [_aligned([*cells[:-1], cells[-1].ljust(widths[-1])], widths) for cells in lines]
    top = _aligned(header, widths)
    return "\n".join([top, "-" * len(top), *texts])


def write_csv(records: Sequence[Record], path: str | Path) -> None:
    """One row for each record, with the names of its fields."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [item.name for item in dataclasses.fields(Record)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(record) for record in records)
