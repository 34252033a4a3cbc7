"""Broken problems and broken methods: what the rate checker must find.

Each breaks one thing and leaves the rest as it is, so that beside every control stands the intact
problem or method. They are the negative controls of :mod:`landingopt.rates.calibrate` and of the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from landingopt import estimators, fields, searches, steps
from landingopt.estimators.saga import SagaRun
from landingopt.estimators.svrg import SvrgRun
from landingopt.methods import Method, landing
from landingopt.objectives import Objective
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.samplers import BlockDraws, Partition, SamplerRun, TermDraws, WithReplacement
from landingopt.stiefel import random as random_point
from landingopt.sums import FiniteSum

# -- wrong gradients ------------------------------------------------------------------------------


def with_gradient(problem: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The problem with ``change(G)`` for its gradient G, that of a finite sum over any terms; f stays.

    Of NumPy matrices, or a stack of them.
    """
    common = dict(shape=problem.shape, constraint=problem.constraint, like=problem.like)
    if hasattr(problem, "n_terms"):
        return FiniteSum(
            problem.fun_terms,
            lambda x, terms: change(problem.grad_terms(x, terms)),
            n_terms=problem.n_terms,
            **common,
        )
    return Objective(problem.fun, lambda x: change(problem.grad(x)), **common)


def flipped_sign(problem: Any, part: Literal["entry", "row", "column"] = "entry") -> Any:
    """The problem with one sign flipped in its gradient: that of an entry, of a row, of a column.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.rates import controls
    >>> problem = lo.problems.Procrustes.random(4, rng=0)
    >>> report = lo.rates.check(controls.flipped_sign(problem), lo.landing(step=0.02), rng=0)
    >>> print(report.verdict)
    REJECTED
    """
    signs = np.ones(problem.shape[-2:])
    which: Any = {"entry": np.s_[0, 0], "row": np.s_[0, :], "column": np.s_[:, 0]}[part]
    signs[which] = -1.0
    return with_gradient(problem, lambda g: g * signs.astype(g.dtype))


def scaled_column(problem: Any, factor: float = 1.05) -> Any:
    """The problem with the first column of its gradient scaled."""
    scales = np.ones(problem.shape[-1])
    scales[0] = factor
    return with_gradient(problem, lambda g: g * scales.astype(g.dtype))


def offset(problem: Any, share: float = 0.1, rng: Any = 0) -> Any:
    """The problem with a fixed matrix added to its gradient, of norm ``share`` ||G|| at a random x."""
    rng = np.random.default_rng(rng)
    *stack, n, p = problem.shape
    x = random_point(n, p, stack=tuple(stack), rng=rng, like=problem.like)
    size = np.linalg.norm(problem.grad(x), axis=(-2, -1), keepdims=True)
    e = rng.standard_normal(problem.shape)
    e *= share * size / np.linalg.norm(e, axis=(-2, -1), keepdims=True)
    return with_gradient(problem, lambda g: g + e.astype(g.dtype))


# -- estimates that are biased, or whose variance does not vanish -----------------------------------


@dataclass(frozen=True)
class FrozenSaga(estimators.Saga):
    """SAGA whose table is never updated: unbiased, but its variance does not vanish. A plateau."""

    structured: bool | None = False

    def start(self, oracle: Oracle, value: bool) -> Any:
        return _FrozenSagaRun(self, oracle)


class _FrozenSagaRun(SagaRun):
    def fill(self, point: Point) -> None:
        if point.estimate is not None or not self._table:
            super().fill(point)
            return
        kernels = [block.kernels for block in self.oracle.space.blocks]
        terms = self.draws.draw()
        gradient = self.oracle.gradient_terms(point.user, terms)
        entry = self._table[self.draws.block]
        point.estimate = [
            k.add(k.scale(k.subtract(g, t), self.draws.weight), mean)
            for k, g, t, mean in zip(kernels, gradient, entry, self._mean, strict=True)
        ]


@dataclass(frozen=True)
class StaleSvrg(estimators.Svrg):
    """SVRG with the full gradient of the anchor before: G_b(X) - G_b(Z) + G(Z of before)."""

    def start(self, oracle: Oracle, value: bool) -> SvrgRun:
        return _StaleSvrgRun(self, oracle)


class _StaleSvrgRun(SvrgRun):
    _right: Any = None

    def _move_anchor(self, point: Point) -> None:
        before = self._right
        super()._move_anchor(point)
        self._right = self._full
        if before is not None:
            self._full = before


@dataclass(frozen=True)
class Omitting:
    """Independent draws that never draw the last terms: an off-by-one in a range, or an unread file.

    Parameters
    ----------
    share : float
        Of the terms that are never drawn; at least one.
    """

    share: float = 0.1

    contiguous = False

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun:
        if blocks:
            raise TypeError("Omitting draws terms one by one: use it with lo.estimators.MiniBatch")
        drawn = n_terms - max(1, round(self.share * n_terms))
        return TermDraws(WithReplacement._terms(drawn, batch_size, rng))


@dataclass(frozen=True)
class Unweighted:
    """Consecutive blocks, equally often, whose mean gradients count alike though the last is smaller.

    Biased where ``batch_size`` does not divide the number of terms.
    """

    contiguous = True

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun:
        partition = Partition(n_terms, batch_size)

        def order() -> Any:
            while True:
                yield int(rng.integers(partition.count)), 1.0

        return BlockDraws(partition, order())


# -- methods that break the conditions of their theorem -----------------------------------------------


def unattracted(step: Any) -> Method:
    """The landing with lam = 0: nothing brings the iterates back to the manifold."""
    return landing(step=step, lam=0.0)


def unguarded(step: Any, lam: float = 1.0) -> Method:
    """The landing without its safe step, for steps beyond the longest stable one."""
    rule = step if hasattr(step, "start") else steps.Constant(step)
    return Method(
        search=searches.OpenLoop(rule),
        field=fields.Field(fields.Canonical(), fields.Penalty(lam)),
        name="landing without the safe step",
    )


@dataclass(frozen=True)
class Shrinking(steps.Horizon):
    """eta = step / T for a run of T iterations: the way is the same, however long the run."""

    def size(self, k: int, point: Point) -> float:
        return self.step / self.iterations
