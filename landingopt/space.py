"""The shape of the unknown: one array, a stack, or blocks, as the solver sees it.

The user's x may be an array, a dict or a tuple of arrays, and a block may be wide (n < p). Inside, x
is always a list of blocks, each tall (n >= p) on its last two axes. :class:`Space` converts between
the two and measures: inner products and norms over all blocks, as numbers on the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from landingopt import _numpy, _xp
from landingopt._xp import FLOATS, Array, ArrayScalars
from landingopt.objectives import Shapes, Stiefel, Variable


class Block:
    """One array of the unknown: its name, shapes, constraint and kernels."""

    __slots__ = ("name", "shape", "stiefel", "wide", "batch", "n", "p", "kernels", "inner_shape")

    def __init__(self, name: str, shape: tuple[int, ...], constraint: Any, like: Array):
        self.name = name
        self.shape = shape
        self.stiefel = isinstance(constraint, Stiefel)
        self.wide = self.stiefel and shape[-2] < shape[-1]
        self.batch: tuple[int, ...] = shape[:-2] if self.stiefel else ()
        self.inner_shape = (*shape[:-2], shape[-1], shape[-2]) if self.wide else shape
        self.n, self.p = self.inner_shape[-2:] if self.stiefel else (math.prod(shape), 1)
        self.kernels = _xp.kernels(like, self.batch)

    def inner(self, x: Array) -> Array:
        """The user's array as a tall one."""
        return self.kernels.adjoint(x) if self.wide else x

    user = inner  # the adjoint is its own inverse

    def delta(self, x: Array) -> Array:
        """X^H X - I."""
        return self.kernels.add_identity(self.kernels.cross(x, x), -1.0)

    def distance(self, x: Array) -> Any:
        """||X^H X - I||_F where the data lives; 0 for an unconstrained block."""
        kernels = self.kernels
        return kernels.norm(self.delta(x)) if self.stiefel else kernels.norm(x) * 0.0


class Space:
    """All blocks, with the conversions and the inner product Re <u, v> summed over them.

    ``separable`` is set once f has been seen to return one value for each matrix of a stack; then
    the numbers are NumPy arrays of shape ``batch``, else Python floats.
    """

    def __init__(self, shape: Shapes, constraint: Any, x0: Variable):
        self.shape = shape
        self.names: tuple[Any, ...] | None = None
        if isinstance(shape, Mapping):
            self.names = tuple(shape)
            parts = [(f"x[{k!r}]", shape[k], constraint[k], x0[k]) for k in shape]
            self._kind: str = "dict"
        elif shape and isinstance(shape[0], tuple):
            self.names = tuple(range(len(shape)))
            parts = [(f"x[{k}]", shape[k], constraint[k], x0[k]) for k in self.names]
            self._kind = "tuple"
        else:
            parts = [("x", shape, constraint, x0)]
            self._kind = "array"
        self.blocks = [Block(*part) for part in parts]
        like = parts[0][3]
        self.like = like
        self.dtype = like.dtype
        self.unit_roundoff = _xp.unit_roundoff(like)
        self.accelerator = _xp.on_accelerator(like)
        self.separable = False
        self._views: dict[int, tuple[Array, Variable]] = {}
        self.keeps_gradient = False  # beyond the step: a direction takes differences of it
        self.frozen: Any = None  # which matrices of a separable stack have ended
        self.batch: tuple[int, ...] = ()
        self.scalars: Any = FLOATS
        self.size_p = sum(b.p * math.prod(b.batch) for b in self.blocks if b.stiefel) or 1
        self.matrices = sum(math.prod(b.batch) for b in self.blocks if b.stiefel) or 1
        self._one = (
            self.blocks[0].kernels
            if len(self.blocks) == 1 and isinstance(self.blocks[0].kernels, _numpy.NumpyMatrix)
            else None
        )

    @property
    def copies(self) -> bool:
        """The user's form of the one block is a copy, which goes stale: a conjugate transpose."""
        return self.blocks[0].wide and self.blocks[0].kernels.complex

    @property
    def plain(self) -> bool:
        """The unknown is one NumPy matrix."""
        return self._one is not None and self._kind == "array"

    def view(self, a: Array) -> Variable:
        """One NumPy matrix of the solver's own in the user's form, read-only; made once a buffer."""
        known = self._views.get(id(a))
        if known is not None and known[0] is a:
            return known[1]
        view = self.readonly(self.to_user([a]))
        if not self.copies:
            if len(self._views) > 64:
                self._views.clear()
            self._views[id(a)] = (a, view)
        return view

    def forget_views(self) -> None:
        """Of buffers that are needed no more."""
        self._views.clear()

    @property
    def array(self) -> bool:
        """The unknown is one array (not a dict or tuple of them)."""
        return self._kind == "array"

    def separate(self) -> None:
        """From here on every matrix of the stack is a problem of its own."""
        self.separable = True
        self.batch = self.blocks[0].batch
        self.scalars = ArrayScalars(np, np.float64, None, self.batch)
        self.size_p = self.blocks[0].p

    def split(self) -> list[Space]:
        """One space for each block, for steps that are taken block by block."""
        if len(self.blocks) == 1:
            return [self]
        parts = []
        for block in self.blocks:
            part = object.__new__(Space)
            part.__dict__.update(self.__dict__)
            part.blocks = [block]
            part._one = block.kernels if isinstance(block.kernels, _numpy.NumpyMatrix) else None
            parts.append(part)
        return parts

    def to_blocks(self, x: Variable) -> list[Array]:
        arrays = [x] if self._kind == "array" else [x[k] for k in self.names or ()]
        return [block.inner(array) for block, array in zip(self.blocks, arrays, strict=True)]

    def to_user(self, blocks: list[Array]) -> Variable:
        arrays = [block.user(x) for block, x in zip(self.blocks, blocks, strict=True)]
        if self._kind == "array":
            return arrays[0]
        if self._kind == "tuple":
            return tuple(arrays)
        return dict(zip(self.names or (), arrays, strict=True))

    def readonly(self, x: Variable) -> Variable:
        return self.map(_xp.readonly, x)

    def map(self, function: Any, *xs: Variable) -> Variable:
        """Apply ``function`` to the arrays of user-form variables, block by block."""
        if self._kind == "array":
            return function(*xs)
        mapped = [function(*(x[k] for x in xs)) for k in self.names or ()]
        return tuple(mapped) if self._kind == "tuple" else dict(zip(self.names or (), mapped))

    # -- numbers on the host ------------------------------------------------------------------

    def gather(self, values: list[list[Any]]) -> list[list[Any]]:
        """Numbers [quantity][block] that live with the data, on the host, None where there is none.

        One transfer for all of them; where blocks have stacks of their own, one for each block.
        """
        count, one = len(self.blocks), len(self.blocks) == 1
        found: list[list[Any]] = [[None] * count for _ in values]
        places: dict[int, list[tuple[int, int]]] = {}
        together = one or not (self.matrix_kernels or any(b.batch for b in self.blocks))
        for q, quantity in enumerate(values):
            for i, value in enumerate(quantity):
                if value is not None:
                    places.setdefault(0 if together else i, []).append((q, i))
        for i, at in places.items():
            host = self.blocks[i].kernels.host(*(values[q][j] for q, j in at))
            for (q, j), value in zip(at, host, strict=True):
                found[q][j] = value
        return found

    def total(self, values: list[Any]) -> Any:
        """Host numbers of the blocks, added up; one for each matrix of a separable stack."""
        if self.separable:
            return values[0]
        total = 0.0
        for value in values:
            if value is not None:
                total += float(value) if np.ndim(value) == 0 else float(np.sum(value))
        return total

    @property
    def matrix_kernels(self) -> bool:
        return any(isinstance(block.kernels, _numpy.NumpyMatrix) for block in self.blocks)

    def dots(self, *pairs: tuple[list[Array], list[Array]]) -> tuple[Any, ...]:
        """Re <u, v> for each pair, as numbers on the host; one transfer from a device."""
        if self._one is not None:
            dot = self._one.dot
            return tuple([dot(u[0], v[0]) for u, v in pairs])
        return tuple(self.total(values) for values in self.gather(self.products(*pairs)))

    def products(self, *pairs: tuple[list[Array], list[Array]]) -> list[list[Any]]:
        """Re <u, v> for each pair and block, where the data lives."""
        return [
            [block.kernels.dot(a, b) for block, a, b in zip(self.blocks, u, v, strict=True)]
            for u, v in pairs
        ]

    def norm(self, u: list[Array]) -> Any:
        """||u||_F over all blocks, as a number on the host."""
        if self._one is not None:
            return self._one.norm(u[0])
        return self.combine(
            [block.kernels.norm(a) for block, a in zip(self.blocks, u, strict=True)]
        )

    def combine(self, norms: list[Any]) -> Any:
        """Norms of the blocks (and of the matrices in them) as one norm of the whole."""
        if self._one is not None:
            return norms[0]
        if self.separable:
            return self.blocks[0].kernels.host(norms[0])[0]
        parts = []
        for block, value in zip(self.blocks, norms, strict=True):
            parts.extend(np.ravel(block.kernels.host(value)[0]).tolist())
        return math.hypot(*parts)

    def number(self, value: Any) -> Any:
        """A value that the user's function returned, as a host number (float, or per matrix)."""
        if isinstance(value, float):
            return value
        if self.separable:
            return np.asarray(_xp.to_host(value), dtype=np.float64)
        return float(value)
