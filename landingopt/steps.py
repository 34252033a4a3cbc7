"""Step rules: how far to go along a field.

A rule is a frozen recipe; ``start(context)`` returns a run with ``size(k, point)``, where k counts
the steps taken before. Numbers are per matrix and live where the data lives. Your own rule is any
class with these two methods (``examples/own_part.py``).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from landingopt import _xp
from landingopt._numpy import NumpyMatrix
from landingopt._parts import check_part
from landingopt._xp import FLOATS, Array
from landingopt.point import Point


class Step(Protocol):
    """A step rule."""

    def start(self, context: Context) -> StepRun: ...


class StepRun(Protocol):
    """A started step rule; ``size`` gives eta > 0, a float or one number for each matrix."""

    def size(self, k: int, point: Point) -> Any: ...


class Numbers(Protocol):
    """Inner products, and the functions of the numbers they give."""

    scalars: Any

    def dots(self, *pairs: tuple[list[Array], list[Array]]) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class Context:
    """What a step rule may know when it starts.

    Attributes
    ----------
    numbers : Numbers
        ``dots((u, v), ...)`` of lists of arrays, and ``scalars`` (sqrt, minimum, where, ...).
    lam : float
        The normal term's weight; 0 without one.
    first_size : float
        sqrt of the number of columns: the length of a step that turns every column by one radian.
    accelerator : bool
        Reading a number back costs a synchronisation.
    epoch : function
        The work so far, in full gradients.
    anchor_pair : function
        Of variance-reduced methods with anchors: (<s, s>, <s, y>, m) of the last two, m steps apart, or
        None.
    """

    numbers: Numbers
    lam: float = 0.0
    first_size: float = 1.0
    accelerator: bool = False
    epoch: Callable[[], float] = float
    anchor_pair: Callable[[], tuple[float, float, int] | None] = lambda: None


def check_step(value: Any, what: str = "step") -> float:
    """A positive finite float, or an error that says what was given."""
    try:
        if isinstance(value, (str, bytes, bool)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{what} must be a positive number or a function of the iteration, got {value!r}"
        ) from None
    if not 0.0 < number < math.inf:
        raise ValueError(f"{what} must be positive and finite, got {number:g}")
    return number


def check_rule(rule: Any, what: str) -> None:
    """A step rule, or an error that says what one is."""
    example = "a step rule such as lo.steps.Constant(0.1) or lo.steps.BarzilaiBorwein()"
    check_part(rule, what, "steps", example)


def as_rule(step: Any) -> Any:
    """A number, a function of the iteration or a step rule, as a step rule."""
    if isinstance(step, type):
        raise TypeError(
            f"step must be a number, a function or an instance of a rule: {step.__name__} is a class"
        )
    if hasattr(step, "start"):
        check_rule(step, "step")
        return step
    return Schedule(step) if callable(step) else Constant(step)


@dataclass(frozen=True)
class Constant:
    """eta_k = step.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.steps.Constant(0.1)
    Constant(step=0.1)
    """

    step: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))

    def start(self, context: Context) -> Constant:
        return self

    def size(self, k: int, point: Point) -> float:
        return self.step


@dataclass(frozen=True)
class Decay:
    """eta_k = step / (1 + k / offset)^power; power 1/2 for SGD's O(log T / sqrt T).

    References
    ----------
    [AVGA24] theorem on SGD.
    """

    step: float
    power: float = 0.5
    offset: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))
        object.__setattr__(self, "offset", check_step(self.offset, "offset"))
        if not 0.0 <= self.power < math.inf:
            raise ValueError(f"power must be at least 0, got {self.power!r}")

    def start(self, context: Context) -> Decay:
        return self

    def size(self, k: int, point: Point) -> float:
        return self.step / (1.0 + k / self.offset) ** self.power


@dataclass(frozen=True)
class Schedule:
    """eta_k = function(k), any function of the iteration k = 0, 1, 2, ...

    Raises
    ------
    ValueError
        During the run, when the function returns what is not a positive number.
    """

    function: Callable[[int], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable, got {self.function!r}")

    def start(self, context: Context) -> Schedule:
        return self

    def size(self, k: Any, point: Point) -> Any:
        if isinstance(k, np.ndarray):  # of each matrix in a stack
            return np.array([self.size(int(each), point) for each in k.flat]).reshape(k.shape)
        return check_step(self.function(k), f"the schedule's value at iteration {k}")


@dataclass(frozen=True)
class Horizon:
    """eta = step / sqrt(T), fixed in advance for a run of T iterations: SGD's O(1/sqrt T).

    References
    ----------
    [AVGA24] theorem on SGD.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.steps.Horizon(0.5, iterations=400).size(0, None)
    0.025
    """

    step: float
    iterations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))
        if not self.iterations >= 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations!r}")

    def start(self, context: Context) -> Horizon:
        return self

    def size(self, k: int, point: Point) -> float:
        return self.step / math.sqrt(self.iterations)


Unit = Literal["epoch", "iteration"]


@dataclass(frozen=True)
class Cosine:
    """From ``step`` to ``final`` along half a cosine, over ``length`` epochs; then ``final``.

    eta = final + (step - final) (1 + cos(pi t / length)) / 2, t what has been done of ``length``.

    Parameters
    ----------
    step, final : float
    length : float
        Epochs, or iterations.
    by : "epoch" or "iteration"
        An epoch is the work of a full gradient, as in the trace.
    warmup : float
        The first part of ``length``, in which eta rises in proportion to t from step / 100.

    Examples
    --------
    >>> import landingopt as lo
    >>> rule = lo.steps.Cosine(0.1, length=100, by="iteration").start(None)
    >>> [round(rule.size(k, None), 3) for k in (0, 50, 100, 150)]
    [0.1, 0.05, 0.0, 0.0]
    """

    step: float
    length: float
    final: float = 0.0
    by: Unit = "epoch"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))
        object.__setattr__(self, "length", check_step(self.length, "length"))
        _check_unit(self.by)
        if not 0.0 <= self.final <= self.step:
            raise ValueError(f"final must lie in [0, step], got {self.final!r}")
        if not 0.0 <= self.warmup < self.length:
            raise ValueError(f"warmup must lie in [0, length), got {self.warmup!r}")

    def start(self, context: Context) -> _TimedRun:
        return _TimedRun(self.value, self.by, context)

    def value(self, t: float) -> float:
        """eta after t epochs (iterations)."""
        if t < self.warmup:
            return self.step * max(0.01, t / self.warmup)
        done = min(1.0, (t - self.warmup) / (self.length - self.warmup))
        return self.final + (self.step - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class StepDecay:
    """``step``, multiplied by ``factor`` at each milestone.

    Parameters
    ----------
    step, factor : float
    at : tuple of numbers
        Rising: epochs, or iterations.
    by : "epoch" or "iteration"
        An epoch is the work of a full gradient, as in the trace.

    Examples
    --------
    >>> import landingopt as lo
    >>> rule = lo.steps.StepDecay(0.1, at=(30, 50)).start(lo.steps.Context(None, epoch=lambda: 40.0))
    >>> round(rule.size(0, None), 12)
    0.01
    """

    step: float
    at: tuple[float, ...]
    factor: float = 0.1
    by: Unit = "epoch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", check_step(self.step))
        object.__setattr__(self, "factor", check_step(self.factor, "factor"))
        object.__setattr__(self, "at", tuple(float(t) for t in self.at))
        _check_unit(self.by)
        if not self.at or any(b <= a for a, b in zip((0.0, *self.at), self.at)):
            raise ValueError(f"at needs rising positive milestones, got {self.at}")

    def start(self, context: Context) -> _TimedRun:
        return _TimedRun(self.value, self.by, context)

    def value(self, t: float) -> float:
        """eta after t epochs (iterations)."""
        return self.step * self.factor ** sum(t >= milestone for milestone in self.at)


def _check_unit(by: Any) -> None:
    if by not in ("epoch", "iteration"):
        raise ValueError(f'by must be "epoch" or "iteration", got {by!r}')


class _TimedRun:
    """A schedule in epochs, or in iterations."""

    __slots__ = ("value", "epoch")

    def __init__(self, value: Callable[[float], float], by: Unit, context: Context):
        self.value = value
        self.epoch = context.epoch if by == "epoch" else None

    def size(self, k: int, point: Point) -> float:
        return self.value(float(k) if self.epoch is None else self.epoch())


@dataclass(frozen=True)
class FromCurvature:
    """eta_k = factor / L_b / (1 + k / offset)^power, with L_b measured at the start.

    L_b is the largest curvature of f over a few minibatches (of f itself with the full gradient), by
    power iterations with differences of gradients, which are counted. Steps are of a field of metric
    scale 1.

    References
    ----------
    Of SVRG's 1/(2 L_b): Johnson, Zhang, NeurIPS 2013.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.steps.FromCurvature(0.5).tuned(100.0)
    Constant(step=0.005)
    """

    factor: float = 0.5
    power: float = 0.0
    offset: float = 50.0

    def __post_init__(self) -> None:
        for name in ("factor", "offset"):
            object.__setattr__(self, name, check_step(getattr(self, name), name))
        if not 0.0 <= self.power < math.inf:
            raise ValueError(f"power must be at least 0, got {self.power!r}")

    def tuned(self, curvature: float) -> Constant | Decay:
        """The rule with numbers."""
        step = check_step(self.factor / check_step(curvature, "curvature"), "factor / L_b")
        return Decay(step, self.power, self.offset) if self.power else Constant(step)

    def start(self, context: Context) -> Any:
        raise TypeError("FromCurvature has no number yet: tuned(curvature) gives the rule that has")


@dataclass(frozen=True)
class AnchorBarzilaiBorwein:
    """Barzilai–Borwein steps for SVRG, min(cap / L_b, factor <s, s> / (m |<s, y>|)).

    s and y are the changes of X and of the gradient between the last two anchors, and m is the number of
    steps between them. Until there are two, cap / L_b. Without the cap it diverges where the anchors
    happen to differ along flat directions.

    Parameters
    ----------
    cap, factor : float
    curvature : float, optional
        L_b; measured at the start, as by :class:`FromCurvature`, by default.

    References
    ----------
    Tan, Ma, Dai, Qian, Barzilai–Borwein step size for stochastic gradient descent, NeurIPS 2016.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(8, 4000, rng=0)
    >>> method = lo.landing_svrg(lo.steps.AnchorBarzilaiBorwein())
    >>> lo.minimize(problem, method=method, tol=1e-4, rng=0).success
    True
    """

    cap: float = 0.5
    factor: float = 2.0
    curvature: float | None = None

    def __post_init__(self) -> None:
        for name in ("cap", "factor"):
            object.__setattr__(self, name, check_step(getattr(self, name), name))
        if self.curvature is not None:
            object.__setattr__(self, "curvature", check_step(self.curvature, "curvature"))

    def tuned(self, curvature: float) -> AnchorBarzilaiBorwein:
        """The rule with L_b, where it has none of its own."""
        return self if self.curvature is not None else replace(self, curvature=curvature)

    def start(self, context: Context) -> _AnchorRun:
        if self.curvature is None:
            raise TypeError("AnchorBarzilaiBorwein has no L_b yet: pass curvature=")
        return _AnchorRun(self.cap / self.curvature, self.factor, context)

    @property
    def step(self) -> float | None:
        """The first one."""
        return None if self.curvature is None else self.cap / self.curvature


class _AnchorRun:
    __slots__ = ("longest", "factor", "_pair", "_known", "_step")

    def __init__(self, longest: float, factor: float, context: Context):
        self.longest, self.factor, self._pair = longest, factor, context.anchor_pair
        self._known: Any = None
        self._step = longest

    def size(self, k: int, point: Point) -> float:
        pair = self._pair()
        if pair is not None and pair is not self._known:
            self._known = pair
            ss, sy, m = pair
            if ss > 0.0 and sy != 0.0 and math.isfinite(ss) and math.isfinite(sy):
                self._step = min(self.longest, self.factor * ss / (m * abs(sy)))
        return self._step


def tuned(rule: Any, curvature: Callable[[], float]) -> Any:
    """The rule with its numbers, measured where it has none; itself where it needs none."""
    if isinstance(rule, Safeguarded):
        inner = tuned(rule.rule, curvature)
        return rule if inner is rule.rule else replace(rule, rule=inner)
    if not hasattr(rule, "tuned") or getattr(rule, "curvature", None) is not None:
        return rule
    return rule.tuned(curvature())


def first_size(rule: Any) -> float | None:
    """The first step of a rule with numbers; None where it does not tell."""
    return first_size(rule.rule) if isinstance(rule, Safeguarded) else getattr(rule, "step", None)


@dataclass(frozen=True)
class BarzilaiBorwein:
    """Barzilai–Borwein steps, alternating first and adaptive later.

    With s, y the changes of x and of the field since the last step, the long step is
    <s, s> / |<s, y>| and the short one |<s, y>| / <y, y>. The first ``alternate`` iterations take them
    in turn (long at even k), which is best where few iterations are enough. From then on the rule is
    ABBmin with an adaptive threshold, which is far better where the Hessian is ill-conditioned (a small
    eigengap): the smallest of the last ``memory`` short steps where short < threshold long, and the
    threshold becomes 0.9 of itself; else the long step, and the threshold becomes 1.1 of itself.

    The first step of all is ``first`` sqrt(p) / ||F||: 0.4 of a radian for every column.

    References
    ----------
    Barzilai, Borwein, Two-point step size gradient methods, IMA J. Numer. Anal. 8, 1988; on the
    Stiefel manifold: Wen, Yin, Math. Program. 142, 2013; ABBmin: Frassoldati, Zanni, Zanghirati,
    J. Ind. Manag. Optim. 4, 2008; the adaptive threshold: Bonettini, Zanella, Zanni, Inverse Problems
    25, 2009.
    """

    first: float = 0.4
    alternate: float = 100
    threshold: float = 0.5
    memory: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", check_step(self.first, "first"))
        if not self.alternate >= 0:
            raise ValueError(f"alternate must be a number of iterations, got {self.alternate!r}")
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold must lie strictly in (0, 1), got {self.threshold!r}")
        if not self.memory >= 1:
            raise ValueError(f"memory must be at least 1, got {self.memory!r}")

    def start(self, context: Context) -> BarzilaiBorweinRun:
        return BarzilaiBorweinRun(self, context)


_SS, _SY, _YY = (0, 0), (0, 1), (1, 1)


class BarzilaiBorweinRun:
    __slots__ = ("recipe", "context", "_heard", "_last", "_work", "_short", "_threshold")

    def __init__(self, recipe: BarzilaiBorwein, context: Context):
        self.recipe, self.context = recipe, context
        self._heard: tuple[Point, list[Any]] | None = None
        self._last: Any = None
        self._work: list[tuple[Array, Array]] | None = None
        self._short: list[Any] = []  # the last short steps
        self._threshold: Any = recipe.threshold

    def size(self, k: Any, point: Point) -> Any:
        """The step after k steps; k is an array where matrices of a stack have taken unequal numbers."""
        numbers, scalars = self.context.numbers, self.context.numbers.scalars
        if point.previous is None:
            self._last = self._first(point)
            return self._last
        if numbers.scalars is FLOATS and k < self.recipe.alternate - self.recipe.memory:
            # One of the two, and one inner product fewer.
            even = k % 2 == 0
            square, sy = self._products(point, point.previous, _SS if even else _YY, _SY)
            above, below = (square, abs(sy)) if even else (abs(sy), square)
            eta = above / below if below else math.inf
            if 0.0 < eta < math.inf:
                self._last = eta
            elif point.step is not None:
                self._last = point.step
            return self._last
        ss, sy, yy = self._products(point, point.previous, _SS, _SY, _YY)
        curvature = abs(sy)
        long, short = scalars.divide(ss, curvature), scalars.divide(curvature, yy)
        known = (short > 0) & (short < math.inf)  # <y, y> may leave the range of float32
        short = scalars.where(known, short, math.inf)
        self._short.append(short)
        if len(self._short) > self.recipe.memory:
            self._short.pop(0)
        eta = scalars.where(k % 2 == 0, long, short)
        late = k >= self.recipe.alternate
        if late is not False and scalars.any(late):
            eta = scalars.where(late, self._adaptive(long, short, late & known), eta)
        usable = (eta > 0) & (eta < math.inf)
        if usable is not True:
            last = self._last if point.step is None else point.step
            eta = scalars.where(usable, eta, last)
        self._last = eta
        return eta

    def _first(self, point: Point) -> Any:
        numbers, scalars = self.context.numbers, self.context.numbers.scalars
        fields = [form.array() for form in point.along or point.forms]
        (square,) = numbers.dots((fields, fields))
        norm = scalars.sqrt(square)
        step = scalars.divide(self.recipe.first * self.context.first_size, norm)
        return scalars.where(norm > 0, step, scalars.full(1.0))

    def _products(self, point: Point, previous: Point, *pairs: tuple[int, int]) -> Any:
        """Inner products of the changes: 0 is s, 1 is y."""
        if self._heard is not None and self._heard[0] is point:
            return [self._heard[1][a + b] for a, b in pairs]
        forms, old = point.along or point.forms, previous.along or previous.forms
        block, kernels = forms[0].block, forms[0].block.kernels
        if len(forms) == 1 and block.stiefel and isinstance(kernels, NumpyMatrix):
            dot, f, before = kernels.dot, forms[0].array(), old[0].array()
            pieces = [
                [dot(changes[a], changes[b]) for a, b in pairs]
                for changes in kernels.changes(point.x[0], previous.x[0], f, before)
            ]
            return pieces[0] if len(pieces) == 1 else map(sum, zip(*pieces))
        changes = self._changes(point, previous)
        return self.context.numbers.dots(*((changes[a], changes[b]) for a, b in pairs))

    def _changes(self, point: Point, previous: Point) -> tuple[list[Array], list[Array]]:
        """s and y."""
        forms, old = point.along or point.forms, previous.along or previous.forms
        if self._work is None:
            blocks = [form.block for form in forms]
            self._work = [
                (b.kernels.empty(b.inner_shape), b.kernels.empty(b.inner_shape)) for b in blocks
            ]
        s, y = [], []
        for i, form in enumerate(forms):
            subtract, (s_work, y_work) = form.block.kernels.subtract, self._work[i]
            s.append(subtract(point.x[i], previous.x[i], out=s_work))
            y.append(subtract(form.array(), old[i].array(), out=y_work))
        return s, y

    def ahead(self, space: Any, point: Point, previous: Point) -> list[list[Any]]:
        """What the step from ``point`` will be made of, [quantity][block], where the data lives."""
        s, y = self._changes(point, previous)
        return space.products((s, s), (s, y), (y, y))

    def hear(self, point: Point, values: list[Any]) -> None:
        """What :meth:`ahead` asked for, read."""
        self._heard = point, values

    def _adaptive(self, long: Any, short: Any, update: Any) -> Any:
        """ABBmin; the threshold moves where ``update`` holds."""
        scalars = self.context.numbers.scalars
        careful = short < self._threshold * long
        smallest = self._short[0]
        for value in self._short[1:]:
            smallest = scalars.minimum(smallest, value)
        moved = self._threshold * scalars.where(careful, 0.9, 1.1)
        self._threshold = scalars.where(update, moved, self._threshold)
        return scalars.where(careful, smallest, long)


@dataclass(frozen=True)
class Safeguarded:
    """A rule capped by the safe step, so that d <= eps stays true: steps of ``rule`` inside the tube.

    With g = ||Lambda||_F and d = ||X^H X - I||_F <= eps < 1,

        eta <= min{ (lam d (1-d) + sqrt(lam^2 d^2 (1-d)^2 + g^2 (eps - d))) / g^2,  1 / (2 lam) }.

    The free bound on g is tried first; the exact norm is formed only where that would cut the step,
    so eta is the papers'.

    With ``exact``, where that bound would cut the step, the cap is the longest step of all: the smallest
    eta > 0 at which X - eta Lambda leaves the tube, a root of the quartic

        ||Delta - eta T + eta^2 Lambda^H Lambda||_F^2 = eps^2,    T = X^H Lambda + Lambda^H X,

    with the assembled Lambda, so that rounding off the tangent space is seen. It is never shorter than
    the bound, in the median of 3000 random cases 2.4 times as long (1.9 times where the root above is
    the smaller of the two, 3.1 times where 1/(2 lam) is), and x stays in its component: every shorter
    step stays in the tube too.

    Parameters
    ----------
    rule : step rule
        The wanted steps.
    eps : float in (0, 1)
        Radius of the tube.
    exact : bool
        The exact exit in place of the bound.

    Notes
    -----
    Cost: the exact norm is a product for square X, shared with the move; none for tall X. ``exact``
    adds two products n p^2 (Lambda^H Lambda and T) and about 0.1 ms on the host for the root, where the
    bound cuts. On a device nothing is read back, but with ``exact``: six numbers for each matrix, in one
    transfer a step.

    References
    ----------
    [AVGA24] lemma on the safe step.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.steps.Safeguarded(lo.steps.Constant(0.1), eps=0.5, exact=True)
    Safeguarded(rule=Constant(step=0.1), eps=0.5, exact=True)
    """

    rule: Step
    eps: float = 0.5
    exact: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.exact, bool):
            raise TypeError(f"exact must be True or False, got {self.exact!r}")
        if not (isinstance(self.eps, numbers.Real) and 0.0 < self.eps < 1.0):
            raise ValueError(f"eps must lie strictly between 0 and 1, got {self.eps!r}")

    def start(self, context: Context) -> SafeguardedRun:
        return SafeguardedRun(self, context)


class SafeguardedRun:
    __slots__ = (
        "rule", "eps", "lam", "scalars", "exact_only", "exact", "_floats", "_constant", "_safe",
    )  # fmt: skip

    def __init__(self, recipe: Safeguarded, context: Context):
        self.rule = recipe.rule.start(context)
        self.eps, self.lam, self.exact = recipe.eps, context.lam, recipe.exact
        self.scalars = context.numbers.scalars
        self._floats = self.scalars is FLOATS and not context.accelerator
        self._constant = recipe.rule.step if type(recipe.rule) is Constant else None
        self.exact_only = context.accelerator  # comparing would read a number back
        kernels = getattr(context.numbers, "kernels", None)
        self._safe = getattr(kernels, "safe", None)  # in one launch

    def size(self, k: int, point: Point) -> Any:
        form, lam = point.forms[0], self.lam
        wanted = self.rule.size(k, point) if self._constant is None else self._constant
        d, g, noise = form.tube(not self.exact_only)
        if d is None:
            return wanted  # an unconstrained block
        if self._floats:
            # eta is at most the root where g^2 eta^2 - 2 (lam d (1 - d) - noise) eta <= eps - d.
            left = wanted * (wanted * g * g - 2.0 * (lam * d * (1.0 - d) - noise))
            if left <= self.eps - d and 2.0 * lam * wanted <= 1.0:
                return wanted
        elif not self.exact_only:
            bound = safe_step(d, g, lam, self.eps, self.scalars, noise)
            if self.scalars.all(bound >= wanted):
                return wanted
        if self._safe is not None and not self.exact:
            return self._safe(wanted, d, form.norm(), noise, lam, self.eps)
        bound = safe_step(d, form.norm(), self.lam, self.eps, self.scalars, noise)
        if self.exact and (self.exact_only or not self.scalars.all(bound >= wanted)):
            bound = self.scalars.maximum(bound, self._exit(form))
        return self.scalars.minimum(wanted, bound)

    def _exit(self, form: Any) -> Any:
        """Where X - eta Lambda leaves the tube; 0 where the bound has to do."""
        kernels, scalars = form.block.kernels, self.scalars
        norm = scalars.maximum(form.norm(), 1e-30)
        # Along u = eta g, where the numbers have no scale: 1/p <= ||Q||^2 <= 1, a quartic always.
        delta, t, q = form.curve(scalars.divide(1.0, norm))
        pairs = ((delta, t), (t, t), (delta, q), (t, q), (q, q))
        dots = [kernels.dot(a, b) for a, b in pairs]
        d, dt, tt, dq, tq, qq = kernels.host(form.distance, *dots)
        room = (d - self.eps) * (d + self.eps)
        quartic = np.stack([room, -2.0 * dt, tt + 2.0 * dq, -2.0 * tq, qq], axis=-1)
        # A long step adds large terms up to a small sum: their rounding counts as outside.
        sizes = np.stack([d * d, 2.0 * abs(dt), tt + 2.0 * abs(dq), 2.0 * abs(tq), qq], axis=-1)
        u = first_exit(quartic + 8.0 * kernels.unit_roundoff * sizes)
        eta = float(u) if isinstance(norm, float) else _xp.from_host(u, norm)
        return scalars.where(form.norm() > 1e-30, eta / norm, scalars.full(0.0))


def safe_step(
    distance: Any, norm: Any, lam: float, eps: float, scalars: Any, noise: Any = 0.0
) -> Any:
    """The longest step that the bound of [AVGA24] allows; formed without g^2, which overflows.

    Parameters
    ----------
    distance, norm : float or array
        d and g = ||Lambda||_F (or an upper bound on it: the step is then shorter).
    lam, eps : float
    scalars : functions of numbers, ``landingopt._xp.FLOATS`` for floats.
    noise : float or array
        Rounding in Lambda that is not tangent: it moves the distance to first order.
    """
    root = safe_root(distance, norm, noise, lam, eps, scalars)
    return scalars.minimum(root, 1.0 / (2.0 * lam)) if lam > 0 else root


def safe_root(distance: Any, norm: Any, noise: Any, lam: Any, eps: Any, scalars: Any) -> Any:
    """The root in :func:`safe_step`; without a branch, so that it is one kernel on a device."""
    d = scalars.maximum(distance, 0.0)
    norm = scalars.maximum(norm, 1e-30)  # any step is safe where the field vanishes
    room = scalars.maximum(eps - d, 0.0)  # rounding may put d a little above eps
    t = (lam * d * (1.0 - d) - scalars.minimum(noise, 2.0 * norm)) / norm
    return (t + scalars.sqrt(t * t + room)) / norm


def first_exit(quartic: np.ndarray) -> np.ndarray:
    """The smallest u > 0 at which the quartic, at most 0 before it, becomes positive.

    Parameters
    ----------
    quartic : array (..., 5)
        Coefficients in ascending order; the last one positive. The first is at most 0 up to rounding:
        where it is a little above (d above eps by rounding), the way in is not taken for the exit.

    Returns
    -------
    array
        The side of the root on which the quartic is at most 0; 0 where no step stays inside, and where a
        coefficient is not finite.

    Notes
    -----
    The stationary points cut the line into intervals on which the quartic is monotone: its sign at their
    ends tells the interval of the root, in which bisection with Newton's steps finds it. Multiple roots,
    at which a companion matrix of the quartic itself would lose half of the digits, do no harm.
    """
    usable = np.isfinite(quartic).all(axis=-1) & (quartic[..., 4] > 0.0)
    c = np.where(usable[..., None], quartic, (-1.0, 0.0, 0.0, 0.0, 1.0))
    # Fujiwara's bound on the roots: 2 max |c_i / c_4|^(1 / (4 - i)).
    shares = (np.abs(c[..., :4]) / c[..., 4:]) ** _FUJIWARA
    last = 2.01 * np.max(shares, axis=-1, keepdims=True)
    ends = np.sort(np.clip(_stationary(c), 0.0, last), axis=-1)
    ends = np.concatenate([ends, last], axis=-1)
    outside = (_value(np.moveaxis(c[..., None, :], -1, 0), ends) > 0.0) & (ends > 0.0)
    outside[..., -1] = True
    first = np.argmax(outside, axis=-1)[..., None]
    high = np.take_along_axis(ends, first, axis=-1)[..., 0]
    low = np.take_along_axis(ends, np.maximum(first - 1, 0), axis=-1)[..., 0]
    low = np.where(first[..., 0] > 0, low, 0.0)
    columns = np.moveaxis(c, -1, 0)
    if c.ndim == 1:
        low = np.asarray(_root(columns.tolist(), float(low), float(high), _xp.FLOATS))
    else:
        scalars = _xp.ArrayScalars(np, np.float64, None, low.shape)
        low = _root(columns, low, high, scalars)
    return np.where(usable & (_value(columns, low) <= 0.0), low, 0.0)


def _value(c: Any, u: Any) -> Any:
    return c[0] + u * (c[1] + u * (c[2] + u * (c[3] + u * c[4])))


def _stationary(c: np.ndarray) -> np.ndarray:
    """The real parts of the three roots of the derivative; a cut too many does no harm."""
    companion = np.zeros((*c.shape[:-1], 3, 3))
    companion[..., 1, 0] = companion[..., 2, 1] = 1.0
    companion[..., :, 2] = c[..., 1:4] * (-0.25, -0.5, -0.75) / c[..., 4:]
    return np.linalg.eigvals(companion).real


def _root(c: Any, low: Any, high: Any, scalars: Any) -> Any:
    """The lower end of the last bracket of the root in [low, high], where the quartic is monotone."""
    u = 0.5 * (low + high)
    for _ in range(200):
        value = _value(c, u)
        inside = value <= 0.0
        low, high = scalars.where(inside, u, low), scalars.where(inside, high, u)
        if scalars.all(high - low <= 8.0 * _UNIT * high):
            break
        slope = c[1] + u * (2.0 * c[2] + u * (3.0 * c[3] + u * 4.0 * c[4]))
        newton = u - scalars.divide(value, slope)
        # A little beyond the root, so that both ends of the bracket come close to it.
        newton = newton + scalars.where(inside, 2.0, -2.0) * _UNIT * high
        good = (newton > low) & (newton < high)
        u = scalars.where(good, newton, 0.5 * (low + high))
    return low


_UNIT = 2.0**-52
_FUJIWARA = np.array([1 / 4, 1 / 3, 1 / 2, 1.0])
