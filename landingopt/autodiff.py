"""Gradients and Hessian-vector products of a user's f by JAX, PyTorch or autograd.

Each function here takes f as its library writes it and returns an :class:`~landingopt.Objective`,
in which f and its gradient come from one pass. The library is imported when the function is called.

The three libraries disagree about complex numbers. What the solvers need is the gradient for the
real inner product, df = Re tr(G^H dx): PyTorch returns it, JAX and autograd its conjugate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from landingopt.objectives import Objective, Shapes, Variable

__all__ = ["autograd", "jax", "torch"]


def jax(
    fun: Callable[[Variable], Any], *, shape: Shapes, constraint: Any = None, dtype: Any = None
) -> Objective:
    """An objective whose gradient and Hessian-vector product JAX derives from ``fun``.

    The solver runs on NumPy arrays: they are converted at the door, and what comes back are NumPy
    arrays of x's dtype. Everything is compiled (``jax.jit``) the first time it is called. For
    double-precision x it is compiled and run in double precision whatever JAX's configuration
    says, and that configuration is left as it is.

    Parameters
    ----------
    fun : callable
        f(x), written with ``jax.numpy``: a real number, or for a stack x of shape (..., n, p) an
        array of shape (...), where the matrices are separate problems.
    shape, constraint
        As for :class:`~landingopt.Objective`; dicts and tuples of arrays are pytrees for JAX.
    dtype : dtype, optional
        Of the start, where none is given; float64 by default.

    Returns
    -------
    Objective
        With ``fun``, ``grad``, ``value_and_gradient`` and ``hessp``. The gradient is reverse mode,
        the Hessian-vector product H v = d/dt grad f(x + t v) forward over reverse: about two to
        three and four to six times the work of f.

    Raises
    ------
    ImportError
        If JAX is not installed.
    TypeError
        At the first evaluation: if f is not a real floating-point value, if it calls NumPy on
        JAX's tracers, or if x is not NumPy's.
    ValueError
        At the first evaluation: if f has another shape than () or the stack's.

    Notes
    -----
    Let ``fun`` refer to its data as NumPy arrays. ``jax.numpy.asarray(data)``, called outside it,
    rounds them to single precision unless JAX is set up otherwise, and nothing can undo that.
    The data become constants of the compiled program, so changing them later has no effect.

    Examples
    --------
    >>> import numpy as np, jax.numpy as jnp, landingopt as lo
    >>> C = np.diag([3.0, 2.0, 1.0])
    >>> problem = lo.autodiff.jax(lambda x: -0.5 * jnp.sum(x * (C @ x)), shape=(3, 2))
    >>> bool(np.allclose(problem.grad(np.ones((3, 2))), -C @ np.ones((3, 2))))
    True
    """
    library = _imported("jax")
    convert = _Jax(library)

    def value(x: Variable) -> Any:
        result = fun(x)
        if result is not None:  # a Python number, for a constant f
            result = library.numpy.asarray(result)
        _check_value(result, x)
        return result

    def pass_both(x: Variable) -> tuple[Any, Variable]:
        result, pull = library.vjp(value, x)
        (conjugate,) = pull(library.numpy.ones_like(result))
        return result, _map(library.numpy.conj, conjugate)

    def product(x: Variable, v: Variable) -> Variable:
        return library.jvp(lambda y: pass_both(y)[1], (x,), (v,))[1]

    # grad alone drops f from its outputs, so the compiler may drop the work for it.
    compiled = [library.jit(f) for f in (value, pass_both, lambda x: pass_both(x)[1], product)]
    run_value, run_both, run_gradient, run_product = compiled
    return Objective(
        fun=lambda x: _number(convert.run(run_value, x)),
        grad=lambda x: convert.arrays(convert.run(run_gradient, x), x),
        value_and_gradient=lambda x: convert.pair(convert.run(run_both, x), x),
        hessp=lambda x, v: convert.arrays(convert.run(run_product, x, v), x),
        shape=shape,
        constraint=constraint,
        like=None if dtype is None else np.empty(0, dtype=dtype),
    )


def torch(
    fun: Callable[[Variable], Any],
    *,
    shape: Shapes,
    constraint: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> Objective:
    """An objective whose gradient and Hessian-vector product PyTorch derives from ``fun``.

    Tensors go in and come out on their own device and in their own dtype, detached; x itself is
    never marked as requiring a gradient, and no ``.grad`` field is touched. NumPy arrays are
    accepted too: ``fun`` then sees tensors on ``device``, and NumPy arrays come back.

    Parameters
    ----------
    fun : callable
        f(x), written with PyTorch: a real tensor of shape (), or for a stack x of shape (..., n, p)
        of shape (...), where the matrices are separate problems.
    shape, constraint
        As for :class:`~landingopt.Objective`.
    dtype : torch.dtype, optional
        Of the start, where none is given; ``torch.float64`` by default.
    device : torch.device or str, optional
        Of the start, where none is given, and of what ``fun`` sees when x is a NumPy array.

    Returns
    -------
    Objective
        With ``fun``, ``grad``, ``value_and_gradient`` and ``hessp`` (by two reverse passes: about
        two to three and five to seven times the work of f).

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        When evaluated: if f is not a real floating-point tensor, or calls NumPy on tensors.
    ValueError
        When evaluated: if f has another shape than () or the stack's, or if no path of PyTorch
        operations leads from x to it (``.item()`` and ``.detach()`` cut it).

    Notes
    -----
    A writable NumPy x is shared with ``fun`` without a copy where ``device`` is the CPU; PyTorch
    knows no read-only tensors, so a read-only x is copied.

    Examples
    --------
    >>> import torch, landingopt as lo
    >>> C = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> problem = lo.autodiff.torch(lambda x: -0.5 * (x * (C @ x)).sum(), shape=(3, 2))
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> torch.equal(problem.grad(x), -C @ x)
    True
    """
    library = _imported("torch")
    like = library.empty(0, dtype=dtype or library.float64, device=device)
    convert = _Torch(library, like.device)

    def value_at(leaf: Variable) -> Any:
        try:
            result = fun(leaf)
        except (RuntimeError, TypeError) as error:
            if "numpy()" in str(error) or "numpy.ndarray" in str(error):
                raise TypeError(f"{_MIXED_TORCH} PyTorch says: {error}") from error
            raise
        if result is not None and not library.is_tensor(result):
            raise TypeError(f"fun returned {type(result).__name__}. {_MIXED_TORCH}")
        _check_value(result, leaf)
        return result

    def gradients(result: Any, leaf: Variable, **options: Any) -> list[Any]:
        if not result.requires_grad:
            raise ValueError(
                "the value of fun does not depend on x through PyTorch operations, so there is no "
                "gradient: look for .item(), .detach(), float() or torch.no_grad() inside fun."
            )
        seed = library.ones_like(result)  # of a stack: the gradient of the sum is each one's own
        return library.autograd.grad(result, _leaves(leaf), seed, materialize_grads=True, **options)

    def value(x: Variable) -> Any:
        with convert.recording(False):
            return convert.number(value_at(convert.leaf(x)), x)

    def both(x: Variable) -> tuple[Any, Variable]:
        with convert.recording(True):
            leaf = convert.leaf(x)
            result = value_at(leaf)
            return convert.number(result, x), convert.arrays(gradients(result, leaf), x)

    def product(x: Variable, v: Variable) -> Variable:
        with convert.recording(True):
            leaf = convert.leaf(x)
            first = gradients(value_at(leaf), leaf, create_graph=True)
            along = _leaves(convert.along(v, leaf))
            # A block in which f is linear has a constant gradient, without a graph.
            pairs = [(g, d) for g, d in zip(first, along, strict=True) if g.requires_grad]
            if not pairs:
                return convert.arrays([library.zeros_like(g) for g in first], x)
            outputs, seeds = zip(*pairs, strict=True)
            second = library.autograd.grad(
                outputs, _leaves(leaf), grad_outputs=seeds, materialize_grads=True
            )
            return convert.arrays(second, x)

    return Objective(
        fun=value,
        grad=lambda x: both(x)[1],
        value_and_gradient=both,
        hessp=product,
        shape=shape,
        constraint=constraint,
        like=like,
    )


def autograd(fun: Callable[[Variable], Any], *, shape: Shapes, constraint: Any = None) -> Objective:
    """An objective whose gradient and Hessian-vector product autograd derives from ``fun``.

    Parameters
    ----------
    fun : callable
        f(x), written with ``autograd.numpy``: a real number, or for a stack x of shape (..., n, p)
        an array of shape (...), where the matrices are separate problems.
    shape, constraint
        As for :class:`~landingopt.Objective`.

    Returns
    -------
    Objective
        With ``fun``, ``grad``, ``value_and_gradient`` and ``hessp`` (by two reverse passes). x is a
        NumPy array, and what comes back has its dtype.

    Raises
    ------
    ImportError
        If autograd is not installed.
    TypeError
        When evaluated: if f is not a real floating-point value, if it calls plain NumPy on
        autograd's boxes, or if x is not NumPy's.
    ValueError
        When evaluated: if f has another shape than () or the stack's.

    Examples
    --------
    >>> import numpy as np, autograd.numpy as anp, landingopt as lo
    >>> C = np.diag([3.0, 2.0, 1.0])
    >>> problem = lo.autodiff.autograd(lambda x: -0.5 * anp.sum(x * (C @ x)), shape=(3, 2))
    >>> bool(np.allclose(problem.grad(np.ones((3, 2))), -C @ np.ones((3, 2))))
    True
    """
    core = _imported("autograd", "autograd.core")
    anp = _imported("autograd", "autograd.numpy")
    unboxed = _imported("autograd", "autograd.tracer").getval

    def value_at(x: Variable) -> Any:
        try:
            result = fun(x)
        except TypeError as error:
            if any(sign in str(error) for sign in ("Box", "dtype('O')", "dtype object")):
                raise TypeError(
                    "fun calls plain NumPy on autograd's boxes; write it with autograd.numpy "
                    f"(import autograd.numpy as np). The error was: {error}"
                ) from error
            raise
        bare = unboxed(result)
        _check_value(None if bare is None else np.asarray(bare), unboxed(x))
        return result

    def value(x: Variable) -> Any:
        return _number(value_at(_numpy_blocks(x, "autograd")))

    def both(x: Variable) -> tuple[Any, Variable]:
        pull, result = core.make_vjp(value_at, _numpy_blocks(x, "autograd"))
        conjugate = pull(np.ones_like(result))
        return _number(result), _map(_conjugate_like, x, conjugate)

    def product(x: Variable, v: Variable) -> Variable:
        x, v = _numpy_blocks(x, "autograd"), _map(_direction_like, x, v)

        def slope(y: Variable) -> Any:
            """Re <G(y), v>, whose gradient is H v because the Hessian is symmetric."""
            pull, result = core.make_vjp(value_at, y)
            conjugate = pull(np.ones_like(unboxed(result)))
            names = _names(v)
            if names is None:
                return anp.sum(anp.real(conjugate * v))
            return sum(anp.sum(anp.real(conjugate[name] * v[name])) for name in names)

        with warnings.catch_warnings():
            # autograd warns where the gradient is constant; for a linear f that is as it should be.
            warnings.filterwarnings("ignore", message="Output seems independent of input")
            pull, _ = core.make_vjp(slope, x)
            return _map(_conjugate_like, x, pull(np.ones(())))

    return Objective(
        fun=value,
        grad=lambda x: both(x)[1],
        value_and_gradient=both,
        hessp=product,
        shape=shape,
        constraint=constraint,
    )


_MIXED_TORCH = (
    "fun must compute with PyTorch alone: write it with torch functions and tensors, "
    "and convert its data once, outside, with torch.as_tensor."
)


class _Jax:
    """The door between NumPy and JAX."""

    def __init__(self, library: ModuleType):
        self._library = library
        # Public since JAX 0.8; before, it was kept in jax.experimental.
        if hasattr(library, "enable_x64"):
            self._double = library.enable_x64
        else:
            self._double = import_module("jax.experimental").enable_x64

    def run(self, compiled: Callable[..., Any], x: Variable, *directions: Variable) -> Any:
        """Call on NumPy arrays, in double precision if any of x is, and wait for the result."""
        x = _numpy_blocks(x, "jax")
        arguments = [x, *(_map(_direction_like, x, v) for v in directions)]
        try:
            if any(block.dtype in (np.float64, np.complex128) for block in _leaves(x)):
                with self._double(True):
                    return self._library.block_until_ready(compiled(*arguments))
            return self._library.block_until_ready(compiled(*arguments))
        except self._library.errors.TracerArrayConversionError as error:
            raise TypeError(
                "fun calls NumPy on JAX's tracers; write fun with jax.numpy "
                f"(import jax.numpy as jnp). JAX says: {error}"
            ) from error
        except (
            self._library.errors.ConcretizationTypeError,
            self._library.errors.TracerIntegerConversionError,
        ) as error:
            raise TypeError(
                "fun asks for a number (if, while, float(), int()) that is known only when the "
                "compiled function runs; write it with jax.numpy.where, jax.lax.cond or "
                f"jax.lax.while_loop. JAX says: {error}"
            ) from error

    def arrays(self, blocks: Variable, x: Variable) -> Variable:
        return _map(lambda block, result: np.asarray(result, dtype=block.dtype), x, blocks)

    def pair(self, result: tuple[Any, Variable], x: Variable) -> tuple[Any, Variable]:
        return _number(result[0]), self.arrays(result[1], x)


class _Torch:
    """The door between what the solver holds (tensors or NumPy arrays) and PyTorch's graph."""

    def __init__(self, library: ModuleType, device: Any):
        self._library, self._device = library, device

    @contextmanager
    def recording(self, on: bool) -> Iterator[None]:
        """Record a graph or not, whatever mode the caller is in (``no_grad``, for one)."""
        with self._library.inference_mode(False), self._library.set_grad_enabled(on):
            yield

    def leaf(self, x: Variable) -> Variable:
        """The start of a graph at x: new tensors on the same memory, so x stays unmarked."""
        recording = self._library.is_grad_enabled()
        return _map(lambda block: self._tensor(block).detach().requires_grad_(recording), x)

    def along(self, v: Variable, leaf: Variable) -> Variable:
        def one(block: Any, direction: Any) -> Any:
            tensor = self._tensor(direction)
            if tensor.is_complex() and not block.is_complex():
                raise TypeError("the direction v is complex and x is real")
            return tensor.to(dtype=block.dtype, device=block.device)

        return _map(one, leaf, v)

    def _tensor(self, block: Any) -> Any:
        if self._library.is_tensor(block):
            # What was made in inference mode can enter no graph, except as a copy.
            return block.clone() if block.is_inference() else block
        if not isinstance(block, np.ndarray):
            raise TypeError(
                "lo.autodiff.torch works on PyTorch tensors and NumPy arrays, "
                f"not on {_kind_of(block)}."
            )
        # PyTorch has neither read-only tensors nor negative strides.
        if not block.flags.writeable or any(stride < 0 for stride in block.strides):
            block = block.copy()
        return self._library.from_numpy(block).to(self._device)

    def number(self, value: Any, x: Variable) -> Any:
        value = value.detach()
        return value if self._library.is_tensor(_leaves(x)[0]) else _number(value.cpu().numpy())

    def arrays(self, results: Any, x: Variable) -> Variable:
        def one(block: Any, result: Any) -> Any:
            # A tensor that is conjugated or negated only by a flag cannot become NumPy's.
            result = result.detach().resolve_conj().resolve_neg()
            return result if self._library.is_tensor(block) else result.cpu().numpy()

        names = _names(x)
        if names is None:
            return one(x, results[0])
        filled = [one(x[name], result) for name, result in zip(names, results, strict=True)]
        return tuple(filled) if isinstance(x, tuple) else dict(zip(names, filled, strict=True))


def _imported(library: str, module: str | None = None) -> ModuleType:
    try:
        return import_module(module or library)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise  # installed, but broken: its own message says more
        raise ImportError(
            f"lo.autodiff.{library} needs {library}, which is not installed: "
            f'pip install "landingopt[{library}]"'
        ) from error


def _check_value(value: Any, x: Variable) -> None:
    """Refuse what is no objective: a complex number, an integer, an array of a foreign shape."""
    if value is None:
        raise TypeError("fun returned None; does it end with a return statement?")
    name = str(value.dtype).rsplit(".", 1)[-1]
    if name.startswith("complex"):
        raise TypeError(
            f"fun must return a real value, got {name}; take the real part of it "
            "(of an inner product, say) or its squared absolute value."
        )
    if "float" not in name:
        raise TypeError(
            f"fun must return a floating-point value, got {name}: integers have no gradient."
        )
    shape = tuple(value.shape)
    if _names(x) is None:
        fits = shape in ((), tuple(x.shape[:-2]))
    else:  # blocks of one stack share their leading sizes, whatever follows them
        fits = all(tuple(block.shape[: len(shape)]) == shape for block in _leaves(x))
    if not fits:
        blocks = ", ".join(str(tuple(block.shape)) for block in _leaves(x))
        raise ValueError(
            f"fun returned an array of shape {shape} for x of shape {blocks}; it must return one "
            "number, or for a stack (..., n, p) an array of shape (...). Is a sum missing?"
        )


def _number(value: Any) -> Any:
    """One value as a Python float, the values of a stack as a NumPy array."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _conjugate_like(block: np.ndarray, result: Any) -> np.ndarray:
    return np.asarray(np.conj(result), dtype=block.dtype)


def _direction_like(block: np.ndarray, direction: Any) -> np.ndarray:
    return np.asarray(direction).astype(block.dtype, casting="same_kind", copy=False)


def _numpy_blocks(x: Variable, library: str) -> Variable:
    for block in _leaves(x):
        if not isinstance(block, np.ndarray):
            raise TypeError(
                f"lo.autodiff.{library} works on NumPy arrays and got {_kind_of(block)}; "
                "start from a NumPy x0, or use lo.autodiff.torch for tensors."
            )
        if block.dtype.kind not in "fc":
            raise TypeError(
                f"x has dtype {block.dtype}, which has no gradient; cast it: x.astype(float)."
            )
    return x


def _kind_of(block: Any) -> str:
    return f"{type(block).__module__.partition('.')[0]}.{type(block).__name__}"


def _names(x: Variable) -> list[Any] | None:
    """The names of a product's blocks; None for a single array."""
    if isinstance(x, Mapping):
        return list(x)
    return list(range(len(x))) if isinstance(x, tuple) else None


def _leaves(x: Variable) -> list[Any]:
    names = _names(x)
    return [x] if names is None else [x[name] for name in names]


def _map(function: Callable[..., Any], *variables: Variable) -> Variable:
    """Apply to the arrays of one or several variables, block by block, in the first's structure."""
    names = _names(variables[0])
    if names is None:
        return function(*variables)
    results = [function(*(variable[name] for variable in variables)) for name in names]
    return (
        tuple(results)
        if isinstance(variables[0], tuple)
        else dict(zip(names, results, strict=True))
    )
