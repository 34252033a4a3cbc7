"""The limited-memory BFGS direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from landingopt import _xp
from landingopt._rows import Rows
from landingopt._xp import Array
from landingopt.fields import ArrayForm, Form
from landingopt.point import Point
from landingopt.space import Space


def check_memory(memory: Any) -> None:
    whole = isinstance(memory, (int, np.integer)) and not isinstance(memory, bool)
    if not (whole and memory >= 1):
        raise ValueError(f"memory, the number of pairs, must be an integer >= 1, got {memory!r}")


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS, F = H psi, with ambient pairs and no transport.

    The pairs are differences in the space of matrices, s = X_+ - X and y = psi_+ - psi, with psi the
    Euclidean-metric gradient. F is not projected onto the tangent space: the part of it normal to the
    manifold, X times a symmetric matrix, is what the Newton–Schulz move takes away.

    H is in its compact form, so that a direction costs two passes over the memory (2 m n p numbers)
    whatever m. On a product of blocks inner products are summed over the blocks, while the initial
    matrix is <s, y> / <y, y> of each block: blocks of unlike scales do not hold each other up. In a
    separable stack each matrix has its own H. A pair is kept where <s, y> > 1e-10 ||s|| ||y||.

    Parameters
    ----------
    memory : int
        The number m of pairs. More than the iterations does no harm.

    References
    ----------
    Byrd, Nocedal, Schnabel, Representations of quasi-Newton matrices and their use in limited memory
    methods, Math. Program. 63, 1994, theorem 2.2.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.directions.LBFGS(memory=5)
    LBFGS(memory=5)
    """

    memory: int = 8

    def __post_init__(self) -> None:
        check_memory(self.memory)

    def start(self, space: Space, oracle: Any = None) -> LBFGSRun:
        return LBFGSRun(self.memory, space)


class LBFGSRun:
    """Directions from the pairs of the run."""

    __slots__ = ("pairs", "placed")

    def __init__(self, memory: int, space: Space):
        self.pairs = Pairs(memory, space)
        self.placed = Placed(space)

    def direction(self, point: Point) -> list[Form]:
        if not self.pairs.learn(point):
            return self.placed.field(point)
        return self.placed(point, self.pairs.times([form.array() for form in point.forms]))


class Placed:
    """Arrays as a direction; a matrix of a stack whose trial was refused keeps the one it is trying."""

    __slots__ = ("space", "forms", "_arrays")

    def __init__(self, space: Space):
        self.space = space
        self.forms = [ArrayForm(block) for block in space.blocks]
        self._arrays: list[Array] | None = None

    def field(self, point: Point) -> list[Form]:
        """The field itself, unscaled: a search knows it by its forms."""
        if self.space.separable:
            self._arrays = [_xp.copy(form.array()) for form in point.forms]
        return point.forms

    def __call__(self, point: Point, arrays: list[Array]) -> list[Form]:
        if self.space.separable:
            if self._arrays is not None:
                waits = (point.step == 0) & ~np.asarray(point.restart)
                kernels = self.space.blocks[0].kernels
                arrays = [kernels.select(waits, self._arrays[0], arrays[0])]
            self._arrays = arrays
        for form, x, array in zip(self.forms, point.x, arrays, strict=True):
            form.place(x, array)
        return list(self.forms)


class Pairs:
    """The last m pairs (s, y) of a run, and the product with the inverse Hessian that they make.

    The pairs live where the data lives, as rows s_0, y_0, s_1, y_1, ... in slots that are used in turn;
    their inner products on the host, one small matrix for each problem of a separable stack, whose rows
    and columns are the slots. ``_inverse`` is R^-1, R the part of S^T Y with s_i not newer than y_j: the
    oldest pair leaves it as a row and a column of zeros, and a new one is one column. In a separable
    stack a pair that is not good is a pair of zeros, which changes nothing.
    """

    def __init__(self, memory: int, space: Space):
        self.memory, self.space = memory, space
        self.batch = space.batch if space.separable else ()
        self._parts = space.split()
        self._rows: list[Rows] = []
        self.forget()

    def forget(self) -> None:
        self.count, self._slot = 0, 0
        self._capacity = min(self.memory, 8)
        m, batch = self._capacity, self.batch
        self._inverse = np.zeros((*batch, m, m))
        self._middles = [np.zeros((*batch, m, m)) for _ in self._parts]  # Y^T Y of each block
        self._curvature = np.zeros((*batch, m))  # <s_i, y_i>
        self._scales: list[Any] = [np.ones(batch) if batch else 0.0 for _ in self._parts]
        self._products: list[Any] = []  # of each block's rows with psi, at the point before
        self._fresh: Any = None  # a pair that the small matrices do not know
        self._views: Any = None

    def learn(self, point: Point) -> bool:
        """Take the pair of the last step; False where no pair is known."""
        previous = point.previous
        if point.restart is not False and np.any(point.restart):
            self._drop(point.restart)
        if previous is None:
            return False
        if not self._rows:
            self._rows = [
                Rows(b.kernels, b.inner_shape, self.batch, 2 * self._capacity)
                for b in self.space.blocks
            ]
        slot = self._slot
        if slot == self._capacity:
            self._grow()
        s, y = [], []
        for i, rows in enumerate(self._rows):
            psi, before = point.forms[i].array(), previous.forms[i].array()
            s.append(rows.set_difference(2 * slot, point.x[i], previous.x[i]))
            y.append(rows.set_difference(2 * slot + 1, psi, before))
        dots = [
            part.dots(([a], [a]), ([a], [b]), ([b], [b])) for part, a, b in zip(self._parts, s, y)
        ]
        ss, sy, yy = dots[0] if len(dots) == 1 else map(sum, zip(*dots, strict=True))
        scalars = self.space.scalars
        good = sy > 1e-10 * scalars.sqrt(ss) * scalars.sqrt(yy)
        # The pair that was in this slot has gone, and a slot of zeros does nothing.
        self._inverse[..., slot, :] = self._inverse[..., slot] = 0.0
        if not scalars.any(good):
            self._curvature[..., slot] = 0.0
            self._rescale_without_pairs(point, None)
            return bool(self._curvature.any())
        self._rescale(dots, scalars.divide(sy, yy), good)
        self._rescale_without_pairs(point, good)
        self._fresh = (slot, sy, [part[2] for part in dots], good)
        self.count = max(self.count, slot + 1)
        self._slot = (slot + 1) % self.memory
        return True

    def _rescale(self, dots: list[Any], scale: Any, good: Any) -> None:
        """The initial matrix: <s, y> / <y, y> of each block, or of all where a block has no such."""
        if len(dots) == 1:
            self._scales = [scale if good is True else np.where(good, scale, self._scales[0])]
            return
        for i, (ss, sy, yy) in enumerate(dots):
            if sy > 1e-10 * math.sqrt(ss) * math.sqrt(yy):
                self._scales[i] = sy / yy
            else:
                self._scales[i] = self._scales[i] or scale

    def _rescale_without_pairs(self, point: Point, fresh: Any) -> None:
        """In a stack, psi itself for the others: a tenth of a radian for every column."""
        if not self.batch:
            return
        empty = ~self._curvature.any(axis=-1)
        if fresh is not None:
            empty &= ~fresh
        if empty.any():
            first = np.divide(0.1 * self.space.size_p**0.5, point.gradient_norm)
            self._scales = [np.where(empty & np.isfinite(first), first, self._scales[0])]

    def _grow(self) -> None:
        old, m = self._capacity, min(self.memory, 2 * self._capacity)
        wide = ((0, 0),) * len(self.batch)
        more = (0, m - old)
        self._inverse = np.pad(self._inverse, (*wide, more, more))
        self._middles = [np.pad(middle, (*wide, more, more)) for middle in self._middles]
        self._curvature = np.pad(self._curvature, (*wide, more))
        for rows in self._rows:
            rows.grow(2 * m)
        self._capacity, self._views = m, None

    def _drop(self, which: Any) -> None:
        """Forget the pairs, of all or of some matrices of a stack."""
        if not self.batch:
            self.forget()
            return
        self._inverse[which] = 0.0
        self._curvature[which] = 0.0

    def times(self, psi: list[Array]) -> list[Array]:
        """H psi, fresh arrays; psi is the field at the point that was learned from."""
        count = 2 * self.count
        products = [rows.products(count, a) for rows, a in zip(self._rows, psi, strict=True)]
        if self._fresh is not None:
            self._extend(products, *self._fresh)
            self._fresh = None
        self._products = products
        u, p = self._solved(products)
        result = []
        for i, block in enumerate(self.space.blocks):
            k, scale = block.kernels, self._scales[i]
            coefficients = np.empty_like(products[i])
            coefficients[..., 0::2] = p
            coefficients[..., 1::2] = u * (-scale[..., None] if self.batch else -scale)
            array = self._rows[i].combined(coefficients)
            result.append(k.add(array, k.scale(psi[i], scale), out=array))
        return result

    def _extend(self, products: list[Any], slot: int, sy: Any, yy: list[Any], good: Any) -> None:
        """The column of a new pair: products with y = psi_+ - psi are differences of products."""
        inverse, curvature, middles = self._small()
        s_column: Any = None
        for i, now in enumerate(products):
            change = self._change(now, i)
            s_part, y_column = change[..., 0::2], change[..., 1::2]
            s_column = s_part if s_column is None else s_column + s_part
            y_column[..., slot] = yy[i]
            middles[i][..., slot] = middles[i][..., slot, :] = y_column
        pivot = np.where(good, sy, 1.0) if self.batch else sy
        column = _times(inverse, s_column)
        column *= (-1.0 / pivot)[..., None] if self.batch else -1.0 / pivot
        column[..., slot] = 1.0 / pivot
        if self.batch:
            column[~good] = 0.0
            sy = np.where(good, sy, 0.0)
        inverse[..., slot] = column
        curvature[..., slot] = sy

    def _change(self, now: np.ndarray, i: int) -> np.ndarray:
        """Products now less products before; what stands for the new slot is not used."""
        if not self._products:
            return np.zeros_like(now)
        before = self._products[i]
        if before.shape != now.shape:
            before = np.concatenate([before, np.zeros((*self.batch, 2))], axis=-1)
        return now - before

    def _small(self) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """R^-1, the diagonal D of R, and Y^T Y, of the slots that have been used."""
        c = self.count
        if self._views is None or self._views[1].shape[-1] != c:
            self._views = (
                self._inverse[..., :c, :c],
                self._curvature[..., :c],
                [middle[..., :c, :c] for middle in self._middles],
            )
        return self._views

    def _solved(self, products: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """u and p with H psi = H_0 psi + S p - H_0 Y u, from a = S^T psi and b = Y^T H_0 psi.

        H = H_0 + [S, H_0 Y] [[R^-T (D + Y^T H_0 Y) R^-1, -R^-T], [-R^-1, 0]] [S, H_0 Y]^T.
        """
        inverse, curvature, middles = self._small()
        a = products[0][..., 0::2]
        for other in products[1:]:
            a = a + other[..., 0::2]
        u = _times(inverse, a)
        inner = curvature * u
        for now, middle, scale in zip(products, middles, self._scales, strict=True):
            part = _times(middle, u)
            part -= now[..., 1::2]
            part *= scale[..., None] if self.batch else scale
            inner += part
        return u, _times(inverse.mT, inner)


def _times(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return matrix.dot(vector) if vector.ndim == 1 else (matrix @ vector[..., None])[..., 0]
