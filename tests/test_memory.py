"""What a step allocates, and what a run holds beyond the user's own arrays; no clock."""

import tracemalloc

import numpy as np
import pytest

import landingopt as lo
from landingopt._numpy import _PIECE


def memory_of(method, shape, dtype="float64", first=10, last=20):
    """The largest allocation above the level between two steps, and what is held there; in numbers."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal(shape).astype(dtype)
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1, dtype=dtype)
    gradient = np.empty(shape, dtype)
    calls, levels = [0], {}

    def value_and_gradient(x):
        calls[0] += 1
        if calls[0] == first:
            levels["held"] = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
        if calls[0] == last:
            levels["peak"] = tracemalloc.get_traced_memory()[1]
        np.subtract(x, target, gradient)
        return 0.5 * float(np.vdot(gradient, gradient)), gradient

    problem = lo.Objective(
        value_and_gradient=value_and_gradient,
        grad=lambda x: value_and_gradient(x)[1],
        shape=shape,
    )
    lo.minimize(problem, x0, method, stop=lo.MaxIterations(3), record=lo.Every(10**6), rng=0)
    calls[0] = 0
    tracemalloc.start()
    try:
        begin = tracemalloc.get_traced_memory()[0]
        lo.minimize(
            problem, x0, method, stop=lo.GradientNorm() | lo.MaxIterations(last + 5),
            record=lo.Every(10**6), rng=0,
        )  # fmt: skip
    finally:
        tracemalloc.stop()
    size = np.dtype(dtype).itemsize
    return (levels["peak"] - levels["held"]) / size, (levels["held"] - begin) / size


SHAPES = {"square": (160, 160), "tall": (6000, 12)}
METHODS = {
    "landing, step": lo.landing(step=1e-3, lam=250.0),
    "POGO": lo.pogo(1e-3),
    "landing": lo.landing(),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_step_allocates_nothing_of_the_size_of_x(method, shape, dtype):
    n, p = shape
    above, held = memory_of(method, shape, dtype)
    print(above / (n * p), held / (n * p), (held - 6 * n * p) / p**2)
    assert above < 0.1 * n * p
    pieces = 2 * min(n * p, _PIECE // np.dtype(dtype).itemsize)  # two changes, some rows at a time
    assert held <= 6 * n * p + 4 * p * p + pieces + 8000  # some objects of Python


def test_the_measure_sees_an_allocation():
    """The control: a move that makes a fresh array."""

    class Fresh:
        def start(self, block):
            return self

        def apply(self, form, eta, out, tol=None, limit=np.inf):
            from landingopt.moves import Moved

            return Moved(form.moved(eta, np.empty_like(out)), np.inf, None, True)

    fresh = lo.Method(
        lo.searches.OpenLoop(lo.steps.Constant(1e-3)), lo.landing(step=1e-3).field, Fresh()
    )
    assert memory_of(fresh, (1500, 12))[0] >= 1500 * 12


def test_what_a_run_has_held_goes_with_it():
    """Without the cyclic collector: the memory of a large run is free when its result is."""
    import gc

    rng = np.random.default_rng(0)
    target = rng.standard_normal((4000, 20))
    problem = lo.Objective(
        fun=lambda x: 0.5 * float(np.sum((x - target) ** 2)), grad=lambda x: x - target,
        shape=target.shape,
    )  # fmt: skip
    x0 = 1.1 * lo.stiefel.random(4000, 20, rng=1)
    for method in (*METHODS.values(), lo.riemannian(step=1e-3), lo.landing_lbfgs(2)):
        stop = lo.MaxIterations(5)
        lo.minimize(
            problem, lo.stiefel.polar(x0) if "step" in method.name else x0, method, stop=stop
        )
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            start = lo.stiefel.polar(x0) if "step" in method.name else x0
            lo.minimize(problem, start, method, stop=stop)
            del start
            left = tracemalloc.get_traced_memory()[0] / 8
        finally:
            tracemalloc.stop()
            gc.enable()
        assert left < 0.5 * target.size, method.name
