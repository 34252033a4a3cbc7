"""Retractions: against their definitions, their order, what fails, and descents with each."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import reference as ref
import scipy.linalg
from pymanopt.manifolds import Stiefel as Pymanopt

import landingopt as lo
from landingopt._factor import expm
from landingopt._xp import kernels
from landingopt.fields import ArrayForm
from landingopt.objectives import Euclidean as Free
from landingopt.objectives import Stiefel
from landingopt.retractions import QR, Cayley, CholeskyQR, Exponential, Polar
from landingopt.space import Space

DTYPES = ["float32", "float64", "complex128"]
SHAPES = [(6, 6), (9, 4), (5, 1), (3, 9, 4), (2, 3, 5, 5)]
POLARS = [Polar(method) for method in ("newton-schulz", "eigh", "svd")]
EVERY = [
    QR(),
    CholeskyQR(),
    CholeskyQR(passes=2),
    *POLARS,
    Cayley(),
    Exponential(),
    Exponential("canonical"),
]
every = pytest.mark.parametrize("move", EVERY, ids=repr)


def projected(x, v):
    return v - x @ ref.sym(ref.H(x) @ v)


def point_and_tangent(rng, shape, dtype="float64", length=1.0):
    """X on the manifold and a general tangent F with ||F||_F = length, in both parts."""
    x = ref.orthonormal(rng, shape, dtype)
    f = projected(x, ref.gaussian(rng, shape, dtype))
    return x, (f * (length / np.linalg.norm(f, axis=(-2, -1), keepdims=True))).astype(dtype)


def started(move, x, f, constraint=None):
    """(run, form) of a move at x along f."""
    block = Space(tuple(x.shape), constraint or Stiefel(), x).blocks[0]
    form = ArrayForm(block)
    form.place(x, f)
    return move.start(block), form


def retracted(move, x, f, eta=1.0):
    run, form = started(move, x, f)
    with np.errstate(all="ignore"):  # as in a run
        return run.apply(form, eta, form.kernels.empty(form.block.inner_shape))


def host(arrays, ok):
    return np.asarray(ok) if isinstance(ok, (bool, np.ndarray)) else arrays.host(ok)


def matrices(a):
    return a.reshape(-1, *a.shape[-2:])


# -- what they are ----------------------------------------------------------------------------


def generator(x, z):
    """A = P Z X^H - X Z^H P, P = I - X X^H / 2; skew, and A X = Z."""
    p = np.eye(len(x)) - x @ ref.H(x) / 2
    return p @ z @ ref.H(x) - x @ ref.H(z) @ p


def naive(move, x, z):
    """One matrix, by the definition; n x n where there is an n x n one."""
    n, p = x.shape
    m = x + z
    if isinstance(move, (QR, CholeskyQR)):
        q, r = np.linalg.qr(m)  # unique once R's diagonal is positive
        return q * (np.diag(r) / np.abs(np.diag(r)))
    if isinstance(move, Polar):
        return scipy.linalg.polar(m)[0]
    one = np.eye(n)
    a = generator(x, z)
    if isinstance(move, Cayley):
        return np.linalg.solve(one - a / 2, (one + a / 2) @ x)
    if move.metric == "canonical" or n == p:
        return scipy.linalg.expm(a) @ x
    cross = ref.H(x) @ z
    block = np.block([[cross, -ref.H(z) @ z], [np.eye(p), cross]])
    return np.hstack([x, z]) @ scipy.linalg.expm(block)[:, :p] @ scipy.linalg.expm(-cross)


@every
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [1e-3, 0.7, 4.0])
def test_the_definition(arrays, rng, move, shape, dtype, length):
    x, f = point_and_tangent(rng, shape, dtype, length)
    moved = retracted(move, arrays.to(x), arrays.to(f), 0.8)
    assert host(arrays, moved.ok).shape in (shape[:-2], ())
    assert np.all(host(arrays, moved.ok))
    assert moved.delta is None
    got = arrays.host(moved.x)
    assert got.dtype == dtype
    assert got.shape == shape
    wide = np.result_type(dtype, np.float64)
    unit = float(np.finfo(dtype).eps)
    loss = 1.0 + length**2  # what a Gram matrix costs
    bounds = np.broadcast_to(np.asarray(moved.distance), shape[:-2]).reshape(-1)
    for a, b, c, bound in zip(matrices(x), matrices(f), matrices(got), bounds, strict=True):
        expected = naive(move, a.astype(wide), -0.8 * b.astype(wide))
        np.testing.assert_allclose(c, expected, atol=30 * unit * loss)
        distance = ref.distance(c.astype(wide))
        assert distance <= 30 * unit * loss
        assert distance <= bound + 10 * unit


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (40, 40), (60, 45)])
def test_pymanopt(rng, shape):
    x, f = point_and_tangent(rng, shape, length=1.5)
    manifold = Pymanopt(*shape)
    for move in (QR(), CholeskyQR()):
        np.testing.assert_allclose(retracted(move, x, f).x, manifold.retraction(x, -f), atol=1e-12)
    polar = Pymanopt(*shape, retraction="polar").retraction(x, -f)
    for move in POLARS:
        np.testing.assert_allclose(retracted(move, x, f).x, polar, atol=1e-12)
    exponential = manifold.exp(x, -f)
    np.testing.assert_allclose(retracted(Exponential(), x, f).x, exponential, atol=1e-12)


def test_the_two_metrics_are_two_curves(rng):
    x, f = point_and_tangent(rng, (9, 4))
    euclidean, canonical = (retracted(Exponential(m), x, f).x for m in ("euclidean", "canonical"))
    assert np.linalg.norm(euclidean - canonical) > 1e-2
    x, f = point_and_tangent(rng, (6, 6))
    euclidean, canonical = (retracted(Exponential(m), x, f).x for m in ("euclidean", "canonical"))
    np.testing.assert_array_equal(euclidean, canonical)


@every
def test_the_diagonal_of_r_is_positive(rng, move):
    if not isinstance(move, (QR, CholeskyQR)):
        return
    for dtype in DTYPES:
        x, f = point_and_tangent(rng, (9, 4), dtype)
        r = ref.H(retracted(move, x, f).x) @ (x - f)
        np.testing.assert_allclose(np.tril(r, -1), 0, atol=30 * np.finfo(dtype).eps)
        assert np.all(np.diag(r).real > 0.5)
        np.testing.assert_allclose(np.diag(r).imag, 0, atol=30 * np.finfo(dtype).eps)


# -- their order ------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
def test_first_order(rng, move, shape, dtype):
    """R(0) = X, and R(tZ) - X - tZ = O(t^2); control: not with another Z."""
    x, f = point_and_tangent(rng, shape, dtype)
    np.testing.assert_allclose(retracted(move, x, f, 0.0).x, x, atol=1e-14)
    for t in (1e-2, 1e-4):
        error = np.linalg.norm(retracted(move, x, f, t).x - x + t * f)
        assert error <= 2 * t**2
        assert np.linalg.norm(retracted(move, x, f, t).x - x + 1.1 * t * f) > 0.05 * t
        slope = (retracted(move, x, f, t).x - retracted(move, x, f, -t).x) / (2 * t)
        np.testing.assert_allclose(slope, -f, atol=2 * t**2 + 1e-11)


def acceleration(move, x, f, t):
    """The tangential part of (R(tZ) - X - tZ) / t^2, Z = -F."""
    return projected(x, (retracted(move, x, f, t).x - x + t * f) / t**2)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_second_order(rng, shape, dtype):
    x, f = point_and_tangent(rng, shape, dtype, length=2.0)
    second = [*POLARS, Exponential()]
    first = [QR(), CholeskyQR()]  # the control
    if shape[0] == shape[1]:
        second += [Cayley(), Exponential("canonical")]
    for move in second:
        sizes = [np.linalg.norm(acceleration(move, x, f, t)) for t in (1e-2, 1e-3)]
        assert sizes[0] < 0.05
        assert sizes[1] < 0.15 * sizes[0]  # O(t)
    for move in first:
        sizes = [np.linalg.norm(acceleration(move, x, f, t)) for t in (1e-2, 1e-3)]
        assert min(sizes) > 0.1


@pytest.mark.parametrize("move", [Cayley(), Exponential("canonical")], ids=repr)
def test_canonical_acceleration(rng, move):
    """Along the canonical geodesic and along Cayley's curve it is W a: not zero for tall X."""
    x, f = point_and_tangent(rng, (9, 4), "complex128", length=2.0)
    a = ref.H(x) @ -f
    expected = (-f - x @ a) @ a / 2
    assert np.linalg.norm(expected) > 0.1
    np.testing.assert_allclose(acceleration(move, x, f, 1e-4), expected, atol=1e-3)
    gap = [
        np.linalg.norm(retracted(m, x, f, 1e-2).x - retracted(move, x, f, 1e-2).x)
        for m in (Cayley(), Exponential("canonical"), Exponential("euclidean"))
    ]
    assert max(gap[:2]) < 2e-6 < 1e-5 < gap[2]  # O(t^3), O(t^2)


# -- off the manifold -------------------------------------------------------------------------


@every
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_back_to_the_manifold(rng, move, shape):
    """A distance d of X becomes d^2 without a step, O(d^2 + d ||Z||) with one."""
    x = ref.in_tube(rng, shape, 1e-3)
    f = projected(x, ref.gaussian(rng, shape))
    f /= np.linalg.norm(f)
    assert ref.distance(retracted(move, x, f, 0.0).x) < 1e-6
    assert ref.distance(retracted(move, x, f, 0.1).x) < 1e-4


@every
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_nothing_builds_up(rng, move, shape):
    """Each step takes the rounding of those before off."""
    x, f = point_and_tangent(rng, shape)
    run, form = started(move, x.copy(), f)
    spare = np.empty(shape)
    for _ in range(500):
        moved = run.apply(form, 0.5, spare)
        spare = form.x
        f = projected(moved.x, ref.gaussian(rng, shape))
        form.place(moved.x, f / np.linalg.norm(f))
    assert ref.distance(form.x) < 5e-15 * shape[1]


# -- stacks and buffers -----------------------------------------------------------------------


@every
@pytest.mark.parametrize("shape", [(3, 9, 4), (2, 3, 5, 5)])
def test_a_stack_is_a_loop_with_an_eta_for_each_matrix(arrays, rng, move, shape):
    x, f = point_and_tangent(rng, shape)
    eta = rng.uniform(-1.0, 1.0, shape[:-2])
    given = arrays.to(eta)
    got = arrays.host(retracted(move, arrays.to(x), arrays.to(f), given).x)
    np.testing.assert_array_equal(arrays.host(given), eta)
    flat = zip(matrices(x), matrices(f), eta.reshape(-1), matrices(got), strict=True)
    for a, b, t, c in flat:
        np.testing.assert_allclose(c, retracted(move, a, b, float(t)).x, atol=1e-14)


@every
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 9, 4)])
def test_trials_leave_the_point_as_it_is(arrays, rng, move, shape):
    x, f = point_and_tangent(rng, shape)
    given, along = arrays.to(x), arrays.to(f)
    run, form = started(move, given, along)
    out, results = form.kernels.empty(shape), []
    for eta in (0.5, 0.01, 0.2, 0.5):
        moved = run.apply(form, eta, out)
        results.append(arrays.host(moved.x).copy())
        out = moved.x  # what the search hands back for the next trial
        np.testing.assert_array_equal(arrays.host(given), x)
        np.testing.assert_array_equal(arrays.host(along), f)
    np.testing.assert_array_equal(results[0], results[3])


@every
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 9, 4)])
def test_two_points_never_share_memory(rng, move, shape):
    x, f = point_and_tangent(rng, shape)
    run, form = started(move, x.copy(), f)
    spare = np.empty(shape)
    for _ in range(6):
        before = form.x.copy()
        first = run.apply(form, 0.3, spare)
        kept = first.x.copy()
        second = run.apply(form, 0.1, np.empty(shape))  # the first is not handed back
        assert not np.shares_memory(first.x, second.x)
        np.testing.assert_array_equal(first.x, kept)
        for moved in (first, second):
            assert not np.shares_memory(moved.x, form.x)
            assert not np.shares_memory(moved.x, f)
        np.testing.assert_array_equal(form.x, before)
        spare = form.x
        f = projected(second.x, ref.gaussian(rng, shape))
        form.place(second.x, f)


@every
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_views_of_any_order(rng, move, shape):
    """X and F that are transposes, as a wide unknown's are."""
    x, f = point_and_tangent(rng, shape, "complex128")
    expected = retracted(move, x, f, 0.4).x
    got = retracted(move, np.asfortranarray(x), np.asfortranarray(f), 0.4).x
    np.testing.assert_allclose(got, expected, atol=1e-14)


@every
def test_a_free_block_is_not_retracted(rng, move):
    x, f = ref.gaussian(rng, (5,)), ref.gaussian(rng, (5,))
    run, form = started(move, x, f, Free())
    np.testing.assert_array_equal(run.apply(form, 0.3, np.empty(5)).x, x - 0.3 * f)


# -- failure ----------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_quietly(arrays, rng, move, shape, bad):
    x, f = point_and_tangent(rng, shape)
    f[2, 0] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = retracted(move, arrays.to(x), arrays.to(f), 0.3)
    assert not host(arrays, moved.ok)
    assert not np.any(np.isfinite(arrays.host(moved.x)))


@every
@pytest.mark.parametrize("bad", [np.nan, "rank"])
def test_one_failing_matrix_leaves_the_others_right(arrays, rng, move, bad):
    x, f = point_and_tangent(rng, (2, 2, 9, 4))
    if bad == "rank":
        f[1, 0] = x[1, 0]  # X - F = 0
        if not isinstance(move, (CholeskyQR, Polar)):
            return
    else:
        f[1, 0, 3, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = retracted(move, arrays.to(x), arrays.to(f))
    np.testing.assert_array_equal(host(arrays, moved.ok), [[True, True], [False, True]])
    got = arrays.host(moved.x)
    assert np.all(np.isnan(got[1, 0]))
    for i in ((0, 0), (0, 1), (1, 1)):
        np.testing.assert_allclose(got[i], retracted(move, x[i], f[i]).x, atol=1e-14)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
@pytest.mark.parametrize("exponent", [0.3, 0.6, 0.95])
def test_far_too_long_a_step(rng, move, shape, dtype, exponent):
    """At ||Z|| of 1e6 and more: on the manifold as far as the notes promise, or not ok."""
    info = np.finfo(dtype)
    length = float(info.max) ** exponent
    x, f = point_and_tangent(rng, shape, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = retracted(move, x, f * np.dtype(dtype).type(length))
    if isinstance(move, QR):
        assert moved.ok
    if moved.ok and not (isinstance(move, CholeskyQR) or move == Polar("eigh")):
        assert ref.distance(moved.x) < 50 * float(info.eps)


def test_a_long_step_costs_cholesky_the_digits_it_says(rng):
    x, f = point_and_tangent(rng, (30, 10))
    for length in (1e2, 1e4, 1e6):
        once, twice, svd = (
            ref.distance(retracted(move, x, f, length).x)
            for move in (CholeskyQR(), CholeskyQR(2), Polar("svd"))
        )
        assert once < 10 * 2.0**-52 * (1 + length**2)
        assert max(twice, svd) < 1e-14


def test_parameters():
    for value in ("SVD", "qr", None, 1):
        with pytest.raises(ValueError, match=r"method must be .* or 'svd', got"):
            Polar(value)
        with pytest.raises(ValueError, match="metric must be 'euclidean' or 'canonical', got"):
            Exponential(value)
    for value in (0, 3, True, "1", None, math.nan):
        with pytest.raises(ValueError, match="passes must be 1 or 2, got"):
            CholeskyQR(value)
    assert Polar() == Polar("newton-schulz") and Exponential() == Exponential("euclidean")


# -- the exponential --------------------------------------------------------------------------


def extended_exponential(a):
    """Taylor's series of a small multiple, squared, in extended precision."""
    a = a.astype(np.clongdouble if np.iscomplexobj(a) else np.longdouble) / 2**12
    term = np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape)
    total = term.copy()
    for k in range(1, 20):
        term = term @ a / k
        total += term
    for _ in range(12):
        total = total @ total
    return total.astype(np.complex128 if np.iscomplexobj(a) else np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.0, 1e-200, 1e-9, 0.05, 0.3, 0.75, 3.0, 40.0])
def test_expm(arrays, rng, dtype, size):
    """Of a general matrix and of a skew one, and of stacks; SciPy's loses 1e-14 at norm 40."""
    unit = float(np.finfo(dtype).eps)
    for shape in [(1, 1), (7, 7), (3, 4, 4)]:
        for part in (np.asarray, ref.skew):
            a = part(ref.gaussian(rng, shape, np.result_type(dtype, np.float64)))
            norm = np.linalg.norm(a, axis=(-2, -1), keepdims=True)
            a = (a * (size / np.where(norm > 0, norm, 1))).astype(dtype)
            given = arrays.to(a)
            got = arrays.host(expm(kernels(given, shape[:-2]), given))
            assert got.dtype == dtype
            expected = extended_exponential(a)
            scale = np.abs(expected).max(axis=(-2, -1), keepdims=True)
            error = np.abs(got - expected) / scale
            assert error.max() <= 10 * unit * (1.0 + size)
            if size <= 3.0:
                scipys = scipy.linalg.expm(a.astype(expected.dtype))
                np.testing.assert_allclose(got / scale, scipys / scale, atol=50 * unit)


def test_expm_of_a_nilpotent_matrix():
    """Its powers vanish though it is large: nothing is squared, nothing lost."""
    a = np.diag(np.full(2, 1e6), 1)
    np.testing.assert_allclose(expm(kernels(a, ()), a), scipy.linalg.expm(a), rtol=1e-14)


# -- descents ---------------------------------------------------------------------------------

PSI = lo.fields.Field(lo.fields.Euclidean(exact=False), normal=None)


@every
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_descent(move, dtype):
    problem = lo.problems.PCA.random(30, 3, rng=0)
    x0 = lo.stiefel.random(30, 3, rng=1, dtype=dtype)
    method = lo.Method(lo.searches.OpenLoop(lo.steps.Constant(0.05)), PSI, move)
    result = lo.minimize(problem, x0 if dtype == "float64" else None, method=method, rng=1)
    assert result.success
    assert result.distance < 1e-14
    best = problem.optimum()[1]
    assert result.fun - best <= 1e-8 * abs(best)


@every
def test_descent_on_the_orthogonal_group(move):
    problem = lo.problems.Procrustes.random(8, rng=0)
    method = lo.Method(lo.searches.OpenLoop(lo.steps.Constant(0.01)), PSI, move)
    result = lo.minimize(problem, method=method, rng=1)
    best = problem.optimum(component=lo.stiefel.component(result.x))[1]
    assert result.success
    assert result.fun - best <= 1e-8 * abs(best)
    assert result.distance < 1e-14
    # The canonical field's own form (K X) gives the same steps: on O(p) it is the same gradient.
    left = lo.Method(method.search, lo.fields.Field(normal=None), move)
    other = lo.minimize(problem, method=left, rng=1)
    np.testing.assert_allclose(other.x, result.x, atol=1e-4)


@every
def test_a_divergent_descent_ends_with_a_status(rng, move):
    """A step that is not finite ends the solve; it is not walked on from."""

    def grad(x):
        return slope * (np.nan if len(calls) > 3 else 1.0)

    calls, slope = [], ref.gaussian(rng, (6, 3))

    def fun(x):
        calls.append(1)
        return 0.0

    problem = lo.Objective(value_and_gradient=lambda x: (fun(x), grad(x)), shape=(6, 3))
    method = lo.Method(lo.searches.OpenLoop(lo.steps.Constant(0.1)), PSI, move)
    result = lo.minimize(problem, method=method, rng=0, on_failure="return")
    assert result.status is lo.Status.NONFINITE
    assert result.nit < 20
