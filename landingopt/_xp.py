"""The only module that knows the array libraries apart.

Everything above it speaks of *kernels*: a small object per variable block, made once per solve, that
multiplies, adds and measures. Those of :mod:`landingopt._numpy` serve NumPy, with ``out=`` buffers and
Python floats or an array of numbers, those of :mod:`landingopt._cuda` CuPy, and :class:`Generic` every
other library of the array API standard. Results may or may not be in ``out``: callers use what is
returned.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

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


class Composed:
    """Operations made of the kernels' own; one NumPy matrix has them fused. Abstract."""

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


class Generic(Composed):
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
        from landingopt import _numpy

        return _numpy.kernels(like, batch)
    if array_api_compat.is_cupy_array(like):
        from landingopt._cuda import CupyKernels

        return CupyKernels(like, batch)
    return Generic(like, batch)
