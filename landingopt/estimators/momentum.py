"""Momentum around any estimator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.estimators._common import Around, check_base, check_decay, is_stochastic
from landingopt.estimators.full import Full
from landingopt.oracle import Oracle
from landingopt.point import Point


@dataclass(frozen=True)
class Momentum:
    """Momentum on the Euclidean gradient: the field is built of a running sum in place of G.

    With G what ``base`` gives and m = 0 before the first step,

        m <- beta m + G,    estimate = m             (heavy ball)
                            estimate = G + beta m    (nesterov=True, in PyTorch's form).

    The sum is of ambient gradients and nothing is transported: the tangent term at X projects it, as
    it projects G. In the long run a step eta moves like a step eta / (1 - beta) without momentum.
    Nesterov's form is that of ``torch.optim.SGD`` (no dampening): the gradient is taken at X itself.

    Old gradients keep their normal part, and what was normal there is tangent in part here. With the
    landing's R and the heavy ball an optimum is stable only for eta phi < (1 - beta)^2 / beta, phi the
    largest mean of two eigenvalues of sym(X^H G) there (Nesterov's form bears a little more), and where
    they are negative, as in PCA, for eta |phi| < (1 - beta^2) / beta. ``base=Tangent()`` sums tangent
    parts: there is no such limit.

    Parameters
    ----------
    beta : float in [0, 1)
        What is kept of the past; 0 is no momentum.
    nesterov : bool
    base : estimator
        What gives G: ``Full()``, ``Tangent()``, or another transform.

    Raises
    ------
    TypeError, ValueError
        A beta outside [0, 1), a base that is no estimator.

    Notes
    -----
    Cost: no product; two passes over n x p numbers (four with ``nesterov``), and one array for each
    block (two). On a device nothing is read back. What is measured stays the gradient of f.

    References
    ----------
    Polyak, Some methods of speeding up the convergence of iteration methods, USSR Comput. Math. Math.
    Phys. 4, 1964; Sutskever, Martens, Dahl, Hinton, On the importance of initialization and momentum
    in deep learning, ICML 2013.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.PCA.random(30, 3, rng=0)
    >>> plain, heavy = lo.landing(step=0.1), lo.landing(step=0.1, base=lo.estimators.Momentum(0.9))
    >>> lo.minimize(problem, method=heavy, rng=0).nit < lo.minimize(problem, method=plain, rng=0).nit
    True
    """

    beta: float = 0.9
    nesterov: bool = False
    base: Any = field(default_factory=Full)

    transforms = True

    @property
    def stochastic(self) -> bool:
        return is_stochastic(self.base)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", check_decay("beta", self.beta))
        check_base(self.base)

    def start(self, oracle: Oracle, value: bool) -> MomentumRun:
        return MomentumRun(self, oracle, value)


class MomentumRun(Around):
    __slots__ = ("base", "beta", "nesterov", "kernels", "_momentum", "_ahead", "_started")

    def __init__(self, recipe: Momentum, oracle: Oracle, value: bool):
        self.base = recipe.base.start(oracle, value)
        self.beta, self.nesterov = recipe.beta, recipe.nesterov
        blocks = oracle.space.blocks
        self.kernels = [block.kernels for block in blocks]
        self._momentum: list[Array] = [b.kernels.empty(b.inner_shape) for b in blocks]
        self._ahead: list[Array] = [
            b.kernels.empty(b.inner_shape) if self.nesterov else None for b in blocks
        ]
        self._started = False

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        self.base.fill(point)
        if point.status is not None:  # the stream has ended
            return
        with np.errstate(all="ignore"):  # what is not finite becomes a status, not a warning
            for i, (kernels, gradient) in enumerate(zip(self.kernels, point.followed, strict=True)):
                self._momentum[i] = self._sum(kernels, self._momentum[i], gradient)
                if self.nesterov:
                    ahead = kernels.scale(self._momentum[i], self.beta, out=self._ahead[i])
                    self._ahead[i] = kernels.add(ahead, gradient, out=ahead)
        self._started = True
        point.estimate = list(self._ahead if self.nesterov else self._momentum)

    def _sum(self, kernels: Any, m: Array, gradient: Array) -> Array:
        """m <- beta m + G; m is ours, G is not."""
        if not self._started:
            return kernels.copy_into(gradient, m)
        m = kernels.scale(m, self.beta, out=m)
        return kernels.add(m, gradient, out=m)
