"""Factorisations that do not raise, and the exponential, for matrices and stacks of every library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from landingopt import _numpy, _xp
from landingopt._xp import Array


def all_known(ok: Any) -> bool:
    """Every matrix is known to be all right; not asked on a device, where reading costs."""
    return ok is True or (isinstance(ok, (np.ndarray, np.bool_)) and bool(ok.all()))


def factor(
    kernels: Any, routine: Callable[[Array], Any], a: Array, limit: float = math.inf
) -> tuple[Any, Any]:
    """(``routine(a)``, ok); a matrix of norm >= ``limit``, or that it refuses, is replaced by I.

    LAPACK's iterations raise, or never end, where a number is not finite; and one matrix that is
    not positive definite makes a library refuse a whole stack.
    """
    if isinstance(kernels, _numpy.NumpyMatrix):
        return _factor_one(kernels, routine, a, limit)
    xp, device, shape = _xp.namespace(a), _xp.device_of(a), tuple(a.shape)

    def one() -> Array:
        return xp.eye(*shape[-2:], dtype=a.dtype, device=device)

    ok = kernels.norm(a) < limit
    if not all_known(ok):
        a = kernels.select(ok, a, one())
    result = _attempt(routine, a)
    if result is None:
        flat = xp.reshape(a, (-1, *shape[-2:]))
        done = [_attempt(routine, flat[i, ...]) is not None for i in range(flat.shape[0])]
        ok = ok & xp.reshape(xp.asarray(done, device=device), shape[:-2])
        result = routine(kernels.select(ok, a, one()))
    return result, ok


def _factor_one(
    kernels: _numpy.NumpyMatrix, routine: Callable[[Array], Any], a: np.ndarray, limit: float
) -> tuple[Any, bool]:
    """The same for one NumPy matrix."""
    if kernels.norm(a) < limit:
        result = _attempt(routine, a)
        if result is not None:
            return result, True
    return routine(np.eye(*a.shape, dtype=a.dtype)), False


def _attempt(routine: Callable[[Array], Any], a: Array) -> Any:
    """``routine(a)``, or None where it raises NumPy's LinAlgError or PyTorch's (no common base)."""
    try:
        return routine(a)
    except Exception as error:
        if "LinAlgError" not in type(error).__name__:
            raise
        return None


# Up to so many entries the call costs as much as the work: LAPACK itself, without a copy and checks.
_SMALL = 1024


def svd(kernels: Any, a: Array) -> tuple[Array, Array, Array]:
    """(U, s, V^H) of A = U diag(s) V^H, thin."""
    if isinstance(kernels, _numpy.NumpyMatrix) and a.size <= _SMALL:
        # Row-major A is column-major A^T = conj(V) diag(s) U^T, of which LAPACK gives the transpose.
        v, s, uh, failed = kernels.lapack("gesdd")(a.T, 1, 0)
        if failed == 0:
            return uh.T, s, v.T
    return _xp.namespace(a).linalg.svd(a, full_matrices=False)


def inverse_of_lower(a: Array) -> Array:
    """The inverse of a lower triangle, by blocks: [[A, 0], [C, B]] -> [[A', 0], [-B' C A', B']].

    The array API standard has no triangular routine, and LAPACK's general inverse is four times
    slower at p = 200. On a device one call is better than many.
    """
    p = a.shape[-1]
    if p <= 32 or not isinstance(a, np.ndarray):
        return _xp.namespace(a).linalg.inv(a)
    h, result = p // 2, np.zeros_like(a)
    first = result[..., :h, :h] = inverse_of_lower(a[..., :h, :h])
    last = result[..., h:, h:] = inverse_of_lower(a[..., h:, h:])
    result[..., h:, :h] = -(last @ (a[..., h:, :h] @ first))
    return result


def expm(kernels: Any, a: Array) -> Array:
    """exp(A) of a finite matrix or of each of a stack, by products only.

    A is divided by a power of 2, its Taylor polynomial of degree m = 8, 12 or 16 is formed in blocks of
    four powers (Paterson, Stockmeyer, SIAM J. Comput. 2, 1973), and the result is squared. m is the
    least with x^(m+1) / (m+1)! below rounding: four products to x = 0.07, five to 0.34, six to 0.8, and
    one for each factor 2 beyond. x = max(||A^3||^(1/3), ||A^4||^(1/4)), less than ||A||, decides how the
    series converges (Al-Mohy, Higham, SIAM J. Matrix Anal. Appl. 31, 2009, theorem 4.2); it is read
    back once.
    """
    xp = _xp.namespace(a)
    a2 = kernels.matmul(a, a)
    a3, a4 = kernels.matmul(a2, a), kernels.matmul(a2, a2)
    cubic, quartic = kernels.host(kernels.norm(a3), kernels.norm(a4))
    size = max(float(np.max(cubic)) ** (1 / 3), float(np.max(quartic)) ** 0.25)
    for count in (2, 3, 4):
        m = 4 * count
        reach = (0.5 * kernels.unit_roundoff * math.factorial(m + 1)) ** (1.0 / (m + 1))
        if size <= reach:
            break
    squarings = math.ceil(math.log2(size / reach)) if size > reach else 0
    scale = 0.5**squarings
    # exp(A) = B_0 + A^4 (B_1 + A^4 (... + A^4 B_last)): row i has B_i's coefficients of A, ..., A^4.
    c = [1.0 / math.factorial(k) for k in range(m + 1)]
    rows = [[c[k + 1], c[k + 2], c[k + 3], c[m] * (k == m - 4)] for k in range(0, m, 4)]
    weights = _xp.from_host(np.array(rows) * scale ** np.arange(1, 5), a)
    blocks = weights @ xp.reshape(xp.stack([a, a2, a3, a4]), (4, -1))
    blocks = xp.reshape(blocks, (count, *a.shape))
    a4 = kernels.scale(a4, scale**4, out=a4)
    e = kernels.add_identity(blocks[-1, ...], c[m - 4])
    for i in reversed(range(count - 1)):
        block = kernels.add_identity(blocks[i, ...], c[4 * i])
        e = kernels.add(kernels.matmul(e, a4), block, out=block)
    for _ in range(squarings):
        e = kernels.matmul(e, e)
    return e
