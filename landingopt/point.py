"""An iterate and what is known there."""

from __future__ import annotations

from typing import Any

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Variable
from landingopt.space import Space


class Point:
    """One iterate: x, and whatever has been computed at it. Made twice a run, then reused.

    A user's own part reads ``iteration``, ``user`` (x in the user's form, read-only), ``fun``,
    ``distance_bound``, ``space``, and the field's ``forms``, one for each block
    (:class:`landingopt.fields.Form`).

    Attributes
    ----------
    x : list of arrays
        The blocks, tall.
    gradient : list of arrays or None
        The exact Euclidean gradient of f; the user's memory, valid until the next call of it. What
        is measured (the gradient norm, the feasible value, the stop rules) is measured with it.
    estimate : list of arrays or None
        What the estimator hands to the field in its place (momentum, say); the estimator's memory,
        valid until its next ``fill``. None: the field follows ``gradient``.
    fun : float, array or None
        f(x) as a host number, where it has been evaluated.
    merit : float, array or None
        The feasible value f(polar x) to second order, where a search has needed it.
    gradient_norm : float, array or None
        Norm of the Euclidean-metric Riemannian gradient, where the step leaves it.
    status : Status, array of them, or None
        Set by a search that failed here.
    distance_bound : float or array
        ||X^H X - I||_F, or a bound on it, as the step left it; infinite where nothing is known.
    previous : Point or None
        The point before this one, still intact while the step from this one is being chosen.
    iteration : int
        How many steps led here.
    step : float, array or None
        The step that led here.
    along : list of forms or None
        What a direction with a metric of its own has led along from here, for the step rule to compare;
        None: the field's forms.
    restart : bool or array
        Set by a search that has given up the direction: what it remembers is to be dropped.
    """

    __slots__ = (
        "space", "forms", "x", "gradient", "estimate", "fun", "merit", "distance_bound", "iteration",
        "step", "evaluated", "_parts", "previous", "gradient_norm", "status", "restart", "along",
        "_user", "_user_of", "_plain",
    )  # fmt: skip

    def __init__(self, space: Space, forms: list[Any]):
        self.space, self.forms = space, forms
        # Of one block, itself: not kept, so that no cycle keeps a run's memory when it has ended.
        self._parts = (
            [Point(part, [form]) for part, form in zip(space.split(), forms, strict=True)]
            if len(forms) > 1
            else []
        )
        self._user: Variable = None
        self._user_of: Any = []
        self._plain = space.plain
        self.iteration = 0
        self.step: Any = None
        self.along: list[Any] | None = None
        self.previous: Point | None = None
        self.place([None] * len(forms))

    def place(self, x: list[Array], previous: Point | None = None, step: Any = None) -> None:
        """Move to x and forget everything known elsewhere; with ``previous`` it is the next iterate."""
        self.x = x
        if previous is not None:
            self.iteration, self.step, self.previous = previous.iteration + 1, step, previous
        self.gradient: list[Array] | None = None
        self.estimate: list[Array] | None = None
        self.fun: Any = None
        self.merit: Any = None
        self.gradient_norm: Any = None
        self.status: Any = None
        self.restart: Any = False
        self.evaluated = False
        self.distance_bound: Any = float("inf")

    @property
    def parts(self) -> list[Point]:
        """A point for each block; of one block the point itself."""
        return self._parts or [self]

    def share(self) -> None:
        """Hand iteration, x, gradient and estimate to the per-block parts."""
        if not self._parts:
            return
        for i, part in enumerate(self.parts):
            part.place([self.x[i]])
            part.gradient = None if self.gradient is None else [self.gradient[i]]
            part.estimate = None if self.estimate is None else [self.estimate[i]]
            part.iteration = self.iteration
            part.previous = None if self.previous is None else self.previous.parts[i]

    def settle(self) -> None:
        """Need the user's gradient no more: functions of theirs, which may reuse it, are called next."""
        if self.evaluated:
            for form in self.forms:
                settle = getattr(form, "settle", None)
                if settle is not None:
                    settle()
        if self.space.keeps_gradient and self.gradient is not None:
            self.gradient = [_xp.copy(g) for g in self.gradient]

    @property
    def followed(self) -> list[Array]:
        """What the field follows: the estimate where the estimator left one, else the gradient."""
        followed = self.gradient if self.estimate is None else self.estimate
        assert followed is not None
        return followed

    @property
    def user(self) -> Variable:
        """x in the user's form; read-only where the library has read-only views."""
        x = self.x
        if self._plain:
            a = x[0]
            if a is not self._user_of:
                self._user, self._user_of = self.space.view(a), None if self.space.copies else a
            return self._user
        if self._user is None or any(a is not b for a, b in zip(x, self._user_of, strict=False)):
            self._user = self.space.readonly(self.space.to_user(x))
            # A conjugated copy goes stale when its buffer is rewritten; a view does not.
            stale = any(block.wide and _xp.is_complex(a) for block, a in zip(self.space.blocks, x))
            self._user_of = [None] * len(x) if stale else x
        return self._user
