"""Samplers: which terms of a finite sum the next step sees.

A recipe's ``start(n_terms, batch_size, rng, blocks)`` gives a run with ``draw()``, a slice or an array
of indices, and beside it ``weight``, by which the mean over those terms is multiplied so that the
estimate is unbiased exactly, and ``block``, the number of the block drawn (None where terms are drawn
one by one). With ``blocks``, or where the recipe is ``contiguous``, the terms are cut into blocks once
and whole blocks are drawn: consecutive terms where the recipe is ``contiguous`` (slices: fast to read
from a file), else terms picked at random, once. All randomness is the generator's.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from landingopt._parts import check_part

Terms = Any  # a slice, or an array of indices


class Sampler(Protocol):
    """A sampler of terms."""

    @property
    def contiguous(self) -> bool: ...

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun: ...


class SamplerRun(Protocol):
    """A started sampler."""

    weight: float
    block: int | None

    def draw(self) -> Terms: ...


def count(terms: Terms) -> int:
    """How many terms a slice or an array of indices names."""
    return terms.stop - terms.start if isinstance(terms, slice) else len(terms)


class Partition:
    """The terms 0..N-1 in blocks of ``size``; the last one may be smaller."""

    def __init__(self, n_terms: int, size: int, order: np.ndarray | None = None):
        self.n_terms, self.size, self._order = n_terms, size, order
        self.count = -(-n_terms // size)

    def share(self, block: int) -> float:
        """n_b / N."""
        return (min((block + 1) * self.size, self.n_terms) - block * self.size) / self.n_terms

    def terms(self, block: int) -> Terms:
        if not 0 <= block < self.count:
            raise IndexError(f"block {block} of {self.count} was drawn; they count from 0")
        start, stop = block * self.size, min((block + 1) * self.size, self.n_terms)
        return slice(start, stop) if self._order is None else self._order[start:stop].copy()


def _partition(
    n_terms: int, batch_size: int, rng: np.random.Generator, contiguous: bool
) -> Partition:
    return Partition(n_terms, batch_size, None if contiguous else rng.permutation(n_terms))


class BlockDraws:
    """Whole blocks, in an order that an iterator of (block, weight) gives."""

    __slots__ = ("partition", "weight", "block", "_order")

    def __init__(self, partition: Partition, order: Iterator[tuple[int, float]]):
        self.partition, self._order = partition, order
        self.weight = 1.0
        self.block: int | None = None

    def draw(self) -> Terms:
        self.block, self.weight = next(self._order)
        return self.partition.terms(self.block)


class TermDraws:
    """Terms drawn one by one, from an iterator of index arrays."""

    __slots__ = ("weight", "block", "_draws")

    def __init__(self, draws: Iterator[Terms]):
        self.weight = 1.0
        self.block: int | None = None
        self._draws = draws

    def draw(self) -> Terms:
        return next(self._draws)


def _in_turn(
    orders: Callable[[int], Iterator[np.ndarray]],
    n_terms: int,
    batch_size: int,
    rng: np.random.Generator,
    blocks: bool,
    contiguous: bool,
) -> SamplerRun:
    """Draws that come equally often; ``orders(k)`` gives 0..k-1 in one order after another."""
    if not (blocks or contiguous):
        return TermDraws(_batches(orders(n_terms), batch_size))
    partition = _partition(n_terms, batch_size, rng, contiguous)

    def numbered() -> Iterator[tuple[int, float]]:
        for order in orders(partition.count):
            for block in order.tolist():  # a mean over n_b terms counts B n_b / N
                yield block, partition.count * partition.share(block)

    return BlockDraws(partition, numbered())


@dataclass(frozen=True)
class WithReplacement:
    """Independent draws: of ``batch_size`` terms each, or of a whole block.

    A block of n_b terms is drawn with probability n_b / N.

    Parameters
    ----------
    contiguous : bool
        Blocks of consecutive terms in place of scattered ones.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.landing_sgd(0.1, batch_size=64, sampler=lo.samplers.WithReplacement()).name
    'landing_sgd(step=0.1, lam=1)'
    """

    contiguous: bool = False

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun:
        if blocks or self.contiguous:
            partition = _partition(n_terms, batch_size, rng, self.contiguous)
            return BlockDraws(partition, self._blocks(partition, rng))
        return TermDraws(self._terms(n_terms, batch_size, rng))

    @staticmethod
    def _blocks(partition: Partition, rng: np.random.Generator) -> Iterator[tuple[int, float]]:
        while True:  # the block of a uniform term: n_b / N
            yield int(rng.integers(partition.n_terms)) // partition.size, 1.0

    @staticmethod
    def _terms(n_terms: int, batch_size: int, rng: np.random.Generator) -> Iterator[Terms]:
        while True:
            yield rng.integers(n_terms, size=batch_size)


@dataclass(frozen=True)
class Reshuffled:
    """Each term once in N, in a new random order each time around.

    Scattered batches run on from one order into the next, so that each has ``batch_size`` terms, each
    uniform: unbiased where ``batch_size`` does not divide N too. Whole blocks come once each in an
    epoch, and a smaller last one counts less.

    Parameters
    ----------
    contiguous : bool
        Blocks of consecutive terms, in random order, in place of scattered terms.
    """

    contiguous: bool = False

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun:
        def orders(count: int) -> Iterator[np.ndarray]:
            while True:
                yield rng.permutation(count)

        return _in_turn(orders, n_terms, batch_size, rng, blocks, self.contiguous)


@dataclass(frozen=True)
class Cyclic:
    """The terms in their own order, again and again: no randomness, and no unbiasedness of one draw.

    The mean over a cycle is the full gradient. Sorted data (by label, say) makes it slow.

    Parameters
    ----------
    contiguous : bool
        Slices, the last one smaller and counting less; False: batches of equal size that run on from
        the last term to the first.
    """

    contiguous: bool = True

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun:
        def orders(count: int) -> Iterator[np.ndarray]:
            return itertools.repeat(np.arange(count))

        return _in_turn(orders, n_terms, batch_size, rng, blocks, self.contiguous)


def _batches(orders: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    """Batches of equal size from orders that follow one another."""
    rest = next(orders)
    while True:
        while len(rest) < batch_size:
            rest = np.concatenate([rest, next(orders)])
        yield rest[:batch_size].copy()
        rest = rest[batch_size:]


@dataclass(frozen=True)
class Replay:
    """Draws that are given: slices, arrays of indices, or numbers of blocks.

    To repeat a run exactly, or to compare two methods on the same samples. An array of indices may
    name a term twice. Blocks are those of ``batch_size`` consecutive terms, and nothing is weighted: as
    if they were drawn with probability n_b / N.

    Parameters
    ----------
    draws : sequence
        One entry for each minibatch; the run ends with an error where there are too few.

    Raises
    ------
    TypeError, ValueError
        No draws, or one that is neither a slice, nor whole numbers; where the run starts, terms beyond
        n_terms, or arrays where blocks are needed.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.samplers.Replay([slice(0, 2), [3, 1]])
    Replay(2 draws)
    """

    draws: Sequence[Any]

    contiguous = True

    def __post_init__(self) -> None:
        draws = tuple(_as_draw(draw) for draw in self.draws)
        if not draws:
            raise ValueError("Replay needs at least one draw")
        object.__setattr__(self, "draws", draws)

    def __repr__(self) -> str:
        return f"Replay({len(self.draws)} draws)"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Replay) and [_key(d) for d in self.draws] == [
            _key(d) for d in other.draws
        ]

    def __hash__(self) -> int:
        return hash(tuple(_key(draw) for draw in self.draws))

    def start(
        self, n_terms: int, batch_size: int, rng: np.random.Generator, blocks: bool = False
    ) -> SamplerRun:
        partition = Partition(n_terms, batch_size)
        whole = [isinstance(draw, int) for draw in self.draws]
        if blocks and not all(whole):
            raise TypeError(
                "this estimator draws whole blocks (its table has an entry for each): Replay needs "
                f"numbers of blocks, 0..{partition.count - 1}, and draw {whole.index(False)} is "
                f"{self.draws[whole.index(False)]!r:.60}"
            )
        for i, draw in enumerate(self.draws):
            top, limit = (
                (draw, partition.count)
                if isinstance(draw, int)
                else (draw.stop - 1 if isinstance(draw, slice) else int(draw.max()), n_terms)
            )
            if top >= limit:
                what = "block" if isinstance(draw, int) else "term"
                raise ValueError(f"draw {i} names {what} {top}; there are {limit}, from 0 on")
        if all(whole):
            return BlockDraws(partition, self._numbered())
        return TermDraws(self._listed(partition))

    def _numbered(self) -> Iterator[tuple[int, float]]:
        for block in self.draws:
            yield block, 1.0
        raise _exhausted(len(self.draws))

    def _listed(self, partition: Partition) -> Iterator[Terms]:
        for draw in self.draws:
            if isinstance(draw, int):
                yield partition.terms(draw)
            else:
                yield draw if isinstance(draw, slice) else draw.copy()
        raise _exhausted(len(self.draws))


def _exhausted(number: int) -> Exception:
    return ValueError(
        f"the {number} draws of Replay are used up; give more, or end the run earlier"
    )


def _as_draw(draw: Any) -> Any:
    if isinstance(draw, numbers.Integral) and not isinstance(draw, bool) and int(draw) >= 0:
        return int(draw)
    if isinstance(draw, slice):
        start = 0 if draw.start is None else draw.start
        if draw.stop is None or draw.step not in (None, 1) or not 0 <= start < draw.stop:
            raise ValueError(f"a slice to replay needs 0 <= start < stop and step 1, got {draw}")
        return slice(start, draw.stop)
    indices = np.array(draw)
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or not indices.size or indices.min() < 0:
        raise TypeError(
            f"a draw is a slice, indices of terms >= 0, or the number of a block; got {draw!r:.60}"
        )
    indices.flags.writeable = False
    return indices


def _key(draw: Any) -> Any:
    if isinstance(draw, slice):
        return ("slice", draw.start, draw.stop)
    return draw if isinstance(draw, int) else tuple(draw.tolist())


def check_sampler(sampler: Any) -> Any:
    """A sampler, or an error that says what one is."""
    example = "a recipe such as lo.samplers.Reshuffled() or lo.samplers.WithReplacement()"
    return check_part(sampler, "sampler", "samplers", example)
