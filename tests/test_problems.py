"""The concrete problems: derivatives, optima, arrays of every kind, and every refusal."""

from __future__ import annotations

import itertools

import array_api_strict
import numpy as np
import pytest
from reference import gaussian, hermitian

from landingopt import _xp
from landingopt.objectives import Stiefel
from landingopt.problems import PCA, Brockett, Procrustes, UnbalancedProcrustes

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "complex64", "complex128"]
WIDE = ["float64", "complex128"]


def orthonormal(rng, shape, dtype="float64"):
    """A random point of St(n, p), or of its transpose for a wide shape."""
    n, p = shape[-2:]
    tall = (*shape[:-2], max(n, p), min(n, p))
    q = np.linalg.qr(gaussian(rng, tall, dtype))[0]
    return q if n >= p else _xp.H(q)


# name -> build(rng, dtype, stack) -> (problem, its arrays by name, naive value of one matrix)
def _procrustes(n, p, m, weight=1.0):
    def build(rng, dtype, stack):
        A, B = gaussian(rng, (*stack, p, m), dtype), gaussian(rng, (*stack, n, m), dtype)

        def naive(x, i=()):
            return weight * np.sum(np.abs(x @ A[i] - B[i]) ** 2)

        return (lambda A, B: Procrustes(A, B, weight=weight)), {"A": A, "B": B}, naive

    return build


def _unbalanced(n, p, m, weight=1.0):
    def build(rng, dtype, stack):
        A, B = gaussian(rng, (*stack, m, n), dtype), gaussian(rng, (*stack, m, p), dtype)

        def naive(x, i=()):
            return weight * np.sum(np.abs(A[i] @ x - B[i]) ** 2)

        return (lambda A, B: UnbalancedProcrustes(A, B, weight=weight)), {"A": A, "B": B}, naive

    return build


def _pca(samples, n, p):
    def build(rng, dtype, stack):
        data = gaussian(rng, (*stack, samples, n), dtype)

        def naive(x, i=()):
            return -np.sum(np.abs(data[i] @ x) ** 2) / (2 * samples)

        return (lambda data: PCA(data, p)), {"data": data}, naive

    return build


def _covariance(n, p):
    def build(rng, dtype, stack):
        K = hermitian(rng, (*stack, n, n), dtype)

        def naive(x, i=()):
            return -np.trace(x.conj().T @ K[i] @ x).real / 2

        return (lambda K: PCA.from_covariance(K, p)), {"K": K}, naive

    return build


def _brockett(n, weights):
    def build(rng, dtype, stack):
        K = hermitian(rng, (*stack, n, n), dtype)

        def naive(x, i=()):
            return np.trace(x.conj().T @ K[i] @ x @ np.diag(weights)).real

        return (lambda K: Brockett(K, weights)), {"K": K}, naive

    return build


CASES = {
    "procrustes-square": _procrustes(4, 4, 4),
    "procrustes-tall": _procrustes(6, 3, 5),
    "procrustes-thin-data": _procrustes(5, 4, 1, weight=3.0),
    "procrustes-wide": _procrustes(3, 5, 4, weight=0.2),
    "unbalanced-tall": _unbalanced(5, 3, 6),
    "unbalanced-square": _unbalanced(4, 4, 4, weight=2.5),
    "unbalanced-thin-data": _unbalanced(6, 2, 2),
    "unbalanced-wide": _unbalanced(3, 4, 5),
    "pca-many-samples": _pca(9, 5, 2),
    "pca-few-samples": _pca(3, 6, 4),
    "pca-covariance": _covariance(5, 3),
    "pca-square": _covariance(3, 3),
    "brockett-tall": _brockett(5, [3.0, -1.0, 0.5]),
    "brockett-square": _brockett(3, [1.0, 2.0, 2.0]),
}
STACKS = [(), (3,), (2, 1)]


def make(case, dtype="float64", stack=(), seed=0):
    return CASES[case](np.random.default_rng(seed), dtype, stack)


@pytest.mark.parametrize("stack", STACKS, ids=str)
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("case", CASES)
class TestDerivatives:
    def test_value_is_the_formula_of_each_matrix(self, case, dtype, stack):
        build, arrays, naive = make(case, dtype, stack)
        problem = build(**arrays)
        x = gaussian(np.random.default_rng(1), problem.shape, dtype)
        value = problem.fun(x)
        assert np.shape(value) == stack
        assert isinstance(value, float if not stack else np.ndarray)
        for i in np.ndindex(stack):
            np.testing.assert_allclose(np.asarray(value)[i], naive(x[i], i), rtol=1e-12)

    def test_gradient_by_central_differences(self, case, dtype, stack):
        build, arrays, _ = make(case, dtype, stack)
        problem = build(**arrays)
        rng = np.random.default_rng(1)
        x, v = gaussian(rng, problem.shape, dtype), gaussian(rng, problem.shape, dtype)
        G = problem.grad(x)
        assert G.shape == x.shape and G.dtype == x.dtype
        # The objectives are quadratic: a central difference is exact up to rounding at any h.
        difference = (np.asarray(problem.fun(x + v)) - np.asarray(problem.fun(x - v))) / 2
        slope = np.sum((G.conj() * v).real, axis=(-2, -1))
        np.testing.assert_allclose(difference, slope, rtol=1e-11, atol=1e-11)

    def test_both_together_are_each_alone(self, case, dtype, stack):
        build, arrays, _ = make(case, dtype, stack)
        problem = build(**arrays)
        x = gaussian(np.random.default_rng(1), problem.shape, dtype)
        value, G = problem.value_and_gradient(x)
        np.testing.assert_allclose(value, problem.fun(x), rtol=1e-13)
        np.testing.assert_allclose(G, problem.grad(x), rtol=1e-13)
        assert type(value) is type(problem.fun(x))

    def test_hessian_by_differences_of_the_gradient(self, case, dtype, stack):
        build, arrays, _ = make(case, dtype, stack)
        problem = build(**arrays)
        rng = np.random.default_rng(1)
        x, v = gaussian(rng, problem.shape, dtype), gaussian(rng, problem.shape, dtype)
        H = problem.hessp(x, v)
        assert H.shape == v.shape and H.dtype == v.dtype
        difference = (problem.grad(x + v) - problem.grad(x - v)) / 2
        np.testing.assert_allclose(H, difference, rtol=1e-11, atol=1e-11)

    def test_optimum_beats_random_points(self, case, dtype, stack):
        build, arrays, _ = make(case, dtype, stack)
        problem = build(**arrays)
        optimum = problem.optimum()
        if optimum is None:
            assert case.startswith("unbalanced") or case == "procrustes-wide"
            return
        x, fun = optimum
        assert x.shape == problem.shape and x.dtype == np.dtype(dtype)
        assert np.shape(fun) == stack and type(fun) is type(problem.fun(x))
        identity = np.eye(x.shape[-1])
        np.testing.assert_allclose(
            _xp.H(x) @ x, np.broadcast_to(identity, (*stack, *identity.shape)), atol=1e-13
        )
        np.testing.assert_allclose(fun, problem.fun(x), rtol=1e-12)
        # First-order optimality, per matrix: the Riemannian gradient vanishes.
        G = problem.grad(x)
        M = _xp.H(x) @ G
        assert np.abs(G - x @ (M + _xp.H(M)) / 2).max() < 1e-12 * np.abs(G).max()
        rng = np.random.default_rng(2)
        for _ in range(50):
            assert np.all(
                problem.fun(orthonormal(rng, problem.shape, dtype)) >= np.asarray(fun) - 1e-12
            )


@pytest.mark.parametrize("case", CASES)
def test_one_problem_takes_many_points(case):
    build, arrays, naive = make(case)
    problem = build(**arrays)
    x = gaussian(np.random.default_rng(1), (4, *problem.shape))
    value, G = problem.value_and_gradient(x)
    np.testing.assert_allclose(value, [naive(xi) for xi in x], rtol=1e-12)
    np.testing.assert_allclose(G, [problem.grad(xi) for xi in x], rtol=1e-12, atol=1e-13)


# -- components ------------------------------------------------------------------------------------


def grid_of_o2(component, count=20_001):
    """A fine grid of the component of O_2 with this determinant."""
    t = np.linspace(0, 2 * np.pi, count)
    c, s = np.cos(t), np.sin(t)
    return np.stack([np.stack([c, -component * s], -1), np.stack([s, component * c], -1)], -2)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("component", [1, -1])
def test_procrustes_component_by_brute_force(component, seed):
    problem = Procrustes.random(2, rng=seed)
    x, fun = problem.optimum(component)
    assert np.sign(np.linalg.det(x)) == component
    best = problem.fun(grid_of_o2(component)).min()
    assert fun <= best + 1e-12
    assert best - fun < 1e-5 * (1 + abs(best))


@pytest.mark.parametrize("case", ["procrustes-square", "pca-square", "brockett-square"])
@pytest.mark.parametrize("component", [1, -1])
def test_component_beats_random_points_of_it(case, component):
    build, arrays, _ = make(case, stack=(3,))
    problem = build(**arrays)
    x, fun = problem.optimum(component)
    np.testing.assert_allclose(np.linalg.det(x), component, rtol=1e-12)
    rng = np.random.default_rng(3)
    for _ in range(100):
        y = orthonormal(rng, problem.shape)
        y[..., -1] *= (np.sign(np.linalg.det(y)) * component)[..., None]
        assert np.all(problem.fun(y) >= fun - 1e-12)


@pytest.mark.parametrize("case", ["procrustes-square", "pca-square", "brockett-square"])
def test_component_per_matrix_and_best_of_both(case):
    build, arrays, _ = make(case, stack=(2, 3))
    problem = build(**arrays)
    signs = np.array([[1, -1, -1], [-1, 1, -1]])
    x, fun = problem.optimum(signs)
    np.testing.assert_array_equal(np.sign(np.linalg.det(x)), signs)
    plus, minus = problem.optimum(1)[1], problem.optimum(np.int64(-1))[1]
    np.testing.assert_allclose(fun, np.where(signs == 1, plus, minus), rtol=1e-12)
    np.testing.assert_allclose(
        problem.optimum()[1], np.minimum(plus, minus), rtol=1e-12, atol=1e-13
    )
    if case == "procrustes-square":
        assert np.all(plus != minus)
    else:
        np.testing.assert_allclose(plus, minus, rtol=1e-12)


def test_component_in_one_dimension():
    problem = Procrustes(np.array([[2.0]]), np.array([[3.0]]))
    assert problem.optimum(1)[1] == 1.0
    assert problem.optimum(-1)[1] == 25.0


@pytest.mark.parametrize(
    "problem",
    [
        Procrustes.random(3, 4, rng=0),
        Procrustes.random(4, 3, rng=0),
        Procrustes.random(3, rng=0, dtype=np.complex128),
        UnbalancedProcrustes.random(4, 3, rng=0),
        PCA.random(4, 3, rng=0),
        Brockett.random(4, 3, rng=0),
        PCA.random(3, 3, rng=0, dtype=np.complex64),
    ],
    ids=repr,
)
@pytest.mark.parametrize("component", [1, -1])
def test_component_without_meaning(problem, component):
    with pytest.raises(ValueError, match="connected"):
        problem.optimum(component)


@pytest.mark.parametrize("component", [0, 2, True, "best", [1, 0], 0.5, np.nan])
@pytest.mark.parametrize("cls", [Procrustes, UnbalancedProcrustes])
def test_component_out_of_range(cls, component):
    problem = Procrustes.random(3, rng=0) if cls is Procrustes else cls.random(3, 3, rng=0)
    with pytest.raises(ValueError, match=r"\+1 or -1"):
        problem.optimum(component)


def test_component_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        Procrustes.random(3, stack=(2,), rng=0).optimum([1, -1, 1])


# -- closed forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(("n", "p"), [(5, 5), (7, 4)])
def test_procrustes_recovers_the_rotation_and_is_accurate_near_zero(n, p, dtype):
    rng = np.random.default_rng(0)
    x0, A = orthonormal(rng, (n, p), dtype), gaussian(rng, (p, 8), dtype)
    x, fun = Procrustes(A, x0 @ A).optimum()
    np.testing.assert_allclose(x, x0, atol=1e-12)
    # trace(A A^H) - 2 Re<X, B A^H> + ||B||^2 would leave 1e-15 here.
    assert 0 <= fun < 1e-26


def test_weight_scales_everything():
    rng = np.random.default_rng(0)
    plain, scaled = (Procrustes.random(3, 4, rng=1, weight=w) for w in (1.0, 1e4))
    x, v = gaussian(rng, (2, 4, 3))
    np.testing.assert_allclose(scaled.fun(x), 1e4 * plain.fun(x), rtol=1e-13)
    np.testing.assert_allclose(scaled.grad(x), 1e4 * plain.grad(x), rtol=1e-13, atol=1e-9)
    np.testing.assert_allclose(scaled.hessp(x, v), 1e4 * plain.hessp(x, v), rtol=1e-13, atol=1e-9)
    np.testing.assert_allclose(scaled.optimum()[0], plain.optimum()[0])


@pytest.mark.parametrize("samples", [3, 20])
def test_pca_optimum_is_the_leading_subspace(samples):
    rng = np.random.default_rng(0)
    data = gaussian(rng, (samples, 6)) * np.arange(1, 7)
    problem = PCA(data, 2)
    x, fun = problem.optimum()
    eigenvalues = np.linalg.svd(data, compute_uv=False)[:2] ** 2 / samples
    assert fun == pytest.approx(-eigenvalues.sum() / 2)
    rayleigh = np.linalg.norm(data @ x, axis=0) ** 2 / samples
    np.testing.assert_allclose(rayleigh, eigenvalues)  # largest first


@pytest.mark.parametrize(
    "weights",
    [
        [3.0, 2.0, 1.0],
        [1.0, 3.0, 2.0],
        [-1.0, -3.0],
        [2.0, -1.0, 0.5],
        [-2.0, 1.0, -1.0, 3.0],
        [0.0, -1.0, 1.0],
        [0.0, 0.0],
        [2.0, 2.0, -1.0, -1.0],
        [1.0],
        [-1.0],
        [3.0, -2.0, 1.0, 0.0, -4.0],
        [1.0, 1.0, 1.0, 1.0, 1.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("shift", [0.0, 10.0, -10.0])
def test_brockett_optimum_over_all_choices_of_eigenvectors(weights, shift):
    rng = np.random.default_rng(0)
    K = hermitian(rng, (5, 5), "complex128") + shift * np.eye(5)
    eigenvalues = np.linalg.eigvalsh(K)
    # A minimum has eigenvectors as columns (or a choice of these does as well).
    best = min(
        np.dot(weights, eigenvalues[list(choice)])
        for choice in itertools.permutations(range(5), len(weights))
    )
    problem = Brockett(K, weights)
    x, fun = problem.optimum()
    assert fun == pytest.approx(best, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(x.conj().T @ x, np.eye(len(weights)), atol=1e-13)


# -- arrays ----------------------------------------------------------------------------------------


def to_numpy(x):
    return x


def to_strict(x):
    return array_api_strict.asarray(x)


def to_second_device(x):
    return array_api_strict.asarray(x, device=array_api_strict.Device("device1"))


def to_torch(x):
    return torch.asarray(np.ascontiguousarray(x))


LIBRARIES = {
    "numpy": to_numpy,
    "strict": to_strict,
    "strict-device1": to_second_device,
    "torch": to_torch,
}


@pytest.mark.parametrize("stack", [(), (2,)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", CASES)
def test_same_library_dtype_device_and_numbers(case, library, dtype, stack):
    convert = LIBRARIES[library]
    build, arrays, _ = make(case, dtype, stack)
    reference = build(**arrays)
    problem = build(**{name: convert(array) for name, array in arrays.items()})
    assert problem.shape == reference.shape and repr(problem) == repr(reference)
    assert problem.constraint == Stiefel()
    rng = np.random.default_rng(1)
    x_, v_ = gaussian(rng, reference.shape, dtype), gaussian(rng, reference.shape, dtype)
    x, v = convert(x_), convert(v_)
    tolerance = (
        {"rtol": 2e-4, "atol": 2e-4}
        if dtype in ("float32", "complex64")
        else {"rtol": 1e-11, "atol": 1e-11}
    )

    def same(array, expected, like=x):
        assert type(array) is type(like) and array.dtype == like.dtype
        assert _xp.device_of(array) == _xp.device_of(like)
        np.testing.assert_allclose(_xp.to_host(array), expected, **tolerance)

    def same_value(value, expected):
        assert tuple(np.shape(expected)) == stack
        if library == "numpy" and not stack:
            assert type(value) is float
        else:
            assert type(value) is type(x) and tuple(value.shape) == stack
            assert _xp.dtype_name(value) == {"complex64": "float32", "complex128": "float64"}.get(
                dtype, dtype
            )
            assert _xp.device_of(value) == _xp.device_of(x)
            value = _xp.to_host(value)
        np.testing.assert_allclose(value, expected, **tolerance)

    assert type(problem.like) is type(x) and problem.like.dtype == x.dtype
    same_value(problem.fun(x), reference.fun(x_))
    same(problem.grad(x), reference.grad(x_))
    value, G = problem.value_and_gradient(x)
    same_value(value, reference.fun(x_))
    same(G, reference.grad(x_))
    same(problem.hessp(x, v), reference.hessp(x_, v_))
    n, p = reference.shape[-2:]
    components = [None, 1, -1, np.asarray([1, -1])[: np.prod(stack, dtype=int)].reshape(stack)]
    for component in components if n == p and dtype.startswith("f") else [None]:
        optimum = problem.optimum(component)
        expected = reference.optimum(component)
        if expected is None:
            assert optimum is None
            continue
        point, fun = optimum
        same(point, _xp.to_host(point))  # eigenvectors have no fixed phase: kind, not numbers
        assert tuple(point.shape) == reference.shape
        same_value(fun, expected[1])
        if component is not None:
            np.testing.assert_array_equal(np.sign(np.linalg.det(_xp.to_host(point))), component)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_inputs_are_never_written(case, dtype):
    build, arrays, _ = make(case, dtype)
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    problem = build(**arrays)
    rng = np.random.default_rng(1)
    x, v = gaussian(rng, problem.shape, dtype), gaussian(rng, problem.shape, dtype)
    x.flags.writeable = v.flags.writeable = False
    results = [problem.grad(x), problem.value_and_gradient(x)[1], problem.hessp(x, v)]
    problem.fun(x)
    problem.optimum()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
    # Fresh arrays that the caller may overwrite without harm.
    kept = [result.copy() for result in results]
    for result in results:
        result[...] = np.nan
    again = [problem.grad(x), problem.value_and_gradient(x)[1], problem.hessp(x, v)]
    for first, second in zip(kept, again, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("case", CASES)
def test_memory_order_does_not_matter(case):
    build, arrays, _ = make(case)
    reference = build(**arrays)
    problem = build(**{name: np.asfortranarray(array) for name, array in arrays.items()})
    x = gaussian(np.random.default_rng(1), problem.shape)
    spread = np.zeros((2 * x.shape[0], 3 * x.shape[1]))
    spread[::2, ::3] = x
    for y in (np.asfortranarray(x), spread[::2, ::3]):
        np.testing.assert_allclose(problem.fun(y), reference.fun(x), rtol=1e-13)
        np.testing.assert_allclose(problem.grad(y), reference.grad(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_numpy_scalars_do_not_promote_float32(case):
    build, arrays, _ = make(case, "float32", (2,))
    problem = build(**arrays)
    x = gaussian(np.random.default_rng(0), problem.shape, "float32")
    assert problem.fun(x).dtype == np.float32
    weighted = Procrustes.random(3, rng=0, dtype=np.float32, weight=np.float64(2.0))
    assert weighted.grad(np.eye(3, dtype=np.float32)).dtype == np.float32


# -- random instances ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_instances(dtype):
    problems = [
        Procrustes.random(3, rng=1, dtype=dtype),
        Procrustes.random(3, 5, 4, stack=(2,), rng=1, dtype=dtype),
        UnbalancedProcrustes.random(5, 3, rng=1, dtype=dtype),
        UnbalancedProcrustes.random(5, 3, 7, stack=(2, 2), rng=1, dtype=dtype),
        PCA.random(5, 3, rng=1, dtype=dtype),
        Brockett.random(5, 3, rng=1, dtype=dtype),
    ]
    shapes = [(3, 3), (2, 5, 3), (5, 3), (2, 2, 5, 3), (5, 3), (5, 3)]
    assert [problem.shape for problem in problems] == shapes
    assert all(problem.like.dtype == np.dtype(dtype) for problem in problems)


def test_random_is_reproducible_and_leaves_the_global_state():
    state = np.random.get_state()[1].copy()
    a, b = Procrustes.random(3, rng=7), Procrustes.random(3, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(a.A, b.A)
    np.testing.assert_array_equal(a.B, b.B)
    assert not np.array_equal(a.A, Procrustes.random(3, rng=8).A)
    np.testing.assert_array_equal(
        a.A.astype(np.float32), Procrustes.random(3, rng=7, dtype="float32").A
    )
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("cls", [PCA, Brockett])
@pytest.mark.parametrize("dtype", WIDE)
def test_random_spectrum(cls, dtype):
    problem = cls.random(4, 2, spectrum=[1, -2, 3, 0.5], rng=0, dtype=dtype)
    np.testing.assert_allclose(np.linalg.eigvalsh(problem.like), [-2, 0.5, 1, 3], atol=1e-13)
    default = cls.random(4, 2, rng=0, dtype=dtype)
    np.testing.assert_allclose(np.linalg.eigvalsh(default.like), [0.1, 0.4, 0.7, 1.0], atol=1e-13)


def test_complex_gaussian_has_unit_variance():
    A = Procrustes.random(200, rng=0, dtype=np.complex128).A
    assert np.mean(np.abs(A) ** 2) == pytest.approx(1.0, abs=0.02)
    assert abs(np.mean(A**2)) < 0.02


def test_repr():
    assert repr(Procrustes.random(40, rng=0)) == "Procrustes(n=40, p=40, m=40, float64)"
    stacked = Procrustes.random(2, 3, stack=(5,), rng=0, dtype="complex64", weight=0.5)
    assert repr(stacked) == "Procrustes(stack=(5,), n=3, p=2, m=2, complex64, weight=0.5)"
    assert (
        repr(UnbalancedProcrustes.random(3, 2, rng=0))
        == "UnbalancedProcrustes(n=3, p=2, m=3, float64)"
    )
    assert repr(PCA.random(3, 2, rng=0)) == "PCA(n=3, p=2, float64)"
    assert repr(Brockett.random(3, 2, rng=0)) == "Brockett(n=3, p=2, float64)"


# -- refusals --------------------------------------------------------------------------------------

A, B, K = np.ones((3, 5)), np.ones((4, 5)), np.eye(3)
NAN = np.array([[1.0, np.nan], [0.0, 1.0]])


REFUSALS = {
    "inner axes": (
        lambda: Procrustes(A, np.ones((4, 6))),
        ValueError,
        r"\(3, 5\).*\(4, 6\).*same last axis",
    ),
    "rows": (
        lambda: UnbalancedProcrustes(A, B),
        ValueError,
        r"\(3, 5\).*\(4, 5\).*same number of rows",
    ),
    "list": (lambda: Procrustes([[1.0]], B), TypeError, r"A: expected an array.*list"),
    "list B": (lambda: UnbalancedProcrustes(A, [[1.0]]), TypeError, r"B: expected an array.*list"),
    "integers": (lambda: Procrustes(A, B.astype(int)), TypeError, r"B has dtype int64.*B\.astype"),
    "half": (lambda: PCA(A.astype("float16"), 2), TypeError, r"float16.*data\.astype"),
    "long": (lambda: Brockett(K.astype("longdouble"), [1.0]), TypeError, r"dtype .*K\.astype"),
    "booleans": (lambda: PCA.from_covariance(K > 0, 1), TypeError, "bool"),
    "vector": (lambda: Procrustes(A[0], B), ValueError, r"A has shape \(5,\)"),
    "empty": (lambda: PCA(np.ones((0, 3)), 1), ValueError, r"\(0, 3\).*at least one entry"),
    "dtypes": (lambda: Procrustes(A, B.astype("float32")), TypeError, "float64 and float32.*cast"),
    "kinds": (lambda: UnbalancedProcrustes(A, A + 0j), TypeError, "float64 and complex128"),
    "libraries": (
        lambda: Procrustes(A, to_torch(B)),
        TypeError,
        r"different array libraries.*torch",
    ),
    "devices": (
        lambda: Procrustes(to_strict(A), to_second_device(B)),
        ValueError,
        "devices.*device1",
    ),
    "stacks": (lambda: Procrustes(A[None], B), ValueError, r"\(1, 3, 5\).*\(4, 5\).*batch axes"),
    "nan": (lambda: Procrustes(NAN, NAN), ValueError, "A has entries that are NaN"),
    "inf": (lambda: UnbalancedProcrustes(A, A / 0.0), ValueError, "B has entries"),
    "nan data": (lambda: PCA(NAN, 1), ValueError, "data has entries"),
    "nan K": (lambda: Brockett(NAN, [1.0]), ValueError, "K has entries"),
    "weight zero": (lambda: Procrustes(A, B, weight=0.0), ValueError, "positive and finite"),
    "weight nan": (lambda: Procrustes(A, B, weight=np.nan), ValueError, "positive and finite"),
    "weight array": (
        lambda: UnbalancedProcrustes(A, A, weight=[1, 2]),
        TypeError,
        "one real number",
    ),
    "components 0": (lambda: PCA(A, 0), ValueError, r"n_components = 0.*between 1 and n = 5"),
    "components 6": (lambda: PCA(A, 6), ValueError, "between 1 and n = 5"),
    "components 1.5": (lambda: PCA.from_covariance(K, 1.5), TypeError, "integer, got float"),
    "not square": (lambda: Brockett(A, [1.0]), ValueError, r"K has shape \(3, 5\).*square"),
    "not symmetric": (
        lambda: Brockett(np.triu(np.ones((3, 3))), [1.0]),
        ValueError,
        r"not Hermitian.*= 1 ",
    ),
    "not Hermitian": (lambda: PCA.from_covariance(K * 1j, 1), ValueError, r"not Hermitian.*= 2 "),
    "weights axes": (lambda: Brockett(K, K), ValueError, r"\(3, 3\).*p weights"),
    "weights many": (lambda: Brockett(K, [1.0] * 4), ValueError, r"\(4,\).*p <= n = 3"),
    "weights none": (lambda: Brockett(K, []), ValueError, r"\(0,\)"),
    "weights text": (lambda: Brockett(K, ["a"]), TypeError, "real numbers"),
    "weights number": (lambda: Brockett(K, 1.0), TypeError, "weights: expected an array"),
    "weights complex": (lambda: Brockett(K + 0j, K[0] + 0j), TypeError, r"astype\('float64'\)"),
    "weights integer": (
        lambda: Brockett(K.astype("f4"), np.ones(2, int)),
        TypeError,
        r"int64.*'float32'",
    ),
    "weights nan": (lambda: Brockett(K, [np.nan]), ValueError, "weights has entries"),
    "weights library": (
        lambda: Brockett(K, to_torch(K[0])),
        TypeError,
        "different array libraries",
    ),
    "weights device": (
        lambda: Brockett(to_strict(K), to_second_device(K[0])),
        ValueError,
        "devices.*device1",
    ),
    "spectrum": (lambda: PCA.random(3, 2, spectrum=[1, 2]), ValueError, r"n = 3.*\(2,\)"),
    "spectrum nan": (
        lambda: Brockett.random(2, 1, spectrum=[1, np.inf]),
        ValueError,
        "n = 2 finite",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_refusals_say_what_why_and_what_to_do(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=message):
        call()


def test_hermitian_is_checked_for_each_matrix_of_a_stack():
    bad = np.array([[0.0, 1e-20], [0.0, 0.0]])
    with pytest.raises(ValueError, match="not Hermitian"):
        Brockett(np.stack([np.eye(2), bad]), [1.0])


def test_hermitian_to_rounding_is_accepted():
    data = np.random.default_rng(0).standard_normal((50, 5)).astype("float32")
    K = data.T @ data
    K[0, 1] *= 1 + 1e-6
    assert PCA.from_covariance(K, 2).like is K


@pytest.mark.parametrize("dtype", WIDE)
def test_square_unbalanced_is_procrustes_of_the_adjoint(dtype):
    problem = UnbalancedProcrustes.random(3, 3, 5, rng=0, dtype=dtype)
    balanced = Procrustes(_xp.H(problem.A), _xp.H(problem.B))
    x = gaussian(np.random.default_rng(1), (3, 3), dtype)
    assert problem.fun(x) == pytest.approx(balanced.fun(_xp.H(x)))
