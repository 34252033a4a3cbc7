"""The record of a run: one row for each checkpoint."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = (
    "iteration", "epoch", "seconds", "fun", "feasible_fun", "gradient_norm", "distance", "step",
    "nfev", "njev",
)  # fmt: skip


class Trace:
    """What was recorded: ``trace["fun"]`` is a NumPy array with one entry a row.

    The columns are ``iteration, epoch, seconds, fun, feasible_fun, gradient_norm, distance, step,
    nfev, njev`` and the names of the record's metrics. For a separable stack, the measured columns
    have shape (rows, ...). ``feasible_fun`` is f at the closest point of the manifold: raw
    f(X) flatters an infeasible X.

    Examples
    --------
    >>> import landingopt as lo
    >>> trace = lo.minimize(lo.problems.Procrustes.random(5, rng=0), rng=0).trace
    >>> int(trace["iteration"][0]), len(trace) > 1
    (0, True)
    """

    def __init__(self, columns: tuple[str, ...] = COLUMNS):
        self._data: dict[str, list[Any]] = {name: [] for name in columns}

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._data)

    def append(self, row: dict[str, Any]) -> None:
        for name, values in self._data.items():
            values.append(row.get(name, math.nan))

    def amend(self, row: dict[str, Any]) -> None:
        """Replace entries of the last row."""
        for name, value in row.items():
            self._data[name][-1] = value

    def __len__(self) -> int:
        return len(self._data["iteration"])

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._data:
            raise KeyError(f"no column {name!r}; the columns are {', '.join(self._data)}")
        return np.asarray(self._data[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __repr__(self) -> str:
        return f"Trace({len(self)} rows: {', '.join(self._data)})"

    def rows(self) -> Iterator[dict[str, Any]]:
        for i in range(len(self)):
            yield {name: values[i] for name, values in self._data.items()}

    def to_csv(self, path: str | Path) -> None:
        """Write one line a row; entries of stacks are joined by spaces."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self._data)
            for row in self.rows():
                writer.writerow([_text(value) for value in row.values()])

    def to_json(self, path: str | Path) -> None:
        """Write {column: [values]}; what is not finite becomes null."""
        data = {name: [_plain(value) for value in values] for name, values in self._data.items()}
        Path(path).write_text(json.dumps(data))


def _text(value: Any) -> str:
    return " ".join(repr(v) for v in np.ravel(value).tolist())


def _plain(value: Any) -> Any:
    if np.ndim(value):
        return [_plain(v) for v in np.asarray(value).tolist()]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
