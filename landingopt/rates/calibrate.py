"""The errors of the verdict, measured: how often is what holds REJECTED, and what is broken CONSISTENT?

Every row is a kind of run on fresh random problems: laws, methods inside the conditions of their
theorem; controls, of which one thing is broken (:mod:`landingopt.rates.controls`); and what is not
claimed to be found, with its rate all the same. The problems are small, p = 3 to 6, and those of one
shape run at once, as a separable stack: a step of each costs microseconds. What ``check`` does to one
problem is done to each: the same lengths, seeds, records and floors, and the same judge.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from landingopt import _xp, estimators, fields, samplers, steps, stiefel
from landingopt._minimize import minimize
from landingopt.gradient_check import check_gradient
from landingopt.methods import Method, landing, landing_saga, landing_sgd, landing_svrg, riemannian
from landingopt.observe.stop import MaxIterations
from landingopt.point import Point
from landingopt.problems import PCA, Procrustes
from landingopt.rates import controls, laws
from landingopt.rates.experiment import _FLOOR
from landingopt.rates.judge import Floors, Verdict, judge, overall
from landingopt.rates.laws import Sublinear
from landingopt.rates.series import MARKS, Observed, Strata
from landingopt.rates.theorems import descent_scale, is_square
from landingopt.rates.unbiased import check_samples, check_unbiased
from landingopt.result import Result
from landingopt.status import Status
from landingopt.sums import FiniteSum

_TERMS = 16
_EPS = 0.5  # the tube
_SHAPES = ((4, 3), (6, 4), (5, 5), (6, 6))
_HORIZON = 2**13
_SETTLED = 8.0  # relaxation times within an eighth of it: e^-16 of the start is left


@dataclass(frozen=True)
class Rate:
    """How often the verdict was wrong in one row of the study.

    Attributes
    ----------
    name, law : str
        What ran, and the law it was held against.
    kind : str
        "law": REJECTED is the error; "control" and "not claimed": CONSISTENT is.
    consistent, rejected, inconclusive : int
    """

    name: str
    kind: str
    law: str
    consistent: int
    rejected: int
    inconclusive: int

    @property
    def problems(self) -> int:
        return self.consistent + self.rejected + self.inconclusive

    @property
    def errors(self) -> int:
        return self.rejected if self.kind == "law" else self.consistent

    @property
    def rate(self) -> float:
        return self.errors / self.problems

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Clopper and Pearson for the rate.

        Examples
        --------
        >>> from landingopt.rates.calibrate import Rate
        >>> low, high = Rate("gradient descent", "law", "O(1/T)", 1000, 0, 0).interval
        >>> low, round(high, 5)
        (0.0, 0.00368)
        """
        from scipy.stats import binomtest

        found = binomtest(self.errors, self.problems).proportion_ci(0.95, method="exact")
        return float(found.low), float(found.high)


def study(
    problems: int = 1000,
    *,
    quick: bool = False,
    rng: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Rate]:
    """Measure the error rates of the verdict.

    Parameters
    ----------
    problems : int
        Of each row; of a row that is not claimed a quarter of it.
    quick : bool
        To see that it runs: at most 8 problems, of one shape, and a horizon at which little is decided.
    rng : int
        The seed; each experiment has a stream of its own.
    say : function of a line of text
        Told of each row as it is done.
    """
    rates: list[Rate] = []
    problems = min(problems, 8) if quick else problems
    for number, experiment in enumerate(_EXPERIMENTS):
        claimed = any(row.kind != "not claimed" for row in experiment.rows)
        bench = Bench(
            max(1, problems if claimed else problems // 4),
            2**10 if quick else _HORIZON,
            _SHAPES[:1] if quick else _SHAPES,
            np.random.default_rng([rng, number]),
            2 if quick else 4,
        )
        columns = list(zip(*experiment.verdicts(bench), strict=True))
        for row, verdicts in zip(experiment.rows, columns, strict=True):
            rates.append(row.rate(verdicts))
            say(table(rates[-1:]).splitlines()[-1])
    return rates


_TITLES = ("", "law", "n", "consistent", "rejected", "inconcl.", "error", "95 % interval")
_HEADINGS = {
    "law": "laws that hold: REJECTED is the error",
    "control": "broken: CONSISTENT is the error",
    "not claimed": "not claimed to be found: CONSISTENT is the error",
}


def table(rates: Iterable[Rate]) -> str:
    """Aligned plain text, by kind."""
    rates = list(rates)
    lines: list[tuple[str, ...]] = [_TITLES]
    for kind, heading in _HEADINGS.items():
        if found := [rate for rate in rates if rate.kind == kind]:
            lines += [(heading,), *map(_line, found)]
    full = [line for line in lines if len(line) > 1]
    widths = [max(len(line[i]) for line in full) for i in range(len(_TITLES))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ]
        text.append(
            line[0] if len(line) == 1 else "  ".join(["  " + cells[0], *cells[1:]]).rstrip()
        )
    return "\n".join(text)


def _line(rate: Rate) -> tuple[str, ...]:
    low, high = rate.interval
    counts = (rate.problems, rate.consistent, rate.rejected, rate.inconclusive)
    return (
        rate.name, rate.law, *map(str, counts), f"{rate.rate:.1%}", f"{low:.2%} to {high:.2%}"
    )  # fmt: skip


def write_csv(rates: Iterable[Rate], path: str | Path) -> None:
    """One line a row of the study."""
    counts = ("problems", "consistent", "rejected", "inconclusive", "errors", "rate")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "kind", "law", *counts, "low", "high"))
        for rate in rates:
            values = (getattr(rate, name) for name in counts)
            writer.writerow((rate.name, rate.kind, rate.law, *values, *rate.interval))


# -- the random problems --------------------------------------------------------------------------


class Bench(NamedTuple):
    """How many problems, of which shapes, for how many iterations, from which draws.

    ``seeds`` is of a stochastic method: 4 in ``check``.
    """

    problems: int
    horizon: int
    shapes: Sequence[tuple[int, int]]
    rng: np.random.Generator
    seeds: int = 4

    def groups(self) -> Iterator[tuple[int, int, int]]:
        """The number of problems of each shape, and the shape."""
        ends = [self.problems * k // len(self.shapes) for k in range(len(self.shapes) + 1)]
        for shape, begin, end in zip(self.shapes, ends, ends[1:]):
            if end > begin:
                yield end - begin, *shape

    @property
    def lengths(self) -> list[int]:
        """Of fresh runs."""
        return [self.horizon >> j for j in range(MARKS - 1, -1, -1)]

    def spread(self, low: Any, high: Any, count: Any = None) -> np.ndarray:
        """Log-uniform numbers."""
        return np.exp(self.rng.uniform(np.log(low), np.log(high), count))


@dataclass(frozen=True, eq=False)
class Each:
    """A step rule: a step for each matrix of a stack, times those of another rule."""

    sizes: np.ndarray
    rule: Any = field(default_factory=lambda: steps.Constant(1.0))

    def start(self, context: Any) -> Each:
        return replace(self, rule=self.rule.start(context))

    def size(self, k: int, point: Point) -> np.ndarray:
        return self.sizes * self.sizes.dtype.type(self.rule.size(k, point))


def curvatures(C: np.ndarray, x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest curvature of -<C, X> at its minimum on the component of each x0."""
    n, p = C.shape[-2:]
    u, s, vh = np.linalg.svd(C, full_matrices=False)
    if n > p:
        return np.minimum(s[:, -1], 0.5 * (s[:, -1] + s[:, -2])), s[:, 0]
    s[:, -1] *= np.sign(np.linalg.det(u @ vh) * np.linalg.det(x0))
    return 0.5 * (s[:, -1] + s[:, -2]), 0.5 * (s[:, 0] + s[:, 1])


def _procrustes(bench: Bench, dtype: Any = np.float64) -> Iterator[tuple[Any, Any, Any]]:
    """Problems with Gaussian data, starts, and half of the longest stable steps along the papers' R.

    With steps close to the longest stable one runs may end in a cycle, away from the minimum.
    """
    for count, n, p in bench.groups():
        problem = Procrustes.random(p, n, stack=(count,), rng=bench.rng, dtype=dtype)
        x0 = stiefel.random(n, p, stack=(count,), rng=bench.rng, like=problem.like)
        s = np.linalg.svd(problem.B @ problem.A.mT, compute_uv=False)
        yield problem, x0, 1.0 / (s[:, 0] + s[:, 1])


def _components(bench: Bench) -> Iterator[tuple[Any, Any, Any]]:
    """PCA of Gaussian samples with columns of unequal size; starts, half of the longest stable steps."""
    for count, rows, p in bench.groups():
        n = rows + 2
        samples = bench.rng.standard_normal((count, 3 * n, n))
        samples *= bench.spread(1 / 3, 3, (count, 1, n))
        spectrum = np.linalg.eigvalsh(samples.mT @ samples / (3 * n))
        x0 = stiefel.random(n, p, stack=(count,), rng=bench.rng)
        yield PCA(samples, p), x0, 2.0 / (spectrum[:, -1] - spectrum[:, 0])


class LeastSquares(FiniteSum):
    """A stack of sums of ||X A_i - B_i||^2 / 2, with noise that does not vanish at the minimum.

    ``longest`` is the longest step at which no term's curvature is overstepped, and no safe step cuts:
    the theorems are of steps that do not depend on the draw.
    """

    def __init__(self, A: np.ndarray, B: np.ndarray):
        self.A, self.B = A, B
        products = B @ A.mT
        self.gram, self.C = np.mean(A @ A.mT, axis=0), np.mean(products, axis=0)
        self._constant = 0.5 * np.mean(np.sum(B * B, axis=(-1, -2)), axis=0)
        self.curvature = np.max(
            np.linalg.norm(A, 2, axis=(-2, -1)) ** 2 + np.linalg.norm(products, 2, axis=(-2, -1)),
            axis=0,
        )
        sizes = np.linalg.norm(products, axis=(-2, -1))  # bound ||psi_i|| on the manifold
        # With lam = 1 the distance settles below eta E||psi_i||^2 / 2: at most eps / 2.
        self.longest = np.minimum.reduce(
            [
                0.5 / self.curvature,
                _EPS / np.mean(sizes**2, axis=0),
                (0.5 * _EPS) ** 0.5 / np.max(sizes, axis=0),
                np.full(sizes.shape[1], 0.5),
            ]
        )
        shape = (A.shape[1], B.shape[-2], A.shape[-2])
        super().__init__(self._some, self._gradient, n_terms=len(A), shape=shape)

    def _some(self, x: np.ndarray, terms: Any) -> np.ndarray:
        residual = x @ self.A[terms] - self.B[terms]
        return 0.5 * np.mean(np.sum(residual**2, axis=(-1, -2)), axis=0)

    def _gradient(self, x: np.ndarray, terms: Any) -> np.ndarray:
        if isinstance(terms, np.ndarray) and len(terms) == 1:  # no copies
            a, b = self.A[terms[0]], self.B[terms[0]]
            return (x @ a - b) @ a.mT
        a = self.A[terms]
        return np.mean((x @ a - self.B[terms]) @ a.mT, axis=0)

    def _fun(self, x: np.ndarray) -> np.ndarray:
        return self._constant + np.sum((0.5 * x @ self.gram - self.C) * x, axis=(-1, -2))

    def grad(self, x: np.ndarray) -> np.ndarray:
        return x @ self.gram - self.C


def _sums(bench: Bench, settled: bool = False) -> Iterator[tuple[LeastSquares, Any, Any]]:
    """Sums with f of a scale within four times of lam = 1; starts, and the least curvatures.

    With ``settled`` those whose longest step comes to rest within an eighth of the horizon.
    """
    rng = bench.rng
    for count, n, p in bench.groups():
        found: list[tuple[np.ndarray, ...]] = []
        while sum(len(x0) for *_, x0 in found) < count:
            A = rng.standard_normal((_TERMS, count, p, p))
            B = stiefel.random(n, p, stack=(count,), rng=rng) @ A
            B += bench.spread(0.3, 3.0, (count, 1, 1)) * rng.standard_normal(B.shape)
            scale = (bench.spread(0.25, 4.0, count) / LeastSquares(A, B).curvature) ** 0.5
            A, B = A * scale[:, None, None], B * scale[:, None, None]
            x0 = stiefel.random(n, p, stack=(count,), rng=rng)
            problem = LeastSquares(A, B)
            least, _ = curvatures(problem.C, x0)
            enough = problem.longest * least * _HORIZON > 8.0 * _SETTLED * 1.1
            keep = enough if settled else np.full(count, True)
            found.append((A[:, keep], B[:, keep], x0[keep]))
        A, B = (np.concatenate(parts, axis=1)[:, :count] for parts in list(zip(*found))[:2])
        x0 = np.concatenate([part[-1] for part in found])[:count]
        problem = LeastSquares(A, B)
        yield problem, x0, curvatures(problem.C, x0)[0]


# -- the runs -------------------------------------------------------------------------------------


class Runs:
    """Runs of a stack of problems, problem by problem as ``check`` would see them."""

    def __init__(
        self,
        bench: Bench,
        problem: Any,
        x0: np.ndarray,
        method: Callable[[int], Method],
        fresh: bool = False,
    ):
        longest = method(bench.horizon)
        self.scale, self.lam = descent_scale(longest, is_square(problem)), longest.lam
        lengths = bench.lengths if fresh else bench.lengths[-1:]
        self.lengths = [T for T in lengths for _ in range(bench.seeds if longest.stochastic else 1)]
        results = []
        for T in self.lengths:
            seed = int(bench.rng.integers(2**31))
            results.append(
                minimize(
                    problem, x0, method(T), stop=MaxIterations(T - 1), record=Strata(64, seed),
                    rng=seed, on_failure="return",
                )
            )  # fmt: skip
        self.status = np.array([result.status for result in results])
        self.observed = [_observed(result) for result in results]
        gradient = problem.grad(results[-1].feasible_x).astype(float)
        rounding = _FLOOR * _xp.unit_roundoff(x0)
        self._gradient = (rounding * np.linalg.norm(gradient, axis=(-2, -1))) ** 2
        self._infeasibility = rounding**2 * x0.shape[-1] / 4.0
        self._rounding = rounding

    def verdicts(self, law: Sublinear) -> list[Verdict]:
        """The verdict on each problem; of runs of several lengths where the law is of such."""
        T = max(self.lengths)
        chosen = [j for j, length in enumerate(self.lengths) if law.fresh or length == T]
        return [self._verdict(i, chosen, law) for i in range(self.status.shape[1])]

    def _verdict(self, i: int, chosen: list[int], law: Sublinear) -> Verdict:
        status = self.status[chosen, i]
        if np.any(np.isin(status, (Status.NONFINITE, Status.LEFT_TUBE))):
            return Verdict.REJECTED
        runs = [self.observed[j][i] for j in chosen]
        relaxation = _relaxation(runs, self.lam)
        values = [float(np.abs(run.fun).max()) for run in runs if run.fun is not None]
        floors = Floors(
            float(self._gradient[i]),
            self._infeasibility,
            self._rounding * max(values),
            reached=bool(np.all(status == Status.AT_ROUNDING)),
        )
        reports, _ = judge(runs, law, floors, scale=self.scale, relaxation=relaxation)
        return overall(reports)


def _relaxation(runs: Sequence[Observed], lam: float) -> float | None:
    """1 / (2 eta lam), the iterations in which the normal part falls by e; None: not known."""
    steps = [
        float(np.mean(run.step[1:])) for run in runs if run.step is not None and len(run.step) > 1
    ]
    return 0.5 / (lam * min(steps)) if steps and lam else None


def _observed(result: Result) -> list[Observed]:
    """The series of each matrix of a stack, up to where it ended."""
    trace = result.trace
    iteration = trace["iteration"].astype(np.int64)
    columns = [np.asarray(trace[name], dtype=float) for name in ("gradient_norm", "distance")]
    norm, distance = columns
    fun, step = np.asarray(trace["feasible_fun"], dtype=float), np.nan_to_num(trace["step"])
    # A matrix whose run has ended stays as it is until the others are done.
    moving = np.any([column != column[-1] for column in columns], axis=0)
    last = len(iteration) - np.argmax(moving[::-1], axis=0)
    last = np.where(np.any(moving, axis=0), last, 0)
    ended = np.asarray(result.status) != Status.MAX_ITERATIONS
    ends = np.where(ended, np.minimum(last + 1, len(iteration)), len(iteration))
    return [
        Observed(
            iteration[:end], norm[:end, i] ** 2, distance[:end, i] ** 2 / 4.0, fun[:end, i],
            step[:end, i],
        )
        for i, end in enumerate(ends.tolist())
    ]  # fmt: skip


# -- the experiments ------------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of the table."""

    kind: str
    name: str
    law: str

    def rate(self, verdicts: Iterable[Verdict]) -> Rate:
        counts = Counter(verdicts)
        return Rate(
            self.name, self.kind, self.law, counts[Verdict.CONSISTENT], counts[Verdict.REJECTED],
            counts[Verdict.INCONCLUSIVE],
        )  # fmt: skip


class Experiment(NamedTuple):
    """Rows, and the verdicts: for each problem one for each row."""

    rows: Sequence[Row]
    verdicts: Callable[[Bench], Iterator[tuple[Verdict, ...]]]


Verdicts = Iterator[tuple[Verdict, ...]]
_SHARE = (0.02, 1.0)  # of the longest step


def _descent(
    bench: Bench,
    stacks: Iterable[tuple[Any, Any, Any]],
    change: Callable[[Any], Any] = lambda problem: problem,
    method: Callable[[Any], Method] = lambda step: landing(step=step),
    factor: Callable[[Any], float] = lambda x: 1.0,
) -> Verdicts:
    """Methods of the full gradient, with steps up to the longest."""
    for problem, x0, longest in stacks:
        sizes = bench.spread(*_SHARE, len(x0)) * longest * factor(x0)
        rule = Each(sizes.astype(x0.dtype))
        runs = Runs(bench, change(problem), x0, lambda T: method(rule))  # noqa: B023
        yield from zip(runs.verdicts(laws.OneOverT()))


def _euclidean_factor(x: np.ndarray) -> float:
    """The longest step along the Euclidean-metric gradient, over that along R; see ``fields``."""
    return 1.0 if x.shape[-1] == x.shape[-2] else 0.5


def _without_step(bench: Bench) -> Verdicts:
    half = bench._replace(problems=bench.problems // 2)
    rest = bench._replace(problems=bench.problems - half.problems)
    for stacks in (_procrustes(half), _components(rest)):
        yield from _descent(bench, stacks, method=lambda step: landing())


def _unstable(bench: Bench) -> Verdicts:
    """From close to the minimum: farther away the first steps leave the tube, which is no art to see."""
    for problem, x0, longest in _procrustes(bench):
        near, _ = problem.optimum()
        x0 = stiefel.polar(near + 1e-2 * bench.rng.standard_normal(x0.shape))
        rule = Each(2.2 * longest)
        runs = Runs(bench, problem, x0, lambda T: controls.unguarded(rule))  # noqa: B023
        yield from zip(runs.verdicts(laws.OneOverT()))


def _sampled(rule: Any, **options: Any) -> Method:
    """SGD one term at a time, with independent draws."""
    options.setdefault("sampler", samplers.WithReplacement())
    return landing_sgd(rule, lam=1.0, batch_size=1, **options)


# Steps for every problem of a stack: (bench, problem, least curvatures) -> sizes.
Sizes = Callable[[Bench, LeastSquares, np.ndarray], np.ndarray]


def _up_to_the_longest(bench: Bench, problem: LeastSquares, least: np.ndarray) -> np.ndarray:
    return bench.spread(*_SHARE, len(least)) * problem.longest


def _times_root(bench: Bench, problem: LeastSquares, least: np.ndarray) -> np.ndarray:
    """Steps times sqrt(T), up to the longest at the shortest run."""
    return _up_to_the_longest(bench, problem, least) * bench.lengths[0] ** 0.5


def _same_way(bench: Bench, problem: LeastSquares, least: np.ndarray) -> np.ndarray:
    """Steps times T: ways of 0.1 to 3 relaxation times, however long the run."""
    ways = bench.spread(0.1, 3.0, len(least)) / least
    return np.minimum(ways, problem.longest * bench.lengths[0])


def _settled(bench: Bench, problem: LeastSquares, least: np.ndarray) -> np.ndarray:
    """Steps that come to rest within an eighth of the horizon."""
    return bench.spread(8.0 * _SETTLED / (least * _HORIZON), problem.longest)


def _tiny(bench: Bench, problem: LeastSquares, least: np.ndarray) -> np.ndarray:
    """Ways of 0.1 to 1 relaxation times over the whole horizon."""
    ways = bench.spread(0.1, 1.0, len(least)) / least
    return np.minimum(ways / bench.horizon, problem.longest)


def _stochastic(
    bench: Bench,
    method: Callable[[Any, int], Method],
    claims: Sequence[Sublinear],
    sizes: Sizes | None = None,
    change: Callable[[Any], Any] = lambda problem: problem,
) -> Verdicts:
    """Methods that see some terms: ``method(sizes, T)``, each claim judged on the same runs."""
    sizes = sizes or _up_to_the_longest
    for problem, x0, least in _sums(bench, settled=sizes is _settled):
        chosen = sizes(bench, problem, least)
        fresh = any(law.fresh for law in claims)
        runs = Runs(bench, change(problem), x0, lambda T: method(chosen, T), fresh)  # noqa: B023
        yield from zip(*(runs.verdicts(law) for law in claims), strict=True)


def _one_by_one(
    bench: Bench, passes: Sequence[Callable[[Any, np.random.Generator], bool]], sums: bool
) -> Verdicts:
    """What ``check`` looks at before any run: what does not pass is REJECTED."""
    for k in range(bench.problems):
        one = bench._replace(problems=1, shapes=[bench.shapes[k % len(bench.shapes)]])
        kinds = [_sums] if sums else [_procrustes, _components, _sums]
        stack, *_ = next(iter(kinds[k % len(kinds)](one)))
        problem = _single(stack)
        yield tuple(
            Verdict.CONSISTENT if check(problem, bench.rng) else Verdict.REJECTED
            for check in passes
        )


def _single(stack: Any) -> Any:
    """The only problem of a stack."""
    if isinstance(stack, Procrustes):
        return Procrustes(stack.A[0], stack.B[0])
    if isinstance(stack, PCA):
        return PCA.from_covariance(stack._covariance[0], stack.shape[-1])
    A, B = stack.A[:, 0], stack.B[:, 0]
    return FiniteSum(
        lambda x, t: 0.5 * np.mean(np.sum((x @ A[t] - B[t]) ** 2, axis=(1, 2))),
        lambda x, t: np.mean((x @ A[t] - B[t]) @ A[t].mT, axis=0),
        n_terms=len(A),
        shape=stack.shape[1:],
    )


def _gradient_passes(change: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    return lambda problem, rng: bool(check_gradient(change(problem, rng), rng=rng))


def _estimate_passes(*choices: Any) -> Callable[[Any, Any], bool]:
    """One of the estimators, with a batch size of one or three: 3 does not divide 16."""

    def passes(problem: Any, rng: np.random.Generator) -> bool:
        method = landing(step=0.1, base=choices[rng.integers(len(choices))])
        if not check_unbiased(problem, method, rng=rng):
            return False
        x = stiefel.random(*problem.shape, rng=rng)
        return check_samples(problem, method, x, rng=rng) is None

    return passes


_T, _SQRT, _LOG, _O1 = (
    laws.OneOverT(), laws.OneOverSqrtT(), laws.LogOverSqrtT(), laws.Bounded()
)  # fmt: skip
_BATCHES = (1, 3)
_BLOCKS = samplers.Reshuffled(contiguous=True)


def _constant(sizes: np.ndarray, T: int) -> Method:
    return _sampled(Each(sizes))


def _frozen(sizes: np.ndarray, T: int) -> Method:
    base = controls.FrozenSaga(1)
    return landing(step=Each(sizes), base=base, tangent=fields.NearTangent())


def _falling(sizes: np.ndarray, T: int, **options: Any) -> Method:
    return _sampled(Each(sizes, steps.Decay(1.0, 0.5, 50.0)), **options)


def _fixed(sizes: np.ndarray, T: int) -> Method:
    return _sampled(Each(sizes, steps.Horizon(1.0, T)))


def _law(name: str, law: Any, kind: str = "law") -> Row:
    return Row(kind, name, str(law))


_EXPERIMENTS = (
    Experiment([_law("gradient descent, Procrustes", _T)], lambda b: _descent(b, _procrustes(b))),
    Experiment([_law("gradient descent, PCA", _T)], lambda b: _descent(b, _components(b))),
    Experiment(
        [_law("gradient descent in float32, Procrustes", _T)],
        lambda b: _descent(b, _procrustes(b, np.float32)),
    ),
    Experiment(
        [_law("Riemannian gradient descent (QR), Procrustes", _T)],
        lambda b: _descent(
            b,
            _procrustes(b),
            method=lambda step: riemannian(step=step),
            factor=_euclidean_factor,
        ),
    ),
    Experiment([_law("landing without a step, Procrustes and PCA", _T)], _without_step),
    Experiment(
        [_law("SAGA", _T)],
        lambda b: _stochastic(
            b, lambda sizes, T: landing_saga(Each(sizes), lam=1.0, batch_size=1), [_T]
        ),
    ),
    Experiment(
        [_law("SVRG", _T)],
        lambda b: _stochastic(
            b, lambda sizes, T: landing_svrg(Each(sizes), lam=1.0, batch_size=1), [_T]
        ),
    ),
    Experiment(
        [_law("SGD, step fixed for T", _SQRT)],
        lambda b: _stochastic(b, _fixed, [_SQRT], _times_root),
    ),
    Experiment(
        [
            _law("SGD, falling step", _LOG),
            _law("SGD, falling step, as if without log T", _SQRT, "not claimed"),
        ],
        lambda b: _stochastic(b, _falling, [_LOG, laws.Sublinear(0.5)]),
    ),
    Experiment(
        [
            _law("SGD, constant step", _T, "control"),
            _law("SGD, constant step", _SQRT, "control"),
        ],
        lambda b: _stochastic(b, _constant, [_T, _SQRT], _settled),
    ),
    Experiment([_law("SGD, constant step", _O1)], lambda b: _stochastic(b, _constant, [_O1])),
    Experiment(
        [_law("SGD, step ~ 1/T", _SQRT, "control")],
        lambda b: _stochastic(b, lambda sizes, T: _sampled(Each(sizes / T)), [_SQRT], _same_way),
    ),
    Experiment(
        [_law("SAGA, table never updated", _T, "control")],
        lambda b: _stochastic(b, _frozen, [_T], _settled),
    ),
    Experiment(
        [_law("lam = 0", _T, "control")],
        lambda b: _descent(b, _procrustes(b), method=controls.unattracted),
    ),
    Experiment([_law("step 2.2 / (s_1 + s_2), no safe step", _T, "control")], _unstable),
    Experiment(
        [
            Row("law", "gradient against differences of f", "right"),
            Row("control", "gradient, one sign flipped", "right"),
            Row("control", "gradient, a column scaled by 1.05", "right"),
            Row("control", "gradient, offset of 10 %", "right"),
        ],
        lambda b: _one_by_one(
            b,
            [
                _gradient_passes(lambda problem, rng: problem),
                _gradient_passes(lambda problem, rng: controls.flipped_sign(problem)),
                _gradient_passes(lambda problem, rng: controls.scaled_column(problem)),
                _gradient_passes(lambda problem, rng: controls.offset(problem, rng=rng)),
            ],
            sums=False,
        ),
    ),
    Experiment(
        [
            Row("law", "estimates of SGD, SAGA and SVRG", "unbiased"),
            Row("control", "SVRG, stale anchor", "unbiased"),
            Row("control", "minibatches, terms never drawn", "unbiased"),
            Row("control", "minibatches, unequal blocks alike", "unbiased"),
        ],
        lambda b: _one_by_one(
            b,
            [
                _estimate_passes(
                    *(
                        kind(size)
                        for kind in (estimators.MiniBatch, estimators.Saga, estimators.Svrg)
                        for size in _BATCHES
                    ),
                    estimators.MiniBatch(3, _BLOCKS),
                ),
                _estimate_passes(controls.StaleSvrg(3, inner=1.0)),
                _estimate_passes(
                    *(estimators.MiniBatch(size, controls.Omitting()) for size in _BATCHES)
                ),
                _estimate_passes(estimators.MiniBatch(3, controls.Unweighted())),
            ],
            sums=True,
        ),
    ),
    Experiment(
        [_law("trace alone: one sign flipped", _T, "not claimed")],
        lambda b: _descent(b, _procrustes(b), controls.flipped_sign),
    ),
    Experiment(
        [_law("trace alone: a column scaled by 1.05", _T, "not claimed")],
        lambda b: _descent(b, _procrustes(b), controls.scaled_column),
    ),
    Experiment(
        [_law("trace alone: offset of 10 %", _T, "not claimed")],
        lambda b: _descent(b, _procrustes(b), lambda problem: controls.offset(problem, rng=b.rng)),
    ),
    Experiment(
        [_law("trace alone: SGD, offset of 10 %", _LOG, "not claimed")],
        lambda b: _stochastic(
            b, _falling, [_LOG], change=lambda problem: controls.offset(problem, rng=b.rng)
        ),
    ),
    Experiment(
        [_law("trace alone: SGD, terms never drawn", _LOG, "not claimed")],
        lambda b: _stochastic(
            b, lambda sizes, T: _falling(sizes, T, sampler=controls.Omitting()), [_LOG]
        ),
    ),
    Experiment(
        [_law("SGD, constant step, too short for its plateau", _T, "not claimed")],
        lambda b: _stochastic(b, _constant, [_T], _tiny),
    ),
)
