"""``lo.minimize``: validation, the only loop, and the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from landingopt import _inputs as inputs
from landingopt import _xp, stiefel
from landingopt._xp import Array
from landingopt.methods import Method, landing
from landingopt.objectives import Problem, Variable
from landingopt.observe.observer import Observer
from landingopt.observe.record import Record
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.result import Result
from landingopt.space import Space
from landingopt.status import SolveError, Status


def minimize(
    problem: Problem | Any,
    x0: Variable | None = None,
    method: Any = None,
    *,
    tol: float | None = None,
    stop: Any = None,
    record: Record | None = None,
    rng: np.random.Generator | int | None = None,
    callback: Callable[[Any], Any] | None = None,
    component: Literal["both"] | int | Array | None = None,
    progress: bool = False,
    on_failure: Literal["raise", "return"] = "raise",
    **unknown: Any,
) -> Result:
    """Minimise f over matrices with orthonormal columns.

    Parameters
    ----------
    problem : problem of ``lo.problems``, ``lo.Objective`` or ``pymanopt.Problem``
    x0 : array (n, p), stack (..., n, p), or dict or tuple of blocks, optional
        The start, never changed; random (Haar) without one. Its library, dtype and device are the
        result's. A wide x0 (n < p) means X X^H = I.
    method : method, optional
        ``lo.landing()`` by default.
    tol : float, optional
        Shorthand for ``GradientNorm(rtol=tol)`` in the default stop rule, relative to the first
        point on the manifold; 0 goes down to rounding. From a warm start it asks for more than from
        afar: ``stop=lo.GradientNorm(atol=...)`` does not.
    stop : stop rule, optional
        In place of the default, with u = finfo(dtype).eps:
        ``(GradientNorm(rtol=max(1e-6, 100 u)) & Distance(max(1e-8, 4 u sqrt(p))))
        | MaxIterations(10_000)``. A rule without a limit gets ``| MaxIterations(10_000)``.
    record : Every or LogSpaced, optional
        When rows of the trace are recorded: ``Every(1)``, or ``Every(50)`` on a device. What a row
        measures (f, the gradient norm, the distance) is kept out of ``seconds`` and of the counts but
        costs wall time: with a dear f or many cheap steps pass ``lo.Every(100)``.
    rng : numpy Generator or int, optional
        For the start.
    callback : callable, optional
        ``callback(row)`` at each recorded row, with the trace's columns (``row.iteration``,
        ``row.fun``, ``row.gradient_norm``, ...) and ``row.x``, read-only and reused by the solver:
        copy it to keep it. Returning True or raising StopIteration ends the run.
    component : +1, -1, "both", or an array of signs for a stack, optional
        For real square x: the connected component (sign of det x) to solve in; x0 is reflected
        into it where needed. "both" solves in both and returns the better. Default: x0's.
    progress : bool
        A progress bar.
    on_failure : "raise" or "return"
        What to do with a run that broke (NONFINITE, LEFT_TUBE).

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        For bad input; nothing has been changed.
    SolveError
        Where the run broke; its ``result`` holds what was reached.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> problem = lo.problems.Procrustes.random(20, rng=1)
    >>> result = lo.minimize(problem, tol=1e-10, rng=0)
    >>> x, fun = problem.optimum(component=result.component)
    >>> bool(abs(result.feasible_fun - fun) <= 1e-10 * fun)
    True
    """
    if unknown:
        raise inputs.unknown_keywords(unknown)
    if on_failure not in ("raise", "return"):
        raise ValueError(f'on_failure must be "raise" or "return", got {on_failure!r}')
    problem = inputs.as_problem(problem, x0)
    method = landing() if method is None else inputs.checked_method(method)
    generator = np.random.default_rng(rng)
    x0 = inputs.start(problem, x0, generator)
    options = dict(
        tol=tol, stop=stop, record=record, callback=callback, progress=progress,
        on_failure=on_failure, rng=generator,
    )  # fmt: skip
    given = getattr(problem, "component", None)  # a pymanopt.Problem on rotations: +1
    if given is not None and component is not None and not inputs.same(component, given):
        raise ValueError(
            f"component = {component!r} was given, but the problem lives on rotations, det x = +1; "
            "drop component, or state the problem on the Stiefel manifold"
        )
    component = given if component is None else component
    if isinstance(component, str):
        if component != "both":
            raise ValueError(f'component must be +1, -1, "both" or None, got {component!r}')
        return _minimize_both(problem, x0, method, options)
    if component is not None:
        x0 = inputs.in_component(x0, component)
    return _solve(problem, x0, method, **options)


# -- the loop ---------------------------------------------------------------------------------


@np.errstate(all="ignore")  # what is not finite becomes a status, not a warning
def _loop(
    method: Method, oracle: Oracle, x0: list[Array], observer: Observer
) -> tuple[Point, Method]:
    """The only loop: fill, field, stop, direction, advance."""
    space = oracle.space
    estimator = method.estimator.start(oracle, value=method.search.needs_value)
    observer.begin()
    method = method.tuned(lambda: estimator.curvature(x0))
    field = method.field.start(space)
    direction = method.direction.start(space, oracle)
    search = method.search.start(space, field, method.move, estimator, method.lam)
    point = search.first(x0)
    # The gradient tells when to stop; a minibatch's does not, and k steps draw k of them.
    ahead = not method.stochastic
    if ahead:
        estimator.fill(point)
        field(point)
    observer.start(point)
    fill, choose, advance = estimator.fill, direction.direction, search.advance
    while (ahead and point.iteration < observer.quiet) or not observer(point):
        if not ahead:
            fill(point)
            if point.status is not None:  # the stream has ended
                continue
            field(point)
        point = advance(point, choose(point))
        if ahead:
            fill(point)
            field(point)
    return point, method


def _solve(
    problem: Problem,
    x0: Variable,
    method: Any,
    *,
    tol: float | None,
    stop: Any,
    record: Record | None,
    callback: Callable[[Any], Any] | None,
    progress: bool,
    on_failure: str,
    rng: np.random.Generator | None = None,
) -> Result:
    space = Space(problem.shape, problem.constraint, x0)
    oracle = Oracle(problem, space, rng)
    stochastic = bool(getattr(method, "stochastic", False))
    if hasattr(problem, "grad_batch") and not stochastic:
        problem.grad(x0)  # type: ignore[misc] # it says what a stream is for
    if isinstance(method, Method) and method.search.needs_value and not oracle.has_value:
        raise TypeError(
            f"{method.name} reads f, and this problem has no fun; pass fun= to lo.Objective, or use "
            "lo.landing(step=...), which needs the gradient only"
        )
    if space.array and space.blocks[0].batch:
        inputs.look_at_stack(oracle, x0)
    if stochastic:
        inputs.look_at_sum(oracle, x0)
    rule, note = inputs.stop_rule(stop, tol, oracle, stochastic)
    record = inputs.checked_record(record, space, stochastic)
    if tol is not None and not getattr(record, "full", True):
        raise ValueError(
            f"tol = {tol!r} needs the gradient norm, which record={record!r} does not measure; drop "
            "full=False, or tol"
        )
    observer = Observer(
        oracle,
        stop=rule,
        record=record,
        callback=inputs.checked_callback(callback),
        progress=progress,
        label=getattr(method, "name", ""),
    )
    blocks = [_xp.copy(x) for x in space.to_blocks(x0)]
    try:
        if isinstance(method, Method):
            point, method = _loop(method, oracle, blocks, observer)
        else:
            point = method.drive(oracle, blocks, observer)
    finally:
        observer.close()
    result = _result(oracle, observer, point, method, note)
    before, point.previous = point.previous, None  # the two points of a run know each other
    if before is not None:
        before.previous = None
    broken = np.isin(result.status, (int(Status.NONFINITE), int(Status.LEFT_TUBE)))
    if np.any(broken) and on_failure == "raise":
        raise SolveError(
            result.message + ' Pass on_failure="return" to get what was reached.', result
        )
    return result


def _result(oracle: Oracle, observer: Observer, point: Point, method: Any, note: str) -> Result:
    space, measure, counts = oracle.space, observer.measure, oracle.counts
    seconds = observer.clock.seconds()
    last = observer.last
    x = [_xp.copy(a) for a in point.x]
    finite = bool(np.any(np.asarray(last["distance"]) < 1e8))  # some matrix did not break
    feasible = measure.feasible_or_none(point) if finite else x
    singular = feasible is None
    if feasible is None:
        feasible = [a * math.nan for a in x]
        note += " x has not full rank to working precision: there is no closest feasible point."
    user, feasible_user = space.to_user(x), space.to_user(feasible)
    fun = feasible_fun = last["fun"]
    if oracle.has_value and finite and observer.whole and not singular:
        with oracle.uncounted():
            feasible_fun = oracle.value(space.readonly(feasible_user))
    elif singular:
        feasible_fun = feasible_fun * math.nan
    status = observer.status
    matrices = space.array and space.blocks[0].stiefel
    whole = matrices and not singular and bool(np.all(np.asarray(last["distance"]) < 1e8))
    component = stiefel.component(feasible_user) if whole else None
    success = bool(np.all([Status(s).success for s in np.ravel(status)]))
    if space.separable:
        status = np.asarray(status)
    return Result(
        x=user,
        feasible_x=feasible_user,
        fun=fun,
        feasible_fun=feasible_fun,
        gradient_norm=last["gradient_norm"],
        distance=last["distance"],
        nit=point.iteration,
        nfev=counts.nfev,
        njev=counts.njev,
        nhev=counts.nhev,
        seconds=seconds,
        status=status,
        success=success,
        message=_message(status, last, component, observer) + note + observer.note,
        component=component,
        trace=observer.trace,
        method=method,
    )


def _message(status: Any, last: dict[str, Any], component: Any, observer: Observer) -> str:
    given = getattr(observer.oracle.problem, "component", None) is not None
    if isinstance(status, Status):
        text = status.message
    else:
        codes, counts = np.unique(status, return_counts=True)
        text = " ".join(
            f"{count} of {np.size(status)}: {Status(code).message}"
            for code, count in zip(codes, counts, strict=True)
        )
    first = observer.first_gradient_norm
    if status is Status.MAX_EPOCHS:
        text += " More of them: stop=lo.GradientNorm(rtol=...) | lo.MaxEpochs(...)."
    if observer.whole:
        sampled = isinstance(status, Status) and observer.oracle.counts.minibatches > 0
        if sampled and status in _LIMITS and last["gradient_norm"] > 2.0 * first:
            text += " The gradient has grown: the step is too long for some of the terms."
        text += f" ||grad|| {np.max(last['gradient_norm']):.2e} (at the start {np.max(first):.2e}),"
    text += f" distance {np.max(last['distance']):.2e}."
    if observer.trace["iteration"][-1] == 0 and isinstance(status, Status) and status.success:
        text += (
            " The start itself is stationary, which saddles and maxima are too: try another start."
        )
    if component is not None and not observer.returns:
        signs = f"{component:+d}" if isinstance(component, int) else component.tolist()
        text += f" x has ended in the component det x = {signs}."
    elif isinstance(component, int):
        text += f" The run stayed in the component det x = {component:+d} of its start" + (
            "." if given else '; component="both" solves in the other one too.'
        )
    return text


_LIMITS = (Status.MAX_EPOCHS, Status.MAX_ITERATIONS, Status.TIMEOUT, Status.STREAM_ENDED)


# -- both components --------------------------------------------------------------------------


def _minimize_both(problem: Problem, x0: Variable, method: Any, options: dict[str, Any]) -> Result:
    if hasattr(x0, "ndim"):
        inputs.sign_of(x0, "both")
    if not hasattr(x0, "ndim") or x0.ndim != 2:
        raise ValueError(
            'component="both" takes one square matrix; for a stack pass component=+1 or -1 (or an '
            "array of signs) and compare feasible_fun"
        )
    if problem.fun is None and problem.value_and_gradient is None:
        raise TypeError(
            'component="both" compares values of f, and this problem has no fun; pass fun= to '
            "lo.Objective, or component=+1 or -1"
        )
    runs = [_solve(problem, inputs.in_component(x0, sign), method, **options) for sign in (1, -1)]
    better, other = sorted(runs, key=lambda run: run.feasible_fun)
    better.message = better.message.split(" The run stayed in the component")[0] + (
        f" Solved in both components: f = {better.feasible_fun:.10g} with det x = "
        f"{better.component:+d}, f = {other.feasible_fun:.10g} with det x = {other.component:+d}; "
        "counts and seconds are of both runs, the trace is the better one's."
    )
    for name in ("nit", "nfev", "njev", "nhev", "seconds"):
        setattr(better, name, getattr(better, name) + getattr(other, name))
    return better
