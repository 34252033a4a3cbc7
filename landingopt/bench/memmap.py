"""Minibatches from a file: memory that it takes, and speed against the same rows in memory."""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import landingopt as lo

_N, _P, _BATCH = 1000, 10, 256
_ROWS = 20_000  # written at a time

METHODS: dict[str, tuple[Callable[[], Any], float]] = {  # and epochs
    "landing_sgd": (lambda: lo.landing_sgd(batch_size=_BATCH), 1.0),
    "landing_sgd, contiguous": (
        lambda: lo.landing_sgd(batch_size=_BATCH, sampler=lo.samplers.Reshuffled(contiguous=True)),
        1.0,
    ),
    "landing_svrg": (lambda: lo.landing_svrg(batch_size=_BATCH), 2.0),
}


@dataclass(frozen=True)
class Read:
    """One method on a memmap and on the same rows in memory."""

    method: str
    file_bytes: int
    grown_bytes: float  # anonymous memory, at most, beyond what there was before
    file_seconds: float
    memory_seconds: float


def measure(
    gigabytes: float, repeats: int, say: Callable[[str], Any] = lambda line: None
) -> list[Read]:
    """Write float32 rows of 1000 to a file, then run the methods on it (cached) and on a copy."""
    with tempfile.TemporaryDirectory() as folder:
        rows = _written(Path(folder) / "rows.npy", gigabytes)
        say(f"{rows.nbytes / 2**30:.2f} GiB of rows written")
        x0 = lo.stiefel.random(_N, _P, rng=0, like=np.empty(0, dtype=np.float32))
        _solve(
            "landing_sgd, contiguous", rows, x0
        )  # the file into the cache, the pages into the map
        grown, from_file, from_memory = {}, {}, {}
        for name in METHODS:
            with _anonymous_peak() as peak:
                _solve(name, rows, x0)
            grown[name] = peak[0]
        copy = np.array(rows)
        for name in METHODS:
            times = [(_solve(name, rows, x0), _solve(name, copy, x0)) for _ in range(repeats)]
            from_file[name] = statistics.median(t for t, _ in times)
            from_memory[name] = statistics.median(t for _, t in times)
            say(
                f"{name}: {from_file[name]:.2f} s from the file, {from_memory[name]:.2f} s from memory"
            )
        return [
            Read(name, rows.nbytes, grown[name], from_file[name], from_memory[name])
            for name in METHODS
        ]


def _written(path: Path, gigabytes: float) -> np.ndarray:
    count = max(_BATCH, int(gigabytes * 2**30 / (4 * _N)))
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, _N))
    rng = np.random.default_rng(0)
    scales = np.linspace(1.0, 0.3, _N, dtype=np.float32)
    for start in range(0, count, _ROWS):
        stop = min(start + _ROWS, count)
        file[start:stop] = rng.standard_normal((stop - start, _N), dtype=np.float32) * scales
    file.flush()
    return np.load(path, mmap_mode="r")


def _solve(name: str, rows: Any, x0: Any) -> float:
    make, epochs = METHODS[name]
    problem = lo.problems.SampledPCA(rows, _P)
    record = lo.EveryEpoch(full=False)
    result = lo.minimize(problem, x0, make(), stop=lo.MaxEpochs(epochs), record=record, rng=0)
    return result.seconds


def anonymous_bytes() -> float:
    """Anonymous memory of this process (Linux); NaN where that cannot be told."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(
        (1024.0 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0.0
    )


@contextmanager
def _anonymous_peak() -> Iterator[list[float]]:
    """The most anonymous memory seen inside, beyond what there was before; in a list of one."""
    before, peak, over = anonymous_bytes(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            peak[0] = max(peak[0], anonymous_bytes() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def table(rows: list[Read]) -> str:
    """Megabytes, seconds and the speed of the file against memory."""
    from landingopt.bench.stochastic import as_text

    header = ["method", "file [GiB]", "grown [MB]", "file [s]", "memory [s]", "speed"]
    return as_text(
        header,
        [
            [
                row.method,
                f"{row.file_bytes / 2**30:.2f}",
                f"{row.grown_bytes / 1e6:.0f}",
                f"{row.file_seconds:.2f}",
                f"{row.memory_seconds:.2f}",
                f"{row.memory_seconds / row.file_seconds:.0%}",
            ]
            for row in rows
        ],
    )
