"""The left form K X of a field at a square X: what a step computes there.

K = G X^H - X G^H + r Delta, Delta = X X^H - I, without the field's scale: the canonical tangent is
skew(G X^H) X, a multiple of the first two terms times X, and r is the normal term's weight over that
scale. A small step is bound by the number of calls: for one NumPy matrix there are as few as possible.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from landingopt import _blas, _cores, _numpy
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
        if self._ratio is None:
            self.k = kernels.skewed(self._work, out=self.k)
            return None, None
        gram = kernels.outer(x, x, out=self.delta)
        self.delta, self.k = kernels.left_form(self._work, gram, self._ratio)
        return kernels.norm(self.delta), None

    def measure(self, x: Array) -> Any:
        """Delta, and ||Delta||_F = ||X^H X - I||_F."""
        kernels = self.kernels
        self.delta = kernels.add_identity(kernels.outer(x, x, out=self.delta), -1.0)
        return kernels.norm(self.delta)

    def norm(self) -> Any:
        """||K||_F."""
        return self.kernels.norm(self.k)

    def step(self, x: Array, t: Any, out: Array) -> Array:
        """X - t K X."""
        kernels = self.kernels
        return kernels.stepped(x, kernels.matmul(self.k, x, out=self._work), t, out)


# Up to so many columns OpenBLAS multiplies by a transposed copy faster than by the transpose, and its
# symmetric product gains nothing.
_COPIED = 128


class NumpyLeft(Left):
    """For one NumPy matrix: with views of its buffers that are made once, and nothing called twice."""

    __slots__ = (
        "_adjoint", "_complex", "_copied", "_diagonal", "_diagonal_delta", "_flat_delta", "_flat_k",
        "_high", "_low", "_number", "_ones", "_other",
    )  # fmt: skip

    def __init__(self, kernels: _numpy.NumpyMatrix, shape: tuple[int, ...], ratio: float | None):
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
        _blas.product(g, adjoint, work)
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
        _blas.product(x, adjoint, self.delta)
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
        return _blas.product(work, x, out)


class SmallLeft(NumpyLeft):
    """BLAS's routines called directly, and views made once; K is in units of r.

    For r >= 1 only: K / r must not overflow where K does not.
    """

    __slots__ = ("_axpy", "_dot", "_gemm", "_place", "_place_t", "_share", "_views", "_x", "_x_t")

    def __init__(self, kernels: _numpy.NumpyMatrix, shape: tuple[int, ...], ratio: float):
        super().__init__(kernels, shape, ratio)
        self.unit, self._share = ratio, 1.0 / ratio
        self._gemm = _blas.blas("gemm", kernels.dtype)
        real = self.k.real.dtype
        self._axpy, self._dot = _blas.blas("axpy", real), _blas.blas("dot", real)
        # Column-major, as BLAS has it.
        self._views = self._adjoint.T, self._work.T, self.k.T, self.delta.T
        # X lives in one of two buffers and the step leads to the other: their views are kept.
        self._x: Array = None
        self._x_t: Array = None
        self._place: Array = None
        self._place_t: Array = None

    def update(self, x: np.ndarray, g: np.ndarray) -> tuple[float, float]:
        k, delta, work, other, adjoint = self.k, self.delta, self._work, self._other, self._adjoint
        adjoint_t, work_t, _, delta_t = self._views
        gemm, dot = self._gemm, self._dot
        if x is not self._x:
            self._x, self._x_t = x, x.T
        x_t = self._x_t
        adjoint[...] = x_t
        if self._complex:
            np.conjugate(adjoint, adjoint)
        gemm(self._share, adjoint_t, g.T, 0.0, work_t, 0, 0, 1)
        other[...] = work_t
        if self._complex:
            np.conjugate(other, other)
        np.subtract(work, other, k)
        gemm(1.0, adjoint_t, x_t, 0.0, delta_t, 0, 0, 1)
        diagonal, flat_delta, flat_k = self._diagonal_delta, self._flat_delta, self._flat_k
        np.subtract(diagonal, self._ones, diagonal)
        self._axpy(flat_delta, flat_k)
        d, size, low, high = dot(flat_delta, flat_delta), dot(flat_k, flat_k), self._low, self._high
        d = math.sqrt(d) if low < d < high else self.kernels.norm(delta)
        size = math.sqrt(size) if low < size < high else self.kernels.norm(k)
        return d, size * self.unit

    def step(self, x: np.ndarray, t: float, out: np.ndarray) -> np.ndarray:
        if x is not self._x:
            return super().step(x, t * self.unit, out)
        if out is not self._place:
            self._place, self._place_t = out, out.T
        out[...] = x
        self._gemm(-t * self.unit, self._x_t, self._views[2], 1.0, self._place_t, 0, 0, 1)
        return out


# Bytes of the matrices of a stack that are worked on together: a few such pieces fit the cache.
_PIECE = 512 * 1024
# Of a stack that is worth a second thread.
_SHARED = 1024 * 1024


class StackLeft(Left):
    """For a stack of NumPy matrices, some at a time: all that is done to them is done in the cache.

    Matrices that BLAS multiplies with one thread are shared between the cores.
    """

    __slots__ = ("_ranges", "_rows", "_squares")

    def __init__(self, kernels: _numpy.NumpyStack, shape: tuple[int, ...], ratio: float | None):
        super().__init__(kernels, shape, ratio)
        p, count = shape[-1], math.prod(shape[:-2])
        threads = 1
        if p**3 <= _blas.ONE_THREAD and self.k.nbytes >= _SHARED:
            threads = min(_cores.count(), count)
        share = -(-count // threads)
        most = _PIECE // max(1, p * p * self.k.itemsize)
        self._rows = max(1, min(share, most))
        # (first, last, memory) of each thread
        self._ranges = [
            (i, min(i + share, count), [kernels.empty((self._rows, p, p)) for _ in range(4)])
            for i in range(0, count, share)
        ]
        self._squares = np.empty((2, count), dtype=self.k.real.dtype)

    def _shared(self, work: Callable[..., None], *arguments: Any) -> None:
        """work(slice, memory, *arguments) for all matrices, some at a time."""

        def of(first: int, last: int, memory: list[np.ndarray]) -> None:
            for i in range(first, last, self._rows):
                end = min(i + self._rows, last)
                work(slice(i, end), [a[: end - i] for a in memory], *arguments)

        if len(self._ranges) == 1:
            of(*self._ranges[0])
        else:
            _cores.at_once([functools.partial(of, *each) for each in self._ranges])

    def update(self, x: np.ndarray, g: np.ndarray) -> tuple[Any, Any]:
        self.delta = None  # formed whole only where it is asked for
        self._shared(self._update, *(_in_a_row(a) for a in (x, g, self.k)))
        if self._ratio is None:
            return None, None
        kernels, squares = self.kernels, self._squares
        if not np.all((squares > kernels.low) & (squares < kernels.high)):
            return self.measure(x), self.norm()  # measured again, scaled
        return tuple(np.sqrt(squares).reshape(2, *kernels.batch))

    def _update(
        self, at: slice, memory: list[np.ndarray], x: np.ndarray, g: np.ndarray, k: np.ndarray
    ) -> None:
        x, g, k, ratio, conjugate = x[at], g[at], k[at], self._ratio, self.kernels.complex
        adjoint, work, other, delta = memory
        adjoint[...] = x.mT
        if conjugate:
            np.conjugate(adjoint, adjoint)
        np.matmul(g, adjoint, out=work)
        if conjugate:
            np.conjugate(work.mT, other)
            np.subtract(work, other, k)
        else:
            np.subtract(work, work.mT, k)
        if ratio is None:
            return
        np.matmul(x, adjoint, out=delta)
        diagonal = _diagonals(delta)
        np.subtract(diagonal, delta.dtype.type(1), diagonal)
        _squares(delta, self._squares[0, at])
        if ratio:
            np.multiply(delta, delta.dtype.type(ratio), delta)
            np.add(k, delta, k)
        _squares(k, self._squares[1, at])

    def step(self, x: np.ndarray, t: Any, out: np.ndarray) -> np.ndarray:
        each = None
        if np.ndim(t):
            each = np.broadcast_to(-np.asarray(t, dtype=self.k.dtype), self.kernels.batch).reshape(
                -1
            )
        else:
            t = self.k.dtype.type(-t)
        self._shared(self._step, *(_in_a_row(a) for a in (x, self.k, out)), t, each)
        return out

    def _step(
        self, at: slice, memory: list[np.ndarray], x: np.ndarray, k: np.ndarray, out: np.ndarray,
        t: Any, each: np.ndarray | None,
    ) -> None:  # fmt: skip
        work = memory[0]
        np.multiply(k[at], t if each is None else each[at, None, None], work)
        diagonal = _diagonals(work)
        np.add(diagonal, work.dtype.type(1), diagonal)
        np.matmul(work, x[at], out=out[at])


def _in_a_row(a: np.ndarray) -> np.ndarray:
    """A stack with one axis before the matrices'."""
    return a.reshape(-1, *a.shape[-2:])


def _diagonals(a: np.ndarray) -> np.ndarray:
    """Of each matrix of a contiguous stack, a view."""
    return a.reshape(len(a), -1)[:, :: a.shape[-1] + 1]


def _squares(a: np.ndarray, out: np.ndarray) -> np.ndarray:
    """||.||_F^2 of each matrix of a contiguous stack."""
    rows = a.reshape(len(a), -1).view(a.real.dtype)
    return np.vecdot(rows, rows, out=out)


def left(kernels: Any, shape: tuple[int, ...], ratio: float | None) -> Left:
    """What serves these kernels."""
    if isinstance(kernels, _numpy.NumpyStack):
        return StackLeft(kernels, shape, ratio)
    if not isinstance(kernels, _numpy.NumpyMatrix):
        return Left(kernels, shape, ratio)
    if ratio is not None and ratio >= 1.0 and shape[-1] <= _blas.direct_columns():
        return SmallLeft(kernels, shape, ratio)
    return NumpyLeft(kernels, shape, ratio)
