r"""Maps from skew-Hermitian matrices onto the manifold, with the adjoints of their derivatives.

A tangent Z = X_0 a + W at X_0 (a = X_0^H Z skew-Hermitian, X_0^H W = 0) is the skew-Hermitian matrix
Omega = [[a, -r^H], [r, 0]] in an orthonormal basis [X_0 Q], W = Q r. Neither map needs the basis: Omega
takes X_0 to X_0 a + W and W to -X_0 S, S = W^H W, so that phi(Omega) X_0 = X_0 E_1 + W E_2 with

    exponential    [E_1; E_2] = expm([[a, -S], [I, 0]]) [I; 0]
    cayley         E_2 = (I - a/2 + S/4)^-1,  E_1 = 2 E_2 - I      (from (I - Omega/2)^-1 (I + Omega/2)).

Without W (``s=None``, square X) E_1 is expm(a) or (I - a/2)^-1 (I + a/2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from landingopt import _xp
from landingopt._factor import factor
from landingopt._xp import Array


class Mapped(NamedTuple):
    """E_1 and E_2; ``pull`` takes the gradients in E_1 and E_2 to those in a and S (None without S).

    ``ok`` is False, for each matrix, where the map could not be formed.
    """

    e1: Array
    e2: Array
    pull: Callable[[Array, Array], tuple[Array, Array]]
    ok: Any


def cayley(kernels: Any, a: Array, s: Array | None) -> Mapped:
    """The inverse of one p x p matrix, and two products for the derivative."""
    d = kernels.add_identity(kernels.scale(a, -0.5), 1.0)
    d = d if s is None else kernels.add(d, kernels.scale(s, 0.25), out=d)
    v, ok = factor(kernels, _xp.namespace(d).linalg.inv, d, 1.0 / kernels.unit_roundoff)

    def pull(g1: Array, g2: Array) -> tuple[Array, Array]:
        gv = kernels.scale(g1, 2.0)
        gv = gv if s is None else kernels.add(gv, g2, out=gv)
        # dV = -V dD V, so that the gradient in D is -V^H (that in V) V^H.
        gd = kernels.outer(kernels.cross(v, gv), v)
        return kernels.scale(gd, 0.5), None if s is None else kernels.scale(gd, -0.25)

    return Mapped(kernels.add_identity(kernels.scale(v, 2.0), -1.0), v, pull, ok)


def exponential(kernels: Any, a: Array, s: Array | None) -> Mapped:
    """One exponential, p x p or 2 p x 2 p, and the adjoint of its derivative."""
    exp, limit = partial(expm_and_adjoint, kernels), kernels.unit_roundoff**-0.5
    if s is None:
        (e, adjoint), ok = factor(kernels, exp, a, limit)
        return Mapped(e, None, lambda g1, g2: (adjoint(g1), None), ok)
    # [X_0 W] = [X_0 W/t] diag(I, t I): with t = ||S||^(1/2) the exponent is small where Z is.
    xp, p, scalars = _xp.namespace(a), a.shape[-1], kernels.scalars
    t = scalars.maximum(scalars.sqrt(kernels.norm(s)), kernels.unit_roundoff**2)
    upper = xp.concat([a, kernels.scale(s, -1.0 / t)], axis=-1)
    zero = xp.zeros_like(a)
    lower = xp.concat([kernels.add_identity(xp.zeros_like(a), t), zero], axis=-1)
    (e, adjoint), ok = factor(kernels, exp, xp.concat([upper, lower], axis=-2), limit)

    def pull(g1: Array, g2: Array) -> tuple[Array, Array]:
        # E_2 = e_21 / t. That t depends on S changes nothing: the product does not depend on t.
        left = xp.concat([g1, kernels.scale(g2, 1.0 / t)], axis=-2)
        g = adjoint(xp.concat([left, xp.zeros_like(left)], axis=-1))
        return g[..., :p, :p], kernels.scale(g[..., :p, p:], -1.0 / t)

    return Mapped(e[..., :p, :p], kernels.scale(e[..., p:, :p], 1.0 / t), pull, ok)


def expm_and_adjoint(kernels: Any, a: Array) -> tuple[Array, Callable[[Array], Array]]:
    """exp(A), and G -> L(A^H, G), the adjoint of the derivative L(A, E) of exp at A; products only.

    exp(A) as in :func:`landingopt._factor.expm`: Taylor's polynomial of degree m = 8, 12 or 16 of
    A / 2^j, in blocks of four powers, and j squarings. The adjoint goes back through the same products,
    two for each. Both together are 12 to 18 products and three for each squaring; the exponential of
    [[A^H, G], [0, A^H]] in their place, which holds L(A^H, G), is 32 to 48 and eight for each.

    References
    ----------
    Al-Mohy, Higham, SIAM J. Matrix Anal. Appl. 30, 2009, who differentiate a Padé approximant.
    """
    xp, h = _xp.namespace(a), _xp.H
    a2 = a @ a
    a3, a4 = a2 @ a, a2 @ a2
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
    quarter = a4 * scale**4
    sums = [kernels.add_identity(blocks[-1, ...], c[m - 4])]
    for i in reversed(range(count - 1)):
        block = kernels.add_identity(blocks[i, ...], c[4 * i])
        sums.append(kernels.add(block, quarter @ sums[-1], out=block))
    roots = [sums.pop()]
    for _ in range(squarings):
        roots.append(roots[-1] @ roots[-1])

    def adjoint(g: Array) -> Array:
        for root in reversed(roots[:-1]):
            root = h(root)
            g = root @ g + g @ root
        parts, outer = [g], 0.0  # of B_0, B_1, ...; and of A^4 in Horner's rule
        for inner in reversed(sums):
            outer = outer + g @ h(inner)
            g = h(quarter) @ g
            parts.append(g)
        powers = xp.reshape(xp.stack(parts), (count, -1))
        powers = xp.reshape(xp.matrix_transpose(weights) @ powers, (4, *a.shape))
        g1, g2, g3, g4 = (powers[k, ...] for k in range(4))
        g4 = g4 + outer * scale**4
        g2 = g2 + h(a2) @ g4 + g4 @ h(a2) + g3 @ h(a)
        return g1 + h(a2) @ g3 + h(a) @ g2 + g2 @ h(a)

    return roots[-1], adjoint
