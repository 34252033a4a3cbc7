"""Independent components and joint diagonalization: derivatives, recovery, arrays, refusals."""

from __future__ import annotations

import builtins
import pickle
import threading

import numpy as np
import pytest
from reference import gaussian, hermitian

import landingopt as lo
from landingopt import _xp
from landingopt.objectives import Stiefel
from landingopt.problems import ICA, JointDiagonalization
from landingopt.problems.ica import amari_distance, whiten

REAL = ["float32", "float64"]
DTYPES = [*REAL, "complex64", "complex128"]
WIDE = ["float64", "complex128"]


def skewed(rng, shape, dtype="float64"):
    """Data whose distribution is not symmetric: f of x and of -x differ in their terms."""
    return (rng.exponential(size=shape) - 0.3).astype(dtype)


def naive_joint(C, x, weight=1.0):
    total = 0.0
    for matrix in C:
        D = x.conj().T @ matrix @ x
        total += np.sum(np.abs(D - np.diag(np.diag(D))) ** 2)
    return weight * total / 4


def naive_ica(data, x):
    return np.mean(np.sum(np.logaddexp(data @ x, -(data @ x)) - np.log(2), axis=1))


def off(matrices):
    return matrices * (1 - np.eye(matrices.shape[-1]))


def tolerance(dtype):
    narrow = dtype in ("float32", "complex64")
    return {"rtol": 2e-4, "atol": 2e-4} if narrow else {"rtol": 1e-11, "atol": 1e-11}


# -- joint diagonalization -------------------------------------------------------------------------

SIZES = [(4, 3), (5, 1), (1, 2), (2, 7)]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(("n", "count"), SIZES)
class TestJointDerivatives:
    def build(self, n, count, dtype):
        rng = np.random.default_rng([n, count])
        C = hermitian(rng, (count, n, n), dtype)
        return C, JointDiagonalization(C, weight=0.7), gaussian(rng, (2, n, n), dtype)

    def test_value_is_the_formula_off_the_manifold(self, n, count, dtype):
        C, problem, (x, _) = self.build(n, count, dtype)
        assert type(problem.fun(x)) is float
        np.testing.assert_allclose(problem.fun(x), naive_joint(C, x, 0.7), rtol=1e-13)

    def test_gradient_and_hessian_are_the_formulas(self, n, count, dtype):
        C, problem, (x, v) = self.build(n, count, dtype)
        E = off(_xp.H(x) @ C @ x)
        np.testing.assert_allclose(
            problem.grad(x), 0.7 * (C @ x @ E).sum(0), rtol=1e-12, atol=1e-12
        )
        F = off(_xp.H(v) @ C @ x + _xp.H(x) @ C @ v)
        expected = 0.7 * (C @ v @ E + C @ x @ F).sum(0)
        np.testing.assert_allclose(problem.hessp(x, v), expected, rtol=1e-12, atol=1e-12)

    def test_both_together_are_each_alone(self, n, count, dtype):
        _, problem, (x, _) = self.build(n, count, dtype)
        value, G = problem.value_and_gradient(x)
        assert value == problem.fun(x) and type(value) is float
        np.testing.assert_array_equal(G, problem.grad(x))


@pytest.mark.parametrize("dtype", WIDE)
def test_joint_passes_the_checkers_off_the_manifold(rng, dtype):
    problem = JointDiagonalization(hermitian(rng, (3, 5, 5), dtype), weight=2.0)
    for scale in (0.3, 1.0, 3.0):
        x = scale * gaussian(rng, (5, 5), dtype)
        lo.check_gradient(problem, x, raise_on_failure=True)
        lo.check_hessian(problem, x, raise_on_failure=True)


def test_a_wrong_gradient_is_rejected(rng):
    joint = JointDiagonalization(hermitian(rng, (3, 5, 5)))
    x = gaussian(rng, (5, 5))

    def with_the_diagonal(x):  # the gradient of ||x^T C x||_F^2 / 4
        return (joint.C @ x @ (x.T @ joint.C @ x)).sum(axis=0)

    assert not lo.check_gradient(lo.Objective(joint.fun, with_the_diagonal, shape=(5, 5)), x)

    def frozen_residuals(x, v):
        return (joint.C @ v @ off(x.T @ joint.C @ x)).sum(axis=0)

    wrong = lo.Objective(joint.fun, joint.grad, hessp=frozen_residuals, shape=(5, 5))
    assert not lo.check_hessian(wrong, x)

    ica = ICA(skewed(rng, (40, 4)))
    x = gaussian(rng, (4, 4))
    slightly = lo.Objective(ica.fun, lambda x: 1.001 * ica.grad(x), shape=(4, 4))
    assert not lo.check_gradient(slightly, x)
    signless = lo.Objective(
        ica.fun, lambda x: ica.data.T @ np.abs(np.tanh(ica.data @ x)) / 40, shape=(4, 4)
    )
    assert not lo.check_gradient(signless, x)


@pytest.mark.parametrize("dtype", WIDE)
def test_joint_stack_is_the_loop(rng, dtype):
    C = hermitian(rng, (2, 3, 4, 5, 5), dtype)
    problem = JointDiagonalization(C, weight=3.0)
    assert problem.shape == (2, 3, 5, 5)
    assert repr(problem).startswith("JointDiagonalization(stack=(2, 3), n=5, count=4")
    x, v = gaussian(rng, (2, *problem.shape), dtype)
    value, G = problem.value_and_gradient(x)
    product = problem.hessp(x, v)
    assert value.shape == (2, 3)
    np.testing.assert_array_equal(problem.fun(x), value)
    np.testing.assert_array_equal(problem.grad(x), G)
    for i in np.ndindex(2, 3):
        alone = JointDiagonalization(C[i], weight=3.0)
        np.testing.assert_allclose(value[i], alone.fun(x[i]), rtol=1e-12)
        np.testing.assert_allclose(G[i], alone.grad(x[i]), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(product[i], alone.hessp(x[i], v[i]), rtol=1e-11, atol=1e-11)


def test_joint_takes_many_points(rng):
    problem = JointDiagonalization(hermitian(rng, (3, 4, 4)))
    x, v = gaussian(rng, (2, 6, 4, 4))
    value, G = problem.value_and_gradient(x)
    np.testing.assert_allclose(value, [problem.fun(xi) for xi in x], rtol=1e-12)
    np.testing.assert_allclose(G, [problem.grad(xi) for xi in x], rtol=1e-11, atol=1e-12)
    each = [problem.hessp(xi, vi) for xi, vi in zip(x, v, strict=True)]
    np.testing.assert_allclose(problem.hessp(x, v), each, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("n", [5, 12])
def test_joint_basis_is_recovered(n, dtype):
    problem = JointDiagonalization.random(n, count=6, rng=1, dtype=dtype)
    result = lo.minimize(problem, tol=1e-9, rng=2)
    assert result.success
    # Up to the order and the signs (phases) of the columns.
    overlaps = np.abs(problem.basis.conj().T @ result.feasible_x)
    columns = overlaps.argmax(axis=0)
    assert sorted(columns) == list(range(n))
    np.testing.assert_allclose(overlaps, np.eye(n)[:, columns], atol=1e-7)
    assert result.feasible_fun < 1e-14


def test_joint_start_of_the_same_seed_is_not_the_solution():
    for seed in range(3):
        problem = JointDiagonalization.random(6, rng=seed)
        result = lo.minimize(problem, stop=lo.MaxIterations(1), rng=seed)
        assert result.trace["fun"][0] > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stack", [(), (2,)], ids=str)
def test_joint_optimum(dtype, stack):
    problem = JointDiagonalization.random(4, count=3, stack=stack, rng=0, dtype=dtype)
    assert problem.like.dtype == np.dtype(dtype) and problem.shape == (*stack, 4, 4)
    real = np.dtype(dtype).kind == "f"
    for component in [None, 1, -1] if real else [None]:
        x, fun = problem.optimum(component)
        assert x.dtype == np.dtype(dtype) and np.shape(fun) == stack and np.all(fun == 0)
        assert type(fun) is type(problem.fun(x))
        unit = _xp.unit_roundoff(x)
        assert np.all(problem.fun(x) < 1e3 * unit**2)
        assert np.abs(_xp.H(x) @ x - np.eye(4)).max() < 10 * unit
        if component is not None:
            np.testing.assert_array_equal(np.sign(np.linalg.det(x)), component)
        x[...] = np.nan  # a copy
    assert np.isfinite(problem.basis).all()


def test_joint_optimum_is_none_where_none_is_known(rng):
    noisy = JointDiagonalization.random(4, noise=1e-3, rng=0)
    assert noisy.optimum() is None and noisy.basis is not None
    assert 0 < noisy.fun(noisy.basis) < 1e-3
    own = JointDiagonalization(hermitian(rng, (2, 3, 3)))
    assert own.optimum(-1) is None and own.basis is None
    with pytest.raises(ValueError, match="connected"):
        JointDiagonalization.random(3, rng=0, dtype="complex128").optimum(1)
    with pytest.raises(ValueError, match=r"\+1 or -1"):
        own.optimum(2)


@pytest.mark.parametrize("dtype", WIDE)
def test_joint_noise_has_the_stated_size(dtype):
    clean = JointDiagonalization.random(30, count=20, rng=0, dtype=dtype)
    noisy = JointDiagonalization.random(30, count=20, noise=0.5, rng=0, dtype=dtype)
    difference = (noisy.C - clean.C) / 0.5
    rows, columns = np.triu_indices(30, 1)
    assert np.mean(np.abs(difference[:, rows, columns]) ** 2) == pytest.approx(1.0, rel=0.05)


def test_joint_is_accurate_near_zero():
    problem = JointDiagonalization.random(6, count=4, rng=0)
    # sum ||C||^2 - sum |diag|^2 would leave 1e-15 here.
    assert problem.fun(problem.basis) < 1e-28


@pytest.mark.parametrize("weight", [1e-8, 1e4])
def test_joint_weight_scales_everything(rng, weight):
    C = hermitian(rng, (3, 4, 4))
    plain, scaled = JointDiagonalization(C), JointDiagonalization(C, weight=weight)
    x, v = gaussian(rng, (2, 4, 4))
    for a, b in [
        (scaled.fun(x), plain.fun(x)),
        (scaled.grad(x), plain.grad(x)),
        (scaled.hessp(x, v), plain.hessp(x, v)),
    ]:
        np.testing.assert_allclose(np.asarray(a) / weight, b, rtol=1e-11, atol=1e-11)


def test_joint_with_matrices_hermitian_to_rounding(rng):
    """The gradient is that of the value, although C is not symmetric in its last digits."""
    C = hermitian(rng, (3, 4, 4)).astype("float32")
    C *= 1 + 1e-5 * np.triu(np.ones((4, 4), dtype="float32"), 1)
    problem = JointDiagonalization(C)
    symmetric = JointDiagonalization((C + C.mT) / 2)
    x = gaussian(rng, (4, 4), "float32")
    assert problem.fun(x) == symmetric.fun(x)
    np.testing.assert_array_equal(problem.grad(x), symmetric.grad(x))


# -- independent components ------------------------------------------------------------------------

SAMPLES = [(7, 4, 2), (300, 5, 5), (65, 3, 1), (1, 2, 2), (9000, 3, 3)]


@pytest.mark.parametrize(("samples", "n", "p"), SAMPLES)
class TestICADerivatives:
    def build(self, samples, n, p):
        rng = np.random.default_rng([samples, n])
        data = skewed(rng, (samples, n))
        return data, ICA(data, p=p), gaussian(rng, (2, n, p))

    def test_value_and_derivatives_are_the_formulas(self, samples, n, p):
        data, problem, (x, v) = self.build(samples, n, p)
        assert problem.n_terms == samples and problem.data is data and problem.shape == (n, p)
        value, G = problem.value_and_gradient(x)
        assert type(value) is float and type(problem.fun(x)) is float
        np.testing.assert_allclose(value, naive_ica(data, x), rtol=1e-13)
        np.testing.assert_allclose(problem.fun(x), value, rtol=1e-14)
        tangents = np.tanh(data @ x)
        np.testing.assert_allclose(G, data.T @ tangents / samples, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(G, problem.grad(x))
        expected = data.T @ ((1 - tangents**2) * (data @ v)) / samples
        for _ in range(2):  # the second time with the curvature kept
            np.testing.assert_allclose(problem.hessp(x, v), expected, rtol=1e-11, atol=1e-13)

    def test_passes_the_checkers_off_the_manifold(self, samples, n, p):
        _, problem, (x, _) = self.build(samples, n, p)
        lo.check_gradient(problem, x, raise_on_failure=True)
        lo.check_hessian(problem, x, raise_on_failure=True)


def test_ica_takes_many_points(rng):
    problem = ICA(skewed(rng, (50, 4)), p=3)
    x, v = gaussian(rng, (2, 6, 4, 3))
    value, G = problem.value_and_gradient(x)
    np.testing.assert_allclose(value, [problem.fun(xi) for xi in x], rtol=1e-12)
    np.testing.assert_array_equal(problem.fun(x), value)
    np.testing.assert_allclose(G, [problem.grad(xi) for xi in x], rtol=1e-12, atol=1e-14)
    each = [problem.hessp(xi, vi) for xi, vi in zip(x, v, strict=True)]
    np.testing.assert_allclose(problem.hessp(x, v), each, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("size", [1e-6, 1.0, 30.0, 1e4, 1e30])
def test_log_cosh_is_stable_at_every_size(rng, dtype, size):
    data = (size * skewed(rng, (200, 3))).astype(dtype)
    x = gaussian(rng, (3, 3), dtype)
    problem = ICA(data)
    wide = data.astype("float64") @ x.astype("float64")
    expected = np.mean(np.sum(np.logaddexp(wide, -wide) - np.log(2), axis=1))
    unit = _xp.unit_roundoff(data)
    with np.errstate(all="raise", under="ignore"):
        value = problem.fun(x)
        both, G = problem.value_and_gradient(x)
    # Absolute accuracy below 1: one unit for each of the entries of a row.
    for f in (value, both):
        assert abs(f - expected) < 20 * unit * max(1.0, expected)
    assert G.dtype == data.dtype and np.isfinite(G).all()
    assert np.abs(G - data.T.astype("f8") @ np.tanh(wide) / 200).max() < 100 * unit * max(1, size)


def test_hessian_follows_memory_that_is_used_again(rng):
    """x in the same memory with other entries is another point."""
    problem = ICA(skewed(rng, (30, 4)))
    x, v = gaussian(rng, (2, 4, 4))
    points = gaussian(rng, (3, 4, 4))
    for point in [*points, points[0]]:
        x[...] = point
        np.testing.assert_array_equal(problem.hessp(x, v), ICA(problem.data).hessp(point, v))
        x *= 2.0
        np.testing.assert_array_equal(problem.hessp(x, v), ICA(problem.data).hessp(2 * point, v))


@pytest.mark.parametrize("n", [3, 8])
def test_ica_finds_the_sources(n):
    problem = ICA.random(n, 5000, rng=1)
    result = lo.minimize(problem, rng=2)
    assert result.success
    assert amari_distance(result.feasible_x.T, problem.mixing) < 0.03
    assert amari_distance(np.eye(n), problem.mixing) > 0.1  # whitening alone does not


def test_ica_random_is_whitened_and_mixed_as_stated():
    rng = np.random.default_rng(3)
    problem = ICA.random(4, 1000, rng=3)
    sources = rng.laplace(size=(1000, 4))
    np.testing.assert_allclose(problem.data.T @ problem.data / 1000, np.eye(4), atol=1e-12)
    centred = sources - sources.mean(axis=0)
    np.testing.assert_allclose(problem.data, centred @ problem.mixing.T, atol=1e-11)
    single = ICA.random(4, 1000, rng=3, dtype="float32")
    np.testing.assert_array_equal(single.data, problem.data.astype("float32"))
    assert single.grad(np.eye(4, dtype="float32")).dtype == np.float32


def test_ica_digits():
    pytest.importorskip("sklearn")
    problem = ICA.digits(10, dtype="float32")
    assert repr(problem) == "ICA(n=10, p=10, samples=1797, float32)"
    wide = problem.data.astype("float64")
    np.testing.assert_allclose(wide.T @ wide / 1797, np.eye(10), atol=1e-4)
    with pytest.raises(ValueError, match="rank 61"):
        ICA.digits(62)


def test_ica_digits_without_scikit_learn(monkeypatch):
    find = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "landingopt\[examples\]"'):
        ICA.digits()


# -- whitening and the Amari distance --------------------------------------------------------------


def test_whiten_keeps_the_leading_components(rng):
    data = skewed(rng, (200, 5)) * np.array([1.0, 9.0, 3.0, 0.1, 2.0]) + 7.0
    whitened, matrix = whiten(data, 3)
    assert whitened.shape == (200, 3) and matrix.shape == (5, 3)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(whitened.T @ whitened / 200, np.eye(3), atol=1e-12)
    np.testing.assert_allclose((data - data.mean(axis=0)) @ matrix, whitened, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(np.cov(data.T, bias=True))[::-1]
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=0) ** -2, eigenvalues[:3])


def test_whiten_in_every_library(arrays, rng):
    data = skewed(rng, (60, 4))
    whitened, matrix = whiten(arrays.to(data), 3)
    assert arrays.host(matrix).shape == (4, 3)
    host = arrays.host(whitened)
    np.testing.assert_allclose(host.T @ host / 60, np.eye(3), atol=1e-12)


def test_amari_distance_is_the_formula(rng):
    P = gaussian(rng, (4, 4))
    total = 0.0
    for i in range(4):
        total += sum(abs(P[i, j]) for j in range(4)) / max(abs(P[i, k]) for k in range(4)) - 1
        total += sum(abs(P[j, i]) for j in range(4)) / max(abs(P[k, i]) for k in range(4)) - 1
    mixing = gaussian(rng, (4, 4))
    distance = amari_distance(P @ np.linalg.inv(mixing), mixing)
    assert type(distance) is float and distance == pytest.approx(total / 24)


@pytest.mark.parametrize("dtype", WIDE)
def test_amari_distance_is_zero_only_for_scaled_permutations(rng, dtype):
    scaled = np.zeros((4, 4), dtype)
    scaled[[2, 0, 3, 1], range(4)] = gaussian(rng, 4, dtype)
    assert amari_distance(scaled, np.eye(4)) == 0.0
    assert amari_distance(np.array([[3.0]]), np.array([[2.0]])) == 0.0
    wide, tall = np.eye(3, 5), np.eye(5, 3)
    assert amari_distance(wide, tall) == 0.0
    nearly = scaled.copy()
    nearly[0, 0] = 1e-3
    assert 0 < amari_distance(nearly, np.eye(4)) < 1e-2
    assert amari_distance(np.ones((4, 4)), np.eye(4)) == 1.0


# -- arrays ----------------------------------------------------------------------------------------


def build(case, rng, dtype):
    """(make a problem of its data, data, number of stack axes)"""
    if case == "joint":
        return JointDiagonalization, hermitian(rng, (3, 4, 4), dtype)
    if case == "joint-stack":
        return JointDiagonalization, hermitian(rng, (2, 3, 4, 4), dtype)
    return (lambda data: ICA(data, p=2)), skewed(rng, (80, 4), dtype)


CASES = [(case, dtype) for case in ("joint", "joint-stack") for dtype in DTYPES] + [
    ("ica", dtype) for dtype in REAL
]


@pytest.mark.parametrize(("case", "dtype"), CASES)
def test_same_library_dtype_device_and_numbers(arrays, rng, case, dtype):
    make, data = build(case, rng, dtype)
    reference, problem = make(data), make(arrays.to(data))
    assert problem.shape == reference.shape and repr(problem) == repr(reference)
    assert problem.constraint == Stiefel()
    x_, v_ = gaussian(rng, (2, *reference.shape), dtype)
    x, v = arrays.to(x_), arrays.to(v_)

    def same(result, expected):
        assert type(result) is type(x) and result.dtype == x.dtype
        assert _xp.device_of(result) == _xp.device_of(x)
        np.testing.assert_allclose(arrays.host(result), expected, **tolerance(dtype))

    def same_value(value, expected):
        if arrays.name.startswith("numpy") and len(problem.shape) == 2:
            assert type(value) is float
        else:
            assert type(value) is type(x) and tuple(value.shape) == problem.shape[:-2]
            assert _xp.dtype_name(value) == np.empty(0, dtype).real.dtype.name
        np.testing.assert_allclose(arrays.host(value), expected, **tolerance(dtype))

    same_value(problem.fun(x), reference.fun(x_))
    same(problem.grad(x), reference.grad(x_))
    value, G = problem.value_and_gradient(x)
    same_value(value, reference.fun(x_))
    same(G, reference.grad(x_))
    same(problem.hessp(x, v), reference.hessp(x_, v_))


@pytest.mark.parametrize("case", ["joint", "joint-stack", "ica"])
def test_minimize_in_every_library(arrays, rng, case):
    make, data = build(case, rng, "float64")
    problem = make(arrays.to(data))
    result = lo.minimize(problem, stop=lo.MaxIterations(5), rng=0)
    expected = lo.minimize(make(data), stop=lo.MaxIterations(5), rng=0)
    # On a device the passes back to the manifold are planned, and may be more: the way differs a little.
    atol = 1e-2 if _xp.on_accelerator(result.x) else 1e-7
    np.testing.assert_allclose(arrays.host(result.x), expected.x, rtol=1e-7, atol=atol)


@pytest.mark.parametrize(("case", "dtype"), CASES)
def test_inputs_are_never_written_and_results_are_fresh(rng, case, dtype):
    make, data = build(case, rng, dtype)
    before = data.copy()
    data.flags.writeable = False
    problem = make(data)
    x, v = gaussian(rng, (2, *problem.shape), dtype)
    x.flags.writeable = v.flags.writeable = False
    results = [problem.grad(x), problem.value_and_gradient(x)[1], problem.hessp(x, v)]
    problem.fun(x)
    np.testing.assert_array_equal(data, before)
    kept = [result.copy() for result in results]
    for result in results:
        result[...] = np.nan
    again = [problem.grad(x), problem.value_and_gradient(x)[1], problem.hessp(x, v)]
    for first, second in zip(kept, again, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("case", ["joint", "ica"])
def test_memory_order_does_not_matter(rng, case):
    make, data = build(case, rng, "float64")
    reference, problem = make(data), make(np.asfortranarray(data))
    x = gaussian(rng, problem.shape)
    spread = np.zeros((2 * x.shape[0], 3 * x.shape[1]))
    spread[::2, ::3] = x
    for y in (np.asfortranarray(x), spread[::2, ::3]):
        np.testing.assert_allclose(problem.fun(y), reference.fun(x), rtol=1e-13)
        np.testing.assert_allclose(problem.grad(y), reference.grad(x), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(
            problem.hessp(y, y), reference.hessp(x, x), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("case", ["joint", "ica"])
def test_threads_do_not_disturb_each_other(rng, case):
    make, data = build(case, rng, "float64")
    problem = make(data)
    points = gaussian(rng, (4, *problem.shape))
    expected = [make(data).value_and_gradient(x) for x in points]
    wrong = []

    def work(x, value, G):
        for _ in range(300):
            v, g = problem.value_and_gradient(x)
            if v != value or not np.array_equal(g, G):
                wrong.append(v)

    threads = [
        threading.Thread(target=work, args=(x, *pair))
        for x, pair in zip(points, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("case", ["joint", "ica"])
def test_pickles_without_its_workspace(rng, case):
    make, data = build(case, rng, "float64")
    problem = make(data)
    fresh = len(pickle.dumps(problem))
    x, v = gaussian(rng, (2, *problem.shape))
    expected = problem.hessp(x, v)
    text = pickle.dumps(problem)
    assert len(text) == fresh
    np.testing.assert_array_equal(pickle.loads(text).hessp(x, v), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_is_reproducible(dtype):
    a = JointDiagonalization.random(3, noise=0.1, rng=7, dtype=dtype)
    b = JointDiagonalization.random(3, noise=0.1, rng=np.random.default_rng(7), dtype=dtype)
    np.testing.assert_array_equal(a.C, b.C)
    np.testing.assert_array_equal(a.C, _xp.H(a.C))
    assert a.C.dtype == np.dtype(dtype) and a.C.shape == (10, 3, 3)
    assert not np.array_equal(a.C, JointDiagonalization.random(3, rng=8, dtype=dtype).C)


# -- refusals --------------------------------------------------------------------------------------

K, A = np.ones((2, 3, 3)), np.random.default_rng(0).standard_normal((9, 3))
NAN = np.full((2, 2, 2), np.nan)

REFUSALS = {
    "one matrix": (lambda: JointDiagonalization(K[0]), ValueError, r"\(3, 3\).*C\[None\]"),
    "list": (lambda: JointDiagonalization([[[1.0]]]), TypeError, "C: expected an array.*list"),
    "integers": (lambda: JointDiagonalization(K.astype(int)), TypeError, r"int64.*C\.astype"),
    "not square": (lambda: JointDiagonalization(np.ones((2, 3, 4))), ValueError, "square"),
    "not Hermitian": (lambda: JointDiagonalization(np.triu(K)), ValueError, "C is not Hermitian"),
    "not Hermitian complex": (lambda: JointDiagonalization(K * 1j), ValueError, "not Hermitian"),
    "empty": (lambda: JointDiagonalization(K[:0]), ValueError, r"\(0, 3, 3\).*one entry"),
    "nan": (lambda: JointDiagonalization(NAN), ValueError, "C has entries that are NaN"),
    "weight": (lambda: JointDiagonalization(K, weight=-1.0), ValueError, "positive and finite"),
    "noise": (lambda: JointDiagonalization.random(3, noise=-1.0), ValueError, "noise.*-1"),
    "noise nan": (lambda: JointDiagonalization.random(3, noise=np.nan), ValueError, "noise"),
    "data complex": (lambda: ICA(A + 0j), TypeError, "complex128; real data"),
    "data stack": (lambda: ICA(A[None]), ValueError, r"\(1, 9, 3\).*a sample a row"),
    "data vector": (lambda: ICA(A[0]), ValueError, r"data has shape \(3,\)"),
    "data integers": (lambda: ICA(A.astype(int)), TypeError, r"int64.*data\.astype"),
    "data list": (lambda: ICA([[1.0]]), TypeError, "data: expected an array"),
    "data nan": (lambda: ICA(NAN[0]), ValueError, "data has entries"),
    "p 0": (lambda: ICA(A, p=0), ValueError, "p = 0.*between 1 and n = 3"),
    "p 4": (lambda: ICA(A, p=4), ValueError, "p = 4"),
    "p 1.5": (lambda: ICA(A, p=1.5), TypeError, "integer, got float"),
    "dtype": (lambda: ICA.random(2, 50, dtype=complex), TypeError, "real data"),
    "few samples": (lambda: ICA.random(5, 5, rng=0), ValueError, "rank 4; pass n_components=4"),
    "whiten rank": (lambda: whiten(A @ np.ones((3, 3))), ValueError, "3 components.*rank 1"),
    "whiten constant": (lambda: whiten(np.full((5, 2), 0.1)), ValueError, "every row.*the same"),
    "whiten many": (lambda: whiten(A, 4), ValueError, "n_components = 4"),
    "whiten stack": (lambda: whiten(A[None]), ValueError, r"\(1, 9, 3\)"),
    "whiten complex": (lambda: whiten(A + 0j), TypeError, "real data"),
    "amari shapes": (lambda: amari_distance(A, A), ValueError, r"\(9, 3\).*square"),
    "amari not square": (lambda: amari_distance(A, A[:3]), ValueError, "square"),
    "amari vector": (lambda: amari_distance(A[0], A), ValueError, r"\(3,\)"),
    "amari zero": (lambda: amari_distance(np.diag([1.0, 0]), np.eye(2)), ValueError, "zeros"),
    "amari nan": (lambda: amari_distance(NAN[0], np.eye(2)), ValueError, "NaN"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_why_and_what_to_do(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=message):
        call()
