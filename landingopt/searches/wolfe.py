"""A search for directions with a memory: enough fall, and enough change of slope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from landingopt.estimators.full import FullRun
from landingopt.fields import FieldRun, Form
from landingopt.moves import Move
from landingopt.point import Point
from landingopt.searches.trials import SearchRun, check_trials
from landingopt.space import Space


@dataclass(frozen=True)
class Wolfe:
    """The weak Wolfe conditions on the merit m(X) = f(polar X) + O(d^2), by bracketing.

    With the slopes phi' = -<psi, F> at X and phi'_+ = -<psi_+, F> at the trial, t is accepted when

        m_+ <= m + decrease t phi'    and    phi'_+ >= curvature phi'

    (the second not where t is at its cap, or a longer trial was not finite).

    Where m has lost its digits to rounding, m_+ <= m + slack and phi'_+ <= 0.8 |phi'| stand in for the
    first (the approximate Wolfe conditions of Hager and Zhang). A direction of unit scale is tried at
    t = 1; along psi itself the first trial turns every column by a tenth of a radian. Value and gradient
    are evaluated together, once a trial.

    Parameters
    ----------
    decrease, curvature : float
        0 < decrease < curvature < 1. A smaller ``curvature`` is a more exact search.
    max_trials : int
        Then the direction is given up for the field itself, and after as many again the run.
    closest : float
        Trial points are brought to this distance from the manifold, or closer.

    Raises
    ------
    ValueError
        Parameters outside these ranges.

    References
    ----------
    P. Wolfe, Convergence conditions for ascent methods, SIAM Review 11, 1969; Hager, Zhang, A new
    conjugate gradient method with guaranteed descent, SIAM J. Optim. 16, 2005.

    Examples
    --------
    L-BFGS with a more exact search; the field and the move are those of ``lo.landing()``:

    >>> import landingopt as lo
    >>> method = lo.Method(
    ...     search=lo.searches.Wolfe(curvature=0.5),
    ...     direction=lo.directions.LBFGS(memory=20),
    ...     field=lo.fields.Field(lo.fields.Euclidean(exact=False), normal=None),
    ...     move=lo.moves.NewtonSchulz(),
    ... )
    >>> lo.minimize(lo.problems.Procrustes.random(10, rng=0), method=method, rng=0).success
    True
    """

    decrease: float = 1e-4
    curvature: float = 0.9
    max_trials: int = 30
    closest: float = 1e-2

    needs_value = True
    monotone = True

    def __post_init__(self) -> None:
        if not 0.0 < self.decrease < self.curvature < 1.0:
            raise ValueError(
                "decrease and curvature must satisfy 0 < decrease < curvature < 1, got "
                f"{self.decrease!r} and {self.curvature!r}"
            )
        check_trials(self.max_trials, self.closest)

    def start(
        self, space: Space, field: FieldRun, move: Move, estimator: FullRun, lam: float
    ) -> WolfeRun:
        return WolfeRun(self, space, field, move, estimator)


class WolfeRun(SearchRun):
    """The bracket [lo, hi] of the search under way, with the slope at lo."""

    _low: Any = 0.0
    _high: Any = math.inf
    _low_slope: Any = 0.0
    _trial_slope: Any = 0.0
    _short: Any = False
    _slope_here: Any = 0.0
    _broken: Any = False  # a longer trial was not finite: there is no slope to wait for

    def _first_trial(self, point: Point, steepest: bool) -> Any:
        space, s = self.space, self.space.scalars
        fresh = (self._refusals == 0) | point.restart
        self._broken = False if fresh is True else self._broken & ~fresh
        self._low = s.where(fresh, 0.0, self._low)
        self._high = s.where(fresh, math.inf, self._high)
        if not steepest:
            return s.full(1.0)
        return s.divide(0.1 * space.size_p**0.5, point.gradient_norm)

    def _also(self, point: Point, direction: list[Form]) -> list[list[Any]]:
        return self.space.products(self._pair(self._spare, direction))

    def _accepts(self, point: Point, forms: list[Form], eta: Any, fall: Any) -> Any:
        recipe, new = self.recipe, self._spare
        slope = self.space.scalars.divide(fall, eta)
        after = self._along(new, forms) if self._plain else self._heard[0]
        slack = self._slack * self._rounding_scale()
        falls = new.merit <= point.merit - recipe.decrease * fall
        falls = falls | ((new.merit <= point.merit + slack) & (-after <= 0.8 * slope))
        # At a wall of numbers that are not finite a level step would only creep along it.
        falls = falls & ((new.merit < point.merit) | (self._broken == False))  # noqa: E712
        self._short = falls  # if it is refused all the same, the step was too short
        self._trial_slope, self._slope_here = after, slope
        enough = (after <= recipe.curvature * slope) | (eta >= self._cap) | self._broken
        return falls & enough

    def _after_refusal(self, point: Point, eta: Any, fall: Any, finite: Any) -> Any:
        """Too short: lengthen it, to where the slopes put the minimum; too long: inside the bracket."""
        s = self.space.scalars
        short = finite & self._short
        self._broken = self._broken | (finite == False)  # noqa: E712 - one, or one for each matrix
        after, slope = self._trial_slope, self._slope_here
        low_slope = s.where(self._low > 0.0, self._low_slope, slope)
        # The secant through the slopes at lo and here.
        ratio = s.divide(low_slope, low_slope - after)
        secant = self._low + ratio * (eta - self._low)
        known = finite & s.isfinite(secant)
        self._low_slope = s.where(short, after, low_slope)
        self._low = s.where(short, eta, self._low)
        self._high = s.where(short, self._high, eta)
        longer = s.where(
            known & (secant > eta), s.maximum(2.0 * eta, s.minimum(secant, 10.0 * eta)), 2.0 * eta
        )
        longer = s.minimum(longer, self._cap)
        width = self._high - self._low
        inside = s.where(known, secant, self._low + 0.5 * width)
        inside = s.maximum(self._low + 0.1 * width, s.minimum(inside, self._high - 0.1 * width))
        inside = s.where(known, inside, self._low + 0.25 * width)
        return s.where(self._high < math.inf, inside, longer)

    def _update_reference(self, good: Any) -> None:
        s = self.space.scalars
        self._reference = s.where(good, self._spare.merit, self._reference)
