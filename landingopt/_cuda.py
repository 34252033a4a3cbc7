"""Kernels for CuPy: what is elementwise between two products is one launch.

The formulas are plain functions of arrays, which ``cupy.fuse`` compiles to one kernel each; products are
cuBLAS's, of stacks with strides. Nothing here reads a number back.
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from landingopt._xp import Array, Generic


class Formulas:
    """Elementwise formulas, each as one call of ``fuse``'s result."""

    def __init__(self, xp: ModuleType, fuse: Any):
        conj = xp.conj

        def left_form(
            work: Any, turned: Any, gram: Any, identity: Any, ratio: Any
        ) -> tuple[Any, Any]:
            delta = gram - identity
            return delta, work - conj(turned) + ratio * delta

        def skewed(work: Any, turned: Any) -> Any:
            return work - conj(turned)

        def symmetric(work: Any, turned: Any, half: Any) -> Any:
            return half * (work + conj(turned))

        def stepped(x: Any, f: Any, t: Any) -> Any:
            return x - t * f

        def polynomial(identity: Any, e: Any, square: Any, a: Any, b: Any) -> Any:
            return identity + a * e + b * square

        from landingopt.steps import safe_root

        numbers = SimpleNamespace(minimum=xp.minimum, maximum=xp.maximum, sqrt=xp.sqrt)

        def safe(
            wanted: Any, d: Any, norm: Any, noise: Any, lam: Any, eps: Any, longest: Any
        ) -> Any:
            root = safe_root(d, norm, noise, lam, eps, numbers)
            return xp.minimum(xp.minimum(root, longest), wanted)

        self.safe = fuse(safe)
        self.left_form, self.skewed, self.symmetric = fuse(left_form), fuse(skewed), fuse(symmetric)
        self.stepped, self.polynomial = fuse(stepped), fuse(polynomial)

    def try_out(self, xp: ModuleType) -> None:
        """Run each of them once, on complex and on real numbers."""
        for dtype in (np.complex64, np.float32):
            a, number = xp.eye(2, dtype=dtype), dtype(0.5)
            self.left_form(a, a.T, a, a, number)
            self.skewed(a, a.T)
            self.symmetric(a, a.T, number)
            self.stepped(a, a, number)
            self.polynomial(a, a, a, number, number)
        one = xp.ones((), dtype=np.float64)
        self.safe(0.5, one, one, 0.0, 1.0, 0.5, 0.5)


@functools.cache
def formulas() -> Formulas:
    """Compiled once, at their first use with a dtype; plain where CuPy cannot."""
    import cupy

    compiled = Formulas(cupy, cupy.fuse)
    try:
        compiled.try_out(cupy)
    except Exception as error:  # whatever its compiler raises
        logging.getLogger("landingopt").warning("cupy.fuse failed, steps are slower: %s", error)
        return Formulas(cupy, lambda function: function)
    return compiled


class CupyKernels(Generic):
    """:class:`landingopt._xp.Generic` with fewer launches."""

    def __init__(self, like: Array, batch: tuple[int, ...], compiled: Formulas | None = None):
        super().__init__(like, batch)
        self._formulas = formulas() if compiled is None else compiled
        self._single = self.unit_roundoff > 1e-10

    def _typed(self, t: Any) -> Any:
        """A number as a kernel's argument of the data's own type: nothing is promoted."""
        return self.dtype.type(t) if isinstance(t, (float, int)) else self._expand(t)

    def left_form(self, work: Array, gram: Array, ratio: float) -> tuple[Array, Array]:
        turned, p = self.xp.matrix_transpose(work), work.shape[-1]
        return self._formulas.left_form(
            work, turned, gram, self._identity(p), self.dtype.type(ratio)
        )

    def skewed(self, work: Array, out: Any = None) -> Array:
        return self._formulas.skewed(work, self.xp.matrix_transpose(work))

    def sym(self, a: Array, out: Any = None) -> Array:
        return self._formulas.symmetric(a, self.xp.matrix_transpose(a), self.dtype.type(0.5))

    def stepped(self, x: Array, f: Array, eta: Any, out: Any = None) -> Array:
        return self._formulas.stepped(x, f, self._typed(eta))

    def add_identity(self, a: Array, t: Any) -> Array:
        return self._formulas.stepped(a, self._identity(a.shape[-1]), self._typed(-t))

    def polynomial(self, e: Array, square: Array | None, weight: Any, out: Any = None) -> Array:
        identity, half = self._identity(e.shape[-1]), self.dtype.type(-0.5)
        if square is None:
            return self._formulas.stepped(identity, e, -half)
        return self._formulas.polynomial(identity, e, square, half, self._typed(weight))

    def norm(self, a: Array) -> Array:
        """In single precision by sums in double precision, in which no square overflows."""
        if not self._single:
            return super().norm(a)
        wide = a.astype(np.complex128 if self.complex else np.float64)
        return self.xp.linalg.vector_norm(wide.reshape((*self.batch, -1)), axis=-1)

    def safe(self, wanted: Any, d: Array, norm: Array, noise: Any, lam: float, eps: float) -> Array:
        """The step that is wanted, or the safe one: :func:`landingopt.steps.safe_step`."""
        longest = 1.0 / (2.0 * lam) if lam > 0.0 else np.inf
        return self._formulas.safe(wanted, d, norm, noise, lam, eps, longest)
