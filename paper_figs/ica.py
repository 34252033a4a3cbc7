"""Independent components, the second experiment of [AVGA24]: full batch, SGD and SAGA.

10000 whitened samples of 10 Laplace sources, batches of 100, lam = 1, from W = I; the landing and
two retractions with the same step and the same samples.
"""

import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

import landingopt as lo
from landingopt.bench.solvers import one_blas_thread
from landingopt.figures.data import array
from landingopt.figures.style import above, label, legend, line, panels, thinned

TITLE = "ICA: full batch, SGD and SAGA, the landing against retractions"


def caption(data):
    settings = data["settings"]
    steps = settings["steps"]
    return (
        f"{settings['samples']} samples of {settings['sources']} sources, batches of "
        f"{settings['batch']}. Of the papers' steps .05, .1, .5 and 1 the figure has "
        f"{steps['full batch']:g} for the full batch (the longest that lam = 1 allows: the safe step is "
        "at most 1 / (2 lam), so that 1 would be cut for the landing alone) and "
        f"{steps['SAGA']:g} for SGD and SAGA. X is square: a step of the papers' landing is one of "
        "Riemannian gradient descent in the Euclidean metric. f - f* is at the closest feasible point, "
        "f* from L-BFGS to 1e-12. The Amari distance is from the true mixing, which "
        f"{settings['samples']} samples do not tell exactly: dotted, that of the minimiser of f."
    )


MOVES = {"exponential": lo.retractions.Exponential(), "projection": lo.retractions.Polar("svd")}
FLOOR = 1e-11  # of f - f* where curves are compared: rounding of f is 1e-15


def compute(quick):
    samples, batch = (2000, 50) if quick else (10_000, 100)
    problem = lo.problems.ICA.random(10, samples, rng=0)
    minimiser = lo.minimize(problem, np.eye(10), lo.landing_lbfgs(), tol=1e-12).feasible_x
    best, limit = problem.fun(minimiser), lo.problems.amari_distance(minimiser.T, problem.mixing)
    kinds = {
        "full batch": (lo.estimators.Full(), 0.5, 100 if quick else 250),
        "SGD": (lo.estimators.MiniBatch(batch), 0.1, 60),
        "SAGA": (lo.estimators.Saga(batch), 0.1, 60),
    }
    with one_blas_thread():
        curves = {
            kind: {name: _curve(problem, best, name, *how) for name in ("landing", *MOVES)}
            for kind, how in kinds.items()
        }
    apart = {kind: _apart(found) for kind, found in curves.items()}
    sgd, saga = curves["SGD"]["landing"], curves["SAGA"]["landing"]
    half = len(sgd["gap"]) // 2
    plateau = float(np.median(sgd["gap"][half:]))
    before = float(np.median(sgd["gap"][half // 2 : half]))
    end = max(float(saga["gap"][-3:].max()), 1e-15)  # rounding
    amari = float(np.median(sgd["amari"][half:]))
    distance = max(float(found["distance"].max()) for found in (sgd, saga))
    claims = [
        (
            f"SGD stays at f - f* = {plateau:.1e} (median of the last half), SAGA goes on to "
            f"{end:.0e}",
            plateau > 0.3 * before and end < 1e-4 * plateau,
        ),
        (
            "the landing's f - f* is the retractions' within "
            + ", ".join(f"{value:.2%} ({kind})" for kind, value in apart.items()),
            max(apart.values()) < 0.05,
        ),
        (
            f"Amari distance at the end: SAGA {saga['amari'][-1]:.4f} (the minimiser of f: "
            f"{limit:.4f}), SGD {amari:.4f} (median of the last half)",
            abs(saga["amari"][-1] - limit) < 1e-5 and amari < 2.0 * limit,
        ),
        (
            f"||X^T X - I|| stays below {distance:.1e}; with SAGA it ends at "
            f"{saga['distance'][-1]:.0e}",
            distance < 1e-2 and saga["distance"][-1] < 1e-8,
        ),
    ]
    return {
        "settings": {
            "sources": 10, "samples": samples, "batch": batch, "lam": 1.0, "rng": [0, 2],
            "steps": {kind: how[1] for kind, how in kinds.items()},
            "epochs": {kind: how[2] for kind, how in kinds.items()},
        },
        "curves": curves,
        "limit": limit,
        "numbers": {"apart": apart, "plateau of SGD": plateau},
        "claims": claims,
    }  # fmt: skip


def _curve(problem, best, name, estimator, step, epochs):
    if name == "landing":
        method = lo.landing(step=step, lam=1.0, base=estimator)
    else:
        method = lo.riemannian(MOVES[name], step=step, estimator=estimator)

    def amari(x):
        return lo.problems.amari_distance(x.T, problem.mixing)

    trace = lo.minimize(
        problem, np.eye(10), method, stop=lo.MaxEpochs(epochs), rng=2,
        record=lo.EveryEpoch(metrics={"amari": amari}),
    ).trace  # fmt: skip
    keep = thinned(len(trace["epoch"]))
    found = {key: trace[key][keep] for key in ("epoch", "seconds", "amari", "distance")}
    return found | {"gap": trace["feasible_fun"][keep] - best}


def _apart(found):
    """The largest relative difference of the landing's f - f* from a retraction's."""
    ours = found["landing"]["gap"]
    worst = 0.0
    for name in MOVES:
        theirs = found[name]["gap"]
        seen = (ours > FLOOR) & (theirs > FLOOR)
        worst = max(worst, float(np.max(np.abs(ours[seen] / theirs[seen] - 1.0))))
    return worst


def draw(data):
    figure, axes = panels(2, 3, height=2.5)
    figure.set_size_inches(7.6, 4.3)
    rows = {"full batch": 0, "SGD": 1, "SAGA": 1}
    for kind, found in data["curves"].items():
        row = axes[rows[kind]]
        for i, (name, curve) in enumerate(found.items()):
            c = {key: array(values) for key, values in curve.items()}
            # The curves lie on one another: their markers take turns.
            style = line(name) | {"markevery": (0.045 * i, 0.14)}
            style |= {"linestyle": (0, (3, 1.2))} if kind == "SGD" else {}
            style |= {"linewidth": 2.4 - 0.7 * i, "markersize": 4.0}
            row[0].semilogy(c["epoch"], above(c["gap"], 1e-15), **style)
            row[1].semilogy(c["epoch"], c["amari"], **style)
            row[2].semilogy(c["epoch"], above(c["distance"], 1e-16), **style)
    steps = data["settings"]["steps"]
    titles = (
        f"full batch, step {steps['full batch']:g}",
        f"SGD (dashed), SAGA; step {steps['SAGA']:g}",
    )
    for row, title in zip(axes, titles):
        # Less than two decades: 1, 2 and 5 have labels, no others, whose labels would touch.
        row[1].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        row[1].yaxis.set_major_formatter(FormatStrFormatter("%g"))
        row[1].yaxis.set_minor_formatter(NullFormatter())
        row[1].axhline(data["limit"], color="black", linestyle=":", linewidth=1.0)
        for each, y in zip(row, (r"$f - f^\star$", "Amari distance", r"$\|X^TX - I\|$")):
            label(each, "epoch", y, title)
    legend(figure, axes[0], columns=3)
    return figure
