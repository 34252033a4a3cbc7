r"""The landing's own field at a tall X, one NumPy matrix: four products n p^2 and little beside them.

    F = s (G S - X C + r X Delta),    S = X^H X = I + Delta,  C = G^H X,

the canonical tangent and a normal term of weight s r. F itself is formed only where it is asked for:
a step is X - t F / s = X (I - t B) - t G S with the p x p matrix B = r Delta - C. For the safe step
there is a bound on ||F||: with G = X N + W, X^H W = 0, and d = ||Delta||,

    ||F / s||^2 <= (1 + d)^2 ||W||^2 + (1 + d) (||C^H - C|| + h d ||C|| + r d)^2,
    ||W||^2 <= ||G||^2 - ||C||^2 / (1 + d),    h = 1 + (1 + d) / (1 - d),

since N = S^-1 C^H, and N S - C = (C^H - C) + C^H Delta + (S^-1 - I) C^H S.
"""

from __future__ import annotations

import math

import numpy as np

from landingopt import _blas, _numpy


class Tall:
    """What is p x p at a point; ``ratio`` is r, 0 without a normal term."""

    __slots__ = (
        "_complex", "_cross", "_delta_diagonal", "_factor", "_flat", "_flip", "_number", "_ones",
        "_ratio", "_scaled", "_unit_diagonal", "b", "cross_norm", "delta", "distance", "gram",
        "kernels",
    )  # fmt: skip

    def __init__(self, kernels: _numpy.NumpyMatrix, p: int, ratio: float):
        self.kernels, self._ratio, self._complex = kernels, ratio, kernels.complex
        square = (p, p)
        self.gram, self.delta, self._cross, self.b = (kernels.empty(square) for _ in range(4))
        self._factor, self._scaled, self._flip = kernels.scratch(square, 3)
        self._delta_diagonal = self.delta.reshape(-1)[:: p + 1]
        self._unit_diagonal = self._factor.reshape(-1)[:: p + 1]
        real = self.delta.real.dtype
        self._flat = [a.reshape(-1).view(real) for a in (self.delta, self._cross, self._flip)]
        self._ones = np.ones(p, dtype=kernels.dtype)
        self._number = np.zeros((), dtype=kernels.dtype)  # a Python number is converted each time
        self.distance = self.cross_norm = 0.0

    def update(self, x: np.ndarray, g: np.ndarray) -> None:
        product, number = _blas.product, self._number
        self.kernels.gram(x, self.gram)
        product(g.conj().T if self._complex else g.T, x, self._cross)
        delta, diagonal = self.delta, self._delta_diagonal
        delta[...] = self.gram
        np.subtract(diagonal, self._ones, diagonal)
        self.distance = self.kernels.length(self._flat[0], delta)
        self.cross_norm = self.kernels.length(self._flat[1], self._cross)
        number[()] = self._ratio
        np.multiply(delta, number, self.b)
        np.subtract(self.b, self._cross, self.b)

    def bound(self, g: np.ndarray) -> float:
        """On ||F / s||; infinite where d is not below 1."""
        d, size = self.distance, self.kernels.norm(g)
        if not d < 1.0:
            return math.inf
        cross, flip = self._cross, self._flip
        flip[...] = cross.T
        if self._complex:
            np.conjugate(flip, flip)
        np.subtract(flip, cross, flip)
        c, u = self.cross_norm, self.kernels.unit_roundoff
        # Relative to ||G||, against overflow; a few units of rounding keep it a bound.
        share = c / size if size > 0.0 else 0.0
        outside = size * math.sqrt(max(1.0 - share * share / (1.0 + d), 0.0) + 64.0 * u)
        inside = (
            self.kernels.length(self._flat[2], flip)
            + (1.0 + (1.0 + d) / (1.0 - d)) * d * c
            + self._ratio * d
        )
        return math.hypot((1.0 + d) * outside, math.sqrt(1.0 + d) * inside)

    def step(self, x: np.ndarray, g: np.ndarray, t: float, out: np.ndarray) -> np.ndarray:
        """X - t F / s."""
        return self._sum(x, g, -t, True, out)

    def field(self, x: np.ndarray, g: np.ndarray, scale: float, out: np.ndarray) -> np.ndarray:
        """F."""
        return self._sum(x, g, scale, False, out)

    def _sum(
        self, x: np.ndarray, g: np.ndarray, scale: float, moved: bool, out: np.ndarray
    ) -> np.ndarray:
        """X B + G S times ``scale``; with X itself added where it is ``moved``."""
        number, factor, diagonal = self._number, self._factor, self._unit_diagonal
        number[()] = scale
        np.multiply(self.b, number, factor)
        if moved:
            np.add(diagonal, self._ones, diagonal)
        np.multiply(self.gram, number, self._scaled)
        (work,) = self.kernels.scratch(x.shape, 1)
        _blas.product(x, factor, out)
        _blas.product(g, self._scaled, work)
        return np.add(out, work, out)
