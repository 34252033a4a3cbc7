"""The penalty method: orthogonality as a second term of f."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.estimators import Full
from landingopt.estimators._common import is_stochastic
from landingopt.observe.observer import Observer
from landingopt.optimizers import (
    LBFGS,
    Adam,
    GradientDescent,
    checked_parts,
    drive,
    shown,
)
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Space
from landingopt.status import Status
from landingopt.sums import check_count

__all__ = ["LBFGS", "Adam", "GradientDescent", "Penalty", "penalty"]


def penalty(
    lam: float,
    optimizer: GradientDescent | Adam | LBFGS | None = None,
    *,
    path: Sequence[float] = (),
    stage: int = 100,
    estimator: Any = None,
) -> Penalty:
    r"""The penalty method: minimise f(X) + lam ||X^H X - I||_F^2 over all matrices.

    Its gradient is G + 4 lam X Delta, Delta = X^H X - I: this lam is a quarter of that of a field
    G + lam X Delta such as the landing's. The minimiser is off the manifold: with Phi = sym(X^H G)

        X^H G = -4 lam X^H X Delta,     so that  ||Delta||_F is about ||Phi||_F / (4 lam),

    and G - X Phi = 4 lam X Delta^2, the gradient norm of the trace, settles at about
    ||Phi^2||_F / (4 lam). A large lam is close to the manifold, and badly conditioned: the curvature
    across it is 8 lam.

    The run starts at x0 itself and ends by the library's stop rule; the default one asks for a distance
    that no penalty has, so that it ends at its limit, or, with LBFGS, where no lower value is found
    (``Status.EXTERNAL``). ``result.x`` is the penalty's, ``feasible_x`` and ``feasible_fun`` are of its
    polar factor. A start on the manifold where grad f is 0 is not the penalty's minimiser, and not where
    the run ends. Iterates may cross to the other component. A distance beyond 10, of a lam that is too
    small for f, ends the run as LEFT_TUBE.

    Parameters
    ----------
    lam : float
        The weight.
    optimizer : LBFGS, GradientDescent or Adam, optional
        ``LBFGS()``, SciPy's L-BFGS-B, by default.
    path : sequence of float, optional
        Increasing weights before ``lam``, each from where the last one has led.
    stage : int
        Steps with each weight of ``path``; fewer where L-BFGS-B finds nothing lower. It starts anew with
        each weight; momentum and Adam keep what they remember.
    estimator : estimator, optional
        Where GradientDescent and Adam have f's gradient from: ``lo.estimators.Full()`` by default;
        ``MiniBatch``, ``Saga``, ``Svrg`` on a finite sum, the same as every other method's.

    Returns
    -------
    Penalty

    Raises
    ------
    TypeError, ValueError
        A weight that is not positive, a path that does not increase to lam, a part of the wrong kind, an
        estimator with LBFGS. In a run: LBFGS and a problem without fun.

    Notes
    -----
    Cost of a step beyond f's gradient: two products n p^2, one of them a Gram matrix.

    References
    ----------
    [Talk]; Nocedal, Wright, Numerical Optimization, 2006, section 17.1.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.baselines.penalty import penalty
    >>> problem = lo.problems.PCA.random(20, 3, rng=0)
    >>> for lam in (1.0, 100.0):
    ...     result = lo.minimize(problem, method=penalty(lam), rng=0)
    ...     print(result.status.name, f"{result.distance:.0e}")
    EXTERNAL 4e-01
    EXTERNAL 4e-03
    """
    optimizer, estimator = checked_parts(optimizer, estimator, "a penalty")
    if not isinstance(path, Iterable) or isinstance(path, str):
        raise TypeError(f"path must be a list of weights before lam, such as [1, 10], got {path!r}")
    return Penalty(lam, optimizer, estimator, tuple(path), stage)


@dataclass(frozen=True)
class Penalty:
    """The penalty method; made by :func:`penalty`."""

    lam: float
    optimizer: Any = field(default_factory=LBFGS)
    estimator: Any = field(default_factory=Full)
    path: tuple[float, ...] = ()
    stage: int = 100

    def __post_init__(self) -> None:
        weights = (*self.path, self.lam)
        for name, weight in zip(["every weight of path"] * len(self.path) + ["lam"], weights):
            real = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
            if not (real and 0.0 < weight < math.inf):
                raise ValueError(f"{name} must be a positive number, got {weight!r}")
        if any(b <= a for a, b in itertools.pairwise(weights)):
            raise ValueError(
                f"path must increase to lam, got path={self.path} and lam={self.lam!r}; give the "
                "weights before lam in rising order, or drop path"
            )
        check_count("stage", self.stage)

    @property
    def name(self) -> str:
        first = f"{self.path[0]:g}..." if self.path else ""
        return f"penalty({first}{self.lam:g}, {shown(self.optimizer, self.estimator)})"

    @property
    def stochastic(self) -> bool:
        """Does it see some terms of a finite sum at a time?"""
        return is_stochastic(self.estimator)

    def drive(self, oracle: Oracle, x0: list[Array], observer: Observer) -> Point:
        """Run from ``x0``; the last point."""
        chart = _Penalised(self, oracle.space)
        observer.returns = False
        point = drive(self.optimizer, self.estimator, chart, oracle, x0, observer)
        if observer.note:
            observer.note += (
                " A penalty's minimiser is off the manifold; the larger lam, the closer."
            )
        elif np.any(np.asarray(observer.status) == int(Status.LEFT_TUBE)):
            observer.note = f" Or lam = {self.lam:g} is too small a penalty for this f."
        return point


class _Penalised:
    """x is its own coordinates; the penalty is added to value and gradient."""

    def __init__(self, method: Penalty, space: Space):
        self.space, self.stage = space, method.stage
        self._weights = [*method.path, method.lam]
        self._since = 0

    def start(self, x0: list[Array]) -> None:
        self.place(x0)

    def place(self, coordinates: list[Array]) -> None:
        self.x = self.coordinates = coordinates
        self._deltas: list[Array] | None = None

    @property
    def deltas(self) -> list[Array]:
        """X^H X - I; None for blocks without constraint."""
        if self._deltas is None:
            blocks = zip(self.space.blocks, self.x, strict=True)
            self._deltas = [b.delta(x) if b.stiefel else None for b, x in blocks]
        return self._deltas

    def pull(self, gradient: list[Array]) -> list[Array]:
        pulled, weight = [], 4.0 * self._weights[0]
        for block, x, delta, g in zip(
            self.space.blocks, self.x, self.deltas, gradient, strict=True
        ):
            k = block.kernels
            if delta is None:
                pulled.append(_xp.copy(g))  # the user's memory
                continue
            normal = k.matmul(x, k.scale(delta, weight))
            pulled.append(k.add(normal, g, out=normal))
        return pulled

    def value(self, fun: Any) -> float:
        total = float(np.sum(fun))
        for block, delta in zip(self.space.blocks, self.deltas, strict=True):
            if delta is not None:
                distance = block.kernels.host(block.kernels.norm(delta))[0]
                total += self._weights[0] * float(np.sum(np.square(distance)))
        return total

    def curvature(self, curvature: float) -> float:
        return curvature + 8.0 * self._weights[0]

    def turn(self, iteration: int, ended: bool = False) -> bool:
        due = len(self._weights) > 1 and (ended or iteration - self._since >= self.stage)
        if due:
            self._since = iteration
            self._weights.pop(0)
        return due
