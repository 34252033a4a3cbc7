"""Naive stochastic solvers in plain NumPy, with the samples given; and finite sums to try them on.

An estimate is a function of x that keeps its own memory: ``saga`` and its kin make one, ``descent``
follows it. Samples are indices, or numbers of blocks. x is a matrix, a stack, or a :class:`Blocks`.
"""

from __future__ import annotations

import numpy as np
import reference as ref


class Blocks(dict):
    """A dict of arrays, added and scaled entry by entry."""

    def __add__(self, other):
        return Blocks({k: self[k] + other[k] for k in self})

    def __sub__(self, other):
        return Blocks({k: self[k] - other[k] for k in self})

    def __rmul__(self, factor):
        return Blocks({k: factor * self[k] for k in self})


def indices(terms, n_terms):
    """A slice or indices, as indices."""
    return np.arange(n_terms)[terms]


def partition(n_terms, size):
    """Consecutive terms; the last block may be smaller."""
    return [np.arange(i, min(i + size, n_terms)) for i in range(0, n_terms, size)]


# -- the landing, along an estimate -----------------------------------------------------------


def moved(x, g, step, lam, eps):
    """One landing step with its safe step: each block, and each matrix of a stack, its own."""
    if isinstance(x, dict):
        return Blocks({k: moved(x[k], g[k], step, lam, eps) for k in x})
    if x.ndim == 1:  # a free block
        return x - step * g
    if x.ndim > 2:
        return np.stack([moved(a, b, step, lam, eps) for a, b in zip(x, g, strict=True)])
    field = ref.landing_field(x, g, lam)
    d = np.linalg.norm(ref.H(x) @ x - np.eye(x.shape[1]))
    return x - min(step, ref.safe_step(d, np.linalg.norm(field), lam, eps)) * field


def descent(estimate, x, step, lam=1.0, eps=0.5, beta=0.0, steps=30):
    """x at every iteration, along m <- beta m + estimate."""
    xs, m = [x], None
    for k in range(steps):
        m = estimate(x) if m is None else beta * m + estimate(x)
        x = moved(x, m, step(k) if callable(step) else step, lam, eps)
        xs.append(x)
    return xs


# -- estimates: grad(x, indices) is a mean ----------------------------------------------------


def sgd(grad, draws):
    draws = iter(draws)
    return lambda x: grad(x, next(draws))


def saga(grad, blocks, draws, weighted=False):
    """The full table; ``weighted``: blocks that come equally often though their sizes differ."""
    n_terms, draws, table = sum(map(len, blocks)), iter(draws), []

    def mean():
        return sum_of(len(b) / n_terms * t for b, t in zip(blocks, table, strict=True))

    def estimate(x):
        if not table:
            table.extend(grad(x, b) for b in blocks)
            return mean()
        b = next(draws)
        weight = len(blocks) * len(blocks[b]) / n_terms if weighted else 1.0
        g = grad(x, blocks[b])
        result = weight * (g - table[b]) + mean()
        table[b] = g
        return result

    return estimate


def saga_of_terms(grad, n_terms, draws):
    """An entry for each term, terms drawn together: what the structured table amounts to."""
    draws, table = iter(draws), []

    def estimate(x):
        if not table:
            table.extend(grad(x, [i]) for i in range(n_terms))
            return 1 / n_terms * sum_of(table)
        terms = next(draws)
        fresh = [grad(x, [i]) for i in terms]
        change = sum_of(g - table[i] for g, i in zip(fresh, terms, strict=True))
        result = 1 / len(terms) * change + 1 / n_terms * sum_of(table)
        for g, i in zip(fresh, terms, strict=True):
            table[i] = g
        return result

    return estimate


def svrg(grad, n_terms, draws, minibatches, moves=None):
    """An anchor, ``minibatches`` of steps, an anchor, ...; or where ``moves(x, way)`` says so.

    ``way`` holds the anchor and the points since.
    """
    everything, draws = np.arange(n_terms), iter(draws)
    way, full = [], [None]

    def estimate(x):
        due = not way or len(way) > minibatches or (moves is not None and moves(x, way))
        if due:
            way[:], full[0] = [x], grad(x, everything)
            return full[0]
        way.append(x)
        terms = next(draws)
        return grad(x, terms) - grad(way[0], terms) + full[0]

    estimate.way = way
    return estimate


def turned(x, way):
    """SVRG's own rule: at X_8, X_16, ... does the second half of the way no longer lead on?"""
    k = len(way)
    if k < 8 or k & (k - 1):
        return False
    first, second = way[k // 2] - way[0], x - way[k // 2]
    if isinstance(x, dict):
        first = np.concatenate([v.ravel() for v in first.values()])
        second = np.concatenate([v.ravel() for v in second.values()])
    return ref.inner(second, first) < 0.4 * ref.inner(first, first)


def sum_of(values):
    values = list(values)
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


# -- sums: asymmetric and random --------------------------------------------------------------


def quadratics(rng, n_terms, shape, dtype=np.float64, scale=1.0, easy=False):
    """(f, gradient) of the mean of ||A_i X B - C_i||^2 / 2; f has a value for each of a stack.

    ``easy``: well-conditioned, with A_i and B close to the identity and C_i close to one another.
    """
    n, p = shape[-2:]
    stack = shape[:-2]
    a = scale**0.5 * ref.gaussian(rng, (n_terms, *stack, n, n), dtype) / n**0.5
    b = ref.gaussian(rng, (*stack, p, p), dtype) / p**0.5
    c = scale**0.5 * ref.gaussian(rng, (n_terms, *stack, n, p), dtype)
    if easy:
        a, b = np.eye(n) + 0.3 * a, np.eye(p) + 0.1 * b
        c = 3 * ref.orthonormal(rng, (*stack, n, p), dtype) + 0.3 * c

    def fun(x, terms):
        values = 0.5 * np.sum(np.abs(a[terms] @ x @ b - c[terms]) ** 2, axis=(-2, -1))
        return np.mean(values, axis=0) if stack else float(np.mean(values))

    def grad(x, terms):
        return np.mean(ref.H(a[terms]) @ (a[terms] @ x @ b - c[terms]) @ ref.H(b), axis=0)

    return fun, grad


def product(rng, n_terms, easy=False):
    """(f, gradient) of W (7, 4) and b (3,), which share a term."""
    fun_w, grad_w = quadratics(rng, n_terms, (7, 4), easy=easy)
    t, s = ref.gaussian(rng, (n_terms, 3)), ref.gaussian(rng, (n_terms,))

    def fun(x, terms):
        w, b = x["W"], x["b"]
        rest = 0.5 * np.sum((b - t[terms]) ** 2, axis=1) + s[terms] * (w[:3, 0] @ b)
        return fun_w(w, terms) + float(np.mean(rest))

    def grad(x, terms):
        w, b = x["W"], x["b"]
        g = grad_w(w, terms)
        g[:3, 0] += np.mean(s[terms]) * b
        return {"W": g, "b": np.mean(b - t[terms], axis=0) + np.mean(s[terms]) * w[:3, 0]}

    return fun, grad


def linear_models(rng, n_terms, n, p, dtype=np.float64):
    """(phi, dphi, data) of |u - y_i|^2 / 2 + |u|^4 / 8, u = a_i^T X."""
    data = ref.gaussian(rng, (n_terms, n), dtype) / n**0.5
    y = ref.gaussian(rng, (n_terms, p), dtype)

    def phi(u, terms):
        return np.sum(0.5 * np.abs(u - y[terms]) ** 2 + 0.125 * np.abs(u) ** 4, axis=1)

    def dphi(u, terms):
        return u - y[terms] + 0.5 * np.abs(u) ** 2 * u

    return phi, dphi, data


def of_terms(phi, dphi, data):
    """The same sum, as functions of x and of the terms."""

    def fun(x, terms):
        return float(np.mean(phi(data[terms] @ x, terms)))

    def grad(x, terms):
        rows = data[terms]
        return ref.H(rows) @ dphi(rows @ x, terms) / len(rows)

    return fun, grad


class Choices:
    """In place of a Generator: every outcome in turn, all equally likely where they are asked for.

    ``for rng in Choices.every(): ...; rng.probability`` goes through the whole tree.
    """

    def __init__(self, path):
        self.path, self.sizes = list(path), []

    @classmethod
    def every(cls):
        path = []
        while True:
            rng = cls(path)
            yield rng
            taken = rng.path[: len(rng.sizes)]
            while taken and taken[-1] == rng.sizes[len(taken) - 1] - 1:
                taken.pop()
            if not taken:
                return
            taken[-1] += 1
            path = taken

    @property
    def probability(self):
        return 1.0 / float(np.prod([float(size) for size in self.sizes]))

    def _choose(self, size):
        at = len(self.sizes)
        if at == len(self.path):
            self.path.append(0)
        self.sizes.append(size)
        return self.path[at]

    def integers(self, high, size=None):
        if size is None:
            return self._choose(high)
        return np.array([self._choose(high) for _ in range(size)])

    def permutation(self, count):
        left = list(range(count))
        return np.array([left.pop(self._choose(len(left))) for _ in range(count)])

    def random(self):
        return 0.999
