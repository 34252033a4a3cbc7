"""Moves: from X, a field and a step to the next X."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from landingopt._xp import Array
from landingopt.fields import Form
from landingopt.space import Block
from landingopt.stiefel import NewtonSchulzRun


class Moved(NamedTuple):
    """Where a move led.

    ``distance`` is ||X^H X - I||_F or a bound on it (infinite where unknown), ``delta`` is
    X^H X - I where it was formed and is not negligible, ``ok`` is False where the move failed.
    """

    x: Array
    distance: Any
    delta: Any
    ok: Any


class Move(Protocol):
    """A move; ``start(block)`` gives a run with ``apply(form, eta, out)``."""

    def start(self, block: Block) -> MoveRun: ...


class MoveRun(Protocol):
    """``out`` is memory for the next X; the run may keep it and give back memory of its own.

    ``tol`` is the distance that a search needs, where it is tighter than the recipe's. A move that takes
    passes may give up where Y = X - eta F, one NumPy matrix, has ||Y^H Y - I||_2 > ``limit``: ``delta``
    is TOO_FAR and ``distance`` a bound on that norm.
    """

    def apply(
        self, form: Form, eta: Any, out: Array, tol: float | None = None, limit: float = math.inf
    ) -> Moved: ...


@dataclass(frozen=True)
class Additive:
    """X - eta F, the landing's own move: no product beyond the field's."""

    def start(self, block: Block) -> AdditiveRun:
        return AdditiveRun()


class AdditiveRun:
    __slots__ = ()

    def apply(
        self, form: Form, eta: Any, out: Array, tol: float | None = None, limit: float = math.inf
    ) -> Moved:
        return Moved(form.moved(eta, out), float("inf"), None, True)


@dataclass(frozen=True)
class NewtonSchulz:
    """X - eta F, then Newton–Schulz passes until ||X^H X - I||_F <= tol; at least one.

    The normal step does not depend on eta. Each pass costs two products n p^2 (one of them a Gram
    matrix, often skipped) and one of p^3.

    References
    ----------
    [XGA26]; [POGO] for the single pass.
    """

    tol: float = 1e-2
    max_passes: int = 25

    def __post_init__(self) -> None:
        if not 0.0 < self.tol < 0.9:
            raise ValueError(f"tol must lie strictly between 0 and 0.9, got {self.tol!r}")
        if self.max_passes < 1:
            raise ValueError(f"max_passes must be at least 1, got {self.max_passes!r}")

    def start(self, block: Block) -> MoveRun:
        return NewtonSchulzMove(self, block) if block.stiefel else AdditiveRun()


class NewtonSchulzMove:
    __slots__ = ("tol", "passes", "_looked")

    def __init__(self, recipe: NewtonSchulz, block: Block):
        self.tol = recipe.tol
        # (form, eta, Y, E, ||E||) of the last look at a stretch: the move from there looks no more.
        self._looked: tuple[Any, ...] | None = None
        self.passes = NewtonSchulzRun(block.kernels, block.inner_shape, recipe.max_passes)

    def apply(
        self, form: Form, eta: Any, out: Array, tol: float | None = None, limit: float = math.inf
    ) -> Moved:
        tol = self.tol if tol is None else min(tol, self.tol)
        looked, self._looked = self._looked, None
        if looked is not None and looked[0] is form and looked[1] is eta:
            return Moved(*self.passes(looked[2], out, tol, limit=limit, known=looked[3:]))
        y = form.moved(eta, self.passes.work())
        return Moved(*self.passes(y, out, tol, limit=limit))

    def planned(
        self, form: Form, eta: Any, out: Array, tol: float, expected: float
    ) -> tuple[Array, Any, Array | None, Any]:
        """With nothing read back: see :meth:`landingopt.stiefel.NewtonSchulzRun.planned`."""
        y = form.moved(eta, self.passes.work())
        return self.passes.planned(y, out, expected, min(tol, self.tol))

    def stretch(self, form: Form, eta: Any, limit: float) -> Any:
        """A bound on ||Y^H Y - I||_2 at Y = X - eta F, on the host; no closer than to tell ``limit``."""
        y = form.moved(eta, self.passes.work())
        bound, delta, e = self.passes.stretch(y, limit)
        self._looked = form, eta, y, delta, e
        return bound


@dataclass(frozen=True)
class Pogo:
    """M = X - eta F, then one step down the distance: X_+ = M - lam M (M^H M - I).

    lam = 1/2 is one Newton–Schulz pass, and for a field F tangent at X, with xi = eta ||F||_F,

        d_+ <= 3/4 (d + xi^2)^2 + 1/4 (d + xi^2)^3:

    the distance stays of the order xi^4 without a safe step, an inner loop or a number read back. The
    normal step does not depend on eta, so that a vanishing step still lands. Singular values of X within
    (0, sqrt(3)) are attracted (lam = 1/2); the random starts of the library are on the manifold.

    Parameters
    ----------
    lam : float in (0, 1)
        Small distances are multiplied by 1 - 2 lam: quadratic convergence at 1/2.

    Notes
    -----
    Cost: two products n p^2 beyond the field's, one of them a Gram matrix. With ``Canonical()`` and no
    normal term a step is four products p^3 for square X (G X^H, K X, M^H M, the pass), six n p^2
    for tall X (X^H X and X^H G, G A and X B, M^H M, the pass).

    References
    ----------
    [POGO].

    Examples
    --------
    >>> import landingopt as lo
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> result = lo.minimize(problem, method=lo.pogo(step=0.01), rng=0)
    >>> result.success, bool(result.distance < 1e-12)
    (True, True)
    """

    lam: float = 0.5

    def __post_init__(self) -> None:
        real = isinstance(self.lam, numbers.Real) and not isinstance(self.lam, bool)
        if not (real and 0.0 < self.lam < 1.0):
            raise ValueError(
                f"lam must lie strictly between 0 and 1, got {self.lam!r}: a small distance is "
                "multiplied by 1 - 2 lam in each step"
            )
        object.__setattr__(self, "lam", float(self.lam))

    def start(self, block: Block) -> MoveRun:
        return PogoRun(self, block) if block.stiefel else AdditiveRun()


class PogoRun:
    __slots__ = ("lam", "kernels", "_work", "_gram")

    def __init__(self, recipe: Pogo, block: Block):
        self.lam, self.kernels = recipe.lam, block.kernels
        self._work = self.kernels.empty(block.inner_shape)
        self._gram = self.kernels.empty((*block.batch, block.p, block.p))

    def apply(
        self, form: Form, eta: Any, out: Array, tol: float | None = None, limit: float = math.inf
    ) -> Moved:
        kernels = self.kernels
        m = self._work = form.moved(eta, self._work)
        gram = kernels.add_identity(kernels.cross(m, m, out=self._gram), -1.0)
        factor = kernels.add_identity(kernels.scale(gram, -self.lam, out=gram), 1.0)
        self._gram = factor
        return Moved(kernels.matmul(m, factor, out=out), float("inf"), None, True)
