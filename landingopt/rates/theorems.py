"""Which theorem speaks of a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from landingopt import estimators, fields, moves, retractions, searches, steps
from landingopt.methods import Method
from landingopt.rates.factors import scales_of
from landingopt.rates.laws import Bounded, Law, LogOverSqrtT, OneOverSqrtT, OneOverT, Sublinear

OBSERVED = "no theorem; observed"


@dataclass(frozen=True)
class Theorem:
    """The law of a method, and where it is proved; ``source`` "" where it is not."""

    law: Law
    source: str

    def __str__(self) -> str:
        return f"{self.law} ({self.source or OBSERVED})"


def theorem_of(method: Any) -> Theorem:
    """The law that a method's parts promise.

    A method without a theorem (a line search, Barzilai–Borwein steps, directions with a memory,
    momentum, Adam, POGO, SVRG, stochastic steps with a retraction, the solvers of others) is held
    against the law of its kind all the same, and labelled so.

    References
    ----------
    [AVGA24]; Boumal, Absil, Cartis, Global rates of convergence for nonconvex optimization on
    manifolds, IMA J. Numer. Anal. 39, 2019, for gradient descent with a retraction.

    Examples
    --------
    >>> import landingopt as lo
    >>> print(lo.rates.theorem_of(lo.landing(step=0.1)))
    O(1/T) ([AVGA24], gradient descent)
    >>> print(lo.rates.theorem_of(lo.landing()))
    O(1/T) (no theorem; observed)
    """
    if not isinstance(method, Method) or not isinstance(method.search, searches.OpenLoop):
        return Theorem(OneOverT(), "")
    estimator, rule = method.estimator, _inner(method.search.step)
    transformed = hasattr(estimator, "base")
    while hasattr(estimator, "base"):
        estimator = estimator.base
    source = "" if transformed else _source(method, estimator)
    if isinstance(estimator, (estimators.Full, estimators.Saga, estimators.Svrg)):
        if isinstance(rule, (steps.Constant, steps.FromCurvature)) and not getattr(
            rule, "power", 0.0
        ):
            return Theorem(OneOverT(), source)
        power = getattr(rule, "power", None)
        if power is not None and power < 1.0 and isinstance(estimator, estimators.Full):
            return Theorem(Sublinear(1.0 - power), source)
        return Theorem(OneOverT(), "")
    if isinstance(rule, steps.Horizon):
        return Theorem(OneOverSqrtT(), source)
    if getattr(rule, "power", 0.0) == 0.5:
        return Theorem(LogOverSqrtT(), source)
    if isinstance(rule, steps.Constant):
        return Theorem(Bounded(), source)
    return Theorem(Bounded(), "")


def _inner(rule: Any) -> Any:
    return _inner(rule.rule) if isinstance(rule, steps.Safeguarded) else rule


def _source(method: Method, estimator: Any) -> str:
    kind = {
        estimators.Full: "gradient descent",
        estimators.MiniBatch: "SGD",
        estimators.Saga: "SAGA",
    }.get(type(estimator))
    if kind is None:
        return ""
    if isinstance(method.move, moves.Additive) and isinstance(method.field.normal, fields.Penalty):
        return f"[AVGA24], {kind}"
    if isinstance(method.move, retractions.RETRACTIONS) and kind == "gradient descent":
        return "Boumal, Absil, Cartis 2019"
    return ""


def with_horizon(method: Any, T: int) -> Any:
    """The method with its step fixed in advance for T iterations, where it is of that kind."""
    rule = getattr(getattr(method, "search", None), "step", None)
    if not isinstance(_inner(rule), steps.Horizon):
        return method

    def replaced(rule: Any) -> Any:
        if isinstance(rule, steps.Safeguarded):
            return replace(rule, rule=replaced(rule.rule))
        return replace(rule, iterations=T)

    return replace(method, search=replace(method.search, step=replaced(rule)))


def descent_scale(method: Any, square: bool) -> float:
    """s: a step eta lowers f by s eta ||grad f||^2 to first order, or more; 1 where nothing is known.

    On the manifold a tangent term is a X skew(X^H G) + b (I - X X^H) G with b <= a. For square X the
    second part vanishes.
    """
    try:
        a, b = scales_of(getattr(getattr(method, "field", None), "tangent", None))
    except TypeError:
        return 1.0
    return a if square else b


def is_square(problem: Any) -> bool:
    """Is x one square matrix?"""
    shape = problem.shape
    plain = isinstance(shape, tuple) and all(isinstance(n, (int, np.integer)) for n in shape)
    return plain and len(shape) >= 2 and shape[-1] == shape[-2]
