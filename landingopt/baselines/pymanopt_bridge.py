"""Pymanopt both ways: its optimizers as methods of the library, its problems as problems.

Written against pymanopt 2.2.1, which is imported inside functions only: importing it loads every
autodiff library that it finds, and switches JAX to 64 bits.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.objectives import Euclidean, Stiefel, Variable
from landingopt.observe.observer import Observer, Row
from landingopt.observe.stop import RUNNING
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Block, Space
from landingopt.status import Status
from landingopt.stiefel import distance, orthonormalized

_RETRACTIONS = ("qr", "polar")

# Pymanopt's own rules, out of the way. A rejected step has size 0 and repeats for ever, so that the
# smallest step is tiny rather than 0: then pymanopt gives up, and the result says so.
_UNLIMITED = {
    "max_time": math.inf,
    "max_iterations": sys.maxsize,
    "min_gradient_norm": 0.0,
    "min_step_size": 1e-30,
    "max_cost_evaluations": math.inf,
}

# Ours (printing, the log), or without any effect in these optimizers (max_cost_evaluations).
_WITHHELD = {"verbosity", "log_verbosity", "max_cost_evaluations"}


# -- pymanopt's optimizers as methods ---------------------------------------------------------


@dataclass(frozen=True)
class PymanoptMethod:
    """One of pymanopt's optimizers, as a method; made by ``lo.pymanopt(name, **options)``.

    Pymanopt gets the problem's own fun, grad and hessp, and keeps its way of calling them: the cost
    again after a line search has accepted a point, the gradient again in each Hessian product. The
    result counts what was called. Its stopping rules are off unless given as options; the run ends
    by the library's stop rule, measured at each of pymanopt's iterates with the clock stopped.

    The trace's ``step`` is pymanopt's: the length of the vector that was retracted (TrustRegions
    tells none). An iteration of TrustRegions may be a rejected step: then x stays.

    Attributes
    ----------
    solver : str
        The optimizer's name in pymanopt.
    options : tuple of (name, value)

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> method = lo.pymanopt("ConjugateGradient", beta_rule="PolakRibiere")
    >>> lo.minimize(problem, method=method, rng=0).success
    True
    """

    solver: str
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> PymanoptMethod:
        """The method, checked: name, names of the options, and what pymanopt checks itself.

        Raises
        ------
        ValueError
            An unknown or unsupported optimizer, or a value that pymanopt refuses.
        TypeError
            An unknown option.
        """
        accepted = _accepted(_checked_name(name))
        for option in options:
            if option not in accepted:
                raise TypeError(_unknown_option(name, option, accepted))
        retraction = options.get("retraction", "qr")
        if retraction not in _RETRACTIONS:
            raise ValueError(f'retraction must be "qr" or "polar", got {retraction!r}')
        method = cls(name, tuple(options.items()))
        method._optimizer()
        return method

    @property
    def name(self) -> str:
        return f"pymanopt {self.solver}"

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self.options)
        return f"pymanopt({self.solver!r}{given})"

    def _given(self, where: str) -> dict[str, Any]:
        accepted = _accepted(self.solver)
        return {name: value for name, value in self.options if accepted[name] == where}

    def _optimizer(self) -> Any:
        return _watched()[self.solver](**{**_UNLIMITED, **self._given("init"), "verbosity": 0})

    def drive(self, oracle: Oracle, x0: list[Array], observer: Observer) -> Point:
        """Run from ``x0`` until the observer says stop, or pymanopt does; the last point.

        Raises
        ------
        TypeError
            Arrays that are not NumPy's, complex tall matrices, a problem without fun, or without
            hessp where it is needed.
        """
        self._check(oracle, x0)
        given = self._given("manifold")
        translation = _Translation(oracle, given.get("retraction"))
        watch = _Watch(oracle, observer, translation)
        problem = watch.problem(hessian=self.solver == "TrustRegions")
        optimizer = self._optimizer()
        optimizer.watch = watch

        observer.begin()
        for i, block in enumerate(oracle.space.blocks):
            if block.stiefel:
                far = float(np.max(distance(x0[i])))
                if not far <= 4.0 * oracle.space.unit_roundoff * block.p**0.5:
                    x0[i] = orthonormalized(x0[i], f"{block.name}0")
        try:
            result = optimizer.run(
                problem, initial_point=translation.point(x0), **self._given("run")
            )
            # Only SteepestDescent gets here: it steps once more before it asks whether to stop.
            watch.last(result)
        except _Over:
            pass
        return watch.current

    def _check(self, oracle: Oracle, x0: list[Array]) -> None:
        for x in x0:
            if type(x) is not np.ndarray:
                raise TypeError(
                    f"{self.name} works on NumPy arrays only, x0 is a "
                    f"{type(x).__module__}.{type(x).__name__}; convert x0 and the problem's data "
                    "(numpy.asarray(x) for a tensor on the CPU, cupy.asnumpy(x) for CuPy), or use "
                    "a method of the library's own such as lo.landing()"
                )
        if not oracle.has_value:
            raise TypeError(
                f"{self.name} reads f, and this problem has no fun; pass fun= to lo.Objective, or "
                "use lo.landing(step=...), which needs the gradient only"
            )
        if self.solver == "TrustRegions" and oracle.hessp is None:
            raise TypeError(
                "pymanopt TrustRegions needs Hessian products, and this problem has no hessp "
                "(pymanopt 2.2 has no finite differences to put in its place); pass hessp= to "
                'lo.Objective, or use lo.pymanopt("ConjugateGradient")'
            )


def _checked_name(name: Any) -> str:
    known = list(_watched())
    if name in known:
        return name
    listed = ", ".join(f'"{k}"' for k in known)
    if name in ("NelderMead", "ParticleSwarm"):
        raise ValueError(
            f"pymanopt's {name} cannot be used here: it needs the logarithm of the manifold, which "
            "pymanopt's Stiefel does not have, and draws its population from NumPy's global "
            f"generator in place of x0; the supported ones are {listed}"
        )
    text = str(name).lower().replace("_", "").replace("-", "").replace(" ", "")
    by_lower = {k.lower(): k for k in known} | {"".join(filter(str.isupper, k)): k for k in known}
    by_lower = {k.lower(): v for k, v in by_lower.items()}
    close = difflib.get_close_matches(text, by_lower, n=1, cutoff=0.5)
    hint = f' (did you mean "{by_lower[close[0]]}"?)' if close else ""
    raise ValueError(f"pymanopt has no optimizer {name!r}{hint}; the supported ones are {listed}")


def _unknown_option(solver: str, option: str, accepted: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(option, accepted, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    if option in ("verbosity", "log_verbosity"):
        hint = " (the library records the run: result.trace, progress=True)"
    if option == "max_cost_evaluations":
        hint = " (pymanopt accepts it, and ignores it in this optimizer)"
    return (
        f"pymanopt's {solver} has no option {option!r}{hint}; the accepted ones are "
        + ", ".join(accepted)
    )


@functools.cache
def _accepted(solver: str) -> dict[str, str]:
    """The options of an optimizer, and where each goes: "init", "run" or "manifold"."""
    from pymanopt.optimizers.optimizer import Optimizer

    base: Any = _watched()[solver].__mro__[1]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    options = {
        name: "init"
        for function in (base.__init__, Optimizer.__init__)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in named and name != "self" and name not in _WITHHELD
    }
    for name, parameter in inspect.signature(base.run).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            options[name] = "run"
    del options["initial_point"]
    options.pop("reuse_line_searcher", None)  # means nothing to an optimizer that runs once
    return {**options, "retraction": "manifold"}


class _Over(Exception):
    """Not an error: the run is over, and leaves pymanopt's loop without one more line search."""


@functools.cache
def _watched() -> dict[str, type]:
    """Pymanopt's optimizers, with a look at each iterate; ``optimizer.watch`` is set for a run."""
    from pymanopt.optimizers import ConjugateGradient, SteepestDescent, TrustRegions

    # In each of the three, the point of the last gradient is the current iterate where the hook
    # sits: it was evaluated there as the last thing, or, after a rejected step of TrustRegions, by
    # the Hessian products at the point that stays.

    class WatchedSteepestDescent(SteepestDescent):
        watch: _Watch

        # The loop: cost, gradient, LOG, line search, STOP?. At the log x is the iterate that has
        # just been evaluated; at the stop it has moved on already.
        def _add_log_entry(self, *, iteration: int, **_: Any) -> None:
            self.watch.see(iteration - 1)

        def _check_stopping_criterion(self, **known: Any) -> str | None:
            self.watch.step = float(known["step_size"])
            return super()._check_stopping_criterion(**known)

    class WatchedConjugateGradient(ConjugateGradient):
        watch: _Watch

        # The loop: LOG, STOP?, line search, cost, gradient.
        def _check_stopping_criterion(self, **known: Any) -> str | None:
            self.watch.step = float(known["step_size"])
            self.watch.see(known["iteration"] - 1, super()._check_stopping_criterion(**known))
            return None

    class WatchedTrustRegions(TrustRegions):
        watch: _Watch

        # cost, gradient, INITIALIZE LOG, the loop: step or rejection, STOP?.
        def _initialize_log(self, **known: Any) -> None:
            super()._initialize_log(**known)
            self.watch.see(0)

        def _check_stopping_criterion(self, **known: Any) -> str | None:
            self.watch.see(known["iteration"], super()._check_stopping_criterion(**known))
            return None

    return {
        "SteepestDescent": WatchedSteepestDescent,
        "ConjugateGradient": WatchedConjugateGradient,
        "TrustRegions": WatchedTrustRegions,
    }


class _Watch:
    """What pymanopt calls during one run, and what it has evaluated last.

    The point of the last gradient is the current iterate when an optimizer calls :meth:`see`.
    Whatever is known there goes to the observer, so that nothing is evaluated twice.
    """

    def __init__(self, oracle: Oracle, observer: Observer, translation: _Translation):
        self.oracle, self.observer, self.space = oracle, observer, oracle.space
        self.translation = translation
        self.current = Point(self.space, [])
        self.step: float = math.nan
        # Points are pymanopt's own arrays: an iterate is told from another by identity.
        self._value_at: tuple[Array, ...] = ()
        self._value: Any = None
        self._gradient_at: tuple[Array, ...] = ()
        self._gradient: Variable = None
        self._seen_at: tuple[Array, ...] = ()
        self._started = False

    # -- what pymanopt calls ------------------------------------------------------------------

    def problem(self, hessian: bool) -> Any:
        """The pymanopt.Problem: wrappers around the counted oracle, thin because they are timed."""
        import pymanopt

        manifold = self.translation.manifold
        count = len(self.space.blocks)
        value, gradient, product = self.oracle.value, self.oracle.gradient, self.oracle.hessian
        inward, outward = self.translation.inward, self.translation.outward
        separable = self.space.separable

        @pymanopt.function.numpy(manifold)
        def cost(*x: Array) -> float:
            self._value_at = x
            self._value = f = value(inward(x))
            return float(np.sum(f)) if separable else f

        @pymanopt.function.numpy(manifold)
        def euclidean_gradient(*x: Array) -> Any:
            self._gradient_at = x
            self._gradient = g = gradient(inward(x))
            return outward(g)

        unchecked = True

        @pymanopt.function.numpy(manifold)
        def euclidean_hessian(*arrays: Array) -> Any:
            nonlocal unchecked
            h = product(inward(arrays[:count]), inward(arrays[count:]))
            if unchecked:
                unchecked = False
                self._check_apart(h)
            return outward(h)

        return pymanopt.Problem(
            manifold,
            cost,
            euclidean_gradient=euclidean_gradient,
            euclidean_hessian=euclidean_hessian if hessian else None,
            preconditioner=self.translation.preconditioner,
        )

    def _check_apart(self, product: Variable) -> None:
        """Pymanopt holds the gradient while it asks for the Hessian product."""
        blocks = self.space.to_blocks
        for h, g in zip(blocks(product), blocks(self._gradient), strict=True):
            if np.may_share_memory(h, g):
                raise ValueError(
                    "hessp returned memory that grad had returned; pymanopt needs both at once: "
                    "let hessp return an array of its own"
                )

    # -- each iterate -------------------------------------------------------------------------

    def see(self, iteration: int, reason: str | None = None) -> None:
        """Show the current iterate to the observer; leave pymanopt's loop when the run is over."""
        observer, point = self.observer, self.current
        observer.clock.pause()
        self._place(point)
        point.iteration = iteration
        point.step = self.step
        if not self._started:
            self._started = True
            observer.start(point)
            observer.clock.pause()
        # Our stop measure, at every iterate whatever the record, as for the library's own methods.
        observer.measure.gradient_norm(point)
        point.distance_bound = observer.measure.distance(point)
        if self.space.separable:
            # Pymanopt moves all matrices until the end: one that was solved may be so no longer.
            observer.status = np.full(self.space.batch, RUNNING)
        if reason is not None:
            self._stopped(point, reason)
        if observer(point):
            raise _Over
        observer.clock.resume()

    def last(self, result: Any) -> None:
        """The point that an optimizer returned after it had stopped by itself."""
        self.observer.clock.pause()
        x = result.point
        self._gradient_at = tuple(x) if isinstance(x, (list, tuple)) else (x,)
        self._gradient = None
        self.see(result.iterations, result.stopping_criterion)

    def _place(self, point: Point) -> None:
        """Move to the current iterate, with what is known there."""
        x = self._gradient_at
        fun, gradient = None, self._gradient
        if _same(x, self._value_at):
            fun = self._value
        elif _same(x, self._seen_at):
            # A rejected step. The user's gradient may live in memory that the trial has reused.
            fun, gradient = point.fun, None
        point.place(self.translation.blocks(x))
        point.fun = fun
        if gradient is None:
            with self.oracle.uncounted():
                self.oracle.fill_gradient(point)
        else:
            point.gradient = self.space.to_blocks(gradient)
        self._seen_at = x

    def _stopped(self, point: Point, reason: str) -> None:
        """Pymanopt stops by itself: the library's verdict where there is one, else EXTERNAL."""
        verdict = self.observer._verdict(Row(self.observer, point, True), point)
        external = np.asarray(verdict) == RUNNING
        if np.any(external):
            self.observer.note = f" It said: {reason}"
        status = np.where(external, int(Status.EXTERNAL), verdict)
        point.status = status if self.space.separable else int(status)


def _same(x: tuple[Array, ...], y: tuple[Array, ...]) -> bool:
    return len(x) == len(y) and all(a is b for a, b in zip(x, y))


# -- manifolds --------------------------------------------------------------------------------


class _Translation:
    """Between the blocks of a space and points of pymanopt's manifold."""

    def __init__(self, oracle: Oracle, retraction: str | None):
        space = self.space = oracle.space
        source = oracle.problem if isinstance(oracle.problem, PymanoptProblem) else None
        self.manifold: Any
        self.preconditioner: Any = None
        if source is not None and retraction is None:
            # A problem that came from pymanopt goes back to the manifold that it was stated on.
            self.manifold = _repaired(source.problem.manifold)
            self.preconditioner = source.problem.preconditioner
        else:
            parts = [_manifold(block, space, retraction or "qr") for block in space.blocks]
            self.manifold = parts[0] if space.array else _classes().product(parts)
        if space.array and not space.blocks[0].stiefel:
            self.manifold = _with_numpy_numbers(self.manifold)
        parts = list(getattr(self.manifold, "manifolds", (self.manifold,)))
        # Where pymanopt's shape differs: stacks of one or of several dimensions, and spheres.
        self._shapes = [part.zero_vector(None).shape for part in parts]
        self._reshape = self._shapes != [block.inner_shape for block in space.blocks]
        # Pymanopt's projections make new arrays, but on a Euclidean block it keeps the gradient's
        # memory, which is the user's: there it gets a copy.
        self._free = [not block.stiefel for block in space.blocks]
        self._dtype = None if space.dtype in (np.float64, np.complex128) else space.dtype
        if self._dtype is not None:
            for part in parts:
                part.retraction = _cast(part.retraction, space.dtype)
        self.inward: Callable[[tuple[Array, ...]], Variable] = self._inward
        self.outward: Callable[[Variable], Any] = self._outward
        if (
            space.array
            and not self._reshape
            and not space.blocks[0].wide
            and not self._free[0]
            and self._dtype is None
        ):
            # The usual case, without the microseconds of the general one.
            self.inward = _readonly_single
            self.outward = _itself

    def blocks(self, x: tuple[Array, ...]) -> list[Array]:
        """Pymanopt's arrays as blocks of the space."""
        if self._dtype is not None:
            # float64 scalars have widened the tangent vectors.
            x = tuple(a.astype(self._dtype, copy=False) for a in x)
        if not self._reshape:
            return list(x)
        return [a.reshape(b.inner_shape) for a, b in zip(x, self.space.blocks, strict=True)]

    def point(self, blocks: list[Array]) -> Any:
        """Blocks of the space as pymanopt's point: one array, or a list."""
        if self._reshape:
            blocks = [x.reshape(shape) for x, shape in zip(blocks, self._shapes, strict=True)]
        return blocks[0] if self.space.array else blocks

    def _inward(self, x: tuple[Array, ...]) -> Variable:
        """Pymanopt's arrays in the user's form, read-only."""
        return self.space.readonly(self.space.to_user(self.blocks(x)))

    def _outward(self, gradient: Variable) -> Any:
        """A gradient in the user's form, as pymanopt takes it."""
        blocks = self.space.to_blocks(gradient)
        return self.point([g.copy() if free else g for g, free in zip(blocks, self._free)])


def _readonly_single(x: tuple[Array, ...]) -> Array:
    view = x[0].view()
    view.setflags(write=False)
    return view


def _itself(gradient: Array) -> Array:
    return gradient


def _with_numpy_numbers(manifold: Any) -> Any:
    """A copy of a Euclidean manifold whose inner products are NumPy's numbers.

    Its Python floats make ConjugateGradient raise ZeroDivisionError where a gradient is exactly 0;
    NumPy's give nan, as on the other manifolds, and the run ends there.
    """
    manifold = copy.copy(manifold)
    inner_product = manifold.inner_product
    manifold.inner_product = lambda *arguments: np.float64(inner_product(*arguments))
    return manifold


def _cast(retraction: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
    """A retraction that stays in single precision."""

    def cast(point: Array, vector: Array) -> Array:
        return retraction(point, vector).astype(dtype, copy=False)

    return cast


def _manifold(block: Block, space: Space, retraction: str) -> Any:
    """Pymanopt's manifold for one block of a space."""
    from pymanopt import manifolds

    complex_ = np.issubdtype(space.dtype, np.complexfloating)
    if not block.stiefel:
        kind = manifolds.ComplexEuclidean if complex_ else manifolds.Euclidean
        return kind(*block.shape)
    k = math.prod(block.batch)
    if not complex_:
        return manifolds.Stiefel(block.n, block.p, k=k, retraction=retraction)
    if block.n == block.p:
        return _classes().unitary(block.n, k=k, retraction=retraction)
    raise TypeError(
        f"pymanopt has no complex Stiefel manifold: {block.name} has shape {block.shape}, and only "
        "complex square matrices (its UnitaryGroup) can be solved there; use a method of the "
        "library's own such as lo.landing()"
    )


@dataclass(frozen=True)
class _Classes:
    unitary: Any
    product: Any


@functools.cache
def _classes() -> _Classes:
    """Pymanopt's classes, without two errors of version 2.2.1."""
    from pymanopt.manifolds import Product, UnitaryGroup

    class RepairedUnitaryGroup(UnitaryGroup):
        # There: (A - A^T)/2 with A = X^H V, which is not skew-Hermitian, so that the gradient is
        # wrong; and a complex inner product, whose rounding makes comparisons fail.
        def projection(self, point: Array, vector: Array) -> Array:
            a = np.conjugate(np.swapaxes(point, -1, -2)) @ vector
            return 0.5 * (a - np.conjugate(np.swapaxes(a, -1, -2)))

        def inner_product(self, point: Array, a: Array, b: Array) -> float:
            return float(np.vdot(a, b).real)

        def zero_vector(self, point: Array) -> Array:
            return super().zero_vector(point).astype(complex)

    class RepairedProduct(Product):
        # There: the identity, though rotation and unitary groups store X^H V for a tangent V, so
        # that Euclidean Hessians get the wrong vector.
        def embedding(self, point: Any, vector: Any) -> Any:
            parts = zip(self.manifolds, point, vector)
            return [manifold.embedding(x, v) for manifold, x, v in parts]

    return _Classes(RepairedUnitaryGroup, RepairedProduct)


def _repaired(manifold: Any) -> Any:
    """A user's manifold without the errors above; the user's object is left alone."""
    from pymanopt import manifolds

    if type(manifold) is manifolds.Product:
        return _classes().product([_repaired(part) for part in manifold.manifolds])
    if type(manifold) is manifolds.UnitaryGroup:
        manifold = copy.copy(manifold)
        manifold.__class__ = _classes().unitary
    return manifold


# -- pymanopt's problems as problems ----------------------------------------------------------


class PymanoptProblem:
    """A ``pymanopt.Problem`` as a problem of the library; ``lo.minimize`` makes it.

    Attributes
    ----------
    problem : pymanopt.Problem
    shape, constraint, like
        Of the manifold; for a product, x is a tuple of blocks. float64, or complex128.
    component : int, tuple or None
        +1 for rotations: where ``lo.minimize`` starts unless it is told otherwise. For a product,
        one entry for each block.
    fun, grad, hessp : callable
        The cost and its Euclidean derivatives; hessp is None where the problem has none.

    Notes
    -----
    A Grassmann manifold is solved as Stiefel: the cost is the same for all bases of a subspace, and
    a minimiser over matrices spans a minimiser over subspaces. A sphere's points become one column,
    of shape (size, 1).
    """

    value_and_gradient = None

    def __init__(self, problem: Any):
        import pymanopt

        if not isinstance(problem, pymanopt.Problem):
            raise TypeError(
                f"a pymanopt.Problem is needed, got {type(problem).__module__}."
                f"{type(problem).__name__}"
            )
        self.problem = problem
        manifold = problem.manifold
        self._product = isinstance(manifold, pymanopt.manifolds.Product)
        parts = [_described(part) for part in (manifold.manifolds if self._product else [manifold])]
        dtypes = {part.dtype for part in parts}
        if len(dtypes) > 1:
            raise TypeError(
                f"{manifold} mixes real and complex blocks; the blocks of one problem share a "
                "dtype: state all of them as complex (ComplexEuclidean, UnitaryGroup)"
            )
        self._parts = parts
        self.like = np.empty(0, dtype=dtypes.pop())
        if self._product:
            self.shape: Any = tuple(part.shape for part in parts)
            self.constraint: Any = tuple(part.constraint for part in parts)
            signs = tuple(part.component for part in parts)
            self.component: Any = signs if any(signs) else None
        else:
            self.shape, self.constraint = parts[0].shape, parts[0].constraint
            self.component = parts[0].component
        try:
            self._gradient = problem.euclidean_gradient
        except NotImplementedError:
            raise _no_gradient(problem) from None
        self.hessp = self._hessian_product if self._has_hessian() else None
        # PyTorch warns about memory that it may not write to.
        functions = (problem.cost, self._gradient)
        self._torch = any("PyTorch" in str(inspect.unwrap(function)) for function in functions)

    def __repr__(self) -> str:
        return f"PymanoptProblem({self.problem.manifold})"

    def _has_hessian(self) -> bool:
        try:
            # Pymanopt turns its own tangent vectors into matrices around the user's function;
            # here they are matrices already, so the function inside is called.
            hessian = self.problem.euclidean_hessian
        except NotImplementedError:
            return False
        self._hessian = getattr(hessian, "__wrapped__", hessian)
        return True

    def fun(self, x: Variable) -> Any:
        value = self.problem.cost(self._point(x))
        return value if type(value) is float else np.asarray(value)[()]

    def grad(self, x: Variable) -> Variable:
        return self._variable(self._gradient(self._point(x)))

    def _hessian_product(self, x: Variable, v: Variable) -> Variable:
        return self._variable(self._hessian(self._point(x), self._point(v)))

    def _point(self, x: Variable) -> Any:
        arrays = x if self._product else (x,)
        arrays = [a.reshape(part.theirs) for a, part in zip(arrays, self._parts, strict=True)]
        if self._torch:
            arrays = [_writable(a) for a in arrays]
        return arrays if self._product else arrays[0]

    def _variable(self, gradient: Any) -> Variable:
        arrays = gradient if self._product else (gradient,)
        arrays = tuple(
            np.asarray(g).reshape(part.shape) for g, part in zip(arrays, self._parts, strict=True)
        )
        return arrays if self._product else arrays[0]


def problem_from_pymanopt(problem: Any) -> PymanoptProblem:
    """A ``pymanopt.Problem``, as ``lo.minimize`` takes it.

    Parameters
    ----------
    problem : pymanopt.Problem
        On Stiefel, Grassmann (real or complex), SpecialOrthogonalGroup, UnitaryGroup, Sphere,
        Euclidean, ComplexEuclidean, or a Product of them; of any autodiff backend, or with a
        Euclidean gradient.

    Returns
    -------
    PymanoptProblem

    Raises
    ------
    TypeError
        Another manifold, or a problem that has a Riemannian gradient only.
    """
    return PymanoptProblem(problem)


@dataclass(frozen=True)
class _Part:
    """One manifold: its shape here and in pymanopt, what holds on it, and where it is connected."""

    shape: tuple[int, ...]
    theirs: tuple[int, ...]
    constraint: Any
    dtype: Any
    component: int | None = None


def _described(manifold: Any) -> _Part:
    from pymanopt import manifolds

    real = (
        manifolds.Stiefel, manifolds.Grassmann, manifolds.SpecialOrthogonalGroup,
        manifolds.Euclidean, manifolds.Sphere,
    )  # fmt: skip
    complex_ = (manifolds.UnitaryGroup, manifolds.ComplexGrassmann, manifolds.ComplexEuclidean)
    if not isinstance(manifold, real + complex_):
        names = ", ".join(sorted(kind.__name__ for kind in real + complex_))
        raise TypeError(
            f"the manifold {manifold} (pymanopt's {type(manifold).__name__}) has no counterpart "
            f"here; the supported ones are {names}, and Product of them"
        )
    shape = tuple(int(size) for size in manifold.zero_vector(None).shape)
    dtype = np.dtype(np.complex128 if isinstance(manifold, complex_) else np.float64)
    if isinstance(manifold, (manifolds.Euclidean, manifolds.ComplexEuclidean)):
        return _Part(shape, shape, Euclidean(), dtype)
    if isinstance(manifold, manifolds.Sphere):
        return _Part((math.prod(shape), 1), shape, Stiefel(), dtype)
    rotations = isinstance(manifold, manifolds.SpecialOrthogonalGroup)
    return _Part(shape, shape, Stiefel(), dtype, 1 if rotations else None)


def _no_gradient(problem: Any) -> TypeError:
    only = (
        "only a Riemannian gradient"
        if getattr(problem, "_riemannian_gradient", None) is not None
        else "no gradient"
    )
    return TypeError(
        f"this pymanopt.Problem has {only}; the landing leaves the manifold and needs the "
        "Euclidean one: pass euclidean_gradient= to pymanopt.Problem, or write the cost with the "
        "autograd, jax or pytorch backend (pymanopt.function.autograd(manifold), ...), which "
        "derive it"
    )


def _writable(x: np.ndarray) -> np.ndarray:
    """A view that may be written to, where NumPy allows it; a copy elsewhere."""
    x = x.view()
    try:
        x.flags.writeable = True
    except ValueError:
        return x.copy()
    return x
