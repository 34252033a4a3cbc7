"""Estimators: what the field follows beside what is measured; momentum and Adam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import reference as ref
from test_trajectories import assert_close, run

import landingopt as lo


@dataclass(frozen=True)
class Times:
    """An estimator of one's own: the gradient times a number."""

    factor: float

    def start(self, oracle, value):
        return TimesRun(self, lo.estimators.Full().start(oracle, value))


class TimesRun:
    def __init__(self, recipe, base):
        self.recipe, self.base = recipe, base

    def fill(self, point):
        if point.estimate is None:
            self.base.fill(point)
            point.estimate = [self.recipe.factor * g for g in point.gradient]


class Elsewhere:
    """An estimator that leaves no gradient at all, as a minibatch does."""

    def __init__(self, grad):
        self.grad = grad

    def start(self, oracle, value):
        return self

    def fill(self, point):
        if point.estimate is None:
            point.estimate = [self.grad(point.x[0])]


def riemannian_norm(x, g):
    return np.linalg.norm(g - x @ ref.sym(ref.H(x) @ g))


def opened(estimator, step=0.05, lam=1.0, field=None, move=None):
    """An open loop with an estimator, composed by hand."""
    return lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Safeguarded(lo.steps.Constant(step)))
        if field is None
        else lo.searches.OpenLoop(lo.steps.Constant(step)),
        field=field or lo.fields.Field(normal=lo.fields.Penalty(lam)),
        move=move or lo.moves.Additive(),
        estimator=estimator,
    )


# -- the estimate beside the gradient ---------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)])
def test_the_field_follows_the_estimate(rng, shape):
    """Three times the gradient of f is the gradient of 3 f."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, opened(Times(3.0)), 30)
    plain = lo.Objective(lambda x: 3 * fun(x), lambda x: 3.0 * grad(x), shape=shape)
    expected, _ = run(plain, x0, opened(lo.estimators.Full()), 30)
    assert_close(xs, expected, 1e-12)


PSI_MOVES = {
    "landing": {},
    "psi": {"field": lo.landing().field, "move": lo.moves.NewtonSchulz()},
}


@pytest.mark.parametrize("parts", PSI_MOVES.values(), ids=PSI_MOVES)
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_what_is_measured_is_the_exact_gradient(rng, shape, parts):
    """The norms, the feasible values and the stop; also where the field's norm would be at hand."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.2)
    problem = lo.Objective(fun, grad, shape=shape)
    estimators = {"times": Times(7.0), "elsewhere": Elsewhere(lambda x: 7.0 * grad(x))}
    for estimator in estimators.values():
        xs, result = run(problem, x0, opened(estimator, 0.005, **parts), 25)
        norms = [riemannian_norm(x, grad(x)) for x in xs]
        np.testing.assert_allclose(result.trace["gradient_norm"], norms, rtol=1e-9)
        assert result.gradient_norm == pytest.approx(norms[-1], rel=1e-9)
        values = [fun(ref.polar(x)) for x in xs]
        np.testing.assert_allclose(result.trace["feasible_fun"], values, rtol=1e-9)
        if isinstance(estimator, Elsewhere):
            assert result.njev == 0  # what the observer measures is not the method's
        first = riemannian_norm(ref.polar(x0), grad(ref.polar(x0)))
        stop = lo.GradientNorm(rtol=1e-3) | lo.MaxIterations(5000)
        done = lo.minimize(problem, x0, opened(estimator, 0.01, **parts), stop=stop)
        assert done.success
        at_end = riemannian_norm(done.x, grad(done.x))
        assert 0.5e-3 * first < at_end <= 1e-3 * first * (1 + 1e-9)


def test_each_block_follows_its_own_estimate(rng):
    shape = {"W": (7, 4), "b": (3,)}
    fun, grad = ref.quadratic(rng, shape["W"])
    x0 = {"W": ref.in_tube(rng, shape["W"], 0.3), "b": ref.gaussian(rng, (3,))}
    constraint = {"W": lo.Stiefel(), "b": lo.Euclidean()}

    def scaled(t):
        return lo.Objective(
            lambda x: t * float(fun(x["W"]) + np.sum((x["b"] - 2) ** 2)),
            lambda x: {"W": t * grad(x["W"]), "b": t * 2 * (x["b"] - 2)},
            shape=shape,
            constraint=constraint,
        )

    xs, _ = run(scaled(1.0), x0, opened(Times(3.0)), 20)
    expected, _ = run(scaled(3.0), x0, opened(lo.estimators.Full()), 20)
    for name in shape:
        assert_close([x[name] for x in xs], [x[name] for x in expected], 1e-12)


# -- momentum and Adam against ten lines ------------------------------------------------------

Momentum, Adam = lo.estimators.Momentum, lo.estimators.Adam
Full, Tangent = lo.estimators.Full, lo.estimators.Tangent
STEP = 0.015

# (estimator, naive run along it); the settings are such that forgetting an option would show.
TRANSFORMS = {
    "heavy ball": (
        Momentum(0.8),
        lambda grad, x, steps=30: ref.heavy_ball(grad, x, STEP, 0.8, steps=steps),
    ),
    "nesterov": (
        Momentum(0.8, nesterov=True),
        lambda grad, x, steps=30: ref.nesterov(grad, x, STEP, 0.8, steps=steps),
    ),
    "adam": (
        Adam(0.8, 0.97, 1e-3),
        lambda grad, x, steps=30: ref.vector_adam(grad, x, STEP, 0.8, 0.97, 1e-3, steps=steps),
    ),
}
transforms = pytest.mark.parametrize("name", TRANSFORMS)


def landing_along(base):
    """The landing without its safe step, which the naive loops do not have."""
    return lo.Method(search=lo.searches.OpenLoop(lo.steps.Constant(STEP)), estimator=base)


@transforms
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
def test_transforms_are_ten_lines(rng, shape, dtype, name):
    fun, grad = ref.quadratic(rng, shape, dtype)
    x0 = ref.in_tube(rng, shape, 0.3, dtype)
    base, naive = TRANSFORMS[name]
    xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, landing_along(base), 30)
    assert_close(xs, naive(grad, x0), 1e-12)
    plain, _ = run(
        lo.Objective(fun, grad, shape=shape), x0, landing_along(lo.estimators.Full()), 30
    )
    assert np.abs(plain[-1] - xs[-1]).max() > 1e-3


@transforms
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_transforms_in_every_library(arrays, rng, name, dtype):
    base, _ = TRANSFORMS[name]
    for shape in [(6, 6), (9, 4), (4, 9), (3, 6, 4)]:
        fun, grad = ref.quadratic(rng, shape, dtype)
        x0 = ref.in_tube(rng, shape, 0.3, dtype)
        numpy, _ = run(lo.Objective(fun, grad, shape=shape), x0, landing_along(base), 12)
        problem = lo.Objective(arrays.wrap(fun), arrays.wrap(grad), shape=shape)
        xs, result = run(problem, arrays.to(x0), landing_along(base), 12)
        assert_close(xs, numpy, 1e-11)
        arrays.host(result.x)


@transforms
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 7, 4)])
def test_transforms_in_single_precision(rng, shape, name):
    base, _ = TRANSFORMS[name]
    fun, grad = ref.quadratic(rng, shape, np.float32)
    x0 = ref.in_tube(rng, shape, 0.3, np.float32)
    problem = lo.Objective(fun, grad, shape=shape)
    xs, _ = run(problem, x0, landing_along(base), 30)
    assert {x.dtype for x in xs} == {np.dtype("float32")}
    wide = lo.Objective(fun, lambda x: grad(x).astype(np.float64), shape=shape)
    expected, _ = run(wide, x0.astype(np.float64), landing_along(base), 30)
    assert_close(xs, expected, 1e-4)


@transforms
@pytest.mark.parametrize("shape", [(5, 6, 6), (2, 2, 7, 4), (4, 4, 7)])
def test_a_stack_is_a_loop(rng, shape, name):
    base, naive = TRANSFORMS[name]
    fun, grad = ref.quadratic(rng, shape)
    scales = np.geomspace(0.01, 1.0, np.prod(shape[:-2])).reshape(*shape[:-2], 1, 1)
    x0 = ref.in_tube(rng, shape, 0.3)
    for value in (fun, lambda x: float(fun(x).sum())):
        problem = lo.Objective(value, lambda x: scales * grad(x), shape=shape)
        xs, _ = run(problem, x0, landing_along(base), 20)
        turn = ref.H if shape[-2] < shape[-1] else lambda a: a
        for i in np.ndindex(shape[:-2]):

            def one(x, i=i, turn=turn):
                full = x0.copy()
                full[i] = turn(x)
                return turn((scales * grad(full))[i])

            assert_close([turn(x[i]) for x in xs], naive(one, turn(x0[i]), 20), 1e-11)


@transforms
def test_a_product_is_separate_runs(rng, name):
    """Every block, the free one too, has numbers of its own."""
    base, naive = TRANSFORMS[name]
    shapes = {"W": (7, 4), "Q": (5, 5), "b": (8,)}
    constraint = {"W": lo.Stiefel(), "Q": lo.Stiefel(), "b": lo.Euclidean()}
    of_w, of_q = (ref.quadratic(rng, shapes[k])[1] for k in "WQ")
    grads = {"W": of_w, "Q": lambda x: 0.01 * of_q(x), "b": lambda b: 30.0 * (b - 2.0)}
    x0 = {k: ref.in_tube(rng, shapes[k], 0.3) for k in "WQ"} | {"b": ref.gaussian(rng, (8,))}
    problem = lo.Objective(
        grad=lambda x: {k: grads[k](x[k]) for k in x}, shape=shapes, constraint=constraint
    )
    xs, _ = run(problem, x0, landing_along(base), 20)
    for k in "WQ":
        assert_close([x[k] for x in xs], naive(grads[k], x0[k], 20), 1e-12)
    free = lo.Objective(grad=grads["b"], shape=(8,), constraint=lo.Euclidean())
    alone, _ = run(free, x0["b"], landing_along(base), 20)
    assert_close([x["b"] for x in xs], alone, 1e-12)
    b, m, v = x0["b"], 0.0, 0.0
    for t, x in enumerate(xs):
        np.testing.assert_allclose(x["b"], b, atol=1e-11)
        g = grads["b"](b)
        if name == "adam":
            m, v = 0.8 * m + 0.2 * g, 0.97 * v + 0.03 * np.linalg.norm(g) ** 2
            b = b - STEP * (m / (1 - 0.8 ** (t + 1))) / (np.sqrt(v / (1 - 0.97 ** (t + 1))) + 1e-3)
        else:
            m = 0.8 * m + g
            b = b - STEP * (g + 0.8 * m if name == "nesterov" else m)


def test_every_option_has_its_effect(rng):
    """One option changed at a time: the run follows the formula with it, and leaves the default's."""
    shape = (7, 4)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    problem = lo.Objective(fun, grad, shape=shape)
    settings = {
        Momentum(): lambda: ref.heavy_ball(grad, x0, STEP, 0.9),
        Momentum(beta=0.5): lambda: ref.heavy_ball(grad, x0, STEP, 0.5),
        Momentum(beta=0.0): lambda: ref.heavy_ball(grad, x0, STEP, 0.0),
        Momentum(nesterov=True): lambda: ref.nesterov(grad, x0, STEP, 0.9),
        Adam(): lambda: ref.vector_adam(grad, x0, STEP, 0.9, 0.999, 1e-8),
        Adam(beta1=0.0): lambda: ref.vector_adam(grad, x0, STEP, 0.0, 0.999, 1e-8),
        Adam(beta2=0.5): lambda: ref.vector_adam(grad, x0, STEP, 0.9, 0.5, 1e-8),
        Adam(beta2=0.0): lambda: ref.vector_adam(grad, x0, STEP, 0.9, 0.0, 1e-8),
        Adam(epsilon=1.0): lambda: ref.vector_adam(grad, x0, STEP, 0.9, 0.999, 1.0),
    }
    ends = []
    for base, naive in settings.items():
        xs, _ = run(problem, x0, landing_along(base), 30)
        assert_close(xs, naive(), 1e-12)
        ends.append(xs[-1])
    for i, a in enumerate(ends):
        for b in ends[:i]:
            assert np.abs(a - b).max() > 1e-5


def test_transforms_nest(rng):
    """Momentum of Adam's estimate, and Adam of momentum: each takes what its base hands on."""
    shape = (7, 4)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)

    def adam(g, state):
        state["t"] = t = state.get("t", 0) + 1
        state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * np.linalg.norm(g) ** 2
        return state["m"] / (1 - 0.9**t) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)

    def heavy(g, state):
        state["s"] = 0.7 * state.get("s", 0.0) + g
        return state["s"]

    for base, inner, outer in (
        (Momentum(0.7, base=Adam()), adam, heavy),
        (Adam(base=Momentum(0.7)), heavy, adam),
    ):
        xs, _ = run(lo.Objective(fun, grad, shape=shape), x0, landing_along(base), 30)
        x, expected, states = x0, [x0], ({}, {})
        for _ in range(30):
            estimate = outer(inner(grad(x), states[0]), states[1])
            x = x - STEP * ref.landing_field(x, estimate, 1.0)
            expected.append(x)
        assert_close(xs, expected, 1e-12)


def test_a_transform_around_an_estimator_of_ones_own(rng):
    """One that leaves no gradient: momentum sums what it is handed."""
    shape = (7, 4)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    base = Momentum(0.8, base=Elsewhere(grad))
    xs, result = run(lo.Objective(fun, grad, shape=shape), x0, landing_along(base), 30)
    assert_close(xs, ref.heavy_ball(grad, x0, STEP, 0.8), 1e-12)
    assert result.njev == 0


# -- what Adam promises -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (3, 6, 4)])
@pytest.mark.parametrize("scale", [2.0**-400, 2.0**-20, 2.0**20, 2.0**400])
def test_adam_does_not_see_the_scale_of_f(rng, shape, scale):
    """A power of two changes no digit where epsilon = 0, and no square leaves the range."""
    _, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    method = landing_along(Adam(epsilon=0.0))
    expected, _ = run(lo.Objective(grad=grad, shape=shape), x0, method, 20)
    xs, _ = run(lo.Objective(grad=lambda x: scale * grad(x), shape=shape), x0, method, 20)
    assert_close(xs, expected, 1e-13)


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)])
@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_adam_does_not_see_the_scale_of_f_in_single_precision(arrays, rng, shape, scale):
    _, grad = ref.quadratic(rng, shape, np.float32)
    x0 = ref.in_tube(rng, shape, 0.3, np.float32)
    method = landing_along(Adam(epsilon=0.0))
    runs = [
        run(
            lo.Objective(
                grad=arrays.wrap(lambda x, t=t: (np.float32(t) * grad(x)).astype(np.float32)),
                shape=shape,
            ),
            arrays.to(x0),
            method,
            20,
        )[0]
        for t in (1.0, scale)
    ]
    assert_close(runs[1], runs[0], 1e-5)


def test_adam_keeps_the_direction(rng):
    """The first estimate is the gradient at length 1: no entry is scaled apart, rotations commute."""
    shape = (6, 4)
    _, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    q = ref.orthonormal(rng, (6, 6))
    method = landing_along(Adam())
    plain = run(lo.Objective(grad=grad, shape=shape), x0, method, 20)[0]
    turned = run(lo.Objective(grad=lambda x: q @ grad(q.T @ x), shape=shape), q @ x0, method, 20)[0]
    assert_close(turned, [q @ x for x in plain], 1e-12)
    g = grad(x0)
    first = x0 - STEP * ref.landing_field(x0, g / (np.linalg.norm(g) + 1e-8), 1.0)
    np.testing.assert_allclose(plain[1], first, atol=1e-14)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8])
@pytest.mark.parametrize("base", [Adam, lambda **_: Momentum(0.9), lambda **_: Momentum(0.9, True)])
def test_a_gradient_of_zero(rng, base, epsilon):
    """Nothing to follow: x lands, and no number is 0 / 0. Then the gradient comes."""
    x0 = ref.in_tube(rng, (3, 6, 4), 0.3)
    g = ref.gaussian(rng, (3, 6, 4))
    calls = []

    def grad(x):
        calls.append(1)
        return 0.0 * g if len(calls) < 5 else g

    method = landing_along(base(epsilon=epsilon))
    xs, _ = run(lo.Objective(grad=grad, shape=x0.shape), x0, method, 10)
    assert all(np.all(np.isfinite(x)) for x in xs)
    assert np.abs(xs[-1] - x0).max() > 1e-2


@transforms
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (3, 6, 4)])
def test_a_gradient_that_is_not_finite_is_a_status(rng, shape, bad, name):
    fun, grad = ref.quadratic(rng, shape)
    result = lo.minimize(
        lo.Objective(fun, ref.breaking(grad, bad), shape=shape),
        ref.orthonormal(rng, shape),
        landing_along(TRANSFORMS[name][0]),
        stop=lo.MaxIterations(30),
        on_failure="return",
    )
    assert np.all(np.asarray(result.status) == int(lo.Status.NONFINITE))


# -- in a run ---------------------------------------------------------------------------------


@transforms
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_gradient_norm_is_the_true_gradients(rng, shape, name):
    """Of the result, of every row, and of the stop."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.2)
    base = TRANSFORMS[name][0]
    psi = lo.Method(
        search=lo.searches.OpenLoop(lo.steps.Constant(STEP)),
        field=lo.landing().field,
        move=lo.moves.NewtonSchulz(),
        estimator=base,
    )
    for method in (lo.landing(step=STEP, base=base), lo.pogo(STEP, base), psi):
        xs, result = run(lo.Objective(fun, grad, shape=shape), x0, method, 25)
        norms = [riemannian_norm(x, grad(x)) for x in xs]
        np.testing.assert_allclose(result.trace["gradient_norm"], norms, rtol=1e-9)
        assert result.gradient_norm == pytest.approx(norms[-1], rel=1e-9)
        assert result.njev == result.nit + 1


@transforms
def test_runs_share_nothing(rng, name):
    """The same recipe twice: the second run starts from m = 0 again."""
    fun, grad = ref.quadratic(rng, (6, 4))
    x0 = ref.in_tube(rng, (6, 4), 0.3)
    method = landing_along(TRANSFORMS[name][0])
    problem = lo.Objective(fun, grad, shape=(6, 4))
    first, second = (run(problem, x0, method, 15)[0] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@transforms
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (3, 6, 4)])
def test_the_users_arrays_are_left_alone(arrays, rng, shape, name):
    """A gradient that is always the same array, its values checked at every call; x0 too."""
    x0 = ref.in_tube(rng, shape, 0.3)
    held, given = arrays.to(ref.gaussian(rng, shape)), arrays.to(x0)
    kept = arrays.host(held).copy()
    seen = []

    def grad(x):
        np.testing.assert_array_equal(arrays.host(held), kept)
        seen.append(1)
        return held

    method = landing_along(TRANSFORMS[name][0])
    xs, _ = run(lo.Objective(grad=grad, shape=shape), given, method, 10)
    np.testing.assert_array_equal(arrays.host(held), kept)
    np.testing.assert_array_equal(arrays.host(given), x0)
    assert len(seen) >= 11
    problem = lo.Objective(grad=arrays.wrap(lambda x: kept), shape=shape)
    assert_close(run(problem, arrays.to(x0), method, 10)[0], xs, 1e-14)


@transforms
def test_a_shared_buffer_and_a_gradient_that_is_its_argument(rng, name):
    """What the user rewrites between calls is not held."""
    fun, grad = ref.quadratic(rng, (6, 4))
    x0 = ref.in_tube(rng, (6, 4), 0.3)
    shared = np.empty((6, 4))

    def refill(x):
        shared[...] = grad(x)
        return shared

    method = landing_along(TRANSFORMS[name][0])
    expected, _ = run(lo.Objective(fun, grad, shape=(6, 4)), x0, method, 20)
    xs, _ = run(lo.Objective(fun, refill, shape=(6, 4)), x0, method, 20)
    assert_close(xs, expected, 1e-13)
    itself = lo.Objective(lambda x: 0.5 * np.sum(x**2), lambda x: x, shape=(6, 4))
    result = lo.minimize(itself, x0, method, stop=lo.Distance(1e-10) | lo.MaxIterations(500))
    np.testing.assert_allclose(result.feasible_x, ref.polar(x0), atol=1e-6)


@transforms
def test_a_frozen_matrix_of_a_stack_stays(rng, name):
    """The first matrix starts near its optimum: it ends early and stays, and disturbs nobody."""
    shape = (3, 6, 3)
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.orthonormal(rng, shape)
    alone = lo.Objective(
        lambda x: float(fun(np.stack([x] * 3))[1]),
        lambda x: grad(np.stack([x] * 3))[1],
        shape=(6, 3),
    )
    x0[1] = lo.minimize(alone, x0[1], tol=1e-9).feasible_x
    base, naive = TRANSFORMS[name]
    xs = []
    result = lo.minimize(
        lo.Objective(fun, grad, shape=shape),
        x0,
        landing_along(base),
        stop=(lo.GradientNorm(atol=1e-6) & lo.Distance(1e-6)) | lo.MaxIterations(40),
        callback=lambda row: xs.append(row.x.copy()),
    )
    assert result.status[1] == int(lo.Status.CONVERGED)
    for x in xs:
        np.testing.assert_array_equal(x[1], x0[1])
    for i in (0, 2):
        expected = naive(lambda x, i=i: grad(np.stack([x] * 3))[i], x0[i], 40)
        assert_close([x[i] for x in xs], expected[: len(xs)], 1e-11)


@transforms
@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_tube_is_kept_with_transforms(rng, shape, name):
    """The safe step is of the field that is followed."""
    fun, grad = ref.quadratic(rng, shape)
    x0 = ref.in_tube(rng, shape, 0.3)
    method = lo.landing(step=30.0, lam=0.3, base=TRANSFORMS[name][0])
    problem = lo.Objective(fun, lambda x: 100 * grad(x), shape=shape)
    xs, result = run(problem, x0, method, 60)
    assert max(ref.distance(x) for x in xs) <= 0.5 * (1 + 1e-13)
    assert np.max(result.trace["step"][1:]) < 30.0


def test_no_large_array_is_made_in_steady_state(rng):
    """n x p arrays live in the run's own buffers."""
    import tracemalloc

    shape = (400, 50)
    g = ref.gaussian(rng, shape) / 100
    x0 = ref.orthonormal(rng, shape)
    for base in (Momentum(0.9), Momentum(0.9, nesterov=True), Adam()):
        peaks = []

        def grad(x, peaks=peaks):
            peaks.append(tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0])
            tracemalloc.reset_peak()
            return g

        tracemalloc.start()
        try:
            lo.minimize(
                lo.Objective(grad=grad, shape=shape),
                x0,
                lo.landing(step=0.01, base=base),
                stop=lo.MaxIterations(12),
                record=lo.Every(10**6),
            )
        finally:
            tracemalloc.stop()
        assert max(peaks[6:12]) < 0.9 * x0.nbytes


# -- options and errors -----------------------------------------------------------------------


def test_recipes_are_values():
    assert Momentum() == Momentum(0.9, False, lo.estimators.Full())
    assert Momentum(0.9) != Momentum(0.8)
    assert hash(Adam()) == hash(Adam(0.9, 0.999, 1e-8))
    assert repr(Momentum(base=Adam())) == (
        "Momentum(beta=0.9, nesterov=False, "
        "base=Adam(beta1=0.9, beta2=0.999, epsilon=1e-08, base=Full()))"
    )
    assert type(Momentum(np.float32(0.5)).beta) is float


@pytest.mark.parametrize("value", [1.0, -0.1, np.nan, 2, "0.9", None, True])
def test_a_decay_lies_in_0_1(value):
    for make, name in (
        (lambda v: Momentum(beta=v), "beta"),
        (lambda v: Adam(beta1=v), "beta1"),
        (lambda v: Adam(beta2=v), "beta2"),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, 1\), got"):
            make(value)


@pytest.mark.parametrize("value", [-1e-8, np.nan, np.inf, "small", None])
def test_epsilon_is_not_negative(value):
    with pytest.raises(ValueError, match="epsilon must be a number >= 0"):
        Adam(epsilon=value)


@pytest.mark.parametrize("value", [0.9, "full", lo.estimators.Full, None])
def test_a_base_is_an_estimator(value):
    for make in (lambda v: Momentum(base=v), lambda v: Adam(base=v)):
        with pytest.raises(TypeError, match="base must be an estimator such as"):
            make(value)
    if value is not None:
        for make in (lambda v: lo.landing(step=0.1, base=v), lambda v: lo.pogo(0.1, v)):
            with pytest.raises(TypeError, match="base must be an estimator such as"):
                make(value)


def test_a_line_search_refuses_transforms():
    with pytest.raises(ValueError, match="base = Momentum") as caught:
        lo.landing(base=Momentum())
    assert "lo.landing(step=..., base=...)" in str(caught.value)
    for base in (Momentum(), Adam()):
        with pytest.raises(ValueError, match="need the gradient of f,") as caught:
            lo.Method(
                search=lo.searches.LineSearch(),
                field=lo.landing().field,
                move=lo.moves.NewtonSchulz(),
                estimator=base,
            )
        assert "OpenLoop" in str(caught.value)


def test_momentum_goes_farther_by_one_over_one_minus_beta(rng):
    """Small steps along a constant gradient: 1 / (1 - beta) times as far in the long run."""
    g = ref.gaussian(rng, (6, 4))
    x0 = ref.orthonormal(rng, (6, 4))
    problem = lo.Objective(grad=lambda x: g, shape=(6, 4))
    gone = [
        np.linalg.norm(run(problem, x0, lo.landing(step=1e-7, base=base), 400)[0][-1] - x0)
        for base in (None, Momentum(0.9), Momentum(0.9, nesterov=True))
    ]
    assert gone[1] / gone[0] == pytest.approx(10.0, rel=0.05)
    assert gone[2] / gone[0] == pytest.approx(10.0, rel=0.05)


@pytest.mark.parametrize("beta", [0.5, 0.9])
@pytest.mark.parametrize("c", [0.0, 5.0, 50.0])
def test_the_normal_part_of_old_gradients(rng, beta, c):
    """f = c ||X||^2 / 2 - <X, B>: stable iff eta phi < (1 - beta)^2 / beta, as the docstring says."""
    q, s = ref.orthonormal(rng, (6, 6)), np.diag(np.linspace(1.0, 2.0, 6))
    phi = c - 1.1  # the mean of two eigenvalues of c I - s
    limit = (1 - beta) ** 2 / beta / phi if phi > 0 else 0.02
    x0 = ref.polar(q + 1e-3 * ref.gaussian(rng, (6, 6)))
    problem = lo.Objective(grad=lambda x: c * x - q @ s, shape=(6, 6))
    for share in (0.9, 1.1):
        method = lo.pogo(share * limit, Momentum(beta))
        result = lo.minimize(
            problem,
            x0,
            method,
            stop=lo.MaxIterations(2000),
            record=lo.Every(500),
            on_failure="return",
        )
        near = np.linalg.norm(result.x - q) < 1e-6
        assert near == (share < 1.0 or phi < 0.0)


@pytest.mark.parametrize("shape", [(6, 4), (6, 6), (3, 6, 4)])
def test_on_a_device_nothing_is_read_back(rng, monkeypatch, shape):
    """The transfers of a run are those of its bookends, however many steps it takes."""
    strict = pytest.importorskip("array_api_strict")
    from landingopt import _xp

    device = strict.Device("device1")
    x0, g = (strict.asarray(a, device=device) for a in (ref.orthonormal(rng, shape),) * 2)
    reads, to_host = [], _xp.to_host
    monkeypatch.setattr(_xp, "to_host", lambda a: reads.append(a.shape) or to_host(a))
    for method in (
        lo.pogo(0.01, Adam(base=Momentum(0.5))),
        lo.pogo(0.01, Momentum(0.5, nesterov=True)),
        lo.landing(step=0.01, base=Adam(), tangent=lo.fields.Euclidean()),
    ):
        counts = []
        for steps in (2, 12):
            reads.clear()
            lo.minimize(
                lo.Objective(grad=lambda x: g, shape=shape),
                x0,
                method,
                stop=lo.MaxIterations(steps),
                record=lo.Every(10**6),
            )
            counts.append(len(reads))
        assert counts[0] == counts[1]


# -- tangent parts ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (9, 4)])
def test_the_tangent_part_is_what_the_formula_says_and_alone_changes_nothing(rng, shape):
    n, p = shape
    a, b = ref.gaussian(rng, (p, p)), ref.gaussian(rng, (n, p))
    problem = lo.problems.Procrustes(a, b)
    x0 = ref.orthonormal(rng, shape)
    stop = lo.MaxIterations(1)
    plain = lo.minimize(problem, x0, lo.pogo(1e-3), stop=stop)
    tangent = lo.minimize(problem, x0, lo.pogo(1e-3, base=Tangent()), stop=stop)
    np.testing.assert_allclose(tangent.x, plain.x, atol=1e-14)
    # What a transform around it sees is G - X sym(X^T G): one Nesterov step is (1 + beta) of it.
    ahead = Momentum(0.5, nesterov=True, base=Tangent())
    one = lo.minimize(problem, x0, lo.pogo(1e-3, base=ahead), stop=stop)
    longer = lo.minimize(problem, x0, lo.pogo(1.5e-3), stop=stop)
    np.testing.assert_allclose(one.x, longer.x, atol=1e-14)


def test_momentum_of_tangent_parts_has_no_anti_friction():
    """Square Procrustes: sums of whole gradients drive the iterates apart, of tangent parts do not."""
    problem = lo.problems.Procrustes.random(20, rng=0)
    options = dict(tol=1e-6, rng=1, stop=None, on_failure="return")
    runs = {}
    for base in (Full(), Tangent()):
        method = lo.landing(step=0.002, base=Momentum(0.8, base=base))
        runs[type(base).__name__] = lo.minimize(problem, method=method, **options)
    assert runs["Tangent"].success and runs["Tangent"].gradient_norm < 1e-3
    assert not runs["Full"].success
