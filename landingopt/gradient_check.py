"""Is the gradient the gradient of f, and the Hessian that of the gradient? Taylor's test.

Both are one question: is D the derivative along v of F, where F is f and D = Re <G, v>, or F is
Re <u, grad f> and D = Re <u, H v>? The error |F(x + t v) - F(x) - t D| falls with slope 2 in t
where D is right and with slope 1 where it is wrong, until rounding takes over: the picture. The
central difference (F(x + t v) - F(x - t v)) / 2t = D + O(t^2) has the digits: the verdict. Its t is
chosen by what the differences say about their own accuracy, never by how they agree with D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.linalg import norm

from landingopt import _inputs, _xp
from landingopt._xp import Array
from landingopt.objectives import Variable
from landingopt.oracle import Oracle
from landingopt.space import Space

__all__ = ["DirectionCheck", "GradientCheck", "HessianCheck", "check_gradient", "check_hessian"]

_WINDOW = 7  # steps, three a decade, over which a slope is fitted
_RIGHT_SLOPE = 1.8  # 2 in theory (3 where the second derivative vanishes along v)
_ABOVE_ROUNDING = 20.0  # an error this many times the rounding counts as seen
_SAFETY = 5.0  # on the estimated error of a central difference
_CONCLUSIVE = 1e-2  # a difference less accurate than this, relatively, decides nothing


@dataclass(frozen=True)
class DirectionCheck:
    """What was seen along one direction v.

    ``expected`` is the derivative by central differences, ``claimed`` what the gradient (or hessp)
    says; their difference and the ``uncertainty`` of the first are relative to the typical size of
    a derivative. ``verdict`` is "drowned" where rounding hides it. The rest as in GradientCheck.
    """

    name: str
    expected: float
    claimed: float
    relative_error: float
    uncertainty: float
    slope: float
    window: tuple[float, float] | None
    verdict: Literal["agrees", "disagrees", "drowned"]
    errors: np.ndarray = field(repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"{self.name}: derivative {self.expected:.6g}, claimed {self.claimed:.6g}, relative "
            f"error {self.relative_error:.1e} (+- {self.uncertainty:.0e}), slope {self.slope:.2f}"
        )


@dataclass(frozen=True)
class _Check:
    passed: bool
    message: str
    directions: tuple[DirectionCheck, ...] = ()
    relative_error: float = math.nan
    slope: float = math.nan
    window: tuple[float, float] | None = None
    steps: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    errors: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        head = f"{type(self).__name__}: {'PASS' if self.passed else 'FAIL'}. {self.message}"
        return "\n  ".join([head, *map(str, self.directions)])


@dataclass(frozen=True)
class GradientCheck(_Check):
    """The verdict of :func:`check_gradient`; true where the gradient is right.

    Attributes
    ----------
    passed, message : bool, str
        The verdict, and why; ``str()`` adds a line for each of ``directions``.
    relative_error : float
        Of the worst direction (of those that rounding does not hide): about ||G - grad f|| / ||G||.
    slope, window : float, (float, float) or None
        Of the Taylor error there, over the two decades of t just above rounding: about 2 for a
        right gradient, 1 for a wrong one; nan and None where all is rounding (f is linear).
    steps, errors : numpy.ndarray
        t, and |f(x + t v) - f(x) - t Re <G, v>| of shape (directions, steps): for a plot,
        ``plt.loglog(check.steps, check.errors.T)``.
    """


@dataclass(frozen=True)
class HessianCheck(_Check):
    """The verdict of :func:`check_hessian`: a GradientCheck of Re <u, grad f> for a random u.

    ``asymmetry`` is |<u, H v> - <v, H u>| for two random directions, relative to ||H v||.
    """

    asymmetry: float = math.nan


def check_gradient(
    problem: Any, x: Variable | None = None, *, rng: Any = 0, raise_on_failure: bool = False
) -> GradientCheck:
    r"""Check the Euclidean gradient of a problem against differences of f.

    Along several directions v, the error

    .. math:: e(t) = | f(x + t v) - f(x) - t \, \mathrm{Re} \langle G, v \rangle |

    must fall like t^2 down to rounding, and (f(x + t v) - f(x - t v)) / 2t agree with Re <G, v> to
    1e-6 of the typical derivative along v (3e-4 in single precision), or to the accuracy of the
    difference itself where rounding in f leaves it less. The directions are two random ones (five
    in single precision), one in each block of a product, and G. About 60 evaluations of f for each.
    Where rounding hides the derivative (a large constant in f) the check fails and says so. Near a
    stationary point a wrong factor cannot be seen; kinks of f can do harm in single precision,
    where steps are long enough to cross them. The slopes are those of Manopt's ``checkgradient``.

    Parameters
    ----------
    problem : whatever ``lo.minimize`` takes
        ``value_and_gradient`` must agree with ``fun`` and ``grad`` where there are all three. Of a
        stack's values the sum is checked.
    x : array, or dict or tuple of arrays, optional
        Where; by default a random point with orthonormal columns (free blocks: Gaussian). The check
        is Euclidean: x + t v leaves the manifold, and x need not be on it.
    rng : int, numpy.random.Generator or None
        For the point and the directions. The default is a fixed seed: a check can be repeated.
    raise_on_failure : bool
        Raise a ValueError with the message in place of returning a check that failed.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> A, fun = np.arange(12.0).reshape(4, 3), lambda x: np.sum((x - A) ** 4)
    >>> bool(lo.check_gradient(lo.Objective(fun, lambda x: 4 * (x - A) ** 3, shape=(4, 3))))
    True
    >>> wrong = lo.check_gradient(lo.Objective(fun, lambda x: (x - A) ** 3, shape=(4, 3)))
    >>> bool(wrong), f"{wrong.slope:.1f}"
    (False, '1.0')
    """
    return _judged(GradientCheck, _Near(problem, x, rng), _checked_gradient, raise_on_failure)


def check_hessian(
    problem: Any, x: Variable | None = None, *, rng: Any = 0, raise_on_failure: bool = False
) -> HessianCheck:
    """Check ``hessp``, the Hessian-vector product, against differences of the gradient.

    As :func:`check_gradient`, with Re <u, grad f> for a random u in the place of f and Re <u, H v>
    in that of Re <G, v>; and H must be symmetric in this inner product, Re <u, H v> = Re <v, H u>.
    The gradient is taken as right: check it first.

    Examples
    --------
    >>> import landingopt as lo
    >>> cubic = lo.Objective(grad=lambda x: x**3, hessp=lambda x, v: 3 * x**2 * v, shape=(4, 3))
    >>> bool(lo.check_hessian(cubic))
    True
    """
    return _judged(HessianCheck, _Near(problem, x, rng), _checked_hessian, raise_on_failure)


class _Refused(ValueError):
    """What came back cannot be checked; the message is the verdict."""


class _Near:
    """A problem near x: points, gradients and directions are real float64 vectors on the host.

    The user's functions get fresh arrays each time: one that writes to them harms nobody.
    """

    def __init__(self, problem: Any, x: Variable | None, rng: Any):
        self.problem = problem = _inputs.as_problem(problem, x)
        self.rng = np.random.default_rng(rng)
        start = _inputs.start(problem, x, self.rng)
        self.both = both = problem.value_and_gradient
        self.fun = problem.fun or (both and (lambda x: both(x)[0]))
        self.grad = problem.grad or (both and (lambda x: both(x)[1]))
        self.space = Space(problem.shape, problem.constraint, start)
        self._oracle = Oracle(problem, self.space)
        self._likes = self.space.to_blocks(start)
        sizes = [math.prod(a.shape) * (2 if _xp.is_complex(a) else 1) for a in self._likes]
        self._block = np.repeat(np.arange(len(sizes)), sizes)  # that each entry belongs to
        self.x = _flat(self._likes)
        if x is None:
            free = np.repeat([not block.stiefel for block in self.space.blocks], sizes)
            self.x = np.where(free, self.rng.standard_normal(self.x.size), self.x)
        self.eps = self.space.unit_roundoff
        # A user's gradient is itself rounded, so no better agreement than this is asked for.
        self.rtol = max(1e-6, math.sqrt(self.eps))
        self.steps = np.logspace(-8, 0, 25) if self.eps < 1e-12 else np.logspace(-4, 0, 13)

    def arrays(self, vector: np.ndarray) -> list[np.ndarray]:
        """The blocks as the solver has them, in double precision."""
        parts = [vector[self._block == i] for i in range(len(self._likes))]
        return [
            (part.view(complex) if _xp.is_complex(like) else part).reshape(like.shape)
            for part, like in zip(parts, self._likes, strict=True)
        ]

    def user(self, vector: np.ndarray) -> Variable:
        pairs = zip(self.arrays(vector), self._likes, strict=True)
        return self.space.to_user([_xp.from_host(a, like) for a, like in pairs])

    def vector(self, result: Variable, what: str = "the gradient") -> np.ndarray:
        try:
            return _flat(self._oracle.checked(result))
        except (TypeError, ValueError) as error:
            raise _Refused(str(error).replace("the gradient", what)) from error

    def number(self, value: Any) -> float:
        """The value; of a stack's the sum."""
        self._oracle._check_value(value)
        return float(np.sum(_xp.to_host(value) if hasattr(value, "shape") else value, dtype=float))

    def value(self, point: np.ndarray) -> float:
        return self.number(self.fun(self.user(point)))

    def gradient(self, point: np.ndarray) -> np.ndarray:
        return self.vector(self.grad(self.user(point)))

    def direction(self, mask: np.ndarray | bool = True) -> np.ndarray:
        """Gaussian where the mask is, of unit norm; longer where the entries of x are large."""
        v = np.where(mask, self.rng.standard_normal(self.x.size), 0.0)
        return v * max(1.0, norm(self.x[v != 0]) / math.sqrt(np.count_nonzero(v))) / norm(v)

    def directions(self) -> dict[str, np.ndarray]:
        # One of them can miss a small error by chance; less so where differences are accurate.
        count = 2 if self.eps < 1e-12 else 5
        found = {f"random {i + 1}": self.direction() for i in range(count)}
        for i, name in enumerate(self.space.names or ()):
            found[f"block {name!r}"] = self.direction(self._block == i)
        return found


def _flat(blocks: list[Array]) -> np.ndarray:
    """All entries of the blocks; of complex ones the real and imaginary parts."""
    hosts = [np.ravel(_xp.to_host(a)) for a in blocks]
    return np.concatenate([a.view(a.real.dtype) for a in hosts], dtype=float)


def _judged(kind: Any, near: _Near, check: Callable[[_Near], Any], raise_on_failure: bool) -> Any:
    try:
        result = check(near)
    except _Refused as reason:
        result = kind(False, str(reason))
    if raise_on_failure and not result:
        raise ValueError(str(result))
    return result


def _checked_gradient(near: _Near) -> GradientCheck:
    if near.fun is None:
        raise TypeError("the problem has no fun, so there is nothing to check its gradient against")
    f, G = near.value(near.x), near.gradient(near.x)
    directions, rows = near.directions(), []
    if G.any():
        directions["gradient"] = G / norm(G)
    for name, v in directions.items():
        typical = float(norm(G[v != 0]) * norm(v)) / math.sqrt(np.count_nonzero(v))
        rows.append(_look(near, near.value, name, v, G @ v, typical))
    if near.both is not None:
        value, gradient = near.both(near.user(near.x))
        if not abs(near.number(value) - f) <= near.rtol * abs(f):
            raise _Refused("value_and_gradient returns another value than fun")
        if not norm(near.vector(gradient) - G) <= near.rtol * norm(G):
            raise _Refused("value_and_gradient returns another gradient than grad")
    return _verdict(GradientCheck, near, rows, _hint(near, G, rows, directions.values()))


def _checked_hessian(near: _Near) -> HessianCheck:
    if near.problem.hessp is None:
        raise TypeError("the problem has no hessp to check; lo.autodiff can derive one")
    u, rows, pairs = near.direction(), [], []
    for name, v in near.directions().items():
        Hv = near.vector(near.problem.hessp(near.user(near.x), near.user(v)), "hessp(x, v)")
        typical = float(norm(u) * norm(Hv)) / math.sqrt(u.size)
        rows.append(_look(near, lambda y: u @ near.gradient(y), name, v, u @ Hv, typical))
        pairs.append((v, Hv))
    (v, Hv), (w, Hw) = pairs[:2]
    gap = abs(w @ Hv - v @ Hw) / (max(norm(w) * norm(Hv), norm(v) * norm(Hw)) or 1.0)
    if gap > near.rtol:
        raise _Refused(
            f"hessp is not symmetric: <u, H v> and <v, H u> differ by {gap:.1e} of ||H v||; "
            "in the real inner product Re tr(A^H B) every Hessian is"
        )
    return _verdict(HessianCheck, near, rows, asymmetry=float(gap))


def _look(
    near: _Near, F: Callable[..., float], name: str, v: np.ndarray, claimed: float, typical: float
) -> DirectionCheck:
    """Compare F(x + t v) = F(x) + t D + O(t^2) with differences of F; D is of ``typical`` size.

    The rounding in F is seen in its fourth differences at steps of sqrt(eps), where those of a
    smooth F are far below it; their variance is binomial(8, 4) times that of F (Moré and Wild,
    "Estimating computational noise", SIAM J. Sci. Comput. 2011).
    """
    steps, eps = near.steps, near.eps
    start = F(near.x)
    if not math.isfinite(start) or not math.isfinite(claimed):
        raise _Refused(f"not finite at x: the value is {start}, the claimed derivative {claimed}")
    fourth = np.diff([F(near.x + i * math.sqrt(eps) * v) for i in range(9)], n=4)
    noise = math.sqrt(np.mean(fourth**2) / math.comb(8, 4))
    ahead = np.array([F(near.x + t * v) for t in steps])
    behind = np.array([F(near.x - t * v) for t in steps])
    with np.errstate(invalid="ignore"):  # outside the domain of F
        size = np.maximum(abs(start), np.maximum(abs(ahead), abs(behind)))
        rounding = np.maximum(noise, eps * size)
        errors = abs(ahead - start - steps * claimed)
        central = (ahead - behind) / (2 * steps)
        # Truncation is O(t^2), so most of it shows against the two smaller steps.
        change = np.maximum(abs(central[2:] - central[1:-1]), abs(central[2:] - central[:-2]))
        accuracy = np.nan_to_num(rounding[2:] / steps[2:] + change, nan=math.inf, posinf=math.inf)
    best = int(np.argmin(accuracy))
    expected = central[2 + best]
    slope, window = math.nan, None
    # The lowest window, because further up curvature hides a wrong gradient: |a t + b t^2| has
    # slope 2, too, where t is large.
    seen = sliding_window_view(errors > _ABOVE_ROUNDING * rounding, _WINDOW).all(axis=1)
    if seen.any():
        chosen = int(np.argmax(seen)) + np.arange(_WINDOW)
        slope = np.polyfit(np.log(steps[chosen]), np.log(errors[chosen]), 1)[0]
        window = float(steps[chosen[0]]), float(steps[chosen[-1]])
    scale = max(typical, abs(claimed), abs(expected)) or 1.0
    error, uncertainty = abs(expected - claimed) / scale, accuracy[best] / scale
    verdict: Literal["agrees", "disagrees", "drowned"] = "drowned"
    if error > near.rtol + _SAFETY * uncertainty:
        verdict = "disagrees"
    # Near a stationary point the derivative drowns and the curvature does not: slope 2 down to
    # rounding says that what is left of the derivative is as small as claimed.
    elif _SAFETY * uncertainty <= _CONCLUSIVE or slope >= _RIGHT_SLOPE:
        verdict = "agrees"
    seen_as = float(expected), float(claimed), float(error), float(uncertainty), float(slope)
    return DirectionCheck(name, *seen_as, window, verdict, errors)


def _verdict(
    kind: Any, near: _Near, rows: list[DirectionCheck], hint: str = "", **more: Any
) -> Any:
    wrong = [row for row in rows if row.verdict == "disagrees"]
    seen = wrong or [row for row in rows if row.verdict == "agrees"]
    worst = max(seen or rows, key=lambda row: row.relative_error)
    passed = not wrong
    if wrong:
        names = ", ".join(row.name for row in wrong)
        message = f"Differences disagree along {names}{hint}. {worst}"
    elif seen:
        message = f"Differences agree along {len(seen)} of {len(rows)} directions. {worst}"
        if len(seen) < len(rows):
            message += "; along the others rounding hides the derivative"
        if any(_SAFETY * row.uncertainty > _CONCLUSIVE for row in seen):
            message += "; x is nearly stationary: a wrong factor could not be seen here"
    elif kind is HessianCheck and not any(row.claimed for row in rows):
        message = "The gradient is constant but for rounding, and hessp is zero"
    else:
        passed = False
        message = (
            "Rounding hides the derivative along every direction: is there a large constant in f "
            "that could be dropped, or would double precision help?"
        )
    errors = np.array([row.errors for row in rows])
    error = worst.relative_error if seen else math.nan
    shown = tuple(rows), error, worst.slope, worst.window, near.steps, errors
    return kind(passed, message, *shown, **more)


def _hint(near: _Near, G: np.ndarray, rows: list[DirectionCheck], vs: Iterable[np.ndarray]) -> str:
    """A simple change of G that would agree with all differences, if there is one."""
    row = max(rows, key=lambda row: abs(row.claimed))
    factor = row.expected / (row.claimed or 1.0)
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"{factor:.6g} times it": lambda a: factor * a,
        "its conjugate": np.conj,
        "its transpose": lambda a: np.atleast_2d(a).mT,
    }
    for name, change in changes.items():
        derivatives = [_flat([change(a) for a in near.arrays(G)]) @ v for v in vs]
        if np.allclose(derivatives, [row.expected for row in rows], rtol=1e-4, atol=0.0):
            return f" ({name} would agree)"
    return ""
