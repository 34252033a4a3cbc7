"""Optimizers of functions without constraints, for trivializations and penalties.

What they minimise is a :class:`Chart`: x as a function of free numbers. ``GradientDescent`` and ``Adam``
take the gradient of any estimator; ``LBFGS`` is SciPy's.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from landingopt import _xp, estimators, steps
from landingopt._xp import Array
from landingopt.estimators._common import check_base, check_decay, is_stochastic
from landingopt.estimators.chosen import chosen_step
from landingopt.observe.observer import Observer, Row
from landingopt.observe.stop import RUNNING
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.searches.open_loop import BlockNumbers
from landingopt.space import Space
from landingopt.status import Status
from landingopt.sums import check_count


class Chart(Protocol):
    """x as a function of coordinates without constraints, and what is minimised over them.

    ``start(x0)`` and ``place(coordinates)`` set ``coordinates`` and ``x``, lists of blocks; ``pull`` and
    ``value`` are of the point that was placed last.
    """

    coordinates: list[Array]
    x: list[Array]

    def start(self, x0: list[Array]) -> None: ...

    def place(self, coordinates: list[Array]) -> None: ...

    def pull(self, gradient: list[Array]) -> list[Array]:
        """The gradient in the coordinates, from that of f in x; fresh arrays."""
        ...

    def value(self, fun: Any) -> float:
        """What is minimised, from f."""
        ...

    def curvature(self, curvature: float) -> float:
        """The largest curvature of what is minimised, from that of f."""
        ...

    def turn(self, iteration: int, ended: bool = False) -> bool:
        """Change to the next chart, if it is time (or the optimizer has ended); x stays."""
        ...


# -- recipes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientDescent:
    """Gradient descent, with momentum: c <- c - eta m, m <- beta m + g (Nesterov: g + beta m for m).

    Parameters
    ----------
    step : float, function of the iteration, or step rule, optional
        Without one 1 / (2 L), L the largest curvature at the start, which costs four gradients; with
        minibatches (1 - beta) / (2 L_b sqrt(1 + k / 50)), as in ``lo.landing_sgd()``.
    momentum : float in [0, 1)
        beta, the heavy ball's.
    nesterov : bool
        PyTorch's form: the gradient is taken at the point itself.

    Raises
    ------
    TypeError, ValueError
        A step that is not positive, a momentum outside [0, 1), a rule that is of a landing field.

    Examples
    --------
    >>> from landingopt.baselines.trivialization import GradientDescent
    >>> GradientDescent(0.1, momentum=0.9)
    GradientDescent(step=0.1, momentum=0.9, nesterov=False)
    """

    step: Any = None
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check_step(self.step, optional=True)
        object.__setattr__(self, "momentum", check_decay("momentum", self.momentum))
        if not isinstance(self.nesterov, bool):
            raise TypeError(f"nesterov must be True or False, got {self.nesterov!r}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs a momentum: GradientDescent(momentum=0.9, ...)")

    def rule(self, estimator: Any) -> Any:
        """The step rule; where none was given the estimator's, over what momentum multiplies it by."""
        if self.step is not None:
            return steps.as_rule(self.step)
        rule = chosen_step(estimator)
        if not is_stochastic(estimator):
            return rule
        return replace(rule, factor=rule.factor * (1.0 - self.momentum))

    def start(self, space: Space) -> _MomentumRun:
        return _MomentumRun(self, space)


class _MomentumRun:
    """``direction(i, g)``: what block i moves against; the run's own memory, or g."""

    __slots__ = ("recipe", "kernels", "_sums")

    def __init__(self, recipe: GradientDescent, space: Space):
        self.recipe = recipe
        self.kernels = [block.kernels for block in space.blocks]
        self._sums: list[Array] = [None] * len(self.kernels)

    def direction(self, i: int, g: Array) -> Array:
        beta, k, m = self.recipe.momentum, self.kernels[i], self._sums[i]
        if not beta:
            return g
        if m is None:
            m = _xp.copy(g)
        else:
            m = k.add(k.scale(m, beta, out=m), g, out=m)
        self._sums[i] = m
        return k.add(k.scale(m, beta), g) if self.recipe.nesterov else m


@dataclass(frozen=True)
class Adam:
    """Adam, entry by entry: c <- c - eta m_hat / (sqrt(v_hat) + epsilon).

    With g the gradient and t = 1, 2, ... the steps, m <- beta1 m + (1 - beta1) g,
    v <- beta2 v + (1 - beta2) |g|^2, m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t). Every entry
    moves by about eta a step, whatever the scale of f; a constant eta circles the optimum.

    Parameters
    ----------
    step : float, function of the iteration, or step rule
        eta; a rule that decreases to converge.
    beta1, beta2 : float in [0, 1)
    epsilon : float

    Raises
    ------
    TypeError, ValueError
        As for :class:`GradientDescent`.

    References
    ----------
    Kingma, Ba, Adam, ICLR 2015.

    Examples
    --------
    >>> from landingopt.baselines.trivialization import Adam
    >>> Adam(0.01)
    Adam(step=0.01, beta1=0.9, beta2=0.999, epsilon=1e-08)
    """

    step: Any
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check_step(self.step)
        for name in ("beta1", "beta2"):
            object.__setattr__(self, name, check_decay(name, getattr(self, name)))
        _check_size("epsilon", self.epsilon)

    def rule(self, estimator: Any) -> Any:
        return steps.as_rule(self.step)

    def start(self, space: Space) -> _AdamRun:
        return _AdamRun(self, space)


class _AdamRun:
    __slots__ = ("recipe", "_first", "_second", "_count")

    def __init__(self, recipe: Adam, space: Space):
        self.recipe = recipe
        self._first: list[Array] = [0.0] * len(space.blocks)
        self._second: list[Array] = [0.0] * len(space.blocks)
        self._count = [0] * len(space.blocks)

    def direction(self, i: int, g: Array) -> Array:
        recipe, xp = self.recipe, _xp.namespace(g)
        self._count[i] += 1
        size = xp.abs(g)
        m = self._first[i] * recipe.beta1 + g * (1.0 - recipe.beta1)
        v = self._second[i] * recipe.beta2 + size * size * (1.0 - recipe.beta2)
        self._first[i], self._second[i] = m, v
        t = self._count[i]
        root = xp.sqrt(v * (1.0 / (1.0 - recipe.beta2**t))) + recipe.epsilon
        root = xp.where(root > 0.0, root, xp.ones_like(root))  # only zeros so far, and epsilon = 0
        return m * (1.0 / (1.0 - recipe.beta1**t)) / root


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B without bounds: the exact gradient, f, and nothing to tune.

    Its stopping rules are off unless given here: the library's decide, at each of its iterates. Where it
    finds no lower value the run ends with ``Status.EXTERNAL``. In double precision on the host: the
    arrays of other libraries, devices and precisions are copied at each evaluation.

    Parameters
    ----------
    memory : int
        Pairs (``maxcor``).
    ftol, gtol : float
        SciPy's own: the run (or the stage of a penalty's path) ends where an iteration lowers the value
        by less than ftol times its size, or the largest entry of the gradient is below gtol.

    Raises
    ------
    ValueError
        A memory below 1, a negative tolerance.

    References
    ----------
    Byrd, Lu, Nocedal, Zhu, SIAM J. Sci. Comput. 16, 1995; ``scipy.optimize.minimize``.

    Examples
    --------
    >>> from landingopt.baselines.trivialization import LBFGS
    >>> LBFGS()
    LBFGS(memory=10, ftol=0.0, gtol=0.0)
    """

    memory: int = 10
    ftol: float = 0.0
    gtol: float = 0.0

    def __post_init__(self) -> None:
        check_count("memory", self.memory)
        _check_size("ftol", self.ftol)
        _check_size("gtol", self.gtol)

    @property
    def options(self) -> dict[str, Any]:
        """SciPy's."""
        return {
            "maxcor": self.memory,
            "ftol": self.ftol,
            "gtol": self.gtol,
            "maxiter": sys.maxsize,
            "maxfun": sys.maxsize,
        }


_RECIPES = (GradientDescent, Adam, LBFGS)


def _check_size(name: str, value: Any) -> None:
    if not (isinstance(value, numbers.Real) and 0.0 <= float(value) < math.inf):
        raise ValueError(f"{name} must be a number >= 0, got {value!r}")


def _check_step(step: Any, optional: bool = False) -> None:
    if optional and step is None:
        return
    if isinstance(step, (steps.Safeguarded, steps.BarzilaiBorwein)):
        raise ValueError(
            f"the step rule {step!r} is of a landing field, which is not formed here; pass a number, a "
            "function of the iteration, or a rule such as lo.steps.Decay(0.1)"
        )
    steps.as_rule(step)  # a number is checked there


def checked_parts(optimizer: Any, estimator: Any, what: str) -> tuple[Any, Any]:
    """Optimizer and estimator with their defaults, or an error that says what does not fit."""
    optimizer = LBFGS() if optimizer is None else optimizer
    if not isinstance(optimizer, _RECIPES):
        hint = (
            f": call it, {optimizer.__name__}(...)" if any(optimizer is r for r in _RECIPES) else ""
        )
        raise TypeError(
            "optimizer must be LBFGS(), GradientDescent(step, momentum=0.9) or Adam(step), got "
            f"{optimizer!r}{hint}"
        )
    estimator = estimators.Full() if estimator is None else check_base(estimator, "estimator")
    inner = estimator
    while inner is not None:
        if isinstance(inner, (estimators.Momentum, estimators.Adam)):
            raise ValueError(
                f"estimator={estimator!r} was given: {what} has its momentum in the optimizer, where "
                "the unknowns have no constraint; pass optimizer=GradientDescent(step, momentum=0.9) "
                "or Adam(step), and the estimator inside, such as lo.estimators.MiniBatch(64)"
            )
        inner = getattr(inner, "base", None)
    if isinstance(optimizer, LBFGS) and estimator != estimators.Full():
        raise ValueError(
            f"estimator={estimator!r} was given with LBFGS, which compares values of f and learns from "
            "its exact gradient; pass optimizer=GradientDescent() or Adam(step)"
        )
    return optimizer, estimator


def shown(optimizer: Any, estimator: Any) -> str:
    """For a method's name."""
    text = type(optimizer).__name__
    return text if estimator == estimators.Full() else f"{text}, {type(estimator).__name__}"


# -- a run ------------------------------------------------------------------------------------


@np.errstate(all="ignore")  # what is not finite becomes a status, not a warning
def drive(
    optimizer: Any,
    estimator: Any,
    chart: Chart,
    oracle: Oracle,
    x0: list[Array],
    observer: Observer,
) -> Point:
    """Minimise over the chart from x0 until the observer, or SciPy, says stop; the last point."""
    if isinstance(optimizer, LBFGS):
        if not oracle.has_value:
            raise TypeError(
                "LBFGS reads f, and this problem has no fun; pass fun= to lo.Objective, or use "
                "GradientDescent() or Adam(step), which need the gradient only"
            )
        return _External(optimizer, chart, oracle, observer).run(x0)
    observer.begin()
    return _open_loop(optimizer, estimator, chart, oracle, x0, observer)


def _open_loop(
    optimizer: Any,
    estimator: Any,
    chart: Chart,
    oracle: Oracle,
    x0: list[Array],
    observer: Observer,
) -> Point:
    """One gradient a step; f is not read."""
    space, stochastic = oracle.space, is_stochastic(estimator)
    gradients = estimator.start(oracle, value=False)
    size = _step_sizes(optimizer.rule(estimator), gradients, chart, space, x0)
    run, rule = optimizer.start(space), size()
    chart.start(x0)
    point = Point(space, [])
    point.place(chart.x)
    spare: list[Array] = [block.kernels.empty(block.inner_shape) for block in space.blocks]

    def pulled() -> list[Array]:
        # At once: the gradient is the user's memory, which an evaluation of f may rewrite.
        gradients.fill(point)
        return [] if point.status is not None else chart.pull(point.followed)

    # The gradient tells when to stop; a minibatch's does not, and k steps draw k of them.
    g = [] if stochastic else pulled()
    observer.start(point)
    while not _over(observer, point, measured=not stochastic):
        if stochastic:
            g = pulled()
            if point.status is not None:  # the stream has ended
                continue
        k, before, x = point.iteration, chart.coordinates, point.x
        eta = rule.size(k, point)
        after = []
        for i, block in enumerate(space.blocks):
            kernels = block.kernels
            moved = kernels.scale(run.direction(i, g[i]), eta, out=spare[i])
            after.append(kernels.subtract(before[i], moved, out=moved))
        chart.place(_kept(space, after, before))
        spare = before
        if chart.turn(k + 1):
            rule = size()
        point.place(_kept(space, chart.x, x))
        point.iteration, point.step = k + 1, eta
        if not stochastic:
            g = pulled()
    return point


def _step_sizes(
    rule: Any, gradients: Any, chart: Chart, space: Space, x0: list[Array]
) -> Callable[[], Any]:
    """A function that starts the step rule; where it has no number, for the chart's curvature."""
    measured: list[float] = []

    def curvature() -> float:
        if not measured:
            measured.append(gradients.curvature(x0))
        return chart.curvature(measured[0])

    known = {
        name: getattr(gradients, name)
        for name in ("epoch", "anchor_pair")
        if hasattr(gradients, name)
    }
    context = steps.Context(BlockNumbers(space.blocks[0]), accelerator=space.accelerator, **known)
    return lambda: steps.tuned(rule, curvature).start(context)


def _kept(space: Space, new: list[Array], old: list[Array]) -> list[Array]:
    """The old matrices of a stack where they have ended."""
    frozen = space.frozen
    if frozen is None:
        return new
    return [b.kernels.replace(a, frozen, o) for b, a, o in zip(space.blocks, new, old, strict=True)]


def _over(observer: Observer, point: Point, measured: bool) -> bool:
    """Show a point to the observer; with its gradient norm and distance whatever the record is."""
    if not measured or observer.space.accelerator:
        return observer(point)
    observer.clock.pause()
    observer.measure.gradient_norm(point)
    point.distance_bound = observer.measure.distance(point)
    over = observer(point)
    if not over:
        observer.clock.resume()
    return over


class _Leave(Exception):
    """Not an error: leaves SciPy's loop, because the run is over or the chart has changed."""


class _External:
    """SciPy's loop around the counted oracle, each of its iterates shown to the observer."""

    def __init__(self, recipe: LBFGS, chart: Chart, oracle: Oracle, observer: Observer):
        self.recipe, self.chart, self.oracle, self.observer = recipe, chart, oracle, observer
        self.space = oracle.space
        self.current = Point(self.space, [])
        self._trial = Point(self.space, [])
        # Where value and gradient were last evaluated, and where the iterate is.
        self._at: np.ndarray | None = None
        self._here: np.ndarray | None = None
        self._known: tuple[float, np.ndarray] = (math.nan, np.empty(0))
        self._done = False

    def run(self, x0: list[Array]) -> Point:
        from scipy.optimize import minimize

        self.observer.begin()
        chart, point = self.chart, self._trial
        chart.start(x0)
        point.place(chart.x)
        self.oracle.fill_both(point)
        self._remember(self._flat(chart.coordinates), point)
        self._accept(0)
        self.observer.start(self.current)
        self._see()
        while not self._done:
            try:
                result = minimize(
                    self._evaluate, self._here, jac=True, method="L-BFGS-B",
                    callback=self._iterate, options=self.recipe.options,
                )  # fmt: skip
            except _Leave:
                continue
            self._stopped(result.message)
        return self.current

    # -- what SciPy calls ---------------------------------------------------------------------

    def _evaluate(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient; known where SciPy asks again where it, or the run, has just been."""
        if self._at is None or not np.array_equal(flat, self._at):
            chart, point = self.chart, self._trial
            chart.place(self._shaped(flat))
            point.place(chart.x)
            self.oracle.fill_both(point)
            self._remember(flat.copy(), point)
        return self._known

    def _iterate(self, flat: np.ndarray) -> None:
        """After each of SciPy's iterations."""
        if self._at is None or not np.array_equal(flat, self._at):  # back to an earlier trial
            with self.oracle.uncounted():
                self._evaluate(flat)
        k = self.current.iteration + 1
        self._accept(k)
        changed = self.chart.turn(k)
        if changed:
            # The same x: its gradient is still there, and is not asked for again.
            self._remember(self._flat(self.chart.coordinates), self.current)
            self._here = self._at
        self._see()
        if changed or self._done:
            raise _Leave

    # -- between its numbers and ours ---------------------------------------------------------

    def _remember(self, flat: np.ndarray, point: Point) -> None:
        """The value and, while the user's memory is intact, the gradient in the chart."""
        assert point.gradient is not None
        gradient = self._flat(self.chart.pull(point.gradient))
        self._at, self._known = flat, (self.chart.value(point.fun), gradient)

    def _flat(self, arrays: list[Array]) -> np.ndarray:
        """One vector of float64; complex numbers are pairs."""
        wide = np.complex128 if _xp.is_complex(self.space.like) else np.float64
        host = [_xp.to_host(a).astype(wide).ravel().view(np.float64) for a in arrays]
        return np.concatenate(host)

    def _shaped(self, flat: np.ndarray) -> list[Array]:
        wide = flat.view(np.complex128) if _xp.is_complex(self.space.like) else flat
        sizes = [math.prod(block.inner_shape) for block in self.space.blocks]
        parts = np.split(wide, np.cumsum(sizes)[:-1])
        return [
            _xp.from_host(part.reshape(block.inner_shape), self.space.like)
            for part, block in zip(parts, self.space.blocks, strict=True)
        ]

    # -- each iterate -------------------------------------------------------------------------

    def _accept(self, iteration: int) -> None:
        """The last trial is the iterate."""
        self.current, self._trial = self._trial, self.current
        self.current.iteration, self._here = iteration, self._at

    def _see(self) -> None:
        observer = self.observer
        if self.space.separable:
            # All matrices move until the end: one that was solved may be so no longer.
            observer.status = np.full(self.space.batch, RUNNING)
        self._done = _over(observer, self.current, measured=True)

    def _stopped(self, reason: str) -> None:
        """SciPy finds nothing lower: on to the next chart; or the end, the library's verdict first."""
        observer, point = self.observer, self.current
        point.gradient = None  # the trials since may have rewritten the user's memory
        with self.oracle.uncounted():
            self.oracle.fill_gradient(point)
        assert self._here is not None
        self.chart.place(self._shaped(self._here))
        if self.chart.turn(point.iteration, ended=True):
            self._remember(self._flat(self.chart.coordinates), point)
            self._here = self._at
            return
        verdict = observer._verdict(Row(observer, point, True), point)
        external = np.asarray(verdict) == RUNNING
        if np.any(external):
            observer.note = f" L-BFGS-B said: {reason.strip(' .:')}."
        status = np.where(external, int(Status.EXTERNAL), verdict)
        point.status = status if self.space.separable else int(status)
        self._see()
