"""The one door to the user's functions: counted, checked, with read-only arrays."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import Problem, Variable
from landingopt.point import Point
from landingopt.samplers import Terms, count
from landingopt.space import Space


@dataclass
class Counts:
    """Evaluations of f, of its gradient (also of a part of it), and of Hessian products."""

    nfev: int = 0
    njev: int = 0
    nhev: int = 0
    minibatches: int = 0  # how many of njev were of some terms of a sum
    terms: int = 0  # of single terms in them

    def epoch(self, n_terms: int | None) -> float:
        """Full gradients, and gradients of single terms over N."""
        partly = self.terms / n_terms if n_terms else 0.0
        return self.njev - self.minibatches + partly


class Oracle:
    """Evaluates a problem at points, counts it, and checks what comes back.

    ``counts`` are the method's own evaluations; inside ``with oracle.uncounted():`` they go to
    ``metric_counts``, so that what an observer measures is never charged to a method.
    """

    def __init__(self, problem: Problem, space: Space, rng: np.random.Generator | None = None):
        self.problem, self.space = problem, space
        self.rng = np.random.default_rng() if rng is None else rng
        self.n_terms: int | None = getattr(problem, "n_terms", None)
        self.grad_terms = getattr(problem, "grad_terms", None)
        self.fun, self.grad = problem.fun, problem.grad
        self.both = problem.value_and_gradient
        self.hessp = problem.hessp
        # Of the most common unknown, one tall NumPy matrix: what comes back is looked at quickly.
        common = space.plain and not space.blocks[0].wide
        self._shape: Any = space.blocks[0].shape if common else None
        self._dtype: Any = space.dtype if common else None
        self.counts, self.metric_counts = Counts(), Counts()
        self._charged = self.counts

    @property
    def has_value(self) -> bool:
        return self.fun is not None or self.both is not None

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Charge what is evaluated inside to the observer."""
        before, self._charged = self._charged, self.metric_counts
        try:
            yield
        finally:
            self._charged = before

    # -- at a point ---------------------------------------------------------------------------

    def fill_gradient(self, point: Point) -> None:
        """The gradient at the point; the value too where it comes with it."""
        if point.gradient is not None:
            return
        if self.grad is not None:
            self._charged.njev += 1
            point.gradient = self.checked(self.grad(point.user))
        else:
            self.fill_both(point)

    def fill_both(self, point: Point, read: bool = True) -> None:
        """Value and gradient, in one call where the problem has one.

        Without ``read`` a value on a device stays there; ``space.number`` makes it one of the host.
        """
        if point.gradient is not None:
            return self.fill_value(point, read)
        if self.both is not None:
            self._charged.nfev += 1
            self._charged.njev += 1
            value, gradient = self.pair(point.user)
            point.fun = self._checked_value(value, read)
            point.gradient = self.checked(gradient)
        else:
            # The value first: a gradient that lives in a shared buffer is then the freshest.
            self.fill_value(point, read)
            self.fill_gradient(point)

    def fill_value(self, point: Point, read: bool = True) -> None:
        if point.fun is None:
            point.fun = self.value(point.user, read)

    # -- at a user's x ------------------------------------------------------------------------

    def value(self, x: Variable, read: bool = True) -> Any:
        """f(x) as a host number (one per matrix for a separable stack)."""
        if self.fun is not None:
            self._charged.nfev += 1
            return self._checked_value(self.fun(x), read)
        if self.both is None:
            raise TypeError("this problem has no fun; pass fun= to lo.Objective")
        self._charged.nfev += 1
        self._charged.njev += 1
        return self._checked_value(self.pair(x)[0])

    def pair(self, x: Variable) -> tuple[Any, Variable]:
        """What value_and_gradient returns; not counted."""
        assert self.both is not None
        result = self.both(x)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            what = f"{len(result)} values" if isinstance(result, (tuple, list)) else type(result)
            raise TypeError(f"value_and_gradient must return the pair (f, G), got {what}")
        return result[0], result[1]

    def gradient(self, x: Variable) -> Variable:
        """The Euclidean gradient at x, in the user's form."""
        self._charged.njev += 1
        if self.grad is not None:
            gradient = self.grad(x)
        else:
            self._charged.nfev += 1
            gradient = self.pair(x)[1]
        self.checked(gradient)
        return gradient

    def hessian(self, x: Variable, v: Variable) -> Variable:
        """The Euclidean Hessian at x applied to v, in the user's form."""
        if self.hessp is None:
            raise TypeError("this problem has no hessp; pass hessp= to lo.Objective")
        self._charged.nhev += 1
        return self.hessp(x, v)

    # -- of a sum -----------------------------------------------------------------------------

    def epoch(self) -> float:
        """The work so far in full gradients."""
        return self.counts.epoch(self.n_terms)

    def charge(self, gradients: int, terms: int) -> None:
        """Count gradients of some terms of the sum."""
        charged = self._charged
        charged.njev += gradients
        charged.minibatches += gradients
        charged.terms += terms

    def gradient_terms(self, x: Variable, terms: Terms) -> list[Array]:
        """The mean gradient over these terms at a user's x, as blocks; the user's memory."""
        assert self.grad_terms is not None
        self.charge(1, count(terms))
        return self.checked(self.grad_terms(x, terms))

    # -- what came back -----------------------------------------------------------------------

    def _checked_value(self, value: Any, read: bool = True) -> Any:
        if isinstance(value, float) and not self.space.separable:
            return float(value)  # a np.float64 would promote float32 arrays
        self._check_value(value)
        return self.space.number(value) if read else value

    def _check_value(self, value: Any) -> None:
        shape = tuple(getattr(value, "shape", ()))
        allowed: list[tuple[int, ...]] = [()]
        if self.space.array and self.space.blocks[0].batch:
            allowed.append(self.space.blocks[0].batch)
        if self.space.separable:
            allowed = [self.space.batch]
        if not hasattr(value, "shape") and not isinstance(value, numbers.Number):
            raise TypeError(f"fun returned {value!r:.60}; a real number is needed")
        if shape not in allowed:
            raise ValueError(
                f"fun returned an array of shape {shape}; needed is "
                + " or ".join(str(s) for s in allowed)
                + (" (one value for all, or one for each matrix of the stack)" * (len(allowed) > 1))
            )
        if isinstance(value, complex) or (
            hasattr(value, "dtype") and _xp.dtype_name(value).startswith("complex")
        ):
            raise TypeError(
                "fun returned a complex number; f must be real: return its real part, "
                "and the gradient for the inner product Re tr(A^H B)"
            )

    def checked(self, gradient: Variable, name: str = "gradient") -> list[Array]:
        """What a user's function returned, as blocks."""
        if (
            type(gradient) is np.ndarray
            and gradient.dtype == self._dtype
            and gradient.shape == self._shape
        ):
            return [gradient]
        space = self.space
        if space._kind == "array":
            block = space.blocks[0]
            self._check_array(gradient, block, name)
            return [block.inner(gradient)]
        self._check_structure(gradient, name)
        arrays = [gradient[k] for k in space.names or ()]
        for array, block in zip(arrays, space.blocks, strict=True):
            self._check_array(array, block, name)
        return [block.inner(a) for a, block in zip(arrays, space.blocks, strict=True)]

    def _check_structure(self, gradient: Any, name: str) -> None:
        kind, names = self.space._kind, self.space.names or ()
        wanted = dict if kind == "dict" else (tuple, list)
        if not isinstance(gradient, wanted) or len(gradient) != len(names):
            raise TypeError(
                f"the {name} must be a {kind} like x, with the blocks {list(names)}; "
                f"got {type(gradient).__name__}"
            )
        if kind == "dict" and set(gradient) != set(names):
            raise TypeError(f"the {name} has blocks {sorted(gradient)}, x has {sorted(names)}")

    def _check_array(self, gradient: Any, block: Any, name: str) -> None:
        kernels = block.kernels
        # The library first: dtypes of two libraries are not compared.
        if isinstance(kernels, _xp.Generic):
            ours = (
                array_api_compat.is_array_api_obj(gradient)
                and _xp.namespace(gradient) is kernels.xp
                and _xp.device_of(gradient) == kernels.device
            )
        else:
            ours = type(gradient) is np.ndarray
        if not (ours and gradient.shape == block.shape and gradient.dtype == kernels.dtype):
            raise self._gradient_error(gradient, block, name)

    def _gradient_error(self, gradient: Any, block: Any, name: str) -> Exception:
        what = f"the {name}" if self.space.array else f"the {name}'s block for {block.name}"
        if not hasattr(gradient, "shape") or not hasattr(gradient, "dtype"):
            return TypeError(f"{what} must be an array, got {type(gradient).__name__}")
        if tuple(gradient.shape) != block.shape:
            return ValueError(
                f"{what} has shape {tuple(gradient.shape)}; x has shape {block.shape}, "
                f"and the {name} must have the same"
            )
        dtype = str(block.kernels.dtype).rsplit(".", 1)[-1]
        if _xp.dtype_name(gradient) != dtype:
            given = _xp.dtype_name(gradient)
            short = name.split()[-1]
            remedy = f"return {short}.astype({dtype!r})"
            if given in _xp.FLOATING:
                remedy += f", or start from an x0 of dtype {given}"
            if given.startswith("complex") and not dtype.startswith("complex"):
                remedy = f"start from an x0 of dtype {given}, or return a real {short}"
            return TypeError(
                f"{what} has dtype {given}, x has {dtype}; nothing is cast silently: {remedy}"
            )
        return TypeError(
            f"{what} is a {type(gradient).__module__}.{type(gradient).__name__} on "
            f"{_xp.device_of(gradient)}; x lives in {_xp.library(block.kernels)} on "
            f"{getattr(block.kernels, 'device', 'cpu')}: return an array of the same library "
            "and device"
        )
