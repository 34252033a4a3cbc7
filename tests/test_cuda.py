"""CuPy's kernels with NumPy in CuPy's place, and on a device where there is one."""

import sys
from collections import Counter

import numpy as np
import pytest

import landingopt as lo
from landingopt import _cuda, _xp

SHAPES = {"square": (6, 6), "tall": (9, 4), "stack": (5, 4, 4), "tall stack": (3, 7, 3)}
DTYPES = ("float64", "float32", "complex128", "complex64")


@pytest.fixture
def launches(monkeypatch):
    """NumPy arrays served by CupyKernels; counts the fused kernels by name."""
    count = Counter()

    def fuse(function):
        def counted(*arguments):
            count[function.__name__] += 1
            for each in arguments:
                assert np.ndim(each) == 0 or isinstance(each, np.ndarray)
            return function(*arguments)

        return counted

    compiled = _cuda.Formulas(np, fuse)
    monkeypatch.setattr(
        _xp, "kernels", lambda like, batch: _cuda.CupyKernels(like, batch, compiled)
    )
    return count


def problem_of(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((*shape[:-1], shape[-2]))
    b = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        b = b + 1j * rng.standard_normal(shape)
    a, b = (a @ a.mT / shape[-2]).astype(dtype), b.astype(dtype)

    def both(x):
        g = a @ x - b
        return 0.5 * np.sum((x.conj() * (g - b)).real, axis=(-2, -1)), g

    return lo.Objective(value_and_gradient=both, shape=shape)


METHODS = {
    "landing, step": lambda: lo.landing(step=0.02, eps=0.3),
    "landing": lambda: lo.landing(),
    "POGO": lambda: lo.pogo(0.02),
    "L-BFGS": lambda: lo.landing_lbfgs(),
    "QR": lambda: lo.riemannian(lo.retractions.QR(), step=0.02),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_the_same_iterates_as_numpys_kernels(request, method, shape, dtype):
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1, dtype=dtype)
    options = dict(stop=lo.MaxIterations(6), record=lo.Every(1))
    plain = lo.minimize(problem_of(shape, dtype), x0, METHODS[method](), **options)
    count = request.getfixturevalue("launches")
    fused = lo.minimize(problem_of(shape, dtype), x0, METHODS[method](), **options)
    assert count.total() > 0
    assert fused.x.dtype == plain.x.dtype
    # Newton–Schulz passes may be planned, and then X is nearer the manifold.
    searches = method in ("landing", "L-BFGS")
    rtol = 2e-2 if searches else 1e-4 if dtype in ("float32", "complex64") else 1e-11
    np.testing.assert_allclose(fused.x, plain.x, atol=rtol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_launches_of_a_step(launches, monkeypatch, dtype):
    """Square X: the form, the safe step and the move; each is one kernel."""
    monkeypatch.setattr(_xp, "on_accelerator", lambda x: True)
    x0, seen = lo.stiefel.random(8, rng=0, dtype=dtype), []
    target = np.random.default_rng(1).standard_normal((8, 8)).astype(dtype)

    def grad(x):
        seen.append(launches.copy())
        return x - target

    problem = lo.Objective(grad=grad, shape=x0.shape)
    stop, ends_only = lo.MaxIterations(20), lo.Every(10**6)
    lo.minimize(problem, x0, lo.landing(step=0.02), stop=stop, record=ends_only)
    difference = seen[15] - seen[5]
    assert {name: n / 10 for name, n in difference.items()} == {
        "left_form": 1.0, "safe": 1.0, "stepped": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_norms_keep_the_range_of_the_dtype(rng, dtype, scale, batch):
    """The squares of 1e30 and 1e-30 have no float32."""
    a = rng.standard_normal((*batch, 5, 4))
    a = (a + 1j * a[..., ::-1] if dtype.startswith("complex") else a) * scale
    kernels = _cuda.CupyKernels(
        a.astype(dtype), batch, _cuda.Formulas(np, lambda function: function)
    )
    wanted = np.linalg.norm((a / scale).reshape(*batch, -1), axis=-1) * scale
    np.testing.assert_allclose(kernels.norm(a.astype(dtype)), wanted, rtol=1e-6)


@pytest.mark.parametrize("works", [True, False])
def test_a_compiler_that_fails_costs_speed_only(monkeypatch, caplog, works):
    class Cupy:
        float64, conj, minimum, maximum, sqrt = np.float64, np.conj, np.minimum, np.maximum, np.sqrt
        eye, ones = staticmethod(np.eye), staticmethod(np.ones)

        @staticmethod
        def fuse(function):
            def failing(*arguments):
                raise RuntimeError("no compiler")

            return function if works else failing

    monkeypatch.setitem(sys.modules, "cupy", Cupy)
    _cuda.formulas.cache_clear()
    found = _cuda.formulas().skewed(np.ones((2, 2)), np.ones((2, 2)))
    _cuda.formulas.cache_clear()
    np.testing.assert_array_equal(found, 0.0)
    assert ("no compiler" in caplog.text) != works


@pytest.mark.parametrize("lam", [0.0, 1.0, 30.0])
def test_the_safe_step_is_the_safe_step(rng, lam):
    d, norm, noise = rng.random((3, 50)) * np.array([[0.5], [4.0], [1e-3]])
    kernels = _cuda.CupyKernels(
        np.zeros((50, 2, 2)), (50,), _cuda.Formulas(np, lambda function: function)
    )
    scalars = _xp.ArrayScalars(np, np.float64, None, (50,))
    for wanted in (0.05, np.linspace(0.0, 0.3, 50)):
        exact = lo.steps.safe_step(d, norm, lam, 0.5, scalars, noise)
        found = kernels.safe(wanted, d, norm, noise, lam, 0.5)
        np.testing.assert_array_equal(found, np.minimum(wanted, exact))


# -- on a device ----------------------------------------------------------------------------------


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fused_kernels_on_the_device_are_the_formulas(cupy, rng, shape, dtype):
    like = rng.standard_normal(shape)
    like = (like + 1j * rng.standard_normal(shape) if "complex" in dtype else like).astype(dtype)
    square = np.matmul(like.mT, like)
    here = _cuda.CupyKernels(square, shape[:-2], _cuda.Formulas(np, lambda function: function))
    there = _cuda.CupyKernels(cupy.asarray(square), shape[:-2])
    on = cupy.asarray(square)
    rtol = 1e-5 if there.unit_roundoff > 1e-10 else 1e-13
    for host, device in [
        (here.left_form(square, square, 0.7), there.left_form(on, on, 0.7)),
        ((here.skewed(square),), (there.skewed(on),)),
        ((here.sym(square),), (there.sym(on),)),
        ((here.stepped(square, square, 0.3),), (there.stepped(on, on, 0.3),)),
        ((here.polynomial(square, square, 0.375),), (there.polynomial(on, on, 0.375),)),
        ((here.norm(square),), (there.norm(on),)),
    ]:
        for a, b in zip(host, device, strict=True):
            assert b.dtype == a.dtype
            np.testing.assert_allclose(b.get(), a, rtol=rtol, atol=rtol)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", ["landing, step", "POGO"])
def test_nothing_waits_for_the_device_between_rows(cupy, shape, method):
    """CuPy's own watch: a synchronisation raises."""
    import cupyx

    target = cupy.asarray(np.random.default_rng(0).standard_normal(shape))
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1, like=target)
    made = [0]

    def grad(x):
        made[0] += 1
        if made[0] == 5:
            guard.__enter__()
        if made[0] == 25:
            guard.__exit__(None, None, None)
        return x - target

    problem = lo.Objective(grad=grad, shape=shape, like=target)
    guard = cupyx.allow_synchronize(False)
    result = lo.minimize(
        problem, x0, METHODS[method](), stop=lo.MaxIterations(40), record=lo.Every(10**6), rng=0
    )
    assert result.nit == 40
