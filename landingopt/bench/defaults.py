"""Stochastic methods as they come, without a step: epochs to a gradient norm, and the figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import landingopt as lo
from landingopt.bench.stochastic import Epoch, as_text
from landingopt.bench.summary import Bound
from landingopt.plotting import _label, _legend, _style, _written

REACH, LONGEST = 1e-8, 80.0

# At most so many epochs to a relative gradient norm of 1e-8.
GOALS = {("PCA", "SVRG"): 50, ("PCA", "SAGA"): 75, ("ICA", "SVRG"): 50, ("ICA", "SAGA"): 50}


@dataclass(frozen=True)
class Run:
    """Epochs, and the gradient norm there over that of the start."""

    problem: str
    method: str
    chosen: str
    epochs: np.ndarray
    norms: np.ndarray
    seconds: float

    @property
    def needed(self) -> float:
        """Epochs to the gradient norm that is to be reached; infinite where it is not."""
        return float(self.epochs[-1]) if self.norms[-1] <= REACH else math.inf


def methods() -> dict[str, Any]:
    """Two SGDs, of which neither converges so far, and the variance-reduced ones."""
    constant = lo.steps.Safeguarded(lo.steps.FromCurvature(0.5))
    sgd = lo.landing_sgd()
    fixed = lo.Method(
        lo.searches.OpenLoop(constant), sgd.field, estimator=sgd.estimator, name="landing_sgd"
    )
    return {
        "SGD, constant step": fixed,
        "SGD, decreasing": sgd,
        "SAGA": lo.landing_saga(),
        "SVRG": lo.landing_svrg(),
    }


def run(quick: bool, say: Callable[[str], Any] = lambda line: None) -> list[Run]:
    """Each method on principal components and on log-cosh ICA, from one start each."""
    scale = 5 if quick else 1
    problems: dict[str, Any] = {
        "PCA": lo.problems.SampledPCA.random(10_000 // scale, 50, 25, rng=0),
        "ICA": lo.problems.ICA.random(40, 50_000 // scale, rng=0),
    }
    stop = lo.GradientNorm(rtol=REACH) | lo.MaxEpochs(LONGEST)
    found = []
    for name, problem in problems.items():
        x0 = lo.stiefel.random(*problem.shape, rng=0)
        for label, method in methods().items():
            result = lo.minimize(problem, x0, method, stop=stop, rng=1)
            norms = result.trace["gradient_norm"]
            epochs = result.trace["epoch"]
            row = Run(name, label, result.method.name, epochs, norms / norms[0], result.seconds)
            found.append(row)
            say(f"{name}, {label}: {epochs[-1]:.1f} epochs, {norms[-1] / norms[0]:.1e}")
    return found


def table(runs: Sequence[Run]) -> str:
    """What was chosen, and how far it went."""
    header = ["problem", "method", "chosen at the start", "epochs", "rel |grad|", "time [s]"]
    lines = [
        [
            r.problem,
            r.method,
            r.chosen,
            f"{r.epochs[-1]:.1f}",
            f"{r.norms[-1]:.1e}",
            f"{r.seconds:.2f}",
        ]
        for r in runs
    ]
    return as_text(header, lines)


def bounds(runs: Sequence[Run], epochs: Sequence[Epoch]) -> list[Bound]:
    """The claims of the README, each with its figure."""
    needed = {(r.problem, r.method): r.needed for r in runs}
    found = [
        Bound(
            f"{problem} with {method} to {REACH:g}, epochs at most {goal}",
            f"{needed[problem, method]:.1f}",
            needed[problem, method] <= goal,
        )
        for (problem, method), goal in GOALS.items()
        if (problem, method) in needed
    ]
    tall = {
        f"{row.n} x {row.p}, batch {row.batch}": row.seconds
        / (row.gradient_seconds + row.products_seconds)
        for row in epochs
        if row.method == "landing" and row.n > row.p and row.n * row.p >= 20_000
    }
    if tall:
        worst = max(tall, key=lambda k: tall[k])
        found.append(
            Bound(
                "a step for tall X (n p >= 20000) over its gradient and bare products, at most 1.3",
                f"{tall[worst]:.2f}, {worst}",
                tall[worst] <= 1.3,
            )
        )
    slow = ("QR", "polar-SVD", "Cayley", "exponential")
    sizes: dict[Any, dict[str, float]] = {}
    for row in epochs:
        sizes.setdefault((row.n, row.p, row.batch), {})[row.method] = row.seconds
    for name in slow:
        ratios = {
            k: v[name] / v["landing"] for k, v in sizes.items() if {name, "landing"} <= set(v)
        }
        if ratios:
            worst = min(ratios, key=lambda k: ratios[k])
            where = f"{worst[0]} x {worst[1]}, batch {worst[2]}"
            found.append(
                Bound(
                    f"the landing's epoch is faster than that of {name} at every size",
                    f"at least {ratios[worst]:.2f}x, {where}",
                    ratios[worst] > 1.0,
                )
            )
    return found


def plot(runs: Sequence[Run], path: str | Path | None = None) -> Any:
    """The gradient norm against epochs: SGD ends on a plateau, the variance-reduced ones do not."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(r.problem for r in runs))
    figure = Figure(figsize=(4.8 * len(problems), 4.0), dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(problems), sharey=True, squeeze=False)[0]
    labels = list(methods())
    for axes, problem in zip(panels, problems, strict=True):
        for r in runs:
            if r.problem == problem:
                style = {**_style(labels.index(r.method)), "markevery": max(1, len(r.epochs) // 6)}
                axes.plot(r.epochs, r.norms, label=r.method, **style)
        axes.set_yscale("log")
        axes.set_title(problem, fontsize=11)
        axes.grid(True, color="#dddddd", linewidth=0.6)
        _label(axes, "epochs: gradients of single terms / N", "")
    _label(panels[0], "epochs: gradients of single terms / N", r"$\|\mathrm{grad}\|$, relative")
    _legend(figure, panels[0])
    return _written(figure, path)
