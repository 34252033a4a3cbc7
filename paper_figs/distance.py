"""The landing's distance to the manifold: it rises, then falls; with noise it stays at a known floor."""

from itertools import pairwise

import numpy as np

import landingopt as lo
from landingopt.bench.solvers import one_blas_thread
from landingopt.cli import procrustes_step
from landingopt.figures.data import array
from landingopt.figures.style import METHODS, above, label, line, panels, thinned
from landingopt.rates.noise import noise_floor

TITLE = "The distance to the manifold: a peak within the bound, then a fall or a floor"
CAPTION = (
    "Left: Procrustes from a start on the manifold; steps in units of eta_0, half of the largest "
    "stable one, and lam in units of 1 / (4 eta_0). The distance is at most eps = 0.5, by the safe "
    "step; the dotted run is without it. Right: online PCA with one sample a step. With a constant "
    "step the landing does not land: its distance stays at a floor, which is predicted (dashed) and "
    "about in proportion to step / lam. With steps that decrease the floor decreases as they do. The "
    "talk shows the first kind of run only."
)

EPS = 0.5
# (step / eta_0, lam 4 eta_0): colours from dark to light
RUNS = ((1.0, 1.0), (1.0, 0.25), (0.25, 1.0), (0.05, 1.0))
SHADES = ("#00344F", "#0072B2", "#56B4E9", "#CC79A7")
FLOORS = (0.04, 0.01)
LAM = 1.0


def compute(quick):
    with one_blas_thread():
        falls = _falls(10 if quick else 40, 600 if quick else 4000)
        floors = _floors(6000 if quick else 60000)
    bounded = {name: c for name, c in falls.items() if name != "no safe step"}
    peak = {name: max(c["distance"]) for name, c in falls.items()}
    highest = max(peak[name] for name in bounded)
    fall = max(c["distance"][-1] / max(c["distance"]) for c in bounded.values())
    rise = min(max(c["distance"]) / c["distance"][0] for c in bounded.values())
    monotone = max(_turns(c["distance"]) for c in bounded.values())
    errors = {name: c["measured"] / c["law"] - 1.0 for name, c in floors.items() if c["law"]}
    worst = max(abs(e) for e in errors.values())
    slope = floors["decreasing"]["slope"]
    first, second = (floors[f"{eta:g}"]["measured"] for eta in FLOORS)
    claims = [
        (
            f"the peaks ({min(peak[n] for n in bounded):.3g} to {highest:.3g}) are at most the bound "
            f"eps = {EPS:g}; without the safe step it is {peak['no safe step']:.3g}",
            highest <= EPS * (1.0 + 1e-9) < peak["no safe step"],
        ),
        (
            f"the distance rises (x {rise:.0e} at least), then falls (to {fall:.0e} of its peak at "
            "most, where the runs end)",
            rise > 1e6 and fall < 1e-2,
        ),
        (
            f"from the peak on it falls: by {100 * monotone:.2g} % of the steps at most it rises again",
            monotone < 0.1,
        ),
        (
            "with noise and a constant step it ends at the predicted floor: off by "
            + ", ".join(f"{100 * e:+.1f} % (step {name})" for name, e in errors.items()),
            worst < 0.1,
        ),
        (
            f"the floor is in proportion to the step: {first / second:.2f} x at "
            f"{FLOORS[0] / FLOORS[1]:g} x the step",
            abs(first / second / (FLOORS[0] / FLOORS[1]) - 1.0) < 0.15,
        ),
        (
            f"with steps in proportion to k^-1/2 it falls as k^{slope:.2f}",
            abs(slope + 0.5) < 0.1,
        ),
    ]
    return {
        "settings": {
            "p": 10 if quick else 40, "eps": EPS, "lam": LAM, "runs": RUNS, "floors": FLOORS,
            "falls' rng": {"problem": 0, "start": 1},
            "floors' rng": {"problem": 0, "start": 2, "samples": 3},
        },
        "falls": falls,
        "floors": floors,
        "numbers": {"peaks": peak, "relative errors of the floor": errors, "slope": slope},
        "claims": claims,
    }  # fmt: skip


def _falls(p, steps):
    problem = lo.problems.Procrustes.random(p, rng=0)
    s = procrustes_step(problem)
    x0 = lo.stiefel.random(p, rng=1)
    methods = {f"{a:g} {b:g}": lo.landing(step=a * s, lam=0.25 * b / s, eps=EPS) for a, b in RUNS}
    rule = lo.searches.OpenLoop(lo.steps.Constant(s))
    field = lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(0.25 * RUNS[1][1] / s))
    methods["no safe step"] = lo.Method(rule, field)
    curves = {}
    for name, method in methods.items():
        trace = lo.minimize(problem, x0, method, stop=lo.MaxIterations(steps), rng=0).trace
        keep = thinned(len(trace["distance"]))
        keep = np.union1d(keep, [int(np.argmax(trace["distance"]))])
        curves[name] = {"iteration": trace["iteration"][keep], "distance": trace["distance"][keep]}
    return curves


def _turns(distance):
    """The share of the points after the peak, down to rounding, that are above the one before."""
    d = np.array(distance)
    d = d[int(np.argmax(d)) :]
    d = d[d > 1e-13]
    return float(np.mean(np.diff(d) > 0)) if len(d) > 1 else 0.0


def _floors(steps):
    """Root mean square distances over windows, and over the run's last four fifths."""
    problem = lo.problems.SampledPCA.random(1000, 10, 3, spectrum=np.linspace(1.0, 0.1, 10), rng=0)
    optimum, _ = problem.optimum()
    x0 = lo.stiefel.random(10, 3, rng=2)
    found = {}
    decreasing = lo.steps.Decay(FLOORS[0], power=0.5, offset=100.0)
    for name, step in [*((f"{eta:g}", eta) for eta in FLOORS), ("decreasing", decreasing)]:
        method = lo.landing_sgd(
            step=step, lam=LAM, batch_size=1, sampler=lo.samplers.WithReplacement()
        )
        squares = _squares(problem, x0, method, steps)
        edges = np.unique(np.round(np.geomspace(1, steps, 40)).astype(int))
        windows = [np.sqrt(squares[a:b].mean()) for a, b in pairwise(edges)]
        middle = np.sqrt(edges[:-1] * edges[1:])
        curve = {"iteration": middle, "distance": np.array(windows), "law": None}
        tail = squares[steps // 5 :]
        curve["measured"] = np.sqrt(tail.mean())
        if isinstance(step, float):
            curve["law"] = 2.0 * np.sqrt(noise_floor(problem, method, optimum).infeasibility)
        late = middle > steps / 30
        curve["slope"] = np.polyfit(np.log(middle[late]), np.log(curve["distance"][late]), 1)[0]
        found[name] = curve
    return found


def _squares(problem, x0, method, steps):
    """||X^T X - I||^2 of every iterate."""
    squares = []

    def look(row):
        gram = row.x.T @ row.x
        squares.append(np.sum((gram - np.eye(len(gram))) ** 2))

    every = lo.EveryEpoch(1.0 / problem.n_terms, full=False)
    stop = lo.MaxIterations(steps)
    lo.minimize(problem, x0, method, stop=stop, record=every, callback=look, rng=3)
    return np.array(squares)


def draw(data):
    figure, axes = panels(1, 2, height=3.1)
    left, right = axes[0]
    for (a, b), shade in zip(data["settings"]["runs"], SHADES):
        c = data["falls"][f"{a:g} {b:g}"]
        left.loglog(
            1.0 + array(c["iteration"]), above(array(c["distance"]), 1e-15), color=shade, linewidth=1.5,
            label=rf"step {'' if a == 1.0 else f'{a:g} '}$\eta_0$, $\lambda\eta_0$ = {b / 4:g}",
        )  # fmt: skip
    c = data["falls"]["no safe step"]
    left.loglog(
        1.0 + array(c["iteration"]), above(array(c["distance"]), 1e-15), color="#7F7F7F", linestyle=":",
        linewidth=1.5, label="without the safe step",
    )  # fmt: skip
    left.axhline(data["settings"]["eps"], **line("bound") | {"linewidth": 1.1})
    label(left, "1 + iteration", r"$\|X^TX - I\|$", f"Procrustes, p = {data['settings']['p']}")
    # Below: inside they would lie on the lines.
    below = {"fontsize": 7, "frameon": False, "loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
    left.legend(**below, ncols=2, columnspacing=1.0)
    names = [f"step {eta:g}" for eta in FLOORS] + ["decreasing"]
    colours = (METHODS["landing"][0], METHODS["POGO"][0], METHODS["Cayley"][0])
    for c, shown, colour in zip(data["floors"].values(), names, colours):
        right.loglog(
            array(c["iteration"]), array(c["distance"]), color=colour, linewidth=1.4, label=shown
        )
        if c["law"]:
            right.axhline(c["law"], color=colour, linestyle=(0, (4, 2)), linewidth=1.1)
    label(right, "iteration", r"$\|X^TX - I\|$, root mean square", "PCA, one sample a step")
    right.legend(**below, ncols=2, columnspacing=1.0)
    return figure
