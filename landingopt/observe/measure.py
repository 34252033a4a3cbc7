"""What an observer measures at a point: off the clock, and counted apart from the method's work."""

from __future__ import annotations

from typing import Any

import numpy as np

from landingopt._xp import Array
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Block
from landingopt.stiefel import orthonormalized

# Up to here f - <Phi, Delta>/2 is f(polar X) to 1e-12 relative; beyond, polar X is formed.
ESTIMATE_BELOW = 1e-6


class Measure:
    """f, the gradient norm, the distance and the feasible value at points of one run."""

    def __init__(self, oracle: Oracle):
        self.oracle, self.space = oracle, oracle.space

    def fun(self, point: Point) -> Any:
        """f(x), or nan for a problem without fun."""
        if point.fun is None:
            if not self.oracle.has_value:
                return float("nan")
            with self.oracle.uncounted():
                point.fun = self.oracle.value(point.user)
        return point.fun

    def _gradient(self, point: Point) -> list[Array]:
        if point.gradient is None:
            with self.oracle.uncounted():
                self.oracle.fill_gradient(point)
        assert point.gradient is not None
        return point.gradient

    def _phi(self, point: Point) -> list[Array | None]:
        """sym(X^H G) of each block; None for unconstrained ones."""
        # The forms know it where they follow the gradient itself, not an estimate of it.
        known = point.evaluated and point.forms and point.estimate is None
        if known and all(hasattr(form, "phi") for form in point.forms):
            return [form.phi for form in point.forms]
        return [
            b.kernels.sym(b.kernels.cross(x, g)) if b.stiefel else None
            for b, x, g in zip(self.space.blocks, point.x, self._gradient(point), strict=True)
        ]

    def gradient_norm(self, point: Point) -> Any:
        """||G - X sym(X^H G)||_F over all blocks."""
        if point.gradient_norm is None:
            norms = []
            gradient = self._gradient(point)
            with np.errstate(all="ignore"):  # what is not finite becomes a status, not a warning
                for b, x, g, phi in zip(
                    self.space.blocks, point.x, gradient, self._phi(point), strict=True
                ):
                    k = b.kernels
                    norms.append(k.norm(g if phi is None else k.subtract(g, k.matmul(x, phi))))
                point.gradient_norm = self.space.combine(norms)
        return point.gradient_norm

    def deltas(self, point: Point) -> list[Array | None]:
        return [
            b.delta(x) if b.stiefel else None
            for b, x in zip(self.space.blocks, point.x, strict=True)
        ]

    def distance(self, point: Point) -> Any:
        """||X^H X - I||_F, over all blocks."""
        blocks = zip(self.space.blocks, point.x, strict=True)
        return self.space.combine([block.distance(x) for block, x in blocks])

    def feasible(self, point: Point) -> list[Array]:
        """The closest point of the manifold; fresh arrays. A ValueError where x has not full rank."""
        return [
            self._projected(b, x) if b.stiefel else x
            for b, x in zip(self.space.blocks, point.x, strict=True)
        ]

    def feasible_or_none(self, point: Point) -> list[Array] | None:
        """The same; None where there is no such point, which is no reason to lose a run."""
        try:
            return self.feasible(point)
        except ValueError:
            return None

    def _projected(self, block: Block, x: Array) -> Array:
        """polar x; in a separable stack, matrices that broke stay as they are."""
        if not self.space.separable:
            return orthonormalized(x)
        kernels = block.kernels
        sizes = kernels.host(kernels.norm(x))[0]
        good = np.isfinite(sizes) & (sizes < 1e8)
        if good.all() or not good.any():
            return orthonormalized(x) if good.all() else x
        stand_in = x[tuple(int(index[0]) for index in np.nonzero(good))]
        return kernels.select(good, orthonormalized(kernels.select(good, x, stand_in)), x)

    def feasible_fun(self, point: Point, distance: Any) -> Any:
        """f(polar x): f - <sym(X^H G), Delta>/2 close to the manifold, an evaluation elsewhere."""
        fun = self.fun(point)
        finite = np.isfinite(distance)
        if not np.any(finite) or not self.oracle.has_value:
            return fun
        worst = np.max(np.where(finite, distance, 0.0))
        if worst > ESTIMATE_BELOW:
            self.gradient_norm(point)  # while the point's gradient, the user's memory, is intact
            closest = self.feasible_or_none(point)
            if closest is None:
                return fun * float("nan")
            x = self.space.to_user(closest)
            with self.oracle.uncounted():
                return self.oracle.value(self.space.readonly(x))
        if worst <= 4.0 * self.space.unit_roundoff:
            return fun
        for b, phi, delta in zip(
            self.space.blocks, self._phi(point), self.deltas(point), strict=True
        ):
            if delta is not None:
                product = b.kernels.host(b.kernels.dot(phi, delta))[0]
                fun = fun - 0.5 * (product if self.space.separable else float(np.sum(product)))
        return fun
