"""What one step costs, the gradient given, in units of the bare matrix products that it needs.

The bare products are ``matmul(a, b, out=c)`` of different operands, so that NumPy takes no symmetric
short cut: three p x p for square X, four n p^2 for tall X. A step is one of ``lo.minimize``, from one
call of the gradient to the next, with the distance and the norm that a safe step needs. The gradient
costs a tenth of a microsecond and alternates between G and -G, so that X turns to and fro, by TURN a
column and by WHOLE in all at most, and steps do not shrink.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import landingopt as lo
from landingopt import _cores, _xp
from landingopt._xp import Array
from landingopt.bench.runs import no_collection
from landingopt.bench.step_calls import Replay, Tape, recording

Shape = tuple[int, ...]
Timer = Callable[[int], float]  # so many steps -> seconds of one

MOVES: dict[str, Any] = {
    "QR": lo.retractions.QR(),
    "CholeskyQR": lo.retractions.CholeskyQR(),
    "polar-SVD": lo.retractions.Polar(method="svd"),
    "polar-NS": lo.retractions.Polar(),
    "Cayley": lo.retractions.Cayley(),
    "exponential": lo.retractions.Exponential(),
}
METHODS = ("landing", "POGO", *MOVES)
TURN = 0.1
WHOLE = 0.4  # and the whole matrix by at most so much: then the safe step does not cut

# The gradient from which on steps are looked at: the second one may be of the observer's, who measures
# at the closest feasible point where X is off the manifold by single precision's rounding.
FIRST = 3
# Steps whose array calls are recorded: as many with G as with -G, for X goes from one buffer to another
# and back; several where they are short, for a safe step needs a norm in some steps and not in others.
RECORDED, RECORDED_SMALL = 2, 20
LONG = 0.2  # seconds: what takes longer is timed FEW times
DEAREST = 2.0  # seconds: what is expected to take longer is left out
FEW = 3
MOST = 2000  # steps in a row
LARGE = 2**15  # entries of X: what is not needed any more is given back before a run
LAYER_COLUMNS, LAYER_ENTRIES = 100, 10_000  # beyond these the layer is lost in the noise


# -- what is run ----------------------------------------------------------------------------------

_SIZES = (8, 16, 40, 100, 200, 500, 1000, 2000)
_SQUARE: tuple[Shape, ...] = tuple((p, p) for p in _SIZES)
_TALL: tuple[Shape, ...] = ((500, 5), (500, 50), (1000, 40), (10_000, 40), (100_000, 64))
_STACKS: tuple[Shape, ...] = ((10_000, 8, 8), (1000, 16, 16), (1000, 40, 40), (200, 100, 100))
_ON_CUDA: tuple[Shape, ...] = (
    (1024, 1024), (4096, 4096), (8192, 8192), (100_000, 8, 8), (10_000, 16, 16), (100_000, 16, 16),
)  # fmt: skip
QUICK: tuple[Shape, ...] = (*_SQUARE[:4], *_TALL[:3], (1000, 16, 16), (20, 100, 100))


def shapes(quick: bool = False, device: str = "cpu") -> tuple[Shape, ...]:
    """What is measured by default: square, tall, stacks; on a GPU also what only fits there."""
    if quick:
        return QUICK
    found = (*_SQUARE, *_TALL, *_STACKS, *(_ON_CUDA if device == "cuda" else ()))
    return tuple(sorted(found, key=lambda shape: KINDS.index(kind(shape))))


KINDS = ("square", "tall", "stack")


def kind(shape: Shape) -> str:
    if len(shape) > 2:
        return "stack"
    return "square" if shape[0] == shape[1] else "tall"


def parsed(text: str) -> Shape:
    """ "500x5" as (500, 5), "200x100x100" as a stack of 200.

    Raises
    ------
    ValueError
        Where that is no shape of X.

    Examples
    --------
    >>> parsed("500x5")
    (500, 5)
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"{text!r} is no shape: write 40x40, 500x5, or 200x100x100 for a stack")
    if shape[-1] > shape[-2]:
        raise ValueError(f"{text} has more columns than rows; a tall or square X is measured")
    return shape


def shown(shape: Shape) -> str:
    """As :func:`parsed` reads it."""
    return "x".join(str(size) for size in shape)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes
    ----------
    shapes : sequence of (n, p) or (count, n, p)
    methods : sequence of str
        Names of METHODS.
    dtype : "float64" or "float32"
    device : "cpu" or "cuda"
        cuda needs CuPy.
    threads : int
        Of BLAS, on the CPU.
    repeats : int
        Rounds; each has all methods in turn.
    budget : float
        Seconds that one method gets in a round.
    """

    shapes: Sequence[Shape] = field(default_factory=shapes)
    methods: Sequence[str] = METHODS
    dtype: str = "float64"
    device: str = "cpu"
    threads: int = 1
    repeats: int = 9
    budget: float = 0.03


@dataclass(frozen=True)
class Cell:
    """One method at one shape.

    Attributes
    ----------
    kind : "square", "tall" or "stack"
    seconds, seconds_low, seconds_high : float
        Of one step: median and quartiles over the rounds.
    bare_seconds : float
        Of the bare products, the median.
    ratio, ratio_low, ratio_high : float
        Median and quartiles of what a round's step takes over the same round's bare products.
    written_ratio : float
        The median of a step over the same products as the formulas have them: for square X G X^H, X X^H
        and K X, of which BLAS is slower at the first two; for tall X the bare products are written so.
    products : float
        Multiplications in matrix products, in units of n p^2 for each matrix; factorisations are not in
        it. NaN where it was not counted (on a GPU).
    calls, views : float
        Array calls of a step, and what only gives another look at an array, see
        :mod:`landingopt.bench.step_calls`; NaN likewise.
    layer_us : float
        Microseconds of a step that are not array calls: the median, over the rounds, of the step less
        the same array calls made in straight-line code. NaN for stacks and large matrices.
    rounds : int
    """

    kind: str
    shape: Shape
    dtype: str
    device: str
    threads: int
    method: str
    seconds: float
    seconds_low: float
    seconds_high: float
    bare_seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    written_ratio: float
    products: float
    calls: float
    views: float
    layer_us: float
    rounds: int


def run(settings: Settings, say: Callable[[str], Any] = lambda line: None) -> list[Cell]:
    """All cells, shape by shape, the landing first; ``say`` gets a line for each shape.

    Raises
    ------
    ValueError
        Where there is no such device, or the number of threads cannot be set.
    """
    xp = namespace(settings.device)
    cells: list[Cell] = []
    last: dict[tuple[str, str], tuple[int, float]] = {}  # n p^2 and seconds of a step
    _keep_memory()
    with blas_threads(settings.threads), no_collection():
        for shape in settings.shapes:
            begin, known, work = time.perf_counter(), kind(shape), _work(shape)
            names: list[str] = []
            left: list[str] = []
            for name in sorted(settings.methods, key=METHODS.index):
                before, seconds = last.get((known, name), (work, 0.0))
                (names if seconds * work / before < DEAREST else left).append(name)
            for cell in _cells(Task(xp, shape, settings.dtype), names, settings):
                cells.append(cell)
                last[known, cell.method] = work, cell.seconds
            note = f", without {', '.join(left)}: a step would take seconds" if left else ""
            say(f"{shown(shape)}: {time.perf_counter() - begin:.1f} s{note}")
    return cells


def _keep_memory() -> None:
    """Let the C library keep memory that is given back, as it does in a program at work.

    At first glibc gives blocks beyond 128 KiB back to the system at once, and what fetches them again
    may cost more than a step. Where a large block has been freed it keeps what is smaller.
    """
    np.empty(8 * 2**20, dtype=np.int8)


def _work(shape: Shape) -> int:
    """n p^2, of all matrices."""
    return math.prod(shape) * shape[-1]


# -- one shape ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """Of one step; see :class:`Cell`."""

    products: float = math.nan
    calls: float = math.nan
    views: float = math.nan


def _cells(task: Task, names: Sequence[str], settings: Settings) -> list[Cell]:
    timers = {
        "products": timer(task.bare(), task.clock),
        "written": timer(task.written(), task.clock),
    }
    counts: dict[str, Counts] = {}
    methods = task.methods()
    for name in names:
        timers[name] = task.timer(methods[name])
        counts[name] = Counts()
        if task.xp is np:
            tape = recorded(task, methods[name])
            counts[name] = counted(task, tape)
            if task.small:
                timers[_calls_of(name)] = replayed(task, tape)
    found = measure(timers, settings.repeats, settings.budget)
    return [_cell(task, name, counts[name], found, settings) for name in names]


def _calls_of(name: str) -> str:
    return f"{name}, its array calls"


def _cell(
    task: Task, name: str, counts: Counts, found: dict[str, list[float]], settings: Settings
) -> Cell:
    low, seconds, high = quartiles(found[name])
    ratios = quartiles(paired(found[name], found["products"]))
    alone = found.get(_calls_of(name))
    layer = math.nan
    if alone is not None:
        layer = 1e6 * statistics.median(a - b for a, b in zip(found[name], alone))
    return Cell(
        kind=kind(task.shape),
        shape=task.shape,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        method=name,
        seconds=seconds,
        seconds_low=low,
        seconds_high=high,
        bare_seconds=statistics.median(found["products"]),
        ratio=ratios[1],
        ratio_low=ratios[0],
        ratio_high=ratios[2],
        written_ratio=quartiles(paired(found[name], found["written"]))[1],
        products=counts.products,
        calls=counts.calls,
        views=counts.views,
        layer_us=layer,
        rounds=len(found[name]),
    )


def measure(timers: dict[str, Timer], repeats: int, budget: float) -> dict[str, list[float]]:
    """Seconds of a step, round by round, each round all timers in turn.

    In a round each takes as many steps as fill ``budget`` seconds. What is LONG has FEW rounds.
    """
    steps, rounds = {}, {}
    for name, seconds in timers.items():
        once = seconds(1)  # warms up, too
        if once < LONG:
            once = seconds(_filling(0.1 * budget, once))
        steps[name] = _filling(budget, once)
        rounds[name] = repeats if once < LONG else min(FEW, repeats)
    found: dict[str, list[float]] = {name: [] for name in timers}
    for i in range(max(rounds[name] for name in timers)):
        for name, seconds in timers.items():
            if i < rounds[name]:
                found[name].append(seconds(steps[name]))
    return found


def _filling(budget: float, once: float) -> int:
    return int(min(max(budget / max(once, 1e-9), 1), MOST))


def paired(times: Sequence[float], bare: Sequence[float]) -> list[float]:
    """Ratios of the rounds that both have."""
    return [a / b for a, b in zip(times, bare)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower one, the median, the upper one."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


class Task:
    """X with orthonormal columns, G, and a step that turns the columns by TURN."""

    def __init__(self, xp: Any, shape: Shape, dtype: str):
        self.xp, self.shape = xp, shape
        n, p = shape[-2:]
        rng = np.random.default_rng(shape)
        g, x = (xp.asarray(rng.standard_normal(shape)) for _ in range(2))
        x = xp.linalg.qr(x)[0]
        c = _transposed(xp, x) @ g
        psi = g - x @ (0.5 * (c + _transposed(xp, c)))
        squares = xp.sum(psi * psi, axis=(-2, -1))
        whole = min(TURN * math.sqrt(p), WHOLE)
        self.step = whole / math.sqrt(float(xp.max(squares)))
        self.x, self.g = x.astype(dtype), g.astype(dtype)
        self.gradients = (-self.g, self.g)
        small = len(shape) == 2 and p <= LAYER_COLUMNS and n * p <= LAYER_ENTRIES
        self.small, self.recorded = small, RECORDED_SMALL if small else RECORDED

    def clock(self) -> float:
        """Seconds, once the device is idle."""
        _xp.synchronize(self.x)
        return time.perf_counter()

    def methods(self) -> dict[str, Any]:
        """All of METHODS, with the same step."""
        eta = self.step
        found = {"landing": lo.landing(step=eta, lam=0.25 / eta), "POGO": lo.pogo(eta)}
        return found | {name: lo.riemannian(move, step=eta) for name, move in MOVES.items()}

    def written(self) -> Callable[[], Any]:
        """The bare products with the transposes of the formulas."""
        xp, (n, p) = self.xp, self.shape[-2:]
        if n > p:
            return self.bare()
        matmul, x, g, y = xp.matmul, self.x, self.g, self.x.copy()
        a, b, u = xp.empty_like(x), xp.empty_like(x), xp.empty_like(x)

        def square() -> None:
            matmul(g, _transposed(xp, x), out=a)
            matmul(x, _transposed(xp, y), out=b)
            matmul(a, x, out=u)

        return square

    def bare(self) -> Callable[[], Any]:
        """The landing's products alone, plain, into memory that is there."""
        xp, (n, p) = self.xp, self.shape[-2:]
        matmul, x, g, y = xp.matmul, self.x, self.g, self.x.copy()
        small = (*self.shape[:-2], p, p)
        a, b = xp.empty(small, dtype=x.dtype), xp.empty(small, dtype=x.dtype)
        u, v = xp.empty_like(x), xp.empty_like(x)
        adjoint = _transposed(xp, x)

        def square() -> None:
            matmul(g, x, out=a)
            matmul(x, y, out=b)
            matmul(y, g, out=u)

        def tall() -> None:
            matmul(adjoint, y, out=a)
            matmul(adjoint, g, out=b)
            matmul(g, a, out=u)
            matmul(x, b, out=v)

        return square if n == p else tall

    def timer(self, method: Any) -> Timer:
        """Steps of a method, from the gradient FIRST on: those before warm up."""

        def seconds(steps: int) -> float:
            seen: list[float] = []

            def read() -> None:
                seen.append(self.clock())

            self.drive(method, {FIRST: read, FIRST + steps: read})
            return (seen[1] - seen[0]) / steps

        return seconds

    def drive(self, method: Any, at: dict[int, Callable[[], Any]]) -> None:
        """Run a method until the last of the gradients at which something is to be done.

        That gradient raises, so that nothing is measured at an end that nobody looks at.
        """
        gradients, made, last = self.gradients, 0, max(at)
        if math.prod(self.shape) > LARGE:  # points and frames refer to one another
            gc.collect()

        def grad(x: Array) -> Array:
            nonlocal made
            made += 1
            if made in at:
                at[made]()
                if made == last:
                    raise _Enough
            return gradients[made & 1]

        problem = lo.Objective(grad=grad, shape=self.shape, like=self.x)
        stop, ends_only = lo.MaxIterations(last + 1), lo.Every(10**9)
        try:
            lo.minimize(problem, self.x, method, stop=stop, record=ends_only, rng=0)
        except _Enough:
            return
        raise RuntimeError(f"{method} has ended before it took {last - 1} steps")


class _Enough(Exception):
    """The last gradient that is wanted has been asked for."""


def _transposed(xp: Any, a: Array) -> Array:
    return xp.swapaxes(a, -1, -2)


def timer(once: Callable[[], Any], clock: Callable[[], float]) -> Timer:
    """Times a function of no arguments."""

    def seconds(steps: int) -> float:
        begin = clock()
        for _ in range(steps):
            once()
        return (clock() - begin) / steps

    return seconds


def recorded(task: Task, method: Any) -> Tape:
    """The array calls of so many steps as the task says, after as many that warm up."""
    first = max(FIRST, task.recorded)
    with recording() as tape:

        def begin() -> None:
            tape.running = True

        def end() -> None:
            tape.running = False

        task.drive(method, {first: begin, first + task.recorded: end})
    return tape


def counted(task: Task, tape: Tape) -> Counts:
    """Of one step, the mean."""
    products, steps = tape.multiplications / _work(task.shape), task.recorded
    return Counts(products / steps, tape.calls / steps, tape.views / steps)


def replayed(task: Task, tape: Tape) -> Timer:
    """Times the array calls alone."""
    replay = Replay(tape.made)

    def seconds(steps: int) -> float:
        return replay.seconds(max(1, steps // task.recorded)) / task.recorded

    return seconds


# -- the machine ----------------------------------------------------------------------------------


def namespace(device: str) -> Any:
    """NumPy, or CuPy where it finds a device; else a ValueError."""
    if device == "cpu":
        return np
    if importlib.util.find_spec("cupy") is None:
        raise ValueError("no CUDA device: CuPy is not installed; run with --device cpu")
    cupy: Any = importlib.import_module("cupy")
    if not cupy.cuda.is_available():
        raise ValueError("no CUDA device: CuPy finds none; run with --device cpu")
    return cupy


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Exactly so many BLAS threads, or a ValueError that says how to have them."""
    if importlib.util.find_spec("threadpoolctl") is not None:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield
        return
    if not any(os.environ.get(name) == str(count) for name in _cores.VARIABLES):
        raise ValueError(
            f"the number of BLAS threads cannot be set: set OPENBLAS_NUM_THREADS={count} (or "
            f"MKL_NUM_THREADS={count}), or pip install threadpoolctl"
        )
    yield


def machine(settings: Settings) -> str:
    """Device, threads, precision and versions, one line; inside or outside of a run."""
    if settings.device == "cuda":
        cupy = namespace("cuda")
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        return f"cuda ({name}), {settings.dtype}, CuPy {cupy.__version__}"
    threads = f"{settings.threads} BLAS thread{'s' * (settings.threads > 1)}"
    return f"cpu, {threads}, {settings.dtype}, NumPy {np.__version__}, {_blas()}"


def _blas() -> str:
    """NumPy's BLAS, as threadpoolctl finds it, else as NumPy was built."""
    if importlib.util.find_spec("threadpoolctl") is not None:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
        found = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
        found.sort(key=lambda each: "numpy" not in each["filepath"])  # SciPy has another one
        if found:
            words = [found[0]["internal_api"], found[0]["version"], found[0].get("architecture")]
            return " ".join(word for word in words if word)
    config: Any = np.show_config(mode="dicts")
    blas = (config or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'BLAS unknown')} {blas.get('version', '')}".strip()
