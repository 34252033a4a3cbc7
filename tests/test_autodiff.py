"""lo.autodiff: gradients and Hessian-vector products by JAX, PyTorch and autograd."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from landingopt import autodiff, minimize
from landingopt.gradient_check import check_gradient, check_hessian
from landingopt.objectives import Euclidean, Objective, Stiefel

N, P = 5, 3
LIBRARIES = ["jax", "torch", "autograd"]
DTYPES = ["float32", "float64", "complex64", "complex128"]
TOLERANCE = {"float32": 2e-5, "complex64": 2e-5, "float64": 1e-13, "complex128": 1e-13}


class Library:
    """One library: its functions under NumPy's names, and data as its functions want them."""

    def __init__(self, name):
        self.name = name
        reason = f"needs {name}"
        pytest.importorskip(name, reason=reason)
        if name == "torch":
            self.numpy = pytest.importorskip("torch", reason=reason)
            self.data = self.numpy.as_tensor
        else:
            module = {"jax": "jax.numpy", "autograd": "autograd.numpy"}[name]
            self.numpy = pytest.importorskip(module, reason=reason)
            self.data = lambda values: values

    def objective(self, fun, shape=(N, P), **options):
        return getattr(autodiff, self.name)(fun, shape=shape, **options)


@pytest.fixture(params=LIBRARIES)
def library(request):
    return Library(request.param)


def data(seed=0, n=N, p=P, dtype="float64"):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, p))
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal((n, p))
    return values.astype(dtype)


def quartic(library, dtype="float64", n=N, p=P):
    """Return f = |sum conj(B) x|^2 + Re sum x^3 C; its gradient and Hessian by hand, in NumPy."""
    xp = library.numpy
    B, C = data(1, n, p, dtype), data(2, n, p, dtype)
    b, c = library.data(np.conj(B)), library.data(C)

    def fun(x):
        return xp.abs(xp.sum(b * x)) ** 2 + xp.sum(xp.real(x**3 * c))

    def value(x):
        return np.abs(np.sum(np.conj(B) * x)) ** 2 + np.sum((x**3 * C).real)

    def grad(x):
        return 2 * B * np.sum(np.conj(B) * x) + 3 * np.conj(x**2 * C)

    def hessp(x, v):
        return 2 * B * np.sum(np.conj(B) * v) + 6 * np.conj(x * v * C)

    return fun, value, grad, hessp


def close(result, expected, dtype="float64"):
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.dtype(dtype)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


# -- NumPy in, NumPy out --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_gradient_and_hessian(library, dtype):
    fun, value, grad, hessp = quartic(library, dtype)
    problem = library.objective(fun)
    x, v = data(3, dtype=dtype), data(4, dtype=dtype)
    assert isinstance(problem, Objective)
    f, G = problem.value_and_gradient(x)
    assert isinstance(f, float)
    assert isinstance(problem.fun(x), float)
    assert f == pytest.approx(value(x), rel=10 * TOLERANCE[dtype])
    assert problem.fun(x) == pytest.approx(f, rel=TOLERANCE[dtype])
    close(G, grad(x), dtype)
    close(problem.grad(x), grad(x), dtype)
    close(problem.hessp(x, v), hessp(x, v), dtype)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_checks_agree(library, dtype):
    fun, _, _, _ = quartic(library, dtype)
    problem = library.objective(fun)
    x = data(5, dtype=dtype)
    assert check_gradient(problem, x=x)
    assert check_hessian(problem, x=x)


def test_default_points(library):
    fun, _, _, _ = quartic(library)
    problem = library.objective(fun)
    assert check_gradient(problem)
    assert check_hessian(problem)


@pytest.mark.parametrize("layout", ["readonly", "fortran", "strided", "reversed"])
def test_layouts_of_x(library, layout):
    fun, _, grad, _ = quartic(library)
    x = data(3)
    given = {
        "readonly": x.copy(),
        "fortran": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=0)[::2],
        "reversed": x[::-1].copy()[::-1],
    }[layout]
    given.flags.writeable = layout != "readonly"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(library.objective(fun).grad(given), grad(x))
    np.testing.assert_array_equal(given, x)


def test_the_gradient_does_not_follow_x(library):
    """The solver writes its next iterate over x; a gradient equal to x must not change with it."""
    xp = library.numpy
    x = data(3, 64, 64)
    before = x.copy()
    problem = library.objective(lambda y: 0.5 * xp.sum(y * y), shape=(64, 64))
    G = problem.grad(x)
    x[:] = 0
    np.testing.assert_array_equal(G, before)


def separate(library):
    xp = library.numpy
    target = data(6, 2 * N, P).reshape(2, N, P)
    there = library.data(target)

    def fun(x):
        return xp.sum(xp.log(xp.cosh(x - there)), (-2, -1))

    return fun, target


def test_stacks_keep_their_values(library):
    fun, target = separate(library)
    problem = library.objective(fun, shape=(2, N, P))
    x, v = data(7, 2 * N, P).reshape(2, N, P), data(8, 2 * N, P).reshape(2, N, P)
    f, G = problem.value_and_gradient(x)
    assert f.shape == problem.fun(x).shape == (2,)
    np.testing.assert_allclose(f, np.sum(np.log(np.cosh(x - target)), axis=(-2, -1)))
    close(G, np.tanh(x - target))
    close(problem.hessp(x, v), v / np.cosh(x - target) ** 2)
    assert check_gradient(problem)


def coupled(library):
    xp = library.numpy

    def fun(W, b):
        return xp.sum(W**3) * xp.sum(b**2) / 3

    def grad(W, b):
        return W**2 * np.sum(b**2), 2 * b * np.sum(W**3) / 3

    return fun, grad


@pytest.mark.parametrize("kind", [dict, tuple])
def test_products_keep_their_structure(library, kind):
    fun, grad = coupled(library)
    shape, constraint = ((N, P), (4,)), (Stiefel(), Euclidean())
    x, v = (data(3), data(4, 4, 1)[:, 0]), (data(5), data(6, 4, 1)[:, 0])
    if kind is tuple:
        problem = library.objective(lambda x: fun(*x), shape, constraint=constraint)
        G, product = problem.grad(x), problem.hessp(x, v)
    else:
        # The names are not in alphabetical order, which is the one that JAX gives back.
        names = ("b", "a")
        named = [dict(zip(names, item, strict=True)) for item in (shape, constraint, x, v)]
        problem = library.objective(lambda x: fun(x["b"], x["a"]), named[0], constraint=named[1])
        G, product = problem.grad(named[2]), problem.hessp(named[2], named[3])
        assert list(G) == list(product) == list(names)
        G, product = tuple(G.values()), tuple(product.values())
    assert isinstance(G, tuple)
    for result, expected in zip(G, grad(*x), strict=True):
        close(result, expected)
    assert [block.shape for block in product] == list(shape)
    assert check_gradient(problem)
    assert check_hessian(problem)


def test_a_block_that_f_does_not_read(library):
    xp = library.numpy
    problem = library.objective(
        lambda x: xp.sum(x["W"] ** 3),
        {"W": (N, P), "b": (4,)},
        constraint={"W": Stiefel(), "b": Euclidean()},
    )
    x = {"W": data(3), "b": np.ones(4)}
    close(problem.grad(x)["b"], np.zeros(4))
    close(problem.hessp(x, x)["b"], np.zeros(4))
    assert check_gradient(problem)
    assert check_hessian(problem)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_linear_functions_have_a_zero_hessian(library, dtype):
    xp = library.numpy
    A = data(1, dtype=dtype)
    a = library.data(np.conj(A))
    problem = library.objective(lambda x: xp.real(xp.sum(a * x)))
    x = data(3, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(problem.hessp(x, x), np.zeros((N, P)), dtype)
    close(problem.grad(x), A, dtype)


def test_the_solver_runs_on_it(library):
    """The largest three eigenvalues of a symmetric matrix: f = -tr(x^T A x) / 2 at the optimum."""
    xp = library.numpy
    A = data(9, 6, 6)
    A = A + A.T
    a = library.data(A)
    problem = library.objective(lambda x: -0.5 * xp.sum(x * (a @ x)), shape=(6, 3))
    result = minimize(problem, rng=0)
    assert result.success
    assert float(result.fun) == pytest.approx(-0.5 * np.linalg.eigvalsh(A)[-3:].sum(), rel=1e-8)


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fun", "grad", "value_and_gradient"])
def test_values_that_are_no_objective(library, call):
    xp = library.numpy

    def evaluate(fun, x):
        return getattr(library.objective(fun), call)(x)

    x = data(3)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        evaluate(lambda x: xp.sum(x, 0), x)
    with pytest.raises(ValueError, match=r"shape \(5, 3\)"):
        evaluate(lambda x: x, x)
    with pytest.raises(TypeError, match="got complex128"):
        evaluate(lambda x: xp.sum(x * x), data(3, dtype="complex128"))
    with pytest.raises(TypeError, match="returned None"):
        evaluate(lambda x: None, x)
    with pytest.raises(TypeError, match="got int"):
        evaluate(lambda x: xp.argmax(x), x)


@pytest.mark.parametrize("name", ["jax", "autograd"])
@pytest.mark.parametrize("call", ["fun", "grad"])
def test_values_that_are_python_integers(name, call):
    library = Library(name)
    evaluate = getattr(library.objective(lambda x: 3), call)
    with pytest.raises(TypeError, match="got int"):
        evaluate(data(3))


def test_plain_numpy_inside_fun_is_named(library):
    problem = library.objective(lambda x: np.sum(np.linalg.svd(np.exp(x))[1]))
    module = {"jax": "jax.numpy", "torch": "torch", "autograd": "autograd.numpy"}[library.name]
    with pytest.raises(TypeError, match=f"with {module}"):
        problem.grad(data(3))


def test_errors_of_the_users_own_pass_through(library):
    def fun(x):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine"):
        library.objective(fun).grad(data(3))


@pytest.mark.parametrize("name", ["jax", "autograd"])
def test_foreign_arrays_are_refused(name):
    library = Library(name)
    problem = library.objective(lambda x: library.numpy.sum(x))
    with pytest.raises(TypeError, match="NumPy arrays"):
        problem.grad([[1.0, 2.0]])
    with pytest.raises(TypeError, match="int64"):
        problem.grad(np.ones((N, P), dtype=np.int64))


def test_a_complex_direction_at_a_real_point(library):
    problem = library.objective(lambda x: library.numpy.sum(x**3))
    with pytest.raises(TypeError, match="complex"):
        problem.hessp(data(3), data(3, dtype="complex128"))


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named(name, monkeypatch):
    for module in list(sys.modules):
        if module.partition(".")[0] == name:
            monkeypatch.delitem(sys.modules, module)

    class Nothing:
        @staticmethod
        def find_spec(fullname, path=None, target=None):
            if fullname.partition(".")[0] == name:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Nothing, *sys.meta_path])
    with pytest.raises(ImportError, match=rf'pip install "landingopt\[{name}\]"'):
        getattr(autodiff, name)(lambda x: x, shape=(N, P))


# -- JAX ------------------------------------------------------------------------------------------


def test_jax_keeps_the_users_configuration():
    library = Library("jax")
    jax = pytest.importorskip("jax", reason="needs jax")
    before = jax.config.jax_enable_x64
    fun, _, _, _ = quartic(library)
    library.objective(fun).value_and_gradient(data(3))
    assert jax.config.jax_enable_x64 == before
    assert library.numpy.zeros(2).dtype == (np.float64 if before else np.float32)


def test_jax_traces_once():
    library = Library("jax")
    calls = []

    def fun(x):
        calls.append(1)
        return library.numpy.sum(x**2)

    problem = library.objective(fun)
    for seed in range(3):
        problem.value_and_gradient(data(seed))
    assert len(calls) == 1


def test_jax_control_flow_on_values_is_explained():
    library = Library("jax")
    problem = library.objective(lambda x: x.sum() if x[0, 0] > 0 else -x.sum())
    with pytest.raises(TypeError, match=r"lax\.cond"):
        problem.grad(data(3))


def test_jax_dtype_of_the_start():
    library = Library("jax")
    problem = library.objective(lambda x: library.numpy.sum(x), dtype=np.float32)
    assert problem.like.dtype == np.float32
    assert library.objective(lambda x: library.numpy.sum(x)).like is None


# -- PyTorch --------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_in_tensors_out(torch, dtype):
    fun, value, grad, hessp = quartic(Library("torch"), dtype)
    problem = autodiff.torch(fun, shape=(N, P), dtype=getattr(torch, dtype))
    x, v = data(3, dtype=dtype), data(4, dtype=dtype)
    tensor = torch.as_tensor(x)
    f, G = problem.value_and_gradient(tensor)
    product = problem.hessp(tensor, torch.as_tensor(v))
    for result in (f, G, product, problem.fun(tensor)):
        assert torch.is_tensor(result)
        assert not result.requires_grad
    assert f.shape == ()
    assert not tensor.requires_grad
    assert tensor.grad is None
    assert float(f) == pytest.approx(value(x), rel=10 * TOLERANCE[dtype])
    close(G.numpy(), grad(x), dtype)
    close(product.numpy(), hessp(x, v), dtype)
    assert problem.like.dtype == tensor.dtype
    assert check_gradient(problem)
    assert check_hessian(problem)


def test_torch_start_is_double_by_default(torch):
    assert autodiff.torch(lambda x: x.sum(), shape=(N, P)).like.dtype == torch.float64


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_torch_modes_of_the_caller_do_not_matter(torch, mode):
    fun, _, grad, hessp = quartic(Library("torch"))
    problem = autodiff.torch(fun, shape=(N, P))
    x = data(3)
    with getattr(torch, mode)():
        tensor = torch.as_tensor(x.copy()) * 1.0
        close(problem.grad(tensor).numpy(), grad(x))
        close(problem.hessp(tensor, tensor).numpy(), hessp(x, x))
        assert not torch.is_grad_enabled()


def test_torch_leaves_x_and_the_parameters_of_fun_alone(torch):
    weight = torch.as_tensor(data(1)).requires_grad_()
    x = torch.as_tensor(data(3)).requires_grad_()
    problem = autodiff.torch(lambda y: (weight * y**2).sum(), shape=(N, P))
    G = problem.grad(x)
    assert weight.grad is None
    assert x.grad is None
    assert x.requires_grad
    assert not G.requires_grad


def test_torch_sees_a_writable_numpy_array_without_a_copy(torch):
    seen = []
    problem = autodiff.torch(lambda y: seen.append(y.data_ptr()) or y.sum(), shape=(N, P))
    x = data(3)
    problem.grad(x)
    assert seen == [x.ctypes.data]


@pytest.mark.parametrize("cut", ["item", "detach"])
def test_torch_cut_graphs_are_explained(torch, cut):
    problem = autodiff.torch(lambda x: getattr(x.sum(), cut)(), shape=(N, P))
    with pytest.raises((TypeError, ValueError), match="PyTorch"):
        problem.grad(data(3))


def test_torch_numpy_data_inside_fun_is_named(torch):
    A = data(1)
    with pytest.raises(TypeError, match="with torch functions"):
        autodiff.torch(lambda x: torch.sum(torch.mul(x, A)), shape=(N, P)).grad(data(3))


def test_torch_refuses_lists(torch):
    with pytest.raises(TypeError, match="PyTorch tensors and NumPy arrays"):
        autodiff.torch(lambda x: x.sum(), shape=(N, P)).grad([[1.0]])
