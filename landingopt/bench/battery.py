"""The problems that the solvers are measured on."""

from __future__ import annotations

import fnmatch
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt import problems, stiefel
from landingopt._xp import Array


class Unavailable(Exception):
    """The problem cannot be made here; the message says why, and the remedy."""


@dataclass(frozen=True)
class Family:
    """One line of the table: instances that differ by their seed.

    Attributes
    ----------
    name : str
    make : callable
        seed -> problem. Raises :class:`Unavailable`.
    quick : bool
        Part of ``--quick``.
    seeds : int
        How many instances by default: the large problems take minutes each.
    """

    name: str
    make: Callable[[int], Any]
    quick: bool = False
    seeds: int = 3

    def start(self, problem: Any, seed: int) -> Array:
        """The start that all methods share: uniform on the manifold, independent of the data.

        Orthonormal as closely as can be: our bridge to pymanopt would correct another one, and
        conjugate gradients from starts that differ by rounding part ways within some hundred steps.
        """
        n, p = problem.shape
        x = stiefel.random(n, p, rng=np.random.default_rng([seed, 1]))
        return min(x, stiefel.polar(x, method="newton-schulz"), key=stiefel.distance)


def _procrustes(p: int, weight: float = 1.0) -> Callable[[int], Any]:
    return lambda seed: problems.Procrustes.random(p, rng=seed, weight=weight)


def _joint_diagonalization(n: int) -> Callable[[int], Any]:
    return lambda seed: problems.JointDiagonalization.random(n, count=10, noise=0.1, rng=seed)


def _ica(p: int) -> Callable[[int], Any]:
    """Log-cosh ICA on scikit-learn's digits; the data is the same for every seed, the start not."""

    def make(seed: int) -> Any:
        if importlib.util.find_spec("sklearn") is None:
            raise Unavailable('the digits need scikit-learn: pip install "landingopt[examples]"')
        return problems.ICA.digits(p=p)

    return make


BATTERY = (
    Family("procrustes-10", _procrustes(10), quick=True),
    Family("procrustes-40", _procrustes(40), quick=True),
    Family("procrustes-100", _procrustes(100)),
    Family("procrustes-200", _procrustes(200), seeds=2),
    Family("procrustes-40-times-1e4", _procrustes(40, 1e4)),
    Family("procrustes-40-times-1e-4", _procrustes(40, 1e-4)),
    Family(
        "unbalanced-60x20",
        lambda seed: problems.UnbalancedProcrustes.random(60, 20, rng=seed),
        quick=True,
    ),
    Family("pca-500x5", lambda seed: problems.PCA.random(500, 5, rng=seed), quick=True),
    Family("pca-500x50", lambda seed: problems.PCA.random(500, 50, rng=seed)),
    Family("pca-500x200", lambda seed: problems.PCA.random(500, 200, rng=seed), seeds=2),
    Family("brockett-200x20", lambda seed: problems.Brockett.random(200, 20, rng=seed)),
    Family("jointdiag-20", _joint_diagonalization(20)),
    Family("jointdiag-50", _joint_diagonalization(50)),
    Family("ica-digits-40", _ica(40)),
)


def chosen(patterns: list[str] | None, quick: bool = False) -> list[Family]:
    """The families whose name matches one of the patterns, in the order of the battery.

    Raises
    ------
    ValueError
        A pattern that matches none.

    Examples
    --------
    >>> [family.name for family in chosen(["pca-500x5*"])]
    ['pca-500x5', 'pca-500x50']
    """
    if patterns is None:
        return [family for family in BATTERY if family.quick or not quick]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(family.name, pattern) for family in BATTERY):
            names = ", ".join(family.name for family in BATTERY)
            raise ValueError(f"no problem matches {pattern!r}; there are {names}")
    return [f for f in BATTERY if any(fnmatch.fnmatch(f.name, p) for p in patterns)]
