"""What one step costs, the gradient given: the landing, POGO, every retraction, and pymanopt's.

Times are of the field and the move together, through ``lo.minimize`` with a gradient that costs nothing
and reads the clock; of pymanopt the same two functions, called directly, without its solver.
"""

import gc
import itertools
import time

import numpy as np
from pymanopt import manifolds

import landingopt as lo
from landingopt.bench.products import counted_products
from landingopt.bench.runs import no_collection
from landingopt.bench.solvers import one_blas_thread
from landingopt.figures.data import array
from landingopt.figures.style import label, legend, line, panels

TITLE = "The cost of a step: three products against factorisations"
CAPTION = (
    "Time of a step over that of the landing's bare products (dotted; their times below): three p x "
    "p for square X, four n p^2 for tall X, n = 4 p. One BLAS thread, its processor time. The "
    "gradient costs nothing and alternates between G and -G, so that steps do not shrink: every "
    "column turns by about 0.1, X by at most 0.4 in all (so that the safe step does not cut). "
    "Medians of interleaved repeats; a method stops where a step takes seconds. The talk's "
    "retractions are the exponential, Cayley and the projection; CholeskyQR and the projection by "
    "Newton–Schulz, products too, are cheaper and leave the landing a smaller gain. pymanopt's "
    "(dashed; markers as ours) are its QR, projection and exponential without its solver; ours have "
    "the library's loop in them. QR and SVD are the same factorisations in both; its exponential is "
    "of twice the size, and in double precision."
)

RETRACTIONS = {
    "QR": lo.retractions.QR(),
    "CholeskyQR": lo.retractions.CholeskyQR(),
    "projection": lo.retractions.Polar(method="svd"),
    "projection, Newton–Schulz": lo.retractions.Polar(),
    "Cayley": lo.retractions.Cayley(),
    "exponential": lo.retractions.Exponential(),
}
PYMANOPT = {"QR": "qr", "projection": "polar", "exponential": "exp"}
# ours: theirs; the first two call the same factorisation.
COMPARED = {
    "QR": "QR",
    "projection by SVD": "projection",
    "projection by products": "projection",
    "exponential": "exponential",
}
CLAIMED = ("QR", "projection by SVD", "exponential")
OURS = {"projection by SVD": "projection", "projection by products": "projection, Newton–Schulz"}
TURN = 0.1
WHOLE = 0.4  # of the whole matrix at most: then the safe step does not cut
TALL = 4
DTYPES = ("float64", "float32")
LONG, DEAREST = 0.1, 2.0  # seconds of a step: not repeated, left out


def compute(quick):
    sizes = (8, 30, 80) if quick else (8, 20, 50, 100, 200, 500, 1000, 2000)
    cells = {}
    with one_blas_thread(), no_collection():
        for dtype in DTYPES:
            cells[f"square {dtype}"] = _curves(np, 1, sizes, dtype, quick)
            tall = [p for p in sizes if TALL * p <= 2000]
            cells[f"tall {dtype}"] = _curves(np, TALL, tall, dtype, quick)
    cupy = _cupy()
    if cupy is not None:
        for dtype in DTYPES:
            cells[f"GPU, square {dtype}"] = _curves(cupy, 1, sizes, dtype, quick)
    products = {n: _products(n * 10, 10) for n in (1, TALL)}
    claims = [
        (
            f"a step of the landing is {products[1]:g} products p^3 for square X and {products[TALL]:g} "
            "products n p^2 for tall X, counted",
            products == {1: 3.0, TALL: 4.0},
        )
    ]
    numbers = {"landing over the cheapest retraction": {}, "over pymanopt's": {}}
    if not quick:
        claims += _timing_claims(cells, numbers)
    return {
        "settings": {
            "sizes": sizes, "tall": TALL, "turn": TURN, "seed": 0,
            "gpu": "not measured" if cupy is None else "measured",
        },
        "cells": cells,
        "numbers": numbers,
        "claims": claims,
    }  # fmt: skip


def _timing_claims(cells, numbers):
    for name, cell in cells.items():
        for p in (200, 500, 1000):
            if p not in cell["p"]:
                continue
            at = {method: _at(cell, method, p) for method in RETRACTIONS}
            best = min(at, key=at.get)
            numbers["landing over the cheapest retraction"][f"{name}, p = {p}"] = [
                best, at[best] / _at(cell, "landing", p)
            ]  # fmt: skip
        for method, other in COMPARED.items():
            theirs = f"pymanopt {other}"
            if theirs in cell["seconds"]:
                ratios = array(cell["seconds"][theirs]) / array(
                    cell["seconds"][OURS.get(method, method)]
                )
                numbers["over pymanopt's"][f"{name}, {method}"] = ratios[np.isfinite(ratios)]
    square = cells["square float64"]
    talk = {m: _at(square, m, 200) / _at(square, "landing", 200) for m in RETRACTIONS}
    gains = numbers["landing over the cheapest retraction"]
    mean = _geometric([ratio for _, ratio in gains.values()])
    large = array(square["p"]) >= 200
    own = (array(square["seconds"]["landing"]) / array(square["seconds"]["products"]))[large]
    over = _geometric(own[np.isfinite(own)])
    ratios = numbers["over pymanopt's"]
    each = {
        method: np.concatenate([r for n, r in ratios.items() if n.endswith(f", {method}")])
        for method in COMPARED
    }
    theirs = {method: (_geometric(values), float(values.min())) for method, values in each.items()}
    return [
        (
            "p = 200, square, float64: a step takes "
            + ", ".join(f"{r:.2f} x ({m})" for m, r in sorted(talk.items(), key=lambda i: i[1]))
            + " the landing's",
            min(talk.values()) > 1.0,
        ),
        (
            f"the cheapest retraction takes {mean:.2f} x the landing's time in the mean: "
            + "; ".join(f"{ratio:.2f} ({m}; {name})" for name, (m, ratio) in gains.items()),
            mean > 1.0,
        ),
        (f"from p = 200 the landing takes {over:.2f} x its three products in the mean", over < 2.0),
        (
            "pymanopt's retractions take, in the geometric mean over all sizes, "
            + ", ".join(f"{m:.2f} x ({n}; least {low:.2f})" for n, (m, low) in theirs.items())
            + " the library's time",
            min(mean for n, (mean, _) in theirs.items() if n in CLAIMED) >= 0.95,
        ),
    ]


def _geometric(ratios):
    return float(np.exp(np.mean(np.log(ratios))))


def _at(cell, method, p):
    return array(cell["seconds"][method])[list(cell["p"]).index(p)]


def _curves(xp, ratio, sizes, dtype, quick):
    """Seconds of a step, for each method a list over the sizes; nan where it was left out."""
    seconds = {}
    for i, p in enumerate(sizes):
        timers = _timers(xp, ratio * p, p, dtype)
        for name in list(timers):
            before = seconds.setdefault(name, [])[-1:]
            if before and not before[0] * (p / sizes[i - 1]) ** 3 < DEAREST:
                del timers[name]
        for name, value in _medians(timers, *((0.002, 3) if quick else (0.015, 5))).items():
            seconds[name].append(value)
        for values in seconds.values():
            values.extend([np.nan] * (i + 1 - len(values)))
    return {"p": list(sizes), "seconds": seconds}


def _medians(timers, budget, repeats):
    """Medians over interleaved repeats; each of as many steps as take about ``budget`` seconds."""
    once = {}
    for name, timer in timers.items():  # warms up, too
        once[name] = timer(1)
        if once[name] > 0.1 * LONG:
            gc.collect()  # of what a run leaves: large arrays, in cycles
    found = {name: [value] if value > LONG else [] for name, value in once.items()}
    large = max(once.values()) > LONG
    for _ in range(repeats):
        for name, timer in timers.items():
            if once[name] <= LONG:
                found[name].append(timer(int(np.clip(budget / once[name], 1, 500))))
            if large:
                gc.collect()
    return {name: float(np.median(values)) for name, values in found.items()}


def _timers(xp, n, p, dtype):
    """name -> function(steps) -> seconds of a step."""
    rng = np.random.default_rng(p)
    G = rng.standard_normal((n, p))
    X = np.linalg.qr(rng.standard_normal((n, p)))[0]
    C = X.T @ G
    Z = G - X @ (0.5 * (C + C.T))
    eta = min(TURN * np.sqrt(p), WHOLE) / np.linalg.norm(Z)
    G, X = (xp.asarray(a.astype(dtype)) for a in (G, X))
    timers = {"products": lambda steps: _bare(xp, X, G, steps)}
    for name, method in _methods(eta).items():
        timers[name] = lambda steps, method=method: _step(xp, X, G, method, steps)
    if xp is np:
        for name, kind in PYMANOPT.items():
            timers[f"pymanopt {name}"] = lambda steps, kind=kind: _pymanopt(X, G, eta, kind, steps)
    return timers


def _methods(eta):
    methods = {"landing": lo.landing(step=eta, lam=0.25 / eta), "POGO": lo.pogo(eta)}
    return methods | {name: lo.riemannian(move, step=eta) for name, move in RETRACTIONS.items()}


def _step(xp, X, G, method, steps):
    """From the third gradient to the last: both points of a run have touched their memory then."""
    turns, seen = itertools.cycle((G, -G)), []

    def grad(x):
        seen.append(_clock(xp))
        return next(turns)

    problem = lo.Objective(grad=grad, shape=X.shape, like=X)
    stop, ends_only = lo.MaxIterations(steps + 2), lo.Every(10**9)
    lo.minimize(problem, X, method, stop=stop, record=ends_only, rng=0)
    return (seen[steps + 2] - seen[2]) / steps


def _bare(xp, X, G, steps):
    """The landing's products alone, into memory that is there."""
    n, p = X.shape
    a, b, x, y = xp.empty_like(X[:p]), xp.empty_like(X[:p]), xp.empty_like(X), xp.empty_like(X)
    begin = _clock(xp)
    for _ in range(steps):
        if n == p:
            xp.matmul(G, X.T, out=a), xp.matmul(X, X.T, out=b), xp.matmul(a, X, out=x)
        else:
            xp.matmul(X.T, X, out=a), xp.matmul(X.T, G, out=b)
            xp.matmul(G, a, out=x), xp.matmul(X, b, out=y)
    return (_clock(xp) - begin) / steps


def _clock(xp):
    """On the host the thread's own time, which other processes do not lengthen."""
    if xp is np:
        return time.thread_time()
    xp.cuda.Device().synchronize()
    return time.perf_counter()


def _pymanopt(X, G, eta, kind, steps):
    manifold = manifolds.Stiefel(*X.shape, retraction="qr" if kind == "exp" else kind)
    move = manifold.exp if kind == "exp" else manifold.retraction
    eta = X.dtype.type(eta)
    begin = _clock(np)
    x = X
    for k in range(steps):
        Z = manifold.euclidean_to_riemannian_gradient(x, G if k % 2 else -G)
        x = move(x, -eta * Z)
    return (_clock(np) - begin) / steps


def _products(n, p):
    """Products n p^2 of a step of the landing."""
    X, G = lo.stiefel.random(n, p, rng=0), lo.stiefel.random(n, p, rng=1)
    problem = lo.Objective(grad=lambda x: G, shape=X.shape)
    totals = []
    for steps in (1, 11):
        with counted_products() as total:
            lo.minimize(problem, X, _methods(0.1)["landing"], stop=lo.MaxIterations(steps),
                        record=lo.Every(1000))  # fmt: skip
        totals.append(total[0])
    return (totals[1] - totals[0]) / (10 * n * p * p)


def _cupy():
    """CuPy where it finds a device, else None."""
    try:
        import cupy

        return cupy if cupy.cuda.is_available() else None
    except Exception:
        return None


def draw(data):
    cells = data["cells"]
    gpu = any(name.startswith("GPU") for name in cells)
    figure, axes = panels(2, 3 if gpu else 2, height=2.15)
    for row, dtype in enumerate(DTYPES):
        for axis, kind in zip(axes[row], ("square", "tall", "GPU, square")):
            cell = cells[f"{kind} {dtype}"]
            p, bare = array(cell["p"]), array(cell["seconds"]["products"])
            for name, seconds in cell["seconds"].items():
                style = line(name.removeprefix("pymanopt ")) | {"markevery": 1, "markersize": 4}
                if name.startswith("pymanopt"):
                    theirs = {"linewidth": 0.8, "label": "pymanopt's"}
                    style = line("pymanopt") | {"marker": style["marker"], "markevery": 1} | theirs
                if name == "products":
                    style["label"] = "its bare products"
                axis.loglog(p, array(seconds) / bare, **style)
            for i, ha in ((0, "left"), (len(p) // 2, "center"), (len(p) - 1, "right")):
                axis.annotate(
                    _time(bare[i]), (p[i], 0.42), fontsize=7, va="bottom", color="#5A5A5A", ha=ha
                )
            axis.set_ylim(0.38, 200.0)
            shown = _apart(cell["p"])
            axis.set_xticks(shown, [str(each) for each in shown], fontsize=7.5)
            axis.set_title(f"{kind}, {dtype}", fontsize=9)
    for axis in axes[:, 0]:
        label(axis, "", "time / its bare products")
    for axis in axes.flat:
        axis.xaxis.set_minor_formatter("")
        axis.set_xlabel("p" if axis in axes[1] else "", fontsize=8.5)
    legend(figure, axes[0], columns=3)
    figure.set_size_inches(2.85 * axes.shape[1], 4.2)
    return figure


def _apart(sizes):
    """Those whose labels do not touch on a logarithmic axis."""
    shown = []
    for p in sizes:
        if not shown or p >= 2.2 * shown[-1]:
            shown.append(p)
    return shown


def _time(seconds):
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return (
                f"{seconds / scale:.2g} {unit}"
                if seconds < 10 * scale
                else f"{seconds / scale:.0f} {unit}"
            )
    return f"{seconds * 1e6:.0f} µs"
