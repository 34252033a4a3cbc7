"""Gradients and Hessian-vector products of a user's f by JAX, PyTorch or autograd.

Each function here takes f as its library writes it, a real number or for a stack x of shape
(..., n, p) one for each matrix, and returns an :class:`~landingopt.Objective` (whose ``shape`` and
``constraint`` these are), in which f and its gradient come from one pass. The gradient costs two to
three times the work of f, a Hessian-vector product four to seven times. What f cannot be (complex,
an integer, of another shape, computed by another library) is refused when it is evaluated.

The three libraries disagree about complex numbers. What the solvers need is the gradient for the
real inner product, df = Re tr(G^H dx): PyTorch returns it, JAX and autograd its conjugate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
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

    NumPy arrays go in and come out. f is compiled (``jax.jit``) when it is first called, for double
    precision where x has it, whatever JAX's configuration says, which is left as it is.

    Parameters
    ----------
    fun : callable
        f(x), written with ``jax.numpy``; dicts and tuples of arrays are pytrees for JAX. Its data
        should be NumPy arrays (``jax.numpy.asarray``, called outside ``fun``, rounds them to single
        precision) and become constants: changing them later has no effect.
    shape, constraint
        As for :class:`~landingopt.Objective`.
    dtype : dtype, optional
        Of the start, where none is given; float64 by default.

    Examples
    --------
    >>> import numpy as np, jax.numpy as jnp, landingopt as lo
    >>> C = np.diag([3.0, 2.0, 1.0])
    >>> problem = lo.autodiff.jax(lambda x: -0.5 * jnp.sum(x * (C @ x)), shape=(3, 2))
    >>> bool(np.allclose(problem.grad(np.ones((3, 2))), -C @ np.ones((3, 2))))
    True
    """
    library = _imported("jax")
    # Public since JAX 0.8; before, it was kept in jax.experimental.
    home = library if hasattr(library, "enable_x64") else import_module("jax.experimental")

    def value(x: Variable) -> Any:
        result = fun(x)
        # A constant f may be a Python number.
        return _checked(result if result is None else library.numpy.asarray(result), x)

    def both(x: Variable) -> tuple[Any, Variable]:
        result, pull = library.vjp(value, x)
        (conjugate,) = pull(library.numpy.ones_like(result))
        return result, _map(library.numpy.conj, conjugate)

    def product(x: Variable, v: Variable) -> Variable:
        return library.jvp(lambda y: both(y)[1], (x,), (v,))[1]

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        jitted = library.jit(function)

        def run(x: Variable, *directions: Variable) -> Any:
            arguments = [_numpy(x, "jax"), *(_map(_cast, x, v) for v in directions)]
            wide = any(block.dtype in (np.float64, np.complex128) for block in _leaves(x))
            try:
                with home.enable_x64(True) if wide else nullcontext():
                    return library.block_until_ready(jitted(*arguments))
            except (
                library.errors.TracerArrayConversionError,
                library.errors.TracerIntegerConversionError,
                library.errors.ConcretizationTypeError,
            ) as error:
                raise TypeError(
                    "fun is compiled: write it with jax.numpy in place of NumPy, jax.lax.cond in "
                    f"place of if on values, and without float() and int(). JAX says: {error}"
                ) from error

        return run

    run_value, run_both, run_product = compiled(value), compiled(both), compiled(product)

    def numpy_both(x: Variable) -> tuple[Any, Variable]:
        result, G = run_both(x)
        return _number(result), _map(_cast, x, G)

    return _objective(
        lambda x: _number(run_value(x)),
        numpy_both,
        lambda x, v: _map(_cast, x, run_product(x, v)),
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

    Tensors go in and come out on their own device, in their own dtype and detached; x is never
    marked as requiring a gradient. NumPy arrays are accepted too: ``fun`` then sees tensors (of the
    same memory, on the CPU and where x is writable), and NumPy arrays come back.

    Parameters
    ----------
    fun : callable
        f(x), written with PyTorch; ``.item()`` and ``.detach()`` would cut the path from x to it.
    shape, constraint
        As for :class:`~landingopt.Objective`.
    dtype : torch.dtype, optional
        Of the start, where none is given; ``torch.float64`` by default.
    device : torch.device or str, optional
        Of the start, where none is given, and of what ``fun`` sees when x is a NumPy array.

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
    advice = "Write fun with torch functions of PyTorch tensors (torch.as_tensor makes them)."

    def tensor(block: Any) -> Any:
        """A new tensor on the same memory, where PyTorch allows it: x stays unmarked."""
        if library.is_tensor(block):
            # What was made in inference mode can enter no graph, except as a copy.
            return (block.clone() if block.is_inference() else block).detach()
        if not isinstance(block, np.ndarray):
            raise TypeError(f"x must be of PyTorch tensors and NumPy arrays, got {type(block)}")
        if not block.flags.writeable or any(stride < 0 for stride in block.strides):
            block = block.copy()  # PyTorch has no such tensors
        return library.from_numpy(block).to(like.device)

    def returned(result: Any, block: Any) -> Any:
        """As x's block was given; a tensor that a flag conjugates cannot become NumPy's."""
        result = result.detach().resolve_conj().resolve_neg()
        return result if library.is_tensor(block) else result.cpu().numpy()

    def direction(leaf: Any, block: Any) -> Any:
        v = tensor(block)
        if v.is_complex() and not leaf.is_complex():
            raise TypeError("the direction v is complex and x is real")
        return v.to(leaf)

    def evaluated(leaf: Variable) -> Any:
        try:
            result = fun(leaf)
        except (RuntimeError, TypeError) as error:
            if "numpy()" in str(error) or "numpy.ndarray" in str(error):
                raise TypeError(f"{advice} PyTorch says: {error}") from error
            raise
        if result is not None and not library.is_tensor(result):
            raise TypeError(f"fun returned {type(result).__name__}. {advice}")
        return _checked(result, leaf)

    def reverse(result: Any, leaf: Variable, **options: Any) -> Iterable[Any]:
        # Of a stack's values the sum: its gradient is each one's own.
        return library.autograd.grad(result.sum(), _leaves(leaf), materialize_grads=True, **options)

    def graph(x: Variable) -> tuple[Variable, Any]:
        leaf = _map(lambda block: tensor(block).requires_grad_(), x)
        result = evaluated(leaf)
        if not result.requires_grad:
            raise ValueError(
                "fun does not depend on x through PyTorch operations: look for .item(), .detach(), "
                "float() or torch.no_grad() inside it."
            )
        return leaf, result

    def value(x: Variable) -> Any:
        with library.inference_mode(False), library.no_grad():
            return _number(returned(evaluated(_map(tensor, x)), _leaves(x)[0]))

    def both(x: Variable) -> tuple[Any, Variable]:
        with library.inference_mode(False), library.enable_grad():
            leaf, result = graph(x)
            G = _like(x, map(returned, reverse(result, leaf), _leaves(x)))
            return _number(returned(result, _leaves(x)[0])), G

    def product(x: Variable, v: Variable) -> Variable:
        with library.inference_mode(False), library.enable_grad():
            leaf, result = graph(x)
            along = _leaves(_map(direction, leaf, v))
            first = reverse(result, leaf, create_graph=True)
            # Re <G, v>, whose gradient is H v because the Hessian is symmetric.
            slope = sum((g.conj() * a).real.sum() for g, a in zip(first, along, strict=True))
            # Where f is linear the gradient is constant, without a graph.
            second = reverse(slope, leaf) if slope.requires_grad else map(library.zeros_like, first)
            return _like(x, map(returned, second, _leaves(x)))

    return _objective(value, both, product, shape=shape, constraint=constraint, like=like)


def autograd(fun: Callable[[Variable], Any], *, shape: Shapes, constraint: Any = None) -> Objective:
    """An objective whose gradient and Hessian-vector product autograd derives from ``fun``.

    NumPy arrays go in and come out; ``fun`` is written with ``autograd.numpy``.

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

    def value(x: Variable) -> Any:
        try:
            result = fun(x)
        except TypeError as error:
            if any(sign in str(error) for sign in ("Box", "dtype('O')", "dtype object")):
                raise TypeError(
                    f"fun calls plain NumPy; write it with autograd.numpy: {error}"
                ) from error
            raise
        bare = unboxed(result)
        _checked(bare if bare is None else np.asarray(bare), unboxed(x))
        return result

    def conjugate(x: Variable) -> tuple[Any, Variable]:
        pull, result = core.make_vjp(value, x)
        return result, pull(np.ones_like(unboxed(result)))

    def gradient_like(block: np.ndarray, conjugate: Any) -> np.ndarray:
        return _cast(block, np.conj(conjugate))

    def both(x: Variable) -> tuple[Any, Variable]:
        result, g = conjugate(_numpy(x, "autograd"))
        return _number(result), _map(gradient_like, x, g)

    def product(x: Variable, v: Variable) -> Variable:
        v = _map(_cast, _numpy(x, "autograd"), v)

        def slope(y: Variable) -> Any:
            """Re <G, v>, whose gradient is H v because the Hessian is symmetric."""
            products = _map(lambda a, g: anp.sum(anp.real(g * a)), v, conjugate(y)[1])
            return sum(_leaves(products))

        with warnings.catch_warnings():
            # autograd warns where the gradient is constant; for a linear f that is as it should be.
            warnings.filterwarnings("ignore", message="Output seems independent of input")
            pull, _ = core.make_vjp(slope, x)
            return _map(gradient_like, x, pull(np.ones(())))

    def number(x: Variable) -> float:
        return _number(value(_numpy(x, "autograd")))

    return _objective(number, both, product, shape=shape, constraint=constraint)


def _objective(value: Any, both: Any, product: Any, **options: Any) -> Objective:
    return Objective(value, lambda x: both(x)[1], value_and_gradient=both, hessp=product, **options)


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


def _checked(value: Any, x: Variable) -> Any:
    """The value, unless it is no objective: complex, an integer, of a foreign shape."""
    if value is None:
        raise TypeError("fun returned None; does it end with a return statement?")
    name = str(value.dtype).rsplit(".", 1)[-1]
    if not name.startswith(("float", "bfloat")):
        raise TypeError(f"fun must return a real, floating-point value, got {name}.")
    shape, blocks = tuple(value.shape), [tuple(block.shape) for block in _leaves(x)]
    # One array is a stack of matrices; blocks of one stack share their leading sizes.
    stack = blocks[0][:-2] if len(blocks) == 1 else shape
    if shape != () and (shape != stack or any(b[: len(shape)] != shape for b in blocks)):
        raise ValueError(
            f"fun returned an array of shape {shape} for x of shape {blocks}: is a sum missing? "
            "Needed is one number, or for a stack (..., n, p) an array of shape (...)."
        )
    return value


def _number(value: Any) -> Any:
    """Of NumPy's values: one as a Python float, those of a stack as an array. Tensors stay."""
    if hasattr(value, "detach"):
        return value
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _cast(block: np.ndarray, result: Any) -> np.ndarray:
    """A NumPy array of the block's dtype; a complex one is not made real."""
    return np.asarray(result).astype(block.dtype, casting="same_kind", copy=False)


def _numpy(x: Variable, library: str) -> Variable:
    for block in _leaves(x):
        if not isinstance(block, np.ndarray) or block.dtype.kind not in "fc":
            kind = block.dtype if isinstance(block, np.ndarray) else type(block).__name__
            raise TypeError(
                f"lo.autodiff.{library} works on NumPy arrays of floats and got {kind}; start from "
                "such an x0, or use lo.autodiff.torch for tensors."
            )
    return x


def _leaves(x: Variable) -> list[Any]:
    if isinstance(x, Mapping):
        return list(x.values())
    return list(x) if isinstance(x, tuple) else [x]


def _like(x: Variable, blocks: Iterable[Any]) -> Variable:
    """The blocks as a variable of x's structure."""
    if isinstance(x, Mapping):
        return dict(zip(x, blocks, strict=True))
    return tuple(blocks) if isinstance(x, tuple) else next(iter(blocks))


def _map(function: Callable[..., Any], x: Variable, *others: Variable) -> Variable:
    """Apply to the arrays of one or several variables, block by block, in the first's structure."""
    if not isinstance(x, (Mapping, tuple)):
        return function(x, *others)
    names = x if isinstance(x, Mapping) else range(len(x))
    return _like(x, [function(x[name], *(other[name] for other in others)) for name in names])
