"""The geometric rate near the optimum of Procrustes and PCA: predicted, measured, compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from landingopt import _xp, estimators, fields, moves, retractions, steps, stiefel
from landingopt._minimize import minimize
from landingopt._xp import Array
from landingopt.directions import Steepest
from landingopt.methods import Method
from landingopt.observe.record import Every
from landingopt.observe.stop import GradientNorm, MaxIterations
from landingopt.problems import PCA, Procrustes, SampledPCA
from landingopt.rates.constants import wide
from landingopt.rates.evidence import Evidence

_SHORTEST = 12  # points that a fitted tail needs, at least
_RESTARTS = 4  # by ten digits each, before a tail is measured: close modes come apart


@dataclass(frozen=True)
class LocalFactors:
    """What a step multiplies, near the optimum: the prediction of :func:`local_factors`.

    Attributes
    ----------
    gap : float
        Of f(polar X) - f*.
    distance : float
        Of ||X^H X - I||_F; nan for a retraction, whose iterates stay on the manifold.
    gradient : float
        Of the Riemannian gradient's norm at polar X: the square root of ``gap``.
    """

    gap: float
    distance: float
    gradient: float

    @property
    def stable(self) -> bool:
        """Do they all shrink?"""
        return all(not factor >= 1.0 for factor in (self.gap, self.distance, self.gradient))


def local_factors(
    problem: Any, method: Any, *, component: int | None = None, x0: Array | None = None
) -> LocalFactors:
    r"""The factors by which a step near the optimum of Procrustes or PCA multiplies what is left.

    With the eigenvalues r of the Riemannian Hessian, in the metric and scale of the tangent term,

        q = max |1 - eta r|,        mu = |1 - 2 eta lam|:

    =============================  ==================================  ================
    method                         f-gap                               distance
    =============================  ==================================  ================
    ``lo.landing(step, lam=lam)``  max(q^2, mu^2) (PCA, p = 1: q^2)    max(mu, q^2)
    ``lo.pogo(step)``              q^2                                 q^4
    ``lo.riemannian(step=step)``   q^2                                 nan
    =============================  ==================================  ================

    (POGO with another lam than 1/2: as the landing, with mu = |1 - 2 lam|.) The distance shrinks no
    faster than q^2 because a step along R adds eta^2 R^H R to Delta. The f-gap of Procrustes feels mu
    because on the set X^H X = I + Delta the minimiser is not that of the manifold: its polar factor is
    off by O(Delta), in the directions (i, j) with different singular values. PCA's f is blind to them.

    The eigenvalues r, for a tangent term that is on the manifold a X skew(X^H G) + b (I - X X^H) G
    (a = 2 s and b = s for ``Canonical(s)``; a = b = s for ``Euclidean(s)`` and ``NearTangent(s)``;
    a = s / beta and b = s for ``BetaMetric(beta, s)``; s = 1/2 is the papers' R):

    - Procrustes of weight w, B A^H = U S V^H with singular values s_i, the smallest negative where the
      component is the other one: a w (s_i + s_j) over i < j, complex data over i <= j, and, for n > p,
      2 b w s_i in the directions that leave the span of X;
    - PCA with eigenvalues l_1 >= ... >= l_n: b (l_i - l_j) over i <= p < j.

    Parameters
    ----------
    problem : Procrustes, PCA or SampledPCA
        One matrix (n, p), n >= p.
    method : Method
        ``lo.landing(step=<number>)``, ``lo.pogo(<number>)`` or ``lo.riemannian(..., step=<number>)``
        with the full gradient. A landing's step beyond 1 / (2 lam) is what the safe step makes of it.
    component : +1 or -1, optional
        For real square Procrustes; without it that of ``x0``, or of the global optimum.
    x0 : array, optional
        A start: runs stay in its component.

    Returns
    -------
    LocalFactors

    Raises
    ------
    TypeError
        Another problem or method; the message says what is needed.
    ValueError
        A stack or a wide x, a component where there is none, an f that is constant.

    Notes
    -----
    Generic: singular values (of PCA: l_p and l_{p+1}) differ, and the start has a part along every
    eigenvector. A start on the manifold excites Delta too, through eta^2 R^H R, but for p = 2 (square,
    real) only the multiples of I, which do not turn the polar factor. Where two of the factors
    coincide there is a factor k beside their k-th power. At X itself, off the manifold, f - f* has the
    factor max(q^2, mu), and the gradient norm max(q, mu).

    References
    ----------
    Linearised from the definitions and measured; for the Hessian of a Stiefel problem [AMS08] 5.3.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> problem = lo.problems.Procrustes(np.eye(3), np.diag([3.0, 2.0, 1.0]))
    >>> factors = local_factors(problem, lo.landing(step=0.1, lam=5.0))  # slowest: 1 - 0.1 (2 + 1)
    >>> round(factors.gap, 12), round(factors.distance, 12), factors.stable
    (0.49, 0.49, True)
    >>> local_factors(problem, lo.landing(step=0.5), component=1).stable  # 2 / (3 + 2) is the limit
    False
    """
    eta, mu, power, scales = _linear(method)
    rates, coupled = curvatures(problem, scales, component, x0)
    q = float(np.max(np.abs(1.0 - eta * rates)))
    gap = max(q**2, mu**2) if coupled else q**2
    distance = max(mu, q**power) if power else math.nan
    return LocalFactors(gap, distance, math.sqrt(gap))


_KNOWN = (
    "the laws are of lo.landing(step=<number>), lo.pogo(<number>) and lo.riemannian(retraction, "
    "step=<number>), with the tangent Canonical, Euclidean, NearTangent or BetaMetric"
)


def _linear(method: Any) -> tuple[float, float, int, tuple[float, float]]:
    """(eta, mu, the power of q that drives the distance or 0, (a, b)) of a method."""
    eta, scales = constant_step(method), scales_of(method.field.tangent)
    refuse_part(method, not isinstance(method.estimator, estimators.Full), "estimator")
    normal, move = method.field.normal, method.move
    if isinstance(move, moves.Additive) and isinstance(normal, fields.Penalty):
        lam = method.lam
        if isinstance(method.search.step, steps.Safeguarded) and lam > 0.0:
            eta = min(eta, 0.5 / lam)
        return eta, abs(1.0 - 2.0 * eta * lam), 2, scales
    refuse_part(method, normal is not None, "field")
    if isinstance(move, moves.Pogo):  # a Newton–Schulz pass squares what the tangent step left
        mu = abs(1.0 - 2.0 * move.lam)
        return eta, mu, 2 if mu else 4, scales
    refuse_part(method, not isinstance(move, retractions.RETRACTIONS), "move")
    return eta, 0.0, 0, scales


def constant_step(method: Any) -> float:
    """eta of a method whose steps are one number."""
    if not isinstance(method, Method):
        raise TypeError(f"{_KNOWN}; got {method!r:.80}")
    refuse_part(method, not isinstance(method.direction, Steepest), "direction")
    rule = getattr(method.search, "step", None)
    inner = rule.rule if isinstance(rule, steps.Safeguarded) else rule
    refuse_part(method, not isinstance(inner, steps.Constant), "search")
    return float(inner.step)  # type: ignore[union-attr]


def scales_of(tangent: Any) -> tuple[float, float]:
    """(a, b): on the manifold the tangent term is a X skew(X^H G) + b (I - X X^H) G."""
    if isinstance(tangent, fields.Canonical):
        return 2.0 * tangent.metric_scale, tangent.metric_scale
    if isinstance(tangent, (fields.Euclidean, fields.NearTangent)):
        return tangent.metric_scale, tangent.metric_scale
    if isinstance(tangent, fields.BetaMetric):
        return tangent.metric_scale / tangent.beta, tangent.metric_scale
    raise TypeError(f"{_KNOWN}; got the tangent {tangent!r:.80}")


def refuse_part(method: Any, unfit: bool, part: str) -> None:
    if unfit:
        raise TypeError(f"{_KNOWN}; {method.name} has {part}={getattr(method, part)!r:.120}")


def curvatures(
    problem: Any, scales: tuple[float, float], component: int | None, x0: Array | None
) -> tuple[np.ndarray, bool]:
    """The Hessian's eigenvalues in the metric, and: does Delta move the polar factor?"""
    if not isinstance(problem, (Procrustes, PCA, SampledPCA)):
        raise TypeError(
            "the local factors are known for lo.problems.Procrustes, PCA and SampledPCA, got "
            f"{type(problem).__name__}"
        )
    if len(problem.shape) != 2 or problem.shape[0] < problem.shape[1]:
        raise ValueError(
            f"the local factors are of one matrix (n, p) with n >= p, got the shape {problem.shape}"
        )
    n, p = problem.shape
    turn, tilt = scales
    sign = _component(problem, component, x0)
    if not isinstance(problem, Procrustes):
        identity = _xp.from_host(np.eye(n), problem.like)
        values = np.linalg.eigvalsh(-wide(problem.grad(identity)))[::-1]  # the gradient is -K X
        rates = tilt * np.subtract.outer(values[:p], values[p:]).ravel()
        coupled = False
    else:
        u, s, vh = np.linalg.svd(wide(problem.B) @ wide(problem.A).conj().T, full_matrices=False)
        if sign is not None and np.linalg.det(u @ vh) * sign < 0.0:
            s[-1] *= -1.0
        s *= problem.weight
        pairs = np.triu_indices(p, 0 if np.iscomplexobj(u) else 1)
        rates = turn * np.add.outer(s, s)[pairs]
        if n > p:
            rates = np.concatenate([rates, 2.0 * tilt * s])
        coupled = p > 1
    if not rates.size:
        raise ValueError(f"f is constant on this manifold: {problem!r} has nothing to converge to")
    return rates, coupled


def _component(problem: Any, component: int | None, x0: Array | None) -> int | None:
    """The sign of det x that is meant; None for the global optimum's."""
    if component is None:
        return None if x0 is None else stiefel.component(x0)
    n, p = problem.shape
    if n != p or _xp.is_complex(problem.like):
        raise ValueError(
            f"component = {component!r}: only real square x have components; drop component"
        )
    if component not in (1, -1):
        raise ValueError(f"component must be +1 or -1, got {component!r}")
    return int(component)


class MeasuredFactor(NamedTuple):
    """The factor per step of a geometric tail, and a half-width of its uncertainty."""

    factor: float
    half_width: float


def measured_factor(iterations: Any, values: Any, floor: float) -> MeasuredFactor:
    r"""The factor per step in the geometric tail of a series.

    Of the longest stretch above ``floor`` the first quarter is left out, and log(values) is fitted by a
    line in each third of the rest. The slopes a, b, c approach that of the
    slowest mode, geometrically where one faster mode is left, and are extrapolated (Aitken):

        log factor = c + (c - b) rho / (1 - rho),      rho = (c - b) / (b - a), where 0 < rho < 0.8.

    Parameters
    ----------
    iterations, values : array_like (k,)
        Rising iterations, and what is measured there.
    floor : float
        Where rounding begins to show, about 100 times the rounding itself.

    Returns
    -------
    MeasuredFactor
        (factor, half_width); the half-width is the last change of slope, the extrapolation and twice
        the fit's standard error together. Both nan where fewer than 12 points lie above the floor.

    Raises
    ------
    ValueError
        Series of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> k = np.arange(400)
    >>> factor, half_width = measured_factor(k, 0.9**k + 5.0 * 0.8**k, floor=1e-14)
    >>> round(factor, 4), half_width < 1e-3
    (0.9, True)
    """
    t, v = np.asarray(iterations, dtype=float), np.asarray(values, dtype=float)
    if t.shape != v.shape or t.ndim != 1:
        raise ValueError(
            f"iterations and values must be series of one length, got {t.shape} and {v.shape}"
        )
    above = np.concatenate([[False], (v > floor) & np.isfinite(v), [False]])
    edges = np.flatnonzero(above[1:] != above[:-1]).reshape(-1, 2)
    begin, end = max(edges, key=lambda edge: edge[1] - edge[0], default=(0, 0))
    if end - begin < _SHORTEST:
        return MeasuredFactor(math.nan, math.nan)
    third = (end - begin) // 4
    t, y = t[begin:end], np.log(v[begin:end])
    ends = (end - begin - 2 * third, end - begin - third, end - begin)
    (a, _), (b, _), (c, error) = (_slope(t[k - third : k], y[k - third : k]) for k in ends)
    rho = (c - b) / (b - a) if b != a else 0.0
    tail = (c - b) * rho / (1.0 - rho) if 0.0 < rho < 0.8 else 0.0
    factor = math.exp(c + tail)
    width = abs(c - b) + abs(tail) + 2.0 * error
    return MeasuredFactor(factor, factor * width)


def _slope(t: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares, and the standard error."""
    t, y = t - t.mean(), y - y.mean()
    slope = float(t @ y / (t @ t))
    rest = y - slope * t
    return slope, math.sqrt(float(rest @ rest / (t @ t)) / max(t.size - 2, 1))


def check_local_factors(
    problem: Any,
    method: Any,
    *,
    component: int | None = None,
    factors: LocalFactors | None = None,
    iterations: int | None = None,
    tolerance: float = 0.01,
    rng: Any = 0,
) -> list[Evidence]:
    """Run a method from near the optimum, and compare its rates with :func:`local_factors`.

    Compared are decay rates, -log(factor) per step, because 1 % of a factor of 0.999 says nothing; an
    error in the rate is one in 1 - factor where that is small. f and the gradient are those at polar X;
    the f-gap is computed from polar X - X* (f is quadratic), which has 26 digits where f - f* has 12.

    Parameters
    ----------
    problem, method, component
        As for :func:`local_factors`.
    factors : LocalFactors, optional
        What to hold the run against, in place of the prediction.
    iterations : int, optional
        By default, until the gradient reaches rounding, 50 to 20000.
    tolerance : float
        Relative, of a rate. Up to 5 % where the measurement itself is less certain (its half-width), or
        where modes are as close as that.
    rng : seed or Generator
        For the start: 0.1 from the optimum, on the side from which runs from a random side come to it;
        off the manifold where mu is the slow part.

    Returns
    -------
    list of Evidence
        f-gap, gradient norm, and distance where a tail of it shows above rounding (a retraction's does
        not, nor that of slow POGO, of the order of (eta ||R||)^4).

    Raises
    ------
    TypeError, ValueError
        As :func:`local_factors`, and a ValueError for a step that is too long to converge.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.PCA.random(8, 2, rng=0)
    >>> for line in check_local_factors(problem, lo.landing(step=0.8, lam=0.3)):
    ...     print(line.name.split(",")[0], line.holds)
    rate of the f-gap True
    rate of the gradient norm True
    rate of the distance True
    """
    predicted = local_factors(problem, method, component=component)
    expected = predicted if factors is None else factors
    if not predicted.stable:
        raise ValueError(
            f"{method.name} does not converge here, the factors are {predicted}: take a shorter step, "
            "0 < eta lam < 1"
        )
    if iterations is None:
        nats = -math.log(max(predicted.gap, 1e-8))
        iterations = min(max(math.ceil(65.0 / nats), 50), 20_000)
    near = _Neighbourhood(problem, component)
    eta, mu, _, _ = _linear(method)
    generator = np.random.default_rng(rng)
    # What is slow is made large, so that the tail is long: the normal part alone where it drives f too.
    driven = mu == predicted.gradient
    x0 = near.best if driven else near.slow_side(method, generator, iterations)
    if mu == predicted.distance:
        eps = getattr(method.search.step, "eps", 0.5)
        x0 = near.off(x0, eps * (0.2 if driven else 0.02), generator)
    k, gap, gradient, distance, size = near.run(method, x0, MaxIterations(iterations))
    # A hundred times the rounding of a step, which 1 / (1 - factor) steps pile up.
    unit, p = 100.0 * _xp.unit_roundoff(problem.like), problem.shape[1]
    largest = float(size.max())
    pile = 1.0 / (eta * (1.0 - predicted.gradient))
    series = [
        ("f-gap", gap, expected.gap, unit**2 * p * max(largest, pile)),
        ("gradient norm", gradient, expected.gradient, unit * max(largest, 1.0 / eta)),
    ]
    rounding = unit * math.sqrt(p) / (1.0 - predicted.distance)
    # Five digits: of the first ones D^2 takes its share.
    if np.count_nonzero(distance > rounding) >= _SHORTEST and distance.max() > 1e5 * rounding:
        series.append(("distance", distance, expected.distance, rounding))
    tolerance = max(tolerance, _tie(problem, method, component))
    where = f"{method.name}, {type(method.field.tangent).__name__}, {_short(problem, component)}"
    return [
        _rate_law(f"rate of the {name}, {where}", k, values, factor, floor, tolerance)
        for name, values, factor, floor in series
    ]


def _tie(problem: Any, method: Method, component: int | None) -> float:
    """How much faster modes are that no tail tells from the slowest: up to 5 %."""
    eta, _, _, scales = _linear(method)
    rates, _ = curvatures(problem, scales, component, None)
    fall = -np.log(np.maximum(np.abs(1.0 - eta * rates), 1e-8))
    return float(np.max(fall[fall <= 1.05 * fall.min()]) / fall.min() - 1.0)


class _Neighbourhood:
    """The optimum of a quadratic f, and what runs do near it."""

    def __init__(self, problem: Any, component: int | None):
        self.problem, self.unique = problem, isinstance(problem, Procrustes)
        self.best = wide(problem.optimum(component)[0])
        M = self.best.conj().T @ self._grad(self.best)
        self.phi = 0.5 * (M + M.conj().T)

    def _like(self, x: np.ndarray) -> Array:
        return _xp.from_host(x, self.problem.like)

    def _grad(self, x: np.ndarray) -> np.ndarray:
        return wide(self.problem.grad(self._like(x)))

    def offset(self, x: np.ndarray) -> np.ndarray:
        """From the optimum to x; from the closest one, where its columns may turn (PCA)."""
        return x - (self.best if self.unique else self.best @ stiefel.polar(self.best.conj().T @ x))

    def gap(self, x: np.ndarray) -> float:
        """f(x) - f*, both feasible, without cancellation: (<D, f'' D> - <Phi, D^H D>) / 2."""
        D = self.offset(x)
        curved = wide(self.problem.hessp(self._like(x), self._like(D)))
        phi = self.phi
        if not self.unique:  # of the optimum that D is counted from
            turned = self.best.conj().T @ (x - D)
            phi = turned.conj().T @ phi @ turned
        return 0.5 * float((np.vdot(D, curved) - np.vdot(phi, D.conj().T @ D)).real)

    def run(self, method: Method, x0: np.ndarray, stop: Any) -> np.ndarray:
        """Rows of iteration, gap and gradient norm at polar X, distance, ||G||; as columns."""
        rows: list[tuple[float, ...]] = []

        def look(row: Any) -> None:
            x = stiefel.polar(wide(row.x))
            G = self._grad(x)
            M = x.conj().T @ G
            rest = np.linalg.norm(G - x @ (M + M.conj().T) * 0.5)
            sizes = rest, row.distance, np.linalg.norm(G)
            rows.append((row.iteration, self.gap(x), *map(float, sizes)))

        minimize(self.problem, self._like(x0), method, stop=stop, record=Every(1), callback=look)
        return np.array(rows).T

    def slow_side(self, method: Method, rng: np.random.Generator, iterations: int) -> np.ndarray:
        """0.1 from the optimum, on the side from which runs from a random side come to it."""
        n, p = self.best.shape
        unit = _xp.unit_roundoff(self.problem.like)
        stop = GradientNorm(rtol=max(1e-10, 1e4 * unit)) | MaxIterations(iterations)
        record = Every(max(iterations // 100, 1))
        x0 = self._at(stiefel.random(n, p, rng=rng, dtype=self.best.dtype))
        for _ in range(_RESTARTS):
            result = minimize(self.problem, self._like(x0), method, stop=stop, record=record)
            x0 = self._at(self.offset(wide(result.feasible_x)))
        return x0

    def off(self, x: np.ndarray, distance: float, rng: np.random.Generator) -> np.ndarray:
        """x moved off the manifold, with a generic Delta."""
        p = x.shape[1]
        E = stiefel.random(p, rng=rng, dtype=x.dtype) * np.arange(1, p + 1)
        E = E + E.conj().T
        return x + x @ E * (0.5 * distance / np.linalg.norm(E))

    def _at(self, side: np.ndarray) -> np.ndarray:
        return np.asarray(stiefel.polar(self.best + side * (0.1 / np.linalg.norm(side, 2))))


def _rate_law(
    name: str, k: np.ndarray, values: np.ndarray, factor: float, floor: float, tolerance: float
) -> Evidence:
    """The measured rate -log(factor) against that of ``factor``."""
    found = measured_factor(k, values, floor)
    expected = -math.log(factor) if factor > 0.0 else math.inf
    width = found.half_width / found.factor / (expected or math.nan)
    tolerance = min(max(tolerance, width), 0.05)
    return Evidence.law(
        name, -math.log(found.factor), expected, tolerance, f"+- {100.0 * width:.2g} %"
    )


def _short(problem: Any, component: int | None) -> str:
    """Procrustes 5 x 5, det -1"""
    n, p = problem.shape
    kind = "complex " if _xp.is_complex(problem.like) else ""
    end = "" if component is None else f", det {component:+d}"
    return f"{kind}{type(problem).__name__} {n} x {p}{end}"
