"""``lo.compare``: several methods on one problem, on equal terms."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landingopt import _inputs, _xp, stiefel
from landingopt._minimize import minimize
from landingopt.objectives import Problem, Variable
from landingopt.observe.measure import Measure
from landingopt.observe.record import Metrics, Record
from landingopt.observe.stop import MaxIterations, check_rule
from landingopt.observe.trace import _plain, _text
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.result import Result
from landingopt.space import Space
from landingopt.status import Status
from landingopt.table import comparison_table, shortened

_WARM_UP = MaxIterations(3)


def compare(
    problem: Problem | Any,
    methods: Mapping[str, Any] | Sequence[Any],
    x0: Variable | None = None,
    *,
    repeats: int = 3,
    reference_value: Any = None,
    accuracy: float | None = None,
    tol: float | None = None,
    stop: Any = None,
    record: Record | None = None,
    metrics: Metrics | None = None,
    rng: np.random.Generator | int | None = None,
    component: int | Any = None,
    progress: bool = False,
) -> Comparison:
    """Run several methods from one start and compare what they reached and how fast.

    The start is made once. Each method has one short untimed run first; then the timed runs are
    interleaved, all methods once, then all again, so that a slow minute of the machine hits all
    alike. The clock stands still while the trace is recorded. A method that breaks, or raises,
    stays in the table with its status or error, and the others are run.

    Parameters
    ----------
    problem, x0, tol, record, component
        As for :func:`landingopt.minimize`; the component "both" is not for comparisons.
    methods : dict of str to method, or list of methods
        A list is named by the methods' own names.
    repeats : int
        Timed runs of each method.
    reference_value : float, optional
        f*, from which "f - f*" is counted; for a separable stack the sum over its matrices. By
        default the problem's closed form in the component of x0 where there is one, else the lowest
        feasible value that any method has seen.
    accuracy : float, optional
        Where "time to 1e-6" is read off the traces: the first row with a gradient norm of at most
        ``accuracy`` times that at the start, and a distance of at most
        max(accuracy, 4 u sqrt(p)). max(1e-6, 100 u) by default, with u = finfo(dtype).eps. It is as
        fine as the record: on a device rows are 50 iterations apart by default.
    stop : stop rule, or dict of str to stop rule, optional
        One for all methods, or one for each name; names left out have the default rule with
        ``tol``.
    metrics : dict of str to function, optional
        Measured at each row of the traces, and shown in the table at the last one; the same as
        ``record=lo.Every(k, metrics=...)``.
    rng : numpy Generator or int, optional
        For the start, and one seed for each repeat that all methods share.
    progress : bool
        A progress bar over the runs, on standard error.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        For bad input, before anything is run.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(8, rng=0)
    >>> comparison = lo.compare(
    ...     problem, {"free": lo.landing(), "fixed": lo.landing(step=0.02)}, rng=0, repeats=1
    ... )
    >>> [row["method"] for row in comparison.rows() if row["solved"]]
    ['free', 'fixed']
    >>> bool(abs(comparison.results["free"].feasible_fun - comparison.reference_value) < 1e-8)
    True
    """
    if isinstance(repeats, bool) or not (isinstance(repeats, int) and repeats >= 1):
        raise ValueError(f"repeats must be an integer of at least 1, got {repeats!r}")
    if accuracy is not None and not 0.0 < accuracy < 1.0:
        raise ValueError(f"accuracy must lie strictly between 0 and 1, got {accuracy!r}")
    if isinstance(component, str):
        raise ValueError(
            f"component must be +1, -1 or None here, got {component!r}: every method starts at the "
            "same point; compare in each component, or use lo.minimize(component='both')"
        )
    named = _named_methods(methods)
    problem = _inputs.as_problem(problem, x0)
    if hasattr(problem, "grad_batch"):
        raise TypeError(
            "compare measures f and its gradient as a whole, which a stream does not tell; run "
            "lo.minimize with each method, or collect the rows and state a lo.FiniteSum"
        )
    generator = np.random.default_rng(rng)
    x0 = _inputs.start(problem, x0, generator)
    if component is not None:
        x0 = _inputs.in_component(x0, component)
    space, first_gradient_norm = _at_the_start(problem, x0)
    rules = _rules(stop, named)
    accuracy = max(1e-6, 100.0 * space.unit_roundoff) if accuracy is None else accuracy
    record = _with_metrics(record, metrics, space)
    seeds = [int(seed) for seed in generator.integers(2**62, size=repeats)]

    runs, errors = _run_all(
        named, seeds, progress,
        lambda name, seed, warm_up: minimize(
            problem, x0, named[name],
            stop=_WARM_UP if warm_up else rules.get(name),
            tol=None if warm_up or name in rules else tol,
            record=None if warm_up else record,
            rng=seed, on_failure="return",
        ),
    )  # fmt: skip

    value, source = _reference(problem, x0, space, runs, reference_value)
    return Comparison(
        problem=problem,
        x0=x0,
        methods=named,
        runs=runs,
        errors=errors,
        reference_value=value,
        reference_source=source,
        accuracy=accuracy,
        first_gradient_norm=first_gradient_norm,
        unit_roundoff=space.unit_roundoff,
        landed=max(accuracy, 4.0 * space.unit_roundoff * math.sqrt(space.size_p)),
    )


@dataclass(repr=False)
class Comparison:
    """What :func:`compare` returns; ``print`` it for the table.

    Attributes
    ----------
    problem : problem
    x0 : array, dict or tuple
        The start of every run.
    methods : dict of str to method
    runs : dict of str to list of Result
        All timed runs, in order.
    errors : dict of str to str
        The first line of what a method raised.
    results : dict of str to Result
        Of each method the run with the median time.
    seconds : dict of str to float
        Median time; ``seconds_range`` has (min, max).
    reference_value : float
        f*; for a separable stack the sum over its matrices.
    reference_source : str
        "given", "closed form" or "lowest value seen".
    accuracy : float
        Of the column "time to 1e-6".

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(8, rng=0)
    >>> comparison = lo.compare(problem, [lo.landing()], rng=0, repeats=1)
    >>> comparison.best(), comparison.reference_source
    ('landing', 'closed form')
    >>> sorted(comparison.curves("landing"))[:3]
    ['distance', 'gap', 'iteration']
    """

    problem: Any
    x0: Variable
    methods: dict[str, Any]
    runs: dict[str, list[Result]]
    errors: dict[str, str]
    reference_value: float
    reference_source: str
    accuracy: float
    first_gradient_norm: Any
    unit_roundoff: float
    landed: float

    @property
    def results(self) -> dict[str, Result]:
        """Of each method that has finished a run, the one with the median time."""
        return {
            name: sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
            for name, runs in self.runs.items()
            if runs
        }

    @property
    def seconds(self) -> dict[str, float]:
        """Median time of each method."""
        return {
            name: statistics.median(run.seconds for run in runs)
            for name, runs in self.runs.items()
            if runs
        }

    @property
    def seconds_range(self) -> dict[str, tuple[float, float]]:
        """Shortest and longest time of each method."""
        return {
            name: (min(run.seconds for run in runs), max(run.seconds for run in runs))
            for name, runs in self.runs.items()
            if runs
        }

    def best(self) -> str:
        """The name of the first method of the table: the first to reach ``accuracy``.

        Raises
        ------
        ValueError
            Where every method raised an error.
        """
        for row in self.rows():
            if row["method"] in self.results:
                return row["method"]
        raise ValueError(f"no method has finished a run: {self.errors}")

    # -- the numbers --------------------------------------------------------------------------

    def curves(self, name: str) -> dict[str, np.ndarray]:
        """The trace of one method, one number a row whatever the shape of x.

        Returns
        -------
        dict
            ``iteration``, ``seconds``, ``gap`` (f - f* at the feasible point, summed over a
            separable stack), ``relative_gradient_norm`` (to that at the start) and ``distance``
            (both the largest over a separable stack).

        Raises
        ------
        KeyError
            For a method that has no result.
        """
        if name not in self.results:
            raise KeyError(f"no result of {name!r}; there are {', '.join(self.results) or 'none'}")
        return self._curves(self.results[name])

    def _curves(self, run: Result) -> dict[str, np.ndarray]:
        trace = run.trace
        return {
            "iteration": trace["iteration"],
            "seconds": trace["seconds"],
            "gap": _by_row(trace["feasible_fun"], np.sum) - self.reference_value,
            "relative_gradient_norm": _by_row(self._relative(trace["gradient_norm"]), np.max),
            "distance": _by_row(trace["distance"], np.max),
        }

    def _relative(self, gradient_norm: Any) -> Any:
        """||grad|| / ||grad at the start||, of each matrix of a stack; 0 / 0 is 0."""
        norm = np.asarray(gradient_norm, dtype=float)
        first = np.asarray(self.first_gradient_norm, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(norm == 0.0, 0.0, norm / first)

    def _seconds_to_accuracy(self, run: Result) -> float:
        """When the run first was at ``accuracy``; inf if never."""
        curves = self._curves(run)
        there = curves["relative_gradient_norm"] <= self.accuracy
        there &= curves["distance"] <= self.landed
        if there.any():
            return float(curves["seconds"][np.argmax(there)])
        # A start that is the solution has no gradient norm to compare with.
        return float(curves["seconds"][-1]) if run.success and run.nit == 0 else math.inf

    def rows(self) -> list[dict[str, Any]]:
        """The table as numbers, solved methods first, by time to ``accuracy``.

        Returns
        -------
        list of dict
            ``method``, ``status``, ``solved`` (``accuracy`` was reached), ``success`` (the stop
            rule was met), ``seconds`` (median; ``seconds_min``, ``seconds_max``), ``ratio`` (of
            seconds, to the fastest successful method), ``seconds_to_accuracy`` (median; inf if
            never) and its ``ratio_to_accuracy``, ``nit``, ``nfev``, ``njev``, ``nhev``,
            ``feasible_fun``, ``gap``, ``relative_gap``, ``gradient_norm``,
            ``relative_gradient_norm``, ``distance``, and the last value of each metric.
        """
        rows = [self._row(name) for name in self.methods]
        fastest = _smallest([row["seconds"] for row in rows if row["success"]]) or _smallest(
            [row["seconds"] for row in rows]
        )
        first = _smallest([row["seconds_to_accuracy"] for row in rows])
        for row in rows:
            row["ratio"] = row["seconds"] / fastest if fastest else math.nan
            row["ratio_to_accuracy"] = row["seconds_to_accuracy"] / first if first else math.nan
        return sorted(rows, key=_place)

    def _row(self, name: str) -> dict[str, Any]:
        if name not in self.results:
            numbers = dict.fromkeys(_NUMBERS, math.nan)
            broken = {"status": "ERROR", "solved": False, "success": False}
            return {"method": name, **numbers, **broken, "seconds_to_accuracy": math.inf}
        run = self.results[name]
        low, high = self.seconds_range[name]
        to_accuracy = statistics.median(self._seconds_to_accuracy(r) for r in self.runs[name])
        value = float(np.sum(run.feasible_fun))
        gap = value - self.reference_value
        row = {
            "method": name,
            "status": "ERROR" if name in self.errors else _status(run.status),
            "solved": math.isfinite(to_accuracy),
            "success": run.success and name not in self.errors,
            "seconds": self.seconds[name],
            "seconds_min": low,
            "seconds_max": high,
            "ratio": math.nan,
            "seconds_to_accuracy": to_accuracy,
            "ratio_to_accuracy": math.nan,
            "nit": run.nit,
            "nfev": run.nfev,
            "njev": run.njev,
            "epoch": float(run.trace["epoch"][-1]),
            "nhev": run.nhev,
            "feasible_fun": value,
            "gap": gap,
            "relative_gap": gap / abs(self.reference_value) if self.reference_value else math.nan,
            "gradient_norm": float(np.max(run.gradient_norm)),
            "relative_gradient_norm": float(np.max(self._relative(run.gradient_norm))),
            "distance": float(np.max(run.distance)),
        }
        for metric in run.trace.columns:
            if metric not in row and metric in self._metrics:
                row[metric] = _plain(run.trace[metric][-1])
        return row

    @property
    def _metrics(self) -> list[str]:
        """Names of the user's metrics: the columns beyond those of every trace."""
        from landingopt.observe.trace import COLUMNS

        names: dict[str, None] = {}
        for run in self.results.values():
            names.update(dict.fromkeys(c for c in run.trace.columns if c not in COLUMNS))
        return list(names)

    # -- as text and files --------------------------------------------------------------------

    def table(self) -> str:
        """The comparison as aligned plain text; both times are medians over the repeats, in ms."""
        text = comparison_table(self.rows(), self.errors, self.accuracy, self._metrics)
        return "\n".join([text, *self._elsewhere()])

    def _elsewhere(self) -> Iterator[str]:
        """A line for each method that has left the start's component, which f* is of."""
        if self.reference_source != "closed form":
            return
        start = stiefel.component(self.x0)
        for name, run in self.results.items():
            if start is not None and run.component is not None and np.any(run.component != start):
                yield (
                    f"{name} has ended in another component (sign of det x) than that of the start, "
                    "which f* is of"
                )

    def __repr__(self) -> str:
        return f"Comparison({problem_name(self.problem)}, methods={list(self.methods)})"

    def __str__(self) -> str:
        repeats = max((len(runs) for runs in self.runs.values()), default=0)
        return (
            f"{problem_name(self.problem)}\n"
            f"f* = {self.reference_value:.10g} ({self.reference_source}); "
            f"times are medians of {repeats} run{'s' * (repeats != 1)}\n\n{self.table()}"
        )

    def _trace_rows(self) -> Iterator[dict[str, Any]]:
        for name, run in self.results.items():
            for row in run.trace.rows():
                yield {"method": name, **row}

    def _trace_columns(self) -> list[str]:
        columns = {"method": None}
        for run in self.results.values():
            columns.update(dict.fromkeys(run.trace.columns))
        return list(columns)

    def to_csv(self, path: str | Path) -> None:
        """Write the traces of :attr:`results`, one line a row, with a column ``method``."""
        columns = self._trace_columns()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in self._trace_rows():
                rest = [_text(row.get(name, math.nan)) for name in columns[1:]]
                writer.writerow([row["method"], *rest])

    def to_json(self, path: str | Path) -> None:
        """Write the table and the traces; what is not finite becomes null.

        The keys are ``problem``, ``reference_value``, ``reference_source``, ``accuracy``,
        ``errors``, ``table`` (the list of :meth:`rows`) and ``trace`` ({column: [values]}, with a
        column ``method``).
        """
        columns = {name: [] for name in self._trace_columns()}  # type: dict[str, list[Any]]
        for row in self._trace_rows():
            for name, values in columns.items():
                values.append(_plain(row.get(name)))
        data = {
            "problem": problem_name(self.problem),
            "reference_value": _plain(self.reference_value),
            "reference_source": self.reference_source,
            "accuracy": self.accuracy,
            "errors": self.errors,
            "table": [{key: _plain(value) for key, value in row.items()} for row in self.rows()],
            "trace": columns,
        }
        Path(path).write_text(json.dumps(data), encoding="utf-8")

    def plot(self, path: str | Path | None = None) -> Any:
        """The figure of ``lo.plotting.plot_comparison``, written to ``path`` where one is given."""
        from landingopt.plotting import plot_comparison

        return plot_comparison(self, path)


def problem_name(problem: Any) -> str:
    """One short line that says what the problem is, and its sizes."""
    text = " ".join(repr(problem).split())
    if " object at 0x" in text:
        text = f"{type(problem).__name__}(shape={problem.shape})"
    return shortened(text, 100)


# -- the runs ---------------------------------------------------------------------------------


def _run_all(
    named: dict[str, Any], seeds: list[int], progress: bool, run: Any
) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """A warm-up run of each method, then all methods once for each seed."""
    runs: dict[str, list[Result]] = {name: [] for name in named}
    errors: dict[str, str] = {}
    plan = [(name, seeds[0], True) for name in named]
    plan += [(name, seed, False) for seed in seeds for name in named]
    bar = _bar(len(plan)) if progress else None
    try:
        for name, seed, warm_up in plan:
            if bar is not None:
                bar.set_postfix_str(name)
            if name not in errors:
                # The table says what went wrong; one broken method must not cost the others' runs.
                try:
                    result = run(name, seed, warm_up)
                    if not warm_up:
                        runs[name].append(result)
                except Exception as error:
                    errors[name] = _first_line(error)
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.close()
    return runs, errors


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="compare", unit="run", dynamic_ncols=True, leave=False)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _at_the_start(problem: Problem, x0: Variable) -> tuple[Space, Any]:
    """The space, and the gradient norm at the closest point of the manifold: one scale for all."""
    space = Space(problem.shape, problem.constraint, x0)
    oracle = Oracle(problem, space)
    if space.array and space.blocks[0].batch:
        _inputs.look_at_stack(oracle, x0)
    measure, point = Measure(oracle), Point(space, [])
    point.place(space.to_blocks(x0))
    if np.max(measure.distance(point)) > 1e-8:
        point.place(measure.feasible(point))
    return space, measure.gradient_norm(point)


def _reference(
    problem: Problem,
    x0: Variable,
    space: Space,
    runs: dict[str, list[Result]],
    given: Any,
) -> tuple[float, str]:
    """f* and where it is from."""
    if given is not None:
        return float(np.sum(_xp.to_host(given) if hasattr(given, "dtype") else given)), "given"
    optimum = getattr(problem, "optimum", None)
    if callable(optimum) and space.array:
        best = optimum(component=stiefel.component(x0))
        if best is not None:
            value = best[1]
            return float(np.sum(_xp.to_host(value) if hasattr(value, "dtype") else value)), (
                "closed form"
            )
    seen = [math.inf]
    for run in (run for repeats in runs.values() for run in repeats):
        values = np.append(
            _by_row(run.trace["feasible_fun"], np.sum), np.sum(np.asarray(run.feasible_fun))
        )
        seen.extend(values[np.isfinite(values)].tolist())
    return (min(seen) if len(seen) > 1 else math.nan), "lowest value seen"


# -- what comes in ----------------------------------------------------------------------------


def _named_methods(methods: Any) -> dict[str, Any]:
    """{name: method}; the names of a list are the methods' own, made unique."""
    if isinstance(methods, Mapping):
        named = dict(methods)
        for name in named:
            if not isinstance(name, str):
                raise TypeError(f"the names of methods must be strings, got {name!r}")
    elif isinstance(methods, Sequence) and not isinstance(methods, str):
        named = {}
        for method in methods:
            name = base = str(getattr(method, "name", type(method).__name__))
            count = 1
            while name in named:
                count += 1
                name = f"{base} ({count})"
            named[name] = method
    else:
        raise TypeError(
            'methods must be a dict {"name": method} or a list of methods, for example '
            f'{{"landing": lo.landing()}}; got {methods!r:.80}'
        )
    if not named:
        raise ValueError("methods is empty; give at least one, such as lo.landing()")
    return {name: _inputs.checked_method(method) for name, method in named.items()}


def _rules(stop: Any, named: dict[str, Any]) -> dict[str, Any]:
    """{name: stop rule} for the methods that have one of their own."""
    if stop is None:
        return {}
    if not isinstance(stop, Mapping):
        return dict.fromkeys(named, check_rule(stop))
    unknown = [name for name in stop if name not in named]
    if unknown:
        raise ValueError(f"stop names {unknown}, which are not among the methods {list(named)}")
    return {name: check_rule(rule) for name, rule in stop.items()}


def _with_metrics(record: Any, metrics: Metrics | None, space: Space) -> Any:
    record = _inputs.checked_record(record, space)
    if metrics is None:
        return record
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict of name to function of x, got {metrics!r:.80}")
    joined = {**record.metrics, **metrics}
    if not dataclasses.is_dataclass(type(record)):
        raise TypeError("put the metrics into your record: both record= and metrics= were given")
    return dataclasses.replace(record, metrics=joined)


# -- numbers -------------------------------------------------------------------------

_NUMBERS = (
    "seconds", "seconds_min", "seconds_max", "ratio", "seconds_to_accuracy", "ratio_to_accuracy",
    "nit", "nfev", "njev", "epoch", "nhev", "feasible_fun", "gap", "relative_gap", "gradient_norm",
    "relative_gradient_norm", "distance",
)  # fmt: skip


def _by_row(values: np.ndarray, reduce: Any) -> np.ndarray:
    """One number for each row of a trace, whatever the shape of the stack."""
    values = np.asarray(values, dtype=float)
    return reduce(values.reshape(len(values), -1), axis=1)


def _smallest(values: list[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return min(finite) if finite else None


def _place(row: dict[str, Any]) -> tuple[float, ...]:
    """Solved first, by time to accuracy; then by gradient norm; errors last."""
    norm = row["relative_gradient_norm"]
    return (
        row["status"] == "ERROR" and not row["solved"],
        row["seconds_to_accuracy"],
        norm if math.isfinite(norm) else math.inf,
    )


def _status(status: Any) -> str:
    """A word for a run; for a stack whose matrices differ, how many are solved."""
    codes = np.ravel(np.asarray(status))
    if np.all(codes == codes[0]):
        return Status(int(codes[0])).name
    return f"{sum(Status(int(code)).success for code in codes)} of {codes.size} solved"
