"""One step against one step, the gradient included: constant steps, ours and in PyTorch.

All take the same number of steps of the same size from the same X, each with one gradient of the same
arithmetic; a square X turns by the same angle. What is compared is the time of a step, and where the
steps have led.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import landingopt as lo
from landingopt._xp import Array
from landingopt.bench import large_problems, large_shares, large_torch, runs
from landingopt.bench.large_problems import Large
from landingopt.bench.step import blas_threads, paired, quartiles

OURS = ("landing-step", "POGO", "QR-step")
METHODS = (*OURS, *large_torch.OPTIMIZERS)
ATTRACTION = 0.25  # lam eta
FEW = 3  # rounds, at least
MULTIPLICATIONS = 2e10  # that all steps may take
FEWEST, MOST = 3, 100  # steps


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes
    ----------
    problems : sequence of str
    methods : sequence of str
        Of METHODS; what is not installed is left out.
    repeats : int
        Rounds, each with all methods in turn; fewer of what takes seconds.
    threads : int
        Of BLAS, and of torch.
    multiplications : float
        Of the gradients and n p^2 of all steps, which says how many steps.
    budget : float
        Seconds for one method's rounds, of which there are FEW even so.
    """

    problems: Sequence[str] = large_problems.FIXED
    methods: Sequence[str] = METHODS
    repeats: int = 5
    threads: int = 1
    multiplications: float = MULTIPLICATIONS
    budget: float = 4.0


@dataclass(frozen=True)
class Step:
    """One method on one problem.

    Attributes
    ----------
    size : float
        Of the step.
    steps : int
    seconds, seconds_low, seconds_high : float
        Of one step with its gradient: median and quartiles over the rounds.
    gradient_seconds : float
        Of NumPy's gradient or torch's, alone.
    ours : str
        The method of ours that takes the same step.
    ratio, ratio_low, ratio_high : float
        Median and quartiles of a round's seconds over those of ``ours`` in the same round; NaN where
        that was not run.
    gap, distance : float
        Where the steps have led: f - f* over that at the start, at the closest feasible point, and
        ||X^T X - I||_F, of a stack the largest.
    rounds : int
    """

    problem: str
    method: str
    threads: int
    size: float
    steps: int
    seconds: float
    seconds_low: float
    seconds_high: float
    gradient_seconds: float
    ours: str
    ratio: float
    ratio_low: float
    ratio_high: float
    gap: float
    distance: float
    rounds: int


def run(settings: Settings, say: Callable[[str], Any] = lambda line: None) -> list[Step]:
    """All rows, problem by problem; ``say`` gets a line for each.

    Raises
    ------
    ValueError
        What is no problem, or a number of threads that cannot be set.
    """
    rows: list[Step] = []
    names = available(settings.methods)
    with blas_threads(settings.threads), runs.frozen():
        for name in settings.problems:
            begin = time.perf_counter()
            rows += _steps(large_problems.make(name), names, settings)
            say(f"{name}, fixed steps: {time.perf_counter() - begin:.1f} s")
    return rows


def available(names: Sequence[str]) -> list[str]:
    """Those that are ours or installed."""
    return [name for name in names if name in OURS or not large_torch.missing(name)]


def left_out(names: Sequence[str]) -> list[str]:
    """A line for each that is not installed: what to install."""
    lines = [large_torch.missing(name) for name in names if name not in OURS]
    return [line for line in lines if line]


def _steps(large: Large, names: Sequence[str], settings: Settings) -> list[Step]:
    steps = int(np.clip(settings.multiplications / large.work, FEWEST, MOST))
    found: dict[str, list[float]] = {}
    ends: dict[str, Array] = {}
    rounds: dict[str, int] = {}
    for name in names:
        if name in OURS or large_torch.fits(name, large):
            ends[name] = _end(name, large, steps, settings.threads)  # warms up, too
            seconds = _seconds(name, large, steps, settings.threads)
            found[name] = [seconds / steps]
            rounds[name] = int(
                np.clip(settings.budget / seconds, min(FEW, settings.repeats), settings.repeats)
            )
    order = np.random.default_rng(0)
    for i in range(1, settings.repeats):
        for name in order.permutation(list(found)):
            if i < rounds[name]:
                found[name].append(_seconds(name, large, steps, settings.threads) / steps)
    gradients = _gradient_seconds(large, list(found), settings.threads)
    rows = []
    for name, times in found.items():
        ours = name if name in OURS else large_torch.OPTIMIZERS[name][2]
        low, seconds, high = quartiles(times)
        ratios = quartiles(paired(times, found[ours])) if ours in found else (np.nan,) * 3
        rows.append(
            Step(
                problem=large.name,
                method=name,
                threads=settings.threads,
                size=large.step,
                steps=steps,
                seconds=seconds,
                seconds_low=low,
                seconds_high=high,
                gradient_seconds=gradients["numpy" if name in OURS else "torch"],
                ours=ours,
                ratio=ratios[1],
                ratio_low=ratios[0],
                ratio_high=ratios[2],
                gap=large.gap(ends[name]),
                distance=large_problems.distance(ends[name]),
                rounds=len(times),
            )
        )
    return rows


def _end(name: str, large: Large, steps: int, threads: int) -> Array:
    """X after so many steps."""
    if name not in OURS:
        return large_torch.run(name, large, _attraction(large), steps, threads)[0]
    return large_shares.driven(_method(name, large), large, steps, lambda k: None).x


def _seconds(name: str, large: Large, steps: int, threads: int) -> float:
    """Of so many steps with a gradient each; ours begin with the second."""
    if name not in OURS:
        return large_torch.run(name, large, _attraction(large), steps, threads)[1]
    times: list[float] = []
    first = large_shares.FIRST
    large_shares.driven(
        _method(name, large), large, first + steps, lambda k: times.append(time.perf_counter())
    )
    return times[first + steps] - times[first]


def _attraction(large: Large) -> float:
    return ATTRACTION / large.step


def _method(name: str, large: Large) -> Any:
    eta = large.step
    if name == "landing-step":
        return lo.landing(step=eta, lam=_attraction(large))
    return lo.pogo(eta) if name == "POGO" else lo.riemannian(lo.retractions.QR(), step=eta)


def _gradient_seconds(large: Large, names: Sequence[str], threads: int) -> dict[str, float]:
    """Of one gradient in NumPy, and in torch where a method needs it; medians."""
    functions: dict[str, Callable[[], Any]] = {"numpy": lambda: large.problem.grad(large.x0)}
    found: dict[str, list[float]] = {"numpy": []}
    if any(name not in OURS for name in names):
        functions["torch"] = large_torch.gradient(large, threads)
        found["torch"] = []
    for _ in range(FEW + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            found[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times[1:]) for name, times in found.items()}
