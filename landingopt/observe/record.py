"""When a row is recorded, and which metrics of the user's go into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from landingopt.observe.trace import COLUMNS

Metrics = Mapping[str, Callable[[Any], float]]


class Record(Protocol):
    """A schedule of checkpoints: ``next(k)`` is the first checkpoint after iteration k."""

    @property
    def metrics(self) -> Metrics: ...

    def next(self, k: int) -> int: ...


def _check_metrics(metrics: Metrics) -> None:
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict of functions of x, got {metrics!r}")
    for name, function in metrics.items():
        if name in COLUMNS:
            raise ValueError(f"the metric {name!r} has the name of a column of every trace")
        if not callable(function):
            raise TypeError(f"the metric {name!r} must be a function of x, got {function!r}")


@dataclass(frozen=True)
class Every:
    """A row every ``iterations`` steps; the first and the last iterate are always recorded.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(5, rng=0)
    >>> record = lo.Every(10, metrics={"corner": lambda x: x[0, 0]})
    >>> "corner" in lo.minimize(problem, record=record, rng=0).trace.columns
    True
    """

    iterations: int = 1
    metrics: Metrics = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.iterations, int) and self.iterations >= 1):
            raise ValueError(f"iterations must be an integer of at least 1, got {self.iterations}")
        _check_metrics(self.metrics)

    def next(self, k: int) -> int:
        return k + self.iterations - k % self.iterations


@dataclass(frozen=True)
class LogSpaced:
    """Rows at iterations that grow geometrically, about ``per_decade`` to each factor of ten."""

    per_decade: int = 20
    metrics: Metrics = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.per_decade, int) and self.per_decade >= 1):
            raise ValueError(f"per_decade must be an integer of at least 1, got {self.per_decade}")
        _check_metrics(self.metrics)

    def next(self, k: int) -> int:
        return max(k + 1, round(k * 10.0 ** (1.0 / self.per_decade)))
