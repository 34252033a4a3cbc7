"""The large problems: what is minimised, from where, and how far an X is from the optimum."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt import problems, stiefel
from landingopt._xp import Array
from landingopt.bench.step import Shape, parsed

SOLVES = (
    "procrustes-100",
    "procrustes-200",
    "procrustes-500",
    "pca-1000x10",
    "pca-500x200",
    "pca-10000x40",
    "procrustes-200x100x100",
)
FIXED = (
    "procrustes-100",
    "procrustes-500",
    "procrustes-1000",
    "pca-10000x40",
    "procrustes-200x100x100",
)
QUICK_SOLVES = ("procrustes-100", "pca-1000x10", "procrustes-20x40x40")
QUICK_FIXED = ("procrustes-100", "procrustes-50x100x100")
AUTHORS = "procrustes-200x100x100"  # the example of the landing's authors

# Relative gradient norms to reach where the common one would take minutes.
TOL = 1e-6
TOLS = {"procrustes-500": 1e-3, "procrustes-1000": 1e-2, "pca-10000x40": 1e-4, AUTHORS: 1e-2}

# From so many rows of X on K is not formed: the gradient takes two products with the data.
DATA_ROWS, SAMPLES = 4000, 500


@dataclass(frozen=True, eq=False)
class Large:
    """One problem and one start.

    Attributes
    ----------
    name : str
    problem : problem
    x0 : array
        Orthonormal to rounding.
    best : float
        The least value that can be reached from x0: on its component; summed over a stack.
    curvature : float
        The norm of the Hessian, the largest one of a stack.
    work : int
        Multiplications of a gradient, and n p^2.
    """

    name: str
    problem: Any
    x0: Array
    best: float
    curvature: float
    work: int

    @property
    def shape(self) -> Shape:
        return self.x0.shape

    def fun(self, x: Array) -> float:
        """f, summed over a stack."""
        return float(np.sum(self.problem.fun(x)))

    def gap(self, x: Array) -> float:
        """(f - f*) / (f_0 - f*) at the closest feasible point."""
        if not np.isfinite(x).all():
            return math.inf
        return (self.fun(stiefel.polar(x)) - self.best) / (self.fun(self.x0) - self.best)

    def relative(self, x: Array) -> float:
        """The gradient norm, of the whole stack, at the closest feasible point over that at x0."""
        if not np.isfinite(x).all():
            return math.inf
        return self._norm(stiefel.polar(x)) / self.first_norm

    @property
    def first_norm(self) -> float:
        """Of the Riemannian gradient at the start."""
        return self._norm(self.x0)

    def _norm(self, x: Array) -> float:
        g = np.array(self.problem.grad(x))
        c = np.swapaxes(x, -1, -2) @ g
        return float(np.linalg.norm(g - x @ (0.5 * (c + np.swapaxes(c, -1, -2)))))

    @property
    def step(self) -> float:
        """The constant step 1 / L of the Euclidean gradient."""
        return 1.0 / self.curvature


def distance(x: Array) -> float:
    """||X^T X - I||_F, the largest one of a stack."""
    return float(np.max(stiefel.distance(x)))


def make(name: str) -> Large:
    """The problem of this name, the same each time.

    Raises
    ------
    ValueError
        A name that is not of the form "procrustes-100", "procrustes-200x100x100" or "pca-500x20".

    Examples
    --------
    >>> found = make("procrustes-3x5x5")
    >>> found.shape, found.best > 0.0, round(found.gap(found.x0), 12)
    ((3, 5, 5), True, 1.0)
    """
    kind, shape = _parts(name)
    rng = np.random.default_rng(shape)
    x0 = stiefel.polar(rng.standard_normal(shape))
    x0 = stiefel.polar(x0, method="newton-schulz")  # to the last digit: nothing is corrected later
    problem, best, curvature, gradient = (_procrustes if kind == "procrustes" else _pca)(
        shape, x0, rng
    )
    return Large(name, problem, x0, best, curvature, gradient + math.prod(shape) * shape[-1])


def _procrustes(shape: Shape, x0: Array, rng: Any) -> tuple[Any, float, float, int]:
    problem = problems.Procrustes.random(shape[-1], stack=shape[:-2], rng=rng)
    signs = np.linalg.slogdet(x0)[0].astype(int)  # X stays in its component
    found = problem.optimum(component=signs if shape[:-2] else int(signs))
    assert found is not None
    norms = np.linalg.norm(problem.A, ord=2, axis=(-2, -1))
    curvature = 2.0 * float(np.max(norms)) ** 2
    return problem, float(np.sum(found[1])), curvature, 2 * math.prod(shape) * shape[-1]


def _pca(shape: Shape, x0: Array, rng: Any) -> tuple[Any, float, float, int]:
    n, p = shape
    if n < DATA_ROWS:
        problem = problems.PCA.random(n, p, rng=rng)
        values = np.linalg.eigvalsh(problem.like)[::-1]
        return problem, -0.5 * float(values[:p].sum()), float(values[0]), n * n * p
    samples = max(SAMPLES, p + 1)
    values = np.geomspace(1.0, 1e-3, samples)
    left, right = (np.linalg.qr(rng.standard_normal((m, samples)))[0] for m in (samples, n))
    problem = problems.PCA((left * np.sqrt(samples * values)) @ right.T, p)
    return problem, -0.5 * float(values[:p].sum()), 1.0, 2 * samples * n * p


def _parts(name: str) -> tuple[str, Shape]:
    kind, _, size = name.partition("-")
    try:
        shape = parsed(f"{size}x{size}" if "x" not in size else size)
    except ValueError:
        shape = ()
    square = len(shape) > 1 and shape[-1] == shape[-2]
    if kind == "procrustes" and square:
        return kind, shape
    if kind == "pca" and len(shape) == 2 and not square:
        return kind, shape
    raise ValueError(
        f"{name!r} is no large problem: write procrustes-100, procrustes-200x100x100 for a stack, or "
        "pca-500x20"
    )


def chosen(patterns: list[str]) -> list[str]:
    """The names as they are, and those that a pattern with * or ? matches.

    Raises
    ------
    ValueError
        A pattern that matches none, or what is no name.

    Examples
    --------
    >>> chosen(["procrustes-?00", "pca-30x4"])
    ['procrustes-100', 'procrustes-200', 'procrustes-500', 'pca-30x4']
    """
    found: list[str] = []
    known = list(dict.fromkeys((*SOLVES, *FIXED)))
    for pattern in patterns:
        if "*" not in pattern and "?" not in pattern:
            _parts(pattern)
            found.append(pattern)
            continue
        matching = fnmatch.filter(SOLVES, pattern) or fnmatch.filter(FIXED, pattern)
        if not matching:
            raise ValueError(f"no problem matches {pattern!r}; there are {', '.join(known)}")
        found += matching
    return list(dict.fromkeys(found))
