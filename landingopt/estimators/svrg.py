"""SVRG: a full gradient now and then, and the change since."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.estimators import _sampled
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.samplers import Reshuffled, Sampler, count
from landingopt.sums import check_count, gradient_bytes

_LONGEST = 2.0  # passes between anchors, where their number is chosen on the way
_GOING_ON = 0.4  # how far the second half of a way leads on in the direction of the first


@dataclass(frozen=True)
class Svrg:
    """SVRG: the full gradient at an anchor, and the change since then on a minibatch.

    With Z the anchor and w the weight of the draw (1 for batches of equal size),

        estimate = w (G_b(X) - G_b(Z)) + G(Z).

    Now and then Z <- X, and the estimate there is the exact gradient. It is unbiased, and its variance
    vanishes at an optimum: a constant step converges.

    When the anchor moves decides what an epoch is worth: too late, and steps follow noise that grows
    with ||X - Z||; too early, and the work goes into full gradients. By default it is read off the way
    itself. With X_k the k-th point after Z, and k = 4, 8, 16, ..., the anchor moves when the second half
    of the way no longer leads on in the direction of the first,

        <X_2k - X_k, X_k - Z> < 0.4 ||X_k - Z||^2,

    or after two passes' worth of minibatches. (In a stack the products are summed over its matrices.)

    Parameters
    ----------
    batch_size : int, optional
        max(32, p) by default, and at most N / 32.
    sampler : sampler
        ``Reshuffled()`` by default.
    inner : float, optional
        A fixed number of passes from anchor to anchor: m = inner N / b minibatches.
    loopless : bool
        Move the anchor with probability 1/m at each step, with inner = 1 if not given.
    max_bytes : int
        Of a :class:`~landingopt.LinearModelSum` the phi_i' at the anchor are kept, N p numbers, where
        they take no more than this: a step is then one minibatch gradient, else two.

    Raises
    ------
    TypeError, ValueError
        A problem that is no sum, a ``batch_size`` beyond N, ``inner`` that is not positive.

    References
    ----------
    Johnson, Zhang, Accelerating stochastic gradient descent using predictive variance reduction,
    NeurIPS 2013; Kovalev, Horváth, Richtárik, Don't jump through hoops and remove those loops, ALT
    2020, for the loopless one; [AVGA24] section 5.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.estimators.Svrg(64, loopless=True).loopless
    True
    """

    batch_size: int | None = None
    sampler: Sampler = field(default_factory=Reshuffled)
    inner: float | None = None
    loopless: bool = False
    max_bytes: int = 2**27

    transforms = True
    stochastic = True

    def __post_init__(self) -> None:
        _sampled.check_recipe(self)
        real = isinstance(self.inner, numbers.Real) and not isinstance(self.inner, bool)
        if self.inner is not None and not (real and 0.0 < self.inner < math.inf):
            raise ValueError(f"inner must be a positive number of passes, got {self.inner!r}")
        if not isinstance(self.loopless, bool):
            raise TypeError(f"loopless must be True or False, got {self.loopless!r}")
        if self.max_bytes != 0:
            check_count("max_bytes", self.max_bytes)

    def start(self, oracle: Oracle, value: bool) -> SvrgRun:
        return SvrgRun(self, oracle)


class SvrgRun(_sampled.Sampled):
    """The anchor Z, G(Z), and the way since; ``_longest`` is m."""

    __slots__ = (
        "recipe", "oracle", "draws", "_longest", "_steps", "_halfway", "_anchor", "_user",
        "_full", "_estimate", "_linear", "_slopes", "_before", "_pair", "_way",
    )  # fmt: skip

    def __init__(self, recipe: Svrg, oracle: Oracle):
        self.recipe, self.oracle = recipe, oracle
        self.draws = _sampled.started(recipe, oracle)
        terms, size = _sampled.terms_of(recipe, oracle), _sampled.batch_size(recipe, oracle)
        inner = recipe.inner or (1.0 if recipe.loopless else _LONGEST)
        self._longest = max(1, round(inner * terms / size))
        self._steps = 0  # since the anchor
        self._way = 0  # between the last two
        self._halfway: list[Array] | None = None
        self._anchor: list[Array] = []
        self._user: Any = None  # the anchor in the user's form
        self._full: list[Array] = []
        self._estimate = [b.kernels.empty(b.inner_shape) for b in oracle.space.blocks]
        self._linear = hasattr(oracle.problem, "slopes")
        self._slopes: _sampled.Slopes | None = None
        if self._linear and gradient_bytes(oracle.space) // oracle.problem.shape[0] * terms <= (
            recipe.max_bytes
        ):
            self._slopes = _sampled.Slopes(oracle.problem)
        # The anchor before, and G there, until the pair is asked for.
        self._before: tuple[list[Array], list[Array]] | None = None
        self._pair: tuple[float, float, int] | None = None

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        self._steps += 1
        if not self._anchor or self._arrived(point):
            self._move_anchor(point)
            return
        terms, weight = self.draws.draw(), self.draws.weight
        change = self._linear_change(point, terms) if self._linear else self._change(point, terms)
        for i, block in enumerate(self.oracle.space.blocks):
            k, out = block.kernels, self._estimate[i]
            part = change[i] if weight == 1.0 else k.scale(change[i], weight, out=out)
            self._estimate[i] = k.add(part, self._full[i], out=out)
        point.estimate = list(self._estimate)

    # -- the anchor ---------------------------------------------------------------------------

    def _arrived(self, point: Point) -> bool:
        """Is the anchor to move to this point?"""
        recipe, k = self.recipe, self._steps
        if recipe.loopless:
            return self.oracle.rng.random() * self._longest < 1.0
        if k > self._longest:
            return True
        if recipe.inner is not None or k < 4 or k & (k - 1):
            return False
        space = self.oracle.space
        before, self._halfway = self._halfway, [_xp.copy(x) for x in point.x]
        if before is None:
            return False
        kernels = [block.kernels for block in space.blocks]
        first = [c.subtract(a, z) for c, a, z in zip(kernels, before, self._anchor, strict=True)]
        second = [c.subtract(x, a) for c, x, a in zip(kernels, point.x, before, strict=True)]
        length, along = space.dots((first, first), (first, second))
        return not np.sum(along) >= _GOING_ON * np.sum(length)

    def _move_anchor(self, point: Point) -> None:
        oracle, space = self.oracle, self.oracle.space
        if self._slopes is not None:
            oracle.charge(1, oracle.problem.n_terms)  # type: ignore[attr-defined]
            mean = self._slopes.full_pass(point.user)
            point.gradient = [space.blocks[0].inner(mean)]
        else:
            point.gradient = None  # one that was measured is not the method's own
            oracle.fill_gradient(point)
        assert point.gradient is not None
        self._before = (self._anchor, self._full) if self._anchor else None
        self._anchor = [_xp.copy(x) for x in point.x]
        self._user = space.readonly(space.to_user(self._anchor))
        self._full = [_xp.copy(g) for g in point.gradient]
        point.gradient = point.estimate = list(self._full)
        self._way, self._steps, self._halfway = self._steps, 0, None

    # -- the change since ---------------------------------------------------------------------

    def _change(self, point: Point, terms: Any) -> list[Array]:
        """G_b(X) - G_b(Z); the user may write the second where the first one was."""
        oracle = self.oracle
        blocks = oracle.space.blocks
        there = oracle.gradient_terms(self._user, terms)
        self._estimate = [
            b.kernels.copy_into(g, out) for b, g, out in zip(blocks, there, self._estimate)
        ]
        here = oracle.gradient_terms(point.user, terms)
        return [
            b.kernels.subtract(g, other, out=other)
            for b, g, other in zip(blocks, here, self._estimate, strict=True)
        ]

    def _linear_change(self, point: Point, terms: Any) -> list[Array]:
        """The same of linear models: the rows are read once, and one product fewer."""
        problem: Any = self.oracle.problem
        number = count(terms)
        rows = problem.rows(terms)
        if self._slopes is not None:
            self.oracle.charge(1, number)
            there = self._slopes[terms]
        else:
            self.oracle.charge(2, 2 * number)
            there = _xp.copy(problem.slopes(rows @ self._user, terms))
        change = problem.slopes(rows @ point.user, terms) - there
        product = _xp.H(rows) @ (change * (1.0 / number))
        return [self.oracle.space.blocks[0].inner(product)]

    # -- what step rules ask ------------------------------------------------------------------

    def anchor_pair(self) -> tuple[float, float, int] | None:
        """<s, s>, <s, y> and m, of the last two anchors; y the change of G - X sym(X^H G)."""
        if self._before is None:
            return self._pair
        space = self.oracle.space
        s, y = [], []
        old, now = self._before, (self._anchor, self._full)
        for i, block in enumerate(space.blocks):
            k = block.kernels
            s.append(k.subtract(now[0][i], old[0][i]))
            psi = [
                k.subtract(g[i], k.matmul(x[i], k.sym(k.cross(x[i], g[i]))))
                if block.stiefel
                else g[i]
                for x, g in (now, old)
            ]
            y.append(k.subtract(*psi))
        ss, sy = space.dots((s, s), (s, y))
        self._before = None
        self._pair = float(np.sum(ss)), float(np.sum(sy)), self._way
        return self._pair
