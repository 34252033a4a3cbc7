"""Single runs of our methods and of pymanopt's solvers: the judge, the clock, the counts."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import landingopt as lo
from landingopt._xp import Array
from landingopt.observe.stop import RUNNING, _Joinable
from landingopt.status import Status

OURS: dict[str, Callable[[], Any]] = {
    "landing": lo.landing,
    "landing-lbfgs": lo.landing_lbfgs,
    "landing-cg": lo.landing_cg,
    "landing-newton": lo.landing_newton,
}
PYMANOPT = {
    "pymanopt-sd": "SteepestDescent",
    "pymanopt-cg": "ConjugateGradient",
    "pymanopt-tr": "TrustRegions",
}
ITERATIONS_OURS = 10_000
ITERATIONS_PYMANOPT = 3_000
SMALLEST_STEP = 1e-30  # pymanopt's min_step_size: only a step of 0, a stall, ends a run
SLACK = 1e-3  # of the judge, against the rounding of its ratio
LANDED = 1e-8  # the largest distance of what is returned, as in the library's stop rule
_NO_ROWS = lo.Every(10**9)  # the first and the last only


def method(name: str) -> Any:
    """The method of this name."""
    if name in PYMANOPT:
        return lo.pymanopt(PYMANOPT[name], min_step_size=SMALLEST_STEP)
    return OURS[name]()


# -- the judge --------------------------------------------------------------------------------


def gradient_norm(problem: Any, x: Array) -> float:
    """||G - x sym(x^T G)||_F with G the problem's gradient, in plain NumPy."""
    g = np.array(problem.grad(x))
    c = x.T @ g
    return float(np.linalg.norm(g - x @ (0.5 * (c + c.T))))


@dataclass(frozen=True)
class Verdict:
    """What the judge measured on an x, whatever its solver says of it."""

    relative: float
    distance: float

    def solved(self, tol: float) -> bool:
        """Is x where ``tol`` asks it to be?  A number that is not finite never is."""
        within = self.relative <= tol * (1.0 + SLACK)
        return bool(within and self.distance <= LANDED * (1.0 + SLACK))


def judge(problem: Any, x: Array, x0: Array) -> Verdict:
    """The gradient norm at the closest feasible point of ``x`` over that at the start ``x0``.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(5, rng=0)
    >>> x0 = lo.stiefel.random(5, rng=0)
    >>> judge(problem, problem.optimum()[0], x0).solved(1e-10), judge(problem, x0, x0).relative
    (True, 1.0)
    """
    if not np.isfinite(x).all():
        return Verdict(math.inf, math.inf)
    distance = float(np.linalg.norm(x.T @ x - np.eye(x.shape[1])))
    left, _, right = np.linalg.svd(x, full_matrices=False)
    closest = x0 if x is x0 else left @ right
    return Verdict(gradient_norm(problem, closest) / gradient_norm(problem, x0), distance)


# -- our methods ------------------------------------------------------------------------------


def solve(chosen: Any, problem: Any, x0: Array, tol: float, timeout: float = math.inf) -> Any:
    """One of our methods through ``lo.minimize``, with hardly a row recorded."""
    rule = (lo.GradientNorm(rtol=tol) & lo.Distance(LANDED)) | lo.MaxIterations(ITERATIONS_OURS)
    if timeout < math.inf:
        rule = rule | lo.Timeout(timeout)
    with quiet():
        return lo.minimize(
            problem, x0, chosen, stop=rule, record=_NO_ROWS, rng=0, on_failure="return"
        )


def timed_solve(chosen: Any, problem: Any, x0: Array, tol: float) -> tuple[float, float]:
    """Seconds by the method's own clock, and of the whole call."""
    with no_collection():
        begin = time.perf_counter()
        result = solve(chosen, problem, x0, tol)
        whole = time.perf_counter() - begin
    return result.seconds, whole


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, and nothing that a solver prints (pymanopt's trust regions do)."""
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def no_collection() -> Iterator[None]:
    """Without Python's garbage collector, which would hit one method rather than another."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def frozen() -> Iterator[None]:
    """What is there now is no garbage: collections in between, as before each run, leave it alone.

    With the libraries that pymanopt imports a collection takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# -- pymanopt's solvers, watched by our bridge ------------------------------------------------


@dataclass(frozen=True)
class Calls:
    """Calls of f, gradient and Hessian product, and the different points of the first two."""

    f: int
    f_points: int
    g: int
    g_points: int
    h: int


@dataclass(frozen=True)
class Crossing:
    """Where a run first met a tolerance."""

    x: Array
    iterations: int
    calls: Calls
    seconds: float


class Watched:
    """A problem that notes at which points it is called; they are told apart by their bytes.

    ``overhead`` is the seconds that the notes took.
    """

    def __init__(self, problem: Any):
        self._problem = problem
        self.shape, self.constraint, self.like = problem.shape, problem.constraint, problem.like
        self.f_points: set[int] = set()
        self.g_points: set[int] = set()
        self.overhead = 0.0
        self.value_and_gradient = None

    def _note(self, points: set[int], x: Array) -> None:
        begin = time.perf_counter()
        points.add(hash(x.tobytes()))
        self.overhead += time.perf_counter() - begin

    def fun(self, x: Array) -> Any:
        self._note(self.f_points, x)
        return self._problem.fun(x)

    def grad(self, x: Array) -> Array:
        self._note(self.g_points, x)
        return self._problem.grad(x)

    def hessp(self, x: Array, v: Array) -> Array:
        return self._problem.hessp(x, v)


class Crossings(_Joinable):
    """A stop rule, met when all tolerances are; notes where each was met first."""

    limits = False

    def __init__(self, tols: Sequence[float], problem: Watched):
        self.tols, self.problem = tols, problem
        self.seen: dict[float, Crossing] = {}

    def limit(self) -> float:
        return math.inf

    def verdict(self, row: Any) -> int:
        norm = row.gradient_norm
        if norm is not None and row.distance <= LANDED:
            for tol in self.tols:
                if tol not in self.seen and norm <= tol * row.first_gradient_norm:
                    self.seen[tol] = self._crossing(row)
        return int(Status.CONVERGED) if len(self.seen) == len(self.tols) else RUNNING

    def _crossing(self, row: Any) -> Crossing:
        counts, watched = row._observer.oracle.counts, self.problem
        calls = Calls(
            counts.nfev,
            min(len(watched.f_points), counts.nfev),
            counts.njev,
            min(len(watched.g_points), counts.njev),
            counts.nhev,
        )
        return Crossing(row.x.copy(), row.iteration, calls, row.seconds - watched.overhead)


def cross(
    name: str, problem: Any, x0: Array, tols: Sequence[float], timeout: float
) -> tuple[dict[float, Crossing], Any]:
    """One run of a pymanopt solver through our bridge: where it met each tolerance, and its end."""
    watched = Watched(problem)
    rule = Crossings(tols, watched)
    stop = rule | lo.MaxIterations(ITERATIONS_PYMANOPT) | lo.Timeout(timeout)
    with quiet():
        result = lo.minimize(
            watched, x0, method(name), stop=stop, record=_NO_ROWS, rng=0, on_failure="return"
        )
    return rule.seen, result


def status_word(name: str, result: Any) -> str:
    """The status; pymanopt's own stop, with a step of 0, is a stall."""
    status = Status(result.status)
    return "STALLED" if name in PYMANOPT and status is Status.EXTERNAL else status.name


# -- pymanopt's solvers, alone ----------------------------------------------------------------


class Native:
    """One of pymanopt's solvers on one problem, without our bridge: what it costs by itself.

    ``iterations`` is where our bridge has seen the tolerance met. The run ends at the same iterate by
    pymanopt's ``max_iterations``, which its solvers count differently: ConjugateGradient asks before
    its i-th step whether i is the limit (k + 1 makes k steps), SteepestDescent and TrustRegions
    after it (k). Nothing is spent on finding out that the tolerance is met; SteepestDescent, which
    takes one more step before it looks, would need a gradient and a line search more.
    """

    def __init__(self, name: str, problem: Any, x0: Array, iterations: int):
        import pymanopt
        from pymanopt import manifolds

        self.solver, self.x0 = PYMANOPT[name], x0
        self.limit = iterations + (self.solver == "ConjugateGradient")
        manifold = manifolds.Stiefel(*problem.shape)
        decorated = pymanopt.function.numpy(manifold)
        hessian = decorated(problem.hessp) if self.solver == "TrustRegions" else None
        self.problem = pymanopt.Problem(
            manifold,
            decorated(problem.fun),
            euclidean_gradient=decorated(problem.grad),
            euclidean_hessian=hessian,
        )

    def run(self) -> tuple[Array, float]:
        """The final point and the seconds of ``optimizer.run``."""
        from pymanopt import optimizers

        optimizer = getattr(optimizers, self.solver)(
            max_time=math.inf, max_iterations=self.limit, min_gradient_norm=0.0,
            min_step_size=SMALLEST_STEP, verbosity=0, log_verbosity=0,
        )  # fmt: skip
        x0 = self.x0.copy()
        with quiet(), no_collection():
            begin = time.perf_counter()
            result = optimizer.run(self.problem, initial_point=x0)
            seconds = time.perf_counter() - begin
        return result.point, seconds


# -- what a perfect cache would save ----------------------------------------------------------


@dataclass(frozen=True)
class OracleSeconds:
    """Seconds of one call: f, gradient, both in one call, Hessian product."""

    f: float
    g: float
    fg: float
    h: float


def oracle_seconds(problem: Any, x: Array, budget: float = 0.1) -> OracleSeconds:
    """Medians of interleaved calls, at least five of each, for about ``budget`` seconds."""
    functions: list[Callable[[], Any]] = [
        lambda: problem.fun(x),
        lambda: problem.grad(x),
        lambda: problem.value_and_gradient(x),
        lambda: problem.hessp(x, x),
    ]
    times: list[list[float]] = [[] for _ in functions]
    for function in functions:
        function()
    end = time.perf_counter() + budget
    with no_collection():
        while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 1000):
            for function, seconds in zip(functions, times, strict=True):
                begin = time.perf_counter()
                function()
                seconds.append(time.perf_counter() - begin)
    return OracleSeconds(*(statistics.median(seconds) for seconds in times))


def ideal_seconds(seconds: float, calls: Calls, each: OracleSeconds) -> float:
    """What pymanopt's run of ``seconds`` would take with a perfect cache between it and f.

    T_ideal = T - (N_f - D_f) t_f - (N_g - D_g) t_g - D_g (t_f + t_g - t_fg): every call at a point
    already seen is free (N calls, D different points), and where a gradient is evaluated its f comes
    with it in one call of ``value_and_gradient`` (t_fg), as for the library's own methods. Pymanopt
    evaluates f again after its line search has accepted a point, and the gradient anew in every
    Hessian product. T_ideal is at least what the remaining calls take.

    Examples
    --------
    Two of three values and four of five gradients are repeated; both together cost one of them:

    >>> calls = Calls(f=3, f_points=1, g=5, g_points=1, h=0)
    >>> ideal_seconds(100.0, calls, OracleSeconds(f=1.0, g=1.0, fg=1.0, h=1.0))
    93.0
    """
    together = max(0.0, each.f + each.g - each.fg)
    saved = (calls.f - calls.f_points) * each.f + (calls.g - calls.g_points) * each.g
    saved += calls.g_points * together
    left = calls.f_points * each.f + calls.g_points * (each.g - together) + calls.h * each.h
    return min(seconds, max(seconds - saved, left))
