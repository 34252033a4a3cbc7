"""The landing field around SO(2), and where its two parts lead.

The matrices [[a, -b], [b, a]] are a plane that the landing never leaves where f is linear on it, and
SO(2) is the unit circle in it: the whole method in a picture. f is the height 2 b.
"""

import numpy as np
from scipy.optimize import root

import landingopt as lo
from landingopt.figures.data import array
from landingopt.figures.style import METHODS, label, legend, line, panels

TITLE = "The landing field around the circle SO(2)"
CAPTION = (
    "f is the height 2b on the plane of the matrices [[a, -b], [b, a]]; SO(2) is the circle. The "
    "talk says that the field is 0 only at critical points on the manifold; that needs full rank: "
    "it is 0 at the matrix 0 too, from where the normal part leads away. Trajectories that start "
    "exactly above the matrix 0 end at the maximum, a saddle of the field. Without the safe step, "
    "to show starts far away."
)

LAM = 1.0
LAMS = (0.25, 1.0, 4.0)
POINT = 1.35 * np.array([np.cos(2.2), np.sin(2.2)])  # of the decomposition
REACH = 1.65
SHADES = ("#7FBDE0", METHODS["landing"][0], "#00344F")


def matrix(z):
    """[[a, -b], [b, a]]."""
    return np.array([[z[0], -z[1]], [z[1], z[0]]])


G = matrix((0.0, 1.0))


def parts(X, G):
    """R and the gradient of N."""
    A = 0.5 * (G @ X.conj().T - X @ G.conj().T)
    return A @ X, X @ (X.conj().T @ X) - X


def field(z, lam=LAM):
    R, normal = parts(matrix(z), G)
    return (R + lam * normal)[:, 0]


def compute(quick):
    side = 9 if quick else 25
    grid = [np.array([a, b]) for a in _axis(side) for b in _axis(side) if np.hypot(a, b) <= REACH]
    cosine = _cosine(5 if quick else 200)
    zeros, worst = _zeros(grid)
    ends, leaves = _ends(grid, 400)
    saddle, _ = _ends([np.array([0.0, b]) for b in (0.3, 1.0, 1.5)], 400)
    steady = [z for z in zeros if np.hypot(*z) > 0.5]
    law = _against_library(grid)
    shown = [(0.25, 0.97), (-0.5, 1.45), (0.35, 0.15), (-0.45, -0.1), (1.55, 0.3)]
    paths = [_path(lo.landing, z, 60)[0] for z in shown]
    retraction = _path(_riemannian, (-0.25, np.sqrt(1.0 - 0.0625)), 60)[0]
    spread = [
        _path(lambda step, lam=lam: _landing(step, lam), z, 300, 0.05)[0]
        for lam in LAMS
        for z in ((-1.0, 1.2), (0.1, 0.25))
    ]
    R, normal = (part[:, 0] for part in parts(matrix(POINT), G))
    claims = [
        (
            "the tangent and the normal part are orthogonal at every matrix, on the manifold or off it: "
            f"largest |cos| {cosine:.0e}",
            cosine < 1e-13,
        ),
        (
            f"the zeros of full rank are the two critical points on the circle (to {worst:.0e}); the "
            f"field is 0 at the matrix 0 too ({len(zeros)} zeros in all)",
            len(zeros) == 3 and len(steady) == 2 and worst < 1e-10,
        ),
        (
            f"all {len(ends)} trajectories from on and off the circle end at the minimum, to "
            f"{max(ends):.0e}",
            max(ends) < 1e-9,
        ),
        (
            "but for those that start exactly above the matrix 0, which end at the maximum "
            f"(|z - max| {max(abs(2.0 - e) for e in saddle):.0e})",
            max(abs(2.0 - e) for e in saddle) < 1e-9,
        ),
        (f"they never leave the plane: by {leaves:.0e}", leaves < 1e-14),
        (f"the library's steps are the formula's, to {law:.0e}", law < 1e-14),
    ]
    return {
        "settings": {"lam": LAM, "lams": LAMS, "step": 0.15, "grid": side, "cosine's rng": 0},
        "paths": paths,
        "retraction": retraction,
        "spread": spread,
        "point": POINT,
        "R": R,
        "normal": normal,
        "numbers": {"largest cosine": cosine, "zeros": zeros, "starts": len(ends)},
        "claims": claims,
    }


def _axis(side):
    return np.linspace(-REACH, REACH, side + 1 - side % 2) + 0.011  # not exactly above 0


def _cosine(repeats):
    """Of R and grad N, at random matrices, square and tall, real and complex, far from the manifold."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(repeats):
        for n, p in ((2, 2), (5, 5), (12, 4)):
            for imaginary in (0.0, 1j):
                X, gradient = (
                    rng.standard_normal((n, p)) + imaginary * rng.standard_normal((n, p))
                    for _ in range(2)
                )
                R, normal = parts(X, gradient)
                product = abs(np.vdot(R, normal).real)
                worst = max(worst, product / (np.linalg.norm(R) * np.linalg.norm(normal)))
    return worst


def _zeros(grid):
    """All zeros that Newton's method finds, and the distance of the nonzero ones to (0, +-1)."""
    found = []
    for start in grid:
        solution = root(field, start, tol=1e-14)
        if np.linalg.norm(field(solution.x)) < 1e-12 and all(
            np.linalg.norm(solution.x - z) > 1e-6 for z in found
        ):
            found.append(solution.x)
    distances = [min(np.hypot(z[0], z[1] - 1.0), np.hypot(z[0], z[1] + 1.0)) for z in found]
    return found, max(d for d, z in zip(distances, found) if np.hypot(*z) > 0.5)


def _landing(step, lam=LAM):
    """The landing without its safe step."""
    search = lo.searches.OpenLoop(lo.steps.Constant(step))
    return lo.Method(search, lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(lam)))


def _riemannian(step):
    return lo.riemannian(lo.retractions.Polar(), step=step)


def _path(make, z, steps, step=0.15):
    """The iterates as points of the plane, and how far the last is from the plane."""
    problem = lo.Objective(lambda x: float(np.sum(G * x)), lambda x: G, shape=(2, 2))
    method = _landing(step) if make is lo.landing else make(step)
    seen = []
    stop, record = lo.MaxIterations(steps), lo.Every(1)
    x0 = matrix(z)

    def look(row):
        seen.append(row.x[:, 0].copy())

    x = lo.minimize(problem, x0, method, stop=stop, record=record, callback=look).x
    return np.array(seen), max(abs(x[0, 0] - x[1, 1]), abs(x[0, 1] + x[1, 0]))


def _ends(grid, steps):
    """Distances from the minimum (0, -1) at the end, and from the plane."""
    runs = [_path(lo.landing, z, steps) for z in grid]
    return [float(np.hypot(path[-1, 0], path[-1, 1] + 1.0)) for path, _ in runs], max(
        off for _, off in runs
    )


def _against_library(grid):
    worst = 0.0
    for z in grid[::7]:
        path, _ = _path(lo.landing, z, 1)
        worst = max(worst, np.abs(path[1] - (z - 0.15 * field(z))).max())
    return worst


def draw(data):
    figure, axes = panels(1, 3, height=3.5)
    turn = np.linspace(0.0, 2.0 * np.pi, 200)
    for axis in axes[0]:
        axis.plot(np.cos(turn), np.sin(turn), color="#000000", linewidth=1.2, label="SO(2)")
        axis.set_aspect("equal")
        axis.set(xlim=(-REACH - 0.05, REACH + 0.05), ylim=(-REACH - 0.05, REACH + 0.05))
        axis.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        axis.grid(False)
    _draw_field(axes[0, 0], data)
    _draw_parts(axes[0, 1], data)
    _draw_lams(axes[0, 2], data)
    titles = (
        r"the field $-\Lambda$ and its trajectories",
        r"$\Lambda = R + \lambda\,\nabla N$, $R \perp \nabla N$",
        r"trajectories for three $\lambda$",
    )
    for axis, title in zip(axes[0], titles):
        label(axis, "a", "b", title)
    legend(figure, axes[0], columns=5)
    return figure


def _draw_field(axis, data):
    side = np.linspace(-1.55, 1.55, 11)
    a, b = np.meshgrid(side, side)
    arrows = -np.array([field(z) for z in zip(a.ravel(), b.ravel())]).T
    length = np.hypot(*arrows)
    # Lengths are damped: far from the circle the normal part is cubic.
    arrows = arrows * np.minimum(1.0, 1.0 / np.maximum(length, 1e-12)) ** 0.6
    for height in np.linspace(-1.5, 1.5, 7):
        axis.axhline(height, color="#EDEDED", linewidth=0.8, zorder=0)
    axis.quiver(
        a.ravel(), b.ravel(), *arrows, color="#9A9A9A", angles="xy", scale_units="xy", scale=5.2,
        width=0.0042, headwidth=3.6, zorder=1,
    )  # fmt: skip
    style = line("landing") | {"markersize": 3.0, "markevery": 1}
    for path in map(array, data["paths"]):
        axis.plot(*path.T, **style)
        axis.plot(*path[0], "o", color=style["color"], markersize=6, markerfacecolor="white")
    path = array(data["retraction"])
    axis.plot(*path.T, **line("projection") | {"markersize": 3.2, "markevery": 1})
    axis.plot(0, -1, "*", color="#000000", markersize=9, zorder=5, label="minimum")
    axis.plot(0, 1, "o", color="#000000", markersize=5, zorder=5, markerfacecolor="white")
    axis.plot(0, 0, "o", color="#000000", markersize=5, zorder=5, markerfacecolor="white")
    axis.annotate("max", (0, 1), (0.0, 1.13), fontsize=7.5, ha="center")
    axis.annotate("0", (0, 0), (-0.02, 0.13), fontsize=7.5, ha="center")


def _arrow(axis, start, way, colour, width=1.5):
    axis.annotate(
        "", start + way, start,
        arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": width,
                    "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9},
    )  # fmt: skip


def _draw_parts(axis, data):
    z, R, normal = (array(data[name]) for name in ("point", "R", "normal"))
    turn, radius = np.linspace(0.0, 2.0 * np.pi, 200), np.hypot(*z)
    axis.plot(
        radius * np.cos(turn), radius * np.sin(turn), color="#9A9A9A", linewidth=0.8,
        linestyle=(0, (4, 2)), label="level set of N",
    )  # fmt: skip
    axis.set(xlim=(-1.65, -0.05), ylim=(-0.1, 1.5), xticks=(-1.5, -1, -0.5), yticks=(0, 0.5, 1))
    scale = 0.6
    for lam, shade in zip((0.25, 0.5, 1.0), SHADES):
        along, whole = z - scale * lam * normal, z - scale * (R + lam * normal)
        axis.plot(
            *np.array([z - scale * R, whole, along]).T,
            color="#BBBBBB",
            linewidth=0.7,
            linestyle=":",
        )
        _arrow(axis, z, along - z, "#7F7F7F")
        _arrow(axis, z, whole - z, shade)
        axis.annotate(
            rf"$-\Lambda,\ \lambda = {lam:g}$", whole, whole - np.array([0.0, 0.03]), fontsize=7.5,
            color=shade, ha="right", va="top", zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    _arrow(axis, z, -scale * R, METHODS["QR"][0], 1.8)
    tip = z - scale * R
    axis.annotate(
        "$-R$", tip, tip + np.array([-0.02, 0.05]), fontsize=8, color=METHODS["QR"][0], ha="right"
    )
    axis.annotate(
        r"$-\lambda\,\nabla N$",
        along,
        along + np.array([0.04, -0.01]),
        fontsize=8,
        color="#5A5A5A",
        va="top",
    )
    axis.plot(*z, "o", color="#000000", markersize=4)
    axis.annotate("X", z, z + np.array([0.03, 0.03]), fontsize=8)


def _draw_lams(axis, data):
    lams = data["settings"]["lams"]
    for i, path in enumerate(map(array, data["spread"])):
        lam, shade = lams[i // 2], SHADES[i // 2]
        name = rf"$\lambda = {lam:g}$" if i % 2 == 0 else None
        axis.plot(*path.T, color=shade, linewidth=1.5, label=name)
        axis.plot(*path[0], "o", color="#000000", markersize=4)
    axis.plot(0, -1, "*", color="#000000", markersize=9, zorder=5)
