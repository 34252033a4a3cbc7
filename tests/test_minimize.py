"""``lo.minimize``: what it returns, for arrays of every kind, stacks, components and products."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from reference import polar
from reference import seeded as gaussian

import landingopt as lo

DTYPES = ["float32", "float64", "complex64", "complex128"]
UNIT = {"float32": 2.0**-23, "complex64": 2.0**-23, "float64": 2.0**-52, "complex128": 2.0**-52}
METHODS = {"line search": lo.landing(), "fixed step": lo.landing(step=0.02, lam=1.0)}


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def gradient_norm(x, gradient):
    cross = adjoint(x) @ gradient
    return np.linalg.norm(gradient - x @ (cross + adjoint(cross)) / 2)


def nearest(target):
    """f = ||x - T||^2 / 2: the answer is the polar factor of T (on its component)."""
    return lo.Objective(
        lambda x: 0.5 * np.sum(np.abs(x - target) ** 2), lambda x: x - target, shape=target.shape
    )


# -- the start, and dtypes ----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 5, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_of_the_start_is_kept_everywhere(dtype, shape, method):
    target = gaussian(0, shape, dtype)
    seen = set()

    def fun(x):
        seen.add(str(x.dtype))
        return 0.5 * np.sum(np.abs(x - target) ** 2, axis=(-2, -1))

    def grad(x):
        seen.add(str(x.dtype))
        return x - target

    x0 = polar(gaussian(1, shape, dtype))
    record = lo.Every(3, metrics={"dtype": lambda x: seen.add(str(x.dtype)) or 0.0})
    result = lo.minimize(
        lo.Objective(fun, grad, shape=shape), x0, method, record=record,
        callback=lambda row: seen.add(str(row.x.dtype)), stop=lo.MaxIterations(40),
    )  # fmt: skip
    assert seen == {dtype}
    assert str(result.x.dtype) == str(result.feasible_x.dtype) == dtype
    assert result.x.shape == shape


def test_a_float64_value_does_not_promote_a_float32_stack():
    """One number for a stack, as np.float64: steps made of it stay in the stack's precision."""
    target = gaussian(0, (3, 6, 4), "float32")
    seen = set()

    def fun(x):
        seen.add(x.dtype)
        return 0.5 * np.sum((x - target) ** 2, dtype="float64")

    problem = lo.Objective(fun, lambda x: x - target, shape=target.shape)
    for shift in (1.0, 300.0):
        result = lo.minimize(problem, shift * gaussian(1, (3, 6, 4), "float32"))
        assert result.success
        assert seen == {np.dtype("float32")}
        assert result.x.dtype == np.float32


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_precision_reaches_its_rounding(dtype):
    target = gaussian(3, (8, 5), dtype)
    result = lo.minimize(nearest(target), gaussian(4, (8, 5), dtype), tol=0.0)
    assert result.success
    assert np.linalg.norm(result.feasible_x - polar(target)) <= 200 * UNIT[dtype]


@pytest.mark.parametrize(
    "form",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.copy().T.copy().T,
    ],
    ids=["Fortran", "strided columns", "negative stride", "transposed"],
)
def test_the_memory_layout_of_the_start_does_not_matter(form):
    target = gaussian(0, (7, 4))
    x0 = form(gaussian(1, (7, 4)))
    kept = x0.copy()
    x0.flags.writeable = False
    result = lo.minimize(nearest(target), x0, tol=1e-10)
    assert np.linalg.norm(result.feasible_x - polar(target)) <= 1e-8
    assert np.array_equal(x0, kept)
    for array in (result.x, result.feasible_x):
        assert array.flags.writeable
        assert not np.shares_memory(array, x0)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_user_functions_get_read_only_arrays_and_the_start_is_untouched(method):
    target = gaussian(0, (5, 5))

    def grad(x):
        assert not x.flags.writeable
        return x - target

    problem = lo.Objective(lambda x: 0.5 * np.sum((x - target) ** 2), grad, shape=(5, 5))
    x0 = polar(gaussian(1, (5, 5)))
    kept = x0.copy()
    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(5))
    assert np.array_equal(x0, kept)
    result.x[:] = 0.0  # the caller's to keep
    assert np.array_equal(x0, kept)


def test_a_random_start_follows_the_problems_data():
    problem = lo.problems.Procrustes.random(5, rng=0, dtype=np.complex64)
    assert lo.minimize(problem, rng=0).x.dtype == np.complex64


def test_unitary_procrustes():
    """complex128, against U V^H of the singular value decomposition."""
    problem = lo.problems.Procrustes.random(12, rng=0, dtype=np.complex128)
    result = lo.minimize(problem, 5 * gaussian(2, (12, 12), "complex128"), tol=1e-10)
    assert result.status is lo.Status.CONVERGED
    assert np.linalg.norm(result.feasible_x - polar(problem.B @ adjoint(problem.A))) <= 2e-8
    assert result.component is None
    assert "component" not in result.message


def test_a_wide_start_is_solved_through_its_transpose():
    target = gaussian(0, (3, 8), "complex128")
    result = lo.minimize(nearest(target), gaussian(1, (3, 8), "complex128"), tol=1e-10)
    assert result.x.shape == (3, 8)
    assert np.linalg.norm(result.feasible_x - polar(target)) <= 1e-8
    assert np.linalg.norm(result.x @ adjoint(result.x) - np.eye(3)) <= 1e-8


# -- gradients in shared memory -----------------------------------------------------------------


def _fresh(x, target):
    return x - target


def _shared(buffer):
    def grad(x, target):
        np.subtract(x, target, out=buffer)
        return buffer

    return grad


def _layout(form):
    return lambda x, target: form(x - target)


def _read_only(x, target):
    gradient = x - target
    gradient.flags.writeable = False
    return gradient


GRADIENTS = {
    "shared buffer": _shared(np.empty((7, 4))),
    "Fortran": _layout(np.asfortranarray),
    "strided": _layout(lambda g: np.repeat(g, 2, axis=0)[::2]),
    "read-only": _read_only,
}


@pytest.mark.parametrize("record", [lo.Every(1), lo.Every(7)], ids=["every row", "every 7"])
@pytest.mark.parametrize("together", [False, True], ids=["fun, grad", "value_and_gradient"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("grad", GRADIENTS.values(), ids=GRADIENTS)
def test_a_gradient_may_live_anywhere(grad, method, together, record):
    """The same run, number by number, as with a fresh array each time."""
    target = gaussian(0, (7, 4))

    def fun(x):
        return 0.5 * np.sum((x - target) ** 2)

    def problem(grad):
        if together:
            return lo.Objective(
                value_and_gradient=lambda x: (fun(x), grad(x, target)), shape=(7, 4)
            )
        return lo.Objective(fun, lambda x: grad(x, target), shape=(7, 4))

    x0 = polar(gaussian(1, (7, 4))) + 0.02 * gaussian(2, (7, 4))  # in the tube, off the manifold
    options = dict(method=method, stop=lo.MaxIterations(30), record=record)
    mine = lo.minimize(problem(grad), x0, **options)
    fresh = lo.minimize(problem(_fresh), x0, **options)
    np.testing.assert_allclose(mine.x, fresh.x, rtol=0, atol=1e-13)
    for name in ("fun", "feasible_fun", "gradient_norm", "distance"):
        np.testing.assert_allclose(mine.trace[name], fresh.trace[name], rtol=1e-9, atol=1e-13)


def test_a_metric_that_rewrites_the_gradients_buffer_changes_nothing():
    target = gaussian(0, (6, 6))
    buffer = np.empty((6, 6))

    def grad(x):
        np.subtract(x, target, out=buffer)
        return buffer

    problem = lo.Objective(lambda x: 0.5 * np.sum((x - target) ** 2), grad, shape=(6, 6))
    meddling = lo.Every(1, metrics={"elsewhere": lambda x: float(grad(2 * x)[0, 0])})
    x0 = polar(gaussian(1, (6, 6)))
    for method in METHODS.values():
        plain = lo.minimize(problem, x0, method, stop=lo.MaxIterations(20))
        result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(20), record=meddling)
        assert np.array_equal(result.x, plain.x)
        assert np.array_equal(result.trace["gradient_norm"], plain.trace["gradient_norm"])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_gradient_that_returns_its_argument(method):
    """f = ||x||^2 / 2 is constant on the manifold; its gradient is x itself."""
    problem = lo.Objective(lambda x: 0.5 * np.sum(x * x), lambda x: x, shape=(6, 3))
    x0 = polar(gaussian(0, (6, 3)))
    result = lo.minimize(problem, x0, method)
    assert result.success
    assert np.linalg.norm(result.feasible_x - x0) <= 1e-12


def test_a_gradient_that_is_a_slice_of_its_argument():
    """Off the manifold too, and for the papers' field, whose step then follows x alone."""
    problem = lo.Objective(lambda x: 0.5 * np.sum(x * x), lambda x: x[:, :], shape=(5, 5))
    x0 = polar(gaussian(0, (5, 5))) * 1.05
    result = lo.minimize(problem, x0, lo.landing(step=0.1))
    assert result.success
    assert result.distance <= 1e-8


# -- values: constants and scales ---------------------------------------------------------------


@pytest.mark.parametrize("optimum", [0.0, 1e6, -1e6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_constant_in_f_does_not_matter(optimum, seed):
    """The optimum to 1e-10 for f shifted so that its least value is 0, or 1e6."""
    base = lo.problems.Procrustes.random(15, rng=seed)
    x0 = lo.stiefel.random(15, rng=seed)
    best, least = base.optimum(component=lo.stiefel.component(x0))
    problem = lo.Objective(lambda x: base.fun(x) - least + optimum, base.grad, shape=(15, 15))
    result = lo.minimize(problem, x0, tol=1e-10)
    assert result.status is lo.Status.CONVERGED, result.message
    x = result.feasible_x
    reference = gradient_norm(x0, base.grad(x0))
    assert gradient_norm(x, base.grad(x)) <= 1.001e-10 * reference
    assert np.linalg.norm(x - best) <= 1e-6


def test_an_f_whose_optimum_is_zero_to_the_last_digit():
    """B = Q A: residual zero at the optimum, where f loses all its digits."""
    A, Q = gaussian(0, (10, 10)), polar(gaussian(1, (10, 10)))
    x0 = polar(gaussian(2, (10, 10)))
    if np.linalg.det(x0) * np.linalg.det(Q) < 0:
        x0[:, -1] *= -1
    result = lo.minimize(lo.problems.Procrustes(A, Q @ A), x0, tol=1e-10)
    assert result.status is lo.Status.CONVERGED
    assert np.linalg.norm(result.feasible_x - Q) <= 1e-6
    assert result.feasible_fun <= 1e-14


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("stack", [(), (3,)], ids=["one", "stack"])
def test_float32_over_its_whole_range(scale, stack):
    """f scaled to the ends of float32: solved to the rounding of float32."""
    target = gaussian(0, (*stack, 8, 8), "float32")
    scale = np.float32(scale)

    def fun(x):
        return 0.5 * scale * np.sum((x - target) ** 2, axis=(-2, -1))

    problem = lo.Objective(fun, lambda x: scale * (x - target), shape=target.shape)
    x0 = polar(gaussian(1, target.shape, "float32"))
    flip = np.linalg.det(x0) * np.linalg.det(target) < 0
    x0[..., -1] *= np.where(flip, -1, 1).astype("float32")[..., None]
    result = lo.minimize(problem, x0, tol=1e-5)
    assert result.success, result.message
    assert np.max(result.nit) < 300
    assert np.max(np.abs(result.feasible_x - polar(target))) <= 2e-4


# -- stacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [(5,), (2, 3)])
@pytest.mark.parametrize("shape", [(8, 8), (10, 4), (4, 10)])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_stack_is_solved_like_the_loop_over_it(stack, shape, dtype):
    target = gaussian(0, (*stack, *shape), dtype)
    x0 = 3 * gaussian(1, (*stack, *shape), dtype)

    def fun(x):
        return 0.5 * np.sum(np.abs(x - target) ** 2, axis=(-2, -1))

    problem = lo.Objective(fun, lambda x: x - target, shape=target.shape)
    result = lo.minimize(problem, x0, tol=1e-10)
    assert result.success
    assert result.success is True
    for name in ("fun", "feasible_fun", "gradient_norm", "distance", "status"):
        assert np.shape(getattr(result, name)) == stack
    for i in np.ndindex(stack):
        alone = lo.minimize(nearest(target[i]), x0[i], tol=1e-10)
        assert np.linalg.norm(result.feasible_x[i] - alone.feasible_x) <= 1e-8
        assert result.feasible_fun[i] == pytest.approx(alone.feasible_fun, rel=1e-12)
        assert result.status[i] == alone.status


@pytest.mark.parametrize("shape", [(6, 6), (7, 3)])
def test_a_stack_takes_the_loops_steps(shape):
    """Fixed steps: iterate by iterate; each matrix has a safe step of its own."""
    target = np.array([1.0, 40.0, 0.1])[:, None, None] * gaussian(0, (3, *shape))
    x0 = polar(gaussian(1, (3, *shape)))

    def fun(x):
        return 0.5 * np.sum((x - target) ** 2, axis=(-2, -1))

    problem = lo.Objective(fun, lambda x: x - target, shape=(3, *shape))
    options = dict(method=lo.landing(step=0.1), stop=lo.MaxIterations(12))
    result = lo.minimize(problem, x0, **options)
    loop = [lo.minimize(nearest(target[i]), x0[i], **options) for i in range(3)]
    np.testing.assert_allclose(result.x, [r.x for r in loop], rtol=0, atol=1e-12)
    steps = np.array([r.trace["step"] for r in loop]).T
    np.testing.assert_allclose(result.trace["step"][1:], steps[1:], rtol=1e-9)
    assert np.min(steps[1:, 1]) < 0.1 <= np.max(steps[1:, 2])  # capped, and not


def test_a_coupled_stack_decides_once_for_all():
    """fun gives one number: one problem, numbers that are floats, one status."""
    target = gaussian(0, (4, 6, 6))
    x0 = polar(gaussian(1, (4, 6, 6)))
    result = lo.minimize(nearest(target), x0, tol=1e-9)
    assert result.status is lo.Status.CONVERGED
    assert isinstance(result.fun, float)
    assert isinstance(result.gradient_norm, float)
    components = lo.stiefel.component(x0)
    assert np.array_equal(result.component, components)
    assert np.array_equal(lo.stiefel.component(result.feasible_x), components)
    cross = np.swapaxes(result.x, -1, -2) @ target
    assert np.max(np.abs(cross - np.swapaxes(cross, -1, -2))) <= 1e-7  # stationary


@pytest.mark.slow
def test_the_papers_stack_of_200_pairs():
    """Three minutes on one core; at 1e-10 it takes twice that."""
    problem = lo.problems.Procrustes.random(100, stack=(200,), rng=0)
    x0 = lo.stiefel.random(100, stack=(200,), rng=1)
    result = lo.minimize(problem, x0, record=lo.Every(50))
    assert result.success
    assert np.max(result.distance) <= 1e-8
    _, least = problem.optimum(component=lo.stiefel.component(x0))
    gap = result.feasible_fun / least - 1.0
    # Where two singular values nearly cancel, f is flat along a direction: 1e-6 does not see it.
    assert np.sum(gap > 1e-7) <= 2
    assert np.all((gap > -1e-12) & (gap < 1e-4))
    for i in (0, 77, 199):
        alone = lo.minimize(lo.problems.Procrustes(problem.A[i], problem.B[i]), x0[i])
        assert result.feasible_fun[i] == pytest.approx(alone.feasible_fun, rel=1e-7)


# -- components ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [lo.landing(), lo.landing(step=0.005)], ids=METHODS)
@pytest.mark.parametrize("start", [1, -1])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_component_is_solved_in(sign, start, method):
    problem = lo.problems.Procrustes.random(7, rng=3)
    x0 = polar(gaussian(0, (7, 7)))
    x0[:, 0] *= start * np.sign(np.linalg.det(x0))
    kept = x0.copy()
    result = lo.minimize(problem, x0, method, component=sign)
    assert np.array_equal(x0, kept)
    assert result.component == sign
    assert np.sign(np.linalg.det(result.x)) == sign
    assert f"det x = {sign:+d}" in result.message
    assert result.feasible_fun == pytest.approx(problem.optimum(component=sign)[1], rel=1e-8)


def test_without_a_component_the_starts_is_kept():
    problem = lo.problems.Procrustes.random(7, rng=3)
    for seed in range(4):
        x0 = lo.stiefel.random(7, rng=seed)
        result = lo.minimize(problem, x0)
        assert result.component == np.sign(np.linalg.det(x0))
        assert 'component="both"' in result.message


@pytest.mark.parametrize("seed", range(4))
def test_both_components_and_the_better_one(seed):
    problem = lo.problems.Procrustes.random(7, rng=seed)
    x0 = lo.stiefel.random(7, rng=1)
    calls = {"fun": 0, "grad": 0}

    def fun(x):
        calls["fun"] += 1
        return problem.fun(x)

    def grad(x):
        calls["grad"] += 1
        return problem.grad(x)

    runs = [lo.minimize(problem, x0, component=sign, tol=1e-8) for sign in (1, -1)]
    result = lo.minimize(
        lo.Objective(fun, grad, shape=(7, 7)), x0, component="both", tol=1e-8,
        record=lo.Every(10**6),
    )  # fmt: skip
    better = min(runs, key=lambda run: run.feasible_fun)
    assert result.feasible_fun == pytest.approx(better.feasible_fun, rel=1e-12)
    assert result.feasible_fun == pytest.approx(problem.optimum()[1], rel=1e-10)
    assert result.component == better.component
    for run in runs:
        assert f"{run.feasible_fun:.6f}"[:-2] in result.message
        assert f"det x = {run.component:+d}" in result.message
    assert result.nit == sum(run.nit for run in runs)
    assert result.njev == sum(run.njev for run in runs) == calls["grad"]
    assert result.nfev == sum(run.nfev for run in runs)
    assert result.nfev <= calls["fun"] <= result.nfev + 8  # and the measured rows, apart


def test_components_of_a_stack():
    problem = lo.problems.Procrustes.random(5, stack=(4,), rng=0)
    x0 = lo.stiefel.random(5, stack=(4,), rng=2)
    signs = np.array([1, -1, -1, 1])
    result = lo.minimize(problem, x0, component=signs, tol=1e-9)
    assert np.array_equal(result.component, signs)
    np.testing.assert_allclose(result.feasible_fun, problem.optimum(component=signs)[1], rtol=1e-9)
    assert np.array_equal(lo.minimize(problem, x0, component=-1).component, [-1] * 4)


# -- products of blocks -------------------------------------------------------------------------


def _product(kind, dtype="float64"):
    """Tall, wide, square, a stack and free numbers, coupled through one least-squares term."""
    shapes = {"tall": (7, 3), "wide": (2, 6), "square": (4, 4), "stack": (2, 5, 3), "free": (4,)}
    targets = {k: gaussian(i, s, dtype) for i, (k, s) in enumerate(shapes.items())}
    constraint = {k: lo.Euclidean() if k == "free" else lo.Stiefel() for k in shapes}
    names = list(shapes)

    def pack(d):
        return d if kind == "dict" else tuple(d[k] for k in names)

    def unpack(x):
        return x if kind == "dict" else dict(zip(names, x, strict=True))

    def fun(x):
        return 0.5 * sum(float(np.sum(np.abs(unpack(x)[k] - targets[k]) ** 2)) for k in names)

    def grad(x):
        return pack({k: unpack(x)[k] - targets[k] for k in names})

    problem = lo.Objective(fun, grad, shape=pack(shapes), constraint=pack(constraint))
    x0 = pack({k: gaussian(10 + i, s, dtype) for i, (k, s) in enumerate(shapes.items())})
    return problem, x0, targets, unpack


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_a_product_of_blocks(kind, dtype):
    problem, x0, targets, unpack = _product(kind, dtype)
    result = lo.minimize(problem, x0, tol=1e-4 if dtype == "float32" else 1e-9)
    assert result.success, result.message
    assert type(result.x) is type(result.feasible_x) is {"dict": dict, "tuple": tuple}[kind]
    x, begin = unpack(result.feasible_x), unpack(x0)
    tolerance = 1e-3 if dtype == "float32" else 1e-7
    for name, target in targets.items():
        assert x[name].dtype == dtype
        assert x[name].shape == target.shape
        if name == "free":
            best = target
        else:
            best = polar(target)
            if target.shape[-1] == target.shape[-2] and dtype != "complex128":
                sign = np.linalg.det(begin[name]) * np.linalg.det(target)
                if sign < 0:
                    u, _, vh = np.linalg.svd(target)
                    u[:, -1] *= -1
                    best = u @ vh
        assert np.max(np.abs(x[name] - best)) <= tolerance, name
    assert result.component is None


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_blocks_of_a_fixed_step_are_separate_runs(kind):
    """Open-loop steps and an f that separates: each block goes as if it were alone."""
    problem, x0, targets, unpack = _product(kind)
    near = {k: x if k == "free" else polar(x) for k, x in unpack(x0).items()}
    begin = near if kind == "dict" else tuple(near.values())
    options = dict(method=lo.landing(step=0.05), stop=lo.MaxIterations(15))
    x = unpack(lo.minimize(problem, begin, **options).x)
    for name in ("tall", "wide", "square", "stack"):
        alone = lo.minimize(nearest(targets[name]), near[name], **options)
        np.testing.assert_allclose(x[name], alone.x, rtol=0, atol=1e-12)
    free = near["free"].copy()
    for _ in range(15):
        free -= 0.05 * (free - targets["free"])
    np.testing.assert_allclose(x["free"], free, rtol=0, atol=1e-12)


def test_a_product_starts_at_random_where_no_start_is_given():
    problem, _, _, _ = _product("dict")
    result = lo.minimize(problem, rng=0, stop=lo.MaxIterations(0))
    for name, block in result.x.items():
        if name == "free":
            assert np.array_equal(block, np.zeros(4))
        else:
            assert np.max(lo.stiefel.distance(block)) <= 1e-12


# -- randomness and state -----------------------------------------------------------------------


def test_a_seed_repeats_a_run_and_a_generator_moves_on():
    problem = lo.problems.Procrustes.random(6, rng=0)

    def x_of(rng):
        return lo.minimize(problem, rng=rng, stop=lo.MaxIterations(3)).x

    assert np.array_equal(x_of(7), x_of(7))
    assert np.array_equal(x_of(7), x_of(np.random.default_rng(7)))
    assert not np.array_equal(x_of(7), x_of(8))
    generator = np.random.default_rng(7)
    first, second = x_of(generator), x_of(generator)
    assert np.array_equal(first, x_of(7))
    assert not np.array_equal(first, second)


def test_global_random_states_are_left_alone():
    import random

    problem = lo.problems.Procrustes.random(30, rng=0, weight=100.0)
    np.random.seed(20240229)  # a state that nobody else has set
    legacy, plain = np.random.get_state(), random.getstate()
    lo.minimize(problem, stop=lo.MaxIterations(20))
    lo.minimize(problem, rng=3, stop=lo.MaxIterations(20))
    after = np.random.get_state()
    assert np.array_equal(legacy[1], after[1])
    assert legacy[2] == after[2]
    assert random.getstate() == plain


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_keeps_no_state(method):
    """The same object twice, another problem between: bit for bit the same run."""
    problem = lo.problems.Procrustes.random(9, rng=0)
    x0 = lo.stiefel.random(9, rng=1)
    before = repr(method)
    first = lo.minimize(problem, x0, method, stop=lo.MaxIterations(30))
    lo.minimize(lo.problems.PCA.from_covariance(np.diag(np.arange(20.0)), 4), None, method, rng=0)
    second = lo.minimize(problem, x0, method, stop=lo.MaxIterations(30))
    assert np.array_equal(first.x, second.x)
    for name in ("fun", "step", "gradient_norm", "nfev"):
        assert np.array_equal(first.trace[name], second.trace[name], equal_nan=True)
    assert repr(method) == before


def test_a_run_inside_a_run_changes_neither():
    """The buffers belong to the run: f may itself be the least value of another problem."""
    method = lo.landing()
    problem = lo.problems.Procrustes.random(5, rng=0)
    x0 = lo.stiefel.random(5, rng=1)
    plain = lo.minimize(problem, x0, method, stop=lo.MaxIterations(6))

    def nested(row):
        lo.minimize(lo.problems.Procrustes.random(5, rng=9), x0, method)

    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(6), callback=nested)
    assert np.array_equal(result.x, plain.x)


# -- the result ---------------------------------------------------------------------------------


def test_the_fields_of_a_result():
    problem = lo.problems.UnbalancedProcrustes.random(12, 5, rng=0)
    method = lo.landing()
    result = lo.minimize(problem, 2 * gaussian(0, (12, 5)), method, tol=1e-9)
    x, feasible = result.x, result.feasible_x
    assert result.fun == pytest.approx(problem.fun(x), rel=1e-14)
    assert result.feasible_fun == pytest.approx(problem.fun(feasible), rel=1e-14)
    assert result.gradient_norm == pytest.approx(gradient_norm(x, problem.grad(x)), rel=1e-3)
    assert result.distance == pytest.approx(np.linalg.norm(x.T @ x - np.eye(5)), abs=1e-15)
    assert np.linalg.norm(feasible - polar(x)) <= 1e-14
    for name in ("fun", "feasible_fun", "gradient_norm", "distance", "seconds"):
        assert type(getattr(result, name)) is float, name
    for name in ("nit", "nfev", "njev", "nhev"):
        assert type(getattr(result, name)) is int, name
    assert result.success is True
    assert result.nhev == 0
    assert result.nit == result.trace["iteration"][-1] > 0
    assert result.method is method
    assert result.component is None
    assert result.status.message in result.message


def test_fields_far_from_the_manifold():
    """A fixed step that ends off the manifold: x as it is, feasible_x projected, f at both."""
    problem = lo.problems.UnbalancedProcrustes.random(12, 5, rng=0)
    x0 = polar(gaussian(0, (12, 5))) * 1.08
    result = lo.minimize(problem, x0, lo.landing(step=1e-4), stop=lo.MaxIterations(3))
    assert result.distance > 0.05
    assert np.linalg.norm(result.feasible_x - polar(result.x)) <= 1e-13
    assert result.fun == pytest.approx(problem.fun(result.x), rel=1e-13)
    assert result.feasible_fun == pytest.approx(problem.fun(polar(result.x)), rel=1e-12)
    assert abs(result.fun - result.feasible_fun) > 1e-3 * result.fun


def test_a_result_prints_no_arrays():
    one = lo.minimize(lo.problems.Procrustes.random(50, rng=0), rng=0, stop=lo.MaxIterations(3))
    stack = lo.problems.Procrustes.random(4, stack=(1000,), rng=0)
    many = lo.minimize(stack, rng=0, stop=lo.MaxIterations(3))
    for result in (one, many):
        text = repr(result)
        assert len(text) < 2000
        for name in ("feasible_x", "gradient_norm", "status", "message", "method"):
            assert name in text
    assert "array of shape (50, 50), float64" in repr(one)
    assert "MAX_ITERATIONS x 1000" in repr(many)


def test_a_result_is_copied_and_pickled():
    result = lo.minimize(lo.problems.Procrustes.random(6, rng=0), rng=0)
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert np.array_equal(other.x, result.x)
        assert other.method == result.method
        assert other.status is result.status
        assert np.array_equal(other.trace["fun"], result.trace["fun"])
        assert repr(other) == repr(result)
    assert copy.copy(result).x is result.x


def test_results_compare_by_identity():
    """Not entry by entry: arrays have no truth value."""
    result = lo.minimize(lo.problems.Procrustes.random(6, rng=0), rng=0)
    assert result == result
    assert result != copy.deepcopy(result)
    assert len({result, result}) == 1


def test_the_error_of_a_broken_run_survives_pickling():
    problem = lo.Objective(lambda x: float("nan"), lambda x: x, shape=(3, 3))
    with pytest.raises(lo.SolveError) as caught:
        lo.minimize(problem, np.eye(3))
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == str(caught.value)
    assert error.result.status is lo.Status.NONFINITE
