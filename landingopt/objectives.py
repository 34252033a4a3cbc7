"""What is minimised: a function of one array, a stack, or several arrays, and where each may live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from landingopt._xp import Array

Shape = tuple[int, ...]
Shapes = Any  # Shape, or a dict or tuple of them
Variable = Any  # Array, or a dict or tuple of them


@dataclass(frozen=True)
class Stiefel:
    """The constraint X^H X = I_p on an (n, p) array (X X^H = I_n when n < p), or on each of a stack.

    For n = p these are the orthogonal (real) or unitary (complex) matrices.

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.Stiefel()
    Stiefel()
    """


@dataclass(frozen=True)
class Euclidean:
    """No constraint: a block of free numbers, of any shape (a bias vector, say).

    Examples
    --------
    >>> import landingopt as lo
    >>> lo.Euclidean()
    Euclidean()
    """


@runtime_checkable
class Problem(Protocol):
    """What ``lo.minimize`` needs of a problem; :class:`Objective` and ``lo.problems`` have it.

    Optional, beside these: ``optimum(component=None)``, and ``like``, an array that tells the
    library, dtype and device in which a starting point is made when none is given.
    """

    @property
    def shape(self) -> Shapes: ...

    @property
    def constraint(self) -> Any: ...

    @property
    def fun(self) -> Callable[[Variable], Any] | None: ...

    @property
    def grad(self) -> Callable[[Variable], Variable] | None: ...

    @property
    def value_and_gradient(self) -> Callable[[Variable], tuple[Any, Variable]] | None: ...

    @property
    def hessp(self) -> Callable[[Variable, Variable], Variable] | None: ...


class Objective:
    """Any f, from plain functions of an array.

    Parameters
    ----------
    fun : callable, optional
        f(x), a real number. For a stack x of shape (..., n, p) it may return an array of shape
        (...): then the matrices are separate problems, each with its own steps and stopping.
        Without it only methods that never read f can run (``lo.landing(step=...)``).
    grad : callable, optional
        The Euclidean gradient, of x's shape, dtype and device; for complex x the gradient for the
        real inner product Re tr(A^H B). It may return the same buffer each time, or x itself.
    shape : tuple of int, or dict or tuple of tuples
        (n, p), a stack (..., n, p), or one shape for each block of a product.
    constraint : Stiefel or Euclidean, or a dict or tuple of them
        ``lo.Stiefel()`` by default. For a product of blocks, one for each block; a single one
        holds for all.
    hessp : callable, optional
        hessp(x, v): the Euclidean Hessian of f at x applied to v.
    value_and_gradient : callable, optional
        x -> (f, G). Enough alone, and saves the work that f and its gradient share.
    like : array, optional
        Tells library, dtype and device of the start when none is given; NumPy float64 by default.

    Raises
    ------
    TypeError, ValueError
        Where nothing can be evaluated, or ``shape`` and ``constraint`` do not fit together.

    Notes
    -----
    Functions get read-only arrays (NumPy) that are valid until they return; copy to keep.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> target = np.diag([3.0, 2.0, 1.0])[:, :2]
    >>> problem = lo.Objective(
    ...     fun=lambda x: 0.5 * np.sum((x - target) ** 2), grad=lambda x: x - target, shape=(3, 2)
    ... )
    >>> lo.minimize(problem, rng=0).success
    True
    """

    def __init__(
        self,
        fun: Callable[[Variable], Any] | None = None,
        grad: Callable[[Variable], Variable] | None = None,
        *,
        shape: Shapes,
        constraint: Any = None,
        hessp: Callable[[Variable, Variable], Variable] | None = None,
        value_and_gradient: Callable[[Variable], tuple[Any, Variable]] | None = None,
        like: Array | None = None,
    ):
        checked_functions(fun=fun, grad=grad, hessp=hessp, value_and_gradient=value_and_gradient)
        if grad is None and value_and_gradient is None:
            raise TypeError(
                "a gradient is needed: pass grad, or value_and_gradient, or let a library build it: "
                "lo.autodiff.jax(fun, shape=...), lo.autodiff.torch(...), lo.autodiff.autograd(...)"
            )
        self.fun, self.grad, self.hessp = fun, grad, hessp
        self.value_and_gradient = value_and_gradient
        self.shape = checked_shape(shape)
        self.constraint = checked_constraint(constraint, self.shape)
        self.like = like

    def __repr__(self) -> str:
        names = ("fun", "grad", "value_and_gradient", "hessp")
        given = ", ".join(name for name in names if getattr(self, name) is not None)
        return f"Objective({given}, shape={self.shape})"


def checked_functions(**functions: Any) -> None:
    """Functions or None, or an error that says what was given."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(
                f"{name} must be a function, got {type(function).__name__}: {function!r:.60}"
            )


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(
        hasattr(size, "__index__") and not isinstance(size, bool) for size in shape
    )


def checked_shape(shape: Any) -> Shapes:
    if isinstance(shape, list) and all(hasattr(size, "__index__") for size in shape):
        shape = tuple(shape)
    if _is_shape(shape) and shape:
        sizes = tuple(int(size) for size in shape)
        if min(sizes) < 1:
            raise ValueError(f"every size in shape must be at least 1, got {sizes}")
        return sizes
    if isinstance(shape, Mapping) and shape:
        return {name: checked_shape(block) for name, block in shape.items()}
    if isinstance(shape, tuple) and shape and all(_is_shape(block) for block in shape):
        return tuple(checked_shape(block) for block in shape)
    raise TypeError(
        "shape must be a tuple of integers such as (n, p), or a dict or tuple of such tuples for a "
        f"product of blocks; got {shape!r}"
    )


def checked_constraint(constraint: Any, shape: Shapes) -> Any:
    if constraint is None:
        constraint = Stiefel()
    if isinstance(shape, Mapping):
        if isinstance(constraint, Mapping):
            if set(constraint) != set(shape):
                raise ValueError(
                    f"constraint names the blocks {sorted(constraint)}, shape {sorted(shape)}; "
                    "give one constraint for each block"
                )
            return {name: checked_constraint(constraint[name], shape[name]) for name in shape}
        return {name: checked_constraint(constraint, block) for name, block in shape.items()}
    if not _is_shape(shape):
        if isinstance(constraint, tuple):
            if len(constraint) != len(shape):
                raise ValueError(
                    f"{len(constraint)} constraints were given for {len(shape)} blocks"
                )
            return tuple(checked_constraint(c, s) for c, s in zip(constraint, shape, strict=True))
        return tuple(checked_constraint(constraint, block) for block in shape)
    if isinstance(constraint, type) and issubclass(constraint, (Stiefel, Euclidean)):
        raise TypeError(
            f"constraint must be an instance: write lo.{constraint.__name__}() with parentheses"
        )
    if not isinstance(constraint, (Stiefel, Euclidean)):
        raise TypeError(f"constraint must be lo.Stiefel() or lo.Euclidean(), got {constraint!r}")
    if isinstance(constraint, Stiefel) and len(shape) < 2:
        raise ValueError(
            f"a Stiefel block needs a shape (n, p) or (..., n, p), got {shape}; "
            "for a unit vector write (n, 1), for free numbers lo.Euclidean()"
        )
    return constraint
