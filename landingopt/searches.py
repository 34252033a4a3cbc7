"""Searches: how a step is chosen and taken. The loops over trials live here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.estimators.full import FullRun
from landingopt.fields import FieldRun, Form
from landingopt.moves import Move
from landingopt.point import Point
from landingopt.space import Block, Space
from landingopt.status import Status
from landingopt.steps import BarzilaiBorwein, Context, Step
from landingopt.stiefel import orthonormalized

_CLOSE = 0.05  # of ||psi|| / ||Phi||, the distance to which a line search brings its trials


class BlockNumbers:
    """Inner products of one block, left where the data lives."""

    def __init__(self, block: Block):
        self.kernels, self.scalars = block.kernels, block.kernels.scalars

    def dots(self, *pairs: tuple[list[Array], list[Array]]) -> tuple[Any, ...]:
        return tuple(self.kernels.dot(u[0], v[0]) for u, v in pairs)


def _place_start(space: Space, point: Point, x0: list[Array]) -> None:
    point.place(x0)
    point.distance_bound = space.combine([b.distance(x) for b, x in zip(space.blocks, x0)])


@dataclass(frozen=True)
class OpenLoop:
    """One move a step, of a size fixed in advance or read off the field; evaluates nothing.

    k steps cost exactly k gradients, and on a device nothing is read back. Each block, and each
    matrix of a stack, has its own step.
    """

    step: Step

    needs_value = False

    def start(
        self, space: Space, field: FieldRun, move: Move, estimator: Any, lam: float
    ) -> OpenLoopRun:
        return OpenLoopRun(self, space, field, move, lam)


class OpenLoopRun:
    __slots__ = ("space", "steps", "moves", "_point", "_spare", "eps")

    def __init__(self, recipe: OpenLoop, space: Space, field: FieldRun, move: Move, lam: float):
        self.space = space
        self.eps: float | None = getattr(recipe.step, "eps", None)
        self._point, self._spare = field.point(space), field.point(space)
        self.moves = [move.start(block) for block in space.blocks]
        self.steps = [
            recipe.step.start(
                Context(
                    BlockNumbers(block),
                    lam if block.stiefel else 0.0,
                    block.p**0.5,
                    space.accelerator,
                )
            )
            for block in space.blocks
        ]

    def first(self, x0: list[Array]) -> Point:
        point, spare = self._point, self._spare
        _place_start(self.space, point, x0)
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

    @np.errstate(all="ignore")
    def advance(self, point: Point, direction: list[Form]) -> Point:
        new = self._spare
        k = point.iteration
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
        new.place(x)
        new.iteration, new.step, new.previous = k + 1, steps[0], point
        self._spare = point
        return new


@dataclass(frozen=True)
class LineSearch:
    """Backtracking on the merit m(X) = f(X) - <sym(X^H G), Delta> / 2 = f(polar X) + O(d^2).

    A step eta along -psi is accepted when m_+ <= C - decrease eta ||psi||^2, C the weighted mean of
    past merits of Zhang and Hager (``memory`` 0: the last one, monotone). Rounding of f is allowed
    for, relative to max(|C|, |m_0|), so that an f with a large constant still converges.

    Parameters
    ----------
    guess : step rule
        The first trial of each search.
    memory : float in [0, 1)
        Weight of the past in C.
    decrease : float
        Armijo's constant.
    max_trials : int

    References
    ----------
    Zhang, Hager, A nonmonotone line search technique, SIAM J. Optim. 14, 2004; the merit: [AVGA24]
    (Fletcher's augmented Lagrangian without its penalty).
    """

    guess: Step = field(default_factory=BarzilaiBorwein)
    memory: float = 0.85
    decrease: float = 1e-4
    max_trials: int = 30

    needs_value = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.memory < 1.0:
            raise ValueError(f"memory must lie in [0, 1), got {self.memory!r}")
        if not 0.0 < self.decrease < 0.5:
            raise ValueError(f"decrease must lie in (0, 0.5), got {self.decrease!r}")
        if self.max_trials < 1:
            raise ValueError(f"max_trials must be at least 1, got {self.max_trials!r}")

    def start(
        self, space: Space, field: FieldRun, move: Move, estimator: FullRun, lam: float
    ) -> LineSearchRun:
        return LineSearchRun(self, space, field, move, estimator)


class LineSearchRun:
    """The state of a line search: two points, the reference value C and its weight Q."""

    def __init__(
        self, recipe: LineSearch, space: Space, field: FieldRun, move: Move, estimator: FullRun
    ):
        self.recipe, self.space, self.field, self.estimator = recipe, space, field, estimator
        self.guess = recipe.guess.start(Context(space, 0.0, space.size_p**0.5, space.accelerator))
        self.moves = [move.start(block) for block in space.blocks]
        self._point, self._spare = field.point(space), field.point(space)
        self.slack = 1e4 * space.unit_roundoff if space.unit_roundoff < 1e-10 else 1e-5
        self.eps: float | None = None
        self._reference: Any = None
        self._weight: Any = 1.0
        self._scale: Any = 0.0
        self._uphill: Any = 0
        # Of each matrix in a separable stack: steps taken, refusals in a row, the step to try next.
        self._taken: Any = 0
        self._refusals: Any = 0
        self._shorter: Any = 0.0

    @np.errstate(all="ignore")  # an x0 of any scale
    def first(self, x0: list[Array]) -> Point:
        """The start, projected by Newton–Schulz where it is off the manifold."""
        space = self.space
        for i, block in enumerate(space.blocks):
            if not block.stiefel:
                continue
            d = np.max(block.kernels.host(block.distance(x0[i]))[0])
            if not d <= 4.0 * space.unit_roundoff * block.p**0.5:
                x0[i] = orthonormalized(x0[i], f"{block.name}0")
        _place_start(space, self._point, x0)
        self._spare.place([b.kernels.empty(b.inner_shape) for b in space.blocks])
        return self._point

    def _merit(self, point: Point, deltas: list[Array | None]) -> Any:
        merit = point.fun
        for i, delta in enumerate(deltas):
            if delta is not None:
                block = self.space.blocks[i]
                product = block.kernels.host(block.kernels.dot(point.forms[i].phi, delta))[0]
                merit = merit - 0.5 * (product if self.space.separable else float(np.sum(product)))
        return merit

    def advance(self, point: Point, direction: list[Form]) -> Point:
        """Try steps until one is accepted; where none is, the point carries LINE_SEARCH.

        In a separable stack every matrix tries one step: the refused ones stay where they are, and
        try a shorter one in the next advance, so that nobody is evaluated again for a neighbour.
        """
        with np.errstate(all="ignore"):  # a trial that is not finite is shortened, not reported
            return self._advance(point)

    def _advance(self, point: Point) -> Point:
        if self._reference is None:
            point.merit = point.fun
            self._reference, self._scale = point.fun, abs(point.fun)
        eta = self._first_trial(point)
        good, finite = self._trial(point, eta)
        if self.space.separable:
            if not self.space.scalars.all(good):
                self._shorter = self._shortened(point, eta, finite)
            self._hold(point, good)
            return self._accepted(point, eta, good)
        trials = 1
        while not good:
            if trials == self.recipe.max_trials:
                point.status = Status.LINE_SEARCH
                return point
            eta, trials = self._shortened(point, eta, finite), trials + 1
            good, finite = self._trial(point, eta)
        return self._accepted(point, eta, good)

    def _first_trial(self, point: Point) -> Any:
        """The guess, capped; a matrix that was refused goes on with its shorter step."""
        space, s = self.space, self.space.scalars
        if not space.separable:
            return self._capped(self.guess.size(point.iteration, point), point)
        eta = self._capped(self.guess.size(self._taken, point), point)
        eta = s.where(self._refusals > 0, self._shorter, eta)
        return eta if space.frozen is None else s.where(space.frozen, 0.0, eta)

    def _trial(self, point: Point, eta: Any) -> tuple[Any, Any]:
        """Is the step accepted, and is the trial finite; per matrix for a separable stack."""
        space, s, recipe, new = self.space, self.space.scalars, self.recipe, self._spare
        moved_ok = self._try(point, new, eta)
        fall = (eta * point.gradient_norm) * point.gradient_norm  # in this order: no overflow
        merit, slack = new.merit, self.slack * self._rounding_scale()
        finite = s.isfinite(merit) & s.isfinite(new.gradient_norm) & moved_ok
        good = finite & (merit <= self._reference - recipe.decrease * fall + slack)
        return (good if space.frozen is None else good | space.frozen), finite

    def _shortened(self, point: Point, eta: Any, finite: Any) -> Any:
        """The step to try after a refusal: where a parabola through the trial has its minimum."""
        s = self.space.scalars
        fall = (eta * point.gradient_norm) * point.gradient_norm
        curvature = 2.0 * (self._spare.merit - point.merit + fall)
        fitted = s.where(curvature > 0, s.divide(fall, curvature) * eta, 0.5 * eta)
        fitted = s.maximum(0.1 * eta, s.minimum(0.5 * eta, fitted))
        return s.where(finite, fitted, 0.25 * eta)

    def _hold(self, point: Point, good: Any) -> None:
        """Put the refused matrices of a stack back where they were."""
        new, s = self._spare, self.space.scalars
        self._refusals = s.where(good, 0.0, self._refusals + 1.0)
        self._taken = self._taken + good
        if s.all(good):
            return
        refused = ~good
        new.x = [self.space.blocks[0].kernels.replace(new.x[0], refused, point.x[0])]
        new.forms[0].keep(new.x[0], point.forms[0], refused)
        for name in ("fun", "merit", "gradient_norm", "distance_bound"):
            setattr(new, name, s.where(good, getattr(new, name), getattr(point, name)))

    def _accepted(self, point: Point, eta: Any, good: Any) -> Point:
        """Bookkeeping of an accepted step: C and Q of Zhang and Hager, and what failed."""
        s, new, memory = self.space.scalars, self._spare, self.recipe.memory
        failed = self._risen(point, new, eta, good) | (self._refusals >= self.recipe.max_trials)
        if s.any(failed):
            codes = np.where(failed, int(Status.LINE_SEARCH), int(Status.RUNNING))
            new.status = codes if self.space.separable else Status.LINE_SEARCH
        weight = memory * self._weight + 1.0
        mean = (memory * self._weight * self._reference + new.merit) / weight
        self._reference = s.where(good, mean, self._reference)
        self._weight = s.where(good, weight, self._weight)
        new.iteration, new.step, new.previous = point.iteration + 1, s.where(good, eta, 0.0), point
        self._spare = point
        return new

    def _rounding_scale(self) -> Any:
        """What the rounding of f is relative to: an f with a large constant still converges."""
        return self.space.scalars.maximum(abs(self._reference), self._scale)

    def _risen(self, point: Point, new: Point, eta: Any, good: Any) -> Any:
        """Has f, ten steps in a row, risen where psi promises that it falls?

        The slack for rounding accepts such steps once they are short enough. A rise so small may be
        rounding, or a long step's, but not each time.
        """
        s, unit = self.space.scalars, self.space.unit_roundoff
        rise, fall = new.merit - point.merit, (eta * point.gradient_norm) * point.gradient_norm
        uphill = (rise > 0.1 * fall) & (rise > 20.0 * unit * self._rounding_scale())
        count = s.where(uphill, self._uphill + 1, 0)
        self._uphill = s.where(good, count, self._uphill)
        return self._uphill >= 10

    def _try(self, point: Point, new: Point, eta: Any) -> Any:
        """Move, evaluate there; True (per matrix) where the move itself succeeded."""
        space = self.space
        x, bounds, deltas = [], [], []
        ok: Any = True
        tol = self._needed_distance(point)
        for i, block in enumerate(space.blocks):
            moved = self.moves[i].apply(point.forms[i], eta, new.x[i], tol)
            placed = moved.x
            if space.frozen is not None:
                placed = block.kernels.replace(placed, space.frozen, point.x[i])
            x.append(placed)
            if block.stiefel:
                bounds.append(moved.distance)
                whole = space.separable or moved.ok is True
                ok = ok & (moved.ok if whole else bool(np.all(moved.ok)))
            deltas.append(moved.delta)
        new.place(x)
        new.distance_bound = (
            bounds[0]
            if len(bounds) == 1 and (space.separable or type(bounds[0]) is float)
            else float(np.sqrt(sum(np.sum(np.square(b)) for b in bounds)))
        )
        if not space.separable and not ok:
            new.merit = new.gradient_norm = float("nan")
            return False
        self.estimator.fill(new)
        self.field(new)
        new.merit = self._merit(new, deltas)
        return ok

    def _needed_distance(self, point: Point) -> float:
        """A small part of ||psi|| / ||Phi||.

        At distance d, psi has a normal part of d ||Phi|| and the merit an error of d^2 ||Phi||: where
        the normal part of G dominates (f plus a large multiple of ||X||^2), X must lie closer.
        """
        ratios = []
        for form in point.forms:
            if form.phi is not None:
                kernels = form.block.kernels
                normal = kernels.host(kernels.norm(form.phi))[0]
                ratio = np.divide(point.gradient_norm, normal)
                if self.space.frozen is not None:
                    ratio = np.where(self.space.frozen, np.inf, ratio)
                ratios.append(float(np.min(ratio)))
        closest = _CLOSE * min(ratios, default=np.inf)
        return closest if closest > 0.0 else 1e-300

    def _capped(self, eta: Any, point: Point) -> Any:
        """eta ||psi||_2 <= 0.9: Newton–Schulz converges from X - eta psi, without scaling."""
        space, s = self.space, self.space.scalars
        norms = [
            form.norm() for form, b in zip(point.forms, space.blocks, strict=True) if b.stiefel
        ]
        if not norms:
            return eta
        if len(norms) == len(space.blocks):
            frobenius = point.gradient_norm
        else:
            part = [b for b in space.blocks if b.stiefel]
            frobenius = (
                sum(float(np.sum(np.square(b.kernels.host(v)[0]))) for b, v in zip(part, norms))
                ** 0.5
            )
        if not s.any(eta * frobenius > 0.9):
            return eta
        spectral = self._spectral_norm(point)
        return s.minimum(eta, s.divide(0.9, s.maximum(s.minimum(spectral, frobenius), 1e-300)))

    def _spectral_norm(self, point: Point) -> Any:
        """The largest ||psi||_2, 1.1 x four power iterations from a seeded vector."""
        space = self.space
        largest: Any = 0.0
        for form, block in zip(point.forms, space.blocks, strict=True):
            if not block.stiefel:
                continue
            kernels, psi = block.kernels, form.array()
            v = kernels.random((*block.batch, block.p, 1), np.random.default_rng(0))
            scale = kernels.norm(psi)
            unit = kernels.scale(psi, _reciprocal(scale, kernels))
            for _ in range(4):
                w = kernels.matmul(unit, v)
                v = kernels.cross(unit, w)
                size = kernels.norm(v)
                v = kernels.scale(v, _reciprocal(size, kernels))
            value = kernels.host(scale * kernels.scalars.sqrt(size))[0] * 1.1
            value = value if space.separable else float(np.max(value))
            largest = space.scalars.maximum(largest, value)
        return largest


def _reciprocal(value: Any, kernels: Any) -> Any:
    s = kernels.scalars
    return s.divide(1.0, s.where(value > 0, value, s.full(1.0)))
