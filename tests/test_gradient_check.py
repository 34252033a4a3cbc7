"""check_gradient and check_hessian: what is right passes, what is wrong does not."""

from __future__ import annotations

import re
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from landingopt.gradient_check import GradientCheck, HessianCheck, check_gradient, check_hessian
from landingopt.objectives import Euclidean, Objective, Stiefel

N, P = 5, 3


def data(seed=0, n=N, p=P, dtype=np.float64):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, p))
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal((n, p))
    return values.astype(dtype)


def logcosh(target=None, scale=1.0, offset=0.0):
    """f, its gradient and its Hessian; no symmetry about any point that is drawn."""
    target = data() if target is None else target
    one = target.dtype.type

    def fun(x):
        return one(scale) * np.sum(np.log(np.cosh(x - target))) + one(offset)

    def grad(x):
        return one(scale) * np.tanh(x - target)

    def hessp(x, v):
        return one(scale) * v / np.cosh(x - target) ** 2

    return fun, grad, hessp


def objective(fun, grad, shape=(N, P), **options):
    return Objective(fun, grad, shape=shape, **options)


# -- what must pass -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_right_gradient_passes_with_slope_two(scale, seed):
    fun, grad, _ = logcosh(data(seed), scale)
    check = check_gradient(objective(fun, grad), rng=seed)
    assert check
    assert 1.8 < check.slope < 2.2
    low, high = check.window
    assert high / low >= 99
    assert check.relative_error < 1e-8
    assert check.errors.shape == (3, check.steps.size)


def test_a_quadratic_passes():
    B, C = data(1, 4, 5), data(2, 3, 3)
    problem = objective(lambda x: np.sum((B @ x @ C) ** 2) / 2, lambda x: B.T @ B @ x @ C @ C.T)
    assert check_gradient(problem)


def test_a_linear_function_passes_with_errors_at_rounding():
    A = data()
    check = check_gradient(objective(lambda x: np.sum(A * x), lambda x: A))
    assert check
    assert check.window is None
    assert np.isnan(check.slope)
    assert check.errors.max() < 1e-13


def test_a_constant_function_passes():
    assert check_gradient(objective(lambda x: 3.0, lambda x: np.zeros_like(x)))


def test_a_large_offset_passes():
    fun, grad, _ = logcosh(offset=1e6)
    assert check_gradient(objective(fun, grad))


def test_cancellation_inside_f_is_seen_as_noise():
    """Here f is of order 1, its rounding of order 1e8 eps: only the differences of f can tell."""
    fun, grad, _ = logcosh()
    big = 1e8
    assert check_gradient(objective(lambda x: (fun(x) + big) - big, grad))


def test_a_kink_far_from_x_does_no_harm():
    A = data(3, 6, N)
    problem = objective(lambda x: np.sum(np.abs(A @ x)), lambda x: A.T @ np.sign(A @ x))
    assert check_gradient(problem)


def test_values_outside_the_domain_are_left_out():
    A = np.abs(data()) + 0.05

    def fun(x):
        with np.errstate(invalid="ignore"):
            return np.sum(np.log(x + A))

    problem = objective(fun, lambda x: 1 / (x + A))
    check = check_gradient(problem, x=np.zeros((N, P)))
    assert check
    assert np.isnan(check.errors).any()


@pytest.mark.parametrize("seed", range(5))
def test_single_precision_passes_on_its_own_terms(seed):
    fun, grad, _ = logcosh(data(seed, dtype=np.float32))
    like = np.empty(0, np.float32)
    seen = []

    def watched(x):
        seen.append(x.dtype)
        return fun(x)

    assert check_gradient(objective(watched, grad, like=like), rng=seed)
    assert set(seen) == {np.dtype(np.float32)}


def complex_square(seed=0):
    """Return f = |tr(B^H x)|^2 + Re tr(x^T x C) and G = 2 B tr(B^H x) + conj(x (C + C^T))."""
    B, C = data(seed, dtype=complex), data(seed + 1, P, P, dtype=complex)

    def fun(x):
        return abs(np.vdot(B, x)) ** 2 + np.trace(x.T @ x @ C).real

    def grad(x):
        return 2 * B * np.vdot(B, x) + np.conj(x @ (C + C.T))

    return fun, grad


def test_complex_passes():
    fun, grad = complex_square()
    check = check_gradient(objective(fun, grad, like=np.empty(0, complex)))
    assert check
    assert check.relative_error < 1e-8


def test_a_stack_of_values_is_summed():
    target = data(4, 2 * N, P).reshape(2, N, P)
    problem = objective(
        lambda x: np.sum(np.log(np.cosh(x - target)), axis=(-2, -1)),
        lambda x: np.tanh(x - target),
        shape=(2, N, P),
    )
    assert check_gradient(problem)


def product(factor=None, kind=dict):
    """A product of three blocks that are coupled, and of very different sizes."""
    factor = factor or {}
    A = data()

    def fun(x):
        return 1e4 * np.sum(np.tanh(x[0] - A)) * np.cos(x[1][1]) + 1e-3 * np.sum(np.exp(x[1]))

    def grad(x):
        W, b = x
        G = 1e4 * np.cos(b[1]) / np.cosh(W - A) ** 2
        g = 1e-3 * np.exp(b)
        g[1] -= 1e4 * np.sum(np.tanh(W - A)) * np.sin(b[1])
        return factor.get("W", 1) * G, factor.get("b", 1) * g

    shape, constraint = ((N, P), (2,)), (Stiefel(), Euclidean())
    if kind is tuple:
        return Objective(fun, grad, shape=shape, constraint=constraint)
    names = ("W", "b")
    return Objective(
        lambda x: fun((x["W"], x["b"])),
        lambda x: dict(zip(names, grad((x["W"], x["b"])), strict=True)),
        shape=dict(zip(names, shape, strict=True)),
        constraint=dict(zip(names, constraint, strict=True)),
    )


@pytest.mark.parametrize("kind", [dict, tuple])
def test_products_pass(kind):
    check = check_gradient(product(kind=kind))
    assert check
    assert sum("block" in d.name for d in check.directions) == 2


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1"])
def test_strict_arrays_pass_on_both_devices(device):
    xp = array_api_strict
    place = xp.Device(device)
    target = xp.asarray(data(), device=place)
    problem = objective(
        lambda x: xp.sum(xp.log(xp.cosh(x - target))),
        lambda x: xp.tanh(x - target),
        like=xp.empty(0, dtype=xp.float64, device=place),
        hessp=lambda x, v: v / xp.cosh(x - target) ** 2,
    )
    assert check_gradient(problem)
    assert check_hessian(problem)
    wrong = objective(problem.fun, lambda x: 1.05 * problem.grad(x), like=problem.like)
    assert not check_gradient(wrong)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_tensors_pass(dtype):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    target = torch.as_tensor(data(dtype=dtype))

    def fun(x):
        return ((x - target).abs() ** 2).sum() + (x**3).real.sum()

    def grad(x):
        return 2 * (x - target) + 3 * torch.conj(x) ** 2

    like = torch.empty(0, dtype=target.dtype)
    assert check_gradient(objective(fun, grad, like=like))
    assert not check_gradient(objective(fun, lambda x: 1.05 * grad(x), like=like))


def test_a_gradient_that_requires_gradients_passes_without_warnings():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    weight = torch.as_tensor(data()).requires_grad_()
    problem = objective(
        lambda x: (weight * x).sum() + (x**2).sum(),
        lambda x: weight + 2 * x,
        like=torch.empty(0, dtype=torch.float64),
    )
    assert check_gradient(problem)


def test_value_and_gradient_alone_is_enough():
    fun, grad, _ = logcosh()
    problem = Objective(value_and_gradient=lambda x: (fun(x), grad(x)), shape=(N, P))
    assert check_gradient(problem)


def test_any_object_with_the_attributes_will_do():
    fun, grad, _ = logcosh()
    names = {"shape": (N, P), "constraint": Stiefel(), "value_and_gradient": None, "hessp": None}
    assert check_gradient(SimpleNamespace(fun=fun, grad=grad, **names), x=np.ones((N, P)))


@pytest.mark.parametrize("shape", [(N, P), (P, N), (1, 1), (N, N), (N, 1)])
def test_all_shapes(shape):
    target = data(6, *shape)
    fun, grad, _ = logcosh(target)
    assert check_gradient(objective(fun, grad, shape=shape))
    assert not check_gradient(objective(fun, lambda x: 1.05 * grad(x), shape=shape))


def test_a_point_with_large_entries():
    target = 1e6 * data()
    problem = objective(lambda x: np.sum((x - target) ** 4) / 4, lambda x: (x - target) ** 3)
    x = 1e6 * data(8)
    assert check_gradient(problem, x=x)
    assert not check_gradient(objective(problem.fun, lambda x: 1.05 * problem.grad(x)), x=x)


# -- what must not --------------------------------------------------------------------------------

WRONG = {
    "scaled by 1.05": lambda G: 1.05 * G,
    "scaled by 1.0001": lambda G: 1.0001 * G,
    "without its factor 2": lambda G: G / 2,
    "zero": lambda G: 0 * G,
    "negative": lambda G: -G,
    "shifted by a constant": lambda G: G + 0.01,
    "shifted by 1 %": lambda G: G + 0.01 * np.linalg.norm(G) / np.sqrt(G.size),
    "one entry wrong": lambda G: G + 0.01 * np.eye(*G.shape) * (np.arange(G.shape[1]) == 1),
    "transposed": lambda G: G.T,
    "symmetrised": lambda G: (G + G.T) / 2,
}


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1.0, 1e6])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradient_fails(name, seed, scale, offset):
    fun, grad, _ = logcosh(data(seed, N, N), scale, offset)

    def wrong(x):
        return scale * WRONG[name](grad(x) / scale)

    check = check_gradient(objective(fun, wrong, shape=(N, N)), rng=seed)
    assert not check
    assert "disagree" in check.message


@pytest.mark.parametrize("name", ["scaled by 1.05", "zero", "transposed", "shifted by 1 %"])
@pytest.mark.parametrize("seed", range(3))
def test_wrong_gradient_fails_in_single_precision(name, seed):
    fun, grad, _ = logcosh(data(seed, N, N, dtype=np.float32))
    problem = objective(
        fun,
        lambda x: WRONG[name](grad(x)).astype(np.float32),
        shape=(N, N),
        like=np.empty(0, np.float32),
    )
    assert not check_gradient(problem, rng=seed)


def test_strong_curvature_does_not_hide_a_wrong_gradient():
    """|a t + b t^2| has slope 2 over two decades, and more, where b is large."""
    A = data()

    def fun(x):
        return np.sum(A * x) + 1e4 * np.sum((x - x0) ** 2)

    x0 = data(9)
    check = check_gradient(objective(fun, lambda x: 1.01 * A + 2e4 * (x - x0)), x=x0)
    assert not check
    assert check.slope < 1.5


def test_slope_of_a_wrong_gradient_is_one():
    fun, grad, _ = logcosh()
    check = check_gradient(objective(fun, lambda x: 1.5 * grad(x)))
    assert abs(check.slope - 1) < 0.05


def test_conjugate_fails_and_is_named():
    fun, grad = complex_square()
    problem = objective(fun, lambda x: np.conj(grad(x)), like=np.empty(0, complex))
    check = check_gradient(problem)
    assert not check
    assert "conjugate" in check.message


def test_half_the_complex_gradient_fails():
    """The Wirtinger derivative df/d(conj x) is half of what is wanted."""
    fun, grad = complex_square()
    check = check_gradient(objective(fun, lambda x: grad(x) / 2, like=np.empty(0, complex)))
    assert not check
    assert "2 times" in check.message


def test_hints_name_the_factor_and_the_transpose():
    fun, grad, _ = logcosh(data(0, N, N))
    half = check_gradient(objective(fun, lambda x: grad(x) / 2, shape=(N, N)))
    assert "2 times it would agree" in half.message
    turned = check_gradient(objective(fun, lambda x: grad(x).T, shape=(N, N)))
    assert "transpose would agree" in turned.message
    other = check_gradient(objective(fun, lambda x: grad(x) + 0.1, shape=(N, N)))
    assert "would agree" not in other.message


@pytest.mark.parametrize("kind", [dict, tuple])
@pytest.mark.parametrize("block", ["W", "b"])
def test_one_wrong_block_fails(block, kind):
    """Block b's gradient is small beside that of W."""
    check = check_gradient(product({block: 1.05}, kind))
    assert not check
    assert ("block 'b'" if kind is dict else "block 1") in str(check)


@pytest.mark.parametrize("seed", range(3))
def test_a_tiny_wrong_block_fails(seed):
    A, a = data(seed), data(seed + 10, 2, 1)[:, 0]
    problem = Objective(
        lambda x: 1e3 * np.sum(np.tanh(x["W"] - A)) + 1e-4 * np.sum(np.tanh(x["b"] - a)),
        lambda x: {
            "W": 1e3 / np.cosh(x["W"] - A) ** 2,
            "b": 1.05e-4 / np.cosh(x["b"] - a) ** 2,
        },
        shape={"W": (N, P), "b": (2,)},
        constraint={"W": Stiefel(), "b": Euclidean()},
    )
    check = check_gradient(problem, rng=seed)
    assert not check
    assert "block 'b'" in check.message
    assert "block 'W'" not in check.message


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda x: x.T, r"shape \(3, 5\)"),
        (lambda x: 1j * x, "complex"),
        (lambda x: {"W": x}, "dict"),
        (lambda x: None, "NoneType"),
        (lambda x: np.nan * x, "not finite"),
    ],
)
def test_what_is_no_gradient_fails_with_the_reason(gradient, message):
    fun, _, _ = logcosh()
    check = check_gradient(objective(fun, gradient))
    assert not check
    assert re.search(message, check.message)
    assert np.isnan(check.slope)
    assert check.window is None
    assert np.isnan(check.relative_error)


def test_a_product_with_a_missing_block_fails():
    good = product()
    bad = Objective(
        good.fun,
        lambda x: {"W": good.grad(x)["W"]},
        shape=good.shape,
        constraint=good.constraint,
    )
    assert not check_gradient(bad)


def test_value_and_gradient_must_agree_with_fun_and_grad():
    fun, grad, _ = logcosh()
    value = objective(fun, grad, value_and_gradient=lambda x: (fun(x) + 1, grad(x)))
    assert "another value" in check_gradient(value).message
    other = objective(fun, grad, value_and_gradient=lambda x: (fun(x), 2 * grad(x)))
    assert "another gradient" in check_gradient(other).message
    assert not check_gradient(value)
    assert not check_gradient(other)


def test_what_rounding_hides_does_not_pass():
    fun, grad, _ = logcosh(offset=1e16)
    check = check_gradient(objective(fun, grad))
    assert not check
    assert "Rounding hides" in check.message


def test_a_stationary_point_passes_with_a_remark():
    target = data()
    problem = objective(
        lambda x: np.sum(np.log(np.cosh(x - target))) + 1.0, lambda x: np.tanh(x - target)
    )
    check = check_gradient(problem, x=target + 1e-14 * data(1))
    assert check
    assert "stationary" in check.message


def test_a_gradient_that_is_not_zero_at_a_stationary_point_fails():
    target = data()
    problem = objective(
        lambda x: np.sum(np.log(np.cosh(x - target))) + 1.0, lambda x: np.tanh(x - target) + 1e-4
    )
    assert not check_gradient(problem, x=target)


# -- manners --------------------------------------------------------------------------------------


def test_without_a_value_there_is_nothing_to_check():
    with pytest.raises(TypeError, match="nothing to check"):
        check_gradient(objective(None, lambda x: x))


def test_what_is_no_problem():
    fun, grad, _ = logcosh()
    with pytest.raises(TypeError, match="is not a problem"):
        check_gradient(SimpleNamespace(fun=fun, grad=grad))


def test_integers_and_complex_values_are_refused():
    fun, grad, _ = logcosh()
    with pytest.raises(TypeError, match="int64"):
        check_gradient(objective(fun, grad), x=np.ones((N, P), dtype=np.int64))
    with pytest.raises(TypeError, match="real"):
        check_gradient(objective(lambda x: np.sum(x) + 0j, grad))


def test_an_infinite_value_fails():
    _, grad, _ = logcosh()
    assert "inf" in check_gradient(objective(lambda x: np.inf, grad)).message


def test_raise_on_failure():
    fun, grad, _ = logcosh()
    with pytest.raises(ValueError, match="disagree"):
        check_gradient(objective(fun, lambda x: 2 * grad(x)), raise_on_failure=True)
    assert check_gradient(objective(fun, grad), raise_on_failure=True)


def test_x_is_left_as_it_is_even_by_functions_that_write():
    fun, grad, _ = logcosh()

    def greedy(x):
        result = fun(x)
        x[:] = 7
        return result

    buffer = np.empty((N, P))

    def shared(x):
        buffer[:] = grad(x)
        x[:] = 7
        return buffer

    x = data(7)
    before = x.copy()
    assert check_gradient(objective(greedy, shared), x=x)
    np.testing.assert_array_equal(x, before)


def test_a_check_can_be_repeated_and_varied():
    fun, grad, _ = logcosh()
    problem = objective(fun, grad)
    first, second = check_gradient(problem), check_gradient(problem)
    assert first == second
    assert first != check_gradient(problem, rng=1)
    assert check_gradient(problem, rng=np.random.default_rng(2))


def test_text():
    fun, grad, _ = logcosh()
    check = check_gradient(objective(fun, grad))
    text = str(check)
    assert isinstance(check, GradientCheck)
    assert text.startswith("GradientCheck: PASS")
    assert "random 1" in text
    assert max(map(len, text.splitlines()[1:])) <= 120


# -- Hessians -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_right_hessian_passes(scale, dtype):
    fun, grad, hessp = logcosh(data(dtype=dtype), scale)
    problem = objective(fun, grad, hessp=hessp, like=np.empty(0, dtype))
    check = check_hessian(problem)
    assert isinstance(check, HessianCheck)
    assert check, str(check)
    assert check.asymmetry < 1e-6
    if dtype is np.float64:
        assert 1.8 < check.slope < 2.3


def test_complex_hessian_passes_and_its_conjugate_does_not():
    fun, grad = complex_square()
    C = data(1, P, P, dtype=complex)
    B = data(0, dtype=complex)

    def hessp(x, v):
        return 2 * B * np.vdot(B, v) + np.conj(v @ (C + C.T))

    like = np.empty(0, complex)
    assert check_hessian(objective(fun, grad, hessp=hessp, like=like))
    wrong = objective(fun, grad, hessp=lambda x, v: np.conj(hessp(x, v)), like=like)
    assert not check_hessian(wrong)


@pytest.mark.parametrize("factor", [1.05, 0.5, 0.0, -1.0])
def test_wrong_hessian_fails(factor):
    fun, grad, hessp = logcosh()
    problem = objective(fun, grad, hessp=lambda x, v: factor * hessp(x, v))
    assert not check_hessian(problem)


def test_hessian_without_one_term_fails():
    target = data()
    problem = objective(
        None,
        lambda x: x @ x.T @ x - target,
        hessp=lambda x, v: v @ x.T @ x + x @ x.T @ v,  # x v^T x is missing
    )
    assert not check_hessian(problem)


def test_an_asymmetric_hessian_fails():
    """A gradient that is no gradient: its derivative passes Taylor's test, not the other."""
    A = data(0, N, N)
    problem = objective(None, lambda x: A @ x, hessp=lambda x, v: A @ v)
    check = check_hessian(problem)
    assert not check
    assert "not symmetric" in check.message


def test_linear_functions_have_a_zero_hessian():
    A = data()
    assert check_hessian(objective(None, lambda x: A, hessp=lambda x, v: 0 * v))
    assert not check_hessian(objective(None, lambda x: A, hessp=lambda x, v: 1e-3 * v))


def test_hessian_of_a_product():
    def grad(x):
        W, b = x
        return W * np.sum(b**2), b * np.sum(W**2)

    def hessp(x, v):
        W, b = x
        return (
            v[0] * np.sum(b**2) + 2 * W * np.sum(b * v[1]),
            v[1] * np.sum(W**2) + 2 * b * np.sum(W * v[0]),
        )

    options = {"shape": ((N, P), (2,)), "constraint": (Stiefel(), Euclidean())}
    assert check_hessian(Objective(None, grad, hessp=hessp, **options))

    def uncoupled(x, v):
        return v[0] * np.sum(x[1] ** 2), v[1] * np.sum(x[0] ** 2)

    assert not check_hessian(Objective(None, grad, hessp=uncoupled, **options))


def test_hessian_errors():
    fun, grad, hessp = logcosh()
    with pytest.raises(TypeError, match="no hessp"):
        check_hessian(objective(fun, grad))
    wrong_shape = objective(fun, grad, hessp=lambda x, v: v.T)
    assert "shape (3, 5)" in check_hessian(wrong_shape).message
    with pytest.raises(ValueError, match="disagree"):
        check_hessian(
            objective(fun, grad, hessp=lambda x, v: 2 * hessp(x, v)), raise_on_failure=True
        )
