"""The geometry of orthogonal matrices, without optimisation."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from landingopt import _xp
from landingopt._xp import FLOATS, Array, ArrayScalars

TOO_FAR = "too far"


class NewtonSchulzRun:
    """Newton–Schulz passes Y <- Y (I + P), P = -E/2 + 3 E^2/8, E = Y^H Y - I, with own buffers.

    A pass takes E to 5/8 E^3 + ..., (-3/4 E^2 + ... where E^2 saves nothing): matrix products only.
    ``Y`` with ||E|| > 0.9 is scaled first, so that every Y of full rank converges.
    """

    def __init__(self, kernels: Any, shape: tuple[int, ...], max_passes: int = 25):
        self.kernels, self.max_passes = kernels, max_passes
        batch = shape[:-2]
        square = (*batch, shape[-1], shape[-1])
        self._gram = kernels.empty(square)
        self._p, self._square = kernels.scratch(square, 2)
        self._work = kernels.empty(shape)
        self._scalars: Any = FLOATS if not batch else ArrayScalars(np, np.float64, None, batch)
        self._float = not batch
        self._plain = kernels.scalars is FLOATS
        self._unit, self._columns = kernels.unit_roundoff, shape[-1]
        self.passes = 0

    def work(self) -> Array:
        """A buffer of Y's shape in which the caller may build Y; handed to :meth:`__call__`."""
        return self._work

    def _read(self, value: Any) -> Any:
        value = self.kernels.host(value)[0]
        return float(value) if self._float else value

    def _residual(self, y: Array) -> tuple[Array, Any]:
        """E = Y^H Y - I, and its norm on the host."""
        self._gram, e = self.kernels.residual(y, self._gram)
        return self._gram, e if self._plain else self._read(e)

    def __call__(
        self,
        y: Array,
        out: Array,
        tol: float,
        floor: float | None = None,
        limit: float = math.inf,
        known: Any = None,
    ) -> Any:
        """Run passes (at least one) until ||Y^H Y - I||_F <= tol.

        Returns ``(x, distance, delta, ok)``: the result (``out`` or the work buffer: whichever is
        not returned becomes the work buffer), ||X^H X - I||_F or a bound on it, X^H X - I or None
        where it is below ``floor`` and was not formed, and whether ``tol`` was reached, the last
        two per matrix. For one NumPy matrix with ||Y^H Y - I||_2 > ``limit`` no pass is
        made: ``delta`` is TOO_FAR, and the distance a bound on that norm, ||(Y^H Y - I)^2||_F^(1/2).
        ``known`` is (Y^H Y - I, its norm), where :meth:`stretch` has just formed them.
        """
        scalars = self._scalars
        if floor is None:  # below it a bound replaces the Gram matrix; never coarser than tol
            floor = min(500.0 * self._unit, max(tol, 4.0 * self._unit * self._columns))
        if self._plain:
            return self._one(y, out, tol, floor, limit)
        delta, e = self._residual(y) if known is None else known
        if scalars.any(e > 0.9):
            y, delta, e = self._scaled(y, delta, e)
        y, out, e, formed = self._passes(y, out, delta, e, tol, floor)
        self._work = out
        return y, e, formed, scalars.isfinite(e) & (e <= max(tol, floor))

    def _one(
        self, y: Array, out: Array, tol: float, floor: float, limit: float
    ) -> tuple[Array, float, Any, bool]:
        """The same for one NumPy matrix, with Python's floats."""
        kernels, gram, small = self.kernels, self._gram, (self._square, self._p)
        delta, e = kernels.residual(y, gram)
        if e > limit:
            bound = self._spectral_bound(delta)
            if bound > limit:
                return y, bound, TOO_FAR, False
        if e > 0.9:
            y, delta, e = self._scaled(y, delta, e)
        formed = delta
        for _ in range(self.max_passes):
            if not e < math.inf:
                break
            self.passes += 1
            bound = 0.75 * e * e
            # E^2 where it saves a pass, or the next Gram matrix.
            if second := bound > floor and (bound > tol or 0.625 * e * e * e * (1.0 + e) <= floor):
                bound = 0.625 * e * e * e * (1.0 + e)
            y, out = kernels.corrected(y, delta, second, small, out), y
            if bound <= floor:
                e, formed = bound, None
                break
            formed, e = kernels.residual(y, gram)
            if e <= tol:
                break
        self._work = out
        return y, e, formed, e <= max(tol, floor)

    def planned(self, y: Array, out: Array, expected: float, tol: float) -> Any:
        """The passes that ||Y^H Y - I||_F <= ``expected`` < 0.9 needs; nothing is read back.

        Returns ``(x, bound, delta, first)``: as :meth:`__call__`, with a bound on the distance that
        holds where ``first``, ||Y^H Y - I||_F where the data lives, is at most ``expected``.
        """
        kernels, scalars = self.kernels, self._scalars
        floor = min(500.0 * self._unit, max(tol, 4.0 * self._unit * self._columns))
        delta, first = kernels.residual(y, self._gram)
        e = expected if self._float else scalars.full(expected)
        for _ in range(self.max_passes):
            self.passes += 1
            p, e = self._polynomial(delta, e, tol, floor)
            y, out = kernels.matmul(y, p, out=out), y
            if not scalars.any(e > floor):
                delta = None
                break
            delta = self._gram = kernels.add_identity(kernels.cross(y, y, out=self._gram), -1.0)
            if self._worst(e) <= tol:
                break
        self._work = out
        return y, e, delta, first

    def stretch(self, y: Array, limit: float) -> tuple[Any, Array, Any]:
        """A bound on ||E||_2, closer where ||E||_F > ``limit``; E = Y^H Y - I, and ||E||_F."""
        delta, e = self._residual(y)
        beyond = e > limit
        if not np.any(beyond):
            return e, delta, e
        return self._scalars.where(beyond, self._spectral_bound(delta), e), delta, e

    def _spectral_bound(self, delta: Array) -> Any:
        """||E||_2 <= ||E^2||_F^(1/2)."""
        self._square = self.kernels.matmul(delta, delta, out=self._square)
        return self._scalars.sqrt(self._read(self.kernels.norm(self._square)))

    def _passes(
        self, y: Array, out: Array, delta: Array, e: Any, tol: float, floor: float
    ) -> tuple[Array, Array, Any, Array | None]:
        """(x, the other buffer, distance, delta) after the passes from Y with Gram I + delta."""
        kernels, scalars = self.kernels, self._scalars
        for left in reversed(range(self.max_passes)):
            if self._worst(e) == 0.0 and not scalars.all(scalars.isfinite(e)):
                break
            self.passes += 1
            p, bound = self._polynomial(delta, e, tol, floor)
            y, out = kernels.matmul(y, p, out=out), y
            late = bound > floor
            if not scalars.any(late):
                return y, out, bound, None
            if kernels.subsets and not scalars.all(late):
                return y, out, *self._finish(y, bound, late, tol, floor, left)
            delta, e = self._residual(y)
            if self._worst(e) <= tol:
                break
        return y, out, e, delta

    def _polynomial(self, delta: Array, e: Any, tol: float, floor: float) -> tuple[Array, Any]:
        """I + P, and a bound on the distance it leaves; E^2 where it saves a pass or a Gram matrix."""
        kernels, scalars = self.kernels, self._scalars
        bound = 0.75 * e * e
        second = (bound > floor) & ((bound > tol) | (0.625 * e * e * e * (1.0 + e) <= floor))
        some, square = scalars.any(second), None
        weight: Any = 0.375
        if kernels.subsets and some and not scalars.all(second):
            self._p = kernels.polynomial(delta, None, weight, self._p)
            part = delta[second]
            self._p[second] += 0.375 * (part @ part)
        else:
            if some:
                square = self._square = kernels.matmul(delta, delta, out=self._square)
                weight = (
                    0.375 if self._float or scalars.all(second) else np.where(second, 0.375, 0.0)
                )
            self._p = kernels.polynomial(delta, square, weight, self._p)
        return self._p, scalars.where(second, 0.625 * e * e * e * (1.0 + e), 0.75 * e * e)

    def _finish(
        self, y: Array, bound: Any, late: Any, tol: float, floor: float, passes: int
    ) -> tuple[Any, Array]:
        """The matrices of a stack that need more than one pass, apart from the others."""
        part = y[late]
        run = NewtonSchulzRun(_xp.kernels(part, part.shape[:1]), part.shape, passes)
        delta, e = run._residual(part)
        if run._worst(e) > tol:
            part, _, e, rest = run._passes(part, run.work(), delta, e, tol, floor)
            y[late], delta = part, 0.0 if rest is None else rest
        bound[late] = e
        self._gram[...] = 0.0
        self._gram[late] = delta
        return bound, self._gram

    def _worst(self, e: Any) -> float:
        """The largest finite entry: a matrix that broke does not keep the others waiting."""
        if self._float:
            return e if math.isfinite(e) else 0.0
        finite = e[np.isfinite(e)]
        return float(finite.max()) if finite.size else 0.0

    def _scaled(self, y: Array, delta: Array, e: Any) -> tuple[Array, Array, Any]:
        """Y sqrt(a) with eigenvalues of its Gram matrix below 2, where ||E|| may exceed 0.9."""
        kernels, scalars = self.kernels, self._scalars
        rows = self._read(kernels.largest_row_sum(delta))
        b = scalars.minimum(e, rows)
        b = scalars.where((e > 0.9) & (b > 0.9) & scalars.isfinite(b), b, scalars.full(0.0))
        a = 1.0 / (1.0 + 0.5 * b)
        y = kernels.scale(y, scalars.sqrt(a), out=y)
        delta = kernels.add_identity(kernels.scale(delta, a, out=delta), a - 1.0)
        return y, delta, self._read(kernels.norm(delta))


def _check(x: Array, what: str = "x") -> None:
    _xp.namespace(x)
    _xp.check_floating(x, what)
    if x.ndim < 2:
        raise ValueError(f"{what} must have shape (n, p) or (..., n, p), got {tuple(x.shape)}")


def _tall(x: Array) -> tuple[Array, bool]:
    wide = x.shape[-2] < x.shape[-1]
    return (_xp.H(x) if wide else x), wide


def distance(x: Array) -> Any:
    """||X^H X - I||_F, per matrix (X X^H for a wide X).

    Returns
    -------
    float, or an array of shape (...) for a stack
        0 on the manifold; the *infeasibility* of [Talk] is N = distance^2 / 4.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> round(lo.stiefel.distance(2.0 * np.eye(3)), 6)  # 3 * sqrt(3)
    5.196152
    """
    _check(x)
    x, _ = _tall(x)
    kernels = _xp.kernels(x, tuple(x.shape[:-2]))
    return kernels.norm(kernels.add_identity(kernels.cross(x, x), -1.0))


def polar(x: Array, method: Literal["svd", "newton-schulz"] = "svd") -> Array:
    """The closest matrix with orthonormal columns, X (X^H X)^(-1/2) (rows for a wide X).

    Parameters
    ----------
    x : array (..., n, p)
    method : "svd" or "newton-schulz"
        Newton–Schulz is matrix products only; it suits GPUs and needs full rank: about
        1.1 log2(condition number) + 5 passes.

    Raises
    ------
    ValueError
        Where X has no full rank to the working precision, or the method is not one of the two.

    References
    ----------
    [AMS08] section 4.1.1; N. Higham, Functions of Matrices, 2008, chapter 8.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> x = lo.stiefel.polar(np.array([[3.0, 1.0], [0.0, 2.0]]), method="newton-schulz")
    >>> bool(lo.stiefel.distance(x) < 1e-14)
    True
    """
    _check(x)
    if method not in ("svd", "newton-schulz"):
        raise ValueError(f'method must be "svd" or "newton-schulz", got {method!r}')
    if not _xp.all_finite(x):
        raise ValueError("x has entries that are not finite; it has no polar factor")
    x, wide = _tall(x)
    if 0 in tuple(x.shape):
        result = _xp.copy(x)
    elif method == "svd":
        xp = _xp.namespace(x)
        u, sigma, vh = xp.linalg.svd(x, full_matrices=False)
        host = _xp.to_host(sigma)
        if np.any(host[..., -1] <= host[..., 0] * _xp.unit_roundoff(x) * x.shape[-1]):
            raise _rank_error(x)
        result = u @ vh
    else:
        result = orthonormalized(x)
    return _xp.H(result) if wide else result


def _rank_error(x: Array, what: str = "x") -> ValueError:
    return ValueError(
        f"{what} of shape {tuple(x.shape)} does not have full rank to working precision, so no "
        "closest orthogonal matrix is defined; pass another start, "
        "e.g. lo.stiefel.random(n, p, rng=0)"
    )


def orthonormalized(x: Array, what: str = "x") -> Array:
    """polar(x) of a tall x (or stack) by Newton–Schulz, to rounding; a fresh array."""
    kernels = _xp.kernels(x, tuple(x.shape[:-2]))
    unit = _xp.unit_roundoff(x)
    p = x.shape[-1]
    # Small singular values grow by at most 15/8 a pass. More passes than condition 1/(u p) takes
    # would blow rounding up to an arbitrary orthonormal direction where X has no full rank.
    passes = 5 + int(math.log(1.0 / (unit * p)) / math.log(15.0 / 8.0))
    run = NewtonSchulzRun(kernels, tuple(x.shape), max_passes=passes)
    # Scale the largest entry to 1 first: squares neither overflow nor vanish at any scale of x.
    top = _xp.to_host(_xp.namespace(x).max(_xp.namespace(x).abs(x), axis=(-2, -1)))
    if np.any(top == 0):
        raise _rank_error(x, what)
    # Twice, each by a root: 1 / top alone may overflow.
    scale = np.asarray(top, dtype=np.float64) ** -0.5
    y = _xp.copy(x)
    for _ in range(2):
        y = kernels.scale(y, float(scale) if scale.ndim == 0 else scale)
    y, _, _, ok = run(y, kernels.empty(tuple(x.shape)), tol=4.0 * unit * p, floor=unit)
    if not np.all(ok):
        raise _rank_error(x, what)
    return y


def random(
    n: int,
    p: int | None = None,
    *,
    stack: tuple[int, ...] = (),
    rng: np.random.Generator | int | None = None,
    dtype: Any = np.float64,
    like: Array | None = None,
) -> Array:
    """A uniform (Haar) random matrix with orthonormal columns (rows when n < p), or a stack.

    Parameters
    ----------
    n, p : int
        p defaults to n.
    stack : tuple of int
        Leading dimensions.
    rng : numpy Generator, int or None
        The same integer gives the same matrix in every array library.
    dtype : NumPy dtype, used when ``like`` is None.
    like : array, optional
        Gives library, dtype and device.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.stiefel.random(5, 3, rng=0).shape
    (5, 3)
    """
    p = n if p is None else p
    generator = np.random.default_rng(rng)
    like = np.empty((), dtype=dtype) if like is None else like
    _xp.check_floating(like, "like")
    tall = (*stack, max(n, p), min(n, p))
    values = generator.standard_normal(tall)
    if _xp.is_complex(like):
        values = values + 1j * generator.standard_normal(tall)
    q, r = np.linalg.qr(values)
    diagonal = np.diagonal(r, axis1=-2, axis2=-1)
    q = q * (diagonal / np.abs(diagonal))[..., None, :]  # positive diagonal of R: Haar measure
    if n < p:
        q = q.conj().mT if np.iscomplexobj(q) else q.mT
    return _xp.from_host(np.ascontiguousarray(q), like)


def component(x: Array) -> Any:
    """The connected component of a square real X: the sign of det X, +1 or -1, per matrix.

    O_p has two components and no continuous path joins them: a solver stays in the one of its
    start. Everything else that the library solves on is connected, and gives None.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> lo.stiefel.component(np.diag([1.0, -1.0, 1.0]))
    -1
    """
    _check(x)
    if x.shape[-1] != x.shape[-2] or _xp.is_complex(x):
        return None
    sign = np.sign(np.linalg.det(_xp.to_host(x).astype(np.float64))).astype(int)
    return int(sign) if sign.ndim == 0 else sign


def reflected(x: Array) -> Array:
    """X with its last column negated: the same distance, the other connected component."""
    flip = np.ones(x.shape[-1])
    flip[-1] = -1.0
    return x * _xp.from_host(flip, x)
