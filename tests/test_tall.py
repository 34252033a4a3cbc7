"""The landing's field at one tall NumPy matrix: equal to the formula, and a bound that is one."""

import numpy as np
import pytest

import landingopt as lo
from landingopt import _numpy
from landingopt._tall import Tall


def gaussian(rng, shape, dtype):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def at_distance(rng, n, p, distance, dtype):
    u = np.linalg.qr(gaussian(rng, (n, p), dtype))[0]
    h = gaussian(rng, (p, p), dtype)
    h = h + h.conj().T
    w, v = np.linalg.eigh(np.eye(p) + distance * h / np.linalg.norm(h))
    return np.ascontiguousarray((u @ (v * np.sqrt(np.maximum(w, 1e-3))) @ v.conj().T).astype(dtype))


def formula(x, g, ratio):
    """F / s."""
    delta = x.conj().T @ x - np.eye(x.shape[1])
    return g + g @ delta - x @ (g.conj().T @ x) + ratio * (x @ delta)


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_formula_and_the_bound_is_a_bound(dtype, seed):
    """Over sixteen orders of magnitude of the gradient's parts, the weight and the distance."""
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 7))
    n = p + int(rng.integers(1, 9))
    x = at_distance(rng, n, p, 10.0 ** rng.uniform(-6, -0.1), dtype)
    normal, tangent = 10.0 ** rng.uniform(-8, 8, 2)
    h = gaussian(rng, (p, p), dtype)
    g = (normal * x @ (h + h.conj().T) + tangent * gaussian(rng, (n, p), dtype)).astype(dtype)
    ratio = float(10.0 ** rng.uniform(-4, 4))
    tall = Tall(_numpy.NumpyMatrix(x), p, ratio)
    tall.update(x, g)
    wide = [a.astype(np.result_type(dtype, np.float64)) for a in (x, g)]
    f = formula(*wide, ratio)
    unit = np.finfo(dtype).eps
    size = 4.0 * np.linalg.norm(g) + ratio
    field = tall.field(x, g, 0.5, np.empty_like(x))
    np.testing.assert_allclose(field, 0.5 * f, atol=30 * unit * size)
    t = 0.01 / size
    step = tall.step(x, g, t, np.empty_like(x))
    np.testing.assert_allclose(step, wide[0] - t * f, atol=30 * unit)
    assert tall.bound(g) >= np.linalg.norm(f) * (1.0 - 1e3 * unit)


def test_next_to_the_manifold_the_bound_is_tight():
    rng = np.random.default_rng(0)
    x, g = at_distance(rng, 12, 5, 1e-3, "float64"), gaussian(rng, (12, 5), "float64")
    tall = Tall(_numpy.NumpyMatrix(x), 5, 2.0)
    tall.update(x, g)
    assert tall.bound(g) == pytest.approx(np.linalg.norm(formula(x, g, 2.0)), rel=0.01)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_bound_neither_overflows_nor_vanishes(scale):
    rng = np.random.default_rng(0)
    x, g = at_distance(rng, 8, 3, 1e-6, "float64"), gaussian(rng, (8, 3), "float64")
    one, other = (Tall(_numpy.NumpyMatrix(x), 3, 0.0) for _ in range(2))
    one.update(x, g)
    with np.errstate(under="ignore", over="ignore"):
        other.update(x, g * scale)
        assert other.bound(g * scale) == pytest.approx(one.bound(g) * scale, rel=1e-12)


def test_a_gradient_that_the_observer_overwrites():
    """The user's one buffer serves every call; what is measured must not change the steps."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((15, 15))
    buffer = np.empty((15, 3))

    def both(x):
        np.matmul(a.T @ a, x, out=buffer)
        return 0.5 * float(np.sum((a @ x) ** 2)), buffer

    def fresh(x):
        return 0.5 * float(np.sum((a @ x) ** 2)), a.T @ a @ x

    ends = []
    for function, record in [(both, lo.Every(1)), (both, lo.Every(999)), (fresh, lo.Every(7))]:
        problem = lo.Objective(value_and_gradient=function, shape=(15, 3))
        x0 = 1.05 * lo.stiefel.random(15, 3, rng=1)
        method = lo.landing(step=0.002, lam=20.0)
        ends.append(lo.minimize(problem, x0, method, record=record, stop=lo.MaxIterations(60)).x)
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-13)
    np.testing.assert_allclose(ends[2], ends[0], atol=1e-13)


def test_a_step_is_four_products():
    from landingopt.bench.products import counted_products

    g = np.random.default_rng(0).standard_normal((20, 4))
    problem = lo.Objective(grad=lambda x: g, shape=(20, 4))
    totals = []
    for steps in (1, 11):
        with counted_products() as total:
            lo.minimize(
                problem, method=lo.landing(step=1e-3), stop=lo.MaxIterations(steps),
                record=lo.Every(999), rng=0,
            )  # fmt: skip
        totals.append(total[0])
    assert totals[1] - totals[0] == 10 * 4 * 20 * 4 * 4
