"""When a row is recorded, and which metrics of the user's go into it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from landingopt.observe.trace import COLUMNS

Metrics = Mapping[str, Callable[[Any], float]]


class Record(Protocol):
    """A schedule of checkpoints: ``next(k)`` is the first checkpoint after iteration k.

    Optional: ``next_epoch(e)``, the first checkpoint after e epochs, and ``full``, False where rows are
    to have the user's metrics and the counts alone.
    """

    @property
    def metrics(self) -> Metrics: ...

    def next(self, k: int) -> float: ...


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

    def next(self, k: int) -> float:
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

    def next(self, k: int) -> float:
        return max(k + 1, round(k * 10.0 ** (1.0 / self.per_decade)))


@dataclass(frozen=True)
class EveryEpoch:
    """Rows at whole epochs, the work of ``epochs`` full gradients apart; stochastic methods' default.

    A row measures f, its gradient norm and the distance on the whole sum: off the clock, and not among
    the method's evaluations, but a pass over the data all the same.

    Parameters
    ----------
    epochs : float
        1/4 for four rows an epoch.
    metrics : dict of functions of x
    full : bool
        False: no pass over the data behind your back. f and the gradient norm are NaN, and what stops
        at a gradient norm or a value never does.

    The work of measuring the curvature, for a step chosen at the start, comes before the first row.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(5, 1000, rng=0)
    >>> result = lo.minimize(problem, method=lo.landing_sgd(), record=lo.EveryEpoch(5), rng=0)
    >>> result.trace["epoch"].round().tolist()
    [1.0, 5.0, 10.0, 15.0, 20.0]
    """

    epochs: float = 1.0
    metrics: Metrics = field(default_factory=dict, hash=False)
    full: bool = True

    def __post_init__(self) -> None:
        real = isinstance(self.epochs, numbers.Real) and not isinstance(self.epochs, bool)
        if not (real and 0.0 < self.epochs < math.inf):
            raise ValueError(f"epochs must be a positive number, got {self.epochs!r}")
        _check_metrics(self.metrics)

    def next(self, k: int) -> float:
        return math.inf

    def next_epoch(self, epoch: float) -> float:
        return (math.floor(epoch / self.epochs * (1.0 + 1e-12)) + 1.0) * self.epochs
