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


def caption(data):
    numbers, step = data["numbers"], data["numbers"]["safe step"]
    to, after = numbers["to 1e-3"], numbers["from 1e-3 to 1e-5"]
    free = numbers["to 1e-3, without the safe step"]
    return (
        "All methods take the same step, half of the largest stable one (the talk does not state its "
        "own), and lam = 1 / (4 step), in proportion to the scale of f. f is taken at the closest "
        "feasible point. pymanopt's steepest descent has a line search of its own. The landing starts "
        f"more slowly: its safe step cuts {step['cut']} steps, the last of them step {step['last']}, "
        f"to {step['least']:.2f} of the nominal one at the least, which costs {step['lost']:.1f} whole "
        f"steps in all; it is at 10 % of the first gap after {step['to 10 %']:.0f} iterations, and "
        f"after {step['to 10 %, without']:.0f} without the safe step (QR: {step['to 10 %, QR']:.0f}). "
        f"Without it the landing's iterations to 1e-3 are {_listed(free)} the retractions'; with it "
        f"{_listed(to)}. QR is a retraction of first order, and its long first steps lead elsewhere: "
        f"to 1e-3 the exponential takes {numbers['exponential over QR'][0]:.3f} x QR's iterations, from "
        f"there to 1e-5 {numbers['exponential over QR'][1]:.3f} x (the landing {after['QR']:.3f} x). "
        "This is one start; from some others QR is behind."
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
    ratio = {
        name: c["seconds"][-1] / single["curves"]["landing"]["seconds"][-1]
        for name, c in single["curves"].items()
        if name in MOVES
    }
    distance = np.array(single["curves"]["landing"]["distance"])
    # The first iterates leave the manifold, and the last are back.
    rises_and_falls = distance.max() > 1e3 * distance[0] and distance[-1] < 1e-3 * distance.max()
    numbers = single.pop("pace")
    after, late = numbers["from 1e-3 to 1e-5"], numbers["from 1e-4 to 1e-5"]
    free = numbers["to 1e-3, without the safe step"]
    second = [name for name in MOVES if name != "QR"]  # retractions of second order
    claims = [
        (
            "iterations to 1e-3 of the first gap, the landing's over the retractions': "
            f"{_listed(numbers['to 1e-3'])}; the safe step cuts the first steps",
            max(numbers["to 1e-3"].values()) < 1.15 and numbers["safe step"]["cut"] > 0,
        ),
        (
            f"without the safe step they are the same within {_off(free, second):.1%}, but for QR "
            f"({free['QR']:.3f})",
            _off(free, second) < 0.02,
        ),
        (
            "the pace afterwards, iterations from 1e-3 to 1e-5 of the first gap, is the same within "
            f"{_off(after, second):.2%}: {_listed({name: after[name] for name in second})}",
            _off(after, second) < 0.02,
        ),
        (
            f"QR's is {after['QR']:.3f} from 1e-3 to 1e-5, and the same within {_off(late, MOVES):.2%}, "
            "as all others, from 1e-4 to 1e-5",
            _off(late, MOVES) < 0.02,
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
        "settings": {
            "p": p, "steps": steps, "stack": [stack, size, size], "problem's rng": 0,
            "start's rng": 1, "step": single["step"], "lam": 0.25 / single["step"],
        },
        "single": single,
        "stack": many,
        "numbers": numbers | {"time over the landing's": ratio},
        "claims": claims,
    }  # fmt: skip


def _single(p, steps, repeats):
    problem = lo.problems.Procrustes.random(p, rng=0)
    step = procrustes_step(problem)
    x0 = lo.stiefel.random(p, rng=1)
    _, best = problem.optimum(component=lo.stiefel.component(x0))
    # lam is in proportion to the scale of f. The safe step cuts the first steps all the same.
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
    free = lo.minimize(problem, x0, _without_safe_step(step), stop=limit, rng=0)
    traces = {name: found[0].trace for name, found in runs.items()} | {"free": free.trace}
    return {"step": step, "best": best, "curves": curves, "pace": _pace(traces, best, step)}


def _without_safe_step(step):
    field = lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(0.25 / step))
    return lo.Method(lo.searches.OpenLoop(lo.steps.Constant(step)), field)


def _pace(traces, best, step):
    """Iterations between levels of f - f*, the landing's over each retraction's; and its first steps."""
    levels = (0.1, 1e-3, 1e-4, 1e-5)
    at = {
        name: [_arrival(traces[name], best, level) for level in levels]
        for name in ("landing", "free", *MOVES)
    }

    def over(which, name="landing"):
        return {move: which(at[name]) / which(at[move]) for move in MOVES}

    sizes = traces["landing"]["step"][1:] / step
    cut = np.flatnonzero(sizes < 1.0 - 1e-9)
    return {
        "to 1e-3": over(lambda k: k[1]),
        "to 1e-3, without the safe step": over(lambda k: k[1], "free"),
        "from 1e-3 to 1e-5": over(lambda k: k[3] - k[1]),
        "from 1e-4 to 1e-5": over(lambda k: k[3] - k[2]),
        "exponential over QR": [
            at["exponential"][1] / at["QR"][1],
            (at["exponential"][3] - at["exponential"][1]) / (at["QR"][3] - at["QR"][1]),
        ],
        "iterations to 1e-3": {name: k[1] for name, k in at.items() if name != "free"},
        "safe step": {
            "cut": len(cut),
            "last": int(cut[-1]) + 1 if len(cut) else 0,
            "least": float(sizes.min()),
            "lost": float(np.sum(1.0 - sizes)),
            "to 10 %": at["landing"][0],
            "to 10 %, without": at["free"][0],
            "to 10 %, QR": at["QR"][0],
        },
    }


def _arrival(trace, best, level):
    """Iterations until f - f* is so much of the first, between two by its logarithm."""
    gap = np.log(np.maximum(trace["feasible_fun"] - best, 1e-300))
    goal = gap[0] + np.log(level)
    after = int(np.argmax(gap <= goal))
    if not after:
        return np.nan
    near = slice(after - 1, after + 1)
    return float(np.interp(-goal, -gap[near], trace["iteration"][near]))


def _listed(ratios):
    return ", ".join(f"{ratio:.3f} x ({name})" for name, ratio in ratios.items())


def _off(ratios, names):
    return max(abs(ratios[name] - 1.0) for name in names)


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


def draw(data):
    figure, axes = panels(2, 3)
    figure.set_size_inches(9.2, 5.2)
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
