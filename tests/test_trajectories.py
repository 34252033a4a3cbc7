"""Whole runs against the naive solvers of ``reference.py``, iterate by iterate.

And around them: nothing of the user's is changed or held, and a step costs the products it should.
"""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

import landingopt as lo
from landingopt import _blas, _xp


def run(problem, x0, method, steps, **options):
    """(iterates as copies, result) over exactly ``steps`` steps or until the run ends itself."""
    xs = []

    def keep(row):
        x = row.x
        xs.append(
            {k: v.copy() for k, v in x.items()}
            if isinstance(x, dict)
            else tuple(v.copy() for v in x)
            if isinstance(x, tuple)
            else _xp.to_host(x).copy()
        )

    result = lo.minimize(
        problem,
        x0,
        method,
        stop=lo.MaxIterations(steps),
        record=lo.Every(1),
        callback=keep,
        **options,
    )
    return xs, result


def assert_close(xs, expected, tolerance):
    assert len(xs) == len(expected)
    error = max(np.abs(a - b).max() for a, b in zip(xs, expected, strict=True))
    assert error <= tolerance


# -- the papers' landing ----------------------------------------------------------------------

# name: (scale of f, step, lam, eps, distance of the start, what limits the steps)
SETTINGS = {
    "neither": (0.3, 0.05, 1.0, 0.5, 0.3, {"wanted"}),
    "the bound": (300.0, 1.0, 1.0, 0.5, 0.3, {"bound"}),
    "the cap": (0.01, 9.0, 1.0, 0.5, 0.4, {"cap"}),
    "the bound of a thin tube": (5.0, 0.3, 0.2, 0.05, 0.05, {"bound"}),
    "without attraction": (0.1, 0.05, 0.0, 0.9, 0.1, {"wanted"}),
}


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
@pytest.mark.parametrize("setting", SETTINGS)
def test_landing_is_ten_lines(rng, shape, dtype, setting):
    """200 steps agree with the naive loop to rounding; each setting limits the steps as it says."""
    scale, step, lam, eps, d, limited_by = SETTINGS[setting]
    fun, grad = ref.quadratic(rng, shape, dtype)
    fun, grad = (lambda x, f=fun: scale * f(x)), (lambda x, g=grad: scale * g(x))
    x0 = ref.in_tube(rng, shape, d, dtype)
    expected, etas, limits = ref.landing(grad, x0, step, lam, eps, steps=200)
    assert limited_by <= set(limits)
    if limited_by == {"wanted"}:
        assert set(limits) == limited_by
    method = lo.landing(step=step, lam=lam, eps=eps)
    xs, result = run(lo.Objective(fun, grad, shape=shape), x0, method, 200)
    count = min(len(xs), 201)
    assert count >= 30
    if len(xs) < 201:
        assert result.status.name == "AT_ROUNDING"
    # Rounding of the steps is amplified where the safe step is far too long for descent.
    close = count if setting in ("neither", "the cap", "without attraction") else 25
    assert_close(xs[:close], expected[:close], 1e-9)
    np.testing.assert_allclose(result.trace["step"][1:close], etas[: close - 1], rtol=1e-8)
    assert max(ref.distance(x) for x in xs) <= eps * (1 + 1e-13)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_landing_in_single_precision(rng, shape):
    fun, grad = ref.quadratic(rng, shape, np.float32)
    x0 = ref.in_tube(rng, shape, 0.3, np.float32)
    xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, lo.landing(step=0.05), 200)
    assert {x.dtype for x in xs} == {np.dtype("float32")}
    expected, *_ = ref.landing(grad, x0.astype(np.float64), 0.05, steps=len(xs) - 1)
    assert_close(xs, expected, 1e-4)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_landing_in_every_library(arrays, rng, dtype):
    for shape in [(6, 6), (9, 4), (4, 9), (3, 6, 4)]:
        fun, grad = ref.quadratic(rng, shape, dtype)
        x0 = ref.in_tube(rng, shape, 0.3, dtype)
        numpy, _ = run(lo.Objective(fun, grad, shape=shape), x0, lo.landing(step=0.3), 30)
        problem = lo.Objective(arrays.wrap(fun), arrays.wrap(grad), shape=shape)
        xs, result = run(problem, arrays.to(x0), lo.landing(step=0.3), 30)
        assert_close(xs, numpy, 1e-10)
        arrays.host(result.x)
        arrays.host(result.feasible_x)


def test_a_callable_step(rng):
    fun, grad = ref.quadratic(rng, (6, 4))
    x0 = ref.in_tube(rng, (6, 4), 0.3)

    def step(k):
        return 0.2 / (1 + k) ** 0.5

    problem = lo.Objective(fun, grad, shape=(6, 4))
    expected, *_ = ref.landing(grad, x0, step, steps=100)
    assert_close(run(problem, x0, lo.landing(step=step), 100)[0], expected, 1e-11)
    same = lo.landing(step=lo.steps.Decay(0.2))
    assert_close(run(problem, x0, same, 100)[0], expected, 1e-11)


def test_a_wide_matrix_is_its_transpose(rng):
    for dtype in ("float64", "complex128"):
        fun, grad = ref.quadratic(rng, (9, 4), dtype)
        x0 = ref.in_tube(rng, (9, 4), 0.3, dtype)
        tall = lo.Objective(fun, grad, shape=(9, 4))
        wide = lo.Objective(lambda x: fun(ref.H(x)), lambda x: ref.H(grad(ref.H(x))), shape=(4, 9))  # noqa: B023
        for method, steps in ((lo.landing(step=0.1), 100), (lo.landing(), 12)):
            xs, _ = run(tall, x0, method, steps)
            ys, result = run(wide, ref.H(x0).copy(), method, steps)
            assert_close([ref.H(y) for y in ys], xs, 1e-9)
            assert result.x.shape == (4, 9)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(5, 6, 6), (2, 2, 7, 4), (4, 4, 7)])
def test_a_stack_is_a_loop(rng, shape, dtype, coupled):
    """Every matrix has its own safe step, be the stack separable or coupled."""
    fun, grad = ref.quadratic(rng, shape, dtype)
    scales = np.geomspace(0.1, 100.0, np.prod(shape[:-2])).reshape(*shape[:-2], 1, 1)
    x0 = ref.in_tube(rng, shape, 0.3, dtype)
    problem = lo.Objective(
        (lambda x: float(fun(x).sum())) if coupled else fun,
        lambda x: scales * grad(x),
        shape=shape,
    )
    xs, _ = run(problem, x0, lo.landing(step=0.3), 15)
    turn = ref.H if shape[-2] < shape[-1] else lambda a: a
    for i in np.ndindex(shape[:-2]):

        def one(x, i=i):
            full = x0.copy()
            full[i] = turn(x)
            return turn((scales * grad(full))[i])

        expected, *_ = ref.landing(one, turn(x0[i]), 0.3, steps=15)
        assert_close([turn(x[i]) for x in xs], expected, 1e-8)


def test_a_product_is_separate_solves(rng):
    """Blocks have their own safe steps; a free block takes the plain step."""
    shapes = {"W": (7, 4), "Q": (5, 5), "V": (3, 6), "b": (8,)}
    constraint = {name: lo.Stiefel() for name in "WQV"} | {"b": lo.Euclidean()}
    parts = {name: ref.quadratic(rng, shapes[name]) for name in "WQV"}
    target = ref.gaussian(rng, (8,))
    scale = {"W": 1.0, "Q": 50.0, "V": 0.1}
    x0 = {name: ref.in_tube(rng, shapes[name], 0.3) for name in "WQV"}
    x0["b"] = ref.gaussian(rng, (8,))

    def fun(x):
        return float(
            sum(scale[k] * parts[k][0](x[k]) for k in "WQV") + ((x["b"] - target) ** 2).sum()
        )

    def grad(x):
        return {k: scale[k] * parts[k][1](x[k]) for k in "WQV"} | {"b": 2 * (x["b"] - target)}

    problem = lo.Objective(fun, grad, shape=shapes, constraint=constraint)
    xs, _ = run(problem, x0, lo.landing(step=0.2), 25)
    for name in "WQV":
        turn = ref.H if name == "V" else lambda a: a
        expected, *_ = ref.landing(
            lambda x, k=name, turn=turn: turn(scale[k] * parts[k][1](turn(x))),
            turn(x0[name]),
            0.2,
            steps=25,
        )
        assert_close([turn(x[name]) for x in xs], expected, 1e-9)
    b = x0["b"]
    for x in xs:
        np.testing.assert_allclose(x["b"], b, atol=1e-13)
        b = b - 0.2 * 2 * (b - target)
    as_tuple = lo.Objective(
        lambda x: fun(dict(zip(shapes, x, strict=True))),
        lambda x: tuple(grad(dict(zip(shapes, x, strict=True))).values()),
        shape=tuple(shapes.values()),
        constraint=tuple(constraint[k] for k in shapes),
    )
    ys, _ = run(as_tuple, tuple(x0.values()), lo.landing(step=0.2), 25)
    for i, name in enumerate(shapes):
        assert_close([y[i] for y in ys], [x[name] for x in xs], 1e-12)


# -- the parameter-free landing ---------------------------------------------------------------


def close_steps(steps, expected, rtol=1e-6):
    """How many leading steps agree."""
    size = min(len(steps), len(expected))
    apart = np.abs(np.subtract(steps[:size], expected[:size])) > rtol * np.abs(expected[:size])
    return int(np.argmax(apart)) if apart.any() else size


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (12, 4), (30, 10)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_parameter_free_landing_is_bb_ns(rng, shape, dtype, scale):
    """The first iterations are the naive ones of MATH section 8, and the optimum is theirs."""
    plain, plain_grad = ref.quadratic(rng, shape, dtype)

    def fun(x):
        return scale * float(plain(x))

    def grad(x):
        return scale * plain_grad(x)

    x0 = ref.orthonormal(rng, shape, dtype)
    expected, etas, _ = ref.bb_ns(fun, grad, x0, steps=20)
    problem = lo.Objective(fun, grad, shape=shape)
    xs, result = run(problem, x0, lo.landing(), 20)
    count = min(21, len(xs))
    assert_close(xs[:count], expected[:count], 1e-6)
    assert close_steps(result.trace["step"][1:count], etas) == count - 1
    far, _, _ = ref.bb_ns(fun, grad, x0, steps=2000, rtol=1e-8)
    assert len(far) < 2000
    done = lo.minimize(problem, x0, tol=1e-8)
    assert done.success
    assert done.feasible_fun == pytest.approx(fun(ref.polar(far[-1])), rel=1e-9)


def test_the_parameter_free_landing_uses_its_cap_and_its_search(rng):
    """Settings of the test above in which the trials are cut by the cap, and by the search."""
    capped = cut = 0
    for _ in range(20):
        fun, grad = ref.quadratic(rng, (8, 5), condition=100.0)
        x0 = ref.orthonormal(rng, (8, 5))
        expected, _, caps = ref.bb_ns(fun, grad, x0, steps=15)
        capped += sum(caps)
        xs, result = run(lo.Objective(fun, grad, shape=(8, 5)), x0, lo.landing(), 15)
        assert_close(xs, expected[: len(xs)], 1e-6)
        cut += result.nfev - result.nit - 1
    assert capped > 0
    assert cut > 0


@pytest.mark.parametrize("shape", [(4, 6, 6), (3, 9, 4), (2, 2, 4, 7)])
def test_a_separable_stack_is_a_loop(rng, shape):
    """Steps, search and stop are per matrix: the first iterations agree, and the optima."""
    fun, grad = ref.quadratic(rng, shape)
    scales = np.geomspace(1e-3, 1e3, np.prod(shape[:-2])).reshape(shape[:-2])
    x0 = ref.orthonormal(rng, shape)
    problem = lo.Objective(
        lambda x: scales * fun(x), lambda x: scales[..., None, None] * grad(x), shape=shape
    )
    xs, head = run(problem, x0, lo.landing(), 8)
    done = lo.minimize(problem, x0, tol=1e-8)
    assert done.success
    assert done.fun.shape == done.status.shape == done.distance.shape == shape[:-2]
    for i in np.ndindex(shape[:-2]):

        def f(x, i=i):
            full = x0.copy()
            full[i] = x
            return float(scales[i] * fun(full)[i])

        def g(x, i=i):
            full = x0.copy()
            full[i] = x
            return scales[i] * grad(full)[i]

        one = lo.Objective(f, g, shape=shape[-2:])
        ys, single = run(one, x0[i], lo.landing(), 8)
        # A stack makes as many Newton-Schulz passes as its last matrix needs: compare polar factors
        # while the field's steps are short, to second order in the tolerance of the move.
        for k in (0, 1, 2):
            np.testing.assert_allclose(ref.polar(xs[k][i]), ref.polar(ys[k]), atol=1e-6)
        np.testing.assert_allclose(
            head.trace["step"][(slice(1, 3), *i)], single.trace["step"][1:3], rtol=1e-5
        )
        alone = lo.minimize(one, x0[i], tol=1e-8)
        assert done.feasible_fun[i] == pytest.approx(alone.feasible_fun, rel=1e-9)


def test_a_shorter_trial_for_one_matrix_leaves_the_others_their_steps(rng):
    """A refused matrix waits in place for its shorter step; the others go on meanwhile."""
    shape = (6, 4)
    parts = [ref.quadratic(rng, shape) for _ in range(3)]
    x0 = ref.orthonormal(rng, (3, *shape))
    # From near its optimum the first step, a tenth of a radian, is too long.
    near = lo.minimize(lo.Objective(*parts[1], shape=shape), x0[1]).x
    x0[1] = ref.polar(near + 1e-3 * ref.gaussian(rng, shape))
    singles = [
        run(lo.Objective(f, g, shape=shape), x, lo.landing(), 1)[1]
        for (f, g), x in zip(parts, x0, strict=True)
    ]
    assert [single.nfev for single in singles][::2] == [2, 2]
    assert singles[1].nfev > 2
    stack = lo.Objective(
        lambda x: np.asarray([f(a) for (f, _), a in zip(parts, x, strict=True)]),
        lambda x: np.stack([g(a) for (_, g), a in zip(parts, x, strict=True)]),
        shape=(3, *shape),
    )
    trials = singles[1].nfev - 1
    xs, result = run(stack, x0, lo.landing(), trials)
    assert result.nfev == trials + 1
    steps, alone = result.trace["step"], [single.trace["step"][1] for single in singles]
    np.testing.assert_allclose(steps[1, ::2], alone[::2], rtol=1e-6)
    assert not np.any(steps[1:trials, 1])
    np.testing.assert_allclose(steps[trials, 1], alone[1], rtol=1e-6)
    for x in xs[:trials]:
        np.testing.assert_array_equal(x[1], xs[0][1])
    np.testing.assert_allclose(xs[trials][1], singles[1].x, atol=1e-12)


def test_a_stack_of_one_size_is_to_rounding_a_loop(rng):
    """With equal passes (short steps everywhere) the iterates themselves agree."""
    shape = (3, 12, 4)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    method = lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Constant(0.02)),
        field=lo.fields.Field(lo.fields.Euclidean(exact=False), None),
        move=lo.moves.NewtonSchulz(),
    )
    xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, method, 50)
    for i in range(3):

        def g(x, i=i):
            return grad(np.stack([x] * 3))[i]

        ys, _ = run(lo.Objective(lambda x: 0.0, g, shape=shape[1:]), x0[i], method, 50)
        assert_close([x[i] for x in xs], ys, 1e-11)


def test_a_finished_matrix_is_frozen(rng):
    """The first to converge stays where it is while the others go on."""
    shape = (3, 6, 3)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    x0[1] = lo.minimize(
        lo.Objective(
            lambda x: float(fun(np.stack([x] * 3))[1]),
            lambda x: grad(np.stack([x] * 3))[1],
            shape=(6, 3),
        ),
        x0[1],
        tol=1e-9,
    ).feasible_x
    problem = lo.Objective(fun, grad, shape=shape)
    xs = []
    rule = lo.GradientNorm(atol=1e-7) | lo.MaxIterations(300)
    result = lo.minimize(problem, x0, stop=rule, callback=lambda row: xs.append(row.x.copy()))
    assert result.success
    assert result.nit > 5
    for x in xs:
        np.testing.assert_array_equal(x[1], xs[0][1])


def naive_optimum(fun, grad, x, steps=400):
    return fun(ref.polar(ref.bb_ns(fun, grad, x, steps=steps)[0][-1]))


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 7, 3)])
def test_a_coupled_stack(rng, shape):
    """One value for all: one step for all, and every matrix of the sum at its optimum."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    mix = np.mean(x0, axis=0)

    def value(x):  # the last term couples the matrices
        return float(fun(x).sum() + 0.5 * np.sum((x.mean(axis=0) - mix) ** 2))

    def gradient(x):
        return grad(x) + (x.mean(axis=0) - mix) / shape[0]

    result = lo.minimize(lo.Objective(value, gradient, shape=shape), x0, tol=1e-9)
    assert result.success
    assert type(result.fun) is float
    assert result.trace["step"].ndim == 1
    for x, g in zip(result.feasible_x, gradient(result.feasible_x), strict=True):
        assert np.linalg.norm(g - x @ ref.sym(ref.H(x) @ g)) < 1e-6
    assert result.feasible_fun <= value(x0)
    assert np.all(np.diff(result.trace["feasible_fun"]) <= 0.5 * abs(value(x0)))


def test_a_product_with_a_line_search(rng):
    """One step for all blocks; a separable f has the optima of the separate solves."""
    x0 = {"W": ref.orthonormal(rng, (7, 4)), "Q": ref.orthonormal(rng, (5, 5)), "b": np.ones(3)}
    fW, gW = ref.quadratic(rng, (7, 4))
    fQ, gQ = ref.quadratic(rng, (5, 5))
    target = ref.gaussian(rng, (3,))
    problem = lo.Objective(
        lambda x: float(fW(x["W"]) + fQ(x["Q"]) + 0.5 * np.sum((x["b"] - target) ** 2)),
        lambda x: {"W": gW(x["W"]), "Q": gQ(x["Q"]), "b": x["b"] - target},
        shape={"W": (7, 4), "Q": (5, 5), "b": (3,)},
        constraint={"W": lo.Stiefel(), "Q": lo.Stiefel(), "b": lo.Euclidean()},
    )
    result = lo.minimize(problem, x0, tol=1e-10)
    assert result.success
    np.testing.assert_allclose(result.feasible_x["b"], target, atol=1e-7)
    for name, g in (("W", gW), ("Q", gQ)):
        x = result.feasible_x[name]
        assert ref.distance(x) <= 1e-13
        assert np.linalg.norm(g(x) - x @ ref.sym(ref.H(x) @ g(x))) < 1e-7


@pytest.mark.parametrize("constraint", ["stiefel", "product", "euclidean"])
def test_the_parameter_free_landing_in_every_library(arrays, rng, constraint):
    shape = (6, 4)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    if constraint == "stiefel":
        problem = lo.Objective(
            arrays.wrap(lambda x: np.asarray(fun(x))), arrays.wrap(grad), shape=shape
        )
        result = lo.minimize(problem, arrays.to(x0))
        found = arrays.host(result.feasible_x)
    elif constraint == "euclidean":
        c, w = ref.gaussian(rng, shape), rng.uniform(1.0, 5.0, shape)
        problem = lo.Objective(
            arrays.wrap(lambda x: np.asarray(0.5 * np.sum(w * (x - c) ** 2))),
            arrays.wrap(lambda x: w * (x - c)),
            shape=shape,
            constraint=lo.Euclidean(),
        )
        result = lo.minimize(problem, arrays.to(x0))
        assert result.success
        np.testing.assert_allclose(arrays.host(result.x), c, atol=1e-4)
        return
    else:
        problem = lo.Objective(
            arrays.wrap(lambda x: np.asarray(fun(x["x"]) + np.sum((x["b"] - 2.0) ** 2))),
            arrays.wrap(lambda x: {"x": grad(x["x"]), "b": 2 * (x["b"] - 2.0)}),
            shape={"x": shape, "b": (3,)},
            constraint={"x": lo.Stiefel(), "b": lo.Euclidean()},
        )
        result = lo.minimize(problem, arrays.to({"x": x0, "b": np.zeros(3)}))
        found = arrays.host(result.feasible_x["x"])
        np.testing.assert_allclose(arrays.host(result.x["b"]), 2.0, atol=1e-4)
    assert result.success
    g = grad(found)
    assert np.linalg.norm(g - found @ ref.sym(ref.H(found) @ g)) < 1e-4


def test_a_trial_that_is_not_finite_is_shortened(rng):
    """inf or nan in the value or in the gradient of a trial: no warning, and the same optimum."""
    fun, grad = ref.quadratic(rng, (6, 4))
    x0 = ref.orthonormal(rng, (6, 4))
    expected = lo.minimize(lo.Objective(fun, grad, shape=(6, 4)), x0, tol=1e-8)
    for bad in (np.nan, np.inf, -np.inf):
        for where in ("value", "gradient"):
            calls = []

            def both(x, bad=bad, where=where, calls=calls):
                calls.append(1)
                value, gradient = float(fun(x)), grad(x)
                if len(calls) == 4 and where == "value":
                    value = bad
                if len(calls) == 4 and where == "gradient":
                    gradient[2, 1] = bad
                return value, gradient

            problem = lo.Objective(value_and_gradient=both, shape=(6, 4))
            if bad == -np.inf and where == "value":
                continue  # f is unbounded below there: how the run ends is another test's matter
            result = lo.minimize(problem, x0, tol=1e-8, record=lo.Every(10**6))
            assert result.success
            assert result.feasible_fun == pytest.approx(expected.feasible_fun, rel=1e-8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 6, 4)])
def test_a_gradient_that_is_not_finite_is_a_status(rng, shape, bad):
    """NONFINITE at the next checkpoint, and no warning on the way there."""
    fun, grad = ref.quadratic(rng, shape)
    for every in (1, 7):
        result = lo.minimize(
            lo.Objective(fun, ref.breaking(grad, bad), shape=shape),
            ref.orthonormal(rng, shape),
            lo.landing(step=0.1),
            stop=lo.MaxIterations(30),
            record=lo.Every(every),
            on_failure="return",
        )
        assert np.all(np.asarray(result.status) == int(lo.Status.NONFINITE))
        assert result.nit <= 8


# -- nothing of the user's is changed or held -------------------------------------------------

METHODS = {
    "landing(step)": lambda: lo.landing(step=0.1),
    "landing()": lambda: lo.landing(),
    "barzilai-borwein": lambda: lo.landing(step=lo.steps.BarzilaiBorwein()),
}


def layouts(rng, shape):
    """A gradient's values in every layout that NumPy has."""

    def readonly(g):
        g.flags.writeable = False
        return g

    def strided(g):
        big = np.zeros((2 * g.shape[0], 3 * g.shape[1]))
        big[::2, ::3] = g
        return big[::2, ::3]

    shared = np.empty(shape)

    def same(g):
        shared[...] = g
        return shared

    return {
        "read-only": readonly,
        "Fortran": np.asfortranarray,
        "strided": strided,
        "reversed": lambda g: np.ascontiguousarray(g[::-1])[::-1],
        "shared": same,
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_the_gradient_may_be_any_array(rng, shape, method):
    """Fresh, read-only, Fortran-ordered, strided, reversed or always the same buffer: one run."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.2)
    x0.flags.writeable = False

    def solve(convert):
        problem = lo.Objective(fun, lambda x: convert(grad(x)), shape=shape)
        return run(problem, x0, METHODS[method](), 20)

    expected, fresh = solve(lambda g: g)
    for name, convert in layouts(rng, shape).items():
        xs, result = solve(convert)
        assert_close(xs, expected, 1e-8)
        for column in ("fun", "feasible_fun", "gradient_norm", "distance", "step"):
            np.testing.assert_allclose(
                result.trace[column], fresh.trace[column], rtol=1e-6, atol=1e-8, err_msg=name
            )


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 7, 3)], ids=str)
def test_newtons_differences_survive_recording(rng, shape):
    """The gradient at the point is the user's one buffer, in which a recorded row evaluates too."""
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1)
    buffer, target = np.empty(shape), rng.standard_normal(shape)

    def both(x):
        buffer[...] = 3.0 * x - target
        return 1.5 * np.sum(x * x, axis=(-2, -1)) - np.sum(x * target, axis=(-2, -1)), buffer

    runs = [
        lo.minimize(
            lo.Objective(value_and_gradient=both, shape=shape),
            x0,
            lo.landing_newton(),
            stop=lo.MaxIterations(8),
            record=record,
        )
        for record in (lo.Every(1), lo.Every(10**6))
    ]
    np.testing.assert_allclose(runs[0].x, runs[1].x, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 7, 3)], ids=str)
@pytest.mark.parametrize("own", [False, True])
def test_a_schedule_may_call_the_gradient(rng, shape, own):
    """Whatever it leaves in the user's one buffer: the step is along the field at the iterate."""
    buffer, target = np.empty(shape), rng.standard_normal(shape)
    x0 = lo.stiefel.random(*shape[-2:], stack=shape[:-2], rng=1)

    def grad(x):
        return np.subtract(3.0 * x, target, buffer)

    def meddling(k):
        grad(x0 + 1.0)
        return 0.02

    class Rule:
        def start(self, context):
            return self

        def size(self, k, point):
            return meddling(k)

    problem = lo.Objective(grad=grad, shape=shape)
    runs = [
        lo.minimize(
            problem, x0, lo.landing(step=step), stop=lo.MaxIterations(8), record=lo.Every(10**6)
        )
        for step in (0.02, Rule() if own else meddling)
    ]
    np.testing.assert_allclose(runs[1].x, runs[0].x, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_buffer_in_every_library(arrays, rng, method):
    """value_and_gradient that fills one buffer, for a product with a free block."""
    fun, grad = ref.quadratic(rng, (6, 4))
    x0 = {"x": ref.in_tube(rng, (6, 4), 0.2), "b": np.arange(3.0)}

    def value(x):
        return float(fun(x["x"]) + np.sum((x["b"] - 2.0) ** 4))

    def gradient(x):
        return {"x": grad(x["x"]), "b": 4 * (x["b"] - 2.0) ** 3}

    def fresh(x):
        x = arrays.host(x)
        return value(x), arrays.to(gradient(x))

    buffer = {"x": arrays.to(np.zeros((6, 4))), "b": arrays.to(np.zeros(3))}
    if arrays.name == "numpy-readonly":
        pytest.skip("a read-only buffer cannot be filled")

    def shared(x):
        x = arrays.host(x)
        for name, block in arrays.to(gradient(x)).items():
            buffer[name][...] = block
        return value(x), buffer

    shape = {"x": (6, 4), "b": (3,)}
    constraint = {"x": lo.Stiefel(), "b": lo.Euclidean()}
    results = [
        lo.minimize(
            lo.Objective(value_and_gradient=both, shape=shape, constraint=constraint),
            arrays.to(x0),
            METHODS[method](),
            stop=lo.MaxIterations(15),
            record=lo.Every(1),
        )
        for both in (fresh, shared)
    ]
    for column in ("fun", "feasible_fun", "gradient_norm", "distance", "step"):
        first, second = (result.trace[column] for result in results)
        np.testing.assert_allclose(second, first, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 6, 4)])
def test_a_gradient_that_is_its_argument(rng, shape, method):
    """f = ||x||^2 / 2 is constant on the manifold: the landing goes to the polar factor of x0."""
    x0 = ref.in_tube(rng, shape, 0.3)
    before = x0.copy()
    problem = lo.Objective(lambda x: 0.5 * np.sum(x**2, axis=(-2, -1)), lambda x: x, shape=shape)
    result = lo.minimize(
        problem, x0, METHODS[method](), stop=lo.Distance(1e-10) | lo.MaxIterations(500)
    )
    np.testing.assert_array_equal(x0, before)
    expected = ref.polar(x0) if len(shape) == 2 else np.stack([ref.polar(x) for x in x0])
    np.testing.assert_allclose(result.feasible_x, expected, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 6, 4)])
def test_user_functions_get_read_only_arrays(rng, shape, method):
    fun, grad = ref.quadratic(rng, shape)
    seen = []

    def look(function):
        def wrapped(x):
            seen.append(x.flags.writeable)
            with pytest.raises(ValueError, match="read-only"):
                x[...] = 0.0
            return function(x)

        return wrapped

    problem = lo.Objective(look(fun), look(grad), shape=shape)
    lo.minimize(
        problem,
        ref.in_tube(rng, shape, 0.2),
        METHODS[method](),
        stop=lo.MaxIterations(10),
        record=lo.Every(1, metrics={"corner": look(lambda x: float(x[..., 0, 0].sum()))}),
        callback=lambda row: seen.append(row.x.flags.writeable),
    )
    assert len(seen) > 30
    assert not any(seen)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_left_alone(rng, method):
    a, b = ref.gaussian(rng, (5, 5)), ref.gaussian(rng, (5, 5))
    x0 = ref.in_tube(rng, (5, 5), 0.3)
    kept = [v.copy() for v in (a, b, x0)]
    problem = lo.problems.Procrustes(a, b, weight=0.01)
    result = lo.minimize(problem, x0, METHODS[method](), stop=lo.MaxIterations(30))
    for now, then in zip((a, b, x0), kept, strict=True):
        np.testing.assert_array_equal(now, then)
    assert not np.shares_memory(result.x, x0)
    assert result.x.flags.writeable
    product = {"x": x0, "y": x0}  # the same array twice
    lo.minimize(
        lo.Objective(
            lambda x: float(np.sum(x["x"] * b + x["y"] * a)),
            lambda x: {"x": b, "y": a},
            shape={"x": (5, 5), "y": (5, 5)},
        ),
        product,
        METHODS[method](),
        stop=lo.MaxIterations(30),
    )
    for now, then in zip((a, b, x0), kept, strict=True):
        np.testing.assert_array_equal(now, then)


# -- cost without a clock ---------------------------------------------------------------------


class Products:
    """Products of the kernels between one gradient and the next, by size (rows, inner, columns).

    The user's own functions use ``@``, which is not counted; the bookends (the first row, the last,
    the projection of the result) lie before the first gradient counted and after the last.
    """

    def __init__(self, monkeypatch):
        self.sizes = []

        def counting(product):
            def counted(a, b, out=None):
                self.sizes.append((a.shape[-2], a.shape[-1], b.shape[-1]))
                return product(a, b, out)

            return counted

        def counting_blas(name, dtype, blas=_blas.blas):
            routine = blas(name, dtype)
            if name != "gemm":
                return routine

            def counted(alpha, a, b, beta, c, *transposed):
                self.sizes.append((c.shape[1], a.shape[1], c.shape[0]))  # column-major: B^T A^T
                return routine(alpha, a, b, beta, c, *transposed)

            return counted

        monkeypatch.setattr(_blas, "product", counting(_blas.product))  # of one matrix
        monkeypatch.setattr(_blas, "blas", counting_blas)  # of a small one
        monkeypatch.setattr(np, "matmul", counting(np.matmul))  # of a stack

    def between_gradients(self, fun, grad, x0, method, steps):
        marks = []

        def marked(x):
            marks.append(len(self.sizes))
            return grad(x)

        result = lo.minimize(
            lo.Objective(fun, marked, shape=x0.shape),
            x0,
            method,
            stop=lo.MaxIterations(steps),
            record=lo.Every(10**9),
            on_failure="return",
        )
        assert result.nit == steps
        start = 2  # the first row is measured between the first and the second
        return [
            {size: self.sizes[a:b].count(size) for size in set(self.sizes[a:b])}
            for a, b in zip(marks[start:-1], marks[start + 1 :])
        ]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_square_landing_step_is_three_products(rng, monkeypatch, scale):
    """G X^H, X X^H and the step; the exact norm of the safe step shares the last one."""
    fun, grad = ref.quadratic(rng, (20, 20))
    counts = Products(monkeypatch).between_gradients(
        fun, lambda x: scale * grad(x), ref.in_tube(rng, (20, 20), 0.3), lo.landing(step=0.1), 25
    )
    assert len(counts) > 20
    assert all(count == {(20, 20, 20): 3} for count in counts)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_tall_landing_step_is_four_products(rng, monkeypatch, shape, scale):
    """X^H X, X^H G, G A and X B; no product of p x p matrices."""
    fun, grad = ref.quadratic(rng, shape)
    counts = Products(monkeypatch).between_gradients(
        fun, lambda x: scale * grad(x), ref.in_tube(rng, shape, 0.3), lo.landing(step=0.1), 25
    )
    assert len(counts) > 20
    assert all(count == {(8, 30, 8): 2, (30, 8, 8): 2} for count in counts)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(4, 20, 20), (4, 30, 8)])
def test_a_stack_costs_what_its_matrices_cost(rng, monkeypatch, shape, dtype):
    fun, grad = ref.quadratic(rng, shape, dtype)
    counts = Products(monkeypatch).between_gradients(
        fun, grad, ref.in_tube(rng, shape, 0.3, dtype), lo.landing(step=0.1), 10
    )
    expected = {(20, 20, 20): 3} if shape[1] == shape[2] else {(8, 30, 8): 2, (30, 8, 8): 2}
    assert all(count == expected for count in counts)


def by_kind(count, n, p):
    """(n p^2 products, p^3 products) of one trial; the rest are matrix-vector products."""
    tall = sum(v for k, v in count.items() if sorted(k) == sorted((n, p, p)))
    assert all(1 in k or sorted(k) in (sorted((n, p, p)), [p, p, p]) for k in count)
    return tall, count.get((p, p, p), 0)


def test_the_parameter_free_landing_near_the_optimum(rng, monkeypatch):
    """Four n p^2: X^H G, X Phi, one Gram matrix, one pass; E^2 and the Gram after it are skipped."""
    n, p = 30, 8
    fun, grad = ref.quadratic(rng, (n, p))
    x0 = ref.orthonormal(rng, (n, p))
    steps = lo.minimize(lo.Objective(fun, grad, shape=(n, p)), x0, tol=1e-8).nit
    counts = Products(monkeypatch).between_gradients(fun, grad, x0, lo.landing(), steps)
    assert [by_kind(count, n, p) for count in counts[-8:-1]] == [(4, 0)] * 7


def test_the_parameter_free_landing_far_from_the_optimum(rng, monkeypatch):
    """A Gram matrix of the new point while the bound tells too little; E^2 where it saves a pass."""
    n, p = 30, 8
    fun, grad = ref.quadratic(rng, (n, p))
    x0 = ref.orthonormal(rng, (n, p))
    counts = Products(monkeypatch).between_gradients(fun, grad, x0, lo.landing(), 20)
    kinds = [by_kind(count, n, p) for count in counts]
    allowed = {(5, 0), (5, 1), (7, 1), (7, 2), (9, 3)}
    # One product more where a long step is looked at.
    assert all((t, q) in allowed or (t - 1, q) in allowed for t, q in kinds)
    assert kinds.count((5, 0)) > 0.5 * len(kinds)


# -- POGO, other metrics, the exact safe step -------------------------------------------------


def fixed(step, field, move=None):
    """An open loop of a constant step, without a safe one."""
    return lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Constant(step)),
        field=field,
        move=move or lo.moves.Additive(),
    )


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
@pytest.mark.parametrize("lam", [0.5, 0.2])
def test_pogo_is_five_lines(rng, shape, dtype, lam):
    fun, grad = ref.quadratic(rng, shape, dtype)
    x0 = ref.in_tube(rng, shape, 0.3, dtype)
    problem = lo.Objective(fun, grad, shape=shape)
    for step in (0.05, lambda k: 0.1 / (1 + k)):
        xs, result = run(problem, x0, lo.pogo(step, lam=lam), 30)
        assert_close(xs, ref.pogo(grad, x0, step, lam), 1e-12)
        assert result.njev == result.nit + 1
    other, _ = run(problem, x0, lo.pogo(0.05, lam=0.7 - lam), 30)
    assert np.abs(other[5] - ref.pogo(grad, x0, 0.05, lam, 5)[5]).max() > 1e-5


def test_pogo_in_every_library(arrays, rng):
    for dtype in ("float64", "complex128", "float32"):
        for shape in [(6, 6), (9, 4), (4, 9), (3, 6, 4)]:
            fun, grad = ref.quadratic(rng, shape, dtype)
            x0 = ref.in_tube(rng, shape, 0.3, dtype)
            numpy, _ = run(lo.Objective(fun, grad, shape=shape), x0, lo.pogo(0.05), 20)
            problem = lo.Objective(arrays.wrap(fun), arrays.wrap(grad), shape=shape)
            xs, result = run(problem, arrays.to(x0), lo.pogo(0.05), 20)
            assert_close(xs, numpy, 1e-4 if dtype == "float32" else 1e-11)
            assert arrays.host(result.x).dtype == np.dtype(dtype)


@pytest.mark.parametrize("shape", [(5, 6, 6), (2, 2, 7, 4), (4, 4, 7)])
def test_pogo_on_a_stack_is_a_loop(rng, shape):
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, lo.pogo(0.05), 20)
    turn = ref.H if shape[-2] < shape[-1] else lambda a: a
    for i in np.ndindex(shape[:-2]):

        def one(x, i=i):
            full = x0.copy()
            full[i] = turn(x)
            return turn(grad(full)[i])

        expected = ref.pogo(one, turn(x0[i]), 0.05, steps=20)
        assert_close([turn(x[i]) for x in xs], expected, 1e-11)


def test_pogo_on_a_product_is_separate_runs(rng):
    shapes = {"W": (7, 4), "Q": (5, 5), "b": (8,)}
    constraint = {"W": lo.Stiefel(), "Q": lo.Stiefel(), "b": lo.Euclidean()}
    of_w, of_q = (ref.quadratic(rng, shapes[k])[1] for k in "WQ")
    x0 = {k: ref.in_tube(rng, shapes[k], 0.3) for k in "WQ"} | {"b": ref.gaussian(rng, (8,))}
    problem = lo.Objective(
        grad=lambda x: {"W": of_w(x["W"]), "Q": of_q(x["Q"]), "b": x["b"] - 2.0},
        shape=shapes,
        constraint=constraint,
    )
    xs, _ = run(problem, x0, lo.pogo(0.05), 25)
    for name, grad in (("W", of_w), ("Q", of_q)):
        assert_close([x[name] for x in xs], ref.pogo(grad, x0[name], 0.05, steps=25), 1e-12)
    free = [2.0 + 0.95**k * (x0["b"] - 2.0) for k in range(26)]
    assert_close([x["b"] for x in xs], free, 1e-12)


METRICS = {
    "canonical R": (lo.fields.Canonical(), 0.5, 0.5),
    "canonical": (lo.fields.Canonical(metric_scale=1.0), 0.5, 1.0),
    "Euclidean": (lo.fields.Euclidean(), 1.0, 1.0),
    "Euclidean, scaled": (lo.fields.Euclidean(metric_scale=0.4), 1.0, 0.4),
    "beta": (lo.fields.BetaMetric(0.3), 0.3, 1.0),
    "beta, scaled": (lo.fields.BetaMetric(3.0, metric_scale=2.0), 3.0, 2.0),
}
metrics = pytest.mark.parametrize("metric", METRICS)


@metrics
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_landing_in_a_metric_is_its_formula(rng, shape, dtype, metric):
    tangent, beta, scale = METRICS[metric]
    fun, grad = ref.quadratic(rng, shape, dtype)
    x0 = ref.in_tube(rng, shape, 0.3, dtype)
    problem = lo.Objective(fun, grad, shape=shape)
    xs, _ = run(problem, x0, fixed(0.003, lo.fields.Field(tangent)), 30)
    assert_close(xs, ref.tangent_landing(grad, x0, 0.003, beta, scale), 1e-12)
    safe, result = run(problem, x0, lo.landing(step=0.003, tangent=tangent), 30)
    assert_close(safe, xs, 1e-12)  # the preset, where the safe step does not cut
    assert set(result.trace["step"][1:]) == {0.003}


@metrics
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_one_short_step_is_the_scale_times_the_riemannian_gradient(rng, shape, metric):
    """(X - X_+) / eta at eta -> 0 from a point of the manifold; whatever lam is."""
    tangent, beta, scale = METRICS[metric]
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    eta = 1e-6
    for lam in (0.1, 10.0):
        method = lo.landing(step=eta, lam=lam, tangent=tangent)
        xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, method, 1)
        expected = scale * ref.riemannian_gradient(x0, grad(x0), beta)
        np.testing.assert_allclose((x0 - xs[1]) / eta, expected, atol=1e-8)


@metrics
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_same_step_is_the_same_trajectory_to_first_order(rng, shape, metric):
    """At a fixed time, as eta -> 0: that of descent with the step metric_scale * eta in the metric.

    Halving eta halves the difference; with the scale forgotten it stays.
    """
    tangent, beta, scale = METRICS[metric]
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    problem = lo.Objective(fun, grad, shape=shape)
    apart, wrong = [], []
    for steps in (200, 400):
        eta = 0.4 / steps
        x = run(problem, x0, lo.landing(step=eta, lam=1.0, tangent=tangent), steps)[0][-1]
        apart.append(
            np.linalg.norm(x - ref.riemannian_descent(grad, x0, scale * eta, beta, steps)[-1])
        )
        wrong.append(
            np.linalg.norm(x - ref.riemannian_descent(grad, x0, 1.5 * scale * eta, beta, steps)[-1])
        )
    assert apart[0] < 0.05
    assert apart[1] < 0.6 * apart[0]
    assert wrong[1] > 0.9 * wrong[0] > 2 * apart[1]


def test_scales_are_steps(rng):
    """A canonical step of scale 1 is two steps' worth of R: (eta, lam) is (2 eta, lam / 2)."""
    for shape in [(6, 6), (9, 4)]:
        fun, grad = ref.quadratic(rng, shape)
        x0 = ref.in_tube(rng, shape, 0.3)
        problem = lo.Objective(fun, grad, shape=shape)
        one, _ = run(
            problem, x0, lo.landing(step=0.01, lam=1.0, tangent=lo.fields.Canonical(1.0)), 30
        )
        two, _ = run(problem, x0, lo.landing(step=0.02, lam=0.5), 30)
        assert_close(one, two, 1e-12)


@pytest.mark.parametrize("tangent", [lo.fields.Euclidean(), lo.fields.BetaMetric(0.3)])
def test_metrics_in_every_library(arrays, rng, tangent):
    method = lo.landing(step=0.3, tangent=tangent, safe="exact")
    for dtype in ("float64", "complex128"):
        for shape in [(6, 6), (9, 4), (4, 9), (3, 6, 4)]:
            fun, grad = ref.quadratic(rng, shape, dtype)
            x0 = ref.in_tube(rng, shape, 0.3, dtype)
            numpy, _ = run(lo.Objective(fun, grad, shape=shape), x0, method, 6)
            problem = lo.Objective(arrays.wrap(fun), arrays.wrap(grad), shape=shape)
            xs, result = run(problem, arrays.to(x0), method, 6)
            assert_close(xs, numpy, 1e-7)
            arrays.host(result.x)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_landing_with_its_exact_safe_step(rng, shape, dtype):
    """Every step from its own x: the wanted one, or the way to the wall where the bound would cut."""
    fun, grad = ref.quadratic(rng, shape, dtype)
    x0 = ref.in_tube(rng, shape, 0.3, dtype)
    problem = lo.Objective(fun, grad, shape=shape)
    longer = 0
    for wanted in (0.03, 0.12, 1.0):
        xs, result = run(problem, x0, lo.landing(step=wanted, safe="exact"), 30)
        for x, new, eta in zip(xs, xs[1:], result.trace["step"][1:], strict=False):
            field = ref.landing_field(x, grad(x), 1.0)
            d, g = np.linalg.norm(ref.H(x) @ x - np.eye(x.shape[1])), np.linalg.norm(field)
            bound = ref.safe_step(d, g, 1.0, 0.5)
            if bound < wanted:
                bound = max(bound, ref.longest_safe_step(x, field, 0.5))
                longer += eta > 1.05 * ref.safe_step(d, g, 1.0, 0.5)
            assert eta == pytest.approx(min(bound, wanted), rel=1e-7)
            np.testing.assert_allclose(new, x - eta * field, atol=1e-13)
        assert max(ref.distance(x) for x in xs) <= 0.5 * (1 + 1e-13)
    assert longer >= 20


def test_the_exact_safe_step_costs_two_products_where_it_is_needed(rng, monkeypatch):
    fun, grad = ref.quadratic(rng, (20, 20))
    products = Products(monkeypatch)
    x0 = ref.in_tube(rng, (20, 20), 0.3)
    for scale, more in ((1e-3, 0), (1e3, 2)):
        counts = products.between_gradients(
            fun, lambda x, t=scale: t * grad(x), x0, lo.landing(step=0.1, safe="exact"), 20
        )
        assert all(count == {(20, 20, 20): 3 + more} for count in counts)
    fun, grad = ref.quadratic(rng, (30, 8))
    x0 = ref.in_tube(rng, (30, 8), 0.3)
    for scale, more in ((1e-3, 0), (1e3, 2)):
        counts = products.between_gradients(
            fun, lambda x, t=scale: t * grad(x), x0, lo.landing(step=0.1, safe="exact"), 20
        )
        assert all(count == {(8, 30, 8): 2 + more, (30, 8, 8): 2} for count in counts)


def test_a_pogo_step_is_four_or_six_products(rng, monkeypatch):
    """Square: G X^H, K X, the Gram matrix of M, the pass; X X^H is not formed. Tall: six."""
    products = Products(monkeypatch)
    for shape, expected in (
        ((20, 20), {(20, 20, 20): 4}),
        ((30, 8), {(8, 30, 8): 3, (30, 8, 8): 3}),
    ):
        fun, grad = ref.quadratic(rng, shape)
        x0 = ref.orthonormal(rng, shape)
        for base in (None, lo.estimators.Adam(base=lo.estimators.Momentum(0.5))):
            counts = products.between_gradients(fun, grad, x0, lo.pogo(0.05, base), 20)
            assert all(count == expected for count in counts)


def test_a_landing_step_in_another_metric(rng, monkeypatch):
    """Four products n p^2 and one p^3; none of p^3 for the canonical metric of any scale."""
    fun, grad = ref.quadratic(rng, (30, 8))
    products = Products(monkeypatch)
    x0 = ref.in_tube(rng, (30, 8), 0.3)
    tall = {(8, 30, 8): 2, (30, 8, 8): 2}
    for tangent, more in (
        (lo.fields.Canonical(1.0), {}),
        (lo.fields.BetaMetric(0.5), {}),
        (lo.fields.Euclidean(), {(8, 8, 8): 1}),
        (lo.fields.BetaMetric(0.3), {(8, 8, 8): 1}),
    ):
        method = lo.landing(step=0.01, tangent=tangent)
        counts = products.between_gradients(fun, grad, x0, method, 20)
        assert all(count == tall | more for count in counts)
