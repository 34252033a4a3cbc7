"""What the concrete problems share: checks of their data, inner products, choice of a component."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._xp import Array


def check_data(**arrays: Array) -> ModuleType:
    """The namespace that the arrays share; a clear error where they do not go together.

    Refused are: no array, an unsupported dtype, fewer than two axes, an empty axis, entries that
    are not finite, and arrays of different libraries, dtypes, devices or stacks.
    """
    names = list(arrays)
    spaces = []
    for name, array in arrays.items():
        try:
            spaces.append(_xp.namespace(array))
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        _xp.check_floating(array, name)
        if array.ndim < 2:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; a matrix, or a stack of matrices with the "
                "batch axes first, is needed."
            )
        if 0 in array.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}; every axis needs at least one entry."
            )
    first = arrays[names[0]]
    for name, space in zip(names[1:], spaces[1:], strict=True):
        other = arrays[name]
        pair = f"{names[0]} and {name}"
        if space is not spaces[0]:
            raise TypeError(
                f"{pair} come from different array libraries ({type(first).__module__} and "
                f"{type(other).__module__}); convert one of them."
            )
        if other.dtype != first.dtype:
            raise TypeError(
                f"{pair} have dtypes {_xp.dtype_name(first)} and {_xp.dtype_name(other)}; one "
                f"dtype is needed: cast one of them, e.g. {name}.astype('{_xp.dtype_name(first)}')."
            )
        if _xp.device_of(other) != _xp.device_of(first):
            raise ValueError(
                f"{pair} are on devices {_xp.device_of(first)} and {_xp.device_of(other)}; move "
                "one of them."
            )
        if other.shape[:-2] != first.shape[:-2]:
            raise ValueError(
                f"{pair} have shapes {tuple(first.shape)} and {tuple(other.shape)}; the batch axes "
                "(all but the last two) must be the same: use broadcast_to for shared data."
            )
    # Last, because it is the only check that reads the data.
    for name, array in arrays.items():
        if not _xp.all_finite(array):
            raise ValueError(f"{name} has entries that are NaN or infinite; finite data is needed.")
    return spaces[0]


# The array library of a problem's data. A module cannot be pickled, so it is not kept.
NAMESPACE = property(lambda problem: _xp.namespace(problem.like))


def check_hermitian(xp: ModuleType, K: Array, name: str) -> None:
    """Refuse a matrix (or a stack with one) that is not Hermitian to rounding, with the number."""
    if K.shape[-1] != K.shape[-2]:
        raise ValueError(f"{name} has shape {tuple(K.shape)}; a square matrix (n, n) is needed.")
    gaps = xp.max(xp.abs(K - _xp.H(K)), axis=(-2, -1))
    sizes = xp.max(xp.abs(K), axis=(-2, -1))
    # Products that form K in floating point are off by a modest multiple of the rounding unit.
    if bool(xp.any(gaps > 1e3 * _xp.unit_roundoff(K) * sizes)):
        raise ValueError(
            f"{name} is not Hermitian: max |{name} - {name}^H| = {float(xp.max(gaps)):.3g} where "
            f"max |{name}| = {float(xp.max(sizes)):.3g}; pass ({name} + {name}^H) / 2 if the "
            "difference is noise."
        )


def check_weight(weight: Any) -> float:
    """The multiplier of an objective, as a Python float (it must not promote float32 data)."""
    try:
        value = float(weight)
    except (TypeError, ValueError):
        raise TypeError(f"weight must be one real number, got {weight!r}.") from None
    if not (0.0 < value < math.inf):
        raise ValueError(f"weight must be positive and finite, got {value}.")
    return value


def check_columns(p: Any, n: int, name: str) -> int:
    """The number of columns p, an integer in 1..n."""
    try:
        columns = operator.index(p)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(p).__name__}.") from None
    if not 1 <= columns <= n:
        raise ValueError(f"{name} = {columns}; it must be between 1 and n = {n}.")
    return columns


def inner(xp: ModuleType, a: Array, b: Array) -> Any:
    """Re <a, b> per matrix: a Python float for one NumPy matrix, else an array of batch shape."""
    if xp is np and a.ndim == 2:
        return float(np.vdot(a, b).real)
    shape = (*a.shape[:-2], a.shape[-2] * a.shape[-1])
    value = xp.vecdot(xp.reshape(a, shape), xp.reshape(b, shape))
    return xp.real(value) if _xp.is_complex(value) else value


def product(xp: ModuleType, a: Array) -> Callable[[Array, Array], Array]:
    """The matrix product for arrays like this one: for one NumPy matrix the one with fewest calls."""
    return np.dot if xp is np and a.ndim == 2 else operator.matmul


def scaled_adjoint(xp: ModuleType, a: Array, scale: float) -> Array:
    """scale * a^H as a fresh array.

    C-ordered for NumPy: products with it are 10 to 20 % faster than with a transposed view, and the
    factor of the gradient is applied once instead of at every evaluation.
    """
    if xp is np:
        return np.multiply(_xp.H(a), scale, order="C")
    return _xp.H(a) * scale


def gaussian(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Standard normal entries (complex: E|a|^2 = 1); float32 is the float64 draw, rounded."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        draw = rng.standard_normal((2, *shape))
        return ((draw[0] + 1j * draw[1]) * math.sqrt(0.5)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def hermitian_with_spectrum(
    spectrum: np.ndarray, rng: np.random.Generator, dtype: Any
) -> np.ndarray:
    """Q diag(spectrum) Q^H with eigenvectors Q drawn uniformly."""
    n = spectrum.shape[0]
    wide = np.complex128 if np.dtype(dtype).kind == "c" else np.float64
    Q, _ = np.linalg.qr(gaussian(rng, (n, n), wide))  # column phases cancel in the product
    K = (Q * spectrum) @ Q.conj().T
    return ((K + K.conj().T) * 0.5).astype(dtype)


def check_spectrum(spectrum: Any, n: int) -> np.ndarray:
    """The eigenvalues of a random instance: n finite real numbers, as float64."""
    values = np.asarray(spectrum)
    if values.shape != (n,) or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise ValueError(
            f"spectrum must be n = {n} finite real eigenvalues, got shape {values.shape}, dtype "
            f"{values.dtype}."
        )
    return values.astype(np.float64)


def component_signs(component: Any, shape: tuple[int, ...], like: Array) -> Array | None:
    """The requested signs of det X, one per matrix, as real numbers; None where None was asked.

    Raises ValueError where the manifold is connected (n != p, or complex), so that a component has
    no meaning, and where the request is not +1 or -1 per matrix.
    """
    if component is None:
        return None
    n, p = shape[-2:]
    if n != p or _xp.is_complex(like):
        why = "complex matrices" if n == p else f"shape {tuple(shape)}, which is not square"
        raise ValueError(
            f"component = {component} has no meaning for {why}: this manifold is connected, and "
            "only real square matrices have two components (det = +1 and det = -1); use "
            "component=None."
        )
    foreign = hasattr(component, "dtype") and not isinstance(component, (np.ndarray, np.generic))
    signs = np.asarray(_xp.to_host(component) if foreign else component)
    if signs.dtype.kind not in "iuf" or not np.all(np.abs(signs) == 1):
        raise ValueError(
            f"component must be +1 or -1 (the sign of det X) or None, got {component}."
        )
    if signs.ndim and signs.shape != tuple(shape[:-2]):
        raise ValueError(
            f"component has shape {signs.shape}; one sign, or one for each matrix of the stack "
            f"{tuple(shape[:-2])}, is needed."
        )
    return _xp.from_host(np.array(np.broadcast_to(signs, shape[:-2])), like)


def scale_last_column(xp: ModuleType, x: Array, signs: Array) -> Array:
    """x with the last column of each matrix multiplied by its sign."""
    ones = xp.ones_like(x[..., 0, 1:])
    scales = xp.concat([ones, xp.expand_dims(signs, axis=-1)], axis=-1)
    return x * xp.expand_dims(scales, axis=-2)


def into_component(xp: ModuleType, x: Array, signs: Array | None) -> Array:
    """x, orthogonal, with the last column flipped where det x has not the requested sign."""
    if signs is None:
        return x
    return scale_last_column(xp, x, xp.sign(xp.linalg.det(x)) * signs)


def describe(name: str, stack: tuple[int, ...], like: Array, weight: float, **sizes: int) -> str:
    """The short repr: Procrustes(n=40, p=40, m=40, float64)."""
    parts = [f"stack={tuple(stack)}"] if stack else []
    parts += [f"{key}={value}" for key, value in sizes.items()]
    parts.append(_xp.dtype_name(like))
    if weight != 1.0:
        parts.append(f"weight={weight:g}")
    return f"{name}({', '.join(parts)})"
