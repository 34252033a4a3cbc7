r"""Certificates: a run held against the landing's theorem, with constants that are numbers.

With G = grad f, Delta = X^H X - I, Phi = sym(X^H G), N = ||Delta||_F^2 / 4 and the landing field

    Lambda = R + lam X Delta,    R = skew(G X^H) X,

the merit of [AVGA24] is Fletcher's augmented Lagrangian

    L(X) = f(X) - <Phi, Delta> / 2 + mu N(X),
    grad L = G - X Phi - G Delta / 2 - H[X Delta] / 2 + mu X Delta,    H the Hessian of f.

On the tube St^eps = {||Delta||_F <= eps}, with mu and nu = lam mu of :class:`Constants`,

    <grad L, Lambda> >= ||R||^2 / 2 + nu N.

A step eta <= :meth:`Constants.step` therefore pays: L(X_+) <= L(X) - (eta / 4) ||R||^2 - (eta nu / 2) N,
and what is paid in all is at most L(X_0) - min L: the rates O(1/T) of ||R||^2 and of N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from landingopt import _inputs as inputs
from landingopt import _xp, fields, stiefel
from landingopt._minimize import minimize
from landingopt._xp import Array
from landingopt.directions import Steepest
from landingopt.estimators import Full
from landingopt.gradient_check import check_gradient, check_hessian
from landingopt.methods import Method
from landingopt.moves import Additive
from landingopt.objectives import Stiefel
from landingopt.observe.record import Every
from landingopt.observe.stop import MaxIterations
from landingopt.rates.constants import Constants, number, wide
from landingopt.rates.evidence import Evidence, evidence_table
from landingopt.searches import OpenLoop

__all__ = ["CertificateReport", "Constants", "certify"]

_SLACK = 450.0  # in units of the dtype's roundoff, 1e-13 in double precision: of L, which is a sum


# -- the report -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CertificateReport:
    """What :func:`certify` found; true where nothing that the theorem promises was violated.

    Attributes
    ----------
    lines : tuple of Evidence
        What is promised: the worst over all iterates (and matrices of a stack) beside the bound.

        - "gradient", "Hessian": relative errors of those of f, against differences
        - "distance": d <= eps, but for rounding
        - "identity": Delta_+ = (1 - 2 eta lam) Delta - 2 eta lam Delta^2 + eta^2 Lambda^H Lambda
        - "angle": (||R||^2 / 2 + nu N) / <grad L, Lambda> <= 1
        - "minimum": f* <= L
        - "descent": ((eta / 4) ||R||^2 + (eta nu / 2) N) / (L - L_+) <= 1
        - "sum of ||R||^2": sum eta ||R||^2 <= 4 (L_0 - f*)
        - "sum of N": nu sum eta N <= 2 (L_0 - f*)
    observed : tuple of Evidence
        The last three at steps longer than the theorem's: seen, not promised.
    iterates : int
        How many were looked at; of a stack the matrices are counted, each until it ends.
    constants : Constants
    mu, nu, step : float or array
        Of the theorem; ``step`` is its bound (0: none is known).
    violations : dict
        How often each line of ``lines`` was violated.
    title : str
    """

    lines: tuple[Evidence, ...]
    observed: tuple[Evidence, ...]
    iterates: int
    constants: Constants
    mu: Any
    nu: Any
    step: Any
    violations: dict[str, int]
    title: str

    def __bool__(self) -> bool:
        return not any(self.violations.values())

    def __str__(self) -> str:
        count = sum(self.violations.values())
        found = f"{count} VIOLATIONS" if count > 1 else "A VIOLATION" if count else "no violation"
        text = (
            f"Certificate: {found} at {self.iterates} iterates of {self.title}\n"
            f"mu = {_shown(self.mu)}, nu = {_shown(self.nu)}, longest step promised = "
            f"{_shown(self.step)}\n{evidence_table(self.lines)}"
        )
        if self.observed:
            # Nothing is broken where nothing was promised.
            table = evidence_table(self.observed).replace("BROKEN", "fails")
            text += f"\nAt longer steps, where nothing more is promised:\n{table}"
        return text


def _shown(value: Any) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


# -- one point --------------------------------------------------------------------------------


class _Point(NamedTuple):
    """What is known at an iterate: float64, on the host, tall; one number for each matrix."""

    x: np.ndarray
    delta: np.ndarray
    field: np.ndarray  # Lambda
    merit: Any  # L
    merit_size: Any  # sum of the sizes of its terms
    merit_gradient: np.ndarray
    r2: Any  # ||R||^2
    infeasibility: Any  # N
    slope: Any  # <grad L, Lambda>
    slope_size: Any  # product of the sizes of their terms
    gradient_norm: Any  # ||G||_F


class _Merit:
    """L and its gradient at a user's x.

    G and H[X Delta] have the precision of the problem; all else is double, so that what follows from
    them by algebra holds to its last digits.
    """

    def __init__(self, problem: Any, lam: float, mu: Any):
        self.problem, self.lam, self.mu = problem, lam, mu

    def __call__(self, user: Array) -> _Point:
        problem, lam, mu = self.problem, self.lam, self.mu
        turned = user.shape[-2] < user.shape[-1]

        def tall(a: Array) -> np.ndarray:
            return _xp.H(wide(a)) if turned else wide(a)

        x = tall(user)
        if problem.value_and_gradient is not None:
            value, gradient = problem.value_and_gradient(user)
        else:
            value, gradient = problem.fun(user), problem.grad(user)
        f, g = number(value), tall(gradient)
        if f.shape != x.shape[:-2]:
            raise ValueError(
                f"f has shape {f.shape}, and needs a value for each matrix of the stack, shape "
                f"{x.shape[:-2]}: the theorem does not speak of several matrices in one f"
            )
        gram = _xp.H(x) @ x
        delta = gram - np.eye(x.shape[-1])
        cross = _xp.H(x) @ g
        phi = (cross + _xp.H(cross)) / 2.0
        normal = x @ delta
        v = _xp.from_host(_xp.H(normal) if turned else normal, user)
        hessian = tall(problem.hessp(user, v))
        tangent = (g @ gram - x @ _xp.H(cross)) / 2.0
        field = tangent + lam * normal
        n = _inner(delta, delta) / 4.0
        fletcher = _inner(phi, delta) / 2.0
        each = np.asarray(mu)[..., None, None]
        gradient = g - x @ phi - g @ delta / 2.0 - hessian / 2.0 + each * normal
        sizes = 2.0 * _norm(g) + _norm(hessian) + mu * _norm(normal)
        return _Point(
            x=x,
            delta=delta,
            field=field,
            merit=f - fletcher + mu * n,
            merit_size=abs(f) + abs(fletcher) + mu * n,
            merit_gradient=gradient,
            r2=_inner(tangent, tangent),
            infeasibility=n,
            slope=_inner(gradient, field),
            slope_size=sizes * _norm(field),
            gradient_norm=_norm(g),
        )


def _inner(a: np.ndarray, b: np.ndarray) -> Any:
    """Re <a, b> per matrix."""
    rows = (*a.shape[:-2], -1)
    return np.vecdot(a.reshape(rows), b.reshape(rows)).real


def _norm(a: np.ndarray) -> Any:
    return np.sqrt(_inner(a, a))


# -- the run ----------------------------------------------------------------------------------


class _Worst:
    """The worst of many measured <= bound, and how often it did not hold."""

    def __init__(self) -> None:
        self.measured = self.bound = math.nan
        self.margin = math.inf  # of the worst, relative
        self.broken = self.seen = 0

    def look(self, measured: Any, bound: Any, where: Any = True) -> None:
        measured, bound, where = np.broadcast_arrays(measured, bound, where)
        measured, bound = measured[where], bound[where]
        if not measured.size:
            return
        with np.errstate(all="ignore"):
            size = np.maximum(np.maximum(abs(measured), abs(bound)), 1e-300)
            margin = (bound - measured) / size
        margin = np.where(np.isnan(margin), -math.inf, margin)  # inf or nan was measured
        i = int(np.argmin(margin))
        if margin[i] < self.margin:
            self.margin = float(margin[i])
            self.measured, self.bound = float(measured[i]), float(bound[i])
        self.broken += int(np.count_nonzero(~(measured <= bound)))
        self.seen += measured.size

    def line(self, name: str, note: str) -> Evidence:
        if self.broken and self.seen > 1:
            note = f"{note}; fails at {self.broken} of {self.seen}"
        return Evidence(name, self.measured, self.bound, not self.broken, note=note)


def _share(part: Any, whole: Any) -> Any:
    """part / whole; infinite where a positive part is taken of nothing."""
    part, whole = np.broadcast_arrays(part, whole)
    share = np.where(part > 0.0, math.inf, part)
    return np.divide(part, whole, out=share, where=whole > 0.0)


class _Watch:
    """The callback: looks at every iterate, and at the step that led there; keeps one point."""

    def __init__(
        self, merit: _Merit, constants: Constants, eps: float, unit: float, n: int, p: int
    ):
        self.merit, self.constants, self.unit = merit, constants, unit
        self.bound = constants.step(merit.lam)
        # Rounding the entries of X moves d by u sqrt(p), whatever eps is.
        self.tube, self.error = eps + 10.0 * unit * p, 10.0 * unit * math.sqrt(n)
        self.distance, self.identity, self.angle = _Worst(), _Worst(), _Worst()
        self.minimum, self.descent, self.beyond = _Worst(), _Worst(), _Worst()
        self.iterates, self.longest = 0, 0.0
        self.sum_r: Any = 0.0
        self.sum_n: Any = 0.0
        self.rounding: Any = 0.0
        self.first: _Point | None = None
        self.last: _Point | None = None

    def __call__(self, row: Any) -> None:
        with np.errstate(all="ignore"):  # what is not finite is a violation, not a warning
            point, first, last = self.merit(row.x), self.first, self.last
            running: Any = True
            if first is None or last is None:
                self.first = first = point
                self.rounding = self._slack(first, point)
            else:
                # Matrices of a stack that have ended stay where they are.
                running = np.any(point.x != last.x, axis=(-2, -1))
                self._step(first, last, point, row.step, running)
            self._point(first, point, running)
            self.last = point

    def _slack(self, first: _Point, point: _Point) -> Any:
        """Rounding in L, whose terms may cancel."""
        return _SLACK * self.unit * np.maximum(point.merit_size, first.merit_size)

    def _point(self, first: _Point, point: _Point, running: Any) -> None:
        self.iterates += int(np.count_nonzero(np.broadcast_to(running, np.shape(point.merit))))
        self.distance.look(2.0 * np.sqrt(point.infeasibility), self.tube, running)
        rounding = 10.0 * 2.0**-52 * point.x.shape[-2] * point.slope_size
        promised = point.r2 / 2.0 + self.merit.lam * self.merit.mu * point.infeasibility
        self.angle.look(_share(promised, point.slope + rounding), 1.0, running)
        if self.constants.minimum is not None:
            bound = point.merit + self._slack(first, point)
            self.minimum.look(self.constants.minimum, bound, running)

    def _step(self, first: _Point, old: _Point, new: _Point, eta: Any, running: Any) -> None:
        lam, nu = self.merit.lam, self.merit.lam * self.merit.mu
        eta = np.where(running, eta, 0.0)
        each = eta[..., None, None]
        expected = (
            (1.0 - 2.0 * each * lam) * old.delta
            - 2.0 * each * lam * (old.delta @ old.delta)
            + each**2 * (_xp.H(old.field) @ old.field)
        )
        # What is rounded on the way: X, and the terms of eta Lambda.
        d = 2.0 * np.sqrt(old.infeasibility)
        terms = _norm(old.x) + 2.0 * eta * (old.gradient_norm + lam * d)
        self.identity.look(_norm(new.delta - expected) / terms, self.error, running)
        paid = eta / 4.0 * old.r2 + eta * nu / 2.0 * old.infeasibility
        slack = self._slack(first, old)
        share = _share(paid, old.merit - new.merit + slack)
        short = eta <= self.bound * (1.0 + 10.0 * self.unit)
        self.descent.look(share, 1.0, running & short)
        self.beyond.look(share, 1.0, running & ~short)
        times = np.max(eta / np.asarray(self.bound), where=running & ~short, initial=self.longest)
        self.longest = float(times)
        self.sum_r = self.sum_r + eta * old.r2
        self.sum_n = self.sum_n + nu * eta * old.infeasibility
        self.rounding = self.rounding + np.where(running, slack, 0.0)

    def sums(self) -> tuple[_Worst, _Worst]:
        """The theorem's sums. They grow with T: what holds at the last T holds at every one."""
        r, n = _Worst(), _Worst()
        if self.first is not None and self.constants.minimum is not None:
            # L decreases along the landing flow X' = -Lambda, which stays in the tube and in the
            # component of its start and ends on the manifold, where L = f: so f* = min L on St^eps.
            room = self.first.merit - self.constants.minimum + self.rounding
            r.look(self.sum_r, 4.0 * room)
            n.look(self.sum_n, 2.0 * room)
        return r, n


def certify(
    problem: Any,
    method: Any,
    x0: Any = None,
    *,
    constants: Constants | None = None,
    iterations: int = 1000,
    rng: np.random.Generator | int | None = None,
) -> CertificateReport:
    r"""Run the landing of the papers and hold every iterate against its theorem.

    At every iterate, in the tube St^eps of the method: the distance, the angle
    <grad L, Lambda> >= ||R||^2 / 2 + nu N, and L >= f*; of every step the exact identity for Delta_+; of
    steps up to the theorem's bound also the descent L(X_+) <= L - (eta / 4) ||R||^2 - (eta nu / 2) N; of
    the run sum eta ||R||^2 <= 4 (L_0 - f*) and nu sum eta N <= 2 (L_0 - f*). The theorem's bound is
    cautious. At longer steps, descent and sums are shown as observed, and not judged. Before the run,
    the gradient and the Hessian of f are held against differences.

    Parameters
    ----------
    problem : problem with ``fun``, ``grad`` and ``hessp`` of one array, or a stack with a value each
    method : Method
        ``lo.landing(step=..., lam=...)`` with lam > 0: full gradients, the canonical tangent.
    x0 : array, optional
        The start, in the tube; random on the manifold without one.
    constants : Constants, optional
        ``Constants.of(problem, eps, component of x0)`` by default.
    iterations : int
        At most; a run that reaches rounding ends earlier.
    rng : numpy Generator or int, optional
        For the start.

    Returns
    -------
    CertificateReport

    Raises
    ------
    TypeError, ValueError
        Another method, a problem without ``hessp`` or of several blocks, unknown constants, constants of
        a smaller tube than the method's, a start outside the tube.

    Notes
    -----
    Cost of an iterate beyond the step: f, G, one Hessian product and a few products n p^2. One iterate
    is kept at a time. Everything but f, G and H is computed on the host in double precision.

    References
    ----------
    [AVGA24], the merit function, the theorem on gradient descent, the lemma on the safe step.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.rates.certificates import certify
    >>> problem = lo.problems.Procrustes.random(5, rng=0)
    >>> report = certify(problem, lo.landing(step=0.01, lam=1.0), iterations=200, rng=0)
    >>> bool(report), report.violations["angle"], [line.name for line in report.observed]
    (True, 0, ['descent', 'sum of ||R||^2', 'sum of N'])
    """
    problem = inputs.as_problem(problem, x0)
    _check_problem(problem)
    lam, eps = _check_method(method)
    start = inputs.start(problem, x0, np.random.default_rng(rng))
    if constants is None:
        constants = Constants.of(problem, eps, stiefel.component(start))
    elif not isinstance(constants, Constants):
        raise TypeError(f"constants must be lo.rates.Constants(...), got {constants!r}")
    elif eps > constants.eps:
        raise ValueError(
            f"the constants hold on the tube of eps = {constants.eps:g}, and the method's is larger: "
            f"{eps:g}; pass lo.landing(..., eps={constants.eps:g}), or constants of the larger tube"
        )
    mu = constants.mu(lam)
    merit = _Merit(problem, lam, mu)
    merit(_xp.readonly(_xp.copy(start)))  # refuses what it cannot read before the run
    n, p = max(start.shape[-2:]), min(start.shape[-2:])
    watch = _Watch(merit, constants, eps, _xp.unit_roundoff(start), n, p)
    found = _check_oracle(problem, start)
    minimize(
        problem, start, method, stop=MaxIterations(iterations), record=Every(1), callback=watch,
        on_failure="return",
    )  # fmt: skip
    found += _judged(watch)
    title = f"{method.name} on {problem!r}"
    promised = [(line, above) for line, above, sure in found if sure]
    return CertificateReport(
        lines=tuple(line for line, _ in promised),
        observed=tuple(line for line, _, sure in found if not sure),
        iterates=watch.iterates,
        constants=constants,
        mu=mu,
        nu=lam * mu,
        step=watch.bound,
        violations={line.name: above for line, above in promised},
        title=title,
    )


_Found = list[tuple[Evidence, int, bool]]  # a line, how often it was violated, is it promised?


def _check_oracle(problem: Any, start: Array) -> _Found:
    """Are G and H the derivatives of f? At a random point: the start may be stationary."""
    n, p = start.shape[-2:]
    x = stiefel.random(n, p, stack=tuple(start.shape[:-2]), rng=0, like=start)
    found: _Found = []
    for name, check in (
        ("gradient", check_gradient(problem, x)),
        ("Hessian", check_hessian(problem, x)),
    ):
        # As the check itself judges: to the accuracy of the differences.
        worst = max(check.directions, key=lambda d: d.relative_error, default=None)
        limit = max(1e-6, math.sqrt(_xp.unit_roundoff(start)))
        limit += 5.0 * worst.uncertainty if worst is not None else 0.0
        note = "relative error" if check else check.message.partition(". ")[0]
        line = Evidence(name, check.relative_error, limit, bool(check), note=note)
        found.append((line, int(not check), True))
    return found


def _judged(watch: _Watch) -> _Found:
    beyond, longest = bool(watch.beyond.seen), watch.longest
    far = (
        f"steps up to {longest:.3g} times the theorem's" if longest < math.inf else "no step known"
    )
    sum_r, sum_n = watch.sums()
    rows = (
        ("distance", watch.distance, "d <= eps", True),
        ("identity", watch.identity, "of Delta_+, relative error", True),
        ("angle", watch.angle, "(||R||^2/2 + nu N) / <grad L, Lambda>", True),
        ("minimum", watch.minimum, "f* <= L", True),
        ("descent", watch.descent, "of L, promised / actual", True),
        ("descent", watch.beyond, far, False),
        ("sum of ||R||^2", sum_r, "sum eta ||R||^2 <= 4 (L_0 - f*)", not beyond),
        ("sum of N", sum_n, "nu sum eta N <= 2 (L_0 - f*)", not beyond),
    )
    return [(w.line(name, note), w.broken, sure) for name, w, note, sure in rows if w.seen]


def _check_problem(problem: Any) -> None:
    shape = problem.shape
    array = not hasattr(shape, "keys") and not isinstance(shape[0], tuple)
    if not (array and isinstance(problem.constraint, Stiefel)):
        raise TypeError(
            "certify needs one array with orthonormal columns, or a stack: the theorem does not speak "
            f"of the blocks {shape!r}"
        )
    if hasattr(problem, "grad_batch") or (problem.fun or problem.value_and_gradient) is None:
        raise TypeError("certify reads f, and this problem has no fun; pass fun= to lo.Objective")
    if problem.hessp is None:
        raise TypeError(
            "certify forms grad L, which holds the Hessian of f, and this problem has no hessp; pass "
            "hessp= to lo.Objective (lo.autodiff derives one)"
        )


def _check_method(method: Any) -> tuple[float, float]:
    """lam and eps of a landing of the papers, or the error that it is none."""
    needed = "certify needs the landing of the papers, lo.landing(step=..., lam=...) with lam > 0"
    if not isinstance(method, Method):
        raise TypeError(f"{needed}; got {method!r:.60}")
    tangent, normal = (getattr(method.field, name, None) for name in ("tangent", "normal"))
    lam = getattr(normal, "lam", None)
    eps = getattr(getattr(method.search, "step", None), "eps", None)
    for wrong, why in (
        (not isinstance(method.search, OpenLoop), "it searches along the field"),
        (method.direction != Steepest(), f"its direction is {method.direction!r}"),
        (method.move != Additive(), f"its move is {method.move!r}"),
        (method.estimator != Full(), f"it follows {method.estimator!r}, not the gradient of f"),
        (tangent != fields.Canonical(), f"its tangent is {tangent!r}"),
        (not isinstance(normal, fields.Penalty), "it has no Penalty(lam) term"),
        (lam is None, "its lam is chosen in the run"),
        (not lam, "lam = 0 attracts nothing to the manifold"),
        (eps is None, "its steps are not Safeguarded, and it has no tube of eps"),
    ):
        if wrong:
            raise ValueError(f"{needed}; in {method.name} {why}")
    return float(lam), float(eps)  # type: ignore[arg-type] # both are checked above
