"""Laws of the normal step: Newton–Schulz, the penalty, the flow, POGO's distance."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from landingopt import _xp, fields, methods, moves, steps
from landingopt._minimize import minimize
from landingopt._xp import Array
from landingopt.methods import Method
from landingopt.objectives import Objective
from landingopt.observe.record import Every
from landingopt.observe.stop import MaxIterations
from landingopt.rates.constants import wide
from landingopt.rates.evidence import Evidence
from landingopt.rates.factors import constant_step
from landingopt.rates.noise import uncut
from landingopt.searches import OpenLoop

# -- without a gradient -----------------------------------------------------------------------


def newton_schulz_decay(delta: np.ndarray, lam: float = 0.5) -> np.ndarray:
    r"""Delta = X^H X - I after a normal step X - lam X Delta (POGO's, Newton–Schulz's at lam = 1/2).

        Delta_+ = (1 - 2 lam) Delta + (lam^2 - 2 lam) Delta^2 + lam^2 Delta^3
                = -3/4 Delta^2 + 1/4 Delta^3   at lam = 1/2.

    Parameters
    ----------
    delta : array (..., p, p)
        Hermitian.
    lam : float

    References
    ----------
    [POGO]; [XGA26].

    Examples
    --------
    >>> import numpy as np
    >>> newton_schulz_decay(np.array([[0.2]])).round(6).tolist()
    [[-0.028]]
    """
    square = delta @ delta
    return (1.0 - 2.0 * lam) * delta + (lam * lam - 2.0 * lam) * square + lam * lam * square @ delta


def penalty_decay(singular_values: np.ndarray, eta: float, lam: float) -> np.ndarray:
    """The singular values after a landing step where f is constant, |s (1 - eta lam (s^2 - 1))|.

    A negative bracket flips the singular vector.

    Parameters
    ----------
    singular_values : array
    eta, lam : float

    Examples
    --------
    >>> import numpy as np
    >>> penalty_decay(np.array([1.0, 2.0]), eta=0.1, lam=1.0).round(6).tolist()
    [1.0, 1.4]
    """
    s = np.asarray(singular_values)
    return np.abs(s * (1.0 - eta * lam * (s * s - 1.0)))


def check_newton_schulz(x0: Array, *, lam: float = 0.5, law: float | None = None) -> list[Evidence]:
    """POGO where f is constant, against :func:`newton_schulz_decay` at every step.

    Parameters
    ----------
    x0 : array (n, p), n >= p
        Off the manifold, singular values below sqrt(3).
    lam : float
        The method's.
    law : float, optional
        The lam of the law; the method's.

    Returns
    -------
    list of Evidence
        The largest deviation of Delta; at lam = 1/2 the order of convergence, from the last three
        distances above rounding.

    Examples
    --------
    >>> import landingopt as lo
    >>> [line.holds for line in check_newton_schulz(1.2 * lo.stiefel.random(6, 3, rng=0))]
    [True, True]
    """
    deltas = [_delta(x) for x in _run_flat(x0, methods.pogo(1.0, lam=lam))]
    known = lam if law is None else law
    worst = max(
        float(np.linalg.norm(after - newton_schulz_decay(before, known)))
        for before, after in pairwise(deltas)
    )
    rounding = _rounding(x0)
    where = f"pogo without a gradient, lam={lam:g}"
    note = f"{len(deltas) - 1} steps"
    lines = [Evidence.bound(f"Delta off the cubic, {where}", worst, rounding, note)]
    if lam == 0.5:
        d = [float(np.linalg.norm(delta)) for delta in deltas]
        d = [value for value in d if value > rounding]
        order = math.log(d[-1] / d[-2]) / math.log(d[-2] / d[-3]) if len(d) > 2 else math.nan
        lines.append(Evidence.law(f"order of the distance, {where}", order, 2.0, 0.05, note))
    return lines


def check_penalty(
    x0: Array, *, step: float, lam: float, law: float | None = None
) -> list[Evidence]:
    """The landing where f is constant, against :func:`penalty_decay` at every step.

    Without the safe step, so that x0 may lie far from the manifold.

    Parameters
    ----------
    x0 : array (n, p), n >= p
    step, lam : float
        Of the method.
    law : float, optional
        The lam of the law; the method's.

    Examples
    --------
    >>> import landingopt as lo
    >>> x0 = 1.3 * lo.stiefel.random(6, 3, rng=0)
    >>> [line.holds for line in check_penalty(x0, step=0.1, lam=2.0)]
    [True]
    """
    method = Method(
        search=OpenLoop(steps.Constant(step)),
        field=fields.Field(fields.Canonical(), fields.Penalty(lam)),
        name=f"landing(step={step:g}, lam={lam:g})",
    )
    known = lam if law is None else law
    s = [np.linalg.svd(wide(x), compute_uv=False) for x in _run_flat(x0, method)]
    worst = max(
        float(np.max(np.abs(after - np.sort(penalty_decay(before, step, known))[::-1])))
        for before, after in pairwise(s)
    )
    return [
        Evidence.bound(
            f"singular values off the law, {method.name} without a gradient",
            worst,
            _rounding(x0),
            f"{len(s) - 1} steps",
        )
    ]


def _run_flat(x0: Array, method: Method) -> list[np.ndarray]:
    """The iterates where f is constant."""
    flat = Objective(lambda x: 0.0, lambda x: 0.0 * x, shape=tuple(x0.shape), like=x0)
    iterates = list(_iterates(flat, x0, method, 200)[0])
    if len(iterates) < 2:
        raise ValueError("x0 is on the manifold, where nothing moves it: start off the manifold")
    return iterates


def _iterates(
    problem: Any, x0: Array, method: Method, iterations: int
) -> tuple[list[np.ndarray], Any]:
    """All iterates, and the result."""
    xs: list[np.ndarray] = []
    result = minimize(
        problem,
        x0,
        method,
        stop=MaxIterations(iterations),
        record=Every(1),
        callback=lambda row: xs.append(wide(row.x).copy()),
    )
    return xs, result


def _delta(x: np.ndarray) -> np.ndarray:
    return x.conj().T @ x - np.eye(x.shape[1])


def _rounding(x: Array) -> float:
    """What a few products add to a Gram matrix."""
    return 100.0 * _xp.unit_roundoff(x) * math.sqrt(x.shape[-1])


# -- the flow ---------------------------------------------------------------------------------


def flow_gram(gram0: np.ndarray, lam: float, t: float) -> np.ndarray:
    r"""X^H X along the landing flow X' = -Lambda(X), whatever f is.

    S' = -2 lam S (S - I): the eigenvectors stay and each eigenvalue is logistic,

        sigma(t) = 1 / (1 + (1 / sigma_0 - 1) exp(-2 lam t)).

    Parameters
    ----------
    gram0 : array (p, p)
        X^H X at t = 0, of full rank.
    lam, t : float

    References
    ----------
    [GVAA22].

    Examples
    --------
    >>> import numpy as np
    >>> np.diag(flow_gram(np.diag([0.5, 2.0]), lam=1.0, t=10.0)).round(6).tolist()
    [1.0, 1.0]
    """
    sigma, vectors = np.linalg.eigh(gram0)
    sigma = 1.0 / (1.0 + (1.0 / sigma - 1.0) * math.exp(-2.0 * lam * t))
    return (vectors * sigma) @ vectors.conj().T


def check_flow(
    problem: Any,
    x0: Array,
    *,
    lam: float = 1.0,
    time: float = 1.0,
    iterations: int = 400,
    law: float | None = None,
    tangent: Any = None,
) -> list[Evidence]:
    """The landing with small steps against :func:`flow_gram`: the error halves with the step.

    Parameters
    ----------
    problem : any
        One matrix, n >= p; the law is the same for every f.
    x0 : array (n, p)
        In the tube, d <= 1/2.
    lam, time : float
    iterations : int
        Steps time / iterations, and half of them.
    law : float, optional
        The lam of the law; the method's.
    tangent : tangent of ``lo.fields``, optional
        As in ``lo.landing``.

    Returns
    -------
    list of Evidence
        The ratio of the errors ||X^H X - law|| at time at both steps, to 5 %.

    Raises
    ------
    ValueError
        Where the safe step cut the steps: take more.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(4, rng=0)
    >>> x0 = 1.1 * lo.stiefel.random(4, rng=0)
    >>> [line.holds for line in check_flow(problem, x0, time=0.2)]
    [True]
    """
    known = lam if law is None else law
    expected = flow_gram(_delta(wide(x0)) + np.eye(x0.shape[-1]), known, time)
    errors = []
    for count in (iterations, 2 * iterations):
        eta = time / count
        xs, result = _iterates(problem, x0, methods.landing(eta, lam=lam, tangent=tangent), count)
        uncut(result, eta)
        errors.append(float(np.linalg.norm(xs[-1].conj().T @ xs[-1] - expected)))
    return [
        Evidence.law(
            f"flow's Gram matrix, error at 2 eta over that at eta, lam={lam:g}",
            errors[0] / errors[1],
            2.0,
            0.05,
            f"error {errors[1]:.1e} at eta = {time / iterations / 2.0:g}",
        )
    ]


# -- POGO's distance --------------------------------------------------------------------------


def pogo_bound(distance: Any, xi: Any) -> Any:
    """The distance after a step of POGO, at most 3/4 a^2 + 1/4 a^3 with a = d + xi^2.

    Parameters
    ----------
    distance, xi : float or array
        d and eta ||R||_F before the step.

    References
    ----------
    [POGO].

    Examples
    --------
    >>> round(pogo_bound(0.0, 0.1), 10)
    7.525e-05
    """
    a = distance + xi * xi
    return 0.75 * a * a + 0.25 * a * a * a


def check_pogo_bound(
    problem: Any, x0: Array, method: Any, *, iterations: int = 200
) -> list[Evidence]:
    """POGO's distance against :func:`pogo_bound` at every step.

    Parameters
    ----------
    problem : any
        One matrix, n >= p.
    x0 : array (n, p)
    method : Method
        ``lo.pogo(<number>)``.
    iterations : int

    Returns
    -------
    list of Evidence
        The largest ratio of distance and bound, rounding set aside.

    Raises
    ------
    TypeError
        Another method.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(4, rng=0)
    >>> x0 = lo.stiefel.random(4, rng=0)
    >>> [line.holds for line in check_pogo_bound(problem, x0, lo.pogo(0.02))]
    [True]
    """
    eta = constant_step(method)
    tangent, move = method.field.tangent, method.move
    known = isinstance(move, moves.Pogo) and move.lam == 0.5 and method.field.normal is None
    if not (known and isinstance(tangent, fields.Canonical)):
        raise TypeError(f"the bound is of lo.pogo(<number>), got {method.name}")
    worst, rounding = 0.0, _rounding(x0)
    xs, _ = _iterates(problem, x0, method, iterations)
    for x, after in pairwise(xs):
        G = wide(problem.grad(_xp.from_host(x, x0)))
        R = tangent.metric_scale * (G @ (x.conj().T @ x) - x @ (G.conj().T @ x))
        bound = pogo_bound(np.linalg.norm(_delta(x)), eta * np.linalg.norm(R))
        worst = max(worst, float(np.linalg.norm(_delta(after)) / (bound + rounding)))
    return [
        Evidence.bound(
            f"distance over its bound, {method.name}, {type(problem).__name__}",
            worst,
            1.0,
            f"{len(xs) - 1} steps",
        )
    ]
