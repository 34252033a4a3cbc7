"""Against the Riemannian gradient of another metric than the field's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from landingopt.fields import Canonical, Form, GradientForm, RightForm, Tangent, check_tangent
from landingopt.point import Point
from landingopt.space import Space


@dataclass(frozen=True)
class Metric:
    """The Riemannian gradient of a metric, for a line search: F = psi A + X B of ``tangent``.

    A search measures slopes with the Euclidean-metric gradient psi, and <psi, F> is how fast f falls
    along -F whatever the metric that F is the gradient of. The tangent terms of ``lo.fields`` depend on
    the tangent part of G alone, for X on the manifold: psi in its place gives the same F.

    Parameters
    ----------
    tangent : tangent of ``lo.fields``
        ``Canonical(metric_scale=1.0)`` by default.

    Notes
    -----
    Cost: four products n p^2 beyond the field's.

    References
    ----------
    The canonical metric with Barzilai–Borwein steps: Wen, Yin, Math. Program. 142, 2013.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.PCA.random(30, 3, rng=0)
    >>> method = lo.riemannian(
    ...     lo.retractions.Cayley(), search=lo.searches.LineSearch(), tangent=lo.fields.Canonical(1.0)
    ... )
    >>> method.direction
    Metric(tangent=Canonical(metric_scale=1.0))
    >>> lo.minimize(problem, method=method, rng=0).success
    True
    """

    tangent: Tangent = field(default_factory=lambda: Canonical(metric_scale=1.0))

    def __post_init__(self) -> None:
        check_tangent(self.tangent)

    def start(self, space: Space, oracle: Any = None) -> MetricRun:
        return MetricRun(self.tangent)


class MetricRun:
    """The forms of the two points of a run: a step rule compares them."""

    __slots__ = ("tangent", "_forms")

    def __init__(self, tangent: Tangent):
        self.tangent = tangent
        self._forms: dict[int, list[Form]] = {}

    def direction(self, point: Point) -> list[Form]:
        if id(point) not in self._forms:
            self._forms[id(point)] = [
                RightForm(form.block, self.tangent, None)
                if isinstance(form, GradientForm)
                else form
                for form in point.forms
            ]
        forms = self._forms[id(point)]
        for form, x, psi in zip(forms, point.x, point.forms, strict=True):
            if form is not psi:
                form.update(x, psi.array())
        point.along = forms
        return forms
