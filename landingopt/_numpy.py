"""Kernels for NumPy: ``out=`` everywhere, and as few calls as there can be for one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from landingopt import _blas
from landingopt._xp import FLOATS, ArrayScalars, Composed, Generic, unit_roundoff

_SMALL = 48  # columns up to which one pass over a p x p matrix is cheaper than two more calls
# Entries up to which SciPy's inner product costs less than NumPy's, for less comes before it.
_DIRECT = 4096
# Bytes that stay in a cache from one pass to the next.
_PIECE = 128 * 1024


class _NumpyArithmetic(Composed):
    """What NumPy does alike for one matrix and for a stack, with ``out=`` everywhere; abstract."""

    def __init__(self, like: np.ndarray):
        self.dtype = like.dtype
        self.complex = like.dtype.kind == "c"
        self.unit_roundoff = unit_roundoff(like)
        info = np.finfo(like.dtype)
        # Squares outside this range have lost digits or overflowed: measure again, scaled.
        self.low, self.high = float(info.tiny) / float(info.eps) ** 2, float(info.max)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.empty(shape, dtype=self.dtype)

    def adjoint(self, x: np.ndarray) -> np.ndarray:
        return x.conj().mT if self.complex else x.mT

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.matmul(a, b, out=out)

    def cross(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """a^H b.  With ``a is b`` NumPy calls the symmetric product."""
        return np.matmul(a.conj().mT if self.complex else a.mT, b, out=out)

    def outer(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """a b^H."""
        return np.matmul(a, b.conj().mT if self.complex else b.mT, out=out)

    def add(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.add(a, b, out=out)

    def subtract(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.subtract(a, b, out=out)

    def sym(self, a: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.add(a, self.adjoint(a), out=out)
        out *= 0.5
        return out

    def skew(self, a: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        out = np.subtract(a, self.adjoint(a), out=out)
        out *= 0.5
        return out

    def copy_into(self, a: np.ndarray, out: np.ndarray) -> np.ndarray:
        np.copyto(out, a)
        return out

    def random(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(shape).astype(self.dtype)


class NumpyMatrix(_NumpyArithmetic):
    """Kernels for one NumPy matrix: ``out=`` everywhere, scalars are Python floats.

    At small sizes a solve is bound by the number of calls: what a step needs together is one method.
    """

    scalars: Any = FLOATS
    subsets = False

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return _blas.product(a, b, out)

    def cross(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """a^H b.  With ``a is b`` NumPy calls the symmetric product."""
        return _blas.product(a.conj().T if self.complex else a.T, b, out)

    def outer(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """a b^H."""
        return _blas.product(a, b.conj().T if self.complex else b.T, out)

    def scale(self, a: np.ndarray, t: float, out: np.ndarray | None = None) -> np.ndarray:
        return np.multiply(a, t, out=out)

    def __init__(self, like: np.ndarray):
        super().__init__(like)
        self._identity = np.zeros((0, 0), dtype=like.dtype)
        # Python's numbers are converted in each call.
        self._half, self._minus_half, self._number = (
            np.array(value, dtype=like.dtype) for value in (0.5, -0.5, 0.0)
        )
        self._scratch: dict[tuple[int, ...], list[np.ndarray]] = {}
        self._routines: dict[str, Any] = {}
        self._ddot = _blas.blas("dot", np.zeros(0, self.dtype).real.dtype)

    def add_identity(self, a: np.ndarray, t: float) -> np.ndarray:
        """a + t I, in place."""
        p = a.shape[0]
        if t == -1.0 and p <= _SMALL:  # fewer calls than a walk along the diagonal
            if self._identity.shape[0] != p:
                self._identity = np.eye(p, dtype=self.dtype)
            return np.subtract(a, self._identity, a)
        a.reshape(-1)[:: p + 1] += t
        return a

    def lapack(self, name: str) -> Any:
        """SciPy's LAPACK routine for this dtype."""
        if name not in self._routines:
            from scipy.linalg.lapack import get_lapack_funcs

            self._routines[name] = get_lapack_funcs(name, dtype=self.dtype)
        return self._routines[name]

    def scratch(self, shape: tuple[int, ...], count: int) -> list[np.ndarray]:
        """The same memory each time: for what does not outlive a call."""
        known = self._scratch.setdefault(shape, [])
        known.extend(self.empty(shape) for _ in range(count - len(known)))
        return known[:count]

    def residual(self, y: np.ndarray, out: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        e = self.gram(y, out)
        self.add_identity(e, -1.0)
        return e, self.norm(e)

    def gram(self, y: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """y^H y."""
        return _blas.product(y.conj().T if self.complex else y.T, y, out)

    def tangent(
        self, x: np.ndarray, g: np.ndarray, cross: np.ndarray, phi: np.ndarray, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        self.project(x, g, cross, phi, out)
        return phi, out, self.norm(out)

    def project(
        self, x: np.ndarray, z: np.ndarray, cross: np.ndarray, work: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        _blas.product(x.conj().T if self.complex else x.T, z, cross)
        work[...] = cross.T  # copied: an operation on the transpose is slower, and allocates
        if self.complex:
            np.conjugate(work, work)
        np.add(work, cross, work)
        np.multiply(work, self._half, work)
        _blas.product(x, work, out)
        return np.subtract(z, out, out)

    def tangent_hessian(
        self, h: np.ndarray, v: np.ndarray, phi: np.ndarray, x: np.ndarray, half: np.ndarray,
        small: tuple[np.ndarray, np.ndarray], work: np.ndarray, out: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """P(h - V Phi) at X on the manifold, with X / 2 at hand; in ``out``."""
        cross, other = small
        _blas.product(v, phi, out)
        z = np.subtract(h, out, out)
        _blas.product(x.conj().T if self.complex else x.T, z, cross)
        adjoint = cross.conj().T if self.complex else cross.T
        if x.shape[0] == x.shape[1]:  # Z = X X^H Z: what is left is X skew(X^H Z)
            return _blas.product(half, np.subtract(cross, adjoint, other), out)
        _blas.product(half, np.add(cross, adjoint, other), work)
        return np.subtract(z, work, out)

    def stepped(self, x: np.ndarray, f: np.ndarray, eta: float, out: np.ndarray) -> np.ndarray:  # type: ignore[override]
        self._number[()] = eta
        np.multiply(f, self._number, out)
        return np.subtract(x, out, out)

    def polynomial(  # type: ignore[override]
        self, e: np.ndarray, square: np.ndarray | None, weight: float, out: np.ndarray
    ) -> np.ndarray:
        np.multiply(e, self._minus_half, out)
        if square is not None:
            self._number[()] = weight
            np.multiply(square, self._number, square)
            np.add(out, square, out)
        p = out.shape[0]
        if self._identity.shape[0] == p:
            return np.add(out, self._identity, out)
        out.reshape(-1)[:: p + 1] += 1.0
        return out

    def changes(
        self, a: np.ndarray, before_a: np.ndarray, b: np.ndarray, before_b: np.ndarray
    ) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """(a - before_a, b - before_b), some rows at a time, in the same memory each time."""
        if a.nbytes <= _PIECE:
            one, other = self.scratch(a.shape, 2)
            return ((np.subtract(a, before_a, one), np.subtract(b, before_b, other)),)
        return self._pieces(a, before_a, b, before_b)

    def _pieces(
        self, a: np.ndarray, before_a: np.ndarray, b: np.ndarray, before_b: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n, p = a.shape
        rows = max(1, _PIECE // (p * a.itemsize))
        memory = self.scratch((rows, p), 2)
        for i in range(0, n, rows):
            at = slice(i, i + rows)
            one, other = (m[: n - i] for m in memory)
            np.subtract(a[at], before_a[at], one)
            np.subtract(b[at], before_b[at], other)
            yield one, other

    def corrected(
        self, y: np.ndarray, e: np.ndarray, second: bool,
        small: tuple[np.ndarray, np.ndarray], out: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Y (I - E / 2), with + 3 E^2 / 8 in the bracket where ``second``: a Newton–Schulz pass."""
        square, work = small
        if second:
            square = self.matmul(e, e, out=square)
        return self.matmul(y, self.polynomial(e, square if second else None, 0.375, work), out=out)

    def dot(self, a: np.ndarray, b: np.ndarray) -> float:
        """Re <a, b> over all entries."""
        if self.complex:
            value = float(np.vdot(a, b).real)
        elif 0 < a.size <= _DIRECT:
            value = self._ddot(a.ravel(), b.ravel())
        else:
            value = float(a.ravel().dot(b.ravel()))
        if not self.low < abs(value) < self.high and a.size:
            return self._scaled_dot(a, b)
        return value

    def _scaled_dot(self, a: np.ndarray, b: np.ndarray) -> float:
        top_a, top_b = float(np.abs(a).max()), float(np.abs(b).max())
        if not (0.0 < top_a < math.inf and 0.0 < top_b < math.inf):
            return top_a * top_b  # zero, inf or nan
        return float(np.vdot(a / a.dtype.type(top_a), b / b.dtype.type(top_b)).real) * top_a * top_b

    def norm(self, a: np.ndarray) -> float:
        """Frobenius norm, right over the whole range of the dtype."""
        if self.complex:
            value = float(np.vdot(a, a).real)
        else:
            flat = a.ravel()
            value = self._ddot(flat, flat) if 0 < a.size <= _DIRECT else float(flat.dot(flat))
        if self.low < value < self.high:
            return math.sqrt(value)
        if not a.size:
            return 0.0
        top = float(np.abs(a).max())
        if not 0.0 < top < math.inf:
            return top
        unit = a / a.dtype.type(top)
        return top * math.sqrt(float(np.vdot(unit, unit).real))

    def length(self, flat: np.ndarray, whole: np.ndarray) -> float:
        """The norm of ``whole``, of which ``flat`` is a view as real numbers in a row."""
        square = float(flat.dot(flat))
        return math.sqrt(square) if self.low < square < self.high else self.norm(whole)

    def largest_row_sum(self, a: np.ndarray) -> float:
        if self.complex:
            return float(np.abs(a).sum(axis=1).max())
        return float(np.abs(a, out=self.scratch(a.shape, 1)[0]).sum(axis=1).max())

    def select(self, condition: bool, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a if condition else b

    def replace(self, a: np.ndarray, condition: bool, b: np.ndarray) -> np.ndarray:
        return self.copy_into(b, a) if condition else a

    def host(self, *values: float) -> tuple[float, ...]:
        return values


class SmallMatrix(NumpyMatrix):
    """A matrix so small that calls count: sums are left to BLAS's alpha A B + beta C.

    In column-major terms, which BLAS has, an array in rows is its transpose. All ``out`` are in rows.
    """

    def __init__(self, like: np.ndarray):
        super().__init__(like)
        self._gemm: Any = _blas.blas("gemm", like.dtype)
        self._turn = 2 if self.complex else 1

    def gram(self, y: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if out is None:
            return super().gram(y, out)
        y_t = y.T
        self._gemm(1.0, y_t, y_t, 0.0, out.T, 0, self._turn, 1)
        return out

    def tangent(
        self, x: np.ndarray, g: np.ndarray, cross: np.ndarray, phi: np.ndarray, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        gemm, x_t, cross_t = self._gemm, x.T, cross.T
        gemm(0.5, g.T, x_t, 0.0, cross_t, 0, self._turn, 1)
        phi[...] = cross_t
        if self.complex:
            np.conjugate(phi, phi)
        np.add(phi, cross, phi)
        out[...] = g
        gemm(-1.0, phi.T, x_t, 1.0, out.T, 0, 0, 1)
        return phi, out, self.norm(out)

    def corrected(
        self, y: np.ndarray, e: np.ndarray, second: bool,
        small: tuple[np.ndarray, np.ndarray], out: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        gemm, e_t = self._gemm, e.T
        out[...] = y
        if not second:
            gemm(-0.5, e_t, y.T, 1.0, out.T, 0, 0, 1)
            return out
        work = small[1]
        work[...] = e
        gemm(0.375, e_t, e_t, -0.5, work.T, 0, 0, 1)
        gemm(1.0, work.T, y.T, 1.0, out.T, 0, 0, 1)
        return out


class NumpyStack(_NumpyArithmetic):
    """Kernels for a stack of NumPy matrices: ``out=`` everywhere, one number for each matrix."""

    subsets = True  # some matrices of a stack can be worked on apart

    def __init__(self, like: np.ndarray, batch: tuple[int, ...]):
        super().__init__(like)
        self.batch = batch
        self.scalars: Any = ArrayScalars(np, np.finfo(like.dtype).dtype, None, batch)

    def _expand(self, t: Any) -> Any:
        """A number per matrix as something that multiplies the stack, in the stack's precision."""
        if isinstance(t, (float, int)):
            return t
        return t.astype(self.dtype, copy=False)[..., None, None]

    def scale(self, a: np.ndarray, t: Any, out: np.ndarray | None = None) -> np.ndarray:
        return np.multiply(a, self._expand(t), out=out)

    def add_identity(self, a: np.ndarray, t: Any) -> np.ndarray:
        """a + t I, in place."""
        diagonal = np.einsum("...ii->...i", a)
        diagonal += t if isinstance(t, (float, int)) else self._expand(t)[..., 0]
        return a

    def _rows(self, a: np.ndarray) -> np.ndarray:
        return a.reshape((*self.batch, -1))

    def dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Re <a, b> per matrix; measured again, scaled, where squares leave the dtype's range."""
        with np.errstate(all="ignore"):
            value = np.vecdot(self._rows(a), self._rows(b)).real.astype(np.float64)
        sizes = np.abs(value)
        doubtful = ~((sizes > self.low) & (sizes < self.high))
        if doubtful.any():
            # In double precision: the square of a float32 number may have no float32.
            wide = np.result_type(self.dtype, np.float64)
            part = a[doubtful].astype(wide)
            value[doubtful] = Generic(part, part.shape[:1]).dot(part, b[doubtful].astype(wide))
        return value

    def norm(self, a: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            rows = self._rows(a)
            value = np.vecdot(rows, rows).real
        doubtful = ~((value > self.low) & (value < self.high))
        norm = np.sqrt(value, where=~doubtful, out=np.zeros_like(value))
        if doubtful.any():
            part = a[doubtful]
            norm[doubtful] = Generic(part, part.shape[:1]).norm(part)
        return norm

    def largest_row_sum(self, a: np.ndarray) -> np.ndarray:
        return np.abs(a).sum(axis=-1).max(axis=-1)

    def select(self, condition: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``a`` where the (per-matrix) condition holds, ``b`` elsewhere."""
        if isinstance(condition, (bool, np.bool_)):
            return a if condition else b
        return np.where(condition[..., None, None], a, b)

    def replace(self, a: np.ndarray, condition: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``a``, our own memory, with b's matrices where the condition holds; in place."""
        a[condition] = b[condition]
        return a

    def host(self, *values: Any) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(v, dtype=np.float64) for v in values)


def kernels(like: np.ndarray, batch: tuple[int, ...]) -> Any:
    """The kernels that serve arrays of this size."""
    if batch:
        return NumpyStack(like, batch)
    if like.ndim == 2:
        n, p = max(like.shape), min(like.shape)
        if n * p * p <= _blas.ONE_THREAD or (n == p and p <= _blas.direct_columns()):
            return SmallMatrix(like)
    return NumpyMatrix(like)
