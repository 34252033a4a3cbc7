"""Naive solvers and formulas in plain NumPy, to compare the library with; nothing of it is used here.

The letters are those of the papers: G gradient, S = X^H X, D = S - I, d = ||D||, Lam the landing
field. One matrix at a time, no buffers, no free bounds: what a reader would write from the formulas.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np


def H(a):
    return np.conj(np.swapaxes(a, -1, -2))


def sym(a):
    return (a + H(a)) / 2


def skew(a):
    return (a - H(a)) / 2


def inner(a, b):
    """Re tr(a^H b)."""
    return float(np.sum(np.conj(a) * b).real)


# -- data: asymmetric and random --------------------------------------------------------------


def gaussian(rng, shape, dtype=np.float64):
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def hermitian(rng, shape, dtype=np.float64):
    x = gaussian(rng, shape, dtype)
    return x + H(x)


def breaking(grad, bad, after=5):
    """``grad``, with an entry that is ``bad`` from the fifth call on."""
    calls = []

    def broken(x):
        calls.append(1)
        with np.errstate(all="ignore"):
            g = grad(x)
        if len(calls) >= after:
            g[..., 2, 1] = bad
        return g

    return broken


def orthonormal(rng, shape, dtype=np.float64):
    """A point of St(n, p), of its transpose for a wide shape, or a stack of them."""
    n, p = shape[-2:]
    q = np.linalg.qr(gaussian(rng, (*shape[:-2], max(n, p), min(n, p)), dtype))[0]
    return np.ascontiguousarray(q if n >= p else H(q))


def in_tube(rng, shape, d, dtype=np.float64):
    """U diag(s) V^H with ||X^H X - I||_F = d < 1, singular values on both sides of 1."""
    n, p = shape[-2:]
    if n < p:
        return np.ascontiguousarray(H(in_tube(rng, (*shape[:-2], p, n), d, dtype)))
    w = rng.standard_normal((*shape[:-2], 1, p))
    s = np.sqrt(1 + d * w / np.linalg.norm(w, axis=-1, keepdims=True))
    wide = np.result_type(dtype, np.float64)
    x = (orthonormal(rng, shape, wide) * s) @ orthonormal(rng, (*shape[:-2], p, p), wide)
    return x.astype(dtype)


def distance(x):
    """||X^H X - I||_F of one matrix, tall or wide, accumulated in extended precision."""
    x = np.asarray(x).astype(np.clongdouble if np.iscomplexobj(x) else np.longdouble)
    x = H(x) if x.shape[0] < x.shape[1] else x
    return float(np.sqrt(np.sum(np.abs(H(x) @ x - np.eye(x.shape[1])) ** 2)))


def seeded(seed, shape, dtype="float64"):
    """A Gaussian array, the same for the same seed."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * generator.standard_normal(shape)
    return x.astype(dtype)


def polar(x):
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    return u @ vh


def quadratic(rng, shape, dtype=np.float64, condition=1.0):
    """(f, gradient) of f(X) = ||A X B - C||^2 / 2 over one matrix or each of a stack."""
    n, p = shape[-2:]
    stack = shape[:-2]
    a = gaussian(rng, (*stack, n, n), dtype) / n**0.5
    a = a * np.geomspace(1.0, condition, n).astype(dtype)
    b = gaussian(rng, (*stack, p, p), dtype) / p**0.5
    c = gaussian(rng, shape, dtype)

    def fun(x):
        return 0.5 * np.sum(np.abs(a @ x @ b - c) ** 2, axis=(-2, -1))

    def grad(x):
        return H(a) @ (a @ x @ b - c) @ H(b)

    return fun, grad


# -- the landing of the papers ----------------------------------------------------------------


def relative_gradient(x, g):
    return skew(g @ H(x)) @ x


def landing_field(x, g, lam):
    return relative_gradient(x, g) + lam * x @ (H(x) @ x - np.eye(x.shape[1]))


def safe_step(d, g, lam, eps, cap=True):
    """[AVGA24]'s safe step, as written; ``cap=False`` leaves out 1/(2 lam)."""
    room = max(eps - d, 0.0)
    step = (lam * d * (1 - d) + np.sqrt(lam**2 * d**2 * (1 - d) ** 2 + g**2 * room)) / g**2
    return min(step, 1 / (2 * lam)) if cap and lam > 0 else step


def exact_safe_step(d, g, lam, eps):
    """The same in 60 decimal digits, for any scale of the field."""
    with localcontext() as context:
        context.prec = 60
        d, g, lam, eps = (Decimal(float(v)) for v in (d, g, lam, eps))
        t = lam * d * (1 - d)
        root = (t + (t * t + g * g * max(eps - d, Decimal(0))).sqrt()) / (g * g)
        return float(min(root, 1 / (2 * lam)) if lam else root)


def landing(grad, x, step, lam=1.0, eps=0.5, steps=100, cap=True):
    """x at every iteration of the landing with its safe step; the steps taken; what limited them."""
    xs, etas, limits = [x], [], []
    for k in range(steps):
        g = grad(x)
        field = landing_field(x, g, lam)
        d = np.linalg.norm(H(x) @ x - np.eye(x.shape[1]))
        safe = safe_step(d, np.linalg.norm(field), lam, eps, cap)
        wanted = step(k) if callable(step) else step
        eta = min(wanted, safe)
        limits.append("wanted" if wanted <= safe else "cap" if safe == 1 / (2 * lam) else "bound")
        x = x - eta * field
        xs.append(x)
        etas.append(eta)
    return xs, etas, limits


# -- the parameter-free landing: Barzilai-Borwein steps and Newton-Schulz ----------------------


def newton_schulz(y, tol, max_passes=25, unit=None):
    """Passes until ||Y^H Y - I|| <= tol, at least one; in the precision of y. None: not reached."""
    one = np.eye(y.shape[1])
    e = H(y) @ y - one
    norm = np.sqrt(np.sum(np.abs(e) ** 2))
    if norm > 0.9:
        b = min(norm, np.abs(e).sum(axis=1).max())
        if b > 0.9:
            y = y / np.sqrt(1 + b / 2)
            e = H(y) @ y - one
    unit = float(np.finfo(y.dtype).eps) if unit is None else unit
    floor = min(500 * unit, max(tol, 4 * unit * y.shape[1]))  # below it no Gram matrix is formed
    for _ in range(max_passes):
        norm = np.sqrt(np.sum(np.abs(e) ** 2))
        # E^2 where it saves a pass or the next Gram matrix.
        linear = 0.75 * norm**2 <= tol and 0.625 * norm**3 * (1 + norm) > floor
        y = y + y @ (-e / 2 + (0 if linear else 3 * e @ e / 8))
        e = H(y) @ y - one
        if np.sqrt(np.sum(np.abs(e) ** 2)) <= tol:
            return y
    return None


def capped(x, f, eta):
    """eta, shortened where X - eta F is stretched by more than 9/4; whether it was."""
    e = H(x - eta * f) @ (x - eta * f) - np.eye(x.shape[1])
    bound = np.sqrt(np.linalg.norm(e @ e))
    if np.linalg.norm(e) <= 2.25 or bound <= 2.25:
        return eta, False
    return eta * np.sqrt(2.25 / bound), True


def bb_ns(fun, grad, x, steps, rtol=0.0):
    """x, eta and whether it was capped at every iteration of BB-NS, from a start on the manifold."""

    def evaluate(x):
        g = grad(x)
        m = H(x) @ g
        delta = H(x) @ x - np.eye(x.shape[1])
        return fun(x) - inner(m, delta) / 2, g - x @ sym(m), np.linalg.norm(sym(m))

    merit, psi, normal = evaluate(x)
    scale, reference, weight, enough = abs(merit), merit, 1.0, rtol * np.linalg.norm(psi)
    xs, etas, caps, previous = [x], [], [], None
    for k in range(steps):
        size = np.linalg.norm(psi)
        if size < enough:
            break
        if previous is None:
            eta = 0.4 * np.sqrt(x.shape[1]) / size
        else:
            s, y = x - previous[0], psi - previous[1]
            even = inner(s, s) / abs(inner(s, y))
            eta = even if k % 2 == 0 else abs(inner(s, y)) / inner(y, y)
        eta, was_capped = capped(x, psi, eta)
        caps.append(was_capped)
        slack = 1e4 * 2.0**-52 * max(abs(reference), scale)
        while True:
            new = newton_schulz(x - eta * psi, min(1e-2, 0.05 * size / normal))
            if new is None:
                eta /= 4
                continue
            new_merit, new_psi, new_normal = evaluate(new)
            if new_merit <= reference - 1e-4 * eta * size**2 + slack:
                break
            curvature = 2 * (new_merit - merit + eta * size**2)
            eta = min(max(eta**2 * size**2 / curvature, 0.1 * eta), 0.5 * eta)
        previous = (x, psi)
        x, psi, merit, normal = new, new_psi, new_merit, new_normal
        reference = (0.95 * weight * reference + merit) / (0.95 * weight + 1)
        weight = 0.95 * weight + 1
        xs.append(x)
        etas.append(eta)
    return xs, etas, caps


# -- transforms of the gradient, and POGO ------------------------------------------------------


def heavy_ball(grad, x, step, beta, lam=1.0, steps=30):
    """Landing without a safe step along m <- beta m + G."""
    xs, m = [x], np.zeros_like(x)
    for _ in range(steps):
        m = beta * m + grad(x)
        x = x - step * landing_field(x, m, lam)
        xs.append(x)
    return xs


def nesterov(grad, x, step, beta, lam=1.0, steps=30):
    """The same along G + beta m, in PyTorch's form."""
    xs, m = [x], np.zeros_like(x)
    for _ in range(steps):
        g = grad(x)
        m = beta * m + g
        x = x - step * landing_field(x, g + beta * m, lam)
        xs.append(x)
    return xs


def vector_adam(grad, x, step, beta1, beta2, epsilon, lam=1.0, steps=30):
    """Landing along Adam's estimate, with one second moment for the matrix."""
    xs, m, v = [x], np.zeros_like(x), 0.0
    for t in range(1, steps + 1):
        g = grad(x)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * np.linalg.norm(g) ** 2
        estimate = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
        x = x - step * landing_field(x, estimate, lam)
        xs.append(x)
    return xs


def pogo(grad, x, step, lam=0.5, steps=30):
    """A step along R, then one normal step."""
    xs = [x]
    for k in range(steps):
        m = x - (step(k) if callable(step) else step) * relative_gradient(x, grad(x))
        x = m - lam * m @ (H(m) @ m - np.eye(x.shape[1]))
        xs.append(x)
    return xs


def tangent_landing(grad, x, step, beta, scale, lam=1.0, steps=30):
    """Landing without a safe step, along the tangent term of a metric."""
    xs = [x]
    for _ in range(steps):
        g = grad(x)
        normal = x @ (H(x) @ x - np.eye(x.shape[1]))
        x = x - step * (scale * beta_metric(x, g, beta) + lam * normal)
        xs.append(x)
    return xs


def riemannian_descent(grad, x, step, beta, steps=30):
    """Gradient descent in a metric, with the polar retraction."""
    xs = [x]
    for _ in range(steps):
        x = polar(x - step * riemannian_gradient(x, grad(x), beta))
        xs.append(x)
    return xs


def longest_safe_step(x, field, eps):
    """The smallest eta > 0 at which x - eta field leaves the tube, by np.roots in full.

    Where d is eps to rounding, the way in is no root.
    """
    delta, t, q = H(x) @ x - np.eye(x.shape[1]), H(x) @ field + H(field) @ x, H(field) @ field
    c = [
        inner(q, q), -2 * inner(t, q), inner(t, t) + 2 * inner(delta, q), -2 * inner(delta, t),
        inner(delta, delta) - eps**2,
    ]  # fmt: skip
    roots = np.roots(c)
    real = roots[np.abs(roots.imag) < 1e-9 * np.abs(roots)].real
    return min(r for r in real if r > 1e-9 * max(real))


# -- tangent terms of other metrics -------------------------------------------------------------


def beta_metric(x, g, beta):
    """The tangent term of g(X Omega + V) = beta ||Omega||^2 + ||V||^2, in full."""
    s, m, c = H(x) @ x, H(x) @ g, H(g) @ x
    return g @ s - x @ c + (1 / beta - 2) * x @ skew(m) @ s


def riemannian_gradient(x, g, beta):
    """On the manifold: (I - X X^H) G + X skew(X^H G) / beta."""
    m = H(x) @ g
    return g - x @ m + x @ skew(m) / beta
