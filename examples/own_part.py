"""A step rule of one's own: any class with ``start`` and, on what it returns, ``size``.

The rule below turns by at most a given angle: eta = min(step, angle / ||F||_F), long steps where the
field is weak and careful ones where it is strong. ``Safeguarded`` keeps it inside the tube.
"""

from dataclasses import dataclass

import landingopt as lo


@dataclass(frozen=True)
class Bounded:
    """eta = min(step, angle / ||F||_F), per matrix."""

    step: float
    angle: float

    def start(self, context):
        """Called once at the start of a solve; ``scalars`` works on floats and on stacks alike."""
        return BoundedRun(self, context.numbers.scalars)


class BoundedRun:
    """The rule at work; a rule with memory would keep it here."""

    def __init__(self, recipe, scalars):
        self.recipe, self.scalars = recipe, scalars

    def size(self, k, point):
        """The step from ``point``, k steps after the start; ``forms[0]`` is the field there."""
        norm = self.scalars.maximum(point.forms[0].norm(), 1e-30)
        return self.scalars.minimum(self.recipe.step, self.recipe.angle / norm)


problem = lo.problems.Procrustes.random(30, rng=0, weight=1 / 30)
constant = lo.landing(step=0.05, lam=1.0)
own = lo.landing(step=Bounded(step=0.2, angle=0.5), lam=1.0)

for name, method in {"constant step": constant, "own rule": own}.items():
    result = lo.minimize(problem, method=method, rng=1)
    print(
        f"{name:>14}: {result.nit:5d} iterations, {result.status.name}, f = {result.feasible_fun:.6f}"
    )
