"""What the searches along a direction share: trial points, the cap on a step, the bookkeeping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landingopt._xp import FLOATS, Array
from landingopt.estimators.full import FullRun
from landingopt.fields import FieldRun, Form
from landingopt.moves import Move
from landingopt.point import Point
from landingopt.searches.reading import Trial
from landingopt.space import Space
from landingopt.status import Status
from landingopt.stiefel import TOO_FAR, orthonormalized

_CLOSE = 0.05  # of ||psi|| / ||Phi||, the distance to which a search brings its trials

# Of ||Y^H Y - I||_2 at Y = X - eta F, which is (eta ||F||_2)^2 for tangent F: columns turn by up to 56
# degrees. Beyond, the quadratic model that the step comes from says little.
_STRETCH = 2.25


def place_start(space: Space, point: Point, x0: list[Array]) -> None:
    point.place(x0)
    point.distance_bound = space.combine([b.distance(x) for b, x in zip(space.blocks, x0)])


def check_trials(max_trials: int, closest: float) -> None:
    """What every search asks of its trials."""
    if max_trials < 1:
        raise ValueError(f"max_trials must be at least 1, got {max_trials!r}")
    if not 0.0 < closest < 0.9:
        raise ValueError(f"closest must lie strictly between 0 and 0.9, got {closest!r}")


class SearchRun:
    """A search along F: tries X - eta F, brought near the manifold, until a trial is accepted.

    Abstract: a search says which step it tries first (:meth:`_first_trial`), whether a trial is
    accepted (:meth:`_accepts`) and which step follows a refusal (:meth:`_after_refusal`).

    The merit is m(X) = f(X) - <sym(X^H G), Delta> / 2 = f(polar X) + O(d^2). Rounding of f is allowed
    for, relative to max(|C|, |m_0|), so that an f with a large constant still converges.

    In a separable stack every matrix tries one step an advance: the refused ones stay where they are,
    and try another one in the next advance, so that nobody is evaluated again for a neighbour.
    """

    def __init__(self, recipe: Any, space: Space, field: FieldRun, move: Move, estimator: FullRun):
        self.recipe, self.space, self.field, self.estimator = recipe, space, field, estimator
        self.eps: float | None = None
        self.moves = [move.start(block) for block in space.blocks]
        self._point, self._spare = field.point(space), field.point(space)
        self._trial = Trial(space, self.moves)
        self._length: Any = 0.0  # ||F||_F of a direction that is not psi
        self._heard: list[Any] = []  # what was read along with the last trial
        self._slack = 1e4 * space.unit_roundoff if space.unit_roundoff < 1e-10 else 1e-5
        block = space.blocks[0]
        one = len(space.blocks) == 1 and space.scalars is FLOATS
        self._plain = one and block.stiefel and block.kernels.scalars is FLOATS
        self._started = False
        self._reference: Any = None  # what the merit of a trial is held against
        self._scale: Any = 0.0
        self._uphill: Any = 0
        self._stiffness: Any = 0.0
        self._measured = False
        self._still: Any = 0
        self._cap: Any = math.inf  # of the step along the direction under way
        # Of each matrix in a separable stack: steps taken, refusals in a row, the step to try next.
        self._taken: Any = 0
        self._refusals: Any = 0
        self._next_trial: Any = 0.0

    # -- what a search decides ----------------------------------------------------------------

    def _first_trial(self, point: Point, steepest: bool) -> Any:
        raise NotImplementedError

    def _accepts(self, point: Point, forms: list[Form], eta: Any, fall: Any) -> Any:
        """Is the (finite) trial in ``_spare`` accepted; ``fall`` is eta <psi, F>."""
        raise NotImplementedError

    def _after_refusal(self, point: Point, eta: Any, fall: Any, finite: Any) -> Any:
        raise NotImplementedError

    def _update_reference(self, good: Any) -> None:
        raise NotImplementedError

    # -- the search ---------------------------------------------------------------------------

    def first(self, x0: list[Array]) -> Point:
        """The start, projected by Newton–Schulz where it is off the manifold."""
        space = self.space
        for i, block in enumerate(space.blocks):
            if not block.stiefel:
                continue
            d = np.max(block.kernels.host(block.distance(x0[i]))[0])
            if not d <= 4.0 * space.unit_roundoff * block.p**0.5:
                x0[i] = orthonormalized(x0[i], f"{block.name}0")
        place_start(space, self._point, x0)
        self._spare.place([b.kernels.empty(b.inner_shape) for b in space.blocks])
        return self._point

    def advance(self, point: Point, direction: list[Form]) -> Point:
        """Try steps until one is accepted; where none is, the point carries LINE_SEARCH."""
        if not self._started:
            self._started = True
            point.merit = point.fun
            self._reference, self._scale = point.fun, abs(point.fun)
        steepest = direction is point.forms
        slope = self._slope(point, direction, steepest)
        # Below that F does not descend beyond rounding.
        least = 1e-10 * point.gradient_norm * self._length
        if not steepest and not self.space.separable and not slope > least:
            return self._restarted(point)
        if self.space.separable:
            return self._advance_stack(point, direction, slope, steepest)
        eta, self._cap = self._first_trial(point, steepest), math.inf
        for trial in range(self.recipe.max_trials):
            if not self._plain:
                eta = self._capped(eta, direction)
            fall = eta * slope
            finite = self._try(point, direction, eta, fall)
            if finite is None:
                eta = self._cap
                fall = eta * slope
                finite = self._try(point, direction, eta, fall)
            if not self._measured:
                self._measure_stiffness(point, finite)
            if finite and self._accepts(point, direction, eta, fall):
                return self._accepted(point, eta, fall, True)
            if trial == 0 and point.gradient_norm <= self._noise():
                point.status = Status.AT_ROUNDING
                return point
            eta = self._after_refusal(point, eta, fall, finite)
        if not steepest:  # what the direction remembers has misled it
            return self._restarted(point)
        point.status = self._failure(point)
        return point

    def _advance_stack(
        self, point: Point, direction: list[Form], slope: Any, steepest: bool
    ) -> Point:
        space, s = self.space, self.space.scalars
        eta = self._first_trial(point, steepest)
        waits = (self._refusals > 0) & ~np.asarray(point.restart)
        eta = s.where(waits, self._next_trial, eta)
        eta = eta if space.frozen is None else s.where(space.frozen, 0.0, eta)
        self._cap = s.where(waits, self._cap, math.inf)
        eta = self._capped(eta, direction)
        fall = eta * slope
        finite = self._try(point, direction, eta, fall)
        if not self._measured:
            self._measure_stiffness(point, finite)
        good = finite & (fall > 0.0) & self._accepts(point, direction, eta, fall)
        if space.frozen is not None:
            good = good | space.frozen
        if not s.all(good):
            self._next_trial = self._after_refusal(point, eta, fall, finite)
        self._hold(point, good)
        return self._accepted(point, eta, fall, good)

    def _restarted(self, point: Point) -> Point:
        new = self.advance(point, point.forms)
        new.restart = True
        return new

    def _slope(self, point: Point, direction: list[Form], steepest: bool) -> Any:
        """<psi, F>: how fast f falls along -F. Leaves ||F||."""
        if steepest:
            self._length = point.gradient_norm
            return point.gradient_norm * point.gradient_norm
        if self._plain:
            self._length = direction[0].norm()
            return self._along(point, direction)
        space = self.space
        products = space.products(self._pair(point, direction))
        slopes, norms = space.gather([*products, [form.norm() for form in direction]])
        self._length = space.combine(norms)
        return space.total(slopes)

    def _pair(self, point: Point, direction: list[Form]) -> tuple[list[Array], list[Array]]:
        return [form.array() for form in point.forms], [form.array() for form in direction]

    def _along(self, point: Point, direction: list[Form]) -> Any:
        """<psi, F> with the psi of any point."""
        if self._plain:
            return direction[0].block.kernels.dot(point.forms[0].array(), direction[0].array())
        return self.space.dots(self._pair(point, direction))[0]

    def _try(self, point: Point, direction: list[Form], eta: Any, fall: Any) -> Any:
        """Move and evaluate there; True (per matrix) where all went well; None beyond the cap."""
        new = self._spare
        normals = self._normals(point)
        tol = self._needed_distance(point, fall, normals)
        if self._plain:
            limit = _STRETCH if self._cap == math.inf else math.inf
            moved = self.moves[0].apply(direction[0], eta, new.x[0], tol, limit)
            if moved.delta is TOO_FAR:
                self._cap = eta * math.sqrt(_STRETCH / moved.distance)
                return None
            x, new_bound, delta, ok = moved
            new.place([x])
            new.distance_bound = new_bound
            if not ok:
                return False
            self.estimator.fill(new)
            self.field(new)
            merit = new.fun
            if delta is not None:
                form = new.forms[0]
                merit -= 0.5 * form.kernels.dot(form.phi, delta)
            new.merit = merit
            return math.isfinite(merit) and math.isfinite(new.gradient_norm)
        normal = max((np.max(eta * each) for each in normals), default=0.0)
        tangent = direction is point.forms
        self._trial.expect(point.distance_bound, eta * self._length, normal, tangent)
        if not self._evaluated(point, direction, eta, tol):
            return False
        ok, holds, self._heard = self._trial.read(new, self._also(point, direction))
        if not holds:
            self._trial.look()
            self._evaluated(point, direction, eta, tol)
            ok, _, self._heard = self._trial.read(new, self._also(point, direction))
        return ok

    def _evaluated(self, point: Point, direction: list[Form], eta: Any, tol: float) -> bool:
        """f, its gradient and psi at the trial, left where the data lives."""
        new, field = self._spare, self.field
        if not self._trial.move(point, new, direction, eta, tol):
            return False
        self.estimator.fill(new, False)
        field.silent, before = True, field.silent
        field(new)
        field.silent = before
        return True

    def _also(self, point: Point, direction: list[Form]) -> list[list[Any]]:
        """[quantity][block] of numbers that are needed soon, read along with the trial's."""
        return []

    def _needed_distance(self, point: Point, fall: Any, normals: list[Any]) -> float:
        """A small part of ||psi|| / ||Phi||; of sqrt(fall / ||Phi||) too in a monotone search.

        ``normals`` are ||Phi|| of the blocks. At distance d, psi has a normal part of d ||Phi|| and the
        merit an error of d^2 ||Phi||: where the normal part of G dominates (f plus a large multiple of
        ||X||^2), X must lie closer. A monotone search cannot improve on a merit that is too low by more
        than the fall.
        """
        monotone = self.recipe.monotone
        if self._plain:
            normal = normals[0]
            if not normal > 0.0:
                return self.recipe.closest
            closest = min(self.recipe.closest, _CLOSE * point.gradient_norm / normal)
            if monotone and fall > 0.0:
                closest = min(closest, _CLOSE * math.sqrt(fall / normal))
            return closest or 1e-300
        closest = self.recipe.closest
        for normal in normals:
            ratio = np.divide(point.gradient_norm, normal)
            if monotone:
                falls = np.where(fall > 0.0, np.divide(fall, normal), np.inf)
                ratio = np.minimum(ratio, np.sqrt(falls))
            if self.space.frozen is not None:
                ratio = np.where(self.space.frozen, np.inf, ratio)
            closest = min(closest, _CLOSE * float(np.min(ratio)))
        return closest if closest > 0.0 else 1e-300

    def _normals(self, point: Point) -> list[Any]:
        """||Phi||_F of each block with a constraint, on the host."""
        if self._plain:
            return [point.forms[0].phi_norm()]
        host = self.space.gather(
            [[f.phi_norm() if f.phi is not None else None for f in point.forms]]
        )
        return [normal for normal in host[0] if normal is not None]

    # -- after a trial ------------------------------------------------------------------------

    def _hold(self, point: Point, good: Any) -> None:
        """Put the refused matrices of a stack back where they were."""
        new, s = self._spare, self.space.scalars
        self._refusals = s.where(good, 0.0, self._refusals + 1.0)
        self._taken = self._taken + good
        if s.all(good):
            return
        refused = ~good
        new.x = [self.space.blocks[0].kernels.replace(new.x[0], refused, point.x[0])]
        form, old = new.forms[0], point.forms[0]
        there = [[each] for f in (form, old) for each in (f.norm(), f.phi_norm())]
        norm, phi, old_norm, old_phi = (each[0] for each in self.space.gather(there))
        form.keep(new.x[0], old, refused)
        form.known(s.where(good, norm, old_norm), s.where(good, phi, old_phi))
        for name in ("fun", "merit", "gradient_norm", "distance_bound"):
            setattr(new, name, s.where(good, getattr(new, name), getattr(point, name)))

    def _accepted(self, point: Point, eta: Any, fall: Any, good: Any) -> Point:
        """The new point; which matrices failed."""
        s, new = self.space.scalars, self._spare
        failed = self._risen(point, new, fall, good) | self._idle(new)
        if self.space.separable:
            failed = failed | (self._refusals >= self.recipe.max_trials)
            # A direction with a memory starts afresh where it has been refused for long.
            new.restart = (self._refusals > 0) & (self._refusals % 10 == 0)
            if s.any(failed):
                new.status = np.where(failed, self._failure(new), int(Status.RUNNING))
        elif failed:
            new.status = self._failure(new)
        self._update_reference(good)
        new.iteration, new.previous = point.iteration + 1, point
        new.step = eta if good is True else s.where(good, eta, 0.0)
        self._spare = point
        return new

    def _measure_stiffness(self, point: Point, where: Any) -> None:
        """||change of psi|| / ||change of X|| over the first trial of all, a step of some length."""
        self._measured = True
        new, space, s = self._spare, self.space, self.space.scalars
        x, y = [], []
        for i, block in enumerate(space.blocks):
            x.append(block.kernels.subtract(new.x[i], point.x[i]))
            y.append(block.kernels.subtract(new.forms[i].array(), point.forms[i].array()))
        stiffness = s.divide(space.norm(y), space.norm(x))
        where = where & s.isfinite(stiffness)
        self._stiffness = s.where(where, stiffness, self._stiffness)

    def _noise(self) -> Any:
        """What rounding of X alone makes of psi, as far as the stiffness is known."""
        return self.space.unit_roundoff * self.space.size_p**0.5 * self._stiffness

    def _failure(self, point: Point) -> Any:
        """AT_ROUNDING where rounding of X alone changes psi by ||psi||, else LINE_SEARCH.

        Where f itself is at rounding (an optimum with f = 0), ||G|| says nothing of the rounding of psi;
        the stiffness of f does.
        """
        space = self.space
        rounding, failed = int(Status.AT_ROUNDING), int(Status.LINE_SEARCH)
        near = point.gradient_norm <= 10.0 * self._noise()
        code = space.scalars.where(near, rounding, failed)
        return np.asarray(code).astype(int) if space.separable else Status(int(code))

    def _rounding_scale(self) -> Any:
        """What the rounding of f is relative to: an f with a large constant still converges."""
        return self.space.scalars.maximum(abs(self._reference), self._scale)

    def _risen(self, point: Point, new: Point, fall: Any, good: Any) -> Any:
        """Has f, ten steps in a row, risen where psi promises that it falls?

        The slack for rounding accepts such steps once they are short enough. A rise so small may be
        rounding, or a long step's, but not each time.
        """
        rise = new.merit - point.merit
        uphill = rise > 0.1 * fall
        if uphill is False and good is True:
            self._uphill = 0
            return False
        s, unit = self.space.scalars, self.space.unit_roundoff
        uphill = uphill & (rise > 20.0 * unit * self._rounding_scale())
        count = s.where(uphill, self._uphill + 1, 0)
        self._uphill = s.where(good, count, self._uphill)
        return self._uphill >= 10

    def _idle(self, new: Point) -> Any:
        """Fifty steps in a row where psi is not above what rounding of X makes of it."""
        near = new.gradient_norm <= 10.0 * self._noise()
        if not self.space.scalars.any(near):
            self._still = 0
            return False
        self._still = self.space.scalars.where(near, self._still + 1, 0)
        return self._still >= 50

    # -- the cap ------------------------------------------------------------------------------

    def _capped(self, eta: Any, direction: list[Form]) -> Any:
        """eta, or the cap where X - eta F is too far; one NumPy matrix sees that in its move."""
        space, s = self.space, self.space.scalars
        unknown = self._cap == math.inf
        near = eta * self._length <= 0.5  # the stretch is 5/4 at most
        if s.any(unknown & ~np.asarray(near)):
            stretch: Any = 0.0
            for form, move in zip(direction, self.moves, strict=True):
                measure = getattr(move, "stretch", None)
                if measure is not None:
                    value = measure(form, eta, _STRETCH)
                    value = value if space.separable else float(np.max(value))
                    stretch = s.maximum(stretch, value)
            beyond = unknown & (stretch > _STRETCH)
            self._cap = s.where(beyond, eta * s.sqrt(s.divide(_STRETCH, stretch)), self._cap)
        # Itself where it is not cut: the move then knows that it has looked there.
        return s.minimum(eta, self._cap) if s.any(eta > self._cap) else eta
