"""The checks: of a problem and a method, by running it; of a trace, as it is."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landingopt import _inputs, _xp
from landingopt._compare import problem_name
from landingopt._minimize import minimize
from landingopt.gradient_check import check_gradient
from landingopt.methods import Method
from landingopt.observe.stop import MaxIterations
from landingopt.observe.trace import Trace
from landingopt.rates.evidence import Evidence
from landingopt.rates.factors import check_local_factors
from landingopt.rates.judge import Floors, Verdict, judge, overall
from landingopt.rates.laws import Law, Linear, Quadratic, check_law
from landingopt.rates.report import RateReport, judged
from landingopt.rates.series import MARKS, Observed, Strata
from landingopt.rates.theorems import OBSERVED, descent_scale, is_square, theorem_of, with_horizon
from landingopt.rates.unbiased import check_samples, check_unbiased
from landingopt.result import Result
from landingopt.searches import OpenLoop
from landingopt.status import Status
from landingopt.steps import first_size
from landingopt.sums import check_count

_FLOOR = 100.0  # in units of the rounding
_DOUBTFUL = 1e6  # up to here, of the largest gradient norm, a plateau may be rounding


def check(
    problem: Any,
    method: Any,
    *,
    expect: Law | None = None,
    horizon: int = 2**13,
    rng: Any = None,
    x0: Any = None,
    seeds: int | None = None,
    reference_value: float | None = None,
) -> RateReport:
    r"""Does a method obey the rate that theory promises on a problem?

    First the gradient is compared with differences of f, and the estimates of a stochastic method are
    averaged over every outcome of their draws: what is wrong there is REJECTED without statistics. Then
    the method runs, and the means of ||grad f(X_t)||^2, of N(X_t) = ||X_t^H X_t - I||^2 / 4 and of
    f - f* are held against the law.

    Parameters
    ----------
    problem : problem
        One matrix, or a product; f* is taken from ``problem.optimum()`` where there is one.
    method : method
    expect : law of ``lo.rates.laws``, optional
        By default what the method promises: :func:`theorem_of`.
    horizon : int
        Iterations of the longest run. Shorter than 2^13 little is decided: transients look like rates.
    rng : seed or numpy Generator, optional
        Of the start, the draws and the checks.
    x0 : array, optional
        The start of all runs; random on the manifold by default.
    seeds : int, optional
        Runs of each length: 4 of a stochastic method, else 1.
    reference_value : float, optional
        f*, in place of the problem's own.

    Returns
    -------
    RateReport
        ``verdict``, ``reason``, ``series``; ``print`` it, ``plot`` it.

    Raises
    ------
    TypeError, ValueError
        A stack or a stream, a horizon below 1, what ``lo.minimize`` refuses.

    Notes
    -----
    The error rates of the verdict, on fresh random problems, are in README; ``landingopt rates
    --calibrate`` measures them again. What cannot be seen: an error whose plateau lies below what the
    horizon reaches.

    References
    ----------
    [AVGA24] for the laws.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(5, rng=0)
    >>> report = lo.rates.check(problem, lo.landing(step=0.05), rng=0)
    >>> print(report.verdict, report.law)
    CONSISTENT O(1/T)
    """
    generator = np.random.default_rng(rng)
    method = _inputs.checked_method(method)
    problem = _inputs.as_problem(problem, x0)
    if hasattr(problem, "grad_batch"):
        raise TypeError(
            "a stream has no gradient norm to measure; collect the rows and state a lo.FiniteSum"
        )
    horizon = check_count("horizon", horizon)
    if seeds is not None:
        seeds = check_count("seeds", seeds)
    if reference_value is not None:
        reference_value = _checked_number("reference_value", reference_value)
    x0 = _inputs.start(problem, x0, generator)
    if hasattr(x0, "ndim") and x0.ndim > 2:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)}, a stack: check one of its problems, or judge the columns "
            "of its trace one by one with lo.rates.check_trace"
        )
    stochastic = bool(getattr(method, "stochastic", False))
    if stochastic:  # what does not go together is refused before the work
        minimize(problem, x0, method, stop=MaxIterations(0), record=Strata(), rng=0)
    theorem = theorem_of(method)
    law = theorem.law if expect is None else check_law(expect)
    source = theorem.source or OBSERVED
    if expect is not None and law != theorem.law:
        source = f"the method's own law is {theorem}"
    title = f"{method.name} on {problem_name(problem)}"
    checks = _checks(problem, method, stochastic, x0, generator)
    broken = [text for holds, text in checks if holds is False]
    unknown = [text for holds, text in checks if holds is None]
    if broken:
        return RateReport(
            Verdict.REJECTED, "; ".join(broken), law, source, (), tuple(checks), title=title
        )
    if seeds is None:
        seeds = 4 if stochastic else 1
    results = _runs(problem, method, law, x0, int(horizon), seeds, generator)
    failed = [r for r in results if r.status in (Status.NONFINITE, Status.LEFT_TUBE)]
    if failed:
        last = failed[0]
        reason = f"the run broke at iteration {last.nit} ({last.status}): {last.message}"
        return RateReport(
            Verdict.REJECTED, reason, law, source, (), tuple(checks), (), last.nit, seeds, title
        )
    runs = [Observed.of(result.trace) for result in results]
    given = reference_value
    reference_value = _optimal_value(problem, results[0]) if given is None else given
    floors = _floors(problem, results, runs, reference_value)
    if given is not None:
        _check_reference(runs, given, floors)
    reports, used = judge(
        runs,
        law,
        floors,
        reference_value=reference_value,
        scale=_scale(method, problem),
        relaxation=_relaxation(results[0].method),
    )
    verdict = overall(reports)
    reason = "; ".join([judged(reports, verdict), *(f"NOT CHECKED: {text}" for text in unknown)])
    ended = results[-1].nit < horizon - 1 and results[-1].status not in (
        Status.AT_ROUNDING,
        Status.CONVERGED,
    )
    if ended and verdict is Verdict.INCONCLUSIVE:
        reason += f" (the run ended by itself at iteration {results[-1].nit}: {results[-1].status})"
    return RateReport(
        verdict,
        reason,
        law,
        source,
        tuple(reports),
        tuple(checks),
        _exact(problem, method, results[0]),
        int(used),
        seeds,
        title,
        tuple(runs),
        reference_value,
    )


def check_trace(
    trace: Any,
    expect: Law,
    *,
    reference_value: float | None = None,
    unit_roundoff: float = 2.0**-52,
    gradient_size: float | None = None,
    metric_scale: float = 0.5,
) -> RateReport:
    """Does the trace of a run, by any solver, obey a law?

    Parameters
    ----------
    trace : Trace, Result, mapping of columns, path of a CSV file, or list of these
        Columns: ``iteration`` (rising), ``gradient_norm`` (||G - X sym(X^H G)||); and where known
        ``distance`` (||X^H X - I||) or ``infeasibility`` (N), ``feasible_fun`` or ``fun``, and ``step``
        (that led to the row). A list: runs with several seeds; for a law of a step fixed in advance,
        runs of several lengths.
    expect : law of ``lo.rates.laws``
    reference_value : float, optional
        f*: f - f* is shown too.
    unit_roundoff : float
        Of the precision that the solver worked in: 2^-23 for float32.
    gradient_size : float, optional
        ||G||, of the Euclidean gradient at the end, which says where rounding begins; by default the
        largest gradient norm of the trace.
    metric_scale : float
        Of the solver's gradient (the table in ``lo.fields``): 1/2 for the papers' R, 1 for the
        Riemannian gradient.

    Returns
    -------
    RateReport

    Raises
    ------
    TypeError, ValueError
        No trace, columns missing, numbers that are not finite, iterations that do not rise, a negative
        distance, N or norm, an f below f*.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> t = np.arange(4096)
    >>> trace = {"iteration": t, "gradient_norm": 1 / (1 + t), "distance": 1 / (1 + t)}
    >>> print(lo.rates.check_trace(trace, lo.rates.laws.OneOverT()).verdict)
    CONSISTENT
    >>> trace["gradient_norm"] = np.sqrt(1e-3 + 1 / (1 + t) ** 2)
    >>> print(lo.rates.check_trace(trace, lo.rates.laws.OneOverT()).verdict)
    REJECTED
    """
    law = check_law(expect)
    many = isinstance(trace, Iterable) and not isinstance(trace, (str, Path, Mapping, Trace))
    many = many and not hasattr(trace, "columns")
    runs = [Observed.of(each) for each in trace] if many else [Observed.of(trace)]
    if not runs:
        raise ValueError("the list of traces is empty")
    unit = _checked_number("unit_roundoff", unit_roundoff, positive=True)
    scale = _checked_number("metric_scale", metric_scale, positive=True)
    if reference_value is not None:
        reference_value = _checked_number("reference_value", reference_value)
    largest = max(float(run.gradient.max()) for run in runs)
    if gradient_size is not None:
        largest = _checked_number("gradient_size", gradient_size, positive=True) ** 2
    values = [float(np.abs(run.fun).max()) for run in runs if run.fun is not None]
    floors = Floors(
        (_FLOOR * unit) ** 2 * largest,
        (_FLOOR * unit) ** 2 / 4.0,
        _FLOOR * unit * max([*values, abs(reference_value or 0.0)]),
        doubtful=0.0 if gradient_size is not None else (_DOUBTFUL * unit) ** 2 * largest,
    )
    if reference_value is not None:
        _check_reference(runs, reference_value, floors)
    reports, used = judge(runs, law, floors, reference_value=reference_value, scale=scale)
    verdict = overall(reports)
    return RateReport(
        verdict,
        judged(reports, verdict),
        law,
        "not asked: the trace alone is judged",
        tuple(reports),
        horizon=int(used),
        seeds=len(runs) if len({run.horizon for run in runs}) == 1 else 1,
        title="trace",
        runs=tuple(runs),
        reference_value=reference_value,
    )


# -- before the runs ------------------------------------------------------------------------------


def _checks(
    problem: Any, method: Any, stochastic: bool, x0: Any, rng: np.random.Generator
) -> list[tuple[bool | None, str]]:
    found: list[tuple[bool | None, str]] = []
    if problem.fun is None and problem.value_and_gradient is None:
        found.append(_symmetric(problem, x0, rng))
    else:
        gradient = check_gradient(problem, rng=rng)
        # Where rounding hides the derivative nothing is known; a disagreement is one.
        drowned = gradient.directions and not any(
            d.verdict == "disagrees" for d in gradient.directions
        )
        holds = None if drowned and not gradient else bool(gradient)
        found.append((holds, f"the gradient against differences of f: {gradient.message}"))
    if stochastic:
        unbiased = check_unbiased(problem, method, rng=rng)
        found.append((unbiased.holds, f"the estimate of the gradient: {unbiased.message}"))
        sampled = check_samples(problem, method, x0, rng=rng)
        if sampled is not None:
            found.append(sampled)
        whole = _sum_is_whole(problem, x0)
        if whole is not None:
            found.append(whole)
    return found


def _symmetric(problem: Any, x0: Any, rng: np.random.Generator) -> tuple[bool | None, str]:
    """Without f: a gradient has a symmetric derivative, <u, DG v> = <v, DG u>, by differences."""
    space = _space(problem, x0)
    if space.unit_roundoff > 1e-12:
        return None, "the problem has no fun, so its gradient could not be checked"
    x = space.to_blocks(x0)
    u, v = ([b.kernels.random(b.inner_shape, rng) for b in space.blocks] for _ in range(2))

    def derivative(along: Any) -> Any:
        ends = []
        for t in (1e-5, -1e-5):
            moved = [
                b.kernels.add(a, b.kernels.scale(w, t)) for b, a, w in zip(space.blocks, x, along)
            ]
            g = space.to_blocks(problem.grad(space.readonly(space.to_user(moved))))
            ends.append([_xp.copy(a) for a in g])
        return [b.kernels.subtract(p, q) for b, p, q in zip(space.blocks, *ends)]

    uv, vu, uu = (
        float(np.sum(space.dots((a, b))[0]))
        for a, b in ((u, derivative(v)), (v, derivative(u)), (u, derivative(u)))
    )
    gap = abs(uv - vu) / max(abs(uv), abs(vu), abs(uu), 1e-300)
    if gap > 1e-4:
        return False, (
            "no f has this gradient: its derivative is not symmetric, <u, DG v> and <v, DG u> differ "
            f"by {gap:.1e}"
        )
    return None, (
        "the problem has no fun, so its gradient could not be checked against it (its derivative is "
        "symmetric, as it must be)"
    )


def _sum_is_whole(problem: Any, x0: Any) -> tuple[bool, str] | None:
    """Is grad the mean over the terms?"""
    space = _space(problem, x0)
    user = space.readonly(x0)
    blocks = [np.asarray(_xp.to_host(g)).copy() for g in space.to_blocks(problem.grad(user))]
    terms = space.to_blocks(problem.grad_terms(user, slice(0, problem.n_terms)))
    gap = math.sqrt(
        sum(float(np.linalg.norm(a - _xp.to_host(b))) ** 2 for a, b in zip(blocks, terms))
    )
    size = math.sqrt(sum(float(np.linalg.norm(a)) ** 2 for a in blocks))
    if gap <= 1e4 * space.unit_roundoff * max(size, 1e-300):
        return None
    return False, f"grad differs from the mean of grad_terms over all terms by {gap / size:.1e}"


def _space(problem: Any, x0: Any) -> Any:
    from landingopt.space import Space

    return Space(problem.shape, problem.constraint, x0)


# -- the runs -------------------------------------------------------------------------------------


def _runs(
    problem: Any, method: Any, law: Law, x0: Any, horizon: int, seeds: int, rng: np.random.Generator
) -> list[Result]:
    lengths = [horizon]
    if getattr(law, "fresh", False):
        lengths = sorted({max(1, horizon >> j) for j in range(MARKS)})
    every = isinstance(law, (Linear, Quadratic))
    results = []
    for T in lengths:
        for _ in range(seeds):
            seed = int(rng.integers(2**31))
            results.append(
                minimize(
                    problem,
                    x0,
                    with_horizon(method, T),
                    stop=MaxIterations(T - 1),  # the iterates 0, ..., T - 1
                    record=Strata(1 << 20 if every else 64, seed),
                    rng=seed,
                    on_failure="return",
                )
            )
    return results


def _optimal_value(problem: Any, result: Result) -> float | None:
    optimum = getattr(problem, "optimum", None)
    if optimum is None:
        return None
    component = result.component if isinstance(result.component, int) else None
    try:
        found = optimum(component=component)
    except (TypeError, ValueError):
        return None
    return None if found is None else float(found[1])


def _floors(
    problem: Any, results: list[Result], runs: list[Observed], reference_value: float | None
) -> Floors:
    space = _space(problem, results[0].x)
    unit = space.unit_roundoff
    x = results[-1].feasible_x
    gradient = (
        problem.grad if problem.grad is not None else (lambda y: problem.value_and_gradient(y)[1])
    )
    blocks = space.to_blocks(gradient(space.readonly(x)))
    size = math.sqrt(sum(float(np.linalg.norm(_xp.to_host(g))) ** 2 for g in blocks))
    values = [float(np.abs(run.fun).max()) for run in runs if run.fun is not None]
    landed = all(r.status in (Status.AT_ROUNDING, Status.CONVERGED) for r in results)
    return Floors(
        (_FLOOR * unit * size) ** 2,
        (_FLOOR * unit) ** 2 * space.size_p / 4.0,
        _FLOOR * unit * max([*values, abs(reference_value or 0.0)], default=0.0),
        reached=landed,
    )


def _scale(method: Any, problem: Any) -> float | None:
    """What f owes to the gradients; None where steps are not along them (momentum, Adam)."""
    transformed = hasattr(getattr(method, "estimator", None), "base")
    return None if transformed else descent_scale(method, is_square(problem))


def _relaxation(method: Any) -> float | None:
    """1 / (2 eta lam), the iterations in which the normal part falls by e; None: not known."""
    if not isinstance(method, Method) or not isinstance(method.search, OpenLoop) or not method.lam:
        return None
    step = first_size(method.search.step)
    return None if step is None else 0.5 / (step * method.lam)


def _exact(problem: Any, method: Any, result: Result) -> tuple[Evidence, ...]:
    """The exact local rates where they are known, of a run of their own from near the optimum."""
    component = result.component if isinstance(result.component, int) else None
    try:
        return tuple(check_local_factors(problem, method, component=component))
    except (TypeError, ValueError):
        return ()


def _check_reference(runs: list[Observed], reference_value: float, floors: Floors) -> None:
    for run in runs:
        if run.fun is None:
            raise ValueError("reference_value was given, and the trace has no feasible_fun or fun")
        lowest = float(run.fun.min())
        if lowest < reference_value - 10.0 * floors.fun:
            raise ValueError(
                f"reference_value = {reference_value:.15g} is no minimum: f = {lowest:.15g} at "
                f"iteration {run.iteration[int(run.fun.argmin())]} is below it (raw f of an "
                "infeasible X may be: give f at the closest feasible point, as feasible_fun)"
            )


def _checked_number(name: str, value: Any, positive: bool = False) -> float:
    """A finite float, or an error that says what was given."""
    real = isinstance(value, (numbers.Real, np.number)) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and (value > 0.0 or not positive)):
        wanted = "a positive number" if positive else "a finite number"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return float(value)
