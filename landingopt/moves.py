"""Moves: from X, a field and a step to the next X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from landingopt._xp import Array
from landingopt.fields import Form
from landingopt.space import Block
from landingopt.stiefel import NewtonSchulzRun


class Moved(NamedTuple):
    """Where a move led.

    ``distance`` is ||X^H X - I||_F or a bound on it (infinite where unknown), ``delta`` is
    X^H X - I where it was formed and is not negligible, ``ok`` is False where the move failed.
    """

    x: Array
    distance: Any
    delta: Array | None
    ok: Any


class Move(Protocol):
    """A move; ``start(block)`` gives a run with ``apply(form, eta, out)``."""

    def start(self, block: Block) -> MoveRun: ...


class MoveRun(Protocol):
    """``out`` is memory for the next X; the run may keep it and give back memory of its own.

    ``tol`` is the distance that a search needs, where it is tighter than the recipe's.
    """

    def apply(self, form: Form, eta: Any, out: Array, tol: float | None = None) -> Moved: ...


@dataclass(frozen=True)
class Additive:
    """X - eta F, the landing's own move: no product beyond the field's."""

    def start(self, block: Block) -> AdditiveRun:
        return AdditiveRun()


class AdditiveRun:
    __slots__ = ()

    def apply(self, form: Form, eta: Any, out: Array, tol: float | None = None) -> Moved:
        return Moved(form.moved(eta, out), float("inf"), None, True)


@dataclass(frozen=True)
class NewtonSchulz:
    """X - eta F, then Newton–Schulz passes until ||X^H X - I||_F <= tol; at least one.

    The normal step does not depend on eta. Each pass costs two products n p^2 (one of them a Gram
    matrix, often skipped) and one of p^3.

    References
    ----------
    [XGA26]; [POGO] for the single pass.
    """

    tol: float = 1e-2
    max_passes: int = 25

    def __post_init__(self) -> None:
        if not 0.0 < self.tol < 0.9:
            raise ValueError(f"tol must lie strictly between 0 and 0.9, got {self.tol!r}")
        if self.max_passes < 1:
            raise ValueError(f"max_passes must be at least 1, got {self.max_passes!r}")

    def start(self, block: Block) -> MoveRun:
        return NewtonSchulzMove(self, block) if block.stiefel else AdditiveRun()


class NewtonSchulzMove:
    __slots__ = ("tol", "passes")

    def __init__(self, recipe: NewtonSchulz, block: Block):
        self.tol = recipe.tol
        self.passes = NewtonSchulzRun(block.kernels, block.inner_shape, recipe.max_passes)

    def apply(self, form: Form, eta: Any, out: Array, tol: float | None = None) -> Moved:
        y = form.moved(eta, self.passes.work())
        return Moved(*self.passes(y, out, self.tol if tol is None else min(tol, self.tol)))
