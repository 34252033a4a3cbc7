"""The truncated Newton direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from landingopt import _xp
from landingopt._xp import Array
from landingopt.directions.lbfgs import Pairs, check_memory
from landingopt.fields import ArrayForm, Form
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Space


@dataclass(frozen=True)
class Newton:
    """Truncated Newton: preconditioned conjugate gradients on the tangent Newton equation.

    At X, with Phi = sym(X^H G) and P(Z) = Z - X sym(X^H Z), the Riemannian Hessian in the Euclidean
    metric is

        H[V] = P( hess f(X)[V] - V Phi ),

    and F solves H[F] = psi until ||H[F] - psi|| <= min(forcing, sqrt(||psi|| / ||psi_0||)) ||psi||, until
    an iteration adds too little to the model (``stagnation``), or until a direction of negative
    curvature. Until the gradient has fallen to ``switch`` of the first one, and where the first
    direction has negative curvature, the L-BFGS direction is taken. Hessian products are the problem's ``hessp``; without one, differences of its gradient, a
    gradient for each product.

    Parameters
    ----------
    memory : int
        Pairs of the L-BFGS directions.
    switch : float
        1 for Newton from the start.
    forcing : float in (0, 1)
    stagnation : float
        Stop when the j-th iteration has lowered the quadratic model by less than ``stagnation`` / j of
        what all have: singular Hessians (PCA, where f is constant along rotations of X) are not
        over-solved.
    max_inner : int
        Products with the Hessian in one direction.

    References
    ----------
    [AMS08] chapters 6 and 8; Nash, Sofer, Assessing a search direction within a truncated-Newton
    method, Oper. Res. Lett. 9, 1990, for the stagnation test.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.directions.Newton(memory=5).memory
    5
    """

    memory: int = 8
    switch: float = 0.1
    forcing: float = 0.5
    stagnation: float = 0.3
    max_inner: int = 500

    def __post_init__(self) -> None:
        check_memory(self.memory)
        for name, top in {"switch": math.inf, "forcing": 1.0}.items():
            value = getattr(self, name)
            if not 0.0 < value < top:
                raise ValueError(f"{name} must lie strictly between 0 and {top:g}, got {value!r}")
        if not 0.0 <= self.stagnation < 1.0:
            raise ValueError(f"stagnation must lie in [0, 1), got {self.stagnation!r}")
        if self.max_inner < 1:
            raise ValueError(f"max_inner must be at least 1, got {self.max_inner!r}")

    def start(self, space: Space, oracle: Oracle) -> NewtonRun:
        return NewtonRun(self, space, oracle)


class NewtonRun:
    """Newton directions from the switch on, L-BFGS directions before."""

    def __init__(self, recipe: Newton, space: Space, oracle: Oracle):
        self.recipe, self.space = recipe, space
        self.hessian = TangentHessian(space, oracle)
        self.pairs = Pairs(recipe.memory, space)
        self.forms = [ArrayForm(block) for block in space.blocks]
        self._work = [b.kernels.empty(b.inner_shape) for b in space.blocks]
        self._first: Any = None

    def direction(self, point: Point) -> list[Form]:
        known = self.pairs.learn(point)
        if self._first is None:
            self._first = point.gradient_norm
        near = point.gradient_norm <= self.recipe.switch * self._first
        solve = self.space.scalars.any(near)
        if not known and not solve:
            return point.forms
        psi = [form.array() for form in point.forms]
        rough = self.pairs.times(psi) if known else psi
        arrays = self._solved(point, psi, rough, near) if solve else rough
        for form, x, array in zip(self.forms, point.x, arrays, strict=True):
            form.place(x, array)
        return list(self.forms)

    def _solved(self, point: Point, psi: list[Array], rough: list[Array], near: Any) -> list[Array]:
        """Conjugate gradients whose first direction is ``rough``, which is also the last resort."""
        space, s, recipe = self.space, self.space.scalars, self.recipe
        hessian, dots = self.hessian, space.dots
        hessian.at(point)
        norm = point.gradient_norm
        target = norm * s.minimum(recipe.forcing, s.sqrt(norm / self._first))
        r = [_xp.copy(g) for g in psi]
        d = [_xp.copy(a) for a in hessian.projected(rough, self._work)]
        solution: list[Array] | None = None
        (fall,) = dots((r, d))
        total: Any = s.full(0.0)
        active = near & (fall > 0)
        for j in range(1, recipe.max_inner + 1):
            h = hessian(d)
            dd, dh = dots((d, d), (d, h))
            curvature = s.divide(dh, dd)
            active = active & (curvature > _FLAT * hessian.largest)
            if not s.any(active):
                break
            hessian.largest = s.maximum(hessian.largest, s.where(active, curvature, 0.0))
            alpha = s.where(active, s.divide(fall, dh), 0.0)
            solution = self._plus(solution, d, alpha)
            self._plus(r, h, -alpha)
            gain = alpha * fall
            total = total + gain
            rr, rh = dots((r, r), (r, h))
            active = active & (s.sqrt(rr) > target) & (gain * j > recipe.stagnation * total)
            if not s.any(active):
                break
            # Conjugate to any d; it is ||r_+||^2 / ||r||^2 once d comes from residuals alone.
            beta = s.where(active, -s.divide(rh, dh), 0.0)
            fall = rr
            for i, block in enumerate(space.blocks):
                k = block.kernels
                d[i] = k.add(k.scale(d[i], beta, out=d[i]), r[i], out=d[i])
        if solution is None:
            return rough
        return self._where(near & (total > 0), solution, rough) if space.separable else solution

    def _where(self, condition: Any, a: list[Array], b: list[Array]) -> list[Array]:
        return [
            block.kernels.select(condition, u, v)
            for block, u, v in zip(self.space.blocks, a, b, strict=True)
        ]

    def _plus(self, arrays: list[Array] | None, others: list[Array], t: Any) -> list[Array]:
        """arrays + t others, in place; None stands for zeros."""
        kernels = [block.kernels for block in self.space.blocks]
        if arrays is None:
            return [k.scale(b, t) for k, b in zip(kernels, others, strict=True)]
        for i, k in enumerate(kernels):
            self._work[i] = k.scale(others[i], t, out=self._work[i])
            arrays[i] = k.add(arrays[i], self._work[i], out=arrays[i])
        return arrays


_FLAT = 1e-13  # of the largest curvature seen: as good as none


class TangentHessian:
    """V -> P(hess f(X)[V] - V Phi) at one point, on tangent V."""

    def __init__(self, space: Space, oracle: Oracle):
        self.space, self.oracle = space, oracle
        self.largest: Any = space.scalars.full(0.0)
        self._x: list[Array] = []
        self._phi: list[Array | None] = []
        self._gradient: list[Array] = []
        self._work, self._out, self._small = [], [], []
        for block in space.blocks:
            empty, shape = block.kernels.empty, block.inner_shape
            self._work.append(empty(shape))
            self._out.append(empty(shape))
            small = (*block.batch, block.p, block.p)
            self._small.append((empty(small), empty(small)) if block.stiefel else None)

    def at(self, point: Point) -> None:
        self._x = point.x
        self._user = point.user
        self._phi = [form.phi for form in point.forms]
        if self.oracle.hessp is None:
            assert point.gradient is not None
            # The user's memory, which the next gradient may overwrite.
            self._gradient = [_xp.copy(g) for g in point.gradient]

    def __call__(self, v: list[Array]) -> list[Array]:
        """Valid until the next call."""
        product = self._euclidean(v)
        for i, block in enumerate(self.space.blocks):
            phi = self._phi[i]
            if phi is not None:
                k, work = block.kernels, self._work[i]
                work = k.subtract(product[i], k.matmul(v[i], phi, out=work), out=work)
                self._work[i] = product[i] = work
        self._out = self.projected(product, self._out)
        return self._out

    def projected(self, arrays: list[Array], out: list[Array]) -> list[Array]:
        """P(Z) = Z - X sym(X^H Z) on orthogonal blocks; ``out`` is memory to use."""
        for i, (block, x, z) in enumerate(zip(self.space.blocks, self._x, arrays, strict=True)):
            if block.stiefel:
                out[i] = block.kernels.project(x, z, *self._small[i], out[i])
            else:
                out[i] = z
        return out

    def _euclidean(self, v: list[Array]) -> list[Array]:
        space = self.space
        if self.oracle.hessp is not None:
            product = self.oracle.hessian(self._user, space.readonly(space.to_user(v)))
            return self.oracle.checked(product, "Hessian product")
        # Forward differences: the step balances truncation against the rounding of the gradient.
        (size,) = space.dots((v, v))
        s = space.scalars
        h = s.divide(math.sqrt(space.unit_roundoff), s.sqrt(size)) * space.size_p**0.5
        x = [
            b.kernels.add(a, b.kernels.scale(u, h))
            for b, a, u in zip(space.blocks, self._x, v, strict=True)
        ]
        moved = space.to_blocks(self.oracle.gradient(space.readonly(space.to_user(x))))
        return [
            b.kernels.scale(b.kernels.subtract(a, g), s.divide(1.0, h))
            for b, a, g in zip(space.blocks, moved, self._gradient, strict=True)
        ]
