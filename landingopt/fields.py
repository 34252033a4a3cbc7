r"""The fields that are followed: a tangent term and a normal term, as p x p coefficients.

Every first-order field is F = G A + X B, with coefficients that depend only on Delta = X^H X - I and
C = X^H G; terms return coefficients and add. For square X the canonical field has the left form
F = K X, one product fewer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from landingopt._xp import Array
from landingopt.point import Point
from landingopt.space import Block, Space


class Tangent(Protocol):
    """A tangent term: ``coefficients(kernels, delta, cross) -> (A, B)``; A = None means I."""

    needs_gram: bool

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]: ...


class Normal(Protocol):
    """A normal term: ``coefficient(kernels, delta) -> B``."""

    def coefficient(self, kernels: Any, delta: Array) -> Array: ...


@dataclass(frozen=True)
class Canonical:
    """The landing's own tangent term, R(X) = skew(G X^H) X = (G S - X G^H X) / 2.

    Tangent to the level sets of the distance at every X of full rank. Its scale is HALF the
    canonical-metric Riemannian gradient (MATH: "metric scale").

    References
    ----------
    [AP22] eq. (4); [AVGA24] definition 2.
    """

    needs_gram = True

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]:
        a = kernels.add_identity(kernels.scale(delta, 0.5), 0.5)
        return a, kernels.scale(kernels.adjoint(cross), -0.5)


@dataclass(frozen=True)
class Euclidean:
    """The Euclidean-metric Riemannian gradient, psi(X) = G - X sym(X^H G).

    Tangent on the manifold only: use it with a normal step that returns there (NewtonSchulz).

    References
    ----------
    [AMS08] section 4.8.
    """

    needs_gram = False

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]:
        return None, kernels.scale(kernels.sym(cross), -1.0)


@dataclass(frozen=True)
class Penalty:
    """The normal term lam X Delta, the gradient of lam ||X^H X - I||^2 / 4.

    References
    ----------
    [AP22] eq. (6); [AVGA24] definition 2.
    """

    lam: float = 1.0

    def coefficient(self, kernels: Any, delta: Array) -> Array:
        return kernels.scale(delta, self.lam)


@dataclass(frozen=True)
class Field:
    """A field to follow: a tangent term, and a normal term or none.

    The landing field of the papers is ``Field(Canonical(), Penalty(lam))``:
    Lambda(X) = skew(G X^H) X + lam X (X^H X - I).

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.fields.Field(lo.fields.Canonical(), lo.fields.Penalty(2.0))
    Field(tangent=Canonical(), normal=Penalty(lam=2.0))
    """

    tangent: Tangent = field(default_factory=Canonical)
    normal: Normal | None = field(default_factory=Penalty)

    def start(self, space: Space) -> FieldRun:
        return FieldRun(self)


class FieldRun:
    """Evaluates the field at points; the point's forms own the buffers."""

    __slots__ = ("recipe", "is_gradient")

    def __init__(self, recipe: Field):
        self.recipe = recipe
        # psi alone: its norm, the Riemannian gradient's, is left with every evaluation.
        self.is_gradient = isinstance(recipe.tangent, Euclidean) and recipe.normal is None

    def point(self, space: Space) -> Point:
        """A fresh point whose forms hold this field."""
        tangent, normal = self.recipe.tangent, self.recipe.normal
        forms: list[Form] = []
        for block in space.blocks:
            if not block.stiefel:
                forms.append(FreeForm(block))
            elif (
                block.n == block.p
                and isinstance(tangent, Canonical)
                and (normal is None or isinstance(normal, Penalty))
            ):
                forms.append(LeftForm(block, 0.0 if normal is None else normal.lam))
            elif isinstance(tangent, Euclidean) and normal is None:
                forms.append(GradientForm(block))
            else:
                forms.append(RightForm(block, tangent, normal))
        return Point(space, forms)

    def __call__(self, point: Point) -> None:
        """Coefficients, and the distance where a Gram matrix is at hand; no-op where done."""
        if point.evaluated:
            return
        followed = point.gradient if point.estimate is None else point.estimate
        assert followed is not None
        with np.errstate(all="ignore"):  # what is not finite becomes a status, not a warning
            for form, x, gradient in zip(point.forms, point.x, followed, strict=True):
                form.update(x, gradient)
            if self.is_gradient and point.estimate is None:
                point.gradient_norm = point.space.combine([form.norm() for form in point.forms])
        point.evaluated = True


class Form:
    """A field on one block, at one point.

    ``distance`` is ||X^H X - I||_F (None where no Gram matrix was formed), ``norm_bound()`` a free
    upper bound on ||F||_F, ``noise()`` its rounding, ``norm()`` the norm, ``array()`` F itself, and
    ``moved(eta, out)`` gives X - eta F. Numbers live where the data lives.
    """

    block: Block
    distance: Any = None

    def update(self, x: Array, gradient: Array) -> None:
        raise NotImplementedError

    def array(self) -> Array:
        raise NotImplementedError

    def norm(self) -> Any:
        raise NotImplementedError

    def norm_bound(self) -> Any:
        return self.norm()

    def noise(self) -> Any:
        """About what rounding adds to F off the tangent space."""
        return 0.0

    def moved(self, eta: Any, out: Array) -> Array:
        raise NotImplementedError


class _Assembled(Form):
    """Forms that hold F as an array."""

    def __init__(self, block: Block):
        self.block, self.kernels = block, block.kernels
        self._array: Array = self.kernels.empty(block.inner_shape)
        self._norm: Any = None
        self.x: Array = None

    def array(self) -> Array:
        return self._array

    def norm(self) -> Any:
        if self._norm is None:
            self._norm = self.kernels.norm(self._array)
        return self._norm

    def moved(self, eta: Any, out: Array) -> Array:
        step = self.kernels.scale(self._array, eta, out=out)
        return self.kernels.subtract(self.x, step, out=out)


class FreeForm(_Assembled):
    """An unconstrained block: F = G."""

    phi = None

    def update(self, x: Array, gradient: Array) -> None:
        self.x, self._norm = x, None
        self._array = self.kernels.copy_into(gradient, self._array)


class GradientForm(_Assembled):
    """The Euclidean tangent alone: psi = G - X Phi, Phi = sym(X^H G); two products n p^2."""

    def __init__(self, block: Block):
        super().__init__(block)
        self._cross = self.kernels.empty((*block.batch, block.p, block.p))
        self.phi = self.kernels.empty((*block.batch, block.p, block.p))

    def update(self, x: Array, gradient: Array) -> None:
        kernels = self.kernels
        self.x, self._norm = x, None
        self._cross = kernels.cross(x, gradient, out=self._cross)
        self.phi = kernels.sym(self._cross, out=self.phi)
        normal = kernels.matmul(x, self.phi, out=self._array)
        self._array = kernels.subtract(gradient, normal, out=self._array)

    def keep(self, x: Array, other: GradientForm, refused: Any) -> None:
        """The field at x, where the refused matrices of a stack are another point's again."""
        replace = self.kernels.replace
        self.x, self._norm = x, None
        self._array = replace(self._array, refused, other._array)
        self.phi = replace(self.phi, refused, other.phi)


class RightForm(_Assembled):
    """F = G A + X B with any terms; four products n p^2."""

    def __init__(self, block: Block, tangent: Tangent, normal: Normal | None):
        super().__init__(block)
        self.tangent, self.normal = tangent, normal
        self.needs_gram = tangent.needs_gram or normal is not None
        self._gram = self.kernels.empty((*block.batch, block.p, block.p))
        self._cross = self.kernels.empty((*block.batch, block.p, block.p))
        self._work = self.kernels.empty(block.inner_shape)

    def update(self, x: Array, gradient: Array) -> None:
        kernels = self.kernels
        self.x, self._norm = x, None
        delta = None
        if self.needs_gram:
            delta = kernels.add_identity(kernels.cross(x, x, out=self._gram), -1.0)
            self._gram = delta
            self.distance = kernels.norm(delta)
        self._cross = kernels.cross(x, gradient, out=self._cross)
        a, b = self.tangent.coefficients(kernels, delta, self._cross)
        if self.normal is not None:
            b = kernels.add(b, self.normal.coefficient(kernels, delta), out=b)
        self._array = kernels.matmul(x, b, out=self._array)
        tangent = gradient if a is None else kernels.matmul(gradient, a, out=self._work)
        self._array = kernels.add(tangent, self._array, out=self._array)

    def noise(self) -> Any:
        """G S and X C cancel where G is normal to the manifold, as at an optimum; u ||C|| is left.

        A left form needs no such care: its K is skew to the last digit.
        """
        return self.kernels.norm(self._cross) * (8.0 * self.kernels.unit_roundoff)


class LeftForm(Form):
    """Square X: F = K X, K = skew(G X^H) + lam (X X^H - I); three products p^3 with the step."""

    def __init__(self, block: Block, lam: float):
        self.block, self.kernels, self.lam = block, block.kernels, lam
        shape = (*block.batch, block.p, block.p)
        self._k, self._work = self.kernels.empty(shape), self.kernels.empty(shape)
        self._array_buffer = self.kernels.empty(shape)
        self._array: Array | None = None
        self._norm: Any = None
        self._bound: Any = None
        self.x: Array = None

    def update(self, x: Array, gradient: Array) -> None:
        kernels = self.kernels
        self.x, self._array, self._norm, self._bound = x, None, None, None
        work = kernels.outer(gradient, x, out=self._work)
        self._k = kernels.skew(work, out=self._k)
        delta = kernels.add_identity(kernels.outer(x, x, out=self._work), -1.0)
        self.distance = kernels.norm(delta)  # ||X X^H - I|| = ||X^H X - I|| for square X
        if self.lam:
            self._k = kernels.add(self._k, kernels.scale(delta, self.lam, out=delta), out=self._k)

    def norm_bound(self) -> Any:
        """||K X||_F <= ||K||_F ||X||_2 <= sqrt(1 + d) ||K||_F: no product."""
        if self._bound is None:
            sqrt = self.kernels.scalars.sqrt
            self._bound = sqrt(1.0 + self.distance) * self.kernels.norm(self._k)
        return self._bound

    def array(self) -> Array:
        if self._array is None:
            self._array = self.kernels.matmul(self._k, self.x, out=self._array_buffer)
        return self._array

    def norm(self) -> Any:
        if self._norm is None:
            self._norm = self.kernels.norm(self.array())
        return self._norm

    def moved(self, eta: Any, out: Array) -> Array:
        kernels = self.kernels
        if self._array is not None:
            step = kernels.scale(self._array, eta, out=out)
            return kernels.subtract(self.x, step, out=out)
        factor = kernels.add_identity(kernels.scale(self._k, -eta, out=self._work), 1.0)
        return kernels.matmul(factor, self.x, out=out)
