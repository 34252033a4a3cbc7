"""Every method of the library, held against its law."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from landingopt import estimators, methods, problems, retractions, steps
from landingopt import fields as field_parts
from landingopt.rates.experiment import check
from landingopt.rates.judge import Verdict
from landingopt.rates.report import RateReport
from landingopt.rates.theorems import OBSERVED, theorem_of
from landingopt.sums import FiniteSum

# -- problems, and a step for each ----------------------------------------------------------------

_TERMS = 2000  # of the finite sums
_ASPECT = 5  # rows over columns of the tall problems


def _procrustes(p: int, n: int | None, dtype: Any, rng: Any) -> Any:
    return problems.Procrustes.random(p, n, dtype=dtype, rng=rng)


def _pca(p: int, n: int | None, dtype: Any, rng: Any) -> Any:
    return problems.PCA.random(n or _ASPECT * p, p, dtype=dtype, rng=rng)


def _sampled_pca(p: int, n: int | None, dtype: Any, rng: Any) -> Any:
    n = n or _ASPECT * p
    return problems.SampledPCA.random(max(_TERMS, n), n, p, dtype=dtype, rng=rng)


def _ica(p: int, n: int | None, dtype: Any, rng: Any) -> Any:
    n = n or p
    data = problems.ICA.random(n, max(_TERMS, 2 * n), dtype=dtype, rng=rng).data
    return problems.ICA(data, p=p)


def _procrustes_sum(p: int, n: int | None, dtype: Any, rng: Any) -> Any:
    """The mean over pairs of ||X a_i - b_i||^2 / 2, a_i and b_i the columns of A and B."""
    whole = problems.Procrustes.random(p, n, _TERMS, dtype=dtype, rng=rng)
    A, B = whole.A, whole.B

    def fun(x: Any, terms: Any) -> float:
        residual = x @ A[:, terms] - B[:, terms]
        return 0.5 * float(np.sum(np.abs(residual) ** 2)) / residual.shape[1]

    def grad(x: Any, terms: Any) -> Any:
        a = A[:, terms]
        return (x @ a - B[:, terms]) @ a.conj().T * (1.0 / a.shape[1])

    return FiniteSum(fun, grad, n_terms=_TERMS, shape=whole.shape, like=A)


PROBLEMS: dict[str, Callable[..., Any]] = {
    "procrustes": _procrustes,
    "procrustes-sum": _procrustes_sum,
    "pca": _pca,
    "sampled-pca": _sampled_pca,
    "ica": _ica,
}


def default_step(problem: Any) -> Any:
    """Half of the largest stable step of the papers' landing; a rule where it is not known in advance.

    Procrustes: :func:`landingopt.cli.procrustes_step`. PCA with the eigenvalues l_1 >= ... >= l_n:
    2 / (l_1 - l_n), since near the optimum the direction (i, j) is multiplied by
    1 - eta (l_i - l_j) / 2. Else 1 / (2 L_b) of the curvature at the start.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> round(default_step(lo.problems.PCA.from_covariance(np.diag([3.0, 2.0, 1.0]), 1)), 12)
    1.0
    """
    if isinstance(problem, problems.Procrustes):
        from landingopt.cli import procrustes_step

        return procrustes_step(problem)
    if isinstance(problem, (problems.PCA, problems.SampledPCA)):
        n = problem.shape[0]
        values = np.linalg.eigvalsh(-problem.grad(np.eye(n, dtype=problem.like.dtype)))
        return 2.0 / max(float(values[-1] - values[0]), np.finfo(float).tiny)
    return steps.FromCurvature(0.5)


def landing_step(problem: Any, shortened: float = 1.0, **options: Any) -> Any:
    """The papers' landing with the default step, and the normal part of a Newton–Schulz iteration."""
    step = default_step(problem)
    if isinstance(step, float):
        options = {"lam": 0.5 / step, **options}
        step *= shortened
    return methods.landing(step=step, **options)


# -- the entries ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A method on a problem.

    Attributes
    ----------
    method, problem, dtype : str
    make : callable
        problem -> method.
    """

    method: str
    problem: str
    dtype: str
    make: Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """What came out: ``gradient`` and ``infeasibility`` are slopes, or where rounding was reached."""

    method: str
    problem: str
    dtype: str
    law: str
    source: str
    verdict: str
    gradient: str
    infeasibility: str
    reason: str
    seconds: float

    @property
    def holds(self) -> bool | None:
        """Is it CONSISTENT with its theorem; None without one."""
        return None if self.source == OBSERVED else self.verdict == str(Verdict.CONSISTENT)


# Momentum and Adam sum tangent parts, as the presets of finite sums do: see lo.estimators.Momentum.
_FULL: dict[str, Callable[[Any], Any]] = {
    "landing": lambda f: methods.landing(),
    "landing, step": landing_step,
    "landing, step, exact exit": lambda f: landing_step(f, safe="exact"),
    "landing, step, Euclidean": lambda f: methods.landing(
        step=_euclidean_step(f), tangent=field_parts.Euclidean(), lam=0.5 / _euclidean_step(f)
    ),
    "landing, 1/sqrt k steps": lambda f: methods.landing(
        step=steps.Decay(default_step(f), power=0.5), lam=0.5 / default_step(f)
    ),
    "landing, momentum": lambda f: landing_step(
        f, shortened=0.1, base=estimators.Momentum(0.9, base=estimators.Tangent())
    ),
    "landing, Adam": lambda f: methods.landing(
        step=0.01, base=estimators.Adam(base=estimators.Tangent())
    ),
    "pogo": lambda f: methods.pogo(default_step(f)),
    "riemannian, QR": lambda f: methods.riemannian(retractions.QR()),
    "riemannian, CholeskyQR": lambda f: methods.riemannian(retractions.CholeskyQR()),
    "riemannian, Polar": lambda f: methods.riemannian(retractions.Polar()),
    "riemannian, Cayley": lambda f: methods.riemannian(retractions.Cayley()),
    "riemannian, Exponential": lambda f: methods.riemannian(retractions.Exponential()),
    "landing_lbfgs": lambda f: methods.landing_lbfgs(),
    "landing_cg": lambda f: methods.landing_cg(),
    "landing_newton": lambda f: methods.landing_newton(),
    "pymanopt SteepestDescent": lambda f: methods.pymanopt("SteepestDescent"),
    "pymanopt ConjugateGradient": lambda f: methods.pymanopt("ConjugateGradient"),
    "pymanopt TrustRegions": lambda f: methods.pymanopt("TrustRegions"),
}


def _euclidean_step(problem: Any) -> float:
    """For square x, R is the Euclidean metric's gradient; for tall x it has half of its normal part."""
    square = problem.shape[-2] == problem.shape[-1]
    return default_step(problem) * (1.0 if square else 0.5)


# The sums' curvatures are about 1, so that steps are numbers.
_SUM: dict[str, Callable[[Any], Any]] = {
    "landing_sgd, step fixed for T": lambda f: methods.landing_sgd(steps.Horizon(4.0, 1)),
    "landing_sgd": lambda f: methods.landing_sgd(),
    "landing_sgd, 1/sqrt k steps": lambda f: methods.landing_sgd(steps.Decay(0.5, power=0.5)),
    "landing_sgd, constant step": lambda f: methods.landing_sgd(0.05),
    "landing_saga": lambda f: methods.landing_saga(),
    "landing_saga, step": lambda f: methods.landing_saga(0.1),
    "landing_svrg": lambda f: methods.landing_svrg(),
    "landing_svrg, step": lambda f: methods.landing_svrg(0.2),
    "landing_svrg, loopless": lambda f: replace(
        methods.landing_svrg(), estimator=estimators.Svrg(loopless=True)
    ),
    "riemannian SGD": lambda f: methods.riemannian(estimator=estimators.MiniBatch()),
    "riemannian SAGA": lambda f: methods.riemannian(estimator=estimators.Saga()),
    "riemannian SVRG": lambda f: methods.riemannian(estimator=estimators.Svrg()),
}

# float32 where the laws are decided above its rounding.
_SINGLE = (
    "landing", "landing, step", "pogo", "riemannian, QR", "riemannian, Polar", "landing_lbfgs",
    "landing_sgd", "landing_saga", "landing_svrg",
)  # fmt: skip
_QUICK = (
    "landing", "landing, step", "landing, 1/sqrt k steps", "pogo", "riemannian, QR",
    "riemannian, Polar", "landing_lbfgs", "landing_newton", "pymanopt ConjugateGradient",
    "landing_sgd, step fixed for T", "landing_sgd", "landing_sgd, constant step", "landing_saga",
    "landing_svrg", "riemannian SGD",
)  # fmt: skip
_SIZES = {"procrustes": 10, "procrustes-sum": 5, "pca": 4, "sampled-pca": 4, "ica": 5}


def entries(quick: bool = False) -> list[Entry]:
    """Every method on Procrustes, PCA and a finite sum.

    Methods of the full gradient on both and on sampled PCA, stochastic ones on Procrustes as a sum over
    pairs of columns, on sampled PCA and on log-cosh ICA.

    Examples
    --------
    >>> len(entries(quick=True)) < len(entries())
    True
    """
    found = []
    full, sums = ("procrustes", "pca", "sampled-pca"), ("sampled-pca", "procrustes-sum", "ica")
    for methods_of, names in ((_FULL, full), (_SUM, sums)):
        for method, make in methods_of.items():
            if not quick:
                found += [Entry(method, name, "float64", make) for name in names]
                if method in _SINGLE:
                    found += [Entry(method, name, "float32", make) for name in names]
            elif method in _QUICK:
                found.append(Entry(method, names[0], "float64", make))
    return found


def run(
    quick: bool = False,
    rng: int = 0,
    *,
    chosen: Iterable[Entry] | None = None,
    progress: bool = False,
) -> list[Row]:
    """Check the entries.

    Parameters
    ----------
    quick : bool
        Fewer entries, and 2^11 iterations in place of 2^13.
    rng : seed
    chosen : entries, optional
        In place of ``entries(quick)``.
    progress : bool
        A progress bar on standard error.

    Returns
    -------
    list of Row
    """
    chosen = entries(quick) if chosen is None else list(chosen)
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=len(chosen), unit="check", dynamic_ncols=True)
    found = []
    try:
        for entry in chosen:
            if bar is not None:
                bar.set_description(f"{entry.method} on {entry.problem}")
            found.append(_row(entry, 2**11 if quick else 2**13, rng))
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.close()
    return found


def _row(entry: Entry, horizon: int, rng: int) -> Row:
    problem = PROBLEMS[entry.problem](_SIZES[entry.problem], None, np.dtype(entry.dtype), rng)
    method = entry.make(problem)
    theorem = theorem_of(method)
    start = time.perf_counter()
    report = check(problem, method, horizon=horizon, rng=rng)
    return Row(
        entry.method,
        entry.problem,
        entry.dtype,
        str(theorem.law),
        theorem.source or OBSERVED,
        str(report.verdict),
        _slopes(report, "||grad||^2"),
        _slopes(report, "N"),
        report.reason,
        time.perf_counter() - start,
    )


def _slopes(report: RateReport, name: str) -> str:
    """The slopes of the mean and of the mean over the last half; or where rounding was reached."""
    series = next((s for s in report.series if s.name == name), None)
    if series is None:
        return ""
    if series.running is not None and series.tail is not None:
        return f"{series.running.value:+.2f} {series.tail.value:+.2f}"
    if series.rounding_after is not None:
        return f"rounding after {series.rounding_after}"
    return "on the manifold" if series.verdict is Verdict.CONSISTENT else "?"


def certified(quick: bool = False, rng: int = 0) -> Iterator[tuple[Any, Any]]:
    """Problems and methods for :func:`landingopt.rates.certificates.certify`.

    The theorem's own step, and (unless ``quick``) the default one, which is far beyond it.
    """
    from landingopt.rates.certificates import Constants

    for name in ("procrustes", "pca"):
        problem = PROBLEMS[name](_SIZES[name], None, np.float64, rng)
        constants = Constants.of(problem, eps=0.5)
        lam = float(constants.lipschitz)
        yield problem, methods.landing(step=float(constants.step(lam)), lam=lam)
        if not quick:
            yield problem, landing_step(problem)


# -- what is shown --------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """A line for each, and what they say together; reasons where one is not CONSISTENT."""
    cells = [("method", "problem", "law", "theorem", "verdict", "||grad||^2", "N", "time [s]")]
    for row in rows:
        single = "" if row.dtype == "float64" else f", {row.dtype}"
        cells.append(
            (row.method, row.problem + single, row.law, row.source, row.verdict, row.gradient,
             row.infeasibility, f"{row.seconds:.1f}")
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines += [
        "",
        "||grad||^2, N: slopes of the mean up to T and of the mean over the last half, or the iteration "
        "after which they are rounding.",
        summary(rows),
    ]
    for row in rows:
        if row.verdict != str(Verdict.CONSISTENT):
            lines.append(f"{row.verdict}: {row.method} on {row.problem}, {row.dtype}: {row.reason}")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """How many obey their theorem, and what was seen of those without one."""
    proved = [row for row in rows if row.holds is not None]
    seen = [row.verdict for row in rows if row.holds is None]
    counts = ", ".join(f"{seen.count(str(v))} {v}" for v in Verdict if str(v) in seen)
    text = f"{sum(bool(r.holds) for r in proved)} of {len(proved)} CONSISTENT with their theorem"
    return f"{text}; without one: {counts}" if counts else text


def write_csv(rows: Sequence[Row], path: str | Path) -> None:
    """One line for each row, all columns."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
