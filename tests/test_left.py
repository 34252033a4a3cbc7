"""Every way to form K and to take a step is the formula to a few units of rounding, at every scale."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import landingopt as lo
from landingopt import _blas, _cores, _numpy, _xp
from landingopt import _left as left

DTYPES = ("float64", "float32", "complex128", "complex64")
# K = A + r Delta: both of one size, one far above the other, and numbers whose squares have no dtype.
SCALES = {
    "even": (1.0, 1.0),
    "large gradient": (1e12, 1.0),
    "small gradient": (1e-12, 1.0),
    "large weight": (1.0, 1e12),
    "small weight": (1.0, 1e-6),
    "no weight": (1.0, 0.0),
    "none": (1.0, None),
    "squares overflow": (1e25, 1e3),
    "squares underflow": (1e-25, 1e-3),
}


def normal(rng, shape, dtype):
    a = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        a = a + 1j * rng.standard_normal(shape)
    return a.astype(dtype)


def start(rng, shape, dtype, off):
    q = np.linalg.qr(normal(rng, shape, dtype))[0]
    return np.ascontiguousarray((q + off * normal(rng, shape, dtype)).astype(dtype))


def naive(x, g, ratio):
    """(A, Delta, K) by the formula, in double precision."""
    wide = np.result_type(x.dtype, np.float64)
    x, g = x.astype(wide), g.astype(wide)
    adjoint = x.conj().mT
    a = g @ adjoint - x @ g.conj().mT
    delta = x @ adjoint - np.eye(x.shape[-1])
    return a, delta, a if not ratio else a + ratio * delta


def size(a):
    return np.sqrt(np.sum(np.abs(a / top(a)) ** 2, axis=(-2, -1))) * top(a)[..., 0, 0]


def top(a):
    largest = np.max(np.abs(a), axis=(-2, -1), keepdims=True)
    return np.where(largest > 0, largest, 1.0)


def formed(kind, shape, dtype, ratio):
    kernels = _xp.kernels(np.empty(shape, dtype), shape[:-2])
    return kind(kernels, shape, ratio)


def check(made, x, g, ratio):
    unit = 8.0 * x.shape[-1] * np.finfo(x.dtype).eps
    with np.errstate(all="ignore"):
        d, norm = made.update(x, g)
        a, delta, k = naive(x, g, ratio)
        # Rounding of the products' terms, not of what is left of them.
        around = size(g.astype(a.dtype)) + (ratio or 0.0) * np.sqrt(x.shape[-1])
        found = made.k.astype(a.dtype) * made.unit
        assert np.all(size(found - k) <= unit * around)
        if ratio is not None:
            np.testing.assert_allclose(d, size(delta), rtol=unit, atol=unit * np.sqrt(x.shape[-1]))
        if norm is not None:
            np.testing.assert_allclose(norm, size(found), rtol=unit)
        np.testing.assert_allclose(made.norm(), size(found), rtol=unit)
        np.testing.assert_allclose(made.measure(x), size(delta), rtol=unit, atol=unit * x.shape[-1])
        made.update(x, g)
        for t in steps(x, around):
            out = made.step(x, t, np.empty_like(x))
            wide = t if np.ndim(t) == 0 else t[..., None, None]
            exact = x - wide * (k @ x)
            bound = unit * (2.0 + size(wide * k)) * np.sqrt(x.shape[-1])
            assert np.all(size(out - exact) <= bound)


def steps(x, around):
    """One for all, and for a stack one for each."""
    eta = 0.1 / np.max(around)
    yield float(eta)
    if x.ndim > 2:
        yield eta * np.linspace(0.0, 1.0, x.shape[0]).astype(np.finfo(x.dtype).dtype)


@pytest.mark.parametrize("off", [0.0, 1e-3, 0.3])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (left.NumpyLeft, (7, 7)),
        (left.NumpyLeft, (129, 129)),  # not by a transposed copy
        (left.SmallLeft, (1, 1)),
        (left.SmallLeft, (7, 7)),
        (left.SmallLeft, (70, 70)),
        (left.StackLeft, (5, 6, 6)),
        (left.Left, (7, 7)),
        (left.Left, (3, 6, 6)),
    ],
)
def test_it_is_the_formula(rng, kind, shape, dtype, scale, off):
    factor, ratio = SCALES[scale]
    single = dtype in ("float32", "complex64")
    if single and "squares" in scale:
        factor, ratio = factor ** (0.8 if factor > 1 else 0.9), ratio
    if kind is left.SmallLeft and not (ratio or 0.0) >= 1.0:
        pytest.skip("served by NumpyLeft")
    x, g = start(rng, shape, dtype, off), normal(rng, shape, dtype) * factor
    check(formed(kind, shape, dtype, ratio), x, g.astype(dtype), ratio)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 40, 3, 3), (41, 12, 12)])
def test_a_stack_over_threads_and_in_pieces(rng, monkeypatch, shape, threads, dtype):
    """Pieces that do not divide the stack, and every thread's share of them."""
    monkeypatch.setattr(_cores, "count", lambda: threads)
    monkeypatch.setattr(left, "_SHARED", 0)
    monkeypatch.setattr(left, "_PIECE", 7 * shape[-1] ** 2 * 8)
    x, g = start(rng, shape, dtype, 1e-2), normal(rng, shape, dtype)
    made = formed(left.StackLeft, shape, dtype, 2.0)
    assert len(made._ranges) == threads
    one = formed(left.StackLeft, shape, dtype, 2.0)
    one._ranges = [(0, int(np.prod(shape[:-2])), made._ranges[0][2])]
    for _ in range(2):  # the memory is used again
        found, wanted = made.update(x, g), one.update(x, g)
        np.testing.assert_array_equal(made.k, one.k)
        for a, b in zip(found, wanted):
            np.testing.assert_array_equal(a, b)
        t = np.full(shape[:-2], 1e-2)
        np.testing.assert_array_equal(
            made.step(x, t, np.empty_like(x)), one.step(x, 1e-2, np.empty_like(x))
        )
    np.testing.assert_allclose(
        made.k, naive(x, g, 2.0)[2], atol=1e-3 if "64" not in dtype else 1e-4
    )


def test_one_bad_matrix_of_a_stack_stays_alone(rng):
    x, g = start(rng, (6, 5, 5), "float64", 0.0), normal(rng, (6, 5, 5), "float64")
    g[2] *= 1e200  # its squares overflow: it is measured again, scaled
    g[4, 0, 0] = np.nan
    made = formed(left.StackLeft, x.shape, "float64", 1.0)
    with np.errstate(all="ignore"):
        _, norm = made.update(x, g)
        k = naive(x, g, 1.0)[2]
    fine = [0, 1, 2, 3, 5]
    np.testing.assert_allclose(norm[fine], size(k[fine]), rtol=1e-12)
    assert np.isnan(norm[4])


def test_the_step_reads_what_it_is_given(rng):
    """Views that are kept belong to their buffers: a fresh x, a fresh place, the same x elsewhere."""
    x, g = start(rng, (8, 8), "float64", 0.0), normal(rng, (8, 8), "float64")
    made = formed(left.SmallLeft, x.shape, "float64", 2.0)
    for _ in range(3):
        x = x + 0.01
        made.update(x, g)
        exact = x - 0.01 * naive(x, g, 2.0)[2] @ x
        for place in (np.empty_like(x), np.empty_like(x)):
            np.testing.assert_allclose(made.step(x, 0.01, place), exact, atol=1e-13)
            np.testing.assert_allclose(place, exact, atol=1e-13)
        copy = x.copy()  # the same numbers elsewhere
        np.testing.assert_allclose(made.step(copy, 0.01, np.empty_like(x)), exact, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-100, 1.0, 1e100])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (40, 40), (9, 4), (30, 1)], ids=str)
def test_small_matrices_by_blas_are_numpys(rng, shape, dtype, scale):
    """The tangent, the Gram matrix and a Newton–Schulz pass, each to a few units of rounding."""
    if dtype in ("float32", "complex64"):
        scale = scale**0.2
    x, g = start(rng, shape, dtype, 1e-2), (normal(rng, shape, dtype) * scale).astype(dtype)
    plain, small = _numpy.NumpyMatrix(x), _numpy.SmallMatrix(x)
    assert type(_xp.kernels(x, ())) is _numpy.SmallMatrix
    p, unit = shape[1], 20 * shape[0] * np.finfo(dtype).eps

    def memory(*sizes):
        return [np.full(size, np.nan, dtype) for size in sizes]  # nothing of it may be read

    square = (p, p)
    before = x.copy(), g.copy()
    for a, b in zip(
        plain.tangent(x, g, *memory(square, square, shape)),
        small.tangent(x, g, *memory(square, square, shape)),
    ):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=unit * np.abs(g).max())
    (e,) = memory(square)
    np.testing.assert_allclose(small.gram(x, e), plain.gram(x, None), atol=unit)
    e = (e - np.eye(p)).astype(dtype)
    for second in (False, True):
        exact = x @ (np.eye(p) - e / 2 + (0.375 * (e @ e) if second else 0.0))
        for kernels in (plain, small):
            found = kernels.corrected(x, e.copy(), second, memory(square, square), *memory(shape))
            np.testing.assert_allclose(found, exact, atol=unit)
    np.testing.assert_array_equal(before, (x, g))


@pytest.mark.parametrize("variable", _cores.VARIABLES)
def test_who_asks_blas_for_threads_asks_us(monkeypatch, variable):
    for name in _cores.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert _cores.asked() is None and _cores.count() >= 1
    monkeypatch.setenv(variable, "1")
    assert _cores.asked() == 1 == _cores.count()
    assert _blas.direct_columns() == 128
    monkeypatch.setenv(variable, "many")
    assert _cores.asked() is None


def test_a_limit_at_run_time_holds():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert _cores.count() == 1


def test_all_of_them_run_and_the_first_error_is_raised_after_all_have_ended():
    done, here = [], threading.get_ident()

    def task(i):
        assert i == 0 or threading.get_ident() != here
        done.append((i, np.geterr()["over"]))
        if i == 1:
            raise OverflowError("of one")

    with np.errstate(over="raise"), pytest.raises(OverflowError, match="of one"):
        _cores.at_once([lambda i=i: task(i) for i in range(3)])
    assert sorted(done) == [(i, "raise") for i in range(3)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    _cores.at_once([lambda: None, lambda: None])
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            _cores.at_once([lambda: None, lambda: os.write(writer, b"done")])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"done"
    os.waitpid(child, 0)


def test_a_thread_that_outlives_the_main_one_goes_on(tmp_path):
    """No threads are started at the interpreter's end: the work is done where it is."""
    script = tmp_path / "late.py"
    script.write_text(
        "import threading, time\n"
        "from landingopt import _cores\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    time.sleep(0.2)\n"
        "    done = []\n"
        "    _cores.at_once([lambda i=i: done.append(i) for i in range(3)])\n"
        "    print(sorted(done))\n"
        "threading.Thread(target=late).start()\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert run.stdout == "[0, 1, 2]\n", run.stderr


def test_a_large_stack_is_not_taken_for_one_that_has_left_the_tube(rng):
    """With one f for all, its distance is that of the whole stack, which grows with its number."""
    target = rng.standard_normal((1500, 6, 6))
    problem = lo.Objective(grad=lambda x: x - target, shape=target.shape)
    method = lo.landing(step=0.5, lam=0.5)
    result = lo.minimize(problem, method=method, stop=lo.MaxIterations(20), rng=0)
    each = np.linalg.norm(result.x.mT @ result.x - np.eye(6), axis=(1, 2))
    assert result.trace["distance"].max() > 10.0 and each.max() <= 0.5 and result.nit == 20
    broken = lo.Method(
        lo.searches.OpenLoop(lo.steps.Constant(5.0)), lo.fields.Field(), lo.moves.Additive()
    )
    with pytest.raises(lo.SolveError):
        lo.minimize(problem, method=broken, stop=lo.MaxIterations(50), rng=0)
