"""Online PCA, the stochastic experiment of [AVGA24].

The paper has N = 15000, n = 5000, p in {100, 200, 500, 1000} and batches of 128. Here all of these
are five times smaller (the batch 26): n / p, and with it the eigenvalues, and the steps of an epoch
are the paper's. The environment variable LANDINGOPT_FULL_SIZE=1 asks for the published size: hours on
two cores, and 2 GB. The quick figure, ten times smaller, ignores it.
"""

import os

import numpy as np

import landingopt as lo
from landingopt.baselines.penalty import GradientDescent, penalty
from landingopt.bench.solvers import one_blas_thread
from landingopt.figures.data import array
from landingopt.figures.style import above, label, legend, line, panels

# Time of an epoch, QR over landing, on a GPU.
PUBLISHED = {100: 2.06, 200: 3.30, 500: 3.38, 1000: 3.05}
LIGHT, HEAVY = r"penalty, $\lambda = 10^2$", r"penalty, $\lambda = 10^4$"
LEVELS = {"10 %": 0.1, "1 %": 0.01}  # of the first excess loss
SCHEDULE = (30, 50)  # of 60 epochs: there the steps are divided by ten

TITLE = "Online PCA: the landing, QR and the penalty on the same samples"


def caption(data):
    settings, numbers = data["settings"], data["numbers"]
    scale = settings["divided by"]
    size = (
        "The published size, "
        if scale == 1
        else f"Every size of the paper is divided by {scale}"
        + (" (LANDINGOPT_FULL_SIZE=1 keeps it), " if scale == 5 else ", ")
    )
    epochs = settings["epochs"]
    share = "" if epochs == 60 else " for 60 with the drops at the same shares"
    published = ", ".join(f"{ratio:.2f}" for ratio in PUBLISHED.values())
    measured = numbers["seconds of an epoch"]
    pairs = ", ".join(f"{s['QR'] / s['landing']:.2f}" for s in measured)
    here = (
        f"here {pairs} (p = {', '.join(str(s['p']) for s in measured)})"
        if measured
        else "not timed"
    )
    sizes = ", ".join(map(str, PUBLISHED))
    off = _range(numbers["penalty, 1e2: distance"])
    left = _range(numbers["penalty, 1e4: share of the first excess"])
    return (
        f"{size}{epochs} epochs{share}, on one thread of a CPU in place of a GPU, one run in place of "
        "ten. f is taken at the closest feasible point, in double precision. The papers' landing field "
        "holds half of the Riemannian gradient, so that at the same nominal step it needs twice the "
        "epochs of QR: 2k for k. In the same metric (Canonical(metric_scale=1.0)) the two curves are "
        "one, and what is left is the time of an epoch, QR's over the landing's: "
        f"{here}; published, on a GPU: {published} (p = {sizes}). The penalty is f + "
        "(lam / 4) ||X^T X - I||^2: its steps are the cheapest, and with lam = 1e2 its projected "
        f"iterates do as well, but it ends off the manifold by {off}; "
        "with lam = 1e4, and the short step that needs, it hardly moves: it ends at "
        f"{left} of the first excess loss."
    )


def _range(values):
    low, high = f"{min(values.values()):.2g}", f"{max(values.values()):.2g}"
    return low if low == high else f"{low} to {high}"


def variant():
    """What the figure's data depend on beside its file and the library; the quick one's do not."""
    return "the published size" if _full_size() else ""


def _full_size():
    return os.environ.get("LANDINGOPT_FULL_SIZE") == "1"


GRADIENT = lo.fields.Canonical(metric_scale=1.0)


def compute(quick):
    scale, sizes, epochs = (1, tuple(PUBLISHED), 60) if _full_size() else (5, (20, 100), 40)
    if quick:
        scale, sizes, epochs = 10, (10, 20), 10
    n, n_terms, batch = 5000 // scale, 15_000 // scale, round(128 / scale)
    drops = tuple(epochs * k / 60 for k in SCHEDULE)
    curves, fewest = {}, []
    with one_blas_thread():
        for p in sizes:
            problem = lo.problems.online_pca(p, n, n_terms, rng=0)
            curves[p] = _curves(problem, batch, epochs, drops)
        if not quick:
            timed = [p // scale for p in PUBLISHED]
            fewest = [_epoch_seconds(p, n, n_terms, batch) for p in timed]
    twice = {p: _epochs_ratio(c["landing"], c["QR"]) for p, c in curves.items()}
    nominal = {p: _gap(c["landing"], c["QR"], 2, drops[0]) for p, c in curves.items()}
    matched = {p: _gap(c["landing, metric scale 1"], c["QR"], 1, epochs) for p, c in curves.items()}
    ratios = [value for each in twice.values() for value in each.values()]
    claims = [
        (
            "at the same nominal step the landing needs twice the epochs of QR to shares of the first "
            f"excess loss: {'; '.join(_reached(p, each) for p, each in twice.items())}",
            min(ratios) > 1.9 and max(ratios) < 2.1,
        ),
        (
            "the excess loss at its epoch 2k is that of QR's epoch k within "
            + ", ".join(f"{gap:.1%} (p = {p})" for p, gap in nominal.items())
            + ", until the steps drop and wherever it is at least 5 % of the first",
            max(nominal.values()) < 0.05,
        ),
        (
            "in the same metric the excess losses agree epoch by epoch within "
            f"{max(matched.values()):.1%}, down to 1 % of the first",
            max(matched.values()) < 0.02,
        ),
    ]
    if not quick:
        pairs = [f"{s['QR'] / s['landing']:.2f}" for s in fewest]
        claims.append(
            (
                f"an epoch of QR takes {', '.join(pairs)} x the landing's on this CPU, one thread "
                f"(published, on a GPU: {', '.join(f'{r:.2f}' for r in PUBLISHED.values())})",
                all(s["QR"] > s["landing"] for s in fewest),
            )
        )
    return {
        "settings": {
            "n": n, "N": n_terms, "p": sizes, "batch": batch, "epochs": epochs, "drops": drops,
            "dtype": "float32", "landing": "step 1e-3, lam 10", "QR": "step 1e-3",
            "penalty": "lam 1e2 with step 1e-3, lam 1e4 with step 1e-5", "divided by": scale,
            "problem's rng": 0, "start's rng": 1, "samples' rng": 2,
        },
        "curves": curves,
        "numbers": {
            "epochs, landing over QR": twice, "excess at 2k": nominal, "excess, same metric": matched,
            "seconds of an epoch": fewest,
            "penalty, 1e2: distance": {p: c[LIGHT]["distance"][-1] for p, c in curves.items()},
            "penalty, 1e4: share of the first excess": {
                p: c[HEAVY]["excess"][-1] / c[HEAVY]["excess"][0] for p, c in curves.items()
            },
            "time of an epoch, QR over landing": {s["p"]: s["QR"] / s["landing"] for s in fewest},
            "the same, published": PUBLISHED,
        },
        "claims": claims,
    }  # fmt: skip


def _methods(batch, drops):
    samples = lo.estimators.MiniBatch(batch)

    def step(first):
        return lo.steps.StepDecay(first, drops)

    # The library's penalty is lam ||X^T X - I||^2, four times the paper's.
    return {
        "landing": lo.landing(step=step(1e-3), lam=10.0, base=samples),
        "landing, metric scale 1": lo.landing(
            step=step(1e-3), lam=10.0, base=samples, tangent=GRADIENT
        ),
        "QR": lo.riemannian(step=step(1e-3), estimator=samples, tangent=GRADIENT),
        LIGHT: penalty(25.0, GradientDescent(step(1e-3)), estimator=samples),
        HEAVY: penalty(2500.0, GradientDescent(step(1e-5)), estimator=samples),
    }  # fmt: skip


def _curves(problem, batch, epochs, drops):
    n, p = problem.shape
    x0 = lo.stiefel.random(n, p, rng=1, dtype=np.float32)
    data = problem.data.astype(float)
    moments = data.T @ data / len(data)
    best = float(np.linalg.eigvalsh(moments)[-p:].sum())

    def excess(x):
        y = lo.stiefel.polar(x.astype(float))
        return 1.0 - float(np.vdot(y, moments @ y)) / best

    def distance(x):
        return lo.stiefel.distance(x.astype(float))

    record = lo.EveryEpoch(0.25, metrics={"excess": excess, "off": distance}, full=False)
    found = {}
    for name, method in _methods(batch, drops).items():
        # What only a first run costs is no method's time.
        lo.minimize(problem, x0, method, stop=lo.MaxIterations(1), record=record, rng=2)
        trace = lo.minimize(
            problem, x0, method, stop=lo.MaxEpochs(epochs), record=record, rng=2
        ).trace
        # Each epoch is a new order of the samples: at whole epochs its noise averages out.
        rows = np.arange(len(trace["epoch"]))
        keep = (rows < 24) | (rows % 4 == 0)
        columns = {"epoch": "epoch", "seconds": "seconds", "excess": "excess", "distance": "off"}
        found[name] = {key: trace[column][keep] for key, column in columns.items()}
    return found


def _epoch_seconds(p, n, n_terms, batch):
    """Medians of interleaved epochs."""
    problem = lo.problems.online_pca(p, n, n_terms, rng=0)
    x0 = lo.stiefel.random(n, p, rng=1, dtype=np.float32)
    samples = lo.estimators.MiniBatch(batch)
    cholesky = lo.retractions.CholeskyQR()
    methods = {
        "landing": lo.landing(step=1e-3, lam=10.0, base=samples),
        "QR": lo.riemannian(step=1e-3, estimator=samples, tangent=GRADIENT),
        "CholeskyQR": lo.riemannian(cholesky, step=1e-3, estimator=samples, tangent=GRADIENT),
    }
    times = {name: [] for name in methods}
    for _ in range(5):
        for name, method in methods.items():
            result = lo.minimize(
                problem, x0, method, stop=lo.MaxEpochs(1), record=lo.EveryEpoch(9, full=False), rng=2
            )  # fmt: skip
            times[name].append(result.seconds)
    return {"p": p, **{name: float(np.median(values)) for name, values in times.items()}}


def _epochs_ratio(ours, theirs):
    """Epochs of ours over theirs until the excess loss is so much of the first, if both are."""

    def arrival(curve, level):
        log, epoch = np.log(curve["excess"]), np.asarray(curve["epoch"])
        after = int(np.argmax(log <= level))
        return float(np.interp(-level, -log[after - 1 : after + 1], epoch[after - 1 : after + 1]))

    found = {}
    for name, share in LEVELS.items():
        level = np.log(share * ours["excess"][0])
        if max(np.log(ours["excess"].min()), np.log(theirs["excess"].min())) <= level:
            found[name] = arrival(ours, level) / arrival(theirs, level)
    return found


def _reached(p, ratios):
    """In words, for one p: the ratios, and the levels that are not reached."""
    parts = [f"{ratios[name]:.3f} x to {name}" for name in LEVELS if name in ratios]
    parts += [f"{name} not reached" for name in LEVELS if name not in ratios]
    return f"p = {p}: {', '.join(parts)}"


def _gap(ours, theirs, speed, until):
    """The largest relative difference of ours at epoch speed * k from theirs at k, until a drop."""
    k = theirs["epoch"][theirs["epoch"] * speed <= until * (1 + 1e-9)]
    a = np.exp(np.interp(speed * k, ours["epoch"], np.log(ours["excess"])))
    b = theirs["excess"][: len(k)]
    compared = b >= (0.05 if speed == 2 else 0.01) * b[0]
    return float(np.max(np.abs(a / b - 1.0)[compared]))


def _style(name):
    style = line(name.partition(",")[0]) | {"label": name, "markevery": (0.02, 0.14)}
    if "metric" in name:
        return style | {"linestyle": (0, (4, 1.5)), "marker": "p", "markevery": (0.09, 0.14)}
    return style | {"linestyle": ":"} if name.endswith("4$") else style


def draw(data):
    curves = data["curves"]
    figure, axes = panels(len(curves), 4, height=2.4)
    figure.set_size_inches(9.0, 1.9 * len(curves) + 0.6)
    for row, (p, found) in zip(axes, curves.items()):
        for name, curve in found.items():
            c = {key: array(values) for key, values in curve.items()}
            excess = above(c["excess"], 1e-9)
            row[0].semilogy(c["epoch"], excess, **_style(name))
            row[1].semilogy(c["seconds"], excess, **_style(name))
            row[2].semilogy(c["epoch"], c["distance"], **_style(name))
            row[3].semilogy(c["seconds"], c["distance"], **_style(name))
        title = f"n = {data['settings']['n']}, p = {p}"
        for each, x, y in zip(row, ("epoch", "time [s]") * 2, (0, 0, 1, 1)):
            label(each, x, (r"$(f - f^\star)\,/\,|f^\star|$", r"$\|X^TX - I\|$")[y], title)
        for each in (row[1], row[3]):
            each.set_xlim(0, 1.05 * array(found["QR"]["seconds"])[-1])
    legend(figure, axes[0], columns=5)
    return figure
