"""The gradient of a minibatch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from landingopt._xp import Array
from landingopt.estimators import _sampled
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.samplers import Reshuffled, Sampler
from landingopt.status import Status


@dataclass(frozen=True)
class MiniBatch:
    """The mean gradient over some terms of a finite sum, or over the next batch of a stream.

    Parameters
    ----------
    batch_size : int, optional
        max(32, p) by default, and at most N / 32.
    sampler : sampler
        ``Reshuffled()`` by default.

    Raises
    ------
    TypeError, ValueError
        A problem that is no sum, a ``batch_size`` below 1 or beyond N, a sampler of the wrong kind.

    References
    ----------
    [AVGA24] section 4.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.estimators.MiniBatch(64)
    MiniBatch(batch_size=64, sampler=Reshuffled(contiguous=False))
    """

    batch_size: int | None = None
    sampler: Sampler = field(default_factory=Reshuffled)

    transforms = True
    stochastic = True

    def __post_init__(self) -> None:
        _sampled.check_recipe(self)

    def start(self, oracle: Oracle, value: bool) -> Any:
        if hasattr(oracle.problem, "grad_batch"):
            if self != MiniBatch():
                raise ValueError(
                    f"{self!r} was given for a stream, whose batches come as they are; drop batch_size "
                    "and sampler"
                )
            return StreamRun(oracle)
        return MiniBatchRun(self, oracle)


class MiniBatchRun(_sampled.Sampled):
    __slots__ = ("recipe", "oracle", "draws", "_estimate")

    def __init__(self, recipe: MiniBatch, oracle: Oracle):
        self.recipe, self.oracle = recipe, oracle
        self.draws = _sampled.started(recipe, oracle)
        self._estimate: list[Array] = [None] * len(oracle.space.blocks)

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        draws = self.draws
        terms = draws.draw()
        gradient = self.oracle.gradient_terms(point.user, terms)
        if draws.weight != 1.0:  # an unequal block: not in the user's memory
            blocks = self.oracle.space.blocks
            gradient = self._estimate = [
                b.kernels.scale(g, draws.weight, out=out)
                for b, g, out in zip(blocks, gradient, self._estimate, strict=True)
            ]
        point.estimate = gradient


class StreamRun:
    """One batch a step; the status in place of an estimate once the stream has ended."""

    __slots__ = ("oracle", "_batches", "_begun")

    def __init__(self, oracle: Oracle):
        self.oracle = oracle
        self._batches = oracle.problem.open()  # type: ignore[attr-defined]
        self._begun = False

    def fill(self, point: Point) -> None:
        if point.estimate is not None:
            return
        oracle = self.oracle
        try:
            batch = next(self._batches)
        except StopIteration:
            if not self._begun:
                raise ValueError(
                    "the stream gave no batch: an iterator is used up by its first run; pass a list of "
                    "batches, or a function that opens the stream anew"
                ) from None
            point.status = Status.STREAM_ENDED
            return
        self._begun = True
        oracle.charge(1, 0)
        point.estimate = oracle.checked(oracle.problem.grad_batch(point.user, batch))  # type: ignore[attr-defined]

    def epoch(self) -> float:
        raise TypeError('a stream has no epochs: write the step rule with by="iteration"')

    def curvature(self, x: list[Array]) -> float:
        raise TypeError(
            "a stream's batches arrive once, and none is spent on measuring the curvature: pass a step, "
            "lo.landing_sgd(step=...)"
        )
