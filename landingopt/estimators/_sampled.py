"""What the estimators of finite sums share."""

from __future__ import annotations

from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.oracle import Oracle
from landingopt.samplers import SamplerRun, WithReplacement, check_sampler
from landingopt.space import Space
from landingopt.sums import check_count, default_batch

_BATCHES, _ITERATIONS = 8, 3


def check_recipe(recipe: Any) -> None:
    """``batch_size`` and ``sampler`` of a recipe."""
    if recipe.batch_size is not None:
        object.__setattr__(recipe, "batch_size", check_count("batch_size", recipe.batch_size))
    check_sampler(recipe.sampler)


def terms_of(recipe: Any, oracle: Oracle) -> int:
    """N, or the error that there is no sum."""
    if oracle.grad_terms is None or oracle.n_terms is None:
        problem = oracle.problem
        if hasattr(problem, "grad_batch"):
            raise TypeError(
                f"{type(recipe).__name__} needs terms that it can see again, and a stream's arrive "
                "once; use lo.landing_sgd(), or collect the rows and state a lo.FiniteSum"
            )
        raise TypeError(
            f"{type(recipe).__name__} needs a finite sum, and {type(problem).__name__} has no "
            "grad_terms; state it as lo.FiniteSum(fun, grad, n_terms=..., shape=...) or "
            "lo.LinearModelSum(phi, dphi, data), or use a method of the full gradient, lo.landing()"
        )
    return oracle.n_terms


def batch_size(recipe: Any, oracle: Oracle) -> int:
    """The recipe's, or max(32, p); never more than there are terms."""
    n_terms = terms_of(recipe, oracle)
    if recipe.batch_size is None:
        return default_batch(n_terms, max(block.p for block in oracle.space.blocks))
    if recipe.batch_size > n_terms:
        raise ValueError(
            f"batch_size = {recipe.batch_size} is more than the {n_terms} terms of the sum; give at "
            f"most {n_terms}, or use the full gradient: lo.landing()"
        )
    return recipe.batch_size


def started(recipe: Any, oracle: Oracle, blocks: bool = False) -> SamplerRun:
    """The recipe's sampler."""
    size = batch_size(recipe, oracle)
    return recipe.sampler.start(oracle.n_terms, size, oracle.rng, blocks)


class Sampled:
    """What a run on some terms of a sum tells step rules."""

    __slots__ = ()

    recipe: Any
    oracle: Oracle

    def epoch(self) -> float:
        return self.oracle.epoch()

    def curvature(self, x: list[Array]) -> float:
        return curvature(self.recipe, self.oracle, x)


class Slopes:
    """phi_i' of every term of linear models at one x (or each at its own): the structured table.

    ``rows`` numbers of p; in the user's orientation.
    """

    def __init__(self, problem: Any):
        self.problem = problem
        self.table: Array = None

    def full_pass(self, user: Array) -> Array:
        """Fill the table at a user's x; the mean gradient there."""
        problem, xp = self.problem, _xp.namespace(user)
        mean: Array = None
        for start in range(0, problem.n_terms, problem.chunk_terms):
            terms = slice(start, min(start + problem.chunk_terms, problem.n_terms))
            rows = problem.rows(terms)
            slopes = problem.slopes(rows @ user, terms)
            if self.table is None:
                place = {} if isinstance(user, np.ndarray) else {"device": _xp.device_of(user)}
                shape = (problem.n_terms, slopes.shape[1])
                self.table = xp.empty(shape, dtype=slopes.dtype, **place)
            self.write(terms, slopes)
            piece = _xp.H(rows) @ slopes
            mean = piece if mean is None else mean + piece
        return mean * (1.0 / problem.n_terms)

    def __getitem__(self, terms: Any) -> Array:
        return self.table[terms, ...] if isinstance(terms, slice) else _xp.take(self.table, terms)

    def write(self, terms: Any, values: Array) -> None:
        if not isinstance(terms, slice) and not isinstance(self.table, np.ndarray):
            xp = _xp.namespace(self.table)
            terms = xp.asarray(terms, device=_xp.device_of(self.table))
        self.table[terms, ...] = values


def curvature(recipe: Any, oracle: Oracle, x: list[Array]) -> float:
    """L_b: the largest curvature of f over a few minibatches at x, by power iterations.

    For each of 8 minibatches (fewer of a short sum), three steps V <- H V / ||V||, with H V a difference
    of the minibatch's gradients: 4 gradients for each, which are counted.
    """
    size, n_terms = batch_size(recipe, oracle), terms_of(recipe, oracle)
    batches = max(1, min(_BATCHES, n_terms // (4 * size)))
    if batches == 1:  # in the chunks of a full pass
        return largest_curvature(
            oracle.space, x, oracle.rng, lambda y: oracle.checked(oracle.gradient(y))
        )
    sampler = WithReplacement(getattr(recipe.sampler, "contiguous", False))
    draws = sampler.start(n_terms, size, oracle.rng)
    parts = [draws.draw() for _ in range(batches)]
    return max(
        largest_curvature(
            oracle.space, x, oracle.rng, lambda y, t=terms: oracle.gradient_terms(y, t)
        )
        for terms in parts
    )


def largest_curvature(space: Space, x: list[Array], rng: Any, gradient: Any) -> float:
    """The largest |eigenvalue| of the Hessian that ``gradient`` (of the user's x) has at x, about."""
    total = 0.0
    blocks = space.blocks
    here = [_xp.copy(g) for g in gradient(space.readonly(space.to_user(x)))]
    step = space.unit_roundoff**0.5 * space.size_p**0.5
    v = [block.kernels.random(block.inner_shape, rng) for block in blocks]
    v = _unit(blocks, v)
    for _ in range(_ITERATIONS):
        moved = [b.kernels.add(a, b.kernels.scale(u, step)) for b, a, u in zip(blocks, x, v)]
        there = gradient(space.readonly(space.to_user(moved)))
        v = [
            b.kernels.scale(b.kernels.subtract(g, h), 1.0 / step)
            for b, g, h in zip(blocks, there, here)
        ]
        total = _length(blocks, v)
        if not 0.0 < total < float("inf"):
            break
        v = _unit(blocks, v)
    # A linear f has no curvature of its own; on the manifold it has that of X^H G.
    sizes = [_length([b], [g]) / b.p**0.5 for b, g in zip(blocks, here) if b.stiefel]
    floor = max(sizes, default=0.0)
    largest = total if total > 1e-3 * floor else floor
    return largest if 0.0 < largest < float("inf") else 1.0


def _length(blocks: list[Any], arrays: list[Array]) -> float:
    """||V||, of a stack the largest."""
    return float(max(np.max(b.kernels.host(b.kernels.norm(a))[0]) for b, a in zip(blocks, arrays)))


def _unit(blocks: list[Any], arrays: list[Array]) -> list[Array]:
    """Each matrix of length 1: a stack of problems is measured problem by problem."""
    result = []
    for block, a in zip(blocks, arrays, strict=True):
        kernels = block.kernels
        s, norm = kernels.scalars, kernels.norm(a)
        result.append(kernels.scale(a, s.divide(1.0, s.where(norm > 0, norm, s.full(1.0)))))
    return result
