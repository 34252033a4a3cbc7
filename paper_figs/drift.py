"""Do retraction methods drift away from the manifold through rounding, and the landing not?

Single precision and many short steps that do not vanish: SGD with a constant step where f_i is linear.
"""

import numpy as np
from pymanopt import manifolds
from scipy.linalg import expm

import landingopt as lo
from landingopt.bench.solvers import one_blas_thread
from landingopt.figures.data import array
from landingopt.figures.style import label, legend, line, panels
from landingopt.moves import Moved
from landingopt.rates.noise import noise_floor

TITLE = "Drift through rounding: retractions as in textbooks, retractions here, the landing"


def caption(data):
    settings = data["settings"]
    return (
        "The talk says that retraction methods drift away from the manifold because numerical errors "
        "accumulate. That is so for those that multiply the previous point by a matrix (textbook "
        "exponential and Cayley; pymanopt's exponential): about as sqrt(k), and faster for short steps, "
        "whose second-order term is lost in 1 + x, so that every step errs to the same side. It is not "
        "so for QR and the projection, which make a new point on the manifold at every step, nor for "
        "the library's exponential and Cayley, which correct the drift for no product more. Short steps "
        f"are the worst case: the library's own take {settings['steps']} of them, and "
        f"{settings['long steps of the library']} of the long ones (not drawn). The landing does not "
        "drift either, but with noise and steps that do not vanish it stays at a floor (dashed: "
        "predicted), at long steps above the retractions' rounding. f is 0 in the mean, so that nothing "
        "else acts on the distance: G - X sym(X^T G) is not quite tangent off the manifold, and where f "
        "is not flat it damps or feeds the drift of pymanopt's exponential."
    )


class _Multiplied:
    """Moves the textbook way: A skew, a matrix of it times X."""

    def __init__(self, move):
        self.move = move

    def start(self, block):
        return self

    def apply(self, form, eta, out, tol=None, limit=np.inf):
        return Moved(self.move(form.x, -np.float32(eta) * form.array()), np.inf, None, True)


def _skew(X, Z):
    A = Z @ X.T
    return np.float32(0.5) * (A - A.T)


def textbook_exponential(X, Z):
    return expm(_skew(X, Z)) @ X


def textbook_cayley(X, Z):
    half, one = np.float32(0.5) * _skew(X, Z), np.eye(len(X), dtype=X.dtype)
    return np.linalg.solve(one - half, (one + half) @ X)


def pymanopt_exponential(X, Z):
    return manifolds.Stiefel(*X.shape).exp(X, Z).astype(X.dtype)  # which is of double precision


RETRACTIONS = {
    "exponential": lo.retractions.Exponential(),
    "Cayley": lo.retractions.Cayley(),
    "projection": lo.retractions.Polar(method="svd"),
    "projection, Newton–Schulz": lo.retractions.Polar(),
    "QR": lo.retractions.QR(),
    "CholeskyQR": lo.retractions.CholeskyQR(),
}
TEXTBOOK = {
    "textbook exponential": _Multiplied(textbook_exponential),
    "textbook Cayley": _Multiplied(textbook_cayley),
    "pymanopt's exponential": _Multiplied(pymanopt_exponential),
}
SHOWN = {
    "textbook exponential": line("exponential") | {"linestyle": (0, (1.5, 1.2))},
    "textbook Cayley": line("Cayley") | {"linestyle": (0, (1.5, 1.2))},
    "pymanopt's exponential": line("pymanopt"),
}
P, TERMS = 16, 64
SHORT, LONG = 3e-4, 1e-2  # of the steps, ||Z||_F, about


def compute(quick):
    steps = 3000 if quick else 100_000
    ours = ["POGO", *RETRACTIONS]
    with one_blas_thread():
        short = _runs(SHORT, ["landing", *ours, *TEXTBOOK], steps)
        long = _runs(LONG, ["landing", *TEXTBOOK], steps) | _runs(LONG, ours, steps // 10)
    unit = float(np.finfo(np.float32).eps) * np.sqrt(P)
    level = max(run[name]["end"] for run in (short, long) for name in ours)
    flat = max(abs(short[name]["slope"]) for name in ours)
    landing, floor = long["landing"]["end"], _floor(LONG)
    claims = [
        (
            f"textbook retractions drift; at steps of length {SHORT:g} " + _drifts(short),
            all(0.4 < short[name]["slope"] < 1.2 for name in TEXTBOOK),
        ),
        (
            f"at steps of length {LONG:g} " + _drifts(long),
            all(0.3 < long[name]["slope"] < 0.8 for name in TEXTBOOK),
        ),
        (
            "QR, the projection, POGO, the library's own exponential and Cayley do not: at the end at "
            f"most {level / unit:.1f} u sqrt(p), slopes at most {flat:.2f} in size (short steps)",
            level < 10.0 * unit and flat < 0.1,
        ),
        (
            f"the landing does not: slopes {short['landing']['slope']:.2f} and "
            f"{long['landing']['slope']:.2f}, at {short['landing']['end'] / unit:.1f} u sqrt(p) and at "
            f"{landing:.1e}, {landing / floor:.2f} x the predicted floor of its noise",
            max(abs(run["landing"]["slope"]) for run in (short, long)) < 0.1
            and abs(landing / floor - 1.0) < 0.25,
        ),
        (
            f"but at long steps that floor is {landing / level:.0f} x the largest distance of the "
            "library's retractions",
            landing > level,
        ),
    ]
    if not quick:
        ratios = [
            min(run[name]["end"] for name in TEXTBOOK) / run["landing"]["end"]
            for run in (short, long)
        ]
        claims.append(
            (
                f"after {steps} steps the least textbook drift is {ratios[0]:.0f} x the landing's "
                f"distance (short steps) and {ratios[1]:.1f} x (long steps: its floor is higher)",
                ratios[0] > 10.0 and ratios[1] > 0.5,
            )
        )
    runs = {"short": short, "long": long}
    return {
        "settings": {
            "p": P,
            "terms": TERMS,
            "short": SHORT,
            "long": LONG,
            "steps": steps,
            "long steps of the library": steps // 10,
            "problem's rng": 0,
            "start's rng": 1,
            "samples' rng": 2,
        },
        "runs": runs,
        "floor": {"short": _floor(SHORT), "long": floor},
        "numbers": {
            "u sqrt(p)": unit,
            **{
                f"{what}, {length}": {name: c[what] for name, c in run.items()}
                for length, run in runs.items()
                for what in ("end", "slope")
            },
        },
        "claims": claims,
    }


def _drifts(run):
    parts = [f"k^{run[n]['slope']:.2f} to {run[n]['end']:.1e} ({n})" for n in TEXTBOOK]
    return "as " + ", ".join(parts)


def _runs(length, names, steps):
    problem, step = _problem(length)
    sampled = lo.estimators.MiniBatch(1, lo.samplers.WithReplacement())
    methods = {
        "landing": lo.landing(step=step, lam=0.25 / step, base=sampled),
        "POGO": lo.pogo(step, base=sampled),
    }
    for name, move in (RETRACTIONS | TEXTBOOK).items():
        methods[name] = lo.riemannian(move, step=step, estimator=sampled)
    curves = {}
    for name in names:
        c = _run(problem, methods[name], steps)
        late = c["iteration"] > c["iteration"][-1] / 30.0
        powers = np.polyfit(np.log(c["iteration"][late]), np.log(c["distance"][late]), 1)
        curves[name] = c | {"slope": powers[0], "end": float(np.median(c["distance"][-5:]))}
    return curves


def _problem(length):
    """f_i(X) = <C_i, X>, in the mean 0: X wanders; and the step whose moves have this length."""
    C = np.random.default_rng(0).standard_normal((TERMS, P, P)).astype(np.float32)
    C -= C.mean(axis=0)
    problem = lo.FiniteSum(
        lambda x, terms: float(np.sum(C[terms].mean(axis=0) * x)),
        lambda x, terms: C[terms].mean(axis=0),
        n_terms=TERMS, shape=(P, P), like=C[0],
    )  # fmt: skip
    typical = np.sqrt(P * (P - 1) / 2.0)  # E ||skew(C X^T)||_F^2 = p (p - 1) / 2
    return problem, length / typical


def _run(problem, method, steps):
    """The distance, in double precision, at iterations that grow geometrically."""
    x0 = lo.stiefel.random(P, rng=1, dtype=np.float32)
    record = lo.LogSpaced(16, metrics={"exact distance": _distance})
    trace = lo.minimize(
        problem, x0, method, stop=lo.MaxIterations(steps), record=record, rng=2
    ).trace
    return {
        "iteration": np.asarray(trace["iteration"][1:], dtype=float),
        "distance": np.asarray(trace["exact distance"][1:]),
    }


def _distance(x):
    wide = np.asarray(x, dtype=np.float64)
    return float(np.linalg.norm(wide.T @ wide - np.eye(len(wide))))


def _floor(length):
    """Root mean square distance of the landing on its plateau, as predicted."""
    problem, step = _problem(length)
    method = lo.landing_sgd(
        step=step, lam=0.25 / step, batch_size=1, sampler=lo.samplers.WithReplacement()
    )
    x = lo.stiefel.random(P, rng=1)
    return 2.0 * float(np.sqrt(noise_floor(problem, method, x).infeasibility))


def draw(data):
    figure, axes = panels(1, 3, height=2.9)
    settings, unit = data["settings"], data["numbers"]["u sqrt(p)"]
    books = [name for name in SHOWN if name in data["runs"]["long"]]
    rest = [name for name in data["runs"]["short"] if name not in books]
    k = np.array([10.0, settings["steps"]])
    for axis, length, names in zip(
        axes[0], ("short", "long", "short"), (["landing", *books], ["landing", *books], rest)
    ):
        for name in names:
            c = data["runs"][length][name]
            style = SHOWN.get(name) or line(name)
            axis.loglog(array(c["iteration"]), array(c["distance"]), **style | {"label": name})
        axis.axhline(data["floor"][length], color="#0072B2", linestyle=(0, (4, 2)), linewidth=0.9)
        if names is not rest:
            axis.loglog(k, 2 * unit * np.sqrt(k / k[0]), color="#9A9A9A", linewidth=0.8)
            axis.loglog(k, 2 * unit * k / k[0], color="#9A9A9A", linewidth=0.8)
            axis.annotate(r"$k$", (k[1] / 12, unit * k[1] / 40), fontsize=8, ha="right")
            axis.annotate(r"$\sqrt{k}$", (k[1], unit * np.sqrt(k[1]) / 8), fontsize=8, ha="right")
        axis.set_ylim(1e-7, 1e-1)
        title = "as in textbooks" if names is not rest else "the library"
        label(axis, "iteration", r"$\|X^TX - I\|$", f"{title}, steps of {settings[length]:g}")
    legend(figure, axes[0])
    return figure
