"""Arrays of one shape as the rows of a matrix: what directions with a memory keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landingopt._xp import Array, Generic, to_host


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
