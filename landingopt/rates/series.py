"""What a trace shows: its series, their means over windows, slopes, and floors of rounding."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MARKS = 4  # the last four dyadic marks: T/8, T/4, T/2, T
_FEWEST = 8  # rows in the last half before the first mark


@dataclass(frozen=True)
class Strata:
    """A record: every iterate at first, then one in each of ``per_octave`` strata of every octave.

    The position within a stratum is random, so that a run with a period (a step that is too long jumps
    to and fro) is not seen at one phase of it.
    """

    per_octave: int = 64
    seed: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def next(self, k: int) -> float:
        k += 1
        octave = k.bit_length() - 1
        length = (1 << octave) // self.per_octave
        if length <= 1:
            return k
        begin, stratum = 1 << octave, -(-(k - (1 << octave)) // length)
        if stratum >= self.per_octave:
            begin, stratum = begin * 2, 0
            length = begin // self.per_octave
        shift = np.random.default_rng([self.seed, begin, stratum]).integers(length)
        return begin + stratum * length + int(shift)


@dataclass(frozen=True)
class Observed:
    """The series of one run: ||grad||^2, N, f at the feasible point (or None), steps (or None)."""

    iteration: np.ndarray
    gradient: np.ndarray
    infeasibility: np.ndarray | None
    fun: np.ndarray | None
    step: np.ndarray | None

    @property
    def horizon(self) -> int:
        """T: iterates 0, ..., T - 1 were seen."""
        return int(self.iteration[-1]) + 1

    @classmethod
    def of(cls, trace: Any) -> Observed:
        """The series of a trace, a mapping of columns, or a CSV file; checked.

        Columns: iteration; gradient_norm; distance (or infeasibility, N = distance^2 / 4); and,
        if known, feasible_fun (else fun) and step.
        """
        columns = _columns(trace)
        if "iteration" not in columns or "gradient_norm" not in columns:
            raise ValueError(
                f"a trace needs the columns iteration and gradient_norm; got {', '.join(columns)}"
            )
        iteration = _numbers("iteration", columns["iteration"])
        if len(iteration) == 0:
            raise ValueError("the trace has no rows")
        if iteration[0] < 0 or np.any(iteration % 1):
            raise ValueError("iteration must be whole numbers from 0 on")
        if np.any(np.diff(iteration) <= 0):
            row = int(np.argmax(np.diff(iteration) <= 0)) + 1
            raise ValueError(
                f"iteration must increase from row to row; row {row} has {iteration[row]:g} after "
                f"{iteration[row - 1]:g}: judge one run at a time, in a list of traces"
            )
        norm = _series("gradient_norm", columns, len(iteration))
        return cls(
            iteration.astype(np.int64),
            norm**2,
            _infeasibility(columns, len(iteration)),
            _known("feasible_fun", columns, len(iteration))
            if _present("feasible_fun", columns)
            else _known("fun", columns, len(iteration)),
            _known("step", columns, len(iteration)),
        )

    def upto(self, T: int) -> Observed:
        """The run's first T iterates."""
        keep = slice(0, int(np.searchsorted(self.iteration, T)))
        parts = (self.gradient, self.infeasibility, self.fun, self.step)
        return Observed(self.iteration[keep], *(None if a is None else a[keep] for a in parts))  # type: ignore[arg-type]


def _columns(trace: Any) -> dict[str, Any]:
    if isinstance(trace, (str, Path)):
        if not Path(trace).is_file():
            raise ValueError(f"there is no file {trace}")
        with open(trace, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        if not rows:
            raise ValueError(f"{trace} has no rows")
        return {name: [row[name] for row in rows] for name in rows[0]}
    if hasattr(trace, "trace"):  # a Result
        trace = trace.trace
    names = getattr(trace, "columns", trace)
    if not (isinstance(trace, Iterable) and hasattr(trace, "__getitem__")):
        raise TypeError(
            "a trace is a lo.Trace, a mapping of columns (a dict, a DataFrame) or the path of a CSV "
            f"file; got {type(trace).__name__}"
        )
    return {str(name): trace[name] for name in names}


def _present(name: str, columns: dict[str, Any]) -> bool:
    return name in columns and bool(np.any(np.isfinite(_numbers(name, columns[name]))))


def _numbers(name: str, values: Any) -> np.ndarray:
    if np.iscomplexobj(values):
        raise ValueError(f"column {name} is complex; norms and distances are real")
    if isinstance(values, (list, tuple)):  # an empty cell of a CSV file
        values = [math.nan if isinstance(v, str) and not v.strip() else v for v in values]
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"column {name} holds what is no number") from None
    if array.ndim != 1:
        raise ValueError(
            f"column {name} has shape {array.shape}: judge the matrices of a stack one by one, "
            "{name: trace[name][:, i] for name in ...}"
        )
    return array


def _series(name: str, columns: dict[str, Any], rows: int) -> np.ndarray:
    values = _numbers(name, columns[name])
    if len(values) != rows:
        raise ValueError(f"column {name} has {len(values)} rows, iteration has {rows}")
    if not np.all(np.isfinite(values)):
        row = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"column {name} is {values[row]} in row {row}: the run broke there, or it was not measured; "
            "judge the rows before it, or record it"
        )
    if np.any(np.abs(values) > 1e150):
        raise ValueError(f"column {name} has values beyond 1e150, whose squares overflow: scale f")
    if name not in ("fun", "feasible_fun") and np.any(values < 0.0):
        row = int(np.argmax(values < 0.0))
        raise ValueError(f"column {name} is negative in row {row}: {values[row]:g}")
    return values


def _known(name: str, columns: dict[str, Any], rows: int) -> np.ndarray | None:
    if not _present(name, columns):
        return None
    if name == "step":  # none led to the first row
        return np.nan_to_num(_numbers(name, columns[name]))
    return _series(name, columns, rows)


def _infeasibility(columns: dict[str, Any], rows: int) -> np.ndarray | None:
    if "infeasibility" in columns:
        return _series("infeasibility", columns, rows)
    if "distance" in columns:
        return _series("distance", columns, rows) ** 2 / 4.0
    return None


# -- windows --------------------------------------------------------------------------------------


class Integral:
    """Sums over the iterates a <= t < b, each unrecorded one as the recorded one next to it."""

    def __init__(self, iteration: np.ndarray, values: np.ndarray):
        between = 0.5 * (iteration[:-1] + iteration[1:] + 1)
        self.begins = np.concatenate([[0.0], between])
        self.ends = np.concatenate([between, [iteration[-1] + 1.0]])
        self.values = values

    def __call__(self, a: float, b: float) -> float:
        # Not as a difference of cumulative sums: what is left at the end is far below their rounding.
        inside = np.minimum(self.ends, b) - np.maximum(self.begins, a)
        return float(np.maximum(inside, 0.0) @ self.values)

    def mean(self, a: float, b: float) -> float:
        return self(a, b) / (b - a)


def means(run: Observed, values: np.ndarray, horizons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean up to each horizon T, and the mean over [T/2, T)."""
    integral = Integral(run.iteration, values)
    running = [integral.mean(0.0, T) for T in horizons]
    tail = [integral.mean(0.5 * T, T) for T in horizons]
    return np.array(running), np.array(tail)


def dense_enough(run: Observed, T: float) -> bool:
    """Are there rows enough in the last half before T?"""
    return int(np.sum((run.iteration >= 0.5 * T) & (run.iteration < T))) >= _FEWEST


@dataclass(frozen=True)
class Slope:
    """A slope in log-log, and an interval for it.

    Of runs with several seeds the 95 % interval of Student's t over the seeds; of one run the least and
    the greatest slope from mark to mark.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def fitted_slope(horizons: np.ndarray, values: np.ndarray) -> Slope:
    """Least squares of log(mean over the seeds) against log T; ``values`` (marks, seeds) > 0."""
    x = np.log(horizons) - np.mean(np.log(horizons))
    weights = x / np.sum(x * x)
    slope = float(weights @ np.log(values.mean(axis=1)))
    seeds = values.shape[1]
    if seeds == 1:
        local = np.diff(np.log(values[:, 0])) / np.diff(np.log(horizons))
        return Slope(slope, float(local.min()), float(local.max()))
    half = students_half_width(weights @ np.log(values))
    return Slope(slope, slope - half, slope + half)


def students_half_width(samples: np.ndarray) -> float:
    """Of the 95 % interval for the mean."""
    from scipy.special import stdtrit  # the quantile of Student's t

    count = len(samples)
    return float(stdtrit(count - 1, 0.975) * np.std(samples, ddof=1) / math.sqrt(count))
