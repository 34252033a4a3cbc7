r"""The fields that are followed: a tangent term and a normal term, as p x p coefficients.

Every first-order field is F = G A + X B, with coefficients that depend only on Delta = X^H X - I and
M = X^H G; terms return coefficients and add. For square X the canonical field has the left form
F = K X, one product fewer.

**Metric scale.** On the manifold, with G = X M + W and W orthogonal to the columns of X, a tangent term
is ``metric_scale`` times the Riemannian gradient in a metric g(X Omega + V) = beta ||Omega||^2 +
||V||^2:

=================================  =======================  =========================  ============
tangent                            metric (beta)            on the manifold            metric_scale
=================================  =======================  =========================  ============
``Canonical()``, the papers' R     canonical (1/2)          X skew(M) + W / 2          1/2
``Canonical(metric_scale=1.0)``    canonical (1/2)          2 X skew(M) + W            1
``Euclidean()``                    Euclidean (1)            X skew(M) + W              1
``NearTangent()``                  Euclidean (1)            X skew(M) + W              1
``BetaMetric(beta)``               of beta                  X skew(M) / beta + W       1
=================================  =======================  =========================  ============

So a step eta along a term is, to first order, a step eta * metric_scale of Riemannian gradient
descent in its metric: the papers' landing with step eta goes as far as descent with a step eta / 2
in the canonical metric (on O(p), where W = 0, as a step eta in the Euclidean one). For "the same
step" everywhere, say ``metric_scale=1.0``: the tangents are the one place where scales are
converted. A normal term is not scaled.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import Any, Protocol

from landingopt._left import left
from landingopt._numpy import NumpyMatrix
from landingopt._parts import check_part
from landingopt._tall import Tall
from landingopt._xp import Array
from landingopt.point import Point
from landingopt.space import Block, Space


class Tangent(Protocol):
    """A tangent term: ``coefficients(kernels, delta, cross) -> (A, B)``; a number a for A means a I.

    ``delta`` is X^H X - I (None where not ``needs_gram``) and ``cross`` X^H G; neither may be changed.
    """

    @property
    def needs_gram(self) -> bool: ...

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]: ...


class Normal(Protocol):
    """A normal term: ``coefficient(kernels, delta) -> B``."""

    def coefficient(self, kernels: Any, delta: Array) -> Array: ...


@dataclass(frozen=True)
class Canonical:
    """The canonical metric: s (G S - X G^H X), S = X^H X; the landing's own R(X) with s = 1/2.

    R(X) = skew(G X^H) X = (G S - X G^H X) / 2. Tangent to the level sets of the distance at every X,
    and on the manifold s (G - X G^H X), s times the canonical-metric Riemannian gradient.

    Parameters
    ----------
    metric_scale : float
        s; 1/2 is the papers' R, 1 the canonical gradient itself (the module's table).

    Notes
    -----
    Cost: four products n p^2 with the move; three p^3 for square X.

    References
    ----------
    [AP22] eq. (4); [AVGA24] definition 2; the metric: Edelman, Arias, Smith, SIAM J. Matrix Anal.
    Appl. 20, 1998.

    Examples
    --------
    The same step means the same thing for all:

    >>> import landingopt as lo
    >>> canonical = lo.landing(step=0.1, tangent=lo.fields.Canonical(metric_scale=1.0))
    >>> euclidean = lo.landing(step=0.1, tangent=lo.fields.Euclidean())
    """

    metric_scale: float = 0.5

    needs_gram = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric_scale", _checked("metric_scale", self.metric_scale))

    @property
    def gain(self) -> float:
        """The longest part of the term on the manifold, over the Euclidean-metric gradient's."""
        return 2.0 * self.metric_scale

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]:
        s = self.metric_scale
        a = kernels.add_identity(kernels.scale(delta, s), s)
        return a, kernels.scale(kernels.adjoint(cross), -s)


@dataclass(frozen=True)
class Euclidean:
    """The Euclidean metric: on the manifold s psi(X), psi(X) = G - X sym(X^H G).

    Parameters
    ----------
    exact : bool
        Exactly tangent to the level sets of the distance at every X: s (G S - X C - X skew(M) S), with
        S = X^H X, M = X^H G, C = M^H; four products n p^2 and one p^3. False: psi itself, two products
        n p^2, tangent on the manifold only; for a move that returns there (``NewtonSchulz``).
    metric_scale : float
        s, the multiple of the Riemannian gradient (the module's table).

    References
    ----------
    [AMS08] section 4.8 for psi; [GAF25] for tangent terms of other metrics off the manifold.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.PCA.random(30, 3, rng=0)
    >>> lo.minimize(problem, method=lo.landing(step=0.2, tangent=lo.fields.Euclidean()), rng=0).success
    True
    """

    exact: bool = True
    metric_scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric_scale", _checked("metric_scale", self.metric_scale))

    @property
    def needs_gram(self) -> bool:
        return self.exact

    @property
    def gain(self) -> float:
        """The longest part of the term on the manifold, over the Euclidean-metric gradient's."""
        return self.metric_scale

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]:
        if self.exact:
            return _of_metric(kernels, delta, cross, 1.0, self.metric_scale)
        return self.metric_scale, kernels.scale(kernels.sym(cross), -self.metric_scale)


@dataclass(frozen=True)
class NearTangent:
    """The Euclidean metric, tangent to second order in the distance: s (G - X Y); three products n p^2.

    With M = X^H G and d = ||Delta||,

        Y = sym(M) - sym(Delta sym(M)),    ||sym(X^H (G - X Y))|| <= d^2 ||sym(M)||:

    a product n p^2 fewer than the exact terms, for tall X. What is not tangent is taken off the safe
    step (:func:`landingopt.steps.safe_step`). For square X it is the exact left form, s skew(G X^H) X,
    three products too.

    Parameters
    ----------
    metric_scale : float
        s, the multiple of the Riemannian gradient (the module's table).

    Notes
    -----
    Cost: three products n p^2 with the move (one of them a Gram matrix) and one p^3.

    References
    ----------
    [GAF25] for tangent terms off the manifold.

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.PCA.random(30, 3, rng=0)
    >>> method = lo.landing(step=0.2, tangent=lo.fields.NearTangent())
    >>> lo.minimize(problem, method=method, rng=0).success
    True
    """

    metric_scale: float = 1.0

    needs_gram = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric_scale", _checked("metric_scale", self.metric_scale))

    @property
    def gain(self) -> float:
        """The longest part of the term on the manifold, over the Euclidean-metric gradient's."""
        return self.metric_scale

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]:
        normal = kernels.scale(kernels.sym(cross), -self.metric_scale)
        mixed = kernels.sym(kernels.matmul(delta, normal))
        return self.metric_scale, kernels.subtract(normal, mixed, out=normal)


@dataclass(frozen=True)
class BetaMetric:
    """The metric g(X Omega + V) = beta ||Omega||^2 + ||V||^2, Omega skew, X^H V = 0.

    With S = X^H X, M = X^H G, C = M^H,

        F(X) = s (G S - X C + (1/beta - 2) X skew(M) S).

    X^H F is skew, so that F is tangent to the level sets of the distance at every X; on the
    manifold F is s times the Riemannian gradient, (I - X X^H) G + X skew(M) / beta. beta = 1 is the
    Euclidean metric, beta = 1/2 the canonical one. It decides how far a step rotates the columns of
    X among themselves against how far it moves their span.

    Parameters
    ----------
    beta : float
        Positive.
    metric_scale : float
        s, the multiple of the Riemannian gradient (the module's table).

    Notes
    -----
    Cost: four products n p^2 and one p^3, with an additive move.

    References
    ----------
    The metrics: Hüper, Markina, Silva Leite, J. Geom. Mech. 13, 2021; Zimmermann, Hüper, SIAM J.
    Matrix Anal. Appl. 43, 2022. Tangent terms of the landing for them: [GAF25].

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.fields.BetaMetric(0.25)
    BetaMetric(beta=0.25, metric_scale=1.0)
    """

    beta: float
    metric_scale: float = 1.0

    needs_gram = True

    def __post_init__(self) -> None:
        for name in ("beta", "metric_scale"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))

    @property
    def gain(self) -> float:
        """The longest part of the term on the manifold, over the Euclidean-metric gradient's."""
        return self.metric_scale * max(1.0, 1.0 / self.beta)

    def coefficients(self, kernels: Any, delta: Any, cross: Array) -> tuple[Any, Array]:
        return _of_metric(kernels, delta, cross, self.beta, self.metric_scale)


def _of_metric(
    kernels: Any, delta: Array, cross: Array, beta: float, scale: float
) -> tuple[Array, Array]:
    """A = s S, B = s (-C + (1/beta - 2) skew(M) S); S = I + Delta, M = X^H G, C = M^H."""
    a = kernels.add_identity(kernels.scale(delta, scale), scale)
    b = kernels.scale(kernels.adjoint(cross), -scale)
    weight = 1.0 / beta - 2.0
    if weight:
        turn = kernels.matmul(kernels.skew(cross), a)  # s skew(M) S
        b = kernels.add(b, kernels.scale(turn, weight, out=turn), out=b)
    return a, b


def _checked(name: str, value: Any) -> float:
    """A positive finite float, or an error that says what was given."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and 0.0 < value < math.inf):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)


def gain(tangent: Any) -> float:
    """The largest multiple of the Euclidean-metric gradient's parts that the term is on the manifold.

    Of the module's table; 1 for a term of one's own that has no ``gain``.
    """
    return float(getattr(tangent, "gain", 1.0))


def check_tangent(tangent: Any) -> Any:
    """A tangent term, or an error that says what one is."""
    example = "a tangent term such as lo.fields.Canonical() or lo.fields.Euclidean()"
    return check_part(tangent, "tangent", "fields", example, "coefficients")


# psi, the Riemannian gradient of the Euclidean metric: what a line search on f needs.
PSI = Euclidean(exact=False)


@dataclass(frozen=True)
class Penalty:
    """The normal term lam X Delta, the gradient of lam ||X^H X - I||^2 / 4.

    Parameters
    ----------
    lam : float or None
        None: 1 / (2 eta) with the first step eta, where the step is chosen at the start
        (``lo.steps.FromCurvature``). A step then squares a small distance, as Newton–Schulz does.

    References
    ----------
    [AP22] eq. (6); [AVGA24] definition 2.
    """

    lam: float | None = 1.0

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
    Field(tangent=Canonical(metric_scale=0.5), normal=Penalty(lam=2.0))
    """

    tangent: Tangent = field(default_factory=Canonical)
    normal: Normal | None = field(default_factory=Penalty)

    def __post_init__(self) -> None:
        check_tangent(self.tangent)
        if self.normal is not None:
            example = "None or a normal term such as lo.fields.Penalty(1.0)"
            check_part(self.normal, "normal", "fields", example, "coefficient")

    def start(self, space: Space) -> FieldRun:
        return FieldRun(self)


def _left_scale(tangent: Tangent) -> float | None:
    """c where the tangent is 2 c skew(G X^H) X for square X."""
    if isinstance(tangent, Canonical):
        return tangent.metric_scale
    return 0.5 * tangent.metric_scale if isinstance(tangent, NearTangent) else None


def _right_form(block: Block, tangent: Tangent, normal: Normal | None) -> Form:
    if (
        isinstance(block.kernels, NumpyMatrix)
        and isinstance(tangent, Canonical)
        and isinstance(normal, Penalty)
        and normal.lam is not None
    ):
        return TallForm(block, normal.lam, tangent.metric_scale)
    return RightForm(block, tangent, normal)


class FieldRun:
    """Evaluates the field at points; the point's forms own the buffers."""

    __slots__ = ("recipe", "is_gradient", "silent")

    def __init__(self, recipe: Field):
        self.recipe = recipe
        self.silent = False  # on a device, where nobody needs it: the norm is not read back
        # psi alone: its norm, the Riemannian gradient's, is left with every evaluation.
        self.is_gradient = recipe.tangent == PSI and recipe.normal is None

    def point(self, space: Space) -> Point:
        """A fresh point whose forms hold this field."""
        tangent, normal = self.recipe.tangent, self.recipe.normal
        forms: list[Form] = []
        for block in space.blocks:
            if not block.stiefel:
                forms.append(FreeForm(block))
            elif (
                block.n == block.p
                and (scale := _left_scale(tangent)) is not None
                and (normal is None or isinstance(normal, Penalty))
            ):
                lam = None if normal is None else normal.lam
                forms.append(LeftForm(block, lam, scale))
            elif self.is_gradient:
                forms.append(GradientForm(block))
            else:
                forms.append(_right_form(block, tangent, normal))
        return Point(space, forms)

    def __call__(self, point: Point) -> None:
        """Coefficients, and the distance where a Gram matrix is at hand; no-op where done."""
        if point.evaluated:
            return
        forms = point.forms
        if len(forms) == 1:
            form = forms[0]
            form.update(point.x[0], (point.estimate or point.gradient)[0])  # type: ignore[index]
            if self.is_gradient and point.estimate is None and not self.silent:
                point.gradient_norm = point.space.combine([form.norm()])
        else:
            for form, x, gradient in zip(forms, point.x, point.followed, strict=True):
                form.update(x, gradient)
            if self.is_gradient and point.estimate is None and not self.silent:
                point.gradient_norm = point.space.combine([form.norm() for form in forms])
        point.evaluated = True


class Form:
    """A field on one block, at one point.

    ``distance`` is ||X^H X - I||_F (None where the form knows no Gram matrix), ``norm_bound()`` a free
    upper bound on ||F||_F, ``noise()`` its rounding, ``norm()`` the norm, ``array()`` F itself,
    ``moved(eta, out)`` gives X - eta F, and ``curve(t)`` what the distance is along it. Numbers live
    where the data lives.
    """

    block: Block
    _distance: Any = None

    @property
    def distance(self) -> Any:
        return self._distance

    def update(self, x: Array, gradient: Array) -> None:
        raise NotImplementedError

    def array(self) -> Array:
        raise NotImplementedError

    def norm(self) -> Any:
        raise NotImplementedError

    def tube(self, bound: bool) -> tuple[Any, Any, Any]:
        """What a safe step is made of: the distance, the bound where it is wanted, and the noise."""
        if self.distance is None:
            return None, None, 0.0
        return self.distance, self.norm_bound() if bound else None, self.noise()

    def norm_bound(self) -> Any:
        return self.norm()

    def noise(self) -> Any:
        """About what rounding, and the formula, add to F off the tangent space."""
        return 0.0

    def moved(self, eta: Any, out: Array) -> Array:
        raise NotImplementedError

    def curve(self, t: Any) -> tuple[Array, Array, Array]:
        """(Delta, T, Q): the Gram matrix of X - u (t F), less I, is Delta - u T + u^2 Q.

        Of F as assembled, rounding included; for square X of the Gram matrix from the left, whose
        distance is the same. Two products n p^2.
        """
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
            self._norm = self.kernels.norm(self.array())
        return self._norm

    def moved(self, eta: Any, out: Array) -> Array:
        return self.kernels.stepped(self.x, self._array, eta, out)


class ArrayForm(_Assembled):
    """A direction that is an array: F as it was placed."""

    phi = None

    def place(self, x: Array, array: Array) -> None:
        self.x, self._array, self._norm = x, array, None


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
        self._cross = self.kernels.scratch((*block.batch, block.p, block.p), 1)[0]
        self.phi = self.kernels.empty((*block.batch, block.p, block.p))
        self._phi_norm: Any = None

    def update(self, x: Array, gradient: Array) -> None:
        self.x, self._phi_norm = x, None
        self.phi, self._array, self._norm = self.kernels.tangent(
            x, gradient, self._cross, self.phi, self._array
        )

    def phi_norm(self) -> Any:
        if self._phi_norm is None:
            self._phi_norm = self.kernels.norm(self.phi)
        return self._phi_norm

    def known(self, norm: Any, phi_norm: Any) -> None:
        """Both norms, as they have been read."""
        self._norm, self._phi_norm = norm, phi_norm

    def keep(self, x: Array, other: GradientForm, refused: Any) -> None:
        """The field at x, where the refused matrices of a stack are another point's again."""
        replace = self.kernels.replace
        self.x, self._norm, self._phi_norm = x, None, None
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
        self._work = self.kernels.scratch(block.inner_shape, 1)[0]
        self._sum = self.kernels.empty((*block.batch, block.p, block.p))
        self._tangent: Array = None  # the tangent term's B

    def update(self, x: Array, gradient: Array) -> None:
        kernels = self.kernels
        self.x, self._norm = x, None
        delta = None
        if self.needs_gram:
            delta = kernels.add_identity(kernels.cross(x, x, out=self._gram), -1.0)
            self._gram = delta
            self._distance = kernels.norm(delta)
        self._cross = kernels.cross(x, gradient, out=self._cross)
        a, self._tangent = self.tangent.coefficients(kernels, delta, self._cross)
        b = self._tangent
        if self.normal is not None:
            self._sum = kernels.add(b, self.normal.coefficient(kernels, delta), out=self._sum)
            b = self._sum
        self._array = kernels.matmul(x, b, out=self._array)
        self._array = kernels.add(self._along(gradient, a), self._array, out=self._array)

    def _along(self, gradient: Array, a: Any) -> Array:
        """G A, where a number stands for its multiple of I."""
        if a is None or isinstance(a, (int, float)):
            plain = a is None or a == 1.0
            return gradient if plain else self.kernels.scale(gradient, a, out=self._work)
        return self.kernels.matmul(gradient, a, out=self._work)

    def noise(self) -> Any:
        """G A and X B cancel where G is normal to the manifold, as at an optimum; u ||B|| is left.

        A left form needs no such care: its K is skew to the last digit. A term that is tangent to second
        order leaves s d^2 ||sym(M)|| <= s d^2 ||M|| more.
        """
        noise = self.kernels.norm(self._tangent) * (16.0 * self.kernels.unit_roundoff)
        if isinstance(self.tangent, NearTangent):
            leak = self.kernels.norm(self._cross) * self.tangent.metric_scale
            noise = noise + leak * self._distance * self._distance
        return noise

    def curve(self, t: Any) -> tuple[Array, Array, Array]:
        kernels = self.kernels
        unit = self._work = kernels.scale(self._array, t, out=self._work)
        mixed = kernels.scale(kernels.sym(kernels.cross(self.x, unit)), 2.0)
        return self._gram, mixed, kernels.cross(unit, unit)


class TallForm(_Assembled):
    """The canonical tangent and a penalty at one tall NumPy matrix; F is formed where it is asked for.

    Four products n p^2 with the step. F needs the gradient, which may be the user's memory: what
    calls a user's function before the step calls :meth:`settle` first.
    """

    def __init__(self, block: Block, lam: float, scale: float):
        self.block, self.kernels, self.scale = block, block.kernels, scale
        self._tall = Tall(block.kernels, block.p, lam / scale)
        self._array: Array | None = None
        self._memory: Array = None
        self._norm: Any = None
        self._bound: Any = None
        self.x: Array = None
        self._gradient: Array = None

    def update(self, x: Array, gradient: Array) -> None:
        self.x, self._gradient = x, gradient
        self._array = self._norm = self._bound = None
        self._tall.update(x, gradient)
        self._distance = self._tall.distance

    def settle(self) -> None:
        """Needs the gradient no more."""
        self.array()

    def array(self) -> Array:
        if self._array is None:
            if self._memory is None:
                self._memory = self.kernels.empty(self.block.inner_shape)
            self._array = self._tall.field(self.x, self._gradient, self.scale, self._memory)
        return self._array

    def norm_bound(self) -> Any:
        if self._array is not None:
            return self.norm()
        if self._bound is None:
            self._bound = self._tall.bound(self._gradient) * self.scale
        return self._bound

    def noise(self) -> Any:
        """As of a right form: G S and X C cancel where G is normal to the manifold."""
        return 16.0 * self.kernels.unit_roundoff * self.scale * self._tall.cross_norm

    def moved(self, eta: Any, out: Array) -> Array:
        if self._array is not None:
            return super().moved(eta, out)
        return self._tall.step(self.x, self._gradient, eta * self.scale, out)

    def curve(self, t: Any) -> tuple[Array, Array, Array]:
        kernels = self.kernels
        (unit,) = kernels.scratch(self.block.inner_shape, 1)
        unit = kernels.scale(self.array(), t, out=unit)
        mixed = kernels.scale(kernels.sym(kernels.cross(self.x, unit)), 2.0)
        return self._tall.delta, mixed, kernels.cross(unit, unit)


class LeftForm(Form):
    """Square X: F = s K X, s K = 2 s skew(G X^H) + lam (X X^H - I); three products p^3 with the step.

    Without a normal term (``lam`` None) the Gram matrix is formed only where the distance is read: two
    products. s is the canonical tangent's metric scale.
    """

    def __init__(self, block: Block, lam: float | None, scale: float = 0.5):
        self.block, self.kernels, self.lam, self.scale = block, block.kernels, lam, scale
        shape = (*block.batch, block.p, block.p)
        self._left = left(block.kernels, shape, None if lam is None else lam / scale)
        self._spare: tuple[Array, Array] | None = None
        self._product: Array | None = None
        self._gain = 1.0
        self._norm: Any = None
        self._size: Any = None  # ||K||_F
        self.x: Array = None

    def update(self, x: Array, gradient: Array) -> None:
        self.x, self._product, self._norm = x, None, None
        self._distance, self._size = self._left.update(x, gradient)

    def tube(self, bound: bool) -> tuple[Any, Any, Any]:
        d, size = self._distance, self._size
        if type(d) is float and size is not None:  # of one matrix: the fewest calls
            return d, math.sqrt(1.0 + d) * size * self.scale, 0.0
        return super().tube(bound)

    @property
    def distance(self) -> Any:
        """||X X^H - I||_F = ||X^H X - I||_F for square X."""
        if self._distance is None:
            self._distance = self._left.measure(self.x)
        return self._distance

    def norm_bound(self) -> Any:
        """||s K X||_F <= s ||K||_F ||X||_2 <= s sqrt(1 + d) ||K||_F: no product."""
        if self._size is None:
            self._size = self._left.norm()
        return self.kernels.scalars.sqrt(1.0 + self.distance) * self._size * self.scale

    def _formed(self) -> Array:
        """F / ``_gain``: K X, until somebody asks for F itself."""
        if self._product is None:
            kernels, shape = self.kernels, self.block.inner_shape
            if self._spare is None:
                self._spare = kernels.empty(shape), kernels.empty(shape)
            self._product = kernels.matmul(self._left.k, self.x, out=self._spare[0])
            self._gain = self.scale * self._left.unit
        return self._product

    def array(self) -> Array:
        product = self._formed()
        if self._gain != 1.0:
            self._product = self.kernels.scale(product, self._gain, out=product)
            self._gain = 1.0
        return self._product

    def norm(self) -> Any:
        if self._norm is None:
            self._norm = self.kernels.norm(self._formed()) * self._gain
        return self._norm

    def moved(self, eta: Any, out: Array) -> Array:
        if self._product is not None:
            return self.kernels.stepped(self.x, self._product, eta * self._gain, out)
        return self._left.step(self.x, eta * self.scale, out)

    def curve(self, t: Any) -> tuple[Array, Array, Array]:
        kernels, array = self.kernels, self.array()
        if self._left.delta is None:
            self._left.measure(self.x)
        assert self._spare is not None
        unit = kernels.scale(array, t, out=self._spare[1])
        mixed = kernels.scale(kernels.sym(kernels.outer(unit, self.x)), 2.0)
        return self._left.delta, mixed, kernels.outer(unit, unit)
