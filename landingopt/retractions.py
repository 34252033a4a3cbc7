r"""Retractions: moves whose result is on the manifold, by a factorisation.

At X with X^H X = I, a tangent Z = -eta F (X^H Z skew) leads to a point R(Z) of the manifold with
R(tZ) = X + tZ + O(t^2). The order is 2 where the curve has no tangential acceleration, so that it
agrees with the Euclidean-metric geodesic to O(t^3):

===============================  ============================================  =====  =================
retraction                       R(Z)                                          order  made of
===============================  ============================================  =====  =================
``QR()``                         Q of X + Z = Q R                              1      Householder QR
``CholeskyQR()``                 (X + Z) R^-1, (X + Z)^H (X + Z) = R^H R       1      Cholesky
``Polar()``                      (X + Z) ((X + Z)^H (X + Z))^(-1/2)            2      eigh, SVD, products
``Cayley()``                     (I - A/2)^-1 (I + A/2) X,  A X = Z            2 (*)  inverse, p x p
``Exponential("euclidean")``     the Euclidean-metric geodesic                 2      two exponentials
``Exponential("canonical")``     expm(A) X, the canonical-metric geodesic      2 (*)  exponential
===============================  ============================================  =====  =================

(*) For square X; for tall X these two follow the geodesics of the canonical metric to O(t^3).

X may be off the manifold, by d = ||X^H X - I||: the retractions of X + Z (the first three) do not mind,
and the result of the other two is at O(d^2 + d ||Z||), for no product more. So rounding does not build
up over steps. A matrix whose factorisation fails is NaN, and not ``ok``, which lives with the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from landingopt import _xp
from landingopt._factor import all_known, expm, factor, inverse_of_lower, svd
from landingopt._xp import FLOATS, Array
from landingopt.moves import AdditiveRun, Moved, MoveRun
from landingopt.space import Block
from landingopt.stiefel import NewtonSchulzRun

# retract(kernels, form, eta, work, out) -> (x, distance, ok), x in ``work``, ``out`` or fresh memory.
Placed = tuple[Array, Any, Any]
Retract = Callable[[Any, Any, Any, Array, Array], Placed]


class RetractionRun:
    """Applies ``retract``: what fails is NaN and not ok, never an exception (a warning by NumPy, unless
    its ``errstate`` says otherwise, as it does in a run)."""

    __slots__ = ("_kernels", "_retract", "_work")

    def __init__(self, block: Block, retract: Retract):
        self._kernels, self._retract = block.kernels, retract
        self._work = block.kernels.empty(block.inner_shape)

    def apply(
        self, form: Any, eta: Any, out: Array, tol: float | None = None, limit: float = math.inf
    ) -> Moved:
        kernels = self._kernels
        x, distance, ok = self._retract(kernels, form, eta, self._work, out)
        if x is self._work:
            self._work = out
        if not all_known(ok):
            with np.errstate(all="ignore"):
                x = kernels.select(ok, x, x * math.nan)
        if kernels.scalars is FLOATS:
            ok = bool(ok)
        return Moved(x, distance, None, ok)


def _start(block: Block, retract: Retract) -> MoveRun:
    return RetractionRun(block, retract) if block.stiefel else AdditiveRun()


def _choose(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if type(value) is not type(choices[0]) or value not in choices:
        allowed = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {allowed}, got {value!r}")


# -- retractions of X + Z ---------------------------------------------------------------------


@dataclass(frozen=True)
class QR:
    """The Q factor of X - eta F, with the diagonal of R positive; first order.

    Without the fixed sign Q would jump between columns and their negatives from step to step, and what
    remembers directions (momentum, SAGA, SVRG) would break silently.

    Notes
    -----
    Cost: one Householder QR of an n x p matrix, two products' operations. To rounding for every Z.

    References
    ----------
    [AMS08] example 4.1.3.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.retractions import QR
    >>> problem = lo.problems.PCA.random(30, 3, rng=0)
    >>> search = lo.searches.OpenLoop(lo.steps.Constant(0.05))
    >>> psi = lo.fields.Field(lo.fields.Euclidean(exact=False), normal=None)
    >>> result = lo.minimize(problem, method=lo.Method(search, psi, QR()), rng=0)
    >>> result.success, bool(result.distance < 1e-13)
    (True, True)
    """

    def start(self, block: Block) -> MoveRun:
        return _start(block, _householder)


def _householder(kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m, xp = form.moved(eta, work), _xp.namespace(form.x)
    (q, r), ok = factor(kernels, xp.linalg.qr, m)
    diagonal = xp.linalg.diagonal(r)
    size = xp.abs(diagonal)
    q *= xp.where(size > 0, diagonal / size, xp.ones_like(diagonal))[..., None, :]
    return q, 10.0 * kernels.unit_roundoff * m.shape[-1], ok


@dataclass(frozen=True)
class CholeskyQR:
    """The same point as QR's, from M = X - eta F: M^H M = R^H R by Cholesky, then M R^-1.

    For a tangent Z at X on the manifold M^H M = I + Z^H Z, so that it is positive definite and its
    condition number is at most 1 + ||Z||_2^2.

    Parameters
    ----------
    passes : 1 or 2; else a ValueError
        2 is CholeskyQR2: the second pass takes what rounding left of the first.

    Notes
    -----
    Cost: two products n p^2 (one of them a Gram matrix) and a Cholesky factor and its inverse, p^3 / 3
    each, a pass; the cheapest retraction for tall X. The distance of the result is about
    u (1 + ||Z||_2^2), u the unit roundoff: as good as QR for steps of the order of one, no digit left
    at ||Z|| = u^(-1/2), where a matrix fails; with two passes to rounding up to there.

    References
    ----------
    Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, Electron. Trans. Numer. Anal. 44, 2015; as a retraction
    Sato, Aihara, Comput. Optim. Appl. 72, 2019.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.retractions import CholeskyQR
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> search = lo.searches.OpenLoop(lo.steps.Constant(0.02))
    >>> lo.minimize(problem, method=lo.Method(search, move=CholeskyQR()), rng=0).success
    True
    """

    passes: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        _choose("passes", self.passes, (1, 2))

    def start(self, block: Block) -> MoveRun:
        return _start(block, partial(_cholesky, self.passes))


def _cholesky(passes: int, kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m, ok, xp = form.moved(eta, work), True, _xp.namespace(form.x)
    for _ in range(passes):
        gram, limit = kernels.cross(m, m), 1.0 / kernels.unit_roundoff
        lower, fine = factor(kernels, xp.linalg.cholesky, gram, limit)
        if isinstance(
            kernels, _xp.Generic
        ):  # CuPy does not raise, and leaves a pivot <= 0 in place
            pivots = xp.linalg.diagonal(lower)
            fine = fine & xp.all((xp.real(pivots) if kernels.complex else pivots) > 0, axis=-1)
        m, out = kernels.outer(m, inverse_of_lower(lower), out=out), m
        ok = ok & fine
    return m, math.inf, ok


@dataclass(frozen=True)
class Polar:
    """The closest matrix with orthonormal columns to M = X - eta F, M (M^H M)^(-1/2); second order.

    Parameters
    ----------
    method : "newton-schulz", "eigh" or "svd"; else a ValueError
        How it is computed. By Newton–Schulz passes: matrix products only, to rounding; the fastest up
        to ||Z||_2 of about one, each factor 2 beyond costs another pass, and each pass reads a number
        back from a device. By the eigenvectors of the p x p matrix M^H M: in a time that does not
        depend on Z, often the least for tall X, to a distance of about u p (1 + ||Z||_2^2). By the SVD
        of M: the slowest, to rounding for every Z.

    Notes
    -----
    Cost: two products n p^2 a Newton–Schulz pass (one of them a Gram matrix) and two p^3; two products
    n p^2 and an eigendecomposition, about 9 p^3 operations; or an SVD, about 14 n p^2 + 8 p^3.

    References
    ----------
    [AMS08] example 4.1.3; of second order: Absil, Malick, SIAM J. Optim. 22, 2012.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.retractions import Polar
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> search = lo.searches.OpenLoop(lo.steps.Constant(0.02))
    >>> lo.minimize(problem, method=lo.Method(search, move=Polar()), rng=0).success
    True
    """

    method: Literal["newton-schulz", "eigh", "svd"] = "newton-schulz"

    def __post_init__(self) -> None:
        _choose("method", self.method, ("newton-schulz", "eigh", "svd"))

    def start(self, block: Block) -> MoveRun:
        if self.method == "newton-schulz" and block.stiefel:
            # Small singular values, relative to the largest one, grow by 15/8 a pass.
            count = 5 + math.ceil(-math.log(block.kernels.unit_roundoff) / math.log(15.0 / 8.0))
            passes = NewtonSchulzRun(block.kernels, block.inner_shape, count)
            return _start(block, partial(_by_products, passes))
        return _start(block, _by_svd if self.method == "svd" else _by_eigenvectors)


def _by_products(passes: Any, kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m = form.moved(eta, work)
    x, distance, _, ok = passes(m, out, 4.0 * kernels.unit_roundoff * m.shape[-1])
    return x, distance, ok


def _by_eigenvectors(kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m = form.moved(eta, work)
    xp, unit = _xp.namespace(m), kernels.unit_roundoff
    (w, v), ok = factor(kernels, xp.linalg.eigh, kernels.cross(m, m), 1.0 / unit)
    ok = ok & (w[..., 0] > w[..., -1] * (unit * m.shape[-1]))
    root = kernels.outer(v / xp.sqrt(w)[..., None, :], v)
    return kernels.matmul(m, root, out=out), math.inf, ok


def _by_svd(kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m = form.moved(eta, work)
    size = kernels.unit_roundoff * m.shape[-1]
    (u, s, vh), ok = factor(kernels, partial(svd, kernels), m)
    if ok is True:  # one matrix: two numbers, in place of operations on arrays of them
        ok = float(s[-1]) > float(s[0]) * size
    else:
        ok = ok & (s[..., -1] > s[..., 0] * size)
    return kernels.matmul(u, vh, out=out), 10.0 * size, ok


# -- retractions along a curve ----------------------------------------------------------------


def _split(kernels: Any, form: Any, eta: Any, work: Array) -> tuple[Array, Array, Array, Array]:
    """(M, c, a, K): M = X + Z, Z = -eta F = X c + W, c = X^H Z, a = skew(c), K = (X + W)^H (X + W) - I.

    On the manifold K = W^H W. Off it by Delta = X^H X - I, K = W^H W + Delta to first order, and the
    two retractions are written such that Delta in K's place does what a Newton–Schulz pass does,
    X (I - Delta / 2). For square X there is no W: M is X, and K is Delta.
    """
    m = form.x
    c = kernels.cross(m, form.array())
    c = kernels.scale(c, -eta, out=c)
    tall = m.shape[-2] > m.shape[-1]
    if tall:
        m = form.moved(eta, work)
    k = kernels.add_identity(kernels.cross(m, m), -1.0)
    if tall:  # (X + W)^H (X + W) is this less c^H c + c + c^H, with X^H X = I
        k = kernels.subtract(k, kernels.cross(c, c), out=k)
        k = kernels.subtract(k, kernels.scale(kernels.sym(c), 2.0), out=k)
    return m, c, kernels.skew(c), k


def _assembled(
    kernels: Any, x: Array, m: Array, c: Array, e1: Array, e2: Array, out: Array
) -> Array:
    """X E_1 + W E_2, W = M - X (I + c) not formed."""
    e1 = kernels.subtract(kernels.subtract(e1, e2), kernels.matmul(c, e2))
    moved = kernels.matmul(x, e1, out=out)
    return kernels.add(moved, kernels.matmul(m, e2), out=moved)


@dataclass(frozen=True)
class Cayley:
    """(I - A/2)^-1 (I + A/2) X with the skew A = P Z X^H - X Z^H P, P = I - X X^H / 2; A X = Z.

    For square X, A = Z X^H. It is computed with the inverse of one p x p matrix: with a = X^H Z and
    W = Z - X a,

        (2 X + W) (I - a/2 + W^H W / 4)^-1 - X.

    Second order for square X; for tall X it agrees with the canonical metric's geodesic to O(t^3).

    Notes
    -----
    Cost: four products n p^2 beyond the field's (three for square X; one is a Gram matrix) and the
    inverse of a p x p matrix. A matrix fails at ||Z|| of u^(-1/2), u the unit roundoff.

    References
    ----------
    Wen, Yin, Math. Program. 142, 2013, lemma 4, which solves a 2 p x 2 p system; half of its unknowns
    are eliminated here. [AMS08] example 4.1.2 for O_p.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.retractions import Cayley
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> search = lo.searches.OpenLoop(lo.steps.Constant(0.02))
    >>> lo.minimize(problem, method=lo.Method(search, move=Cayley()), rng=0).success
    True
    """

    def start(self, block: Block) -> MoveRun:
        return _start(block, _cayley)


def _cayley(kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m, c, a, k = _split(kernels, form, eta, work)
    d = kernels.add_identity(kernels.scale(k, 0.25, out=k), 1.0)
    d = kernels.subtract(d, kernels.scale(a, 0.5, out=a), out=d)
    inverse, ok = factor(kernels, _xp.namespace(d).linalg.inv, d, 1.0 / kernels.unit_roundoff)
    e = kernels.add_identity(kernels.scale(inverse, 2.0), -1.0)
    if m is form.x:
        return kernels.matmul(m, e, out=out), math.inf, ok
    return _assembled(kernels, form.x, m, c, e, inverse, out), math.inf, ok


@dataclass(frozen=True)
class Exponential:
    """The geodesic from X with velocity Z = -eta F, at time 1; of one metric or the other.

    For square X both are X expm(X^H Z) = expm(Z X^H) X. For tall X they are two curves: with
    a = X^H Z, W = Z - X a, and k = 2 for the Euclidean metric, k = 1 for the canonical one,

        [X W] expm([[k a, -W^H W], [I, 0]]) [I; 0] expm((1 - k) a).

    With W = Q r this is the canonical [X Q] expm([[a, -r^H], [r, 0]]) [I; 0], without a QR that would
    need W of full rank; and pymanopt's [X Z] expm([[a, -Z^H Z], [I, a]]) [I; 0] expm(-a).

    Parameters
    ----------
    metric : "euclidean" or "canonical"; else a ValueError

    Notes
    -----
    Cost: four products n p^2 beyond the field's and an exponential 2 p x 2 p, and for the Euclidean
    metric another p x p; for square X two products, a Gram matrix and an exponential p x p. An
    exponential is four to six products, and one for each factor 2 in the norm beyond 0.8; it reads two
    numbers back from a device. A matrix fails at ||Z|| of u^(-1/2).

    References
    ----------
    Edelman, Arias, Smith, SIAM J. Matrix Anal. Appl. 20, 1998, sections 2.2.2 and 2.4.2; both metrics
    at once: Zimmermann, Hüper, SIAM J. Matrix Anal. Appl. 43, 2022.

    Examples
    --------
    >>> import landingopt as lo
    >>> from landingopt.retractions import Exponential
    >>> problem = lo.problems.Procrustes.random(10, rng=0)
    >>> search = lo.searches.OpenLoop(lo.steps.Constant(0.02))
    >>> lo.minimize(problem, method=lo.Method(search, move=Exponential()), rng=0).success
    True
    """

    metric: Literal["euclidean", "canonical"] = "euclidean"

    def __post_init__(self) -> None:
        _choose("metric", self.metric, ("euclidean", "canonical"))

    def start(self, block: Block) -> MoveRun:
        if block.stiefel and block.n == block.p:
            return _start(block, _rotation)
        return _start(block, partial(_geodesic, 2.0 if self.metric == "euclidean" else 1.0))


def _rotation(kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    _, _, a, k = _split(kernels, form, eta, work)
    a = kernels.subtract(a, kernels.scale(k, 0.5, out=k), out=a)  # K is X's Delta: see _split
    e, ok = factor(kernels, partial(expm, kernels), a, kernels.unit_roundoff**-0.5)
    return kernels.matmul(form.x, e, out=out), math.inf, ok


def _geodesic(weight: float, kernels: Any, form: Any, eta: Any, work: Array, out: Array) -> Placed:
    m, c, a, k = _split(kernels, form, eta, work)
    p, unit = k.shape[-1], kernels.unit_roundoff
    xp, limit, exponential = _xp.namespace(k), unit**-0.5, partial(expm, kernels)
    # [X W] = [X W/s] diag(I, s I): K/s and s I, s = ||W|| nearly, make the exponent small where Z is.
    s = kernels.scalars.maximum(kernels.scalars.sqrt(kernels.norm(k)), unit**2)
    upper = xp.concat([kernels.scale(a, weight), kernels.scale(k, -1.0 / s, out=k)], axis=-1)
    lower = xp.concat([kernels.add_identity(xp.zeros_like(k), s), xp.zeros_like(k)], axis=-1)
    e, ok = factor(kernels, exponential, xp.concat([upper, lower], axis=-2), limit)
    e = e[..., :p]  # of [I; 0]
    if weight != 1.0:
        turn, fine = factor(kernels, exponential, kernels.scale(a, 1.0 - weight, out=a), limit)
        e, ok = kernels.matmul(e, turn), ok & fine
    e1, e2 = e[..., :p, :], kernels.scale(e[..., p:, :], 1.0 / s)
    return _assembled(kernels, form.x, m, c, e1, e2, out), math.inf, ok


RETRACTIONS = (QR, CholeskyQR, Polar, Cayley, Exponential)
