"""The large problems as text and as CSV, and what must hold of them."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from landingopt.bench import large, large_fixed, large_torch
from landingopt.bench.large import Solve
from landingopt.bench.large_fixed import Step
from landingopt.bench.large_problems import AUTHORS
from landingopt.bench.step_tables import _digits
from landingopt.bench.summary import Bound, names
from landingopt.table import _aligned, _power, _small

FASTER = 2.0  # than torch's landing optimizers, a step of the authors' example

SOLVES_HEADER = (
    "method", "time [ms]", "+-", "/ landing", "iter", "ms / iter", "|grad|", "gap", "distance",
    "n p^2", "prod", "fact", "elem", "Python", "",
)  # fmt: skip
STEPS_HEADER = (
    "method", "ms / step", "+-", "gradient", "x ours", "quartiles", "gap", "distance", "ours",
)  # fmt: skip


def solves_table(rows: Sequence[Solve]) -> str:
    """A block for each problem, with what it was solved to."""
    return _blocks(SOLVES_HEADER, rows, lambda row: f"to {_power(row.tol)}", _solve_cells)


def _solve_cells(row: Solve) -> list[str]:
    shares = [row.products, row.factorisations, row.elementwise, row.python]
    return [
        row.method,
        _digits(1e3 * row.seconds),
        _spread(row.seconds_low, row.seconds, row.seconds_high, row.rounds),
        _known(row.ratio, _digits),
        str(row.iterations),
        _digits(1e3 * row.seconds_iteration),
        _small(row.relative),
        _small(row.gap),
        _small(row.distance),
        _known(row.count, _digits),
        *(_known(share, lambda value: f"{100 * value:.0f}%") for share in shares),
        "" if row.solved else f"not solved: {row.status}",
    ]


def steps_table(rows: Sequence[Step]) -> str:
    """A block for each problem, with the number of steps."""
    return _blocks(STEPS_HEADER, rows, lambda row: f"{row.steps} steps", _step_cells)


def _step_cells(row: Step) -> list[str]:
    return [
        row.method,
        _digits(1e3 * row.seconds),
        _spread(row.seconds_low, row.seconds, row.seconds_high, row.rounds),
        _digits(1e3 * row.gradient_seconds),
        _known(row.ratio, lambda value: f"{value:.2f}x"),
        _known(row.ratio, lambda value: f"{row.ratio_low:.2f} - {row.ratio_high:.2f}"),
        _small(row.gap),
        _small(row.distance),
        "" if row.ours == row.method else row.ours,
    ]


def _blocks(
    header: Sequence[str],
    rows: Sequence[Any],
    note: Callable[[Any], str],
    cells: Callable[[Any], list[str]],
) -> str:
    lines = [cells(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    for line in lines:  # all numbers to the right, notes to the left of their place
        line[1], line[-1] = line[1].rjust(widths[1]), line[-1].ljust(widths[-1])
    top = _aligned([header[0], header[1].rjust(widths[1]), *header[2:]], widths)
    text = [top, "-" * len(top)]
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1].problem != row.problem:
            text += [""] * (i > 0) + [f"{row.problem}, {note(row)}"]
        text.append(_aligned(lines[i], widths))
    return "\n".join(text)


def _known(value: float, shown: Callable[[float], str]) -> str:
    return shown(value) if math.isfinite(value) else "-"


def _spread(low: float, middle: float, high: float, rounds: int) -> str:
    """Half the distance of the quartiles, in per cent of the median; of one run there is none."""
    return f"{50 * (high - low) / middle:.0f}%" if rounds > 1 else "-"


def write_csv(rows: Sequence[Solve | Step], path: str | Path) -> None:
    """Solves and fixed steps, with a column that tells them apart."""
    fields = [f.name for kind in (Solve, Step) for f in dataclasses.fields(kind)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["kind", *dict.fromkeys(fields)], restval="")
        writer.writeheader()
        for row in rows:
            kind = "solve" if isinstance(row, Solve) else "step"
            writer.writerow({"kind": kind, **dataclasses.asdict(row)})


# -- what must hold -------------------------------------------------------------------------------


class Goal(Bound):
    """A bound on a time: where it does not hold the figure falls short."""

    def __str__(self) -> str:
        return super().__str__().replace("FAIL ", "SHORT", 1)


def bounds(solves: Sequence[Solve], steps: Sequence[Step]) -> list[Bound]:
    """The claims, each with its figure or the reason why there is none."""
    found = [_solved(solves), _against_pymanopt(solves)]
    return found + [_against_torch(name, steps) for name in large_torch.LANDINGS]


def _solved(solves: Sequence[Solve]) -> Bound:
    ours = [row for row in solves if row.method in large.OURS]
    solved = sum(row.solved for row in ours)
    left = "".join(f"; not {r.method} on {r.problem}" for r in ours if not r.solved)
    figure = f"{solved} of {len(ours)} runs{left}" if ours else "none was run"
    return Bound("ours solve every problem", figure, solved == len(ours) if ours else None)


def _against_pymanopt(solves: Sequence[Solve]) -> Bound:
    """Only where both are solved: a run that was given up has no time."""
    claim = "landing against the best of pymanopt, at least 1x on every problem"
    ratios = {}
    for problem in names(row.problem for row in solves):
        theirs = [
            row.ratio
            for row in solves
            if row.problem == problem and row.method in large.PYMANOPT and math.isfinite(row.ratio)
        ]
        if theirs:
            ratios[problem] = min(theirs)
    if not ratios:
        return Goal(claim, "no problem that both have solved", None)
    worst = min(ratios, key=lambda problem: ratios[problem])
    return Goal(claim, f"{ratios[worst]:.2f}x on {worst}", ratios[worst] >= 1.0)


def _against_torch(name: str, steps: Sequence[Step]) -> Bound:
    """A package's step; of the landing written for this comparison alone that it is not faster."""
    goal = 1.0 if name == "torch-landing" else FASTER
    ours = large_torch.OPTIMIZERS[name][2]
    claim = f"a step of {ours} on {AUTHORS}, at least {goal:g}x as fast as {name}"
    for row in steps:
        if row.problem == AUTHORS and row.method == name and math.isfinite(row.ratio):
            figure = f"{row.ratio:.2f}x ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
            return Goal(claim, figure, row.ratio >= goal)
    return Goal(claim, large_torch.missing(name) or "this problem or method was not run", None)


def notes(methods: Sequence[str]) -> str:
    """What is not installed, a line each."""
    return "\n".join(large_fixed.left_out([m for m in methods if m in large_fixed.METHODS]))
