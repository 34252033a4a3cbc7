"""The left form K X of a field at a square X: what a step computes there.

K = G X^H - X G^H + r Delta, Delta = X X^H - I, without the field's scale: the canonical tangent is
skew(G X^H) X, a multiple of the first two terms times X, and r is the normal term's weight over that
scale. A small step is bound by the number of calls: for one NumPy matrix there are as few as possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array


class Left:
    """K / ``unit`` and Delta at a point, with any kernels.

    ``ratio`` is r; None: no normal term, and Delta only when it is asked for.
    """

    __slots__ = ("_ratio", "_work", "delta", "k", "kernels", "unit")

    def __init__(self, kernels: Any, shape: tuple[int, ...], ratio: float | None):
        self.kernels, self._ratio, self.unit = kernels, ratio, 1.0
        self.k = kernels.empty(shape)
        self._work: Array = None
        self.delta: Array = None

    def update(self, x: Array, g: Array) -> tuple[Any, Any]:
        """K at x; returns ||Delta||_F where it is needed, and ||K||_F where it costs next to nothing."""
        kernels = self.kernels
        self._work = kernels.outer(g, x, out=self._work)
        self.k = kernels.subtract(self._work, kernels.adjoint(self._work), out=self.k)
        if self._ratio is None:
            return None, None
        distance = self.measure(x)
        if self._ratio:
            self._work = kernels.scale(self.delta, self._ratio, out=self._work)
            self.k = kernels.add(self.k, self._work, out=self.k)
        return distance, None

    def measure(self, x: Array) -> Any:
        """Delta, and ||Delta||_F = ||X^H X - I||_F."""
        kernels = self.kernels
        self.delta = kernels.add_identity(kernels.outer(x, x, out=self.delta), -1.0)
        return kernels.norm(self.delta)

    def norm(self) -> Any:
        """||K||_F."""
        return self.kernels.norm(self.k)

    def step(self, x: Array, t: Any, out: Array) -> Array:
        """(I - t K) X."""
        kernels = self.kernels
        factor = kernels.add_identity(kernels.scale(self.k, -t, out=self._work), 1.0)
        return kernels.matmul(factor, x, out=out)


# Up to so many columns OpenBLAS multiplies by a transposed copy faster than by the transpose, and its
# symmetric product gains nothing.
_COPIED = 128


class NumpyLeft(Left):
    """For one NumPy matrix: with views of its buffers that are made once, and nothing called twice."""

    __slots__ = (
        "_adjoint", "_complex", "_copied", "_diagonal", "_diagonal_delta", "_flat_delta", "_flat_k",
        "_high", "_low", "_number", "_ones", "_other",
    )  # fmt: skip

    def __init__(self, kernels: _xp.NumpyMatrix, shape: tuple[int, ...], ratio: float | None):
        super().__init__(kernels, shape, ratio)
        p = shape[-1]
        # What holds nothing from call to call is shared by the points of a run: fewer cache misses.
        self._work, self._adjoint, self._other = kernels.scratch(shape, 3)
        self._complex, self._copied = kernels.complex, p <= _COPIED
        self._low, self._high = kernels.low, kernels.high
        self._diagonal = self._work.reshape(-1)[:: p + 1]
        self._flat_k = self.k.reshape(-1).view(self.k.real.dtype)
        if ratio is not None:
            self._make_delta()
        self._ones = np.ones(p, dtype=kernels.dtype)
        self._number = np.zeros((), dtype=kernels.dtype)  # a Python number is converted each time

    def _make_delta(self) -> None:
        p = self.k.shape[0]
        self.delta = self.kernels.empty((p, p))
        self._diagonal_delta = self.delta.reshape(-1)[:: p + 1]
        self._flat_delta = self.delta.reshape(-1).view(self.delta.real.dtype)

    def update(self, x: np.ndarray, g: np.ndarray) -> tuple[float | None, float | None]:
        k, work, adjoint = self.k, self._work, self._adjoint_of(x)
        _xp.product(g, adjoint, work)
        other = self._other
        other[...] = work.T  # copied: an operation on the transpose is slower than both
        if self._complex:
            np.conjugate(other, other)
        np.subtract(work, other, k)
        if self._ratio is None:
            return None, None
        distance = self._measured(x, adjoint)
        if self._ratio:
            self._number[()] = self._ratio
            np.multiply(self.delta, self._number, work)
            np.add(k, work, k)
        return distance, self.norm()

    def _adjoint_of(self, x: np.ndarray) -> np.ndarray:
        if not self._copied:
            return x.conj().T if self._complex else x.T
        adjoint = self._adjoint
        adjoint[...] = x.T
        return np.conjugate(adjoint, adjoint) if self._complex else adjoint

    def measure(self, x: np.ndarray) -> float:
        if self.delta is None:
            self._make_delta()
        return self._measured(x, self._adjoint_of(x))

    def _measured(self, x: np.ndarray, adjoint: np.ndarray) -> float:
        _xp.product(x, adjoint, self.delta)
        diagonal, flat = self._diagonal_delta, self._flat_delta
        np.subtract(diagonal, self._ones, diagonal)
        return self.kernels.length(flat, self.delta)

    def norm(self) -> float:
        return self.kernels.length(self._flat_k, self.k) * self.unit

    def step(self, x: np.ndarray, t: float, out: np.ndarray) -> np.ndarray:
        work, diagonal = self._work, self._diagonal
        self._number[()] = -t
        np.multiply(self.k, self._number, work)
        np.add(diagonal, self._ones, diagonal)
        return _xp.product(work, x, out)


_SMALL = round(_xp.ONE_THREAD ** (1 / 3))


class SmallLeft(NumpyLeft):
    """With BLAS's own alpha A B + beta C where that is a call fewer; K is in units of r.

    For r >= 1 only: K / r must not overflow where K does not.
    """

    __slots__ = ("_gemm", "_share", "_views")

    def __init__(self, kernels: _xp.NumpyMatrix, shape: tuple[int, ...], ratio: float):
        super().__init__(kernels, shape, ratio)
        self.unit, self._share, self._gemm = ratio, 1.0 / ratio, _xp.gemm(kernels.dtype)
        self._views = self._adjoint.T, self._work.T, self.k.T  # column-major, as BLAS has it

    def update(self, x: np.ndarray, g: np.ndarray) -> tuple[float, float]:
        k, delta, work, other, adjoint = self.k, self.delta, self._work, self._other, self._adjoint
        adjoint_t, work_t, _ = self._views
        adjoint[...] = x.T
        if self._complex:
            np.conjugate(adjoint, adjoint)
        self._gemm(self._share, adjoint_t, g.T, 0.0, work_t, 0, 0, 1)
        other[...] = work.T
        if self._complex:
            np.conjugate(other, other)
        np.subtract(work, other, k)
        _xp.product(x, adjoint, delta)
        diagonal, flat_delta, flat_k = self._diagonal_delta, self._flat_delta, self._flat_k
        np.subtract(diagonal, self._ones, diagonal)
        np.add(k, delta, k)
        d, size, low, high = flat_delta.dot(flat_delta), flat_k.dot(flat_k), self._low, self._high
        d, size = float(d), float(size)
        d = math.sqrt(d) if low < d < high else self.kernels.norm(delta)
        size = math.sqrt(size) if low < size < high else self.kernels.norm(k)
        return d, size * self.unit

    def step(self, x: np.ndarray, t: float, out: np.ndarray) -> np.ndarray:
        if not out.flags.c_contiguous:  # BLAS would work on a copy
            return super().step(x, t * self.unit, out)
        out[...] = x
        self._gemm(-t * self.unit, x.T, self._views[2], 1.0, out.T, 0, 0, 1)
        return out


# Bytes of the matrices of a stack that are worked on together: a few such pieces fit the cache.
_PIECE = 512 * 1024


class StackLeft(Left):
    """For a stack of NumPy matrices, some at a time: all that is done to them is done in the cache."""

    __slots__ = ("_identity", "_rows", "_small", "_squares")

    def __init__(self, kernels: _xp.NumpyStack, shape: tuple[int, ...], ratio: float | None):
        super().__init__(kernels, shape, ratio)
        p, count = shape[-1], max(1, math.prod(shape[:-2]))
        most = _PIECE // max(1, p * p * self.k.itemsize)
        self._rows = min(count, max(1, most))
        self._small = [kernels.empty((self._rows, p, p)) for _ in range(4)]
        self._identity = np.eye(p, dtype=kernels.dtype)
        self._squares = np.empty((2, count), dtype=self.k.real.dtype)

    def _pieces(self, *stacks: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Consecutive matrices of each stack, as many as there is room for."""
        p = self.k.shape[-1]
        flat = [a.reshape(-1, p, p) for a in stacks]
        for i in range(0, len(flat[0]), self._rows):
            yield tuple(a[i : i + self._rows] for a in flat)

    def update(self, x: np.ndarray, g: np.ndarray) -> tuple[Any, Any]:
        ratio, at, conjugate = self._ratio, 0, self.kernels.complex
        self.delta = None  # formed whole only where it is asked for
        for xs, gs, k in self._pieces(x, g, self.k):
            n = len(xs)
            adjoint, work, other, delta = (a[:n] for a in self._small)
            adjoint[...] = xs.mT
            if conjugate:
                np.conjugate(adjoint, adjoint)
            np.matmul(gs, adjoint, out=work)
            other[...] = work.mT
            if conjugate:
                np.conjugate(other, other)
            np.subtract(work, other, k)
            if ratio is not None:
                np.matmul(xs, adjoint, out=delta)
                np.subtract(delta, self._identity, delta)
                self._squares[0, at : at + n] = _squares(delta)
                if ratio:
                    np.multiply(delta, delta.dtype.type(ratio), work)
                    np.add(k, work, k)
                self._squares[1, at : at + n] = _squares(k)
            at += n
        if ratio is None:
            return None, None
        kernels, squares = self.kernels, self._squares
        if not np.all((squares > kernels.low) & (squares < kernels.high)):
            return self.measure(x), self.norm()  # measured again, scaled
        return tuple(np.sqrt(squares).reshape(2, *kernels.batch))

    def step(self, x: np.ndarray, t: Any, out: np.ndarray) -> np.ndarray:
        wide = np.broadcast_to(np.asarray(t, dtype=self.k.dtype), self.kernels.batch).reshape(-1)
        at = 0
        for xs, k, placed in self._pieces(x, self.k, out):
            work = self._small[0][: len(xs)]
            np.multiply(k, -wide[at : at + len(xs), None, None], work)
            np.add(work, self._identity, work)
            np.matmul(work, xs, out=placed)
            at += len(xs)
        return out


def _squares(a: np.ndarray) -> np.ndarray:
    """||.||_F^2 of each matrix of a contiguous stack."""
    rows = a.reshape(len(a), -1).view(a.real.dtype)
    return np.vecdot(rows, rows)


def left(kernels: Any, shape: tuple[int, ...], ratio: float | None) -> Left:
    """What serves these kernels."""
    if isinstance(kernels, _xp.NumpyStack):
        return StackLeft(kernels, shape, ratio)
    if not isinstance(kernels, _xp.NumpyMatrix):
        return Left(kernels, shape, ratio)
    if ratio is not None and ratio >= 1.0 and shape[-1] <= _SMALL:
        return SmallLeft(kernels, shape, ratio)
    return NumpyLeft(kernels, shape, ratio)
