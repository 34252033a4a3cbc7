"""What the records say: ratios, means, bounds, performance profiles. Pure functions, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from landingopt.table import _power

REFERENCE = 1e-6  # the tolerance of the ratios that the README reports
REACH = 1e-12  # what our methods are asked for besides, for one seed and without a clock


@dataclass(frozen=True)
class Record:
    """One run: problem, seed, method, tolerance; seconds are nan where it is not solved.

    Attributes
    ----------
    ours : bool
        Ours, or pymanopt's.
    solved : bool
        The judge's verdict.
    status : str
        What the solver says.
    claimed : bool
        The solver says that it has solved the problem.
    relative : float
        The judge's gradient norm, relative to that at the start.
    distance, fun : float
        ||X^T X - I||_F, and f at the closest feasible point.
    products : float
        Multiplications of our kernels' matrix products, in units of n p^2; nan for pymanopt.
    seconds : float
        Median over the repeats, by the method's own clock; ``seconds_outside``: of the whole call.
    seconds_ideal : float
        Of pymanopt with a perfect cache; nan for ours.
    repeats : int
        Timed runs; 1 at later tolerances and for pymanopt's slow runs, by our bridge's clock.
    """

    problem: str
    seed: int
    method: str
    tol: float
    ours: bool
    solved: bool
    status: str = "CONVERGED"
    claimed: bool = True
    relative: float = 0.0
    distance: float = 0.0
    fun: float = math.nan
    nit: int = 0
    nfev: int = 0
    njev: int = 0
    nhev: int = 0
    products: float = math.nan
    seconds: float = math.nan
    seconds_outside: float = math.nan
    seconds_ideal: float = math.nan
    repeats: int = 0


def names(values: Iterable[str]) -> list[str]:
    """Without repetition, in order of appearance."""
    return list(dict.fromkeys(values))


def geometric_mean(values: Sequence[float]) -> float:
    """nan without values; 0 where one is 0."""
    if not values:
        return math.nan
    return 0.0 if min(values) <= 0.0 else math.exp(math.fsum(map(math.log, values)) / len(values))


# -- ratios -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProblemRatios:
    """One problem: times of the best pymanopt solver over ours, geometric means over its seeds.

    Attributes
    ----------
    ratios, ideal, whole : dict of method to float
        Against pymanopt as it is, against pymanopt with a perfect cache, and for the time of the whole
        call of ``lo.minimize``. A run of ours that is not solved, where one of pymanopt's is, counts
        as 0, and so does then the mean.
    opponents : list of str
        pymanopt's solvers that were the fastest for some seed.
    compared, seeds : int
        Seeds that some solver of pymanopt has solved, and all.
    """

    problem: str
    ratios: dict[str, float]
    ideal: dict[str, float]
    whole: dict[str, float]
    opponents: list[str]
    compared: int
    seeds: int

    @property
    def best(self) -> str | None:
        """The recommended method: ours with the largest mean ratio; None without a comparison."""
        known = {name: value for name, value in self.ratios.items() if not math.isnan(value)}
        return max(known, key=lambda name: known[name]) if known else None

    @property
    def best_ratio(self) -> float:
        return math.nan if self.best is None else self.ratios[self.best]

    @property
    def best_ideal(self) -> float:
        return math.nan if self.best is None else self.ideal[self.best]


def problem_ratios(records: Sequence[Record], tol: float) -> list[ProblemRatios]:
    """A :class:`ProblemRatios` for each problem, in order of appearance."""
    at = [record for record in records if record.tol == tol]
    return [
        _ratios_of(problem, [r for r in at if r.problem == problem])
        for problem in names(r.problem for r in at)
    ]


def _ratios_of(problem: str, records: list[Record]) -> ProblemRatios:
    methods = names(r.method for r in records if r.ours)
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    ideal: dict[str, list[float]] = {name: [] for name in methods}
    whole: dict[str, list[float]] = {name: [] for name in methods}
    opponents: list[str] = []
    seeds = sorted({r.seed for r in records})
    compared = 0
    for seed in seeds:
        runs = [r for r in records if r.seed == seed]
        theirs = [r for r in runs if not r.ours and r.solved]
        if not theirs:
            continue
        compared += 1
        fastest = min(theirs, key=lambda r: r.seconds)
        opponents.append(fastest.method)
        cached = min(r.seconds_ideal for r in theirs)
        for run in runs:
            if run.ours:
                ratios[run.method].append(fastest.seconds / run.seconds if run.solved else 0.0)
                ideal[run.method].append(cached / run.seconds if run.solved else 0.0)
                outside = fastest.seconds_outside / run.seconds_outside
                whole[run.method].append(outside if run.solved else 0.0)
    return ProblemRatios(
        problem,
        _means(ratios),
        _means(ideal),
        _means(whole),
        names(opponents),
        compared,
        len(seeds),
    )


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: geometric_mean(of_seeds) for name, of_seeds in values.items()}


def mean_ratio(
    rows: Sequence[ProblemRatios],
    method: str | None,
    kind: Literal["ratios", "ideal", "whole"] = "ratios",
) -> float:
    """Over the problems that can be compared, of one method or (None) of the best of each."""
    values = []
    for row in rows:
        name = row.best if method is None else method
        value = getattr(row, kind).get(name or "", math.nan)
        if not math.isnan(value):
            values.append(value)
    return geometric_mean(values)


def count_ratio(
    records: Sequence[Record], ours: str, theirs: str, tol: float, counter: str = "njev"
) -> float:
    """Geometric mean of our count over theirs, over the runs that both have solved."""
    runs = {
        (r.problem, r.seed, r.method): getattr(r, counter)
        for r in records
        if r.tol == tol and r.solved
    }
    values = [
        count / runs[problem, seed, theirs]
        for (problem, seed, method), count in runs.items()
        if method == ours and (problem, seed, theirs) in runs
    ]
    return geometric_mean(values)


# -- what must hold ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """One of the claims: ``holds`` is None where it was not measured."""

    claim: str
    figure: str
    holds: bool | None

    def __str__(self) -> str:
        word = "not measured" if self.holds is None else "PASS" if self.holds else "FAIL"
        return f"{word:<12}  {self.claim}: {self.figure}"


def bounds(records: Sequence[Record], tols: Sequence[float]) -> list[Bound]:
    """The claims of the README, each with its figure."""
    rows = problem_ratios(records, REFERENCE)
    found = [_all_solved(records, tol) for tol in tols]
    found.append(_at_least("landing against the best of pymanopt", mean_ratio(rows, "landing"), 3))
    found.append(_at_least("best of ours for each problem", mean_ratio(rows, None), 4))
    found.append(_slowest(rows))
    found += _quasi_newton(records)
    found.append(_newton(records))
    found.append(_reached(records))
    return found


def _at_least(claim: str, value: float, bound: float) -> Bound:
    measured = not math.isnan(value)
    figure = f"{value:.2f}x" if measured else "-"
    return Bound(f"{claim}, at least {bound:g}x", figure, value >= bound if measured else None)


def _all_solved(records: Sequence[Record], tol: float) -> Bound:
    runs = [r for r in records if r.ours and r.tol == tol]
    solved = sum(r.solved for r in runs)
    figure = f"{solved} of {len(runs)} runs; {_methods(runs)}"
    return Bound(
        f"ours solve every run at {_power(tol)}", figure, solved == len(runs) if runs else None
    )


def _methods(runs: Sequence[Record]) -> str:
    return ", ".join(names(r.method for r in runs))


def _slowest(rows: Sequence[ProblemRatios]) -> Bound:
    compared = [row for row in rows if row.best is not None]
    claim = "the recommended method is never slower than 1.0x"
    if not compared:
        return Bound(claim, "-", None)
    worst = min(compared, key=lambda row: row.best_ratio)
    figure = f"{worst.best_ratio:.2f}x on {worst.problem} ({worst.best})"
    return Bound(claim, figure, worst.best_ratio >= 1.0)


def _quasi_newton(records: Sequence[Record]) -> list[Bound]:
    value = count_ratio(records, "landing-lbfgs", "pymanopt-cg", REFERENCE)
    measured = not math.isnan(value)
    runs = [r for r in records if r.method == "landing-lbfgs" and r.tol == REFERENCE and r.solved]
    separate = sum(max(0, r.nfev - r.njev) for r in runs)
    return [
        Bound(
            "gradients of landing-lbfgs, at most 0.83 of those of pymanopt-cg",
            f"{value:.2f}" if measured else "-",
            value <= 0.83 if measured else None,
        ),
        Bound(
            "landing-lbfgs evaluates no f apart from a gradient",
            f"{separate} such evaluations" if runs else "-",
            separate == 0 if runs else None,
        ),
    ]


def _newton(records: Sequence[Record]) -> Bound:
    seconds = {
        (r.method, r.seed): r.seconds
        for r in records
        if r.problem == "procrustes-40" and r.tol == REFERENCE and r.solved
    }
    values = [
        seconds["pymanopt-tr", seed] / value
        for (method, seed), value in seconds.items()
        if method == "landing-newton" and ("pymanopt-tr", seed) in seconds
    ]
    return _at_least(
        "landing-newton against pymanopt-tr on procrustes-40", geometric_mean(values), 4
    )


def _reached(records: Sequence[Record]) -> Bound:
    runs = [r for r in records if r.ours and r.tol == REACH]
    solved = sum(r.solved for r in runs)
    left = ", ".join(names(f"{r.method} on {r.problem}" for r in runs if not r.solved))
    figure = f"{solved} of {len(runs)} runs" + (f"; not {left}" if left else "")
    claim = f"ours reach {_power(REACH)} where float64 allows it"
    return Bound(claim, figure, solved == len(runs) if runs else None)


# -- performance profiles ---------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """rho(tau), the fraction of runs that a method solves within tau times the fastest's time.

    Attributes
    ----------
    factors : dict of method to sorted array
        t / t_fastest of each run that the method has solved.
    runs : int
        All (problem, seed), solved or not.
    """

    factors: dict[str, np.ndarray] = field(default_factory=dict)
    runs: int = 0

    def fraction(self, method: str, factor: float) -> float:
        """rho(factor)."""
        within = np.searchsorted(self.factors[method], factor * (1.0 + 1e-12), side="right")
        return float(within) / self.runs if self.runs else math.nan


def performance_profile(records: Sequence[Record], tol: float) -> Profile:
    """The profile of Dolan and Moré over all runs at this tolerance.

    References
    ----------
    Dolan, Moré, Benchmarking optimization software with performance profiles, Math. Program. 91
    (2002).

    Examples
    --------
    >>> runs = [
    ...     Record("p", 0, "a", 1e-6, True, True, seconds=1.0),
    ...     Record("p", 0, "b", 1e-6, False, True, seconds=3.0),
    ... ]
    >>> profile = performance_profile(runs, 1e-6)
    >>> profile.fraction("a", 1.0), profile.fraction("b", 2.0), profile.fraction("b", 3.0)
    (1.0, 0.0, 1.0)
    """
    at = [r for r in records if r.tol == tol]
    instances = names(f"{r.problem}/{r.seed}" for r in at)
    factors: dict[str, list[float]] = {name: [] for name in names(r.method for r in at)}
    for instance in instances:
        solved = [r for r in at if f"{r.problem}/{r.seed}" == instance and r.solved]
        fastest = min((r.seconds for r in solved), default=math.nan)
        for run in solved:
            factors[run.method].append(run.seconds / fastest)
    sorted_factors = {name: np.sort(np.array(values)) for name, values in factors.items()}
    return Profile(sorted_factors, len(instances))
