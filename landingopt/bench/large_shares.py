"""Where the time of whole iterations goes, the gradient included: products, elementwise work, Python.

The array calls of some iterations are recorded (:mod:`landingopt.bench.step_calls`). Those of one
matrix are made again in straight-line code, each kind of them alone. Those of a stack, which last
long, and whose subsets would not be the same a second time, are timed where they happen, each with
the clock's own tenth of a microsecond: of a stack of a few small matrices it is no measure. What the
calls do not explain is Python: the library's and the problem's.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import landingopt as lo
from landingopt._xp import Array
from landingopt.bench.large_problems import Large
from landingopt.bench.runs import no_collection, quiet
from landingopt.bench.step_calls import Call, Replay, Tape, plain, recording

Seconds = dict[str, float]  # of each of KINDS
KINDS = ("products", "factorisations", "elementwise")
FIRST = 1  # the gradient from which on: after the one at the start an observer looks at the start
_PRODUCT = re.compile(r"matmul|dot|(gemm|gemmt|symm|hemm|syrk|herk|syr2k|trmm)$")
_FACTOR = re.compile(
    r"qr|svd|svdvals|eigh|eigvalsh|cholesky|solve|inv|pinv|det|slogdet|"
    r".?(trsm|getr[fsi]|geqrf|geqrt|orgqr|ungqr|potr[fsi]|trtr[is]|posv|gesv|gesdd|syevd?|syevr)"
)

# A recording keeps what every call has made: about ARRAYS of the size of X an iteration, KEPT bytes.
ARRAYS, KEPT = 16, 2**30


def kind(call: Call) -> str:
    """One of KINDS; "elementwise" is all that is neither of the others, reductions too."""
    name = call.name
    if _FACTOR.fullmatch(name):
        return "factorisations"
    matrix = getattr(call.result, "ndim", 0) >= 2
    return "products" if matrix and _PRODUCT.search(name) else "elementwise"


@dataclass(frozen=True)
class Shares:
    """Parts of the time, which sum to 1, and the multiplications in units of n p^2 an iteration."""

    products: float
    factorisations: float
    elementwise: float
    python: float
    count: float


def shares(method: Any, large: Large, iterations: int, rounds: int) -> Shares:
    """Of the first iterations but one, from the call FIRST of the gradient to the last; medians."""
    whole = _Whole(method, large, iterations)
    parts = (_Replayed if len(large.shape) == 2 else _InPlace)(whole)
    wholes, found = [], []
    for _ in range(rounds):
        wholes.append(whole.seconds())
        found.append(parts.seconds())
    middle = {name: statistics.median(each[name] for each in found) for name in KINDS}
    unit = large.x0.size * large.x0.shape[-1] * (whole.iterations - FIRST)
    return split(statistics.median(wholes), middle, parts.multiplications / unit)


def split(whole: float, parts: Seconds, count: float) -> Shares:
    """Seconds as shares; where the calls alone take longer than the whole, they are the whole.

    Examples
    --------
    >>> split(4.0, {"products": 2.0, "factorisations": 0.0, "elementwise": 1.0}, 5.0)
    Shares(products=0.5, factorisations=0.0, elementwise=0.25, python=0.25, count=5.0)
    """
    calls = sum(parts[name] for name in KINDS)
    whole = max(whole, calls)
    shares = {name: parts[name] / whole for name in KINDS}
    return Shares(**shares, python=(whole - calls) / whole, count=count)


# -- the iterations -------------------------------------------------------------------------------


class Marked:
    """A problem that says when its gradient is called: ``mark(k)`` at the k-th call, from 0.

    On a tape the gradient goes in plain: the oracle, which has the tape count it, looks at its type.
    """

    def __init__(self, problem: Any, mark: Callable[[int], Any]):
        self._problem, self._mark, self.calls = problem, mark, 0
        self.shape, self.constraint, self.like = problem.shape, problem.constraint, problem.like
        self.fun, self.hessp = problem.fun, problem.hessp

    def grad(self, x: Array) -> Array:
        self._mark(self.calls)
        self.calls += 1
        return plain(self._problem.grad(x))

    def value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        self._mark(self.calls)
        self.calls += 1
        value, gradient = self._problem.value_and_gradient(x)
        return value, plain(gradient)


def driven(method: Any, large: Large, iterations: int, mark: Callable[[int], Any]) -> Any:
    """The result of so many iterations from the start, with hardly a row recorded."""
    problem, ends_only = Marked(large.problem, mark), lo.Every(10**9)
    with quiet(), no_collection():
        return lo.minimize(
            problem, large.x0, method, stop=lo.MaxIterations(iterations), record=ends_only, rng=0,
            on_failure="return",
        )  # fmt: skip


class _Whole:
    """The iterations as they are."""

    def __init__(self, method: Any, large: Large, iterations: int):
        self.method, self.large = method, large
        self.iterations = iterations
        if len(large.shape) == 2:
            self.iterations = min(iterations, max(FIRST + 1, KEPT // (large.x0.nbytes * ARRAYS)))
        self.last = (
            len(self._marks()) - 1
        )  # of the calls; a search makes more than one an iteration

    def _marks(self) -> list[float]:
        times: list[float] = []
        driven(
            self.method, self.large, self.iterations, lambda k: times.append(time.perf_counter())
        )
        return times

    def seconds(self) -> float:
        times = self._marks()
        return times[-1] - times[FIRST]

    def record(self, tape: Tape) -> None:
        """The same iterations on a tape."""

        def mark(k: int) -> None:
            tape.running = FIRST <= k < self.last

        with recording(tape):
            driven(self.method, self.large, self.iterations, mark)


class _Replayed:
    """The calls in straight-line code: all of them, and those of a kind that is rarer than the rest."""

    def __init__(self, whole: _Whole):
        tape = Tape()
        whole.record(tape)
        self.multiplications = tape.multiplications
        self._all = Replay(tape.made)
        self._alone: dict[str, Replay] = {}
        for name in KINDS[:-1]:
            some = [call for call in tape.made if kind(call) == name]
            if some:
                self._alone[name] = Replay(some)
        self.seconds()  # warms up

    def seconds(self) -> Seconds:
        with quiet(), no_collection():
            found = {name: replay.seconds(1) for name, replay in self._alone.items()}
            rest = self._all.seconds(1) - sum(found.values())
        return {name: found.get(name, 0.0) for name in KINDS[:-1]} | {"elementwise": max(rest, 0.0)}


class _InPlace(Tape):
    """The calls of a stack, timed in the iterations themselves, and not kept."""

    def __init__(self, whole: _Whole):
        super().__init__()
        self._whole = whole
        self._seconds: Seconds = {}
        self._products = 0

    @property
    def multiplications(self) -> int:
        return self._products

    def note(self, call: Call, seconds: float) -> None:
        self._seconds[kind(call)] += seconds
        self._products += call.multiplications

    def seconds(self) -> Seconds:
        self._seconds, self._products = dict.fromkeys(KINDS, 0.0), 0
        self._whole.record(self)
        return self._seconds
