"""The nonlinear conjugate gradient direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from landingopt._xp import Array
from landingopt.fields import ArrayForm, Form
from landingopt.point import Point
from landingopt.space import Space


@dataclass(frozen=True)
class ConjugateGradient:
    """Nonlinear conjugate gradients, F_+ = psi_+ + beta F, without transport.

    beta = max(0, min(<psi_+, y> / <-F, y>, ||psi_+||^2 / <-F, y>)), y = psi_+ - psi: the hybrid of
    Hestenes–Stiefel and Dai–Yuan, which descends under the weak Wolfe conditions.

    References
    ----------
    Dai, Yuan, An efficient hybrid conjugate gradient method for unconstrained optimization, Ann. Oper.
    Res. 103, 2001.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.directions.ConjugateGradient()
    ConjugateGradient()
    """

    def start(self, space: Space, oracle: Any = None) -> ConjugateGradientRun:
        return ConjugateGradientRun(space)


class ConjugateGradientRun:
    """The last F, and its length: the step along it that the search is to try first."""

    __slots__ = ("arrays", "forms", "length", "space")

    def __init__(self, space: Space):
        self.space = space
        self.forms = [ArrayForm(block) for block in space.blocks]
        self.arrays: list[Array] = []
        self.length: Any = 1.0

    def direction(self, point: Point) -> list[Form]:
        previous, s = point.previous, self.space.scalars
        psi = [form.array() for form in point.forms]
        if previous is None or (point.restart is True):
            self.arrays, self.length = [], 1.0
            return point.forms
        old = [form.array() for form in previous.forms]
        last = self.arrays or old
        before, after, square, mixed, size = self.space.dots(
            (last, old), (last, psi), (psi, psi), (psi, old), (last, last)
        )
        step = point.step * self.length
        change = before - after  # <-F, y>
        beta = s.maximum(0.0, s.divide(s.minimum(square - mixed, square), change))
        beta = s.where(s.isfinite(beta) & (change > 0), beta, 0.0)
        # The curvature along the last step, taken for that of the next: exact for f with H = c I.
        slope, length_squared = square + beta * after, square + beta * (2.0 * after + beta * size)
        length = s.divide(slope * step * size, change * length_squared)
        usable = s.isfinite(length) & (length > 0) & (slope > 0)
        first = s.divide(0.1 * self.space.size_p**0.5, s.sqrt(square))
        length = s.where(usable, length, first)
        beta = s.where(usable, beta, 0.0)
        if self.space.separable:
            held = (point.step == 0) & ~point.restart
            length = s.where(held, self.length, s.where(point.restart, first, length))
            beta = s.where(point.restart, 0.0, beta)
        else:
            held = False
        self.length = length
        arrays = []
        for form, x, g, f in zip(self.forms, point.x, psi, last, strict=True):
            k = form.block.kernels
            new = k.add(g, k.scale(f, beta))
            new = new if held is False else k.select(held, f, new)
            arrays.append(new)
            form.place(x, k.scale(new, length))
        self.arrays = arrays
        return list(self.forms)
