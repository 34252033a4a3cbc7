"""Whole solves of large problems, the gradient included: ours, retractions, pymanopt's solvers alone.

All start at the same X and go to the same relative gradient norm, which is measured anew, off the
clock, at the closest feasible point. Of a stack our methods bring every matrix there; pymanopt, on the
stacked manifold, stops where the norm of the whole stack is there, which is less.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import landingopt as lo
from landingopt._xp import Array
from landingopt.bench import large_problems, large_shares, runs
from landingopt.bench.large_problems import Large
from landingopt.bench.step import blas_threads, quartiles
from landingopt.status import Status

OURS: dict[str, Callable[[], Any]] = {
    "landing": lo.landing,
    "landing-lbfgs": lo.landing_lbfgs,
    "QR": lambda: lo.riemannian(lo.retractions.QR(), search=lo.searches.LineSearch()),
}
PYMANOPT = ("pymanopt-cg", "pymanopt-sd")
METHODS = (*OURS, *PYMANOPT)
PATIENCE, AT_LEAST = 6.0, 1.0  # times the fastest run, and seconds
# SteepestDescent of pymanopt takes a step more after it has looked at the gradient, which may be larger
# then: where what it returns is not there, it is asked for less.
TRIES = 3
SHARED = 10  # iterations whose time is divided
SHARED_SECONDS = 1.5  # for so long they are repeated


@dataclass(frozen=True)
class Settings:
    """What is solved.

    Attributes
    ----------
    problems : sequence of str
        As :func:`landingopt.bench.large_problems.make` reads them.
    methods : sequence of str
        Of METHODS.
    tol : float, optional
        Relative gradient norm; by default each problem's own.
    repeats : int
        Rounds, each with all methods in turn; fewer of what takes seconds.
    threads : int
        Of BLAS.
    timeout : float
        Seconds for one run, of which none gets more than PATIENCE times those of a faster one before it.
    budget : float
        Seconds for one method's repeats.
    """

    problems: Sequence[str] = large_problems.SOLVES
    methods: Sequence[str] = METHODS
    tol: float | None = None
    repeats: int = 5
    threads: int = 1
    timeout: float = 45.0
    budget: float = 4.0


@dataclass(frozen=True)
class Solve:
    """One method on one problem.

    Attributes
    ----------
    tol : float
        What was asked for.
    solved : bool
        The judge's verdict.
    status : str
        What the solver says.
    relative, gap, distance : float
        Of what came back: gradient norm and f - f* over those at the start, both at the closest
        feasible point, and ||X^T X - I||_F, of a stack the largest.
    iterations : int
    seconds, seconds_low, seconds_high : float
        Of a solve, median and quartiles; where it is not solved, of the attempt.
    ratio : float
        Over the landing's seconds; NaN where one of the two is not solved.
    seconds_iteration : float
    products, factorisations, elementwise, python : float
        Shares of the time of an iteration, see :mod:`landingopt.bench.large_shares`; NaN for
        pymanopt.
    count : float
        Multiplications in an iteration's matrix products, in units of n p^2 for each matrix.
    rounds : int
    """

    problem: str
    method: str
    tol: float
    threads: int
    solved: bool
    status: str
    relative: float
    gap: float
    distance: float
    iterations: int
    seconds: float
    seconds_low: float
    seconds_high: float
    ratio: float
    seconds_iteration: float
    products: float = math.nan
    factorisations: float = math.nan
    elementwise: float = math.nan
    python: float = math.nan
    count: float = math.nan
    rounds: int = 1


@dataclass
class _Run:
    """One method while it is measured."""

    name: str
    x: Array
    status: str
    iterations: int
    seconds: list[float] = field(default_factory=list)


def run(settings: Settings, say: Callable[[str], Any] = lambda line: None) -> list[Solve]:
    """All rows, problem by problem; ``say`` gets a line for each.

    Raises
    ------
    ValueError
        What is no problem, or a number of threads that cannot be set.
    """
    rows: list[Solve] = []
    if any(name in PYMANOPT for name in settings.methods):
        importlib.import_module("pymanopt")
    with blas_threads(settings.threads), runs.frozen():
        for name in settings.problems:
            begin = time.perf_counter()
            rows += _solves(large_problems.make(name), settings)
            say(f"{name}: {time.perf_counter() - begin:.1f} s")
    return rows


def tolerance(name: str, settings: Settings) -> float:
    if settings.tol is not None:
        return settings.tol
    return large_problems.TOLS.get(name, large_problems.TOL)


def _solves(large: Large, settings: Settings) -> list[Solve]:
    tol = tolerance(large.name, settings)
    found: dict[str, _Run] = {}
    verdicts: dict[str, tuple[bool, float, float]] = {}
    asked = dict.fromkeys(settings.methods, tol)
    timeout = settings.timeout
    for name in settings.methods:
        for _ in range(TRIES):
            found[name] = solve(name, large, asked[name], timeout)
            verdicts[name] = _verdict(large, found[name].x, tol)
            if verdicts[name][0] or found[name].status != "CONVERGED":
                break
            asked[name] *= 0.3
        if verdicts[name][0]:
            timeout = min(timeout, max(PATIENCE * found[name].seconds[0], AT_LEAST))
    again = {
        name: min(settings.repeats, int(settings.budget / each.seconds[0]))
        for name, each in found.items()
        if verdicts[name][0]
    }
    order = np.random.default_rng(0)
    for name, count in again.items():
        if count > 1:  # the first run has warmed up
            found[name].seconds.clear()
    for i in range(settings.repeats):
        for name in order.permutation(list(again)):
            if again[name] > max(i, 1):
                run = solve(name, large, asked[name], settings.timeout)
                found[name].seconds += run.seconds
    landing = found.get("landing")
    first = quartiles(landing.seconds)[1] if landing and verdicts["landing"][0] else math.nan
    return [_row(large, each, tol, verdicts[name], first, settings) for name, each in found.items()]


def _verdict(large: Large, x: Array, tol: float) -> tuple[bool, float, float]:
    """Solved, relative gradient norm, distance."""
    relative, distance = large.relative(x), large_problems.distance(x)
    slack = 1.0 + runs.SLACK
    return bool(relative <= tol * slack and distance <= runs.LANDED * slack), relative, distance


def _row(
    large: Large,
    run: _Run,
    tol: float,
    verdict: tuple[bool, float, float],
    landing: float,
    settings: Settings,
) -> Solve:
    low, seconds, high = quartiles(run.seconds)
    each = seconds / max(run.iterations, 1)
    parts = {}
    if run.name in OURS:
        rounds = int(np.clip(SHARED_SECONDS / max(SHARED * each, 1e-9), 1, settings.repeats))
        few = min(SHARED, max(run.iterations, 2))
        parts = vars(large_shares.shares(OURS[run.name](), large, few, rounds))
    return Solve(
        problem=large.name,
        method=run.name,
        tol=tol,
        threads=settings.threads,
        solved=verdict[0],
        status=run.status,
        relative=verdict[1],
        gap=large.gap(run.x),
        distance=verdict[2],
        iterations=run.iterations,
        seconds=seconds,
        seconds_low=low,
        seconds_high=high,
        ratio=seconds / landing if verdict[0] else math.nan,
        seconds_iteration=each,
        rounds=len(run.seconds),
        **parts,
    )


# -- one run --------------------------------------------------------------------------------------


def solve(name: str, large: Large, tol: float, timeout: float) -> _Run:
    """One run of one of METHODS."""
    if name in PYMANOPT:
        return _of_pymanopt(name, large, tol, timeout)
    with runs.no_collection():
        result = runs.solve(OURS[name](), large.problem, large.x0, tol, timeout)
    status = Status(int(np.max(result.status)))
    return _Run(name, result.x, status.name, int(result.nit), [result.seconds])


def _of_pymanopt(name: str, large: Large, tol: float, timeout: float) -> _Run:
    """A solver of pymanopt's, which stops by its own gradient norm; the seconds of ``run``."""
    import pymanopt
    from pymanopt import manifolds, optimizers

    *stack, n, p = large.shape
    manifold = manifolds.Stiefel(n, p, k=math.prod(stack))
    decorated = pymanopt.function.numpy(manifold)
    # Without one matrix's leading axis of 1, which the manifold does not have.
    shape = large.shape if math.prod(stack) > 1 else (n, p)
    problem = pymanopt.Problem(
        manifold,
        decorated(lambda x: large.fun(x.reshape(large.shape))),
        euclidean_gradient=decorated(
            lambda x: large.problem.grad(x.reshape(large.shape)).reshape(shape)
        ),
    )
    optimizer = getattr(optimizers, runs.PYMANOPT[name])(
        max_time=timeout, max_iterations=10**9, min_gradient_norm=tol * large.first_norm,
        min_step_size=runs.SMALLEST_STEP, verbosity=0, log_verbosity=0,
    )  # fmt: skip
    x0 = large.x0.reshape(shape).copy()
    with runs.quiet(), runs.no_collection():
        begin = time.perf_counter()
        result = optimizer.run(problem, initial_point=x0)
        seconds = time.perf_counter() - begin
    word = "GIVEN UP" if "time" in result.stopping_criterion else "STALLED"
    if "grad norm" in result.stopping_criterion:
        word = "CONVERGED"
    return _Run(name, result.point.reshape(large.shape), word, result.iterations, [seconds])
