"""Backtracking on the merit, nonmonotone or monotone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from landingopt.estimators.full import FullRun
from landingopt.fields import FieldRun, Form
from landingopt.moves import Move
from landingopt.point import Point
from landingopt.searches.trials import SearchRun, check_trials
from landingopt.space import Space
from landingopt.steps import BarzilaiBorwein, Context, Step, check_rule


@dataclass(frozen=True)
class LineSearch:
    """Backtracking on the merit m(X) = f(X) - <sym(X^H G), Delta> / 2 = f(polar X) + O(d^2).

    A step eta along -F is accepted when m_+ <= C - decrease eta <psi, F>, with psi the Euclidean-metric
    gradient and C the weighted mean of past merits of Zhang and Hager. ``memory = 0`` makes C the last
    merit: monotone (Armijo). The merit is unbounded below off the manifold, so trial points are brought
    to a distance of at most ``closest`` before f is evaluated, and of a small part of ||psi|| / ||Phi||;
    in a monotone search of sqrt(fall / ||Phi||) too, since a merit too low by O(d^2) cannot be
    improved on.

    Parameters
    ----------
    guess : step rule
        The first trial of each search.
    memory : float in [0, 1)
        Weight of the past in C.
    decrease : float
        Armijo's constant.
    max_trials : int
    closest : float
        The feasibility guard: trial points are at most this far from the manifold.

    References
    ----------
    Zhang, Hager, A nonmonotone line search technique, SIAM J. Optim. 14, 2004; the merit: [AVGA24]
    (Fletcher's augmented Lagrangian without its penalty).

    Examples
    --------
    The landing with a monotone (Armijo) search:

    >>> import landingopt as lo
    >>> method = lo.Method(
    ...     search=lo.searches.LineSearch(memory=0.0),
    ...     field=lo.landing().field,
    ...     move=lo.moves.NewtonSchulz(),
    ... )
    >>> lo.minimize(lo.problems.Procrustes.random(10, rng=0), method=method, rng=0).success
    True
    """

    guess: Step = field(default_factory=BarzilaiBorwein)
    memory: float = 0.95
    decrease: float = 1e-4
    max_trials: int = 30
    closest: float = 1e-2

    needs_value = True

    def __post_init__(self) -> None:
        check_rule(self.guess, "guess")
        if not 0.0 <= self.memory < 1.0:
            raise ValueError(f"memory must lie in [0, 1), got {self.memory!r}")
        if not 0.0 < self.decrease < 0.5:
            raise ValueError(f"decrease must lie in (0, 0.5), got {self.decrease!r}")
        check_trials(self.max_trials, self.closest)

    @property
    def monotone(self) -> bool:
        return self.memory == 0.0

    def start(
        self, space: Space, field: FieldRun, move: Move, estimator: FullRun, lam: float
    ) -> LineSearchRun:
        return LineSearchRun(self, space, field, move, estimator)


class LineSearchRun(SearchRun):
    """The state of a line search: the reference value C and its weight Q."""

    def __init__(
        self, recipe: LineSearch, space: Space, field: FieldRun, move: Move, estimator: FullRun
    ):
        super().__init__(recipe, space, field, move, estimator)
        self.guess = recipe.guess.start(Context(space, 0.0, space.size_p**0.5, space.accelerator))
        self._weight: Any = 1.0

    def _first_trial(self, point: Point, steepest: bool) -> Any:
        return self.guess.size(self._taken if self.space.separable else point.iteration, point)

    def _also(self, point: Point, direction: list[Form]) -> list[list[Any]]:
        """What the next step will be made of."""
        ahead = getattr(self.guess, "ahead", None)
        if ahead is None or direction is not point.forms:
            return []
        return ahead(self.space, self._spare, point)

    def _accepts(self, point: Point, forms: list[Form], eta: Any, fall: Any) -> Any:
        slack, merit, s = (
            self._slack * self._rounding_scale(),
            self._spare.merit,
            self.space.scalars,
        )
        level = self._reference - self.recipe.decrease * fall
        lower, near = merit <= level, merit <= level + slack
        if not self.recipe.monotone or s.all(lower | ~np.asarray(near)):
            return near
        # Where rounding hides the fall, a monotone search asks the slope: not far beyond the minimum.
        slope, after = s.divide(fall, eta), self._along(self._spare, forms)
        return lower | (near & (-after <= 0.8 * slope))

    def _after_refusal(self, point: Point, eta: Any, fall: Any, finite: Any) -> Any:
        """The step to try after a refusal: where a parabola through the trial has its minimum."""
        s = self.space.scalars
        if finite is False:
            return 0.25 * eta
        curvature = 2.0 * (self._spare.merit - point.merit + fall)
        fitted = s.where(curvature > 0, s.divide(fall, curvature) * eta, 0.5 * eta)
        fitted = s.maximum(0.1 * eta, s.minimum(0.5 * eta, fitted))
        return s.where(finite, fitted, 0.25 * eta)

    def _update_reference(self, good: Any) -> None:
        """C and Q of Zhang and Hager."""
        if self._heard:  # matrices of a stack that were refused are where they were
            guess: Any = self.guess
            s = self.space.scalars
            guess.hear(self._spare, [s.where(good, value, 0.0) for value in self._heard])
        s, past = self.space.scalars, self.recipe.memory * self._weight
        mean = (past * self._reference + self._spare.merit) / (past + 1.0)
        self._reference = mean if good is True else s.where(good, mean, self._reference)
        self._weight = past + 1.0 if good is True else s.where(good, past + 1.0, self._weight)
