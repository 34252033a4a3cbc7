"""The truncated Newton direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.directions.lbfgs import Pairs, Placed, check_memory
from landingopt.fields import Form
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Space


@dataclass(frozen=True)
class Newton:
    """Truncated Newton: conjugate gradients on the tangent Newton equation.

    At X, with Phi = sym(X^H G) and P(Z) = Z - X sym(X^H Z), the Riemannian Hessian in the Euclidean
    metric is

        H[V] = P( hess f(X)[V] - V Phi ),

    and F solves H[F] = psi, from the best multiple of the L-BFGS direction on, until

        ||H[F] - psi|| <= min(forcing, sqrt(||psi|| / ||psi_0||)) ||psi||,

    until an iteration adds too little to the model (``stagnation``), or until a direction has negative
    curvature. While the gradient is above ``switch`` of the first one the L-BFGS direction is taken as
    it is. Hessian products are the problem's ``hessp``; without one, differences of its gradient, a
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
    stagnation: float = 0.2
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
        self.placed = Placed(space)
        plain = self.hessian.plain
        self.vectors = OneVector(space, self.hessian) if plain else Vectors(space)
        self._first: Any = None

    def direction(self, point: Point) -> list[Form]:
        known = self.pairs.learn(point)
        if self._first is None:
            self._first = point.gradient_norm
        near = point.gradient_norm <= self.recipe.switch * self._first
        solve = self.space.scalars.any(near)
        if not known and not solve:
            return self.placed.field(point)
        psi = [form.array() for form in point.forms]
        rough = self.pairs.times(psi) if known else psi
        arrays = self._solved(point, psi, rough, near) if solve else rough
        if arrays is psi:
            # No pairs, and negative curvature: a field is not scaled as a direction is.
            return self.placed.field(point)
        return self.placed(point, arrays)

    def _solved(self, point: Point, psi: list[Array], rough: list[Array], near: Any) -> list[Array]:
        """Conjugate gradients from the best multiple of ``rough``, which is also the last resort."""
        space, s, recipe = self.space, self.space.scalars, self.recipe
        hessian, vectors = self.hessian, self.vectors
        hessian.at(point)
        norm = point.gradient_norm
        target = norm * s.minimum(recipe.forcing, s.sqrt(norm / self._first))
        # psi has a normal part of d ||Phi||, which no H[d] would take away.
        r = vectors.copy(hessian.projected(psi), 1)
        d = vectors.copy(hessian.projected(rough), 0)
        solution: Any = None
        fall, dd = vectors.dot(r, d), vectors.dot(d, d)
        total: Any = s.full(0.0)
        active = near & (fall > 0)
        for j in range(1, recipe.max_inner + 1):
            h = hessian(d)
            dh = vectors.dot(d, h)
            active = active & (dh > _FLAT * hessian.largest * dd)
            if not s.any(active):
                break
            curvature = s.where(active, s.divide(dh, dd), 0.0)
            hessian.largest = s.maximum(hessian.largest, curvature)
            alpha = s.where(active, s.divide(fall, dh), 0.0)
            solution, r = vectors.stepped(solution, r, d, h, alpha)
            gain = alpha * fall
            total = total + gain
            rr = vectors.dot(r, r)
            active = active & (s.sqrt(rr) > target) & (gain * j > recipe.stagnation * total)
            if not s.any(active):
                break
            # After the first direction, which is no residual, they start from where it led.
            beta = s.where(active & (j > 1), s.divide(rr, fall), 0.0)
            d = vectors.turned(d, beta, r)
            fall, dd = rr, rr + beta * beta * dd
        if solution is None:
            return rough
        solution = vectors.blocks(solution)
        if not space.separable:
            return solution
        moved = near & (total > 0)
        return [
            block.kernels.select(moved, u, v)
            for block, u, v in zip(space.blocks, solution, rough, strict=True)
        ]


class Vectors:
    """What conjugate gradients do with vectors: lists of blocks."""

    def __init__(self, space: Space):
        self.space = space
        self.kernels = [block.kernels for block in space.blocks]
        self._work = [b.kernels.empty(b.inner_shape) for b in space.blocks]

    def copy(self, u: list[Array], slot: int) -> Any:
        """``slot`` 0 is d's, 1 is r's."""
        return [_xp.copy(a) for a in u]

    def blocks(self, u: Any) -> list[Array]:
        return u

    def dot(self, u: Any, v: Any) -> Any:
        return self.space.dots((u, v))[0]

    def stepped(self, solution: Any, r: Any, d: Any, h: Any, t: Any) -> tuple[Any, Any]:
        """solution + t d (0 + t d where it is None), and r - t h, in place."""
        if solution is None:
            solution = [k.scale(a, t) for k, a in zip(self.kernels, d, strict=True)]
        else:
            solution = self._plus(solution, d, t)
        return solution, self._plus(r, h, -t)

    def _plus(self, u: Any, v: Any, t: Any) -> Any:
        """u + t v, in place of u."""
        for i, k in enumerate(self.kernels):
            self._work[i] = k.scale(v[i], t, out=self._work[i])
            u[i] = k.add(u[i], self._work[i], out=u[i])
        return u

    def turned(self, d: Any, beta: Any, r: Any) -> Any:
        """r + beta d, in place of d."""
        for i, k in enumerate(self.kernels):
            d[i] = k.add(k.scale(d[i], beta, out=d[i]), r[i], out=d[i])
        return d


class OneVector(Vectors):
    """The same for one NumPy matrix, without the lists.

    The directions are kept side by side as rows, and the solution is their combination: formed in one
    product for many of them, where a sum that is carried along costs two passes for each.
    """

    def __init__(self, space: Space, hessian: TangentHessian):
        super().__init__(space)
        kernels, shape = self.kernels[0], space.blocks[0].inner_shape
        self.dot = kernels.dot  # type: ignore[method-assign]
        rows = kernels.empty((_ROWS, *shape))
        self._flat, self._rows = rows.reshape(_ROWS, -1), list(rows)
        self._r, self._solution = kernels.empty(shape), kernels.empty(shape)
        self._sizes: list[float] = []  # of the directions in the rows
        self._begun = False
        hessian.leave_in(self._work[0])

    def copy(self, u: list[Array], slot: int) -> Any:
        if slot:
            target = self._r
        else:
            target, self._sizes, self._begun = self._rows[0], [], False
        target[...] = u[0]
        return target

    def blocks(self, u: Any) -> list[Array]:
        self._combine()
        return [self._solution.copy()]

    def stepped(self, solution: Any, r: Any, d: Any, h: Any, t: Any) -> tuple[Any, Any]:
        self._sizes.append(t)
        np.multiply(h, t, h)  # our own memory, until the next product
        return self._solution, np.subtract(r, h, r)

    def turned(self, d: Any, beta: Any, r: Any) -> Any:
        if len(self._sizes) == _ROWS:
            self._combine()
        following = np.multiply(d, beta, self._rows[len(self._sizes)])
        return np.add(following, r, following)

    def _combine(self) -> None:
        """Add what the rows hold to the solution."""
        sizes = np.array(self._sizes, dtype=self._flat.dtype)
        part = (sizes @ self._flat[: len(sizes)]).reshape(self._solution.shape)
        self._solution[...] = self._solution + part if self._begun else part
        self._sizes, self._begun = [], True


_ROWS = 16
_FLAT = 1e-13  # of the largest curvature seen: as good as none


class TangentHessian:
    """V -> P(hess f(X)[V] - V Phi) at one point, on tangent V."""

    def __init__(self, space: Space, oracle: Oracle):
        self.space, self.oracle = space, oracle
        space.keeps_gradient = oracle.hessp is None
        self.plain = space.plain and space.blocks[0].stiefel  # one NumPy matrix
        self.largest: Any = space.scalars.full(0.0)
        self._x: list[Array] = []
        self._phi: list[Array | None] = []
        self._gradient: list[Array] = []
        self._work: list[Array] = []
        self._out: list[Array] = []
        self._half: Any = None  # X / 2
        self._product: Any = None
        self.fused: Any = getattr(space.blocks[0].kernels, "tangent_hessian", None)
        self._small: list[Any] = []  # two buffers (p, p) of an orthogonal block
        for block in space.blocks:
            empty, shape = block.kernels.empty, block.inner_shape
            self._work.append(empty(shape))
            self._out.append(empty(shape))
            small = (*block.batch, block.p, block.p)
            self._small.append((empty(small), empty(small)) if block.stiefel else None)

    def leave_in(self, memory: Array) -> None:
        """Where the products of one NumPy matrix are to lie."""
        self._product = memory

    def at(self, point: Point) -> None:
        self._x = point.x
        self._user = point.user
        if self.plain:
            self._half = 0.5 * point.x[0]
        self._phi = [form.phi for form in point.forms]
        if self.oracle.hessp is None:
            assert point.gradient is not None
            # The user's memory, which the next gradient may overwrite.
            self._gradient = [_xp.copy(g) for g in point.gradient]

    def __call__(self, v: Any) -> Any:
        """Valid until the next call."""
        if self.plain:
            h = self._euclidean([v])[0]
            small, work = self._small[0], self._work[0]
            return self.fused(
                h, v, self._phi[0], self._x[0], self._half, small, work, self._product
            )
        products = self._euclidean(v)
        for i, block in enumerate(self.space.blocks):
            phi = self._phi[i]
            if phi is not None:
                k, work = block.kernels, self._work[i]
                work = k.subtract(products[i], k.matmul(v[i], phi, out=work), out=work)
                self._work[i] = products[i] = work
        return self.projected(products)

    def projected(self, arrays: list[Array]) -> list[Array]:
        """P(Z) = Z - X sym(X^H Z) on orthogonal blocks; valid until the next call."""
        for i, (block, x, z) in enumerate(zip(self.space.blocks, self._x, arrays, strict=True)):
            if block.stiefel:
                self._out[i] = block.kernels.project(x, z, *self._small[i], self._out[i])
            else:
                self._out[i] = z
        return self._out

    def _euclidean(self, v: list[Array]) -> list[Array]:
        space = self.space
        if self.oracle.hessp is not None:
            user = space.view(v[0]) if self.plain else space.readonly(space.to_user(v))
            return self.oracle.checked(self.oracle.hessian(self._user, user), "Hessian product")
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
