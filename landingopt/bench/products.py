"""Matrix products of the library's own kernels, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from landingopt._xp import Array, NumpyMatrix
from landingopt.observe.clock import Clock

# Multiplications in the products of each kernel of NumpyMatrix that makes any, from its arguments.
COSTS: dict[str, Callable[..., int]] = {
    "matmul": lambda a, b, *_, **__: a.size * b.shape[1],
    "cross": lambda a, b, *_, **__: a.size * b.shape[1],
    "outer": lambda a, b, *_, **__: a.size * b.shape[0],
    "residual": lambda y, *_, **__: y.size * y.shape[1],
    "tangent": lambda x, g, *_, **__: 2 * x.size * x.shape[1],
}


@contextmanager
def counted_products() -> Iterator[list[int]]:
    """Count the multiplications in matrix products of the library's kernels for one NumPy matrix.

    The list that is yielded has one entry, the sum of r k c over all products (r x k)(k x c); a
    symmetric product counts in full. Left out are products that an observer makes while the clock
    stands still, and those of the user's functions, which do not use these kernels. The kernels are
    restored at the end.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.ones((4, 2))
    >>> with counted_products() as total:
    ...     _ = NumpyMatrix(a).cross(a, a)
    >>> total
    [16]
    """
    total, running, depth = [0], [True], [0]
    kept: list[tuple[type, str, Any, bool]] = []

    def replace(kind: type, name: str, function: Any) -> None:
        kept.append((kind, name, getattr(kind, name), name in vars(kind)))
        setattr(kind, name, function)

    def counting(name: str, cost: Callable[..., int]) -> None:
        kernel = getattr(NumpyMatrix, name)

        def counted(self: Any, *arrays: Array, **options: Any) -> Any:
            if running[0] and not depth[0]:  # a kernel made of others is counted once
                total[0] += cost(*arrays, **options)
            depth[0] += 1
            try:
                return kernel(self, *arrays, **options)
            finally:
                depth[0] -= 1

        replace(NumpyMatrix, name, counted)

    def switching(name: str, on: bool) -> None:
        verb = getattr(Clock, name)

        def switched(self: Any, *args: Any) -> Any:
            running[0] = on
            return verb(self, *args)

        replace(Clock, name, switched)

    try:
        for name, cost in COSTS.items():
            if hasattr(NumpyMatrix, name):
                counting(name, cost)
        for name, on in (("__init__", True), ("resume", True), ("pause", False)):
            switching(name, on)
        yield total
    finally:
        for kind, name, function, own in reversed(kept):
            if own:
                setattr(kind, name, function)
            else:
                delattr(kind, name)
