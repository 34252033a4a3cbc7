"""The theorems of [AVGA24] against runs: gradient descent with constants, the others by slopes.

Gradient descent: (1/T) sum ||R||^2 <= 4 (L_0 - L*) / (eta T) and (1/T) sum N <= 2 (L_0 - L*) / (eta
nu T), with constants that are numbers (``lo.rates.Constants``), the theorem's longest step, from a
start off the manifold.
"""

import numpy as np

import landingopt as lo
from landingopt.bench.solvers import one_blas_thread
from landingopt.figures.data import array
from landingopt.figures.style import above, label, legend, line, panels
from landingopt.rates.series import Observed, means

TITLE = "Rates: the theorems' bounds and slopes against measured means"
CAPTION = (
    "The papers state the bounds with constants that are not evaluated; here they are, on Procrustes "
    "(p = 10) and PCA (20 x 4), for the tube of 1/4, lam = L_f and the theorem's longest step. The "
    "bound on the mean of N is far above it, because mu N is a small part of the merit, most of which "
    "pays for R. SGD, SAGA and SVRG (log-cosh ICA, 2000 x 5, batch 32, four seeds) have no bound "
    "drawn; only their slopes are held against the rates. SGD's theorem holds a bound on the variance "
    "of R over the whole tube and the Lipschitz constant of the merit's gradient there, neither known "
    "to be tight; SAGA's constants are not evaluated in this library; SVRG has no theorem in [AVGA24] "
    "and is held against SAGA's law. The theorems bound from above; near a minimum the "
    "variance-reduced methods converge linearly, and their means fall like 1/T exactly, the mean of "
    "the last half faster."
)

EPS, START = 0.25, 0.2
STOCHASTIC = {
    "SGD, step fixed for T": (lo.landing_sgd(lo.steps.Horizon(4.0, 1)), "SGD", -0.5),
    "SGD, decreasing steps": (lo.landing_sgd(lo.steps.Decay(0.5, power=0.5)), "SGD", None),
    "SAGA": (lo.landing_saga(0.1), "SAGA", -1.0),
    "SVRG": (lo.landing_svrg(0.1), "SVRG", -1.0),
}


def compute(quick):
    problems = {
        "Procrustes": lo.problems.Procrustes.random(10, rng=0),
        "PCA": lo.problems.PCA.random(20, 4, rng=0),
    }
    horizon = 2**11 if quick else 2**13
    with one_blas_thread():
        descent = {name: _descent(each, horizon) for name, each in problems.items()}
        ica = lo.problems.ICA.random(5, 2000, rng=0)
        stochastic = {name: _stochastic(ica, name, horizon) for name in STOCHASTIC}
    claims = []
    for name, found in descent.items():
        r, n = found["largest share"]["R"], found["largest share"]["N"]
        claims.append(
            (
                f"{name}: the mean of ||R||^2 is at most {r:.3f} of its bound, "
                f"that of N at most {n:.4f}, at every T <= {horizon}",
                r <= 1.0 and n <= 1.0,
            )
        )
        claims.append(
            (f"{name}: the certificate (angle, descent, sums) has {found['violations']} violations at "
             f"{found['iterates']} iterates", found["violations"] == 0)
        )  # fmt: skip
    for name, found in stochastic.items():
        claims.append(
            (
                f"{name}: {found['law']} is {found['verdict']}; slopes of the means up to T of "
                f"||grad||^2 {found['slopes']['grad']}, of N {found['slopes']['N']}",
                found["verdict"] == "CONSISTENT",
            )
        )
    return {
        "settings": {
            "horizon": horizon, "eps": EPS, "start": START, "rng": [0, 1], "seeds": 4,
            "steps": {name: method.name for name, (method, _, _) in STOCHASTIC.items()},
        },
        "descent": descent,
        "stochastic": stochastic,
        "numbers": {name: found["largest share"] for name, found in descent.items()},
        "claims": claims,
    }  # fmt: skip


def _descent(problem, horizon):
    n, p = problem.shape
    x0 = lo.stiefel.random(n, p, rng=1)
    component = lo.stiefel.component(x0) if n == p else None
    x0 *= np.sqrt(1.0 + START / np.sqrt(p))  # ||X^T X - I|| = START
    constants = lo.rates.Constants.of(problem, EPS, component)
    lam = float(constants.lipschitz)
    step, mu, nu = constants.step(lam), constants.mu(lam), constants.nu(lam)
    gradient, delta = problem.grad(x0), x0.T @ x0 - np.eye(p)
    merit = problem.fun(x0) - 0.5 * np.vdot(x0.T @ gradient, delta) + mu * np.vdot(delta, delta) / 4
    room = merit - constants.minimum

    def relative(x):
        """||R||^2, R = skew(G X^T) X."""
        g = problem.grad(x)
        return float(np.sum((g @ (x.T @ x) - x @ (g.T @ x)) ** 2)) / 4.0

    method = lo.landing(step=step, lam=lam, eps=EPS)
    trace = lo.minimize(
        problem, x0, method, stop=lo.MaxIterations(horizon - 1),
        record=lo.Every(1, metrics={"relative": relative}), on_failure="return",
    ).trace  # fmt: skip
    T = np.arange(1, len(trace["relative"]) + 1)
    measured = {
        "R": np.cumsum(trace["relative"]) / T,
        "N": np.cumsum(trace["distance"] ** 2 / 4.0) / T,
    }
    bounds = {"R": 4.0 * room / (step * T), "N": 2.0 * room / (step * nu * T)}
    shares = {key: float(np.max(measured[key] / bounds[key])) for key in bounds}
    report = lo.rates.certify(problem, method, x0, constants=constants, iterations=horizon // 8)
    marks = np.unique(np.geomspace(1, len(T), 40).astype(int)) - 1
    return {
        "T": T[marks],
        "measured": {key: values[marks] for key, values in measured.items()},
        "bound": {key: values[marks] for key, values in bounds.items()},
        "largest share": shares,
        "violations": sum(report.violations.values()),
        "iterates": report.iterates,
        "constants": {"step": step, "lam": lam, "mu": mu, "nu": nu, "L_0 - L*": room},
    }  # fmt: skip


def _stochastic(problem, name, horizon):
    report = lo.rates.check(problem, STOCHASTIC[name][0], horizon=horizon, rng=0)
    # Steps fixed in advance: runs of their own for every T. Else a mean up to every T of the same runs.
    fresh = report.law.fresh
    marks = (
        sorted({run.horizon for run in report.runs}) if fresh
        else 2 ** np.arange(4, int(np.log2(horizon)) + 1)
    )  # fmt: skip
    found = {"grad": [], "N": []}
    for T in marks:
        runs = [run for run in report.runs if not fresh or run.horizon == T]
        found["grad"].append(np.mean([_mean(run, run.gradient, T) for run in runs]))
        found["N"].append(np.mean([_mean(run, run.infeasibility, T) for run in runs]))
    slopes = {
        key: str(series.running)
        if series.running is not None
        else f"{_slope(marks, found[key]):+.2f} (rounding from iteration {series.rounding_after} on)"
        for key, series in zip(found, report.series)
    }
    return {
        "T": marks, **found, "verdict": str(report.verdict), "law": str(report.law),
        "slopes": slopes, "horizon": report.horizon,
    }  # fmt: skip


def _mean(run: Observed, values, T):
    return means(run, values, np.array([float(T)]))[0][0]


def _slope(T, values):
    """Over the last four marks."""
    return np.polyfit(np.log(T[-4:]), np.log(values[-4:]), 1)[0]


def draw(data):
    figure, axes = panels(2, 2, height=2.6)
    figure.set_size_inches(6.4, 5.6)
    for column, (key, name) in enumerate((("R", r"$\|R\|^2$"), ("N", r"$N = \|X^TX - I\|^2/4$"))):
        top, bottom = axes[:, column]
        for marker, (problem, found) in zip("os", data["descent"].items()):
            T = array(found["T"])
            for what, part in (("landing", "measured"), ("bound", "bound")):
                style = {"label": f"{what}, {problem}", "marker": marker, "markevery": 7}
                top.loglog(T, array(found[part][key]), **line(what) | style)
        label(top, "T", f"mean of {name}", "gradient descent, the theorem's step")
        series = "grad" if key == "R" else "N"
        for each, found in data["stochastic"].items():
            style = line(STOCHASTIC[each][1]) | {"label": each, "markevery": 1}
            if "decreasing" in each:
                style |= {"linestyle": (0, (3, 1.2)), "marker": "^"}
            if each == "SAGA":  # SVRG's curve lies on it
                style |= {"linewidth": 2.4, "markersize": 7.0}
            bottom.loglog(array(found["T"]), above(found[series], 1e-30), **style)
        _guides(bottom, data["stochastic"], series)
        what = r"$\|\mathrm{grad}\,f\|^2$" if series == "grad" else name
        label(bottom, "T", f"mean of {what}", "finite sum (ICA)")
    legend(figure, axes.flat, columns=4)
    return figure


def _guides(axis, stochastic, series):
    """The promised slopes: 1/sqrt T above the runs that it is promised of, 1/T below."""
    for each, factor, text in (
        ("SGD, step fixed for T", 2.0, r"$1/\sqrt{T}$"),
        ("SAGA", 0.4, "$1/T$"),
    ):
        slope = STOCHASTIC[each][2]
        T, last = array(stochastic[each]["T"])[-4:], array(stochastic[each][series])[-1]
        guide = factor * last * (T / T[-1]) ** slope
        axis.loglog(T, guide, color="black", linewidth=1.0)
        above_it = slope > -1.0
        axis.annotate(
            text, (T[1], guide[1]), xytext=(0, 3 if above_it else -3), textcoords="offset points",
            ha="left" if above_it else "right", va="bottom" if above_it else "top", fontsize=7.5,
        )  # fmt: skip
    low, high = axis.get_ylim()
    axis.set_ylim(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))
