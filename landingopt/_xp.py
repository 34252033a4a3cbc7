"""The only module that knows the array libraries apart.

Everything above it speaks of *kernels*: a small object per variable block, made once per solve, that
multiplies, adds and measures. :class:`NumpyMatrix` serves one matrix on the CPU, with ``out=`` buffers
and Python floats, :class:`NumpyStack` a stack, with ``out=`` buffers and an array of numbers, and
:class:`Generic` every other library of the array API standard. Results may or may not be in ``out``:
callers use what is returned.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from landingopt import _cores

Array = Any  # an array of any library that follows the array API standard

FLOATING = ("float32", "float64", "complex64", "complex128")


def namespace(x: Array) -> ModuleType:
    """The array-API namespace of ``x``; a clear refusal for what is not a supported array."""
    if isinstance(x, np.ndarray):
        return np
    if array_api_compat.is_jax_array(x):
        raise TypeError(
            "JAX arrays are immutable and are not solved in place; pass NumPy arrays, and build the "
            "objective with lo.autodiff.jax(fun, shape=...), which converts at the door."
        )
    try:
        return array_api_compat.array_namespace(x)
    except TypeError:
        raise TypeError(
            f"expected an array (NumPy, CuPy, PyTorch, ... ), got {type(x).__name__}; "
            "convert it first, e.g. numpy.asarray(x, dtype=float)."
        ) from None


def library(x: Array) -> str:
    """'numpy', 'torch', ... of an array, or of kernels."""
    name = getattr(x, "xp", np).__name__ if not hasattr(x, "shape") else namespace(x).__name__
    return name.removeprefix("array_api_compat.")


def dtype_name(x: Array) -> str:
    """'float32', 'complex128', ... whatever the library calls it."""
    return str(x.dtype).rsplit(".", 1)[-1]


def is_complex(x: Array) -> bool:
    return dtype_name(x).startswith("complex")


def unit_roundoff(x: Array) -> float:
    """``finfo(dtype).eps`` of the real part: 2.2e-16 for float64 and complex128."""
    return 2.0**-52 if dtype_name(x) in ("float64", "complex128") else 2.0**-23


def check_floating(x: Array, what: str) -> None:
    """Refuse integer, boolean, half and extended precision, and name the cast."""
    name = dtype_name(x)
    if name not in FLOATING:
        raise TypeError(
            f"{what} has dtype {name}; float32, float64, complex64 or complex128 is needed: "
            f"cast it first, e.g. {what}.astype('float64')."
        )


def device_of(x: Array) -> Any:
    return "cpu" if isinstance(x, np.ndarray) else array_api_compat.device(x)


def on_accelerator(x: Array) -> bool:
    """True where reading a number back costs a synchronisation (anything but plain CPU memory)."""
    if isinstance(x, np.ndarray):
        return False
    return str(device_of(x)).lower().replace("_device", "") != "cpu"


def to_host(x: Array) -> np.ndarray:
    """A NumPy array with the values of ``x``."""
    if isinstance(x, np.ndarray):
        return x
    if array_api_compat.is_torch_array(x):
        return x.detach().cpu().resolve_conj().resolve_neg().numpy()
    if array_api_compat.is_cupy_array(x):
        return x.get()
    if array_api_compat.is_array_api_strict_namespace(namespace(x)):
        return np.asarray(x.to_device(namespace(x).Device("CPU_DEVICE")))
    return np.asarray(x)


def from_host(values: np.ndarray, like: Array) -> Array:
    """``values`` as an array of the kind, dtype and device of ``like`` (always a fresh copy)."""
    if isinstance(like, np.ndarray):
        return np.array(values, dtype=like.dtype)
    xp = namespace(like)
    return xp.asarray(values.copy(), dtype=like.dtype, device=device_of(like))


def take(x: Array, indices: np.ndarray) -> Array:
    """Rows of ``x``; fresh."""
    if isinstance(x, np.ndarray):
        return x.take(indices, axis=0)
    xp = namespace(x)
    return xp.take(x, xp.asarray(indices, device=device_of(x)), axis=0)


def copy(x: Array) -> Array:
    """A fresh array with the values of ``x``; C-ordered for NumPy."""
    if isinstance(x, np.ndarray):
        return np.array(x, order="C")
    if array_api_compat.is_torch_array(x):
        return x.detach().clone()
    return namespace(x).asarray(x, copy=True)


def H(x: Array) -> Array:
    """Conjugate transpose of the last two axes; a view when real."""
    if isinstance(x, np.ndarray):
        return x.mT if x.dtype.kind == "f" else x.conj().mT
    xp = namespace(x)
    return xp.matrix_transpose(xp.conj(x) if is_complex(x) else x)


def readonly(x: Array) -> Array:
    """A read-only view where the library has them (NumPy); elsewhere ``x`` itself."""
    if isinstance(x, np.ndarray):
        x = x.view()
        x.flags.writeable = False
    return x


def all_finite(x: Array) -> bool:
    """One read back: is every entry finite?"""
    xp = namespace(x)
    return bool(xp.all(xp.isfinite(x)))


class Floats:
    """Scalar functions on Python floats; :class:`ArrayScalars` has the same names on arrays.

    Formulas of one number per matrix are written once, with these names, and serve both.
    """

    sqrt = staticmethod(math.sqrt)
    minimum = staticmethod(min)
    maximum = staticmethod(max)
    isfinite = staticmethod(math.isfinite)
    any = staticmethod(bool)
    all = staticmethod(bool)

    @staticmethod
    def where(condition: bool, a: Any, b: Any) -> Any:
        return a if condition else b

    @staticmethod
    def divide(a: float, b: float) -> float:
        """a / b with IEEE's inf and nan instead of ZeroDivisionError."""
        if b:
            return a / b
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a)

    @staticmethod
    def full(value: Any) -> Any:
        return value


class ArrayScalars:
    """One number per matrix of a stack, kept as an array of shape ``batch`` where the data lives."""

    def __init__(self, xp: ModuleType, dtype: Any, device: Any, batch: tuple[int, ...]):
        self._xp, self._dtype, self._device, self._batch = xp, dtype, device, batch
        self._constants: dict[float, Array] = {}  # each would be sent to the device again

    def _array(self, a: Any) -> Array:
        if isinstance(a, (float, int, bool)):
            known = self._constants.get(a)
            if known is None:
                known = self._xp.asarray(a, dtype=self._dtype, device=self._device)
                if len(self._constants) < 32 and a == a:
                    self._constants[a] = known
            return known
        return a

    def full(self, value: Any) -> Array:
        if isinstance(value, (bool, np.bool_)):
            return self._xp.full(self._batch, bool(value), dtype=self._xp.bool, device=self._device)
        if isinstance(value, (float, int)):
            return self._xp.full(self._batch, float(value), dtype=self._dtype, device=self._device)
        return value

    def sqrt(self, a: Any) -> Array:
        return self._xp.sqrt(a)

    def isfinite(self, a: Any) -> Array:
        return self._xp.isfinite(a)

    def minimum(self, a: Any, b: Any) -> Array:
        return self._xp.minimum(self._array(a), self._array(b))

    def maximum(self, a: Any, b: Any) -> Array:
        return self._xp.maximum(self._array(a), self._array(b))

    def where(self, condition: Any, a: Any, b: Any) -> Array:
        if isinstance(condition, (bool, np.bool_)):
            return a if condition else b
        return self._xp.where(condition, self._array(a), self._array(b))

    def divide(self, a: Any, b: Any) -> Array:
        with np.errstate(all="ignore"):  # inf and nan are answers here, as in Floats.divide
            return self._array(a) / b

    def any(self, a: Any) -> bool:
        return a if isinstance(a, bool) else bool(self._xp.any(self._array(a)))

    def all(self, a: Any) -> bool:
        return a if isinstance(a, bool) else bool(self._xp.all(self._array(a)))


FLOATS = Floats()


_SMALL = 48  # columns up to which one pass over a p x p matrix is cheaper than two more calls

# Every product of one NumPy matrix goes through here: a third of np.matmul's overhead.
product = np.ndarray.dot


def blas(name: str, dtype: Any) -> Any:
    """SciPy's BLAS routine for this dtype. "gemm" has alpha A B + beta C of column-major arrays, in C
    with ``overwrite_c``, its last argument; "axpy" adds to its second argument."""
    from scipy.linalg.blas import get_blas_funcs

    return get_blas_funcs(name, dtype=dtype)


# Up to so many multiplications OpenBLAS keeps to one thread: SciPy's copy of it does not compete with
# NumPy's there.
ONE_THREAD = 64**3
# Entries up to which SciPy's inner product costs less than NumPy's, for less comes before it.
_DIRECT = 4096
# Bytes that stay in a cache from one pass to the next.
_PIECE = 128 * 1024


def direct_columns() -> int:
    """Up to so many columns SciPy's BLAS, with less before each call, serves a square matrix best.

    Where NumPy's works with several threads, the two compete for the cores beyond ONE_THREAD.
    """
    return 128 if _cores.asked() == 1 or os.cpu_count() == 1 else round(ONE_THREAD ** (1 / 3))


class _Composed:
    """Operations made of the kernels' own; :class:`NumpyMatrix` fuses them. Abstract."""

    def residual(self: Any, y: Array, out: Any = None) -> tuple[Array, Any]:
        """E = Y^H Y - I, and ||E||_F."""
        e = self.add_identity(self.cross(y, y, out=out), -1.0)
        return e, self.norm(e)

    def tangent(
        self: Any, x: Array, g: Array, cross: Any, phi: Any, out: Any
    ) -> tuple[Array, Array, Any]:
        """Phi = sym(X^H G), psi = G - X Phi, and ||psi||_F; three buffers, ``cross`` for X^H G."""
        phi = self.sym(self.cross(x, g, out=cross), out=phi)
        psi = self.subtract(g, self.matmul(x, phi, out=out), out=out)
        return phi, psi, self.norm(psi)

    def project(self: Any, x: Array, z: Array, cross: Any, work: Any, out: Any) -> Array:
        """Z - X sym(X^H Z), not in place; two buffers (p, p)."""
        work = self.sym(self.cross(x, z, out=cross), out=work)
        return self.subtract(z, self.matmul(x, work, out=out), out=out)

    def stepped(self: Any, x: Array, f: Array, eta: Any, out: Any = None) -> Array:
        """X - eta F."""
        return self.subtract(x, self.scale(f, eta, out=out), out=out)

    def left_form(self: Any, work: Array, gram: Array, ratio: float) -> tuple[Array, Array]:
        """Delta = gram - I, and K = work - work^H + ratio Delta."""
        delta, k = self.add_identity(gram, -1.0), self.skewed(work)
        return delta, self.add(k, self.scale(delta, ratio)) if ratio else k

    def skewed(self: Any, work: Array, out: Any = None) -> Array:
        """work - work^H."""
        return self.subtract(work, self.adjoint(work), out=out)

    def polynomial(
        self: Any, e: Array, square: Array | None, weight: Any, out: Any = None
    ) -> Array:
        """I - E / 2, with E^2 in ``square`` plus its multiple, 3/8 as a rule; overwrites ``square``."""
        out = self.scale(e, -0.5, out=out)
        if square is not None:
            out = self.add(out, self.scale(square, weight, out=square), out=out)
        return self.add_identity(out, 1.0)

    def scratch(self: Any, shape: tuple[int, ...], count: int) -> list[Any]:
        """Memory for what does not outlive a call."""
        return [self.empty(shape) for _ in range(count)]


class _NumpyArithmetic(_Composed):
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
        return product(a, b, out)

    def cross(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """a^H b.  With ``a is b`` NumPy calls the symmetric product."""
        return product(a.conj().T if self.complex else a.T, b, out)

    def outer(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """a b^H."""
        return product(a, b.conj().T if self.complex else b.T, out)

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
        self._ddot = blas("dot", np.zeros(0, self.dtype).real.dtype)

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
        return product(y.conj().T if self.complex else y.T, y, out)

    def tangent(
        self, x: np.ndarray, g: np.ndarray, cross: np.ndarray, phi: np.ndarray, out: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        self.project(x, g, cross, phi, out)
        return phi, out, self.norm(out)

    def project(
        self, x: np.ndarray, z: np.ndarray, cross: np.ndarray, work: np.ndarray, out: np.ndarray
    ) -> np.ndarray:
        product(x.conj().T if self.complex else x.T, z, cross)
        work[...] = cross.T  # copied: an operation on the transpose is slower, and allocates
        if self.complex:
            np.conjugate(work, work)
        np.add(work, cross, work)
        np.multiply(work, self._half, work)
        product(x, work, out)
        return np.subtract(z, out, out)

    def tangent_hessian(
        self, h: np.ndarray, v: np.ndarray, phi: np.ndarray, x: np.ndarray, half: np.ndarray,
        small: tuple[np.ndarray, np.ndarray], work: np.ndarray, out: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """P(h - V Phi) at X on the manifold, with X / 2 at hand; in ``out``."""
        cross, other = small
        product(v, phi, out)
        z = np.subtract(h, out, out)
        product(x.conj().T if self.complex else x.T, z, cross)
        adjoint = cross.conj().T if self.complex else cross.T
        if x.shape[0] == x.shape[1]:  # Z = X X^H Z: what is left is X skew(X^H Z)
            return product(half, np.subtract(cross, adjoint, other), out)
        product(half, np.add(cross, adjoint, other), work)
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
        self._gemm: Any = blas("gemm", like.dtype)
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


class Generic(_Composed):
    """Kernels for stacks and for every other array library; ``out=`` is ignored.

    Scalars are arrays of shape ``batch`` that stay on the device; :meth:`host` reads several back in
    one transfer.
    """

    subsets = False

    def __init__(self, like: Array, batch: tuple[int, ...]):
        self.xp = namespace(like)
        self.dtype = like.dtype
        self.device = device_of(like)
        self.batch = batch
        self.complex = is_complex(like)
        self.unit_roundoff = unit_roundoff(like)
        self._numpy = self.xp is np
        real = self.xp.real(like).dtype if self.complex else like.dtype
        self.scalars: Any = ArrayScalars(self.xp, real, None if self._numpy else self.device, batch)
        self._identities: dict[int, Array] = {}

    def _expand(self, t: Any) -> Any:
        """A number per matrix as something that multiplies a stack, in the stack's precision."""
        if isinstance(t, (float, int)):
            return t
        if isinstance(t, (np.ndarray, np.generic)) and not self._numpy:
            t = self.xp.asarray(np.asarray(t), device=self.device)
        if t.dtype != self.dtype:
            t = t.astype(self.dtype) if self._numpy else self.xp.astype(t, self.dtype)
        return t[..., None, None] if self.batch else t

    def _identity(self, p: int) -> Array:
        if p not in self._identities:
            device = None if self._numpy else self.device
            self._identities[p] = self.xp.eye(p, dtype=self.dtype, device=device)
        return self._identities[p]

    def empty(self, shape: tuple[int, ...]) -> Array:
        return None  # results are fresh arrays here

    def adjoint(self, x: Array) -> Array:
        x = self.xp.conj(x) if self.complex else x
        return self.xp.matrix_transpose(x)

    def matmul(self, a: Array, b: Array, out: Any = None) -> Array:
        return a @ b

    def cross(self, a: Array, b: Array, out: Any = None) -> Array:
        return self.adjoint(a) @ b

    def outer(self, a: Array, b: Array, out: Any = None) -> Array:
        return a @ self.adjoint(b)

    def add(self, a: Array, b: Array, out: Any = None) -> Array:
        return a + b

    def subtract(self, a: Array, b: Array, out: Any = None) -> Array:
        return a - b

    def scale(self, a: Array, t: Any, out: Any = None) -> Array:
        return a * self._expand(t)

    def add_identity(self, a: Array, t: Any) -> Array:
        return a + self._expand(t) * self._identity(a.shape[-1])

    def sym(self, a: Array, out: Any = None) -> Array:
        return (a + self.adjoint(a)) * 0.5

    def skew(self, a: Array, out: Any = None) -> Array:
        return (a - self.adjoint(a)) * 0.5

    def dot(self, a: Array, b: Array) -> Array:
        """Re <a, b> per matrix; each factor is scaled by its largest entry, against overflow."""
        unit_a, top_a = self._unit(a)
        unit_b, top_b = self._unit(b)
        product = self.xp.conj(unit_a) * unit_b if self.complex else unit_a * unit_b
        product = self.xp.real(product) if self.complex else product
        return self._total(product) * top_a * top_b

    def norm(self, a: Array) -> Array:
        unit, top = self._unit(a)
        squares = self.xp.abs(unit) ** 2 if self.complex else unit * unit
        return self.xp.sqrt(self._total(squares)) * top

    def _axes(self, a: Array) -> tuple[int, ...]:
        return tuple(range(len(self.batch), a.ndim))

    def _total(self, a: Array) -> Array:
        return self.xp.sum(a, axis=self._axes(a))

    def _unit(self, a: Array) -> tuple[Array, Array]:
        axes = self._axes(a)
        top = self.xp.max(self.xp.abs(a), axis=axes) if a.size else self.scalars.full(0.0)
        safe = self.xp.where(top > 0, top, self.xp.ones_like(top))
        return a / self.xp.reshape(safe, safe.shape + (1,) * len(axes)), top

    def largest_row_sum(self, a: Array) -> Array:
        return self.xp.max(self.xp.sum(self.xp.abs(a), axis=-1), axis=-1)

    def select(self, condition: Any, a: Array, b: Array) -> Array:
        """``a`` where the (per-matrix) condition holds, ``b`` elsewhere."""
        if isinstance(condition, (bool, np.bool_)):
            return a if condition else b
        if not self._numpy and isinstance(condition, np.ndarray):
            condition = self.xp.asarray(condition, device=self.device)
        return self.xp.where(condition[..., None, None] if self.batch else condition, a, b)

    def replace(self, a: Array, condition: Any, b: Array) -> Array:
        """``a`` with b's matrices where the condition holds."""
        return self.select(condition, b, a)

    def copy_into(self, a: Array, out: Any) -> Array:
        return copy(a)

    def host(self, *values: Array) -> tuple[np.ndarray, ...]:
        """Numbers that live with the data, read back as float64 NumPy arrays in ONE transfer."""
        if self._numpy:
            return tuple(np.asarray(v, dtype=np.float64) for v in values)
        there = [v for v in values if not isinstance(v, (np.ndarray, np.generic, float, int))]
        if there:
            xp, wide = self.xp, self.scalars.full(0.0).dtype
            for v in there:
                wide = xp.float64 if v.dtype == xp.float64 else wide
            shaped = [xp.broadcast_to(xp.astype(v, wide), self.batch) for v in there]
            packed = iter(to_host(xp.stack(shaped)).astype(np.float64))
        return tuple(
            np.asarray(v, dtype=np.float64)
            if isinstance(v, (np.ndarray, np.generic, float, int))
            else next(packed)
            for v in values
        )

    def random(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        values = rng.standard_normal(shape)
        device = None if self._numpy else self.device
        return self.xp.asarray(values, dtype=self.dtype, device=device)


class Rows:
    """``count`` arrays of one shape as real rows, one set for each problem of ``batch``.

    Complex numbers are pairs of real ones, so that a product of rows is Re <u, v>.
    """

    def __init__(self, kernels: Any, shape: tuple[int, ...], batch: tuple[int, ...], count: int):
        self._numpy = not isinstance(kernels, Generic)
        self._single = self._numpy and not batch
        self._complex, self._dtype, self._kernels = kernels.complex, kernels.dtype, kernels
        self._shape, self._batch = shape, batch
        self._size = math.prod(shape[len(batch) :]) * (2 if self._complex else 1)
        if self._numpy:
            self._real = np.zeros(0, self._dtype).real.dtype
        else:
            xp = kernels.xp
            self._real = xp.float64 if kernels.unit_roundoff < 1e-10 else xp.float32
        self._rows = self._zeros(count)
        self._views: list[np.ndarray] = []  # of one problem's rows, in the arrays' shape

    def _zeros(self, count: int) -> Array:
        shape = (*self._batch, count, self._size)
        if self._numpy:
            return np.zeros(shape, dtype=self._real)
        device = None if self._kernels.xp is np else self._kernels.device
        return self._kernels.xp.zeros(shape, dtype=self._real, device=device)

    def grow(self, count: int) -> None:
        """Room for ``count`` rows."""
        if count > self._rows.shape[-2]:
            more = self._zeros(max(count, 2 * self._rows.shape[-2]) - self._rows.shape[-2])
            xp = np if self._numpy else self._kernels.xp
            self._rows = xp.concat([self._rows, more], axis=-2)
            self._views = []

    def _flat(self, a: Array) -> Array:
        if self._single and not self._complex:
            return a.reshape(-1)
        if self._numpy:
            return a.reshape((*self._batch, -1)).view(self._real)
        xp = self._kernels.xp
        if self._complex:
            parts = (xp.real(a), xp.imag(a))
            return xp.concat([xp.reshape(p, (*self._batch, -1)) for p in parts], axis=-1)
        return xp.reshape(a, (*self._batch, -1))

    def _shaped(self, flat: Array) -> Array:
        if self._numpy:
            flat = flat if self._single else np.ascontiguousarray(flat)
            return (flat.view(self._dtype) if self._complex else flat).reshape(self._shape)
        if self._complex:
            half = self._size // 2
            flat = flat[..., :half] + 1j * flat[..., half:]
        return self._kernels.xp.reshape(flat, self._shape)

    def set_difference(self, i: int, a: Array, b: Array) -> Array:
        """Row i becomes a - b; what is returned has the arrays' shape, and may be the row itself."""
        if self._single:
            if not self._views:
                self._views = [self._shaped(row) for row in self._rows]
            return np.subtract(a, b, self._views[i])
        difference = a - b
        self._rows[..., i, :] = self._flat(difference)
        return difference

    def _array(self, values: np.ndarray) -> Array:
        if self._numpy:
            return values.astype(self._real, copy=False)
        return self._kernels.xp.asarray(values, dtype=self._real, device=self._kernels.device)

    def products(self, count: int, a: Array) -> np.ndarray:
        """The inner products of the first ``count`` rows with one array, on the host."""
        flat = self._flat(a)
        if self._single:
            product = self._rows[:count].dot(flat)
            return product if product.dtype == np.float64 else product.astype(np.float64)
        product = (self._rows[..., :count, :] @ flat[..., None])[..., 0]
        return to_host(product).astype(np.float64, copy=False)

    def combined(self, coefficients: np.ndarray) -> Array:
        """The combination of the first rows with these coefficients, in the arrays' shape; fresh."""
        c = self._array(coefficients)
        rows = self._rows[..., : c.shape[-1], :]
        return self._shaped(c.dot(rows) if self._single else (c[..., None, :] @ rows)[..., 0, :])


def synchronize(x: Array) -> None:
    """Wait until the device of ``x`` is idle, so that a clock reads true."""
    if isinstance(x, np.ndarray):
        return
    if array_api_compat.is_cupy_array(x):
        import cupy

        cupy.cuda.get_current_stream().synchronize()
    elif array_api_compat.is_torch_array(x) and x.device.type == "cuda":
        import torch

        torch.cuda.synchronize(x.device)


def kernels(like: Array, batch: tuple[int, ...]) -> Any:
    """The kernels that serve arrays like this one."""
    if isinstance(like, np.ndarray):
        if batch:
            return NumpyStack(like, batch)
        if like.ndim == 2:
            n, p = max(like.shape), min(like.shape)
            if n * p * p <= ONE_THREAD or (n == p and p <= direct_columns()):
                return SmallMatrix(like)
        return NumpyMatrix(like)
    if array_api_compat.is_cupy_array(like):
        from landingopt._cuda import CupyKernels

        return CupyKernels(like, batch)
    return Generic(like, batch)
