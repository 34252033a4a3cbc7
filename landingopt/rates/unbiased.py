r"""Is an estimate unbiased? Exactly: over every outcome of its draws, without statistics.

On three or four terms of the sum the random number generator is replaced by one that takes every outcome
in turn. The history before is drawn at random; from then on all outcomes are weighed by their
probabilities, and the mean of the estimates must be the gradient over these terms, to rounding, at every
point of a way. A sampler that forgets a weight, an anchor whose gradient is stale, terms that are never
drawn: all show as a difference.

Independent draws are unbiased whatever has been drawn before. Those without replacement are unbiased in
the mean over whole orders, so where a mean is not right given the history, a shorter history is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from landingopt import _xp, stiefel
from landingopt._xp import Array
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.samplers import Terms
from landingopt.space import Space
from landingopt.sums import LinearModelSum

_POINTS = (0, 1, 2, 3, 5, 8, 11)  # of the way, at which the mean is formed
_WIDEST = 4000  # outcomes


@dataclass(frozen=True)
class Unbiasedness:
    """What was found; true where no bias was.

    Attributes
    ----------
    bias : float
        The largest ||E[estimate] - gradient|| over the way, relative to the largest gradient of a term.
    outcomes : int
        Outcomes that were weighed.
    message : str
    """

    bias: float
    outcomes: int
    message: str
    holds: bool | None

    def __bool__(self) -> bool:
        return self.holds is not False


class _Unknown(Exception):
    """The draws are not of a kind that can be enumerated."""


class Choices:
    """In place of a numpy Generator: each outcome in turn, equally likely where it is asked for.

    Up to ``len(path)`` the outcomes are given, afterwards they are drawn, and noted.
    """

    def __init__(self, path: list[int], coins: Any, rng: np.random.Generator | None = None):
        self.path, self.sizes, self._rng = list(path), [], rng  # type: ignore[var-annotated]
        self._coins = iter(coins)
        self.tossed = 0

    def _choose(self, size: int) -> int:
        at = len(self.sizes)
        if at == len(self.path):
            self.path.append(0 if self._rng is None else int(self._rng.integers(size)))
        self.sizes.append(int(size))
        return self.path[at]

    def integers(
        self, low: int, high: int | None = None, size: Any = None, endpoint: bool = False, **_: Any
    ) -> Any:
        low, high = (0, low) if high is None else (low, high)
        high += endpoint
        if size is None:
            return low + self._choose(high - low)
        draws = [low + self._choose(high - low) for _ in range(math.prod(np.atleast_1d(size)))]
        return np.array(draws).reshape(size)

    def permutation(self, x: Any) -> np.ndarray:
        left = list(range(x)) if isinstance(x, (int, np.integer)) else list(x)
        return np.array([left.pop(self._choose(len(left))) for _ in range(len(left))])

    def shuffle(self, x: Any) -> None:
        x[:] = np.asarray(x)[self.permutation(len(x))]

    def choice(
        self, a: Any, size: Any = None, replace: bool = True, p: Any = None, **_: Any
    ) -> Any:
        if p is not None:
            raise _Unknown("choice(p=...)")
        pool = np.arange(a) if isinstance(a, (int, np.integer)) else np.asarray(a)
        if size is None:
            return pool[self._choose(len(pool))]
        if replace:
            return pool[self.integers(len(pool), size=size)]
        left = list(range(len(pool)))
        return pool[[left.pop(self._choose(len(left))) for _ in range(int(size))]]

    def random(self, size: Any = None, **_: Any) -> Any:
        """A coin: taken as given, since what follows must be unbiased whatever it shows."""
        if size is not None:
            raise _Unknown("random(size=...)")
        self.tossed += 1
        return next(self._coins)

    def __getattr__(self, name: str) -> Any:
        raise _Unknown(f"{name}()")


def _subtree(prefix: list[int], coins: Any, run: Any) -> Iterator[tuple[float, np.ndarray]]:
    """Every outcome after the prefix, with its probability given the prefix."""
    path = list(prefix)
    for count in range(_WIDEST + 1):
        if count == _WIDEST:
            raise _Unknown(f"more than {_WIDEST} outcomes")
        rng = Choices(path, coins)
        estimate = run(rng)
        taken, sizes = rng.path[: len(rng.sizes)], rng.sizes
        yield 1.0 / math.prod(map(float, sizes[len(prefix) :])), estimate
        while len(taken) > len(prefix) and taken[-1] == sizes[len(taken) - 1] - 1:
            taken.pop()
        if len(taken) <= len(prefix):
            return
        taken[-1] += 1
        path = taken


def check_unbiased(problem: Any, method: Any, *, rng: Any = 0) -> Unbiasedness:
    """Is the method's estimate of the gradient unbiased?

    Parameters
    ----------
    problem : finite sum
        Of at least two terms.
    method : method with a stochastic estimator
        Momentum and Adam are looked through: it is what they build on that must be unbiased.
    rng : seed
        Of the points, the terms and the history.

    Returns
    -------
    Unbiasedness
        ``holds`` is None where the draws cannot be enumerated (a sampler that asks its generator for
        more than integers, permutations and choices).

    Notes
    -----
    Coins (a loopless estimator's) are tossed once and then taken as given.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.ICA.random(3, 100, rng=0)
    >>> bool(lo.rates.check_unbiased(problem, lo.landing_saga(batch_size=7)))
    True
    """
    estimator = method.estimator
    while hasattr(estimator, "base"):
        estimator = estimator.base
    generator = np.random.default_rng(rng)
    try:
        few, size = _few_terms(problem, estimator, generator)
        small = (
            replace(estimator, batch_size=size) if hasattr(estimator, "batch_size") else estimator
        )
        return _compare(few, small, generator)
    except _Unknown as reason:
        return Unbiasedness(
            math.nan,
            0,
            f"the draws cannot be enumerated: the generator was asked for {reason}",
            None,
        )


def _few_terms(problem: Any, estimator: Any, rng: np.random.Generator) -> tuple[Any, int | None]:
    """The sum over four or five of the terms, and a batch size that divides them as it did before."""
    N = problem.n_terms
    size = getattr(estimator, "batch_size", None) or 2
    few = min(N, 3 if N % size else 4)
    terms = np.sort(rng.choice(N, few, replace=False))
    small = size if few == N else 1 if size == 1 else 2
    return _Restricted(problem, terms), min(small, few)


class _Restricted:
    """The mean over some terms of a sum, as a sum; of linear models as linear models."""

    hessp = value_and_gradient = fun = None

    def __init__(self, problem: Any, terms: np.ndarray):
        self.problem, self._terms = problem, terms
        self.n_terms = len(terms)
        self.shape, self.constraint = problem.shape, problem.constraint
        self.like = getattr(problem, "like", None)
        if isinstance(problem, LinearModelSum) or hasattr(problem, "slopes"):
            self.chunk_terms = self.n_terms
            self.rows = lambda t: problem.rows(self._of(t))
            self.slopes = lambda u, t: problem.slopes(u, self._of(t))

    def _of(self, terms: Terms) -> np.ndarray:
        return self._terms[terms]

    def grad_terms(self, x: Any, terms: Terms) -> Any:
        return self.problem.grad_terms(x, self._of(terms))

    def grad(self, x: Any) -> Any:
        return self.problem.grad_terms(x, self._terms)


def _compare(problem: Any, estimator: Any, rng: np.random.Generator) -> Unbiasedness:
    from landingopt import _inputs

    start = _inputs.start(problem, None, rng)
    space = Space(problem.shape, problem.constraint, start)
    way = _way(space, start, rng)
    exact = [_flat(_gradient(problem, space, x)) for x in way]
    scale = max(
        float(np.linalg.norm(_flat(_gradient(problem, space, x, np.array([i])))))
        for x in way[:3]
        for i in range(problem.n_terms)
    )

    def run(choices: Any, last: int, marks: list[int] | None = None) -> np.ndarray:
        """The estimate at the last point; where each fill's requests begin."""
        oracle = Oracle(problem, space, choices)
        started = estimator.start(oracle, False)
        for x in way[: last + 1]:
            point = Point(space, [])
            point.place([_xp.copy(a) for a in x])
            if marks is not None:
                marks.append(len(choices.sizes))
            started.fill(point)
        return _flat(point.followed)

    limit = 1e4 * space.unit_roundoff
    worst, outcomes, where = 0.0, 0, 0
    for last in (k for k in _POINTS if k < len(way)):
        marks: list[int] = []
        coins = rng.choice([0.999, 0.0], 1000, p=[0.7, 0.3]).tolist()
        history = Choices([], coins, rng)
        run(history, last, marks)
        bias = math.inf
        for tried, given in enumerate(_histories(marks, history)):
            try:
                tree = list(_subtree(history.path[:given], coins, lambda c: run(c, last)))  # noqa: B023
            except _Unknown:
                if tried >= 2:  # an order, and the one before, of which a batch may have the rest
                    break
                raise
            mean = sum(probability * np.asarray(estimate) for probability, estimate in tree)
            outcomes += len(tree)
            bias = min(bias, float(np.linalg.norm(mean - exact[last])) / (scale or 1.0))
            if bias <= limit:
                break
        if not bias <= worst:
            worst, where = bias, last
        if worst > limit:
            break
    if worst > limit and history.tossed > len(marks):
        raise _Unknown("random() more than once a step, which may be more than a coin")
    holds = worst <= limit
    over = f"over {outcomes} outcomes of the draws, on {problem.n_terms} terms"
    message = (
        f"unbiased {over} (to {worst:.0e})"
        if holds
        else f"biased: the mean estimate {over} differs from the gradient by {worst:.1e} of the "
        f"gradient of a term, at iteration {where}"
    )
    return Unbiasedness(worst, outcomes, message, holds)


def _histories(marks: list[int], history: Choices) -> list[int]:
    """How many outcomes to take as given: all but those of the last fill that drew, then fewer."""
    begins = {m for m in marks if m < len(history.sizes)}
    return sorted(begins | {0}, reverse=True)


def _way(space: Space, start: Any, rng: np.random.Generator) -> list[list[Array]]:
    """Points near the manifold, each a little further than the last."""
    x = [_xp.copy(a) for a in space.to_blocks(start)]
    way = [x]
    for _ in range(max(_POINTS)):
        x = [
            b.kernels.add(a, b.kernels.scale(b.kernels.random(b.inner_shape, rng), 0.05))
            for b, a in zip(space.blocks, x, strict=True)
        ]
        x = [stiefel.polar(a) if b.stiefel else a for b, a in zip(space.blocks, x, strict=True)]
        way.append(x)
    return way


def _gradient(problem: Any, space: Space, x: list[Array], terms: Any = None) -> list[Array]:
    user = space.readonly(space.to_user(x))
    g = problem.grad(user) if terms is None else problem.grad_terms(user, terms)
    return [_xp.copy(a) for a in Oracle(problem, space).checked(g)]


def _flat(blocks: Any) -> np.ndarray:
    hosts = [np.ravel(_xp.to_host(a)) for a in blocks]
    wide = np.complex128 if any(h.dtype.kind == "c" for h in hosts) else np.float64
    return np.concatenate([h.astype(wide) for h in hosts])


# -- by statistics --------------------------------------------------------------------------------

_DRAWS = 2000
_SURE = 40.0  # of a chi-squared variable of one degree of freedom: beyond, by chance 2.5e-10


def check_samples(problem: Any, method: Any, x: Any, *, rng: Any = 0) -> tuple[bool, str] | None:
    """Is the mean over many draws, of the sampler as it is, the gradient? None where there is none.

    What the enumeration on a few terms cannot see: a sampler whose fault depends on the number of
    terms, or that asks its generator for more. A fault below the noise of 2000 draws is not seen.
    """
    from landingopt.estimators import MiniBatch

    estimator = method.estimator
    while hasattr(estimator, "base"):
        estimator = estimator.base
    if not hasattr(estimator, "sampler"):
        return None
    generator = np.random.default_rng(rng)
    space = Space(problem.shape, problem.constraint, x)
    oracle = Oracle(problem, space, generator)
    run = MiniBatch(estimator.batch_size, estimator.sampler).start(oracle, False)
    try:
        mean: Any = 0.0
        squares = 0.0
        for _ in range(_DRAWS):
            point = Point(space, [])
            point.place([_xp.copy(a) for a in space.to_blocks(x)])
            run.fill(point)
            estimate = _flat(point.followed)
            mean = mean + estimate / _DRAWS
            squares += float(np.linalg.norm(estimate) ** 2) / _DRAWS
    except ValueError:  # draws to replay are used up
        return None
    exact = _flat(_gradient(problem, space, space.to_blocks(x)))
    spread = max(squares - float(np.linalg.norm(mean) ** 2), 0.0) / _DRAWS
    off = float(np.linalg.norm(mean - exact))
    size = float(np.linalg.norm(exact)) or 1.0
    if off**2 <= _SURE * spread + (1e4 * space.unit_roundoff * size) ** 2:
        return None
    return False, (
        f"the minibatches are biased: their mean over {_DRAWS} draws differs from the gradient by "
        f"{off / size:.1e} of it, {off / math.sqrt(spread or 1e-300):.0f} standard errors"
    )
