"""Do two methods converge at the same rate, step for step?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt import _inputs
from landingopt._compare import problem_name
from landingopt._minimize import minimize
from landingopt.gradient_check import check_gradient
from landingopt.methods import Method
from landingopt.observe.record import Every
from landingopt.observe.stop import GradientNorm, MaxIterations
from landingopt.rates.judge import Verdict
from landingopt.rates.series import students_half_width
from landingopt.rates.theorems import descent_scale, is_square
from landingopt.searches import OpenLoop
from landingopt.steps import Safeguarded

_SPAN = 100.0  # ways are counted from this many times the last gradient norm on


@dataclass(frozen=True)
class SameRate:
    """The verdict of :func:`same_rate`; true where the rates are the same.

    Attributes
    ----------
    verdict : Verdict
        CONSISTENT: the whole interval lies within 1 +- margin; REJECTED: it leaves out 1 + margin or
        1 - margin on the same side; else INCONCLUSIVE.
    ratio, low, high : float
        Way that the first method needs over that of the second, and its 95 % interval over the starts.
        A way is the sum of the steps, each times the metric scale of its tangent: iterations where the
        steps are one.
    margin : float
    starts : int
    reason : str
    """

    verdict: Verdict
    ratio: float
    low: float
    high: float
    margin: float
    starts: int
    reason: str

    def __bool__(self) -> bool:
        return self.verdict is Verdict.CONSISTENT

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def same_rate(
    problem: Any,
    first: Any,
    second: Any,
    *,
    starts: int = 8,
    tol: float = 1e-8,
    margin: float = 0.02,
    horizon: int = 2**14,
    rng: Any = None,
) -> SameRate:
    r"""Do two methods with given steps converge at the same rate, once the metric scale is converted?

    Both run from the same random starts on the manifold. Their ways w = sum s eta_t are measured from
    where the gradient norm falls below 100 ``tol`` of the first one, for good, to where it falls below
    ``tol`` of it: what counts is the rate at which they converge, not how long a saddle held them up.
    s is the metric scale of the method's tangent (the table in ``lo.fields``): the landing's R with a
    step eta goes as far as Riemannian gradient descent in the canonical metric with eta / 2. For square
    X, where all metrics are multiples of each other, s is that of the Euclidean metric. log(w_1 / w_2)
    is one number for each start; Student's t gives the interval.

    Parameters
    ----------
    problem : problem
    first, second : methods with an open loop of steps, such as ``lo.landing(step=...)`` and
        ``lo.riemannian(step=...)``, in the same metric
    starts : int
        Random starts, at least 3.
    tol : float
        Where ways end, relative to the gradient norm at the start; 1e-4 in single precision.
    margin : float
        What counts as the same: the ratio within 1 +- margin.
    horizon : int
        The most iterations of a run.
    rng : seed or numpy Generator, optional

    Returns
    -------
    SameRate

    Raises
    ------
    TypeError, ValueError
        Methods without steps of their own, fewer than 3 starts, a margin outside (0, 1).

    References
    ----------
    [AVGA24] section 6, where the landing is compared with a retraction at the same nominal step.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> problem = lo.problems.PCA.random(12, 3, rng=0)
    >>> landing = lo.landing(step=0.2, lam=1.0, tangent=lo.fields.Canonical())  # s = 1/2
    >>> descent = lo.riemannian(step=0.1, tangent=lo.fields.Canonical(1.0))
    >>> print(lo.rates.same_rate(problem, landing, descent, rng=0).verdict)
    CONSISTENT

    In two metrics the rates differ:

    >>> tall = lo.problems.Procrustes(np.eye(3), np.eye(5, 3) * [3.0, 2.0, 1.0])
    >>> euclidean = lo.riemannian(step=0.1)
    >>> other = lo.riemannian(step=0.1, tangent=lo.fields.BetaMetric(4.0))
    >>> print(lo.rates.same_rate(tall, other, euclidean, rng=0).verdict)
    REJECTED
    """
    problem = _inputs.as_problem(problem, None)
    scales = [_scale(method, is_square(problem)) for method in (first, second)]
    if not (isinstance(starts, (int, np.integer)) and starts >= 3):
        raise ValueError(f"starts must be at least 3 for an interval, got {starts!r}")
    if not 0.0 < margin < 1.0:
        raise ValueError(f"margin must lie strictly between 0 and 1, got {margin!r}")
    if not 0.0 < tol < 1.0 / _SPAN:
        raise ValueError(f"tol must lie strictly between 0 and {1.0 / _SPAN:g}, got {tol!r}")
    generator = np.random.default_rng(rng)
    if problem.fun is not None or problem.value_and_gradient is not None:
        gradient = check_gradient(problem, rng=generator)
        if any(direction.verdict == "disagrees" for direction in gradient.directions):
            nan = math.nan
            return SameRate(Verdict.REJECTED, nan, nan, nan, margin, 0, gradient.message)
    logs: list[float] = []
    for _ in range(starts):
        x0 = _inputs.start(problem, None, generator)
        ways = []
        for method, scale in zip((first, second), scales, strict=True):
            way = _way(problem, method, x0, scale, tol, horizon, generator)
            if way is None:
                return _undecided(
                    f"{method.name} did not reach {tol:g} of its first gradient norm in {horizon} "
                    "iterations: a larger tol, a longer horizon, or a longer step",
                    margin,
                    len(logs),
                )
            ways.append(way)
        logs.append(math.log(ways[0] / ways[1]))
    return _verdict(logs, margin, f"{first.name} against {second.name} on {problem_name(problem)}")


def _scale(method: Any, square: bool) -> float:
    if not (isinstance(method, Method) and isinstance(method.search, OpenLoop)):
        raise TypeError(
            "rates are compared at given steps, of methods such as lo.landing(step=...), lo.pogo(step) "
            f"and lo.riemannian(step=...); got {getattr(method, 'name', method)!r:.80}"
        )
    rule = method.search.step
    rule = rule.rule if isinstance(rule, Safeguarded) else rule
    if not hasattr(rule, "size"):
        raise TypeError(f"{method.name} has no step of its own yet: give it one, step=...")
    return descent_scale(method, square)


def _way(
    problem: Any,
    method: Any,
    x0: Any,
    scale: float,
    tol: float,
    horizon: int,
    rng: np.random.Generator,
) -> float | None:
    """The way between the two levels; None where the second was not reached."""
    result = minimize(
        problem,
        x0,
        method,
        stop=GradientNorm(rtol=0.5 * tol) | MaxIterations(horizon),
        record=Every(1),
        rng=rng,
        on_failure="return",
    )
    norm = result.trace["gradient_norm"]
    way = scale * np.cumsum(np.nan_to_num(result.trace["step"]))
    ends = [_arrival(norm / norm[0], way, level) for level in (_SPAN * tol, tol)]
    return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]


def _arrival(norm: np.ndarray, way: np.ndarray, level: float) -> float | None:
    """Where the norm falls below the level for good; between iterates by its logarithm."""
    above = np.flatnonzero(norm > level)
    last = int(above[-1]) if above.size else 0
    if not above.size or last + 1 == len(norm):
        return None
    a, b = math.log(norm[last]), math.log(max(norm[last + 1], 1e-300))
    return float(way[last] + (a - math.log(level)) / (a - b) * (way[last + 1] - way[last]))


def _verdict(logs: Sequence[float], margin: float, what: str) -> SameRate:
    count, mean, half = len(logs), float(np.mean(logs)), students_half_width(np.array(logs))
    ratio, low, high = math.exp(mean), math.exp(mean - half), math.exp(mean + half)
    if 1.0 - margin <= low and high <= 1.0 + margin:
        verdict, said = Verdict.CONSISTENT, "the same rate"
    elif high < 1.0 - margin or low > 1.0 + margin:
        verdict, said = Verdict.REJECTED, "different rates"
    else:
        verdict, said = Verdict.INCONCLUSIVE, "undecided: more starts, or a wider margin"
    reason = (
        f"{said}: {what}, ways in the ratio {ratio:.4f} [{low:.4f}, {high:.4f}] over {count} starts "
        f"(the same: within 1 +- {margin:g})"
    )
    return SameRate(verdict, ratio, low, high, margin, count, reason)


def _undecided(reason: str, margin: float, starts: int) -> SameRate:
    nan = math.nan
    return SameRate(Verdict.INCONCLUSIVE, nan, nan, nan, margin, starts, reason)
