"""Matrix products of the library's own kernels, counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from landingopt import _blas
from landingopt.observe.clock import Clock


@contextmanager
def counted_products() -> Iterator[list[int]]:
    """Count the multiplications in matrix products of the library's kernels for one NumPy matrix.

    The list that is yielded has one entry, the sum of r k c over all products (r x k)(k x c); a
    symmetric product counts in full. Left out are products that an observer makes while the clock
    stands still, and those of the user's functions. What is replaced is restored at the end.

    Examples
    --------
    >>> import numpy as np
    >>> from landingopt import _numpy
    >>> a = np.ones((4, 2))
    >>> with counted_products() as total:
    ...     _ = _numpy.NumpyMatrix(a).cross(a, a)
    >>> total
    [16]
    """
    total, running = [0], True
    product, blas = _blas.product, _blas.blas
    verbs = {name: vars(Clock)[name] for name in ("__init__", "resume", "pause")}

    def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if running:
            total[0] += a.size * b.shape[1]
        return product(a, b, out)

    def counting_blas(name: str, dtype: Any) -> Any:
        routine = blas(name, dtype)
        if name != "gemm":
            return routine

        def counted_gemm(
            alpha: float, a: Any, b: Any, beta: float, c: Any, *transposed: int
        ) -> Any:
            if running:
                total[0] += a.size * c.shape[1]
            return routine(alpha, a, b, beta, c, *transposed)

        return counted_gemm

    def switching(name: str) -> Any:
        def switched(self: Any, *args: Any) -> Any:
            nonlocal running
            running = name != "pause"
            return verbs[name](self, *args)

        return switched

    try:
        _blas.product = counted  # type: ignore[assignment]
        _blas.blas = counting_blas
        for name in verbs:
            setattr(Clock, name, switching(name))
        yield total
    finally:
        _blas.product, _blas.blas = product, blas
        for name, verb in verbs.items():
            setattr(Clock, name, verb)
