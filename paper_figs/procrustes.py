"""Procrustes, p = 40 as in the talk, and a stack of 100 x 100 as in the paper's example.

f - f* at the feasible point against iterations and against time, and the distance against iterations,
for the landing and for Riemannian gradient descent with each retraction, all with the same step. On O(p)
a step of the papers' landing is a step of Riemannian gradient descent in the Euclidean metric.
"""

import numpy as np

import landingopt as lo
from landingopt.bench.runs import no_collection
from landingopt.bench.solvers import one_blas_thread
from landingopt.cli import procrustes_step
from landingopt.figures.data import array
from landingopt.figures.style import above, label, legend, line, panels, thinned

TITLE = "Procrustes: the landing against retractions"
CAPTION = (
    "All methods take the same step, half of the largest stable one (the talk does not state its own), "
    "and lam = 1 / (4 step), in proportion to the scale of f. f is taken at the closest feasible point. "
    "pymanopt's steepest descent has a line search of its own."
)

MOVES = {
    "exponential": lo.retractions.Exponential(),
    "Cayley": lo.retractions.Cayley(),
    "projection": lo.retractions.Polar(method="svd"),
    "QR": lo.retractions.QR(),
}


def compute(quick):
    p, steps = (10, 400) if quick else (40, 1500)
    stack, size, stack_steps = (5, 10, 60) if quick else (200, 100, 500)
    with one_blas_thread(), no_collection():
        single = _single(p, steps, 3 if quick else 5)
        many = _stack(stack, size, stack_steps)
    same = _same_curve(single["curves"])
    ratio = {
        name: c["seconds"][-1] / single["curves"]["landing"]["seconds"][-1]
        for name, c in single["curves"].items()
        if name in MOVES
    }
    distance = np.array(single["curves"]["landing"]["distance"])
    # The first iterates leave the manifold, and the last are back.
    rises_and_falls = distance.max() > 1e3 * distance[0] and distance[-1] < 1e-3 * distance.max()
    claims = [
        (
            "per iteration the landing is as far as Riemannian gradient descent: iterations to f - f* "
            f"of 1e-3 of the first in a ratio of {same:.3f}",
            abs(same - 1.0) < 0.1,
        ),
        (f"its distance rises (to {distance.max():.2g}), then falls (to {distance[-1]:.1e})",
         rises_and_falls),
    ]  # fmt: skip
    if not quick:
        least = min(ratio, key=ratio.get)
        claims.append(
            (
                f"an iteration is cheaper: {ratio[least]:.2f} x ({least}) to "
                f"{max(ratio.values()):.1f} x",
                ratio[least] > 1.0,
            )
        )
    return {
        "settings": {"p": p, "steps": steps, "stack": [stack, size, size], "seed": 0},
        "single": single,
        "stack": many,
        "numbers": {"iterations ratio": same, "time over the landing's": ratio},
        "claims": claims,
    }


def _single(p, steps, repeats):
    problem = lo.problems.Procrustes.random(p, rng=0)
    step = procrustes_step(problem)
    x0 = lo.stiefel.random(p, rng=1)
    _, best = problem.optimum(component=lo.stiefel.component(x0))
    # lam is in proportion to the scale of f; eta lam = 1/4 keeps the safe step from cutting the step.
    methods = {"landing": lo.landing(step=step, lam=0.25 / step)}
    methods |= {name: lo.riemannian(move, step=step) for name, move in MOVES.items()}
    limit = lo.MaxIterations(steps)
    runs = {name: [] for name in methods}
    for _ in range(repeats):  # interleaved: a slow moment of the machine hits all alike
        for name, method in methods.items():
            runs[name].append(lo.minimize(problem, x0, method, stop=limit, rng=0))
    runs["pymanopt"] = [lo.minimize(problem, x0, lo.pymanopt("SteepestDescent"), stop=limit)]
    curves = {}
    for name, found in runs.items():
        result = sorted(found, key=lambda r: r.seconds)[len(found) // 2]
        curves[name] = _curve(result.trace, best, 1.0)
    return {"step": step, "best": best, "curves": curves}


def _stack(count, size, steps):
    """The mean over the pairs of ||X A - B||^2, as in the authors' example, with the pairs' step."""
    problem = lo.problems.Procrustes.random(size, stack=(count,), rng=0)
    step = procrustes_step(problem)
    x0 = lo.stiefel.random(size, rng=1, stack=(count,))
    _, best = problem.optimum(component=lo.stiefel.component(x0))
    record = lo.Every(max(1, steps // 50))
    methods = {"landing": lo.landing(step=step, lam=0.25 / step), "QR": lo.riemannian(step=step)}
    curves = {}
    for name, method in methods.items():
        result = lo.minimize(
            problem, x0, method, stop=lo.MaxIterations(steps), record=record, rng=0
        )
        curves[name] = _curve(result.trace, np.asarray(best), count)
    return {"step": step, "curves": curves}


def _curve(trace, best, count):
    gap = trace["feasible_fun"] - best
    distance = trace["distance"]
    if gap.ndim > 1:
        gap, distance = gap.sum(axis=1) / count, distance.max(axis=1)
    keep = thinned(len(gap))
    return {
        "iteration": trace["iteration"][keep],
        "seconds": trace["seconds"][keep],
        "gap": gap[keep],
        "distance": distance[keep],
    }


def _same_curve(curves):
    """Iterations of the landing over those of QR until f - f* is 1e-3 of the first one."""

    def arrival(curve):
        gap = np.asarray(curve["gap"])
        first = int(np.argmax(gap <= 1e-3 * gap[0]))
        return float(np.asarray(curve["iteration"])[first])

    return arrival(curves["landing"]) / arrival(curves["QR"])


def draw(data):
    figure, axes = panels(2, 3)
    p, stack = data["settings"]["p"], data["settings"]["stack"]
    for row, (part, what) in enumerate(
        ((data["single"], f"p = {p}"), (data["stack"], f"{stack[0]} of {stack[1]} x {stack[2]}"))
    ):
        for name, curve in part["curves"].items():
            c = {key: array(values) for key, values in curve.items()}
            gap, distance = above(c["gap"], 1e-13), above(c["distance"], 1e-16)
            for column, (x, y) in enumerate(
                ((c["iteration"], gap), (1e3 * c["seconds"], gap), (c["iteration"], distance))
            ):
                axes[row, column].semilogy(x, y, **line(name))
        label(axes[row, 0], "iteration", r"$f - f^\star$ (feasible)", what)
        label(axes[row, 1], "time [ms]", r"$f - f^\star$ (feasible)", what)
        label(axes[row, 2], "iteration", r"$\|X^TX - I\|$", what)
    legend(figure, axes[0])
    return figure
