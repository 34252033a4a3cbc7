"""SAGA: a table of gradients, each as it was when last seen."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.estimators import _sampled
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.samplers import Partition, Sampler, WithReplacement, count
from landingopt.sums import check_count, gradient_bytes

_LOG = logging.getLogger("landingopt")


@dataclass(frozen=True)
class Saga:
    """SAGA: a minibatch gradient, corrected by what it was when last seen.

    The full table keeps the gradient t_b of each block of terms. Block b is drawn, and with w its
    weight (1, or B n_b / N where unequal blocks are drawn equally often)

        estimate = w (G_b(X) - t_b) + sum_c (n_c / N) t_c,        then  t_b <- G_b(X).

    With independent draws it is unbiased, and its variance vanishes at an optimum: a constant step
    converges.

    Of a :class:`~landingopt.LinearModelSum`, with gradients a_i phi_i'^T, the structured table keeps the
    phi_i' alone: N p numbers in place of n p for each block, and terms are drawn one by one. The first
    estimate is the exact gradient, which fills the table: one pass.

    Parameters
    ----------
    batch_size : int, optional
        max(32, p) by default, and at most N / 32.
    sampler : sampler
        ``WithReplacement()`` by default: SAGA wants independent draws, and is slower with
        ``Reshuffled()``. The full table cuts the terms into blocks once (picked at
        random; consecutive ones with ``contiguous=True``) and draws whole blocks.
    structured : bool, optional
        Which table; by default the structured one where the problem allows it.
    max_bytes : int
        A table beyond this is refused before it is allocated. :meth:`table_bytes` tells its size, and so
        does the logger "landingopt" (INFO) when a run starts.

    Raises
    ------
    TypeError, ValueError
        A problem that is no sum, or not of linear models where ``structured``; a ``batch_size`` beyond
        N; a table that does not fit.

    References
    ----------
    Defazio, Bach, Lacoste-Julien, SAGA, NeurIPS 2014; [AVGA24] section 5.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(10, 5000, rng=0)
    >>> lo.estimators.Saga(50).table_bytes(problem)
    400000
    >>> lo.estimators.Saga(50, structured=False).table_bytes(problem)
    80000
    """

    batch_size: int | None = None
    sampler: Sampler = field(default_factory=WithReplacement)
    structured: bool | None = None
    max_bytes: int = 2**31

    transforms = True
    stochastic = True

    def __post_init__(self) -> None:
        _sampled.check_recipe(self)
        if self.structured not in (None, True, False):
            raise TypeError(f"structured must be True, False or None, got {self.structured!r}")
        check_count("max_bytes", self.max_bytes)

    def table_bytes(self, problem: Any, x0: Any = None) -> int:
        """Bytes of the table for a problem (with the dtype of ``x0``, or of the problem's data)."""
        from landingopt import _inputs
        from landingopt.space import Space

        x = _inputs.start(problem, x0, np.random.default_rng(0))
        return self._bytes(Oracle(problem, Space(problem.shape, problem.constraint, x)))

    def _is_structured(self, oracle: Oracle) -> bool:
        can = hasattr(oracle.problem, "slopes")
        if self.structured and not can:
            raise TypeError(
                "the structured table needs a lo.LinearModelSum, f_i(X) = phi_i(X^T a_i); "
                f"{type(oracle.problem).__name__} is none: pass structured=False"
            )
        return can if self.structured is None else self.structured

    def _bytes(self, oracle: Oracle) -> int:
        size, n_terms = _sampled.batch_size(self, oracle), _sampled.terms_of(self, oracle)
        whole = gradient_bytes(oracle.space)
        if self._is_structured(oracle):
            n, _ = oracle.problem.shape
            return whole // n * n_terms
        return whole * Partition(n_terms, size).count

    def start(self, oracle: Oracle, value: bool) -> Any:
        needed = self._bytes(oracle)
        structured = self._is_structured(oracle)
        kind = "structured" if structured else "full"
        if needed > self.max_bytes:
            raise ValueError(
                f"SAGA's {kind} table would take {shown(needed)}, "
                f"more than max_bytes = {shown(self.max_bytes)}. Use lo.landing_svrg(), which keeps one "
                "gradient"
                + (
                    ""
                    if structured
                    else "; a larger batch_size, for fewer blocks; or state the problem as a "
                    "lo.LinearModelSum, whose table has N p numbers"
                )
                + "; or raise lo.estimators.Saga(max_bytes=...)"
            )
        _LOG.info("SAGA allocates its %s table: %s", kind, shown(needed))
        return (StructuredSagaRun if structured else SagaRun)(self, oracle)


def shown(size: int) -> str:
    """Bytes for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


class SagaRun(_sampled.Sampled):
    """The full table: a gradient for each block of terms."""

    __slots__ = ("recipe", "oracle", "draws", "_table", "_mean", "_estimate", "_change")

    def __init__(self, recipe: Saga, oracle: Oracle):
        self.recipe, self.oracle = recipe, oracle
        self.draws: Any = _sampled.started(recipe, oracle, blocks=True)
        blocks = oracle.space.blocks
        self._table: list[list[Array]] = []
        self._mean: list[Array] = []
        self._estimate = [b.kernels.empty(b.inner_shape) for b in blocks]
        self._change = [b.kernels.empty(b.inner_shape) for b in blocks]

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        if not self._table:
            self._first_pass(point)
            return
        draws, oracle = self.draws, self.oracle
        terms = draws.draw()
        entry, weight = self._table[draws.block], draws.weight
        share = draws.partition.share(draws.block)
        gradient = oracle.gradient_terms(point.user, terms)
        for i, (block, g) in enumerate(zip(oracle.space.blocks, gradient, strict=True)):
            k = block.kernels
            change = k.subtract(g, entry[i], out=self._change[i])
            entry[i] = k.copy_into(g, entry[i])
            estimate = k.scale(change, weight, out=self._estimate[i])
            self._estimate[i] = k.add(estimate, self._mean[i], out=estimate)
            change = k.scale(change, share, out=change)
            self._mean[i] = k.add(self._mean[i], change, out=self._mean[i])
            self._change[i] = change
        point.estimate = list(self._estimate)

    def _first_pass(self, point: Point) -> None:
        """The table at the start, and with it the exact gradient."""
        oracle, partition = self.oracle, self.draws.partition
        user, blocks = point.user, oracle.space.blocks
        for b in range(partition.count):
            gradient = oracle.gradient_terms(user, partition.terms(b))
            self._table.append([_xp.copy(g) for g in gradient])
            parts = [
                block.kernels.scale(g, partition.share(b))
                for block, g in zip(blocks, self._table[-1], strict=True)
            ]
            self._mean = (
                [block.kernels.add(m, g) for block, m, g in zip(blocks, self._mean, parts)]
                if self._mean
                else parts
            )
        point.gradient = [_xp.copy(m) for m in self._mean]
        point.estimate = list(point.gradient)


class StructuredSagaRun(_sampled.Sampled):
    """The table of slopes of linear models, in the user's orientation."""

    __slots__ = ("recipe", "oracle", "draws", "_slopes", "_mean")

    def __init__(self, recipe: Saga, oracle: Oracle):
        self.recipe, self.oracle = recipe, oracle
        self.draws = _sampled.started(recipe, oracle)
        self._slopes = _sampled.Slopes(oracle.problem)
        self._mean: Array = None

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        problem: Any = self.oracle.problem
        block = self.oracle.space.blocks[0]
        if self._mean is None:
            self.oracle.charge(1, problem.n_terms)
            self._mean = self._slopes.full_pass(point.user)
            point.gradient = point.estimate = [block.inner(_xp.copy(self._mean))]
            return
        terms = self.draws.draw()
        number = count(terms)
        rows = problem.rows(terms)
        self.oracle.charge(1, number)
        slopes = problem.slopes(rows @ point.user, terms)
        change = slopes - self._slopes[terms]
        product = _xp.H(rows) @ change
        estimate = self._mean + product * (self.draws.weight / number)
        fresh = _fresh(terms)
        if fresh is not None:  # a term drawn twice changes its entry once
            product = _xp.H(_xp.take(rows, fresh)) @ _xp.take(change, fresh)
        self._mean = self._mean + product * (1.0 / problem.n_terms)
        self._slopes.write(terms, slopes)
        point.estimate = [block.inner(estimate)]


def _fresh(terms: Any) -> np.ndarray | None:
    """Where each term of a draw is named first; None where none comes twice."""
    if isinstance(terms, slice):
        return None
    first = np.unique(terms, return_index=True)[1]
    return None if len(first) == len(terms) else first
