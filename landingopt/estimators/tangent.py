"""The tangent part of an estimate, for transforms that remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.estimators._common import Around, check_base, is_stochastic
from landingopt.estimators.full import Full
from landingopt.oracle import Oracle
from landingopt.point import Point


@dataclass(frozen=True)
class Tangent:
    """G - X sym(X^H G) in place of G, on orthogonal blocks.

    The tangent term of a field is the same for both on the manifold, so alone it changes nothing there.
    Inside a transform that remembers it does: a part of an old gradient that was normal at its own X is
    tangent in part at a later one, and drives the iterates apart where that part is large (Procrustes);
    and ``Adam`` scales by the norm of what is followed, not of all of G.

    Parameters
    ----------
    base : estimator
        What gives G.

    Notes
    -----
    Cost: two products n p^2 and one array for each block.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(20, rng=0)
    >>> base = lo.estimators.Momentum(0.8, base=lo.estimators.Tangent())
    >>> lo.minimize(problem, method=lo.landing(step=0.002, base=base), rng=0, tol=1e-4).success
    True
    """

    base: Any = field(default_factory=Full)

    transforms = True

    @property
    def stochastic(self) -> bool:
        return is_stochastic(self.base)

    def __post_init__(self) -> None:
        check_base(self.base)

    def start(self, oracle: Oracle, value: bool) -> TangentRun:
        return TangentRun(self, oracle, value)


class TangentRun(Around):
    __slots__ = ("base", "blocks", "_small", "_estimate")

    def __init__(self, recipe: Tangent, oracle: Oracle, value: bool):
        self.base = recipe.base.start(oracle, value)
        self.blocks = oracle.space.blocks
        self._small: list[Any] = []
        self._estimate: list[Array] = []
        for block in self.blocks:
            empty, shape = block.kernels.empty, (*block.batch, block.p, block.p)
            self._small.append((empty(shape), empty(shape)) if block.stiefel else None)
            self._estimate.append(empty(block.inner_shape))

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        self.base.fill(point)
        if point.status is not None:  # the stream has ended
            return
        followed = point.followed
        with np.errstate(all="ignore"):  # what is not finite becomes a status, not a warning
            for i, (block, x, gradient) in enumerate(zip(self.blocks, point.x, followed)):
                kernels, out = block.kernels, self._estimate[i]
                self._estimate[i] = (
                    kernels.project(x, gradient, *self._small[i], out)
                    if block.stiefel
                    else kernels.copy_into(gradient, out)
                )
        point.estimate = list(self._estimate)
