"""Finite sums: objectives that are a mean over many terms, of which a step needs only some.

``fun`` and ``grad`` of a sum are those of the whole, so that every method of the library takes one;
``fun_terms(x, terms)`` and ``grad_terms(x, terms)`` are the means over some terms, a slice or an
array of indices, which is what the stochastic methods ask for.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import array_api_compat
import numpy as np

from landingopt import _xp
from landingopt._xp import Array
from landingopt.objectives import (
    Shapes,
    Stiefel,
    Variable,
    checked_constraint,
    checked_functions,
    checked_shape,
)
from landingopt.samplers import Terms, count

_CHUNK = 1 << 20  # numbers in the rows, or the scores, that a full pass holds at a time


class FiniteSum:
    r"""f(X) = (1/N) sum_i f_i(X), from functions of x and of the terms wanted.

    Parameters
    ----------
    fun, grad : callable
        fun(x, terms) and grad(x, terms): the MEAN of f_i, and of its Euclidean gradient (for the inner
        product Re tr(A^H B)), over ``terms``, a slice or an integer array (NumPy's) of indices below
        ``n_terms``. ``grad`` may return the same memory each time. ``fun`` may be None: nothing is then
        known of values.
    n_terms : int
        N.
    shape, constraint, like
        As for :class:`~landingopt.Objective`.
    chunk_terms : int, optional
        Full passes are made of slices of at most so many terms: bounds their memory. All at once by
        default.

    Raises
    ------
    TypeError, ValueError
        Arguments of the wrong kind. Where a stochastic run starts: a gradient over several terms that
        is not the mean of theirs (a sum, say), or that fails for a term below ``n_terms``.

    See Also
    --------
    LinearModelSum : f_i(X) = phi_i(X^T a_i), with cheaper tables.
    Stream : terms that arrive once.

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((5000, 5, 3))
    >>> B = lo.stiefel.random(5, rng=0) @ A + 0.1 * rng.standard_normal((5000, 5, 3))
    >>> def fun(x, terms):
    ...     return 0.5 * np.mean(np.sum((x @ A[terms] - B[terms]) ** 2, axis=(1, 2)))
    >>> def grad(x, terms):
    ...     return np.mean((x @ A[terms] - B[terms]) @ A[terms].mT, axis=0)
    >>> problem = lo.FiniteSum(fun, grad, n_terms=5000, shape=(5, 5))
    >>> result = lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, component=-1, rng=0)
    >>> result.success, bool(result.trace["epoch"][-1] <= 20)
    (True, True)
    """

    hessp = None

    def __init__(
        self,
        fun: Callable[[Variable, Terms], Any] | None,
        grad: Callable[[Variable, Terms], Variable],
        *,
        n_terms: int,
        shape: Shapes,
        constraint: Any = None,
        chunk_terms: int | None = None,
        like: Array | None = None,
    ):
        checked_functions(fun=fun, grad=grad)
        if grad is None:
            raise TypeError("a finite sum needs grad(x, terms), the mean gradient of these terms")
        self.n_terms = check_count("n_terms", n_terms)
        self.chunk_terms = None if chunk_terms is None else check_count("chunk_terms", chunk_terms)
        self.fun_terms, self.grad_terms = fun, grad
        self.shape = checked_shape(shape)
        self.constraint = checked_constraint(constraint, self.shape)
        self.like = like

    # Neither has a value where fun is None: what asks for one says so.
    @property
    def fun(self) -> Callable[[Variable], Any] | None:
        return None if self.fun_terms is None else self._fun

    @property
    def value_and_gradient(self) -> None:
        return None

    def _fun(self, x: Variable) -> Any:
        """f(x), all terms."""
        assert self.fun_terms is not None
        total: Any = 0.0
        for part, share in self._parts():
            total = total + share * self.fun_terms(x, part)
        return total

    def grad(self, x: Variable) -> Variable:
        """The gradient of f, all terms."""
        total: Any = None
        for part, share in self._parts():
            gradient = self.grad_terms(x, part)
            if share == 1.0:
                return gradient
            scaled = _map(lambda g, s=share: s * g, gradient)
            total = scaled if total is None else _map(lambda a, b: a + b, total, scaled)
        return total

    def _parts(self) -> Iterator[tuple[slice, float]]:
        yield from _slices(self.n_terms, self.chunk_terms or self.n_terms)

    def __repr__(self) -> str:
        return f"FiniteSum(n_terms={self.n_terms}, shape={self.shape})"


class LinearModelSum:
    r"""f(X) = (1/N) sum_i phi_i(a_i^T X), with the rows a_i^T of the data.

    The gradient of a term is a_i phi_i'^T: N p numbers, the phi_i', tell all of them, which is what the
    structured table of :class:`landingopt.estimators.Saga` keeps.

    Parameters
    ----------
    phi, dphi : callable
        phi(u, terms) of shape (b,) and dphi(u, terms) of shape (b, p): the value of each term at its
        scores u = data[terms] @ X, of shape (b, p), and its gradient with respect to them (complex: for
        the inner product Re tr(A^H B)). ``terms`` tells which terms these are: for labels,
        ``y[terms]``. ``phi`` may be None.
    data : array (N, n)
        An array of any library, a ``numpy.memmap``, or any object with ``__len__`` and slices (h5py,
        zarr): rows are read when they are drawn, scattered ones in runs of neighbours; of such objects
        ``sampler=lo.samplers.Reshuffled(contiguous=True)`` reads faster. float32, float64 or complex.
    p : int, optional
        Columns of X; n by default.
    chunk_terms : int, optional
        Rows that a full pass works on at a time; about a million numbers by default.
    constraint : Stiefel or Euclidean, optional

    Attributes
    ----------
    n_terms : int
    shape : tuple
        (n, p).

    Raises
    ------
    TypeError, ValueError
        Data that is no matrix of floating point numbers; in a run, values or gradients of the wrong
        shape.

    Notes
    -----
    Cost: ``fun`` one product of N n p multiplications, ``grad`` and ``value_and_gradient`` two.

    Examples
    --------
    The first principal components, by minibatches:

    >>> import numpy as np, landingopt as lo
    >>> data = np.random.default_rng(0).standard_normal((1000, 8)) * np.arange(8, 0, -1)
    >>> problem = lo.LinearModelSum(
    ...     phi=lambda u, terms: -0.5 * np.sum(u**2, axis=1), dphi=lambda u, terms: -u, data=data, p=2
    ... )
    >>> result = lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, rng=0)
    >>> result.success
    True
    """

    hessp = None

    def __init__(
        self,
        phi: Callable[[Array, Terms], Array] | None,
        dphi: Callable[[Array, Terms], Array],
        data: Any,
        *,
        p: int | None = None,
        chunk_terms: int | None = None,
        constraint: Any = None,
    ):
        checked_functions(phi=phi, dphi=dphi)
        if dphi is None:
            raise TypeError("LinearModelSum needs dphi(u, terms), the gradient in the scores u")
        self.data, self.like, n_terms, n = _checked_rows(data)
        self._in_memory = array_api_compat.is_array_api_obj(self.data)
        self.phi, self.dphi = phi, dphi
        self.n_terms = n_terms
        columns = n if p is None else check_count("p", p)
        self.shape: tuple[int, int] = (n, columns)
        self.constraint = checked_constraint(
            Stiefel() if constraint is None else constraint, self.shape
        )
        self.chunk_terms = (
            max(1, min(n_terms, _CHUNK // max(n, columns)))
            if chunk_terms is None
            else check_count("chunk_terms", chunk_terms)
        )

    def __repr__(self) -> str:
        n, p = self.shape
        return f"LinearModelSum(n_terms={self.n_terms}, n={n}, p={p}, {_xp.dtype_name(self.like)})"

    # -- some terms ---------------------------------------------------------------------------

    def rows(self, terms: Terms) -> Array:
        """data[terms], read where it is not in memory."""
        if not self._in_memory:
            return _read(self.data, terms)
        return self.data[terms, ...] if isinstance(terms, slice) else _xp.take(self.data, terms)

    def slopes(self, u: Array, terms: Terms) -> Array:
        """dphi(u, terms), checked."""
        slopes = self.dphi(u, terms)
        if getattr(slopes, "shape", None) != u.shape or slopes.dtype != u.dtype:
            raise TypeError(
                f"dphi must return an array of shape {tuple(u.shape)} and dtype {_xp.dtype_name(u)}, "
                "one row for each term, like u; got "
                + (
                    f"shape {tuple(slopes.shape)}, dtype {_xp.dtype_name(slopes)}"
                    if hasattr(slopes, "dtype")
                    else f"{type(slopes).__name__}"
                )
            )
        return slopes

    def fun_terms(self, x: Array, terms: Terms) -> Any:
        """The mean of phi_i over the terms."""
        return self._sum(self.rows(terms) @ x, terms) * (1.0 / count(terms))

    def grad_terms(self, x: Array, terms: Terms) -> Array:
        """The mean gradient over the terms."""
        rows = self.rows(terms)
        slopes = self.slopes(rows @ x, terms)
        return _xp.H(rows) @ (slopes * (1.0 / count(terms)))

    def _sum(self, u: Array, terms: Terms) -> Any:
        """Sum of phi over the terms: a float for NumPy."""
        assert self.phi is not None
        values = self.phi(u, terms)
        if getattr(values, "shape", None) != u.shape[:1]:
            raise ValueError(
                f"phi must return one value for each term, shape {tuple(u.shape[:1])}; got "
                f"{getattr(values, 'shape', type(values).__name__)}: sum over the columns of u "
                "(axis=1), and take no mean over the terms"
            )
        total = _xp.namespace(values).sum(values)
        return float(total) if isinstance(values, np.ndarray) else total

    # -- all terms ----------------------------------------------------------------------------

    @property
    def fun(self) -> Callable[[Array], Any] | None:
        return None if self.phi is None else self._fun

    @property
    def value_and_gradient(self) -> Callable[[Array], tuple[Any, Array]] | None:
        return None if self.phi is None else self._value_and_gradient

    def _fun(self, x: Array) -> Any:
        total: Any = 0.0
        for part, _ in _slices(self.n_terms, self.chunk_terms):
            total = total + self._sum(self.rows(part) @ x, part)
        return total * (1.0 / self.n_terms)

    def grad(self, x: Array) -> Array:
        """The gradient of f, in one pass over the rows."""
        return self._pass(x, False)[1]

    def _value_and_gradient(self, x: Array) -> tuple[Any, Array]:
        return self._pass(x, True)

    def _pass(self, x: Array, value: bool) -> tuple[Any, Array]:
        total: Any = 0.0
        gradient: Any = None
        for part, _ in _slices(self.n_terms, self.chunk_terms):
            rows = self.rows(part)
            u = rows @ x
            if value:
                total = total + self._sum(u, part)
            piece = _xp.H(rows) @ self.slopes(u, part)
            gradient = piece if gradient is None else gradient + piece
        return total * (1.0 / self.n_terms), gradient * (1.0 / self.n_terms)


class Stream:
    """f(X) = E f_batch(X), from batches that arrive once: a file, a sensor, a generator.

    Stochastic gradient methods only (:func:`landingopt.landing_sgd`): each batch gives one step, and the
    run ends with the stream. Nothing of the whole f is known: the trace has no values and no gradient
    norms (NaN), and two rows; ``record=lo.Every(100, metrics={...})`` gives it metrics of yours.

    Parameters
    ----------
    fun, grad : callable
        fun(x, batch) and grad(x, batch), the MEAN over the batch; ``fun`` may be None.
    batches : iterable, or function that returns one
        Whatever ``grad`` understands. An iterator is used up by one run: with a list, or a function
        that opens the file anew, there can be more.
    shape, constraint, like
        As for :class:`~landingopt.Objective`.

    Raises
    ------
    TypeError
        Arguments of the wrong kind, or a method that needs more than one pass.
    ValueError
        In a run: a stream without a batch (an iterator that has been used up).

    Examples
    --------
    >>> import numpy as np, landingopt as lo
    >>> rng = np.random.default_rng(0)
    >>> scales = np.array([3.0, 2.0, 1.0, 0.5])
    >>> batches = (rng.standard_normal((50, 4)) * scales for _ in range(400))
    >>> problem = lo.Stream(
    ...     fun=lambda x, a: -0.5 * np.mean(np.sum((a @ x) ** 2, axis=1)),
    ...     grad=lambda x, a: -a.T @ (a @ x) / len(a),
    ...     batches=batches, shape=(4, 2),
    ... )
    >>> result = lo.minimize(problem, method=lo.landing_sgd(step=0.02), rng=0)
    >>> result.status.name, result.nit
    ('STREAM_ENDED', 400)
    >>> bool(np.linalg.norm(result.feasible_x[:2]) ** 2 > 1.95)
    True
    """

    hessp = None
    fun = None
    value_and_gradient = None

    def __init__(
        self,
        fun: Callable[[Variable, Any], Any] | None,
        grad: Callable[[Variable, Any], Variable],
        *,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        shape: Shapes,
        constraint: Any = None,
        like: Array | None = None,
    ):
        checked_functions(fun=fun, grad=grad)
        if not callable(grad):
            raise TypeError("a stream needs grad(x, batch), the mean gradient over the batch")
        if not (callable(batches) or isinstance(batches, Iterable)):
            raise TypeError(
                "batches must be an iterable, or a function that returns one; got "
                f"{type(batches).__name__}"
            )
        self.fun_batch, self.grad_batch, self.batches = fun, grad, batches
        self.shape = checked_shape(shape)
        self.constraint = checked_constraint(constraint, self.shape)
        self.like = like

    def grad(self, x: Variable) -> Variable:
        raise TypeError(
            "the full gradient of a stream is not known: its batches arrive once. Use "
            "lo.landing_sgd(step=...), or collect the rows and state a lo.FiniteSum"
        )

    def open(self) -> Iterator[Any]:
        """The batches, from the first one on where the stream can be opened again."""
        batches = self.batches() if callable(self.batches) else self.batches
        return iter(batches)

    def __repr__(self) -> str:
        return f"Stream(shape={self.shape})"


# -- what they share ------------------------------------------------------------------------------


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 1, or an error that says what was given."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and value >= 1):
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _slices(n_terms: int, size: int) -> Iterator[tuple[slice, float]]:
    """All terms in slices of at most ``size``, and the share of each."""
    for start in range(0, n_terms, size):
        stop = min(start + size, n_terms)
        yield slice(start, stop), (stop - start) / n_terms


def _map(function: Callable[..., Any], *xs: Variable) -> Variable:
    first = xs[0]
    if isinstance(first, Mapping):
        return {k: function(*(x[k] for x in xs)) for k in first}
    if isinstance(first, (tuple, list)):
        return tuple(function(*parts) for parts in zip(*xs, strict=True))
    return function(*xs)


def _checked_rows(data: Any) -> tuple[Any, Array, int, int]:
    """The data, an empty array like its rows, N and n."""
    if isinstance(data, (list, tuple)):
        raise TypeError(
            f"data must be an array, got {type(data).__name__}: numpy.asarray(data, dtype=float)"
        )
    if array_api_compat.is_array_api_obj(data):
        _xp.namespace(data)  # refuses what cannot be worked with
        data = np.asarray(data) if isinstance(data, np.ndarray) else data  # a memmap's own view
        sample, shape = data, tuple(data.shape)
    else:
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise TypeError(
                "data must be an array, a memmap, or an object with __len__ and slices; got "
                f"{type(data).__name__}"
            )
        if len(data) == 0:
            raise ValueError("data has no rows")
        try:
            sample = np.asarray(data[0:1])
        except TypeError as error:
            raise TypeError(
                f"data of type {type(data).__name__} gives no slices: {error}"
            ) from error
        shape = (len(data), *sample.shape[1:])
    _xp.check_floating(sample, "data")
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"data has shape {shape}; a matrix (N, n), a row for each term, is needed")
    like = _xp.from_host(np.empty(0), sample)
    return data, like, shape[0], shape[1]


def _read(data: Any, terms: Terms) -> np.ndarray:
    """Rows of an object that knows slices: scattered ones in runs of neighbours, each read once."""
    if isinstance(terms, slice):
        return np.asarray(data[terms])
    wanted, places = np.unique(terms, return_inverse=True)
    cuts = np.flatnonzero(np.diff(wanted) > 1) + 1
    parts = [
        np.asarray(data[int(run[0]) : int(run[-1]) + 1])
        for run in np.split(wanted, cuts)
        if run.size
    ]
    return np.concatenate(parts)[places]


def default_batch(n_terms: int, p: int) -> int:
    """max(32, p) terms; fewer of a short sum, so that an epoch has 32 steps."""
    return min(max(32, p), max(1, n_terms // 32))


def gradient_bytes(space: Any) -> int:
    """Bytes of one gradient."""
    numbers_ = sum(math.prod(block.inner_shape) for block in space.blocks)
    itemsize = {"float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
    return numbers_ * itemsize[_xp.dtype_name(space.like)]
