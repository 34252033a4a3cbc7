"""Is the gradient the gradient of f, and the Hessian that of the gradient? Taylor's test.

With v a random direction, f(x + t v) = f(x) + t Re <G, v> + O(t^2), and the central difference
(f(x + t v) - f(x - t v)) / 2t = Re <G, v> + O(t^2). The first says it in a picture: the error
falls with slope 2 in t where G is right and with slope 1 where it is wrong, until rounding takes
over. The second says it in digits. The step is chosen by what the differences say about their own
accuracy, never by how well they agree with G: a wrong gradient could be met by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Shapes, Variable

__all__ = ["DirectionCheck", "GradientCheck", "HessianCheck", "check_gradient", "check_hessian"]

Blocks = list[Any]  # the arrays of a variable, or of what is differentiated: [f] or the gradient's

_STEPS_PER_DECADE = 3
_WINDOW_DECADES = 2
_RIGHT_SLOPE = 1.8  # 2 in theory (3 where the second derivative vanishes along v)
_ABOVE_ROUNDING = 20.0  # an error this many times the rounding counts as seen
_SAFETY = 5.0  # on the estimated error of a central difference
_CONCLUSIVE = 1e-2  # a difference less accurate than this, relatively, decides nothing
_NOISE_POINTS = 9


@dataclass(frozen=True)
class DirectionCheck:
    """What was seen along one direction v.

    ``expected`` is the derivative by central differences and ``claimed`` what the gradient (or
    Hessian) says of it, Re <G, v> (or ||H v||); ``relative_error`` their difference, relative to
    the typical size of a derivative along v; ``uncertainty`` how well the difference is known, on
    the same scale. ``slope`` is that of the Taylor error over ``window`` (nan and None where it
    stays at rounding level). ``verdict`` is "drowned" where rounding hides the derivative.
    """

    name: str
    expected: float
    claimed: float
    relative_error: float
    uncertainty: float
    slope: float
    window: tuple[float, float] | None
    verdict: Literal["agrees", "disagrees", "drowned"]


@dataclass(frozen=True)
class _Check:
    """What both checks report; their docstrings explain the fields."""

    passed: bool
    message: str
    directions: tuple[DirectionCheck, ...] = ()
    steps: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    errors: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def relative_error(self) -> float:
        """The largest over the directions in which the derivative can be seen; nan if in none."""
        seen = [d.relative_error for d in self.directions if d.verdict != "drowned"]
        return max(seen, default=math.nan)

    @property
    def slope(self) -> float:
        """The smallest over the directions; nan where the error stays at rounding level."""
        return self._flattest.slope if self._flattest else math.nan

    @property
    def window(self) -> tuple[float, float] | None:
        """The steps (t_low, t_high) over which ``slope`` was fitted."""
        return self._flattest.window if self._flattest else None

    @property
    def _flattest(self) -> DirectionCheck | None:
        sloped = [d for d in self.directions if d.window is not None]
        return min(sloped, key=lambda d: d.slope, default=None)

    def __str__(self) -> str:
        lines = [f"{type(self).__name__}: {'PASS' if self.passed else 'FAIL'}. {self.message}"]
        if self.directions:
            width = max(9, *(len(d.name) for d in self.directions))
            lines.append(
                f"  {'direction':{width}}  {'expected':>12}  {'claimed':>12}  "
                f"{'rel. error':>10}  {'+- about':>8}  {'slope':>5}  verdict"
            )
            lines += [
                f"  {d.name:{width}}  {d.expected:12.5g}  {d.claimed:12.5g}  "
                f"{d.relative_error:10.1e}  {d.uncertainty:8.0e}  {d.slope:5.2f}  {d.verdict}"
                for d in self.directions
            ]
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the Taylor errors over the steps, with a line of slope 2; return the axes.

        Raises ImportError where matplotlib is missing.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure().add_subplot()
        for direction, errors in zip(self.directions, self.errors, strict=True):
            shown = np.where(
                errors > 0, errors, np.nan
            )  # a zero has no place on a logarithmic axis
            ax.loglog(self.steps, shown, marker=".", label=direction.name)
        positive = self.errors[np.isfinite(self.errors) & (self.errors > 0)]
        if positive.size:
            top = self.steps[-1]
            guide = np.median(self.errors[:, -1]) * (self.steps / top) ** 2
            ax.loglog(self.steps, guide, "k--", linewidth=1, label="slope 2")
            ax.set_ylim(bottom=0.5 * positive.min())
        ax.set(xlabel="t", ylabel="error of the first-order Taylor expansion")
        ax.legend()
        return ax


@dataclass(frozen=True)
class GradientCheck(_Check):
    """The verdict of :func:`check_gradient`; true where the gradient is right.

    Attributes
    ----------
    passed, message : bool, str
        The verdict, and why; ``str()`` adds a table of the directions.
    relative_error : float
        Of the worst direction: an estimate of ||G - grad f|| / ||G||.
    slope, window : float, (float, float) or None
        Of the Taylor error, over two decades or more just above rounding, in the flattest
        direction. About 2 for a right gradient, 1 for a wrong one, nan where f is linear.
    steps, errors : numpy.ndarray
        t, and |f(x + t v) - f(x) - t Re <G, v>| of shape (directions, steps).
    directions : tuple of DirectionCheck
    """


@dataclass(frozen=True)
class HessianCheck(_Check):
    """The verdict of :func:`check_hessian`; true where the Hessian is right.

    The fields are those of :class:`GradientCheck`, with grad f in the place of f: ``errors`` holds
    ||grad f(x + t v) - grad f(x) - t H v||. Beside them:

    Attributes
    ----------
    asymmetry : float
        |<u, H v> - <v, H u>| for two random unit vectors, relative to the larger of ||H u|| and
        ||H v||.
    """

    asymmetry: float = math.nan


def check_gradient(
    problem: Any,
    x: Variable | None = None,
    *,
    rng: Any = 0,
    raise_on_failure: bool = False,
) -> GradientCheck:
    r"""Check the Euclidean gradient of a problem against differences of f.

    Along several directions v, the error

    .. math:: e(t) = | f(x + t v) - f(x) - t \, \mathrm{Re} \langle G, v \rangle |

    must fall like t^2 down to rounding, and (f(x + t v) - f(x - t v)) / 2t agree with Re <G, v> to
    1e-6 of the typical derivative along v (3e-4 in single precision), or to the accuracy of the
    difference itself where rounding in f leaves it less. The directions are two random ones over
    all blocks (five in single precision), the gradient's own, and for a product a random one in
    each block.

    Parameters
    ----------
    problem : Objective or any object with its attributes
        Values come from ``fun``, or else ``value_and_gradient``; gradients from ``grad``, or else
        ``value_and_gradient``; if there are both, they must agree. A finite sum is checked over all
        its terms. Of a stack's values the sum is checked.
    x : array, or dict or tuple of arrays, optional
        Where; by default a random point with orthonormal columns (free blocks: Gaussian). The check
        is Euclidean: x + t v leaves the manifold, and x need not be on it. At a stationary
        point a wrong factor cannot be seen.
    rng : int, numpy.random.Generator or None
        For the point and the directions. The default is a fixed seed: a check can be repeated.
    raise_on_failure : bool
        Raise a ValueError with the message in place of returning a check that failed.

    Returns
    -------
    GradientCheck
        Use it as a bool, or print it.

    Raises
    ------
    TypeError, ValueError
        If f or its gradient cannot be evaluated, or there is neither x nor a shape to draw it.

    Notes
    -----
    About 60 evaluations of f for each direction. The rounding in f is estimated from its
    fourth differences (Moré and Wild, "Estimating computational noise", SIAM J. Sci. Comput. 2011).
    Where it hides the derivative (a large constant in f) the check fails and says so. A function
    with kinks (a sum of absolute values) can be checked in double precision only, where steps are
    short enough to cross none. The idea of the slopes is that of Manopt's ``checkgradient``.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> A = np.arange(12.0).reshape(4, 3)
    >>> def fun(x):
    ...     return np.sum(np.log(np.cosh(x - A)))
    >>> bool(lo.check_gradient(lo.Objective(fun, lambda x: np.tanh(x - A), shape=(4, 3))))
    True
    >>> wrong = lo.check_gradient(lo.Objective(fun, lambda x: 2 * np.tanh(x - A), shape=(4, 3)))
    >>> bool(wrong), f"{wrong.slope:.1f}"
    (False, '1.0')
    """
    value, gradient, both = _evaluations(problem)
    if value is None:
        raise TypeError(
            "the problem has no fun (and no value_and_gradient), so there is nothing to check its "
            "gradient against: pass lo.Objective(fun, grad, ...) with f itself, if only for this."
        )
    if gradient is None:
        raise TypeError(
            "the problem has no gradient to check: neither grad nor value_and_gradient."
        )
    generator = np.random.default_rng(rng)
    x = _default_point(problem, generator) if x is None else x
    point = _Point(x)
    check = _gradient_check(point, value, gradient, both, generator)
    if raise_on_failure and not check:
        raise ValueError(str(check))
    return check


def check_hessian(
    problem: Any,
    x: Variable | None = None,
    *,
    rng: Any = 0,
    raise_on_failure: bool = False,
) -> HessianCheck:
    r"""Check ``hessp``, the Hessian-vector product, against differences of the gradient.

    Along random directions v, the error

    .. math:: e(t) = \| \nabla f(x + t v) - \nabla f(x) - t \, H v \|

    must fall like t^2 and the central difference agree with H v, as in :func:`check_gradient`; and
    H must be symmetric, <u, H v> = <v, H u> (for complex x in the real inner product). The gradient
    is taken as right: check it first.

    Parameters
    ----------
    problem, x, rng, raise_on_failure
        As for :func:`check_gradient`; the problem needs a gradient and ``hessp``.

    Returns
    -------
    HessianCheck
        Use it as a bool, or print it.

    Raises
    ------
    TypeError, ValueError
        If the gradient or ``hessp`` is missing, or there is neither x nor a shape to draw it.

    Notes
    -----
    About 60 gradients for each direction: two random ones (five in single precision), and for a
    product one in each block.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> problem = lo.Objective(
    ...     grad=lambda x: x**3, hessp=lambda x, v: 3 * x**2 * v, shape=(4, 3)
    ... )
    >>> bool(lo.check_hessian(problem))
    True
    """
    _, gradient, _ = _evaluations(problem)
    hessp = getattr(problem, "hessp", None)
    if hessp is None:
        raise TypeError(
            "the problem has no hessp to check: pass lo.Objective(..., hessp=lambda x, v: ...), or "
            "let a library derive it (lo.autodiff)."
        )
    if gradient is None:
        raise TypeError(
            "the problem has no gradient, so there is nothing to check its Hessian against."
        )
    generator = np.random.default_rng(rng)
    x = _default_point(problem, generator) if x is None else x
    check = _hessian_check(_Point(x), gradient, hessp, generator)
    if raise_on_failure and not check:
        raise ValueError(str(check))
    return check


# -- what is checked ------------------------------------------------------------------------------


def _evaluations(problem: Any) -> tuple[Callable | None, Callable | None, Callable | None]:
    """f, its gradient, and both at once, of x alone; None for what the problem does not have."""
    fun, grad, both = (
        getattr(problem, name, None) for name in ("fun", "grad", "value_and_gradient")
    )
    n_terms = getattr(problem, "n_terms", None)
    if n_terms is not None:  # a finite sum: fun(x, terms) is the mean over the terms
        terms = slice(0, n_terms)
        fun, grad, both = (_over(f, terms) for f in (fun, grad, both))
    if both is not None:
        fun = fun or (lambda x: both(x)[0])
        grad = grad or (lambda x: both(x)[1])
    return fun, grad, both


def _over(function: Callable | None, terms: slice) -> Callable | None:
    return None if function is None else lambda x: function(x, terms)


def _default_point(problem: Any, rng: np.random.Generator) -> Variable:
    shape = getattr(problem, "shape", None)
    if shape is None:
        raise ValueError("the problem has no shape to draw a point of; pass x.")
    like = getattr(problem, "like", None)
    like = np.empty(0) if like is None else like
    return _map_shapes(lambda size: _xp.from_host(_random_block(size, like, rng), like), shape)


def _random_block(shape: tuple[int, ...], like: Array, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal columns (rows where it is wide) by QR of a Gaussian; a vector stays Gaussian."""
    values = _gaussian(shape, _xp.is_complex(like), rng)
    if len(shape) < 2:
        return values
    if shape[-2] < shape[-1]:
        return np.linalg.qr(values.mT)[0].mT
    return np.linalg.qr(values)[0]


def _gaussian(shape: tuple[int, ...], is_complex: bool, rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape)
    return values + 1j * rng.standard_normal(shape) if is_complex else values


def _map_shapes(function: Callable[[tuple[int, ...]], Any], shape: Shapes) -> Variable:
    if isinstance(shape, Mapping):
        return {name: function(block) for name, block in shape.items()}
    if shape and isinstance(shape[0], tuple):
        return tuple(function(block) for block in shape)
    return function(shape)


# -- variables as lists of arrays -----------------------------------------------------------------


class _Point:
    """x as a list of blocks, with the conversions back; what is handed out is always a copy."""

    def __init__(self, x: Variable):
        self.names: list[Any] | None = None
        self._as_tuple = isinstance(x, tuple)
        if isinstance(x, Mapping):
            self.names = list(x)
        elif isinstance(x, tuple):
            self.names = list(range(len(x)))
        self.blocks = [_copy(block) for block in self._checked(x)]
        self.eps = max(_xp.unit_roundoff(block) for block in self.blocks)
        # A user's gradient is itself rounded, so no better agreement than this is asked for.
        self.rtol = max(1e-6, math.sqrt(self.eps))

    def _checked(self, x: Variable) -> Blocks:
        blocks = [x] if self.names is None else [x[name] for name in self.names]
        for block in blocks:
            _xp.namespace(block)
            _xp.check_floating(block, "x")
        return blocks

    def user(self, blocks: Blocks) -> Variable:
        if self.names is None:
            return blocks[0]
        return tuple(blocks) if self._as_tuple else dict(zip(self.names, blocks, strict=True))

    def moved(self, t: float, v: Blocks) -> Variable:
        """The point x + t v, in fresh arrays: a function that writes to them harms nobody."""
        return self.user([a + t * b for a, b in zip(self.blocks, v, strict=True)])

    def copied(self) -> Variable:
        return self.user([_xp.copy(block) for block in self.blocks])

    def blocks_of(self, result: Variable, what: str) -> Blocks:
        """The blocks of a gradient, copied; ValueError (with a message for the report) if none."""
        if self.names is None:
            found = [result]
        else:
            kind = tuple if self._as_tuple else Mapping
            keys = list(result) if isinstance(result, Mapping) else None
            if not isinstance(result, kind) or len(result) != len(self.names):
                raise ValueError(
                    f"{what} must have the structure of x, got {type(result).__name__}."
                )
            if keys is not None and set(keys) != set(self.names):
                raise ValueError(f"{what} has the blocks {keys}, x has {self.names}.")
            found = [result[name] for name in self.names]
        for block, array, label in zip(self.blocks, found, self.labels(), strict=True):
            shape = getattr(array, "shape", None)
            if shape is None or tuple(shape) != tuple(block.shape):
                got = type(array).__name__ if shape is None else f"shape {tuple(shape)}"
                raise ValueError(
                    f"{what}{label} has {got} where x{label} has shape {tuple(block.shape)}."
                )
            if _xp.is_complex(array) and not _xp.is_complex(block):
                raise ValueError(f"{what}{label} is complex where x{label} is real.")
        return [_copy(array) for array in found]

    def labels(self) -> list[str]:
        return [""] if self.names is None else [f"[{name!r}]" for name in self.names]

    def random_directions(self, rng: np.random.Generator) -> list[tuple[str, Blocks]]:
        """Some over all blocks, and for a product one in each block, with names for the report."""
        # One of them can miss a small error by chance; less so where differences are accurate.
        count = 2 if self.eps < 1e-12 else 5
        found = [(f"random {i + 1}", self.random_direction(rng)) for i in range(count)]
        for i, name in enumerate(self.names or ()):
            found.append((f"block {name!r}", self.random_direction(rng, only=i)))
        return found

    def random_direction(self, rng: np.random.Generator, only: int | None = None) -> Blocks:
        """Gaussian in all blocks or in one, of unit norm; longer where the entries of x are."""
        drawn = [_gaussian(tuple(b.shape), _xp.is_complex(b), rng) for b in self.blocks]
        if only is not None:
            drawn = [values if i == only else 0 * values for i, values in enumerate(drawn)]
        v = [_xp.from_host(a, block) for a, block in zip(drawn, self.blocks, strict=True)]
        chosen = self.blocks if only is None else [self.blocks[only]]
        typical = _norm(chosen) / math.sqrt(sum(_size(block) for block in chosen) or 1)
        return _scaled(max(1.0, typical) / (_norm(v) or 1.0), v)


def _copy(block: Array) -> Array:
    """A copy that is part of no PyTorch graph."""
    return _xp.copy(block.detach() if hasattr(block, "detach") else block)


def _size(block: Array) -> int:
    return math.prod(block.shape)


def _float(a: Array) -> float:
    return float(_xp.to_host(a))


def _scaled(t: float, blocks: Blocks) -> Blocks:
    return [t * a for a in blocks]


def _difference(a: Blocks, b: Blocks) -> Blocks:
    return [u - v for u, v in zip(a, b, strict=True)]


def _norm(blocks: Blocks) -> float:
    """The Frobenius norm over all blocks; each is scaled first, against overflow."""
    norms = []
    for a in blocks:
        if isinstance(a, float):  # f itself
            norms.append(abs(a))
            continue
        xp, size = _xp.namespace(a), abs(a)
        top = _float(xp.max(size)) if _size(a) else 0.0
        if top == 0.0 or not math.isfinite(top):
            norms.append(top)
        else:
            norms.append(top * math.sqrt(_float(xp.sum((size / top) ** 2))))
    return math.hypot(*norms)


def _inner(a: Blocks, b: Blocks) -> float:
    """Re <a, b> over all blocks, each factor scaled first, against overflow."""
    total = 0.0
    for u, v in zip(a, b, strict=True):
        top_u, top_v = _norm([u]), _norm([v])
        if top_u == 0.0 or top_v == 0.0:
            continue
        xp = _xp.namespace(u)
        u, v = u / top_u, v / top_v
        product = xp.real(xp.conj(u) * v) if _xp.is_complex(u) else u * v
        total += top_u * top_v * _float(xp.sum(product))
    return total


# -- Taylor's test --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Taylor:
    """What differences of a function along one direction say of its claimed derivative."""

    errors: np.ndarray  # ||F(t) - F(0) - t D||
    expected: Blocks  # the central difference of the most trusted step
    difference: float  # ||expected - D||
    uncertainty: float  # of the central difference
    slope: float
    window: tuple[float, float] | None


def _steps(eps: float) -> np.ndarray:
    """From about sqrt(eps), where rounding outweighs curvature, up to 1."""
    decades = round(-0.5 * math.log10(eps) + 0.2)
    return np.logspace(-decades, 0, _STEPS_PER_DECADE * decades + 1)


def _noise(along: Callable[[float], Blocks], eps: float) -> float:
    """The rounding error in F: root mean square of its scaled fourth differences.

    At steps of sqrt(eps) the fourth difference of a smooth F is far below rounding, so what is seen
    is rounding alone; its variance is binomial(8, 4) times that of F.
    """
    h = math.sqrt(eps)
    table = [along(i * h) for i in range(_NOISE_POINTS)]
    for _ in range(4):
        table = [_difference(b, a) for a, b in pairwise(table)]
    return math.sqrt(sum(_norm(d) ** 2 for d in table) / len(table) / math.comb(8, 4))


def _taylor(
    along: Callable[[float], Blocks],
    derivative: Blocks,
    steps: np.ndarray,
    noise: float,
    eps: float,
) -> _Taylor:
    """Compare F(t) = F(0) + t D + O(t^2) with differences of F, over all steps."""
    start = along(0.0)
    errors, rounding = np.full(len(steps), math.nan), np.full(len(steps), math.nan)
    best: tuple[float, Blocks] | None = None
    earlier: list[Blocks] = []
    for i, t in enumerate(steps.tolist()):
        ahead, behind = along(t), along(-t)
        sizes = _norm(start), _norm(ahead), _norm(behind)
        if not all(map(math.isfinite, sizes)):
            earlier = []  # outside the domain of f
            continue
        rounding[i] = max(noise, eps * max(sizes))
        errors[i] = _norm(_difference(_difference(ahead, start), _scaled(t, derivative)))
        central = _scaled(0.5 / t, _difference(ahead, behind))
        if len(earlier) == 2:
            # Truncation is O(t^2), so most of it shows against the two smaller steps.
            change = max(_norm(_difference(central, previous)) for previous in earlier)
            uncertainty = float(rounding[i]) / t + change
            if best is None or uncertainty < best[0]:
                best = uncertainty, central
        earlier = [*earlier[-1:], central]
    uncertainty, expected = best or (math.inf, derivative)
    slope, window = _slope(steps, errors, rounding)
    return _Taylor(
        errors=errors,
        expected=expected,
        difference=_norm(_difference(expected, derivative)),
        uncertainty=uncertainty,
        slope=slope,
        window=window,
    )


def _slope(
    steps: np.ndarray, errors: np.ndarray, rounding: np.ndarray
) -> tuple[float, tuple[float, float] | None]:
    """Slope of log e over log t in the lowest window of two decades above rounding.

    The lowest, because further up curvature hides a wrong gradient: |a t + b t^2| has slope 2, too,
    where t is large. The window then grows upwards as long as the slope stays.
    """
    length = _STEPS_PER_DECADE * _WINDOW_DECADES + 1
    with np.errstate(invalid="ignore"):
        seen = errors > _ABOVE_ROUNDING * rounding
    for first in range(len(steps) - length + 1):
        last = first + length
        if seen[first:last].all():
            break
    else:
        return math.nan, None
    x, y = np.log(steps), np.log(np.where(seen, errors, 1.0))
    slope = _fitted(x[first:last], y[first:last])
    while last < len(steps) and seen[last]:
        local = (y[last] - y[last - 1]) / (x[last] - x[last - 1])
        if abs(local - slope) > 0.1:
            break
        last += 1
    slope = _fitted(x[first:last], y[first:last])
    return slope, (float(steps[first]), float(steps[last - 1]))


def _fitted(x: np.ndarray, y: np.ndarray) -> float:
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _judged(
    name: str, taylor: _Taylor, claimed: float, expected: float, typical: float, rtol: float
) -> DirectionCheck:
    """The verdict along one direction; ``typical`` is the size of a derivative to compare with."""
    scale = max(typical, abs(claimed), abs(expected))
    uncertainty = _SAFETY * taylor.uncertainty
    verdict: Literal["agrees", "disagrees", "drowned"]
    if not math.isfinite(uncertainty):
        verdict = "drowned"
    elif taylor.difference > rtol * scale + uncertainty:
        verdict = "disagrees"
    elif uncertainty <= _CONCLUSIVE * scale or scale == 0.0:
        verdict = "agrees"
    else:
        # Near a stationary point the derivative drowns and the curvature does not: slope 2 down to
        # rounding says that what is left of the derivative is as small as claimed.
        verdict = "agrees" if taylor.slope >= _RIGHT_SLOPE else "drowned"
    return DirectionCheck(
        name=name,
        expected=expected,
        claimed=claimed,
        relative_error=taylor.difference / scale if scale else 0.0,
        uncertainty=taylor.uncertainty / scale if scale else 0.0,
        slope=taylor.slope,
        window=taylor.window,
        verdict=verdict,
    )


# -- the two checks -------------------------------------------------------------------------------


def _gradient_check(
    point: _Point,
    value: Callable[[Variable], Any],
    gradient: Callable[[Variable], Variable],
    both: Callable[[Variable], tuple[Any, Variable]] | None,
    rng: np.random.Generator,
) -> GradientCheck:
    start = _total(value(point.copied()))
    if not math.isfinite(start):
        return GradientCheck(False, f"f(x) is {start}; check at another x.")
    try:
        G = point.blocks_of(gradient(point.copied()), "the gradient")
    except ValueError as error:
        return GradientCheck(False, str(error))
    size = _norm(G)
    if not math.isfinite(size):
        return GradientCheck(False, f"the gradient is not finite at x (its norm is {size}).")
    conflict = _conflict(point, both, start, G)
    if conflict:
        return GradientCheck(False, conflict)

    directions = point.random_directions(rng)
    if size:
        directions.append(("gradient", _scaled(1.0 / size, G)))

    def along(v: Blocks) -> Callable[[float], Blocks]:
        return lambda t: [_total(value(point.moved(t, v)))]

    steps, noise = _steps(point.eps), _noise(along(directions[0][1]), point.eps)
    taylors, rows = [], []
    for name, v in directions:
        claimed = _inner(G, v)
        taylor = _taylor(along(v), [claimed], steps, noise, point.eps)
        taylors.append(taylor)
        expected = taylor.expected[0]
        rows.append(_judged(name, taylor, claimed, expected, _typical(G, v), point.rtol))

    verdicts = [row.verdict for row in rows]
    passed = "disagrees" not in verdicts and "agrees" in verdicts
    measured = [(v, row) for (_, v), row in zip(directions, rows, strict=True)]
    message = _praise(rows) if passed else _complaint(rows, _hint(G, measured, point.rtol))
    return GradientCheck(
        passed, message, tuple(rows), steps, np.stack([taylor.errors for taylor in taylors])
    )


def _hessian_check(
    point: _Point,
    gradient: Callable[[Variable], Variable],
    hessp: Callable[[Variable, Variable], Variable],
    rng: np.random.Generator,
) -> HessianCheck:
    directions = point.random_directions(rng)

    def along(v: Blocks) -> Callable[[float], Blocks]:
        return lambda t: point.blocks_of(gradient(point.moved(t, v)), "the gradient")

    try:
        if not math.isfinite(_norm(along(directions[0][1])(0.0))):
            return HessianCheck(False, "the gradient is not finite at x; check at another x.")
        products = [
            point.blocks_of(
                hessp(point.copied(), point.user([_xp.copy(a) for a in v])), "hessp(x, v)"
            )
            for _, v in directions
        ]
    except ValueError as error:
        return HessianCheck(False, str(error))
    if not all(math.isfinite(_norm(product)) for product in products):
        return HessianCheck(False, "hessp(x, v) is not finite.")

    steps, noise = _steps(point.eps), _noise(along(directions[0][1]), point.eps)
    taylors, rows = [], []
    for (name, v), product in zip(directions, products, strict=True):
        taylor = _taylor(along(v), product, steps, noise, point.eps)
        taylors.append(taylor)
        sizes = _norm(product), _norm(taylor.expected)
        rows.append(_judged(name, taylor, *sizes, 0.0, point.rtol))

    u, v = directions[0][1], directions[1][1]
    scale = max(_norm(products[0]) * _norm(v), _norm(products[1]) * _norm(u))
    gap = abs(_inner(u, products[1]) - _inner(v, products[0]))
    asymmetry = gap / scale if scale else 0.0
    errors = np.stack([taylor.errors for taylor in taylors])
    # A Hessian that is zero but for rounding drowns everywhere, rightly: f is linear.
    passed = all(row.verdict != "disagrees" for row in rows)
    message = _praise(rows) if passed else _complaint(rows, "")
    if asymmetry > point.rtol:
        passed = False
        message = (
            f"hessp is not symmetric: <u, H v> and <v, H u> differ by {asymmetry:.1e} of ||H v||. "
            "In the real inner product Re tr(A^H B) every Hessian is."
        )
    return HessianCheck(passed, message, tuple(rows), steps, errors, asymmetry)


def _total(value: Any) -> float:
    """The value as a float; the sum of a stack's."""
    if isinstance(value, (int, float)):
        return float(value)
    if not hasattr(value, "shape"):
        raise TypeError(f"fun must return a number, got {type(value).__name__}")
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if "complex" in str(value.dtype):
        raise TypeError("fun must return a real value, got a complex one; take its real part.")
    # Summed in double precision: the rounding of the sum is not f's.
    return math.fsum(np.ravel(_xp.to_host(value)).astype(float).tolist())


def _typical(G: Blocks, v: Blocks) -> float:
    """||G|| ||v|| / sqrt(N): the size of <G, v> for a random v, in the blocks where v is not 0."""
    chosen = [(g, a) for g, a in zip(G, v, strict=True) if _norm([a])]
    entries = sum(_size(g) * (2 if _xp.is_complex(g) else 1) for g, _ in chosen)
    return _norm([g for g, _ in chosen]) * _norm(v) / math.sqrt(entries or 1)


def _conflict(
    point: _Point,
    both: Callable[[Variable], tuple[Any, Variable]] | None,
    start: float,
    G: Blocks,
) -> str:
    """What is wrong with value_and_gradient, against fun and grad."""
    if both is None:
        return ""
    f, gradient = both(point.copied())
    f = _total(f)
    if not abs(f - start) <= point.rtol * max(abs(f), abs(start)):
        return f"value_and_gradient returns the value {f:.9g} where fun returns {start:.9g}."
    try:
        other = point.blocks_of(gradient, "the gradient of value_and_gradient")
    except ValueError as error:
        return str(error)
    if not _norm(_difference(other, G)) <= point.rtol * max(_norm(other), _norm(G)):
        return "value_and_gradient returns another gradient than grad; only one can be right."
    return ""


def _praise(rows: list[DirectionCheck]) -> str:
    seen = [row for row in rows if row.verdict == "agrees"]
    if not seen:
        return "Everything is zero but for rounding, as claimed."
    text = (
        f"Differences agree along {len(seen)} of {len(rows)} directions, the worst to "
        f"{max(row.relative_error for row in seen):.1e}"
    )
    sloped = [(row.slope, row.window) for row in seen if row.window is not None]
    if sloped:
        slope, (low, high) = min(sloped)
        text += f"; the Taylor error falls with slope {slope:.2f} for t in [{low:.0e}, {high:.0e}]"
    text += "."
    if any(_SAFETY * row.uncertainty > _CONCLUSIVE for row in seen):
        text += (
            " x is nearly a stationary point: a wrong factor could not be seen here, "
            "another x tells more."
        )
    drowned = [row.name for row in rows if row.verdict == "drowned"]
    if drowned:
        text += (
            f" Along {', '.join(drowned)} rounding hides the derivative, and nothing can be said."
        )
    return text


def _complaint(rows: list[DirectionCheck], hint: str) -> str:
    wrong = [row for row in rows if row.verdict == "disagrees"]
    if not wrong:
        return (
            "Rounding hides the derivative along every direction, so nothing can be said: is there "
            "a large constant in f that could be dropped, or would double precision help?"
        )
    row = max(wrong, key=lambda row: row.relative_error)
    text = (
        f"Differences disagree along {', '.join(row.name for row in wrong)}: along {row.name} the "
        f"derivative is {row.expected:.6g}, claimed {row.claimed:.6g} (relative error "
        f"{row.relative_error:.1e}, known to about {row.uncertainty:.0e})."
    )
    return f"{text} {hint}" if hint else text


def _hint(G: Blocks, measured: list[tuple[Blocks, DirectionCheck]], rtol: float) -> str:
    """A simple change of G that would agree with all differences, if there is one."""

    def explains(candidate: Blocks, loosely: float = 10.0) -> bool:
        return all(
            abs(_inner(candidate, v) - row.expected)
            <= (loosely * rtol + _SAFETY * row.uncertainty)
            * max(_typical(candidate, v), abs(row.expected))
            for v, row in measured
        )

    if any(_xp.is_complex(g) for g in G):
        conjugate = [_xp.namespace(g).conj(g) for g in G]
        if explains(conjugate):
            return (
                "Its conjugate would agree: the gradient wanted is that of the real inner product, "
                "df = Re tr(G^H dx)."
            )
    square = all(g.ndim >= 2 and g.shape[-1] == g.shape[-2] for g in G)
    if square and explains([_xp.namespace(g).matrix_transpose(g) for g in G]):
        return "Its transpose would agree."
    row = max((row for _, row in measured), key=lambda row: abs(row.claimed))
    if row.claimed and math.isfinite(row.expected):
        factor = row.expected / row.claimed
        if factor and explains(_scaled(factor, G)):
            return f"{factor:.6g} times it would agree: is a factor missing?"
    wrong_blocks = [r.name for _, r in measured if r.verdict == "disagrees" and "block" in r.name]
    all_blocks = [r.name for _, r in measured if "block" in r.name]
    if wrong_blocks and len(wrong_blocks) < len(all_blocks):
        return f"Only {', '.join(wrong_blocks)} is wrong."
    return ""
