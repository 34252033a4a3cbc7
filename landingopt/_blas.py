"""BLAS, through NumPy and through SciPy, and where which of them serves best."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from landingopt import _cores

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


def direct_columns() -> int:
    """Up to so many columns SciPy's BLAS, with less before each call, serves a square matrix best.

    Where NumPy's works with several threads, the two compete for the cores beyond ONE_THREAD.
    """
    return 128 if _cores.asked() == 1 or os.cpu_count() == 1 else round(ONE_THREAD ** (1 / 3))
