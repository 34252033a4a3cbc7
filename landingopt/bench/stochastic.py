"""The landing against retractions, with the same estimator, the same samples and the same step."""

from __future__ import annotations

import csv
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import landingopt as lo
from landingopt import retractions
from landingopt.estimators.saga import shown
from landingopt.table import _aligned, _milliseconds

_NO_ROWS = lo.EveryEpoch(1e9, full=False)

MOVES: dict[str, Any] = {
    "landing": None,
    "CholeskyQR": retractions.CholeskyQR(),
    "QR": retractions.QR(),
    "polar-SVD": retractions.Polar(method="svd"),
    "polar-NS": retractions.Polar(method="newton-schulz"),
    "Cayley": retractions.Cayley(),
    "exponential": retractions.Exponential(),
}


@dataclass(frozen=True)
class Size:
    """A problem of one size: log-cosh ICA for square X, principal components for tall X."""

    n: int
    p: int
    batch: int
    n_terms: int
    quick: bool = False

    def problem(self, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        if self.n == self.p:
            data = rng.laplace(size=(self.n_terms, self.n))
            return lo.problems.ICA(data / np.sqrt(2.0))
        data = rng.standard_normal((self.n_terms, self.n)) * np.linspace(1.0, 0.5, self.n)
        return lo.problems.SampledPCA(data, self.p)


SIZES = (
    Size(10, 10, 32, 10_000, quick=True),
    Size(40, 40, 64, 10_000, quick=True),
    Size(100, 100, 128, 10_000),
    Size(200, 200, 256, 10_000),
    Size(500, 5, 32, 10_000, quick=True),
    Size(500, 50, 32, 10_000, quick=True),
    Size(500, 50, 128, 10_000),
    Size(1000, 40, 64, 10_000),
    Size(2000, 100, 128, 5_000),
    Size(5000, 200, 256, 2_560),
)


@dataclass(frozen=True)
class Epoch:
    """The cost of an epoch of minibatch steps of one method."""

    n: int
    p: int
    batch: int
    method: str
    seconds: float
    gradient_seconds: float
    products_seconds: float  # the landing's three, called bare
    distance: float


@dataclass(frozen=True)
class ToLoss:
    """The way of one method to a loss."""

    problem: str
    estimator: str
    method: str
    epochs: float
    seconds: float
    reached: bool


def method(name: str, step: float, estimator: Any) -> Any:
    """Step and metric are the same for all: a step along the Euclidean-metric gradient."""
    if name == "landing":
        tangent = lo.fields.NearTangent()
        return lo.landing(step=step, lam=0.5 / step, tangent=tangent, base=estimator)
    return lo.riemannian(MOVES[name], step=step, estimator=estimator)


# -- time per epoch -------------------------------------------------------------------------------


def epochs(
    sizes: Sequence[Size],
    methods: Sequence[str],
    repeats: int,
    say: Callable[[str], Any] = lambda line: None,
) -> list[Epoch]:
    """Medians over interleaved runs of some steps each, as time for N terms."""
    rows = []
    for size in sizes:
        problem = size.problem(0)
        x0 = lo.stiefel.random(size.n, size.p, rng=0)
        step = 1e-3 / max(1.0, _norm(problem, x0))
        steps = max(10, min(200, int(2e8 / (size.n * size.p * (size.p + size.batch)))))
        rules = lo.MaxIterations(steps)
        times: dict[str, list[float]] = {name: [] for name in methods}
        gradients, products, distances = [], [], {}
        for _ in range(repeats):
            for name in methods:
                estimator = lo.estimators.MiniBatch(size.batch)
                result = lo.minimize(
                    problem, x0, method(name, step, estimator), stop=rules, record=_NO_ROWS, rng=1
                )
                times[name].append(result.seconds / steps)
                distances[name] = float(result.distance)
            gradients.append(_gradient_seconds(problem, x0, size, steps))
            products.append(_products_seconds(x0, steps))
        batches = size.n_terms / size.batch
        gradient, bare = (statistics.median(times) * batches for times in (gradients, products))
        for name in methods:
            seconds = statistics.median(times[name]) * batches
            rows.append(
                Epoch(size.n, size.p, size.batch, name, seconds, gradient, bare, distances[name])
            )
        say(f"{size.n} x {size.p}, batch {size.batch}: {steps} steps")
    return rows


def _norm(problem: Any, x: Any) -> float:
    return float(np.linalg.norm(problem.grad_terms(x, slice(0, min(256, problem.n_terms)))))


def _gradient_seconds(problem: Any, x: Any, size: Size, steps: int) -> float:
    """One minibatch gradient, with its draw."""
    rng = np.random.default_rng(1)
    draws = lo.samplers.Reshuffled().start(problem.n_terms, size.batch, rng)
    begin = time.perf_counter()
    for _ in range(steps):
        problem.grad_terms(x, draws.draw())
    return (time.perf_counter() - begin) / steps


def _products_seconds(x: np.ndarray, steps: int) -> float:
    """X^T X, X^T G and X B (square X: G X^T, X X^T and K X)."""
    g, (n, p) = x.copy(), x.shape
    small, out = np.zeros((p, p)), np.zeros((n, p))
    begin = time.perf_counter()
    for _ in range(steps):
        if n == p:
            g.dot(x.T, small), x.dot(x.T, small), small.dot(x, out)
        else:
            x.T.dot(x, small), x.T.dot(g, small), x.dot(small, out)
    return (time.perf_counter() - begin) / steps


# -- time to a loss -------------------------------------------------------------------------------


def ways(
    methods: Sequence[str],
    repeats: int,
    quick: bool,
    say: Callable[[str], Any] = lambda line: None,
) -> list[ToLoss]:
    """Epochs and seconds until f at the feasible point is within 1e-8 of f*, relative to the start."""
    scale = 5 if quick else 1
    problems: dict[str, Any] = {
        f"PCA {10_000 // scale} x 50, p = 25": lo.problems.SampledPCA.random(
            10_000 // scale, 50, 25, rng=0
        ),
        f"ICA {50_000 // scale} x 40": lo.problems.ICA.random(40, 50_000 // scale, rng=0),
    }
    estimators = {"SVRG": lo.estimators.Svrg(), "SAGA": lo.estimators.Saga()}
    rows = []
    for title, problem in problems.items():
        x0 = lo.stiefel.random(*problem.shape, rng=0)
        best = lo.minimize(problem, x0, lo.landing_lbfgs(), tol=1e-9).feasible_fun
        target = best + 1e-8 * (problem.fun(x0) - best)
        for kind, estimator in estimators.items():
            factor = 0.5 if kind == "SVRG" else 1.0 / 6.0
            step = factor / _curvature(problem, x0, estimator)
            found: dict[str, list[ToLoss]] = {name: [] for name in methods}
            for _ in range(repeats):
                for name in methods:
                    found[name].append(
                        _way(title, kind, name, problem, x0, step, estimator, target)
                    )
            for name in methods:
                middle = sorted(found[name], key=lambda row: row.seconds)[len(found[name]) // 2]
                rows.append(middle)
            say(f"{title}, {kind}: step {step:.3g}")
    return rows


def _curvature(problem: Any, x0: Any, estimator: Any) -> float:
    from landingopt.oracle import Oracle
    from landingopt.space import Space

    space = Space(problem.shape, problem.constraint, x0)
    oracle = Oracle(problem, space, np.random.default_rng(0))
    return float(estimator.start(oracle, value=False).curvature([x0]))


def _way(
    title: str,
    kind: str,
    name: str,
    problem: Any,
    x0: Any,
    step: float,
    estimator: Any,
    target: float,
) -> ToLoss:
    result = lo.minimize(
        problem,
        x0,
        method(name, step, estimator),
        stop=lo.Target(target) | lo.MaxEpochs(100),
        record=lo.EveryEpoch(0.5),
        rng=2,
    )
    trace = result.trace
    reached = bool(result.feasible_fun <= target)
    return ToLoss(title, kind, name, float(trace["epoch"][-1]), result.seconds, reached)


# -- text and CSV ---------------------------------------------------------------------------------


def epochs_table(rows: Sequence[Epoch]) -> str:
    """Milliseconds an epoch; of the others also over the landing's."""
    methods = list(dict.fromkeys(row.method for row in rows))
    header = ["n x p", "batch", "gradient", "products", *methods]
    lines = []
    for key in dict.fromkeys((row.n, row.p, row.batch) for row in rows):
        here = {row.method: row for row in rows if (row.n, row.p, row.batch) == key}
        first = next(iter(here.values()))
        line = [f"{key[0]} x {key[1]}", str(key[2])]
        line += [_milliseconds(t) for t in (first.gradient_seconds, first.products_seconds)]
        landing = here.get("landing", first).seconds
        for name in methods:
            seconds = here[name].seconds
            ratio = "" if name == "landing" else f" ({seconds / landing:.2f}x)"
            line.append(_milliseconds(seconds) + ratio)
        lines.append(line)
    return as_text(header, lines)


def ways_table(rows: Sequence[ToLoss]) -> str:
    """Epochs and milliseconds to the loss, and the time over the landing's."""
    header = ["problem", "estimator", "method", "epochs", "time [ms]", "ratio"]
    lines = []
    for row in rows:
        landing = next(
            (
                r.seconds
                for r in rows
                if (r.problem, r.estimator, r.method) == (row.problem, row.estimator, "landing")
            ),
            math.nan,
        )
        reached = f"{row.epochs:.1f}" if row.reached else "not reached"
        ratio = f"{row.seconds / landing:.2f}x"
        lines.append(
            [row.problem, row.estimator, row.method, reached, _milliseconds(row.seconds), ratio]
        )
    return as_text(header, lines)


def memory_table(sizes: Sequence[Size]) -> str:
    """What the estimators keep, beside a few matrices."""
    header = ["n x p", "batch", "N", "data", "SAGA, full", "SAGA, structured", "SVRG, kept slopes"]
    lines = []
    for size in sizes:
        problem = size.problem(0)
        full, structured = (
            lo.estimators.Saga(size.batch, structured=kind).table_bytes(problem)
            for kind in (False, True)
        )
        kept = structured if structured <= lo.estimators.Svrg().max_bytes else 0
        numbers = (size.n_terms * size.n * 8, full, structured, kept)
        lines.append(
            [f"{size.n} x {size.p}", str(size.batch), str(size.n_terms), *map(shown, numbers)]
        )
    return as_text(header, lines)


def as_text(header: list[str], lines: list[list[str]]) -> str:
    """Aligned columns under a header."""
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    rows = [_aligned(header, widths)]
    rows.append("-" * len(rows[0]))
    return "\n".join([*rows, *(_aligned(line, widths) for line in lines)])


def write_csv(rows: Sequence[Any], path: Path) -> None:
    """Epoch rows and ToLoss rows, with a column that tells them apart."""
    names = ["kind", *dict.fromkeys(f.name for row in rows for f in dataclasses.fields(row))]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({"kind": type(row).__name__, **dataclasses.asdict(row)})
