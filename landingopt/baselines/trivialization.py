"""Trivializations: a method without constraints, on the tangent space of a base point."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from landingopt import _xp
from landingopt._factor import all_known
from landingopt._xp import Array
from landingopt.baselines._maps import Mapped, cayley, exponential
from landingopt.estimators import Full
from landingopt.estimators._common import is_stochastic
from landingopt.observe.observer import Observer
from landingopt.optimizers import (
    LBFGS,
    Adam,
    GradientDescent,
    checked_parts,
    drive,
    shown,
)
from landingopt.oracle import Oracle
from landingopt.point import Point
from landingopt.space import Block, Space
from landingopt.stiefel import distance, orthonormalized

__all__ = ["LBFGS", "Adam", "GradientDescent", "Trivialization", "trivialization"]

_MAPS: dict[str, Callable[..., Mapped]] = {"exponential": exponential, "cayley": cayley}


def trivialization(
    map: Literal["exponential", "cayley"] = "exponential",
    optimizer: GradientDescent | Adam | LBFGS | None = None,
    *,
    dynamic: int | None = None,
    estimator: Any = None,
) -> Trivialization:
    r"""Trivialization: minimise f(phi(M) X_0) over skew-Hermitian M, without any constraint.

    phi is exp, or Cayley's map (I - M/2)^-1 (I + M/2), and X_0 the start: the run begins there, with
    M = 0. For square X

        grad = skew(D phi(M)^*[G X_0^H]),    D exp(M)^*[E] = D exp(M^H)[E],

    with the adjoint of the map's derivative, the vector-Jacobian product that makes the method dear: it
    is the identity at M = 0 only. For tall X, M = [[A, -B^H], [B, 0]] in an orthonormal basis [X_0 Q]:
    the unknown is the tangent Z = X_0 A + Q B at X_0, with gradients for Re <Z, Z'>, and phi(M) X_0 is
    formed from Z by p x p matrices and, for the exponential, one of 2 p x 2 p. It follows the geodesics
    of the canonical metric. Free (Euclidean) blocks of a product are their own coordinates.

    Every iterate is on the manifold to rounding, u max(1, ||M||) or so. A real square X stays in the
    component of X_0. Cayley's map reaches no X with an eigenvalue -1 of X X_0^H (tall: X_0^H X), a half
    turn from X_0: to an optimum there M goes to infinity. Far from 0 both maps distort f, which costs
    iterations; ``dynamic`` moves the base to where the iterates are.

    Parameters
    ----------
    map : "exponential" or "cayley"
    optimizer : LBFGS, GradientDescent or Adam, optional
        ``LBFGS()``, SciPy's L-BFGS-B, by default.
    dynamic : int, optional
        Steps between changes of the base: X_0 <- phi(M) X_0, M <- 0 [LC19]. Momentum and Adam keep
        what they remember (M's entries; for tall X those of Z), L-BFGS starts anew. 0 or None: never.
        With 1 and plain gradient descent it is Riemannian gradient descent with ``Exponential
        ("canonical")`` or ``Cayley`` for a retraction.
    estimator : estimator, optional
        Where GradientDescent and Adam have the gradient from: ``lo.estimators.Full()`` by default;
        ``MiniBatch``, ``Saga``, ``Svrg`` on a finite sum, the same as every other method's.

    Returns
    -------
    Trivialization

    Raises
    ------
    TypeError, ValueError
        A map that is neither, a part of the wrong kind, a ``dynamic`` that is no whole number, an
        estimator with LBFGS. In a run: LBFGS and a problem without fun.

    Notes
    -----
    Cost of a step beyond f's gradient: with the exponential 14 to 20 products p^3 for square X; for tall
    X ten n p^2, and 12 to 18 of 2 p x 2 p; and three more for each factor 2 in the norm of M beyond 0.8.
    With Cayley's map four products p^3, or ten n p^2, and the inverse of a p x p matrix. Where the base
    has just changed the derivative is the identity, and costs one or two products.

    References
    ----------
    [LC19]; [Talk]; the derivative of exp: Al-Mohy, Higham, SIAM J. Matrix Anal. Appl. 30, 2009; the
    structured M: Edelman, Arias, Smith, SIAM J. Matrix Anal. Appl. 20, 1998, section 2.4.2.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.baselines.trivialization import GradientDescent, trivialization
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> result = lo.minimize(problem, method=trivialization(), rng=0)
    >>> x, fun = problem.optimum(component=result.component)
    >>> result.success, bool(abs(result.fun - fun) < 1e-8), bool(result.distance < 1e-12)
    (True, True, True)
    >>> method = trivialization("cayley", GradientDescent(momentum=0.8), dynamic=50)
    >>> lo.minimize(problem, method=method, rng=0).success
    True
    """
    return Trivialization(
        map, *checked_parts(optimizer, estimator, "a trivialization"), dynamic or 0
    )


@dataclass(frozen=True)
class Trivialization:
    """A trivialization; made by :func:`trivialization`."""

    map: str = "exponential"
    optimizer: Any = field(default_factory=LBFGS)
    estimator: Any = field(default_factory=Full)
    dynamic: int = 0

    def __post_init__(self) -> None:
        if self.map not in tuple(_MAPS):
            raise ValueError(f'map must be "exponential" or "cayley", got {self.map!r}')
        whole = isinstance(self.dynamic, numbers.Integral) and not isinstance(self.dynamic, bool)
        if not (whole and self.dynamic >= 0):
            raise ValueError(
                "dynamic must be the whole number of steps between changes of the base (0 or None: it "
                f"never changes), got {self.dynamic!r}"
            )

    @property
    def name(self) -> str:
        dynamic = f", dynamic={self.dynamic}" if self.dynamic else ""
        return f"trivialization({self.map}, {shown(self.optimizer, self.estimator)}{dynamic})"

    @property
    def stochastic(self) -> bool:
        """Does it see some terms of a finite sum at a time?"""
        return is_stochastic(self.estimator)

    def drive(self, oracle: Oracle, x0: list[Array], observer: Observer) -> Point:
        """Run from ``x0``, projected where it is off the manifold; the last point."""
        chart = _Bases(self, oracle.space)
        return drive(self.optimizer, self.estimator, chart, oracle, x0, observer)


class _Bases:
    """Every block as a function of its coordinates at the base."""

    def __init__(self, method: Trivialization, space: Space):
        self.space, self.dynamic = space, method.dynamic
        phi = _MAPS[method.map]
        self._parts = [
            _Free() if not b.stiefel else (_Square if b.n == b.p else _Tall)(b, phi)
            for b in space.blocks
        ]

    def start(self, x0: list[Array]) -> None:
        for i, block in enumerate(self.space.blocks):
            if block.stiefel:
                far = float(np.max(block.kernels.host(distance(x0[i]))[0]))
                if not far <= 4.0 * self.space.unit_roundoff * block.p**0.5:
                    x0[i] = orthonormalized(x0[i], f"{block.name}0")
        self._settle(x0)

    def _settle(self, x: list[Array]) -> None:
        self.x = x
        self.coordinates = [part.settle(a) for part, a in zip(self._parts, x, strict=True)]

    def place(self, coordinates: list[Array]) -> None:
        self.coordinates = coordinates
        self.x = [part.place(c) for part, c in zip(self._parts, coordinates, strict=True)]

    def pull(self, gradient: list[Array]) -> list[Array]:
        return [part.pull(g) for part, g in zip(self._parts, gradient, strict=True)]

    def value(self, fun: Any) -> float:
        return float(np.sum(fun))

    def curvature(self, curvature: float) -> float:
        return curvature

    def turn(self, iteration: int, ended: bool = False) -> bool:
        due = not ended and bool(self.dynamic) and iteration % self.dynamic == 0
        if due:
            self._settle([part.polished(x) for part, x in zip(self._parts, self.x, strict=True)])
        return due


class _Free:
    """A block without constraint."""

    def settle(self, x: Array) -> Array:
        return x

    place = polished = settle

    def pull(self, g: Array) -> Array:
        return _xp.copy(g)  # the user's memory


class _Part:
    """What square and tall blocks share. ``_mapped`` is None at the base itself; abstract."""

    base: Array
    _mapped: Mapped | None

    def __init__(self, block: Block, phi: Callable[..., Mapped]):
        self.block, self.kernels, self.phi = block, block.kernels, phi

    def settle(self, x: Array) -> Array:
        """Make x the base; its coordinates, 0."""
        self.base, self._mapped = x, None
        return _xp.namespace(x).zeros_like(x)

    def polished(self, x: Array) -> Array:
        """One Newton–Schulz pass: what rounding left must not grow from base to base."""
        k = self.kernels
        return k.subtract(x, k.scale(k.matmul(x, self.block.delta(x)), 0.5))

    def _checked(self, x: Array) -> Array:
        """x, NaN where the map could not be formed."""
        assert self._mapped is not None
        ok = self._mapped.ok
        return x if all_known(ok) else self.kernels.select(ok, x, x * float("nan"))


class _Square(_Part):
    """X = phi(M) X_0."""

    def place(self, m: Array) -> Array:
        self._mapped = self.phi(self.kernels, self.kernels.skew(m), None)
        return self._checked(self.kernels.matmul(self._mapped.e1, self.base))

    def pull(self, g: Array) -> Array:
        g = self.kernels.outer(g, self.base)
        if self._mapped is not None:
            g, _ = self._mapped.pull(g, None)
        return self.kernels.skew(g)


class _Tall(_Part):
    """X = X_0 E_1 + W E_2, of the tangent part X_0 a + W of any Z."""

    def place(self, z: Array) -> Array:
        k, base = self.kernels, self.base
        c = k.cross(base, z)
        self._w = k.subtract(z, k.matmul(base, c))
        self._mapped = self.phi(k, k.skew(c), k.cross(self._w, self._w))
        e1, e2 = self._mapped.e1, self._mapped.e2
        return self._checked(k.add(k.matmul(base, e1), k.matmul(self._w, e2)))

    def pull(self, g: Array) -> Array:
        k, base = self.kernels, self.base
        ga = along = k.cross(base, g)
        if self._mapped is not None:
            e2, w = self._mapped.e2, self._w
            ga, gs = self._mapped.pull(along, k.cross(w, g))
            g = k.add(k.outer(g, e2), k.matmul(w, k.scale(k.sym(gs), 2.0)))
            along = k.outer(along, e2)  # X_0^H g, because X_0^H W = 0
        return k.subtract(g, k.matmul(base, k.subtract(along, k.skew(ga))))
