"""Stop rules, joined by ``|`` (any) and ``&`` (all). They carry no state.

``verdict(row)`` gives a :class:`~landingopt.status.Status` code, or one for each matrix of a
separable stack; RUNNING where the rule is not met or its quantity is not known at this iteration.
``threshold(first)`` is the gradient norm above which a rule cannot be met before ``limit()``
iterations and ``deadline()`` seconds (infinite where the norm says nothing), so that most iterations
need no verdict.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt.status import Status

RUNNING = int(Status.RUNNING)


def _code(met: Any, status: Status) -> Any:
    if isinstance(met, (bool, np.bool_)):
        return int(status) if met else RUNNING
    return np.where(met, int(status), RUNNING)


def _check_number(name: str, value: Any, finite: bool = True) -> None:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and value >= 0 and (math.isfinite(value) or not finite)):
        raise ValueError(f"{name} must be a number >= 0, got {value!r}")


def first_code(code: Any, other: Any) -> Any:
    """``code`` where it ends the run, else ``other``; per matrix for a separable stack."""
    if isinstance(code, int) and isinstance(other, int):
        return other if code == RUNNING else code
    return np.where(np.asarray(code) != RUNNING, code, other)


class _Joinable:
    """``a | b`` and ``a & b``."""

    def __or__(self, other: Any) -> Any:
        return Any_(self, other) if _is_rule(other) else NotImplemented

    def __and__(self, other: Any) -> Any:
        return All_(self, other) if _is_rule(other) else NotImplemented


def _is_rule(rule: Any) -> bool:
    return all(hasattr(rule, name) for name in ("verdict", "limit", "limits"))


def threshold(rule: Any, first: float) -> float:
    """The gradient norm above which ``rule`` cannot be met; infinite for a rule that does not tell."""
    tell = getattr(rule, "threshold", None)
    return math.inf if tell is None else tell(first)


def deadline(rule: Any) -> float:
    """The wall time from which ``rule`` may be met whatever the gradient norm is."""
    tell = getattr(rule, "deadline", None)
    return math.inf if tell is None else tell()


def epoch_limit(rule: Any) -> float:
    """The number of epochs from which ``rule`` may be met whatever else is known."""
    tell = getattr(rule, "epoch_limit", None)
    return math.inf if tell is None else tell()


def check_rule(rule: Any) -> Any:
    """``rule`` itself, or an error that says what a stop rule is."""
    if isinstance(rule, type) and _is_rule(rule):
        raise TypeError(f"stop must be an instance: write lo.{rule.__name__}(...)")
    if not _is_rule(rule):
        raise TypeError(
            f"stop must be a stop rule, got {rule!r}; for example "
            "lo.GradientNorm(rtol=1e-8) | lo.MaxIterations(500) | lo.Timeout(10)"
        )
    return rule


@dataclass(frozen=True)
class GradientNorm(_Joinable):
    """||grad|| <= max(atol, rtol ||grad at the start||), of the Euclidean-metric Riemannian gradient.

    grad = G - X sym(X^H G); the start is the first point on the manifold.
    """

    atol: float = 0.0
    rtol: float = 0.0
    limits = False

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            _check_number(name, value)

    def verdict(self, row: Any) -> Any:
        norm = row.gradient_norm
        if norm is None:
            return RUNNING
        bound: Any = self.atol
        if self.rtol:
            bound = row.scalars.maximum(bound, self.rtol * row.first_gradient_norm)
        return _code(norm <= bound, Status.CONVERGED)

    def limit(self) -> float:
        return math.inf

    def threshold(self, first: float) -> float:
        return max(self.atol, self.rtol * first)


@dataclass(frozen=True)
class Distance(_Joinable):
    """||X^H X - I||_F <= atol."""

    atol: float
    limits = False

    def __post_init__(self) -> None:
        _check_number("atol", self.atol)

    def verdict(self, row: Any) -> Any:
        distance = row.distance
        return RUNNING if distance is None else _code(distance <= self.atol, Status.CONVERGED)

    def limit(self) -> float:
        return math.inf


@dataclass(frozen=True)
class Target(_Joinable):
    """f at the feasible point <= value."""

    value: float
    limits = False

    def __post_init__(self) -> None:
        if not isinstance(self.value, numbers.Real) or math.isnan(self.value):
            raise ValueError(f"value must be a number, got {self.value!r}")

    def verdict(self, row: Any) -> Any:
        fun = row.feasible_fun
        return RUNNING if fun is None else _code(fun <= self.value, Status.CONVERGED)

    def limit(self) -> float:
        return math.inf


@dataclass(frozen=True)
class MaxIterations(_Joinable):
    """At most ``iterations`` steps; exact."""

    iterations: int
    limits = True

    def __post_init__(self) -> None:
        k = self.iterations
        if isinstance(k, bool) or not (isinstance(k, numbers.Real) and k >= 0 and k == k // 1):
            raise ValueError(f"iterations must be an integer >= 0, got {k!r}")

    def verdict(self, row: Any) -> Any:
        return _code(row.iteration >= self.iterations, Status.MAX_ITERATIONS)

    def limit(self) -> float:
        return self.iterations

    def threshold(self, first: float) -> float:
        return -math.inf


@dataclass(frozen=True)
class MaxEpochs(_Joinable):
    """At most about ``epochs`` passes: full gradients, or as many gradients of single terms."""

    epochs: float
    limits = True

    def __post_init__(self) -> None:
        _check_number("epochs", self.epochs, finite=False)

    def verdict(self, row: Any) -> Any:
        return _code(row.epoch >= self.epochs, Status.MAX_EPOCHS)

    def limit(self) -> float:
        return math.inf

    def epoch_limit(self) -> float:
        return self.epochs


@dataclass(frozen=True)
class Timeout(_Joinable):
    """``seconds`` of wall time, the observer's own included."""

    seconds: float
    limits = True

    def __post_init__(self) -> None:
        _check_number("seconds", self.seconds, finite=False)

    def verdict(self, row: Any) -> Any:
        return _code(row.wall >= self.seconds, Status.TIMEOUT)

    def limit(self) -> float:
        return math.inf

    def threshold(self, first: float) -> float:
        return -math.inf

    def deadline(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Any_(_Joinable):
    """Met as soon as one of the two is; made by ``a | b``."""

    first: Any
    second: Any

    @property
    def limits(self) -> bool:
        return self.first.limits or self.second.limits

    def verdict(self, row: Any) -> Any:
        first = self.first.verdict(row)
        if isinstance(first, int) and first != RUNNING:
            return first
        return first_code(first, self.second.verdict(row))

    def limit(self) -> float:
        return min(self.first.limit(), self.second.limit())

    def threshold(self, first: float) -> float:
        return max(threshold(self.first, first), threshold(self.second, first))

    def deadline(self) -> float:
        return min(deadline(self.first), deadline(self.second))

    def epoch_limit(self) -> float:
        return min(epoch_limit(self.first), epoch_limit(self.second))

    def __repr__(self) -> str:
        return f"{self.first!r} | {self.second!r}"


@dataclass(frozen=True)
class All_(_Joinable):
    """Met where both are; made by ``a & b``. CONVERGED where one of them says so."""

    first: Any
    second: Any

    @property
    def limits(self) -> bool:
        return self.first.limits and self.second.limits

    def verdict(self, row: Any) -> Any:
        first = self.first.verdict(row)
        if isinstance(first, int) and first == RUNNING:
            return RUNNING
        second = self.second.verdict(row)
        if isinstance(first, int) and isinstance(second, int):
            return min(first, second) if second != RUNNING else RUNNING
        met = (np.asarray(first) != RUNNING) & (np.asarray(second) != RUNNING)
        return np.where(met, np.minimum(first, second), RUNNING)

    def limit(self) -> float:
        return max(self.first.limit(), self.second.limit())

    def threshold(self, first: float) -> float:
        # A limit on iterations or time (minus infinity) says nothing about when both are met.
        parts = [threshold(part, first) for part in (self.first, self.second)]
        return min(math.inf if part == -math.inf else part for part in parts)

    def deadline(self) -> float:
        return max(deadline(self.first), deadline(self.second))

    def epoch_limit(self) -> float:
        return max(epoch_limit(self.first), epoch_limit(self.second))

    def __repr__(self) -> str:
        return f"({self.first!r} & {self.second!r})"
