"""The battery: every method on every problem, from one start, interleaved."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.bench import runs
from landingopt.bench.battery import Family, Unavailable
from landingopt.bench.products import counted_products
from landingopt.bench.summary import REACH, Record
from landingopt.stiefel import polar

METHODS = (*runs.OURS, *runs.PYMANOPT)

# A pymanopt solver this much slower than the fastest of them, and slower than this many seconds, is
# timed by its first run alone: it cannot be "the best of pymanopt".
_HOPELESS, _DEAR = 1.5, 0.5


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes
    ----------
    families : list of Family
    methods : list of str
        Names of :data:`METHODS`.
    seeds : int, optional
        For every problem; by default each has a number of its own.
    repeats : int
    tols : tuple of float
        Times are medians of ``repeats`` runs at the first one, and of one run at the others.
    timeout : float
        Seconds of wall time for one run.
    """

    families: Sequence[Family]
    methods: Sequence[str] = METHODS
    seeds: int | None = None
    repeats: int = 5
    tols: tuple[float, ...] = (1e-6, 1e-10)
    timeout: float = 20.0


def run_battery(settings: Settings, say: Callable[[str], Any] = lambda line: None) -> list[Record]:
    """All records, problem by problem; ``say`` gets a line for each step.

    For each problem and seed: first every method once, untimed, for the verdict of the judge and the
    counts; then ``repeats`` rounds, each of them all solved methods once in an order drawn anew.
    """
    chosen = {name: runs.method(name) for name in settings.methods}
    records = []
    for family in settings.families:
        for seed in range(settings.seeds or family.seeds):
            begin = time.perf_counter()
            try:
                problem = family.make(seed)
            except Unavailable as reason:
                say(f"{family.name} is left out: {reason}")
                break
            instance = _Instance(family, problem, seed, chosen, settings)
            records += instance.run()
            say(f"{family.name}, seed {seed}: {time.perf_counter() - begin:.1f} s")
    return records


@dataclass
class _Measured:
    """One method at one tolerance while it is measured."""

    name: str
    tol: float
    verdict: runs.Verdict
    status: str
    claimed: bool
    fun: float
    counts: tuple[int, int, int, int]
    products: float = math.nan
    calls: runs.Calls | None = None
    counting_seconds: float = math.nan
    seconds: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)

    @property
    def solved(self) -> bool:
        return self.verdict.solved(self.tol)


class _Instance:
    """One problem with one start."""

    def __init__(
        self, family: Family, problem: Any, seed: int, chosen: dict[str, Any], settings: Settings
    ):
        self.family, self.problem, self.seed = family, problem, seed
        self.chosen, self.settings = chosen, settings
        self.x0 = family.start(problem, seed)
        n, p = problem.shape
        self._unit = n * p * p

    def run(self) -> list[Record]:
        first, *later = self.settings.tols
        measured = [m for name in self.chosen for m in self._verdicts(name)]
        timed = [m for m in measured if m.tol == first and m.solved]
        self._rounds(timed)
        for m in measured:
            if m.tol in later and m.solved and m.name in runs.OURS:
                if m.counting_seconds < _DEAR:
                    self._time(m)
                else:  # the microseconds of the counting are nothing here
                    m.seconds = m.outside = [m.counting_seconds]
        each = runs.oracle_seconds(self.problem, self.x0)
        return [self._record(m, each) for m in measured]

    # -- untimed: the verdict and the counts --------------------------------------------------

    def _verdicts(self, name: str) -> Iterator[_Measured]:
        if name in runs.PYMANOPT:
            yield from self._of_pymanopt(name)
            return
        tols = self.settings.tols
        for tol in tols:
            yield self._of_ours(name, tol)
        if self.seed == 0 and min(tols) > REACH and self._reachable(REACH):
            yield self._of_ours(name, REACH)

    def _reachable(self, tol: float) -> bool:
        """Is ``tol`` well above the rounding of the gradient, 100 u ||G||?"""
        rounding = 100.0 * float(np.finfo(self.x0.dtype).eps)
        whole = float(np.linalg.norm(self.problem.grad(self.x0)))
        return rounding * whole <= tol * runs.gradient_norm(self.problem, self.x0)

    def _of_ours(self, name: str, tol: float) -> _Measured:
        with counted_products() as total:
            result = runs.solve(
                self.chosen[name], self.problem, self.x0, tol, self.settings.timeout
            )
        measured = self._judged(name, tol, result.x, result, result.success)
        measured.products = total[0] / self._unit
        measured.counting_seconds = result.seconds
        return measured

    def _of_pymanopt(self, name: str) -> Iterator[_Measured]:
        """One run serves all tolerances: a looser one is met on the way."""
        tols, timeout = self.settings.tols, self.settings.timeout
        seen, result = runs.cross(name, self.problem, self.x0, tols, timeout)
        for tol in tols:
            if tol not in seen:
                yield self._judged(name, tol, result.x, result, result.success)
                continue
            there = seen[tol]
            measured = self._judged(name, tol, there.x, result, True)
            measured.status, measured.calls = "CONVERGED", there.calls
            measured.counts = (there.iterations, there.calls.f, there.calls.g, there.calls.h)
            measured.seconds, measured.outside = [there.seconds], [there.seconds]
            yield measured

    def _judged(self, name: str, tol: float, x: Array, result: Any, claimed: bool) -> _Measured:
        finite = bool(np.isfinite(x).all())
        return _Measured(
            name,
            tol,
            runs.judge(self.problem, x, self.x0),
            runs.status_word(name, result),
            bool(claimed),
            float(self.problem.fun(polar(x))) if finite else math.nan,
            (result.nit, result.nfev, result.njev, result.nhev),
        )

    # -- timed --------------------------------------------------------------------------------

    def _rounds(self, timed: list[_Measured]) -> None:
        """Interleaved runs; what the bridge's clock said of pymanopt gives way to its own time."""
        theirs = [m for m in timed if m.name in runs.PYMANOPT]
        limit = max(_HOPELESS * min((m.seconds[0] for m in theirs), default=0.0), _DEAR)
        native = {
            m.name: runs.Native(m.name, self.problem, self.x0, m.counts[0])
            for m in theirs
            if m.seconds[0] <= limit
        }
        running = [m for m in timed if m.name in runs.OURS or m.name in native]
        clocked: dict[str, list[float]] = {name: [] for name in native}
        order = np.random.default_rng([self.seed, 2])
        for _ in range(self.settings.repeats):
            for i in order.permutation(len(running)):
                m = running[i]
                if m.name in runs.OURS:
                    self._time(m)
                elif m.name in native:
                    x, seconds = native[m.name].run()
                    clocked[m.name].append(seconds)
                    if not runs.judge(self.problem, x, self.x0).solved(m.tol):
                        del native[m.name]  # rounding has led it elsewhere: the bridge's time stays
        for m in theirs:
            if m.name in native:
                m.seconds = m.outside = clocked[m.name]

    def _time(self, m: _Measured) -> None:
        inside, outside = runs.timed_solve(self.chosen[m.name], self.problem, self.x0, m.tol)
        m.seconds.append(inside)
        m.outside.append(outside)

    # -- the record ---------------------------------------------------------------------------

    def _record(self, m: _Measured, each: runs.OracleSeconds) -> Record:
        clocked = m.solved and bool(m.seconds)
        seconds = statistics.median(m.seconds) if clocked else math.nan
        ideal = runs.ideal_seconds(seconds, m.calls, each) if clocked and m.calls else math.nan
        nit, nfev, njev, nhev = m.counts
        return Record(
            problem=self.family.name,
            seed=self.seed,
            method=m.name,
            tol=m.tol,
            ours=m.name in runs.OURS,
            solved=m.solved,
            status=m.status,
            claimed=m.claimed,
            relative=m.verdict.relative,
            distance=m.verdict.distance,
            fun=m.fun,
            nit=nit,
            nfev=nfev,
            njev=njev,
            nhev=nhev,
            products=m.products,
            seconds=seconds,
            seconds_outside=statistics.median(m.outside) if clocked else math.nan,
            seconds_ideal=ideal,
            repeats=len(m.seconds) if clocked else 0,
        )


# -- the machine ------------------------------------------------------------------------------


@contextmanager
def one_blas_thread() -> Iterator[str]:
    """Limit BLAS to one thread where threadpoolctl is installed; yields a warning, or ""."""
    if importlib.util.find_spec("threadpoolctl") is not None:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
        with threadpoolctl.threadpool_limits(1):
            yield ""
        return
    variables = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    if any(os.environ.get(name) == "1" for name in variables):
        yield ""
        return
    yield (
        "BLAS may use several threads, which makes times noisy and helps the methods unequally: set "
        "OPENBLAS_NUM_THREADS=1 (or MKL_NUM_THREADS=1), or pip install threadpoolctl"
    )


def machine() -> str:
    """Versions and cores, one line."""
    config: Any = np.show_config(mode="dicts")
    blas = (config or {}).get("Build Dependencies", {}).get("blas", {})
    return (
        f"NumPy {np.__version__} ({blas.get('name', 'BLAS unknown')} {blas.get('version', '')}), "
        f"pymanopt {importlib.metadata.version('pymanopt')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores"
    )


def busy() -> str:
    """A warning where other processes take the machine's time, or ""."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return ""
    cores = os.cpu_count() or 1
    if load < 0.6 * cores:
        return ""
    return f"other processes are running (load {load:.1f} on {cores} cores): times will be noisy"
