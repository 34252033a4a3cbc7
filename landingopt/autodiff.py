"""Gradients and Hessian-vector products of a user's f by JAX, PyTorch or autograd.

Each function here takes f as its library writes it, a real number or for a stack x of shape
(..., n, p) one for each matrix, and returns an :class:`~landingopt.Objective` (whose ``shape`` and
``constraint`` these are), in which f and its gradient come from one pass. The gradient costs two to
three times the work of f, a Hessian-vector product four to seven times. What f cannot be (complex,
an integer, of another shape, computed by another library) is refused when it is evaluated.

With ``data``, JAX and PyTorch make a sum of one sample's loss: a :class:`~landingopt.FiniteSum`,
whose ``fun`` is the mean of the samples' losses and whose gradient is that of the mean. ``fun`` is
mapped over all samples of a minibatch at once (``vmap``), so that a product of x and a sample becomes
one product of x and the minibatch, and no gradient of a single sample is formed. autograd cannot map
a function like this: for it a sum is stated by hand, ``lo.FiniteSum(fun, grad, ...)``.

The three libraries disagree about complex numbers. What the solvers need is the gradient for the
real inner product, df = Re tr(G^H dx): PyTorch returns it, JAX and autograd its conjugate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any, overload

import numpy as np

from landingopt.objectives import Objective, Shapes, Variable
from landingopt.samplers import Terms
from landingopt.sums import FiniteSum

__all__ = ["autograd", "jax", "torch"]

_DTYPES = ("float32", "float64", "complex64", "complex128")  # those of a start


@overload
def jax(
    fun: Callable[..., Any],
    *,
    shape: Shapes,
    data: None = None,
    constraint: Any = None,
    dtype: Any = None,
) -> Objective: ...


@overload
def jax(
    fun: Callable[..., Any],
    *,
    shape: Shapes,
    data: Any,
    constraint: Any = None,
    chunk_terms: int | None = None,
    dtype: Any = None,
) -> FiniteSum: ...


def jax(
    fun: Callable[..., Any],
    *,
    shape: Shapes,
    data: Any = None,
    constraint: Any = None,
    chunk_terms: int | None = None,
    dtype: Any = None,
) -> Objective | FiniteSum:
    """An objective or a finite sum whose gradient JAX derives from ``fun``.

    NumPy arrays go in and come out. f is compiled (``jax.jit``) when it is first called, for double
    precision where x has it, whatever JAX's configuration says, which is left as it is. A sum is
    compiled for each size of a minibatch: once more for a last one that is smaller. An objective has
    Hessian-vector products too, a sum has none.

    Parameters
    ----------
    fun : callable
        f(x), written with ``jax.numpy``; dicts and tuples of arrays are pytrees for JAX. Its data
        should be NumPy arrays (``jax.numpy.asarray``, called outside ``fun``, rounds them to single
        precision) and become constants: changing them later has no effect. With ``data``, the loss
        of ONE sample, a real number: f(x, sample).
    shape, constraint
        As for :class:`~landingopt.Objective`.
    data : array, or tuple or dict of arrays, optional
        NumPy arrays with one entry for each sample along the first axis: ``fun`` sees one entry of
        each, as ``fun(x, a)``, for a tuple ``fun(x, a, b)``, for a dict ``fun(x, a=a, b=b)``. Only
        what a minibatch needs is read from them (also from a ``numpy.memmap``), when it is needed.
    chunk_terms : int, optional
        As for :class:`~landingopt.FiniteSum`: samples that a full pass holds at a time. With ``data``.
    dtype : dtype, optional
        Of the start, where none is given; by default that of the first array of floats or complex
        numbers in ``data``, and float64 without one.

    Raises
    ------
    TypeError, ValueError
        Data that are no NumPy arrays of numbers, none, or of different lengths. Where it is
        evaluated: a ``fun`` that returns anything but one real number.

    Examples
    --------
    >>> import numpy as np, jax.numpy as jnp, landingopt as lo
    >>> C = np.diag([3.0, 2.0, 1.0])
    >>> problem = lo.autodiff.jax(lambda x: -0.5 * jnp.sum(x * (C @ x)), shape=(3, 2))
    >>> bool(np.allclose(problem.grad(np.ones((3, 2))), -C @ np.ones((3, 2))))
    True

    The first principal components of 5000 samples, from the loss of one:

    >>> samples = np.random.default_rng(0).standard_normal((5000, 4)) * np.array([4, 3, 2, 1])
    >>> problem = lo.autodiff.jax(lambda x, a: -0.5 * jnp.sum((a @ x) ** 2), shape=(4, 2), data=samples)
    >>> problem
    FiniteSum(n_terms=5000, shape=(4, 2))
    >>> lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, rng=0).success
    True
    """
    _check_chunks(data, chunk_terms)
    library = _imported("jax")
    # Public since JAX 0.8; before, it was kept in jax.experimental.
    home = library if hasattr(library, "enable_x64") else import_module("jax.experimental")

    def array(result: Any) -> Any:
        """Of JAX: a constant f may be a Python number."""
        return result if result is None else library.numpy.asarray(result)

    # rows: of the data, those of a minibatch; None (for JAX an empty pytree) where f has none.
    def value(rows: Any, x: Variable) -> Any:
        if rows is None:
            return _checked(array(fun(x)), x)
        losses = library.vmap(lambda sample: _checked_loss(array(_apply(fun, x, sample)), sample))
        return library.numpy.mean(losses(rows))

    def both(rows: Any, x: Variable) -> tuple[Any, Variable]:
        result, pull = library.vjp(lambda y: value(rows, y), x)
        (conjugate,) = pull(library.numpy.ones_like(result))
        return result, _map(library.numpy.conj, conjugate)

    def product(rows: Any, x: Variable, v: Variable) -> Variable:
        return library.jvp(lambda y: both(rows, y)[1], (x,), (v,))[1]

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        jitted = library.jit(function)

        def run(x: Variable, *directions: Variable, rows: Any = None) -> Any:
            arguments = [rows, _numpy(x, "jax"), *(_map(_cast, x, v) for v in directions)]
            wide = any(block.dtype in (np.float64, np.complex128) for block in _leaves(x))
            if rows is not None and not wide and not library.config.jax_enable_x64:
                _check_narrow(rows)
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

    def numpy_both(x: Variable, rows: Any = None) -> tuple[Any, Variable]:
        result, G = run_both(x, rows=rows)
        return _number(result), _map(_cast, x, G)

    if data is not None:
        data, n_terms = _samples(data, "jax")

        def rows_of(terms: Terms) -> Any:
            # Not in the compiled function, which would be compiled for every slice.
            return _map(lambda block: _rows(block, terms), data)

        like = _typical(data)
        return FiniteSum(
            lambda x, terms: _number(run_value(x, rows=rows_of(terms))),
            lambda x, terms: numpy_both(x, rows_of(terms))[1],
            n_terms=n_terms,
            shape=shape,
            constraint=constraint,
            chunk_terms=chunk_terms,
            like=like if dtype is None else np.empty(0, dtype=dtype),
        )

    return _objective(
        lambda x: _number(run_value(x)),
        numpy_both,
        lambda x, v: _map(_cast, x, run_product(x, v)),
        shape=shape,
        constraint=constraint,
        like=None if dtype is None else np.empty(0, dtype=dtype),
    )


@overload
def torch(
    fun: Callable[..., Any],
    *,
    shape: Shapes,
    data: None = None,
    constraint: Any = None,
    dtype: Any = None,
    device: Any = None,
) -> Objective: ...


@overload
def torch(
    fun: Callable[..., Any],
    *,
    shape: Shapes,
    data: Any,
    constraint: Any = None,
    chunk_terms: int | None = None,
    dtype: Any = None,
    device: Any = None,
) -> FiniteSum: ...


def torch(
    fun: Callable[..., Any],
    *,
    shape: Shapes,
    data: Any = None,
    constraint: Any = None,
    chunk_terms: int | None = None,
    dtype: Any = None,
    device: Any = None,
) -> Objective | FiniteSum:
    """An objective or a finite sum whose gradient PyTorch derives from ``fun``.

    Tensors go in and come out on their own device, in their own dtype and detached; x is never
    marked as requiring a gradient. NumPy arrays are accepted too: ``fun`` then sees tensors (of the
    same memory, on the CPU and where x is writable), and NumPy arrays come back. An objective has
    Hessian-vector products too, a sum has none.

    Parameters
    ----------
    fun : callable
        f(x), written with PyTorch; ``.item()`` and ``.detach()`` would cut the path from x to it. With
        ``data``, the loss of ONE sample, a real number: f(x, sample), in which there is no ``if`` on
        values either.
    shape, constraint
        As for :class:`~landingopt.Objective`.
    data : tensor or NumPy array, or tuple or dict of them, optional
        One entry for each sample along the first axis: ``fun`` sees one entry of each, as
        ``fun(x, a)``, for a tuple ``fun(x, a, b)``, for a dict ``fun(x, a=a, b=b)``. Tensors must be
        on x's device; of NumPy arrays (also a ``numpy.memmap``) only what a minibatch needs is read,
        and taken there. Nothing is cast: floats should have x's dtype.
    chunk_terms : int, optional
        As for :class:`~landingopt.FiniteSum`: samples that a full pass holds at a time. With ``data``.
    dtype : torch.dtype, optional
        Of the start, where none is given; by default that of the first array of floats or complex
        numbers in ``data``, and ``torch.float64`` without one.
    device : torch.device or str, optional
        Of the start, where none is given, and of what ``fun`` sees when x is a NumPy array; the data's
        by default. (For data of NumPy arrays and neither dtype nor device, the start is a NumPy array.)

    Raises
    ------
    TypeError, ValueError
        Data that are neither tensors nor NumPy arrays of numbers, none, of different lengths or on
        different devices. Where it is evaluated: a ``fun`` that returns anything but one real number.

    Examples
    --------
    >>> import torch, landingopt as lo
    >>> C = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> problem = lo.autodiff.torch(lambda x: -0.5 * (x * (C @ x)).sum(), shape=(3, 2))
    >>> x = torch.ones(3, 2, dtype=torch.float64)
    >>> torch.equal(problem.grad(x), -C @ x)
    True

    Multinomial logistic regression, with orthonormal weights, from features and labels:

    >>> features = torch.randn(5000, 5, dtype=torch.float64, generator=torch.manual_seed(0))
    >>> labels = torch.argmax(features[:, :3], dim=1)
    >>> def loss(x, a, label):
    ...     return torch.nn.functional.cross_entropy(a @ x, label)
    >>> problem = lo.autodiff.torch(loss, shape=(5, 3), data=(features, labels))
    >>> problem.grad(torch.eye(5, 3, dtype=torch.float64)).shape
    torch.Size([5, 3])
    >>> lo.minimize(problem, method=lo.landing_svrg(), tol=1e-6, rng=0).success
    True
    """
    _check_chunks(data, chunk_terms)
    library = _imported("torch")
    if data is not None:
        data, n_terms = _samples(data, "torch", library.is_tensor)
    typical = _typical(data)
    foreign = not any(map(library.is_tensor, _leaves(data)))
    numpy_start = data is not None and foreign and dtype is device is None
    if dtype is None and typical is not None:
        dtype = (library.from_numpy(typical) if isinstance(typical, np.ndarray) else typical).dtype
    device = _device(data, device, library)
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

    def rows_of(leaf: Variable, terms: Terms) -> Any:
        """Of the data, those of a minibatch; None where there are none."""
        place = _leaves(leaf)[0].device

        def rows(block: Any) -> Any:
            if not library.is_tensor(block):
                return tensor(_rows(block, terms)).to(place)
            if block.device != place:
                raise ValueError(
                    f"x is on {place} and the data are on {block.device}; nothing is moved silently: "
                    f"start from an x0 on {block.device}, or pass data.to({str(place)!r})"
                )
            if isinstance(terms, slice):
                return tensor(block[terms])
            return tensor(block[tensor(np.asarray(terms, dtype=np.int64)).to(place)])

        return None if terms is None else _map(rows, data)

    def direction(leaf: Any, block: Any) -> Any:
        v = tensor(block)
        if v.is_complex() and not leaf.is_complex():
            raise TypeError("the direction v is complex and x is real")
        return v.to(leaf)

    def loss(leaf: Variable, sample: Any) -> Any:
        return _checked_loss(tensors_only(_apply(fun, leaf, sample)), sample)

    def tensors_only(result: Any) -> Any:
        if result is not None and not library.is_tensor(result):
            raise TypeError(f"fun returned {type(result).__name__}. {advice}")
        return result

    def evaluated(leaf: Variable, rows: Any) -> Any:
        try:
            if rows is None:
                result = fun(leaf)
            else:
                return library.func.vmap(lambda sample: loss(leaf, sample))(rows).mean()
        except (RuntimeError, TypeError) as error:
            if any(sign in str(error) for sign in ("numpy()", "numpy.ndarray", "data pointer")):
                raise TypeError(f"{advice} PyTorch says: {error}") from error
            if rows is not None and isinstance(error, RuntimeError) and "dtype" in str(error):
                given = [str(block.dtype) for block in (*_leaves(leaf), *_leaves(rows))]
                raise TypeError(
                    f"fun failed for x and data of {', '.join(given)}: nothing is cast silently; give "
                    f"the data the dtype of x, or cast in fun. PyTorch says: {error}"
                ) from error
            if str(error).startswith("vmap:"):
                raise TypeError(
                    "fun is mapped over the samples: write it for one, with torch.where in place of "
                    f"if on values, and without .item(), float() and int(). PyTorch says: {error}"
                ) from error
            raise
        return _checked(tensors_only(result), leaf)

    def reverse(result: Any, leaf: Variable, **options: Any) -> Iterable[Any]:
        # Of a stack's values the sum: its gradient is each one's own.
        return library.autograd.grad(result.sum(), _leaves(leaf), materialize_grads=True, **options)

    def graph(x: Variable, terms: Terms = None) -> tuple[Variable, Any]:
        leaf = _map(lambda block: tensor(block).requires_grad_(), x)
        result = evaluated(leaf, rows_of(leaf, terms))
        if not result.requires_grad:
            raise ValueError(
                "fun does not depend on x through PyTorch operations: look for .item(), .detach(), "
                "float() or torch.no_grad() inside it."
            )
        return leaf, result

    def value(x: Variable, terms: Terms = None) -> Any:
        with library.inference_mode(False), library.no_grad():
            leaf = _map(tensor, x)
            return _number(returned(evaluated(leaf, rows_of(leaf, terms)), _leaves(x)[0]))

    def both(x: Variable, terms: Terms = None) -> tuple[Any, Variable]:
        with library.inference_mode(False), library.enable_grad():
            leaf, result = graph(x, terms)
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

    if data is not None:
        return FiniteSum(
            value,
            lambda x, terms: both(x, terms)[1],
            n_terms=n_terms,
            shape=shape,
            constraint=constraint,
            chunk_terms=chunk_terms,
            like=typical if numpy_start else like,
        )
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


def _checked_loss(loss: Any, sample: Any) -> Any:
    """The loss of one sample, unless it is none."""
    if loss is None:
        raise TypeError("fun returned None; does it end with a return statement?")
    name, shape = str(loss.dtype).rsplit(".", 1)[-1], tuple(loss.shape)
    if shape == () and name.startswith(("float", "bfloat")):
        return loss
    seen = ", ".join(str(tuple(block.shape)) for block in _leaves(sample))
    kind, what = (ValueError, f"shape {shape}") if shape else (TypeError, f"dtype {name}")
    raise kind(
        "with data, fun must return the loss of one sample, a real number; it returned an array of "
        f"{what} for a sample of shape {seen}. The mean over the samples is taken outside of it."
    )


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


# -- samples --------------------------------------------------------------------------------------


def _check_chunks(data: Any, chunk_terms: Any) -> None:
    if data is None and chunk_terms is not None:
        raise TypeError("chunk_terms is for a sum over samples: pass data too")


def _apply(fun: Callable[..., Any], x: Variable, sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return fun(x, **sample)
    return fun(x, *sample) if isinstance(sample, tuple) else fun(x, sample)


def _samples(
    data: Any, library: str, is_tensor: Callable[[Any], bool] = lambda _: False
) -> tuple[Any, int]:
    """The data, and of how many samples they are."""
    wanted = "tensors or NumPy arrays" if library == "torch" else "NumPy arrays"
    if isinstance(data, Mapping):
        if not all(isinstance(name, str) for name in data):
            raise TypeError(f"the names of data must be those of fun's arguments, got {list(data)}")
        data, names = dict(data), [f"data[{name!r}]" for name in data]
    elif isinstance(data, tuple):
        data, names = tuple(data), [f"data[{i}]" for i in range(len(data))]
    else:
        names = ["data"]
    if not names:
        raise ValueError(f"data has no arrays; pass one, or a tuple or dict of {wanted}")
    lengths = {}
    for name, block in zip(names, _leaves(data), strict=True):
        if not is_tensor(block) and not (
            isinstance(block, np.ndarray) and block.dtype.kind in "biufc"
        ):
            kind = f"of {block.dtype}" if isinstance(block, np.ndarray) else _kind(block)
            raise TypeError(
                f"data must be an array, or a tuple or dict of arrays: {wanted} of numbers for "
                f"lo.autodiff.{library}; {name} is {kind}. numpy.asarray makes such arrays"
                + (", and lo.autodiff.torch takes tensors" if library != "torch" else "")
            )
        if not block.ndim:
            raise ValueError(f"{name} is one number; its first axis must be that of the samples")
        lengths[name] = int(block.shape[0])
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"the arrays of data must have one entry for each sample; lengths: {given}"
        )
    n_terms = lengths[names[0]]
    if n_terms == 0:
        raise ValueError(
            f"data has no samples: {names[0]} has shape {tuple(_leaves(data)[0].shape)}"
        )
    return data, n_terms


def _kind(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _rows(block: np.ndarray, terms: Terms) -> np.ndarray:
    """Those of a NumPy array, read if it lies in a file; other libraries want the native byte order."""
    rows = np.asarray(block[terms])
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def _check_narrow(rows: Any) -> None:
    """JAX would keep the lower 32 bits of integers, silently."""
    for block in _leaves(rows):
        if block.dtype.kind in "iu" and block.dtype.itemsize == 8 and block.size:
            limits = np.iinfo(block.dtype.kind + "4")
            if block.max() > limits.max or block.min() < limits.min:
                raise ValueError(
                    "in single precision JAX has no integers beyond 32 bits, and the data have; start "
                    "from an x0 of double precision, or number them anew (numpy.unique)"
                )


def _typical(data: Any) -> Any:
    """An empty array like the first one that x can be like, or None."""
    for block in [] if data is None else _leaves(data):
        if getattr(block.dtype, "name", str(block.dtype).rsplit(".", 1)[-1]) in _DTYPES:
            if isinstance(block, np.ndarray):
                return np.empty(0, dtype=block.dtype.newbyteorder("="))
            return block[:0]
    return None


def _device(data: Any, device: Any, library: ModuleType) -> Any:
    """Where NumPy's x is to go: where the tensors of the data are."""
    tensors = [block for block in _leaves(data) if library.is_tensor(block)]
    if tensors and device is None:
        device = tensors[0].device
    # Only a tensor tells the number of a device that is named without it.
    place = library.empty(0, device=device).device
    others = {str(block.device) for block in tensors if block.device != place}
    if others:
        raise ValueError(
            f"the data and x must be on one device; got data on {', '.join(sorted(others))} and {place}"
        )
    return place
