"""The performance profile of the solver benchmark, on its quick battery: ``landingopt bench
solvers``.

How many runs a method has solved within tau times the time of the fastest method of the run.
"""

from dataclasses import asdict

from landingopt.bench.battery import chosen
from landingopt.bench.profile import draw_profile
from landingopt.bench.runs import ITERATIONS_PYMANOPT
from landingopt.bench.solvers import METHODS, Settings, one_blas_thread, run_battery
from landingopt.bench.summary import performance_profile
from landingopt.figures.data import array
from landingopt.figures.style import label, legend, panels

TITLE = "Performance profile of the solvers"
NAMES = {
    "procrustes-10": "Procrustes p = 10",
    "procrustes-40": "Procrustes p = 40",
    "unbalanced-60x20": "unbalanced Procrustes 60 x 20",
    "pca-500x5": "PCA 500 x 5",
}


def caption(data):
    settings = data["settings"]
    families, seeds, tols = settings["families"], settings["seeds"], settings["tols"]
    starts = f"{seeds} starts each" if seeds > 1 else "one start each"
    norms = " and ".join(f"{tol:g}" for tol in tols)
    goals = f"gradient norms of {norms}" if len(tols) > 1 else f"a gradient norm of {norms}"
    left_out = "" if "pymanopt-sd" in settings["methods"] else " (its steepest descent is left out)"
    return (
        f"{len(families)} problems ({', '.join(NAMES.get(name, name) for name in families)}), "
        f"{starts}, {goals} of the first, measured at the closest feasible point by the benchmark, "
        f"whatever a solver says. A run has at most {settings['timeout']:g} s, and pymanopt's solvers "
        f"{settings['iterations of pymanopt']} iterations{left_out}. pymanopt as it comes: cost and "
        "gradient are two calls of the user's functions, and its line searches compare values of f, "
        "whose rounding hides what 1e-10 needs. The problems are small, so that a library's own "
        "overhead counts."
    )


def compute(quick):
    settings = Settings(
        families=chosen(["procrustes-10", "unbalanced-60x20"] if quick else None, quick=True),
        methods=[name for name in METHODS if not (quick and name == "pymanopt-sd")],
        seeds=1 if quick else 3,
        repeats=1 if quick else 3,
        tols=(1e-6,) if quick else (1e-6, 1e-10),
        timeout=1.0 if quick else 4.0,
    )
    with one_blas_thread():
        records = run_battery(settings)
    profiles = {tol: performance_profile(records, tol) for tol in settings.tols}
    claims, shares = [], {}
    for tol, profile in profiles.items():
        mine = [r for r in records if r.ours and r.tol == tol]
        solved = sum(r.solved for r in mine)
        theirs = [r for r in records if not r.ours and r.tol == tol]
        claims.append(
            (
                f"to {tol:g} our methods solve {solved} of {len(mine)} runs (pymanopt's "
                f"{sum(r.solved for r in theirs)} of {len(theirs)})",
                solved == len(mine),
            )
        )
        if not quick:
            first = {name: sum(f == 1.0) for name, f in profile.factors.items()}
            shares[tol] = {name: int(count) for name, count in first.items()}
            ours = sum(count for name, count in shares[tol].items() if name.startswith("landing"))
            claims.append(
                (f"to {tol:g} one of ours is the fastest on {ours} of {profile.runs} runs",
                 ours == profile.runs)
            )  # fmt: skip
    return {
        "settings": {
            "families": [family.name for family in settings.families], "methods": settings.methods,
            "seeds": settings.seeds, "repeats": settings.repeats, "timeout": settings.timeout,
            "tols": settings.tols, "iterations of pymanopt": ITERATIONS_PYMANOPT,
        },
        "profiles": [
            {"tol": tol, "runs": profile.runs, "factors": profile.factors}
            for tol, profile in profiles.items()
        ],
        "records": [asdict(record) for record in records],
        "numbers": {"fastest": shares},
        "claims": claims,
    }  # fmt: skip


def draw(data):
    profiles = data["profiles"]
    figure, axes = panels(1, len(profiles), height=3.0)
    longest = max(max(f) for each in profiles for f in each["factors"].values() if f)
    for axis, profile in zip(axes[0], profiles):
        factors = {name: array(values) for name, values in profile["factors"].items()}
        draw_profile(axis, factors, profile["runs"], list(factors), longest)
        title = f"gradient norm to {profile['tol']:g}, {profile['runs']} runs"
        label(axis, r"$\tau$: time over the fastest method's", "fraction of runs solved", title)
    legend(figure, axes[0], columns=2 * len(profiles))
    return figure
