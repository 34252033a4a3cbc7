"""What watches a run: stop rules, the trace, the callback and the progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt.objectives import Variable
from landingopt.observe.clock import Clock
from landingopt.observe.measure import ESTIMATE_BELOW, Measure
from landingopt.observe.progress import Progress
from landingopt.observe.record import Record
from landingopt.observe.stop import RUNNING, deadline, epoch_limit, first_code, threshold
from landingopt.observe.trace import COLUMNS, Trace
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.status import Status


class Row:
    """One iterate, as stop rules see it; a callback gets the same names, measured.

    Attributes
    ----------
    x : array, dict or tuple
        Read-only (NumPy), valid until the callback returns.
    iteration, nfev, njev : int
    epoch, seconds, wall : float
        Full gradients' worth of work, the method's own seconds, and wall time.
    fun, feasible_fun, gradient_norm, distance, step : float or array
        None where a quantity is not known at this iteration.
    first_gradient_norm : float or array
        At the first point on the manifold.
    full : bool
        At a checkpoint: everything is measured (without ``EveryEpoch(full=False)``). Elsewhere only what
        the step left is known.
    """

    def __init__(self, observer: Observer, point: Point, full: bool):
        self._observer, self._point, self.full = observer, point, full
        self._measured = full and observer.whole
        self.scalars = observer.space.scalars
        self._values: dict[str, Any] = {}
        self.iteration = point.iteration
        counts = observer.oracle.counts
        self.nfev, self.njev = counts.nfev, counts.njev

    @property
    def x(self) -> Variable:
        return self._point.user

    @property
    def epoch(self) -> float:
        return self._observer.oracle.epoch()

    @property
    def wall(self) -> float:
        return self._observer.clock.wall()

    @property
    def seconds(self) -> float:
        return self._observer.clock.seconds()

    @property
    def first_gradient_norm(self) -> Any:
        return self._observer.first_gradient_norm

    def _cached(self, name: str, function: Callable[[], Any]) -> Any:
        if name not in self._values:
            self._values[name] = function()
        return self._values[name]

    @property
    def gradient_norm(self) -> Any:
        if self._measured:
            return self._observer.measure.gradient_norm(self._point)
        return self._point.gradient_norm

    @property
    def distance(self) -> Any:
        """Measured at a checkpoint, and where a rule asks and the step left nothing (Cayley's)."""
        if not self.full:
            known = self._point.distance_bound
            if np.all(np.isfinite(known)) or self._point.gradient_norm is None:
                return known
        return self._cached("distance", self._measured_distance)

    def _measured_distance(self) -> Any:
        """Off the clock."""
        clock = self._observer.clock
        running = clock.pause()
        distance = self._observer.measure.distance(self._point)
        if running:
            clock.resume()
        return distance

    @property
    def fun(self) -> Any:
        return self._observer.measure.fun(self._point) if self._measured else self._point.fun

    @property
    def feasible_fun(self) -> Any:
        if not self._measured:
            return self._known_feasible_fun()
        return self._cached(
            "feasible_fun",
            lambda: self._observer.measure.feasible_fun(self._point, self.distance),
        )

    def _known_feasible_fun(self) -> Any:
        """The search's merit, f(polar x) to second order: only next to the manifold."""
        merit, near = self._point.merit, self._point.distance_bound <= ESTIMATE_BELOW
        if merit is None or np.all(near):
            return merit
        return np.where(near, merit, math.nan) if self._observer.space.separable else None

    @property
    def step(self) -> Any:
        step = self._point.step
        space = self._observer.space
        if isinstance(step, float) and not space.separable:
            return step
        if step is None or isinstance(step, (float, int)):
            host = np.asarray(math.nan if step is None else float(step))
        else:
            host = np.asarray(space.blocks[0].kernels.host(step)[0])
        # A row of the trace has one form: a number for each matrix, or the smallest of them.
        return (
            np.array(np.broadcast_to(host, space.batch)) if space.separable else float(host.min())
        )


class Observer:
    """Called once at every point; says whether the run is over.

    Limits on iterations are exact. Quantities that the step leaves on the host are tested at every
    iteration, everything else at the record's checkpoints.
    """

    def __init__(
        self,
        oracle: Oracle,
        *,
        stop: Any,
        record: Record,
        callback: Callable[[Any], Any] | None = None,
        progress: bool = False,
        label: str = "",
        patience: int = 50,
    ):
        self.oracle, self.space = oracle, oracle.space
        self.stop, self.record, self.callback = stop, record, callback
        self.measure = Measure(oracle)
        self.trace = Trace((*COLUMNS, *record.metrics))
        self.clock = Clock(self.space.like)
        self._bar = Progress(label, stop.limit(), epoch_limit(stop)) if progress else None
        self._next: float = 0
        # Before this iteration there is nothing to look at: with exact gradients one need not ask.
        self.quiet: float = 0
        self._limit = stop.limit()
        # Epochs matter where a rule or the record speaks of them.
        self._next_epoch = math.inf
        self._epoch_limit = epoch_limit(stop)
        self._by_epoch = self._epoch_limit < math.inf or hasattr(record, "next_epoch")
        # Is f measured as a whole? Of a stream it cannot be.
        self.whole = getattr(record, "full", True) and not hasattr(oracle.problem, "grad_batch")
        self._timed = _has_timeout(stop)
        self._deadline = deadline(stop)
        self._above = math.inf  # nothing is met before the limit at gradient norms above this
        self._errstate = np.geterr()  # the caller's, for the caller's callback and metrics
        self._rounding = RoundingWatch(self, patience)
        # False where the method's own minimiser is off the manifold (a penalty's): a start that meets
        # the stop rule is not where it is going to, and its iterates are at rounding nowhere.
        self.returns = True
        self.first_gradient_norm: Any = None
        self.status: Any = Status.RUNNING
        self.note = ""  # what an external solver said, for the message
        self.last: dict[str, Any] = {}

    # -- the start ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the clock."""
        self.clock = Clock(self.space.like)

    def start(self, point: Point) -> None:
        """Measure the reference gradient norm, at the first point on the manifold; off the clock."""
        if not self.whole:
            self.first_gradient_norm = math.nan
            if self.space.separable:
                self.status = np.full(self.space.batch, RUNNING)
            return
        point.settle()
        self.clock.pause()
        reference = point
        if np.max(self.measure.distance(point)) > 1e-8:
            if point.gradient is not None:  # the user's memory, which the next call may rewrite
                point.gradient = [_xp.copy(g) for g in point.gradient]
            reference = Point(self.space, [])
            reference.place(self.measure.feasible(point))
        self.first_gradient_norm = self.measure.gradient_norm(reference)
        self._rounding.start(reference)
        if self.space.separable:
            self.status = np.full(self.space.batch, RUNNING)
        else:
            bound = threshold(self.stop, self.first_gradient_norm)
            self._above = max(bound, self._rounding.threshold)
        self.space.forget_views()  # of the reference
        self.clock.resume()

    # -- every point --------------------------------------------------------------------------

    def __call__(self, point: Point) -> bool:
        """True when the run is over."""
        iteration, norm = point.iteration, point.gradient_norm
        if (
            norm is not None
            and iteration < self._next
            and iteration < self._limit
            and point.status is None
            and self._above < math.inf
            and self._above < norm < math.inf
            and not (self._timed and self.clock.wall() >= self._deadline)
            and not self._by_epoch
        ):
            return False
        checkpoint = iteration >= self._next
        limit = False
        if self._by_epoch:
            epoch = self.oracle.epoch() + 1e-9
            checkpoint = checkpoint or epoch >= self._next_epoch
            limit = epoch >= self._epoch_limit
        if not (
            checkpoint
            or limit
            or norm is not None
            or iteration >= self._limit
            or point.status is not None
            or self._timed
        ):
            if not self._by_epoch:
                self.quiet = min(self._next, self._limit)
            return False
        if checkpoint:
            point.settle()
            self.clock.pause()
        row = Row(self, point, checkpoint)
        self._judge(row, point)
        over = self._over()
        if checkpoint or over:
            self.clock.pause()
            row = row if checkpoint else self._last_row(point)
            if self.last.get("iteration") == point.iteration:  # a search that failed, and stayed
                self.trace.amend({name: getattr(row, name) for name in _GROWING})
            else:
                over = self._checkpoint(row, point, over) or over
            self._next = self.record.next(point.iteration)
            if hasattr(self.record, "next_epoch"):
                self._next_epoch = self.record.next_epoch(self.oracle.epoch() + 1e-9)
            if not over:
                self.clock.resume()
        if norm is None and not self._by_epoch and not self._timed and point.status is None:
            self.quiet = min(self._next, self._limit)
        return over

    def _last_row(self, point: Point) -> Row:
        """The last row, measured: what is broken, or met, there says so before a limit does."""
        row = Row(self, point, True)
        if isinstance(self.status, Status):
            broken = int(self._broken(row, row.gradient_norm, row.distance))
            if broken != RUNNING:
                self.status = Status(broken)
        if isinstance(self.status, Status) and self.status in _LIMITS and self.whole:
            code = self.stop.verdict(row)
            if isinstance(code, int) and code != RUNNING:
                self.status = Status(code)
        return row

    def _over(self) -> bool:
        if self.space.separable:
            return bool(np.all(self.status != RUNNING))
        return self.status != Status.RUNNING

    def _judge(self, row: Row, point: Point) -> None:
        """Set the status, per matrix for a separable stack, whose ended matrices are frozen."""
        code = self._verdict(row, point)
        if not self.space.separable:
            self.status = Status.RUNNING if code == RUNNING else Status(int(code))
            return
        self.status = np.where(self.status == RUNNING, code, self.status)
        ended = self.status != RUNNING
        if ended.any() and not ended.all():
            self.space.frozen = ended

    def _verdict(self, row: Row, point: Point) -> Any:
        """The first code that applies: the search's own, broken numbers, the stop rule, rounding."""
        code: Any = RUNNING if point.status is None else point.status
        norm = row.gradient_norm
        if norm is not None or row.full:
            distance = row.distance if row.full else point.distance_bound
            code = first_code(code, self._broken(row, norm, distance))
        asked = self.stop.verdict(row)
        if not self.returns:
            at_start = (np.asarray(asked) == int(Status.CONVERGED)) & (row.iteration == 0)
            asked = self.space.scalars.where(at_start, RUNNING, asked) if at_start.any() else asked
            return first_code(code, asked)
        code = first_code(code, asked)
        if norm is not None and self.whole and not _settled(code):
            code = first_code(code, self._rounding(row, point))
        return code

    def _broken(self, row: Row, norm: Any, distance: Any) -> Any:
        """NONFINITE, LEFT_TUBE or RUNNING."""
        s = self.space.scalars
        bad = distance != distance
        if norm is not None:
            bad = bad | ((not s.isfinite(norm)) if isinstance(norm, float) else ~s.isfinite(norm))
        if row.full:
            fun = row.fun
            if self.oracle.has_value and fun is not None:
                bad = bad | ~np.isfinite(fun)
            # Of a stack with one f for all, the distance of the whole.
            matrices = 1 if self.space.separable else self.space.matrices
            far = distance > _TUBE * matrices**0.5
            if np.any(far):
                return np.where(
                    bad, int(Status.NONFINITE), np.where(far, int(Status.LEFT_TUBE), -1)
                )
        if not s.any(bad):
            return RUNNING
        return np.where(bad, int(Status.NONFINITE), RUNNING)

    def _checkpoint(self, row: Row, point: Point, over: bool) -> bool:
        """Record the row, run the callback and the bar; True when the callback stops the run."""
        values = {name: getattr(row, name) for name in COLUMNS}
        values = {name: math.nan if v is None else v for name, v in values.items()}
        with np.errstate(**self._errstate):
            for name, metric in self.record.metrics.items():
                values[name] = _on_host(metric(row.x))
        self.trace.append(values)
        self.last = values
        if self._bar is not None:
            self._bar.update(row)
        if self.callback is not None:
            try:
                with np.errstate(**self._errstate):
                    answer = self.callback(self._seen(row, values))
                stopped = isinstance(answer, (bool, np.bool_)) and bool(answer)
            except StopIteration:
                stopped = True
            if stopped and not over:
                if self.space.separable:
                    self.status = np.where(
                        self.status == RUNNING, int(Status.CALLBACK), self.status
                    )
                else:
                    self.status = Status.CALLBACK
                return True
        return False

    def _seen(self, row: Row, values: dict[str, Any]) -> SimpleNamespace:
        """The row as the callback gets it: numbers that stay, and x, whose memory is reused."""
        return SimpleNamespace(
            **values, x=row.x, wall=row.wall, first_gradient_norm=row.first_gradient_norm
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _settled(code: Any) -> bool:
    return code != RUNNING if isinstance(code, int) else bool(np.all(code != RUNNING))


def _on_host(value: Any) -> Any:
    """A metric's value as Python's or NumPy's, whatever library it comes from."""
    if not hasattr(value, "dtype"):
        return value
    host = np.asarray(value) if isinstance(value, np.generic) else _xp.to_host(value)
    return host.item() if host.ndim == 0 else host


_LIMITS = (Status.MAX_ITERATIONS, Status.MAX_EPOCHS, Status.TIMEOUT)

# What grows while the iterate stays.
_GROWING = ("epoch", "seconds", "nfev", "njev")

# Beyond this distance nothing attracts back: a pass of the normal term no longer contracts.
_TUBE = 10.0


def _has_timeout(rule: Any) -> bool:
    parts = [getattr(rule, name) for name in ("first", "second") if hasattr(rule, name)]
    return any(_has_timeout(part) for part in parts) or hasattr(rule, "seconds")


class RoundingWatch:
    """AT_ROUNDING: ||grad|| <= u ||G||, or no progress beyond rounding for a while.

    A start within 10 u sqrt(p) ||G|| is left as it is: from there a first step would follow noise.

    ||G|| is the larger of here and at the start, for an f whose gradient vanishes. The second test
    applies within a factor 1000 sqrt(p) of that bound: there, ``patience`` rows without a value or a
    gradient norm better than the best so far end the run.
    """

    def __init__(self, observer: Observer, patience: int):
        self.space, self.patience = observer.space, patience
        root = math.sqrt(self.space.size_p)
        self._wide = 1000.0 * root  # in units of the level
        self._landed = max(1e-8, 4.0 * self.space.unit_roundoff * root)
        self._level: Any = 0.0
        self._best_norm: Any = math.inf
        self._best_fun: Any = math.inf
        self._idle: Any = 0

    def start(self, reference: Point) -> None:
        assert reference.gradient is not None
        self._level = self.space.unit_roundoff * self.space.norm(reference.gradient)

    @property
    def threshold(self) -> float:
        """Gradient norms above this are not looked at."""
        return self._wide * self._level

    def __call__(self, row: Any, point: Point) -> Any:
        norm, s = row.gradient_norm, self.space.scalars
        if not s.any(norm <= self._wide * self._level) or point.gradient is None:
            return RUNNING
        here = self.space.unit_roundoff * self.space.norm(point.gradient)
        self._level = s.maximum(self._level, here)
        better = norm < 0.99 * self._best_norm
        self._best_norm = s.where(better, norm, self._best_norm)
        fun = row.feasible_fun
        if fun is not None:
            lower = fun < self._best_fun - 4.0 * self.space.unit_roundoff * abs(fun)
            self._best_fun = s.where(lower, fun, self._best_fun)
            better = better | lower
        self._idle = s.where(better, 0, self._idle + 1)
        stuck = (norm <= self._wide * self._level) & (self._idle >= self.patience)
        level = self._level * (1.0 if row.iteration else 0.01 * self._wide)
        solved = (row.distance <= self._landed) & ((norm <= level) | stuck)
        return np.where(solved, int(Status.AT_ROUNDING), RUNNING) if s.any(solved) else RUNNING
