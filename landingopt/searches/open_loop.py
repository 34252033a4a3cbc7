"""Steps without a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.fields import FieldRun, Form
from landingopt.moves import AdditiveRun, Move
from landingopt.point import Point
from landingopt.searches.trials import place_start
from landingopt.space import Block, Space
from landingopt.steps import Context, Schedule, Step, check_rule


class BlockNumbers:
    """Inner products of one block, left where the data lives."""

    def __init__(self, block: Block):
        self.kernels, self.scalars = block.kernels, block.kernels.scalars

    def dots(self, *pairs: tuple[list[Array], list[Array]]) -> tuple[Any, ...]:
        return tuple(self.kernels.dot(u[0], v[0]) for u, v in pairs)


@dataclass(frozen=True)
class OpenLoop:
    """One move a step, of a size fixed in advance or read off the field; evaluates nothing.

    k steps cost exactly k gradients, and on a device nothing is read back. Each block, and each
    matrix of a stack, has its own step.
    """

    step: Step

    needs_value = False

    def __post_init__(self) -> None:
        check_rule(self.step, "step")

    def start(
        self, space: Space, field: FieldRun, move: Move, estimator: Any, lam: float
    ) -> OpenLoopRun:
        return OpenLoopRun(self, space, field, move, lam, estimator)


class OpenLoopRun:
    __slots__ = (
        "_additive", "_alone", "_apply", "_foreign", "_point", "_size", "_spare", "eps", "moves",
        "space", "steps",
    )  # fmt: skip

    def __init__(
        self,
        recipe: OpenLoop,
        space: Space,
        field: FieldRun,
        move: Move,
        lam: float,
        estimator: Any = None,
    ):
        self.space = space
        self.eps: float | None = getattr(recipe.step, "eps", None)
        self._point, self._spare = field.point(space), field.point(space)
        field.silent = space.accelerator
        self.moves = [move.start(block) for block in space.blocks]
        self._alone = len(space.blocks) == 1
        self._apply = self.moves[0].apply
        self._additive = type(self.moves[0]) is AdditiveRun
        known = {
            name: getattr(estimator, name)
            for name in ("epoch", "anchor_pair")
            if hasattr(estimator, name)
        }
        self.steps = [
            recipe.step.start(
                Context(
                    BlockNumbers(block),
                    lam if block.stiefel else 0.0,
                    block.p**0.5,
                    space.accelerator,
                    **known,
                )
            )
            for block in space.blocks
        ]
        self._size = self.steps[0].size
        rule = getattr(recipe.step, "rule", recipe.step)
        ours = type(rule).__module__.startswith("landingopt.")
        self._foreign = isinstance(rule, Schedule) or not ours  # it may call the user's gradient

    def first(self, x0: list[Array]) -> Point:
        point, spare = self._point, self._spare
        place_start(self.space, point, x0)
        if self.eps is not None:
            self._check_tube([b.distance(x) for b, x in zip(self.space.blocks, x0)])
        spare.place([b.kernels.empty(b.inner_shape) for b in self.space.blocks])
        return point

    def _check_tube(self, distances: list[Any]) -> None:
        assert self.eps is not None
        for block, d in zip(self.space.blocks, distances, strict=True):
            worst = float(np.max(block.kernels.host(d)[0]))
            if not worst <= self.eps * (1.0 + 100.0 * self.space.unit_roundoff * block.p):
                raise ValueError(
                    f"{block.name}0 is at distance {worst:.3g} from the manifold, outside the tube "
                    f"of eps = {self.eps:g} in which a fixed-step landing is attracted to it; start "
                    "from lo.stiefel.polar(x0), or use lo.landing() without a step, which projects"
                )

    def advance(self, point: Point, direction: list[Form]) -> Point:
        new, k = self._spare, point.iteration
        if self._foreign:
            point.settle()
        if self._alone and self.space.frozen is None:
            eta, form, out = self._size(k, point), direction[0], new.x[0]
            x = form.moved(eta, out) if self._additive else self._apply(form, eta, out).x
            new.place([x], point, eta)
            self._spare = point
            return new
        point.share()
        x, steps = [], []
        frozen = self.space.frozen
        for i, part in enumerate(point.parts):
            eta = self.steps[i].size(k, part)
            moved = self.moves[i].apply(direction[i], eta, new.x[i])
            placed = moved.x
            if frozen is not None:
                placed = self.space.blocks[i].kernels.replace(placed, frozen, part.x[0])
            x.append(placed)
            steps.append(eta)
        new.place(x, point, steps[0])
        self._spare = point
        return new
