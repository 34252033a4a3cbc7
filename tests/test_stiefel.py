"""The geometry without optimization: distance, polar factor, random points, components."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

import landingopt as lo
from landingopt import _xp, stiefel

SHAPES = [(6, 6), (9, 4), (4, 9), (3, 6, 6), (2, 3, 7, 4), (3, 4, 7), (5, 1), (1, 1)]
DTYPES = ["float32", "float64", "complex64", "complex128"]
unit = {name: np.finfo(name).eps for name in DTYPES}


def each(x):
    """The matrices of a stack, one by one."""
    return x.reshape(-1, *x.shape[-2:])


def with_singular_values(rng, n, s, dtype="float64"):
    p = len(s)
    u, v = ref.orthonormal(rng, (n, p), dtype), ref.orthonormal(rng, (p, p), dtype)
    return ((u * s) @ ref.H(v)).astype(dtype), (u @ ref.H(v)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_the_definition(arrays, rng, shape, dtype):
    x = ref.gaussian(rng, shape, dtype)
    got = stiefel.distance(arrays.to(x))
    if len(shape) == 2 and arrays.xp is np:
        assert type(got) is float
    got = np.asarray(got) if isinstance(got, float) else arrays.host(got)
    assert got.shape == shape[:-2]
    expected = np.reshape([ref.distance(m) for m in each(x)], shape[:-2])
    np.testing.assert_allclose(got, expected, rtol=50 * unit[dtype])


def test_distance_of_unusual_layouts(rng):
    x = ref.gaussian(rng, (8, 5))
    for y in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x.T, np.asfortranarray(x).T):
        assert stiefel.distance(y) == pytest.approx(ref.distance(y), rel=1e-14)


def test_distance_near_the_manifold_keeps_its_digits(rng):
    for d in (1e-3, 1e-8, 1e-12):
        assert stiefel.distance(ref.in_tube(rng, (30, 12), d)) == pytest.approx(d, abs=5e-15)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_is_the_closest(arrays, rng, shape, dtype, method):
    # Condition number below 10, so that the polar factor is determined to a few units.
    x = ref.in_tube(rng, shape, 0.97, dtype) * dtype_of(dtype, 3.7)
    got = stiefel.polar(arrays.to(x), method=method)
    assert _xp.dtype_name(got) == dtype
    got = arrays.host(got)
    np.testing.assert_allclose(
        got, np.reshape([ref.polar(m) for m in each(x)], shape), atol=200 * unit[dtype]
    )
    assert max(ref.distance(m) for m in each(got)) <= 40 * unit[dtype]


def dtype_of(dtype, value):
    """A scalar that does not promote."""
    return np.asarray(value, dtype=dtype).real


@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("condition", [1e2, 1e6])
@pytest.mark.parametrize("n", [12, 40])
def test_polar_of_an_ill_conditioned_matrix(rng, n, condition, scale):
    x, expected = with_singular_values(rng, n, scale * np.geomspace(1.0, 1.0 / condition, 12))
    for method in ("svd", "newton-schulz"):
        got = stiefel.polar(x, method)
        assert ref.distance(got) <= 4 * unit["float64"] * 12
        np.testing.assert_allclose(got, expected, atol=2e-15 * condition * n)


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_polar_in_single_precision(rng, dtype, scale):
    x, expected = with_singular_values(rng, 20, np.geomspace(1.0, 1e-3, 10), dtype)
    for method in ("svd", "newton-schulz"):
        got = stiefel.polar(x * dtype_of(dtype, scale), method)
        assert got.dtype == dtype
        assert ref.distance(got) <= 3e-6
        np.testing.assert_allclose(got, expected, atol=1e-2)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 5), (20, 20), (60, 20), (20, 60)])
def test_polar_refuses_a_rank_deficient_matrix(rng, shape, dtype, method):
    n, p = shape
    low = ref.gaussian(rng, (n, min(n, p) - 1), dtype) @ ref.gaussian(
        rng, (min(n, p) - 1, p), dtype
    )
    with pytest.raises(ValueError, match="full rank"):
        stiefel.polar(low, method)
    with pytest.raises(ValueError, match="full rank"):
        stiefel.polar(np.zeros(shape, dtype), method)
    stack = np.stack([ref.gaussian(rng, shape, dtype), low])
    with pytest.raises(ValueError, match="full rank"):
        stiefel.polar(stack, method)


def test_polar_at_the_edge_of_full_rank(rng):
    """Both methods still take condition 1e13, and its polar factor to the digits that it has."""
    x, expected = with_singular_values(rng, 30, np.geomspace(1.0, 1e-13, 15))
    for method in ("svd", "newton-schulz"):
        got = stiefel.polar(x, method)
        assert ref.distance(got) <= 1e-14
        assert np.linalg.norm(got - expected) < 0.1


def test_polar_errors(rng):
    x = ref.gaussian(rng, (5, 3))
    with pytest.raises(ValueError, match="newton-schulz"):
        stiefel.polar(x, "qr")
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        stiefel.polar(bad)
    with pytest.raises(ValueError, match="shape"):
        stiefel.polar(x[0])
    with pytest.raises(TypeError, match="float64"):
        stiefel.polar(np.eye(3, dtype=int))
    with pytest.raises(TypeError, match="array"):
        stiefel.distance([[1.0, 0.0], [0.0, 1.0]])


def test_polar_leaves_its_input_alone(rng):
    x = ref.gaussian(rng, (7, 4))
    before = x.copy()
    for method in ("svd", "newton-schulz"):
        got = stiefel.polar(x, method)
        np.testing.assert_array_equal(x, before)
        assert not np.shares_memory(got, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "p", "stack"), [(6, 6, ()), (7, 3, ()), (3, 7, ()), (5, 2, (2, 3))])
def test_random_is_orthonormal_and_the_same_in_every_library(arrays, n, p, stack, dtype):
    like = arrays.to(np.zeros((), dtype))
    got = stiefel.random(n, p, stack=stack, rng=7, like=like)
    assert _xp.dtype_name(got) == dtype
    got = arrays.host(got)
    assert got.shape == (*stack, n, p)
    assert max(ref.distance(m) for m in each(got)) <= 20 * unit[dtype]
    np.testing.assert_array_equal(
        got, stiefel.random(n, p, stack=stack, rng=7, dtype=np.dtype(dtype))
    )


def test_random_takes_a_generator_and_moves_it():
    generator = np.random.default_rng(3)
    first, second = stiefel.random(4, rng=generator), stiefel.random(4, rng=generator)
    assert np.linalg.norm(first - second) > 0.1
    np.testing.assert_array_equal(first, stiefel.random(4, rng=3))
    assert stiefel.random(4, rng=3).shape == (4, 4)


def test_random_is_haar():
    """Moments of Haar measure; a QR without the sign of R's diagonal fails the first of them."""
    x = stiefel.random(3, stack=(20000,), rng=0)
    error = 4 / np.sqrt(20000)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=error)
    np.testing.assert_allclose((x**2).mean(axis=0), 1 / 3, atol=error)
    trace = np.trace(x, axis1=-2, axis2=-1)
    assert np.mean(trace**2) == pytest.approx(1.0, abs=2 * error)  # E tr^2 = 1 on O_n
    assert np.mean(np.linalg.det(x)) == pytest.approx(0.0, abs=error)  # both components
    z = stiefel.random(3, stack=(20000,), rng=0, dtype=np.complex128)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=error)
    np.testing.assert_allclose((z**2).mean(axis=0), 0.0, atol=error)


def test_component_is_the_sign_of_the_determinant(arrays, rng):
    x = ref.orthonormal(rng, (7, 5, 5))
    x[::3, 2] *= -1
    signs = np.sign(np.linalg.det(x)).astype(int)
    assert set(signs) == {-1, 1}
    np.testing.assert_array_equal(stiefel.component(arrays.to(x)), signs)
    got = stiefel.component(arrays.to(x[0]))
    assert type(got) is int
    assert got == signs[0]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((6, 4), "float64"), ((4, 6), "float64"), ((4, 4), "complex128")]
)
def test_connected_sets_have_no_component(rng, shape, dtype):
    assert stiefel.component(ref.orthonormal(rng, shape, dtype)) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_reflected_changes_the_component_only(arrays, rng, dtype):
    x = ref.in_tube(rng, (3, 5, 5), 0.3, dtype)
    given = arrays.to(x)
    got = stiefel.reflected(given)
    assert _xp.dtype_name(got) == dtype
    np.testing.assert_array_equal(arrays.host(given), x)
    got = arrays.host(got)
    np.testing.assert_array_equal(got[..., :-1], x[..., :-1])
    np.testing.assert_array_equal(got[..., -1], -x[..., -1])
    if np.dtype(dtype).kind == "f":
        np.testing.assert_array_equal(stiefel.component(got), -stiefel.component(x))


def test_the_module_is_public():
    assert lo.stiefel.polar is stiefel.polar


@pytest.mark.parametrize("scale", [1e-320, 1e-310, 1e-160, 1e160, 1e300])
def test_newton_schulz_at_the_ends_of_the_range(scale):
    import warnings

    x = np.random.default_rng(0).standard_normal((6, 3)) * scale
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q = lo.stiefel.polar(x, method="newton-schulz")
    np.testing.assert_allclose(q, lo.stiefel.polar(x), atol=1e-14)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
def test_polar_of_an_empty_stack(method):
    assert lo.stiefel.polar(np.zeros((0, 4, 3)), method).shape == (0, 4, 3)
