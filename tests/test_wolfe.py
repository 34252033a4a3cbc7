"""The Wolfe search: what it accepts and refuses, and every way a run with it can end.

f and the distance are measured by the test itself, in the user's functions.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference as ref
from reference import H, inner, polar, sym
from reference import seeded as gaussian

import landingopt as lo
from landingopt import Status, _xp

METHODS = {
    "landing": lo.landing(),
    "lbfgs": lo.landing_lbfgs(1000),
    "cg": lo.landing_cg(),
    "newton": lo.landing_newton(),
}
WITH_WOLFE = {name: method for name, method in METHODS.items() if name != "landing"}
TARGET = gaussian(0, (6, 4))
START = polar(gaussian(1, (6, 4)))
SLACK = 1e4 * 2.0**-52  # of f: what a search allows for rounding

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_wolfe = pytest.mark.parametrize("method", WITH_WOLFE.values(), ids=WITH_WOLFE)


def distance_to(target=TARGET, *, fun=None, grad=None, scale=1.0, shift=0.0):
    """scale ||x - T||^2 / 2 + shift, with one of the functions exchanged."""
    return lo.Objective(
        fun or (lambda x: scale * 0.5 * np.sum((x - target) ** 2) + shift),
        grad or (lambda x: scale * (x - target)),
        shape=target.shape,
        hessp=lambda x, v: scale * v,
    )


BEST = polar(TARGET)


def uneven(rng, shape, dtype="float64", condition=30.0, scale=1.0):
    """scale ||A X B - C||^2 / 2 with curvatures over a wide range, and its Hessian."""
    n, p = shape
    a = ref.gaussian(rng, (n, n), dtype) / n**0.5 * np.geomspace(1, condition, n).astype(dtype)
    b, c = ref.gaussian(rng, (p, p), dtype) / p**0.5, ref.gaussian(rng, shape, dtype)

    def scaled(scale):
        return lo.Objective(
            lambda x: float(scale * 0.5 * np.sum(np.abs(a @ x @ b - c) ** 2)),
            lambda x: scale * (H(a) @ (a @ x @ b - c) @ H(b)),
            shape=shape,
            hessp=lambda x, v: scale * (H(a) @ (a @ v @ b) @ H(b)),
        )

    return scaled(scale) if np.ndim(scale) == 0 else [scaled(c) for c in scale]


def breaks(function, k, value, once=False):
    """``function``, whose call k (from 0), and all later ones or not, give ``value`` in its place."""
    calls = itertools.count()

    def broken(x):
        result, call = function(x), next(calls)
        if call < k or (once and call > k):
            return result
        return value if np.ndim(result) == 0 else np.full_like(result, value)

    return broken


@dataclass(frozen=True)
class Noted:
    """A direction that notes the point, psi, F, and the step that led there."""

    direction: Any
    rows: list[Any] = field(default_factory=list, compare=False)

    def start(self, space, oracle):
        run = self.direction.start(space, oracle)

        def direction(point):
            psi = [copy(form.array()) for form in point.forms]
            x, restart = [copy(a) for a in point.x], bool(point.restart)
            forms = run.direction(point)
            f = [copy(form.array()) for form in forms]
            user = space.map(copy, point.user)
            self.rows.append(
                SimpleNamespace(x=x, user=user, psi=psi, f=f, restart=restart, step=point.step)
            )
            return forms

        return SimpleNamespace(direction=direction)


def copy(a):
    return np.array(_xp.to_host(a))


def noted(method, problem, x0, **options):
    spy = Noted(method.direction)
    result = lo.minimize(problem, x0, dataclasses.replace(method, direction=spy), **options)
    return spy.rows, result


def free(fun, slope):
    """A function of one free number."""
    return lo.Objective(
        lambda x: float(fun(x[0])), lambda x: np.array([slope(x[0])]), shape=(1,),
        constraint=lo.Euclidean(),
    )  # fmt: skip


# -- what is accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (5, 1)])
@every_wolfe
def test_accepted_steps_satisfy_the_conditions(rng, method, shape, dtype):
    """Enough fall of f(polar X), enough change of slope or a step at its cap; and a control."""
    capped = steps = tighter = 0
    for _ in range(3):
        problem = uneven(rng, shape, dtype)
        x0 = ref.orthonormal(rng, shape, dtype)
        rows, _ = noted(method, problem, x0, stop=lo.MaxIterations(60) | lo.GradientNorm(1e-4))
        assert len(rows) > 5
        curvature = method.search.curvature
        for old, new in itertools.pairwise(rows):
            f = old.psi if new.restart else old.f
            t, slope = new.step, inner(old.psi[0], f[0])
            assert slope > 0
            before, after = (problem.fun(polar(row.x[0])) for row in (old, new))
            rounding = SLACK * max(abs(before), abs(problem.fun(x0)))
            # f(polar X) is the merit to second order in the distance.
            error = 30 * (ref.distance(old.x[0]) ** 2 + ref.distance(new.x[0]) ** 2)
            assert after <= before - 1e-4 * t * slope + rounding + error * abs(before)
            new_slope = inner(new.psi[0], f[0])
            y = old.x[0] - t * f[0]
            e = y.conj().T @ y - np.eye(shape[1])
            stretch = np.sqrt(np.linalg.norm(e @ e))
            assert stretch <= 2.25 * 2  # a normal part of F does not shrink like its square
            if new_slope > curvature * slope * (1 + 1e-9):
                assert stretch >= 2.25 / 1.2
                capped += 1
            tighter += new_slope > 0.1 * slope
            steps += 1
    assert capped < 0.5 * steps
    assert tighter > 0  # the control: a tighter condition does not hold


def test_curvature_decides_how_exact_the_search_is(rng):
    problem = uneven(rng, (9, 4))
    x0 = ref.orthonormal(rng, (9, 4))
    worst = {}
    for curvature in (0.9, 0.05):
        search = lo.searches.Wolfe(curvature=curvature)
        method = dataclasses.replace(lo.landing_cg(), search=search)
        rows, _ = noted(method, problem, x0, stop=lo.MaxIterations(30))
        ratios = []
        for old, new in itertools.pairwise(rows):
            f = old.psi if new.restart else old.f
            if new.step * np.linalg.norm(f[0], 2) < 0.8:
                ratios.append(inner(new.psi[0], f[0]) / inner(old.psi[0], f[0]))
        worst[curvature] = max(ratios)
    assert worst[0.05] <= 0.05 * (1 + 1e-9)
    assert 0.05 < worst[0.9] <= 0.9 * (1 + 1e-9)


@every_wolfe
@pytest.mark.parametrize("both", [False, True])
def test_value_and_gradient_come_together(method, both):
    """One of each for each trial, no more; the counts are true."""
    plain = distance_to()
    calls = {"fun": 0, "grad": 0, "both": 0, "hessp": 0}

    def counted(name, function):
        def called(*xs):
            calls[name] += 1
            return function(*xs)

        return called

    if both:
        pair = counted("both", lambda x: (plain.fun(x), plain.grad(x)))
        options = dict(value_and_gradient=pair)
    else:
        options = dict(fun=counted("fun", plain.fun), grad=counted("grad", plain.grad))
    problem = lo.Objective(shape=(6, 4), hessp=counted("hessp", plain.hessp), **options)
    rows = []
    result = lo.minimize(problem, START, method, tol=1e-8, callback=rows.append)
    assert result.success
    assert result.nfev == result.njev > result.nit
    assert result.nhev == calls["hessp"]
    assert (result.nhev > 0) is (method.name == "landing_newton")
    # What is measured for a row (values at the closest feasible point) is counted apart.
    if both:
        assert calls["fun"] == calls["grad"] == 0
        assert result.nfev <= calls["both"] <= result.nfev + len(rows) + 2
    else:
        assert calls["grad"] == result.njev
        assert result.nfev <= calls["fun"] <= result.nfev + len(rows) + 2


@every_wolfe
def test_trials_are_as_close_as_they_must_be(rng, method):
    """Measured where f is evaluated: at most ``closest``, and a part of ||psi|| / ||Phi||."""
    closest = 1e-3
    for shape, dtype in [((8, 8), "float64"), ((9, 4), "complex128")]:
        plain = uneven(rng, shape, dtype, condition=3.0)
        distances: list[Any] = []

        def grad(x, plain=plain, distances=distances):
            distances.append((ref.distance(x), x.copy()))
            return plain.grad(x)

        problem = lo.Objective(plain.fun, grad, shape=shape, hessp=plain.hessp)
        search = dataclasses.replace(method.search, closest=closest)
        tight = dataclasses.replace(method, search=search)
        marks: list[int] = []

        class Marked(Noted):
            def start(self, space, oracle, marks=marks, distances=distances):
                run = super().start(space, oracle)
                inside = run.direction

                def direction(point):
                    marks.append(len(distances))
                    return inside(point)

                return SimpleNamespace(direction=direction)

        spy = Marked(tight.direction)
        x0 = ref.orthonormal(rng, shape, dtype)
        budget = lo.MaxIterations(150) | lo.GradientNorm(1e-6)
        lo.minimize(problem, x0, dataclasses.replace(tight, direction=spy), stop=budget)
        checked = binding = 0
        for row, first, last in zip(spy.rows, marks, [*marks[1:], len(distances)]):
            normal = np.linalg.norm(sym(H(row.x[0]) @ plain.grad(row.x[0])))
            bound = min(closest, 0.05 * np.linalg.norm(row.psi[0]) / normal)
            binding += bound < closest
            for d, _ in distances[first:last]:
                assert d <= bound * (1 + 1e-6) + 1e-13
                checked += 1
        assert checked > 20
        assert binding > 0
        wide = [d for d, _ in distances]
        assert max(wide) > 1e-9  # the guard was needed: steps do leave the manifold


def test_a_wider_guard_is_used(rng):
    """The control: with ``closest`` = 1e-2 trials are further away than 1e-5."""
    plain = uneven(rng, (8, 8))
    worst = {}
    for closest in (1e-2, 1e-5):
        seen = []

        def grad(x, seen=seen):
            seen.append(ref.distance(x))
            return plain.grad(x)

        method = dataclasses.replace(lo.landing_lbfgs(), search=lo.searches.Wolfe(closest=closest))
        problem = lo.Objective(plain.fun, grad, shape=(8, 8))
        lo.minimize(problem, ref.orthonormal(rng, (8, 8)), method, stop=lo.MaxIterations(20))
        worst[closest] = max(seen)
    assert worst[1e-5] <= 1e-5 * (1 + 1e-6) < worst[1e-2]


# -- how steps are lengthened and bracketed -------------------------------------------------------


def trials_of(fun, slope, start, method=None, **options):
    """Where a search along a line looks: f of one free number."""
    seen = []

    def noting(x):
        seen.append(float(x))
        return fun(x)

    options = {"record": lo.Every(10**6), **options}
    method = lo.landing_lbfgs() if method is None else method
    result = lo.minimize(free(noting, slope), np.array([start]), method, **options)
    return seen, result


def test_a_short_step_is_lengthened():
    """f = -x + x^2 / 2000: the first trial, a tenth, is far from the minimum at 1000."""
    seen, result = trials_of(
        lambda x: -x + x * x / 2000, lambda x: -1 + x / 1000, 0.0, stop=lo.MaxIterations(1)
    )
    assert seen[:2] == [0.0, pytest.approx(0.1)]
    trials = np.array(seen[1 : result.nfev])
    growth = trials[1:] / trials[:-1]
    assert len(growth) >= 3
    assert np.all((growth >= 2 - 1e-9) & (growth <= 10 + 1e-9))
    assert 1 - result.x[0] / 1000 <= 0.9  # the slope here, of that at 0
    assert 1 - trials[-2] / 1000 > 0.9  # and at the one before


def test_a_long_step_is_bracketed():
    """A valley a thousand times narrower than the first trial."""
    seen, result = trials_of(
        lambda x: 5e5 * x * x, lambda x: 1e6 * x, 1e-4, stop=lo.MaxIterations(1)
    )
    start, first = seen[0], seen[1]
    assert start - first == pytest.approx(0.1)
    trials = np.array(seen[1 : result.nfev])
    steps = start - trials
    assert len(steps) >= 2
    assert np.all(np.diff(steps) < 0)
    assert np.all(steps[1:] >= 0.1 * steps[:-1] * (1 - 1e-9))  # no nearer to the end of the bracket
    assert abs(result.x[0]) < abs(start)


def test_a_step_is_lengthened_and_then_bracketed():
    """A wall behind a long slope: too short, too long, and between."""

    def fun(x):
        return -x + 1e4 * max(0.0, x - 0.55) ** 2

    def slope(x):
        return -1 + 2e4 * max(0.0, x - 0.55)

    seen, result = trials_of(fun, slope, 0.0, stop=lo.MaxIterations(1))
    trials = np.array(seen[1 : result.nfev])
    assert result.nit == 1
    longest = int(np.argmax(trials))
    assert 0 < longest < len(trials) - 1
    assert np.all(np.diff(trials[: longest + 1]) > 0)
    low = max(t for t in trials[:longest])
    for t in trials[longest + 1 :]:
        assert low < t < trials[longest]
    assert fun(result.x[0]) <= -1e-4 * result.x[0]
    assert slope(result.x[0]) >= -0.9


def test_unit_steps_are_tried_first(rng):
    """Where the direction has a scale of its own, t = 1, and mostly accepted."""
    for method in WITH_WOLFE.values():
        problem = distance_to()
        result = lo.minimize(problem, START, method, tol=1e-8)
        steps = result.trace["step"][2:]
        assert np.mean(steps == 1.0) > 0.5


@every_wolfe
def test_a_trial_that_is_not_finite_shortens_the_step(method):
    """f is infinite, or not a number, beyond a ball that first trials leave."""
    target, curvature = np.array([3.0, -1.0, 2.0]), np.array([1.0, 5.0, 40.0])
    for value in (math.nan, math.inf):
        outside = 0

        def fun(x, value=value):
            nonlocal outside
            if np.linalg.norm(x - target) > 0.05:
                outside += 1
                return value
            return 0.5 * float(np.sum(curvature * (x - target) ** 2))

        problem = lo.Objective(
            fun, lambda x: curvature * (x - target), shape=(3,), constraint=lo.Euclidean(),
            hessp=lambda x, v: curvature * v,
        )  # fmt: skip
        x0 = target + np.array([0.02, 0.01, -0.03])
        result = lo.minimize(problem, x0, method, tol=1e-9)
        assert result.success
        assert outside > 0
        np.testing.assert_allclose(result.x, target, atol=1e-8)


@every_method
def test_a_gradient_that_is_not_finite_at_a_trial_is_survived(method):
    """The fourth call alone is broken."""
    grad = breaks(distance_to().grad, 4, math.nan, once=True)
    with np.errstate(invalid="ignore"):
        result = lo.minimize(distance_to(grad=grad), START, method, tol=1e-9)
    assert result.success
    assert np.linalg.norm(result.feasible_x - BEST) <= 1e-7


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, id=n) for n, m in METHODS.items()],
)
def test_a_first_trial_that_is_not_finite_is_survived(method):
    fun = breaks(distance_to().fun, 1, math.nan, once=True)
    result = lo.minimize(distance_to(fun=fun), START, method, record=lo.Every(10**6), tol=1e-9)
    assert result.success


# -- monotone -------------------------------------------------------------------------------------

MONOTONE = {
    **WITH_WOLFE,
    "armijo": lo.Method(
        search=lo.searches.LineSearch(memory=0.0),
        field=lo.landing().field,
        move=lo.moves.NewtonSchulz(),
    ),
}


def largest_rise(method, shapes=((8, 8), (12, 4))):
    """The largest relative rise of f(polar X) in a step, f evaluated by us."""
    worst = 0.0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for shape in shapes:
            problem = uneven(rng, shape, condition=100.0)
            values = []

            def keep(row, values=values, problem=problem):
                values.append(problem.fun(polar(row.x)))

            x0 = ref.orthonormal(rng, shape)
            lo.minimize(problem, x0, method, stop=lo.MaxIterations(200), callback=keep)
            assert len(values) > 20
            worst = max(worst, float(np.max(np.diff(values))) / values[0])
    return worst


@pytest.mark.parametrize("method", MONOTONE.values(), ids=MONOTONE)
def test_the_feasible_value_never_rises(method):
    assert largest_rise(method) <= SLACK


def test_the_nonmonotone_search_does_rise():
    """The control."""
    assert largest_rise(lo.landing()) > 1e-4


# -- a search that fails --------------------------------------------------------------------------


@every_wolfe
def test_a_search_gives_up_along_the_field_after_a_restart(method):
    """max_trials along the direction, as many along the field, LINE_SEARCH: the good point is kept."""
    for trials in (4, 30):
        search = dataclasses.replace(method.search, max_trials=trials)
        short = dataclasses.replace(method, search=search)
        grad = breaks(distance_to().grad, 8, math.nan)
        rows = []
        with np.errstate(invalid="ignore"):
            result = lo.minimize(
                distance_to(grad=grad), START, short, tol=1e-14,
                callback=lambda row, rows=rows: rows.append(row.njev),
            )  # fmt: skip
        assert result.status is Status.LINE_SEARCH
        assert "lo.check_gradient(problem)" in result.message
        assert 0 < result.nit <= 7
        assert np.isfinite(result.x).all() and np.isfinite(result.fun)
        assert np.isfinite(result.gradient_norm)
        # The trials of the last search that were finite belong to the first batch.
        assert result.njev == rows[-1] + 2 * trials
        assert list(result.trace["iteration"]) == list(range(result.nit + 1))
        assert result.trace["njev"][-1] == result.njev


@every_wolfe
def test_a_search_along_the_field_gives_up_at_once(method):
    """The first direction is the field itself: there is nothing to restart."""
    fun = breaks(distance_to().fun, 1, math.inf)
    result = lo.minimize(distance_to(fun=fun), START, method, record=lo.Every(10**6))
    assert result.status is Status.LINE_SEARCH
    assert result.nit == 0
    assert result.nfev == 1 + 30
    np.testing.assert_array_equal(result.x, START)


# -- exits, for every method ----------------------------------------------------------------------


@every_method
def test_a_start_at_the_optimum(method):
    result = lo.minimize(distance_to(), BEST, method)
    assert result.success
    assert result.nit == 0
    assert result.njev == 1
    np.testing.assert_allclose(result.x, BEST, atol=1e-14)


SADDLE = lo.problems.PCA(np.diag(np.arange(1.0, 7.0)), 2)


@every_method
def test_a_start_at_a_saddle(method):
    result = lo.minimize(SADDLE, np.eye(6, 2), method)
    assert result.success
    assert result.nit == 0
    assert "The start itself is stationary" in result.message


@every_method
@pytest.mark.parametrize("size", [1e-3, 1e-7])
def test_a_start_beside_a_saddle_descends(method, size):
    x0 = polar(np.eye(6, 2) + size * gaussian(3, (6, 2)))
    result = lo.minimize(SADDLE, x0, method, tol=1e-6)
    assert result.success
    assert result.nit < 100
    best = SADDLE.optimum()[1]
    assert result.feasible_fun == pytest.approx(best, rel=1e-8)
    assert best < 10 * SADDLE.fun(x0) < 0


@every_method
def test_a_start_beside_a_maximum_descends(method):
    """Every direction curves down: no pair is good at first."""
    x0 = polar(-BEST + 1e-3 * gaussian(3, (6, 4)))
    for scale in (1e-6, 1.0, 1e6):
        result = lo.minimize(distance_to(scale=scale), x0, method, tol=1e-6)
        assert result.success
        assert result.nfev < 80
        np.testing.assert_allclose(result.feasible_x, BEST, atol=1e-4)


@every_method
@pytest.mark.parametrize("tol", [0.0, None])
def test_a_constant_f(method, tol):
    problem = lo.Objective(lambda x: 3.0, np.zeros_like, shape=(6, 4))
    result = lo.minimize(problem, START, method, tol=tol)
    assert result.success
    assert result.nit == 0
    assert result.fun == result.feasible_fun == 3.0


@every_method
def test_a_linear_f(method):
    """-<T, X>: the polar factor of T; its Euclidean Hessian is zero."""
    problem = lo.Objective(
        lambda x: -np.sum(TARGET * x), lambda x: -TARGET, shape=(6, 4),
        hessp=lambda x, v: np.zeros_like(v),
    )  # fmt: skip
    result = lo.minimize(problem, START, method, tol=1e-9)
    assert result.success
    assert np.linalg.norm(result.feasible_x - BEST) <= 1e-7


@every_method
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_sphere(method, dtype):
    a = gaussian(0, (7, 7), dtype)
    a = a + H(a)
    problem = lo.Objective(
        lambda x: float(np.vdot(x, a @ x).real), lambda x: 2 * a @ x, shape=(7, 1),
        hessp=lambda x, v: 2 * a @ v,
    )  # fmt: skip
    result = lo.minimize(problem, polar(gaussian(1, (7, 1), dtype)), method)
    assert result.success
    assert result.feasible_fun == pytest.approx(np.linalg.eigvalsh(a)[0], rel=1e-9)


@every_method
@pytest.mark.parametrize("start", [1.0, -1.0, 0.95])
def test_one_number(method, start):
    problem = distance_to(np.array([[5.0]]))
    result = lo.minimize(problem, np.array([[start]]), method)
    assert result.success
    assert result.feasible_x == pytest.approx(np.sign(start))
    both = lo.minimize(problem, np.array([[start]]), method, component="both")
    assert both.feasible_x == pytest.approx(1.0)


@every_method
def test_one_complex_number(method):
    target = np.array([[3.0 - 4.0j]])
    problem = lo.Objective(
        lambda x: 0.5 * float(np.sum(np.abs(x - target) ** 2)), lambda x: x - target, shape=(1, 1)
    )
    result = lo.minimize(problem, np.array([[1.0 + 0.0j]]), method, tol=1e-10)
    assert result.success
    assert result.feasible_x[0, 0] == pytest.approx(0.6 - 0.8j)


@every_method
@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e6])
def test_an_optimum_with_the_value_zero(method, weight):
    """f itself is rounding there, and ||G|| too: a success all the same."""
    problem = lo.problems.JointDiagonalization.random(8, rng=0, weight=weight)
    x, best = problem.optimum()
    assert best == 0.0
    exact = lo.minimize(problem, x, method)
    assert exact.success, exact.message
    assert exact.feasible_fun <= 1e-26 * weight
    beside = polar(x + 1e-6 * gaussian(1, (8, 8)))
    result = lo.minimize(problem, beside, method)
    assert result.success, result.message
    assert result.feasible_fun <= 1e-20 * weight


@every_method
def test_down_to_rounding_where_the_value_is_zero(method):
    """tol=0 ends at rounding, and says so."""
    problem = lo.problems.JointDiagonalization.random(8, rng=0)
    beside = polar(problem.optimum()[0] + 1e-6 * gaussian(1, (8, 8)))
    budget = lo.GradientNorm(0.0) | lo.MaxIterations(1000)
    result = lo.minimize(problem, beside, method, stop=budget, record=lo.Every(100))
    assert result.gradient_norm <= 1e-13
    assert result.status is Status.AT_ROUNDING


# -- broken numbers -------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("which", ["fun", "grad"])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_numbers_that_break_for_good(method, which, k):
    """From call k on everything is NaN: the last good point comes back, by LINE_SEARCH."""
    function = breaks(getattr(distance_to(), which), k, math.nan)
    problem = distance_to(**{which: function})
    with np.errstate(invalid="ignore"):
        result = lo.minimize(problem, START, method, tol=1e-13, record=lo.Every(10**6))
    assert result.status is Status.LINE_SEARCH
    assert not result.success
    assert np.isfinite(result.x).all()
    assert np.isfinite(result.gradient_norm)
    assert result.nit < k
    assert result.njev <= k + 2 * 30
    assert 0.5 * np.sum((result.x - TARGET) ** 2) <= 0.5 * np.sum((START - TARGET) ** 2)


@every_method
@pytest.mark.parametrize("which", ["fun", "grad"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_start_at_which_f_breaks(method, which, value):
    problem = distance_to(**{which: breaks(getattr(distance_to(), which), 0, value)})
    with np.errstate(invalid="ignore"), pytest.raises(lo.SolveError) as caught:
        lo.minimize(problem, START, method)
    assert caught.value.result.status is Status.NONFINITE
    assert caught.value.result.nit == 0


@every_method
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_f_that_is_infinite_in_a_region(method, value):
    """A ball around the optimum is all there is; long first steps leave it."""
    target = 1e3 * TARGET
    x0 = polar(BEST + 0.15 * gaussian(5, BEST.shape))
    radius = 1.05 * np.linalg.norm(x0 - BEST)

    def fun(x):
        inside = np.linalg.norm(x - BEST) <= radius
        return 0.5 * np.sum((x - target) ** 2) if inside else value

    result = lo.minimize(distance_to(target, fun=fun), x0, method)
    assert result.success
    assert np.linalg.norm(result.feasible_x - BEST) <= 1e-5


@every_method
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_gradient_of_the_wrong_sign(method, scale):
    problem = distance_to(scale=scale, grad=lambda x: scale * (TARGET - x))
    result = lo.minimize(problem, START, method)
    assert result.status is Status.LINE_SEARCH
    assert not result.success
    assert "lo.check_gradient(problem)" in result.message
    assert result.nfev < 1000
    assert result.feasible_fun <= problem.fun(START) * (1 + 1e-9)
    assert list(result.trace["iteration"]) == list(range(result.nit + 1))


@every_method
def test_a_kink_is_not_a_success(method):
    problem = lo.Objective(lambda x: np.sum(np.abs(x)), np.sign, shape=(6, 4))
    result = lo.minimize(problem, START, method, stop=lo.GradientNorm(1e-6) | lo.MaxIterations(500))
    assert not result.success


# -- budgets and callbacks ------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("budget", [0, 3])
def test_a_budget_of_iterations_is_exact(method, budget):
    result = lo.minimize(distance_to(), START, method, stop=lo.MaxIterations(budget))
    assert result.status is Status.MAX_ITERATIONS
    assert not result.success
    assert result.nit == budget
    assert list(result.trace["iteration"]) == list(range(budget + 1))
    if budget == 0:
        assert result.njev == result.nfev == 1
        np.testing.assert_array_equal(result.x, START)


@every_method
@pytest.mark.parametrize("stop_at", [0, 3])
def test_a_callback_stops_the_run(method, stop_at):
    rows = []

    def callback(row):
        rows.append((row.iteration, row.nfev, row.njev))
        return row.iteration == stop_at

    result = lo.minimize(distance_to(), START, method, callback=callback)
    assert result.status is Status.CALLBACK
    assert not result.success
    assert [row[0] for row in rows] == list(range(stop_at + 1))
    assert (result.nfev, result.njev) == rows[-1][1:]


@every_method
def test_a_timeout(method):
    def grad(x):
        import time

        time.sleep(0.01)
        return x - TARGET

    result = lo.minimize(distance_to(grad=grad), START, method, stop=lo.Timeout(0.03))
    assert result.status is Status.TIMEOUT
    assert 0 < result.nit < 10


@every_method
def test_a_target(method):
    target = distance_to().fun(BEST) + 1e-2
    result = lo.minimize(distance_to(), START, method, stop=lo.Target(target))
    assert result.status is Status.CONVERGED
    assert result.feasible_fun <= target
    assert result.trace["feasible_fun"][-2] > target


# -- f of any scale, f plus a constant ------------------------------------------------------------


def iterates(problem, x0, method, steps):
    xs = []
    lo.minimize(
        problem,
        x0,
        method,
        stop=lo.MaxIterations(steps),
        callback=lambda row: xs.append(row.x.copy()),
    )
    return xs


@every_method
@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e-30, 1e30])
def test_the_scale_of_f_does_not_matter(rng, method, scale):
    """To rounding; and by a power of two not a digit changes."""
    problems = uneven(rng, (9, 4), scale=(1.0, scale, 2.0**20, 2.0**-20))
    x0 = ref.orthonormal(rng, (9, 4))
    plain, scaled, *exact = (iterates(problem, x0, method, 12) for problem in problems)
    assert len(plain) == len(scaled) == 13
    # Rounding may let Newton's inner iteration end one product earlier or later.
    loose = isinstance(method.direction, lo.directions.Newton)
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 if loose else 1e-8)
    for others in exact:
        for a, b in zip(plain, others, strict=True):
            np.testing.assert_array_equal(a, b)


@every_method
@pytest.mark.parametrize("shift", [1e6, -1e6])
def test_a_constant_added_to_f(method, shift):
    """The digits that are left of f are few; the slopes decide."""
    result = lo.minimize(distance_to(shift=shift), START, method, tol=1e-9)
    assert result.success
    assert result.nit < 60
    assert np.linalg.norm(result.feasible_x - BEST) <= 1e-7


@every_method
def test_single_precision(method):
    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - TARGET.astype("float32")) ** 2),
        lambda x: x - TARGET.astype("float32"),
        shape=(6, 4),
        hessp=lambda x, v: v,
    )
    result = lo.minimize(problem, START.astype("float32"), method, tol=1e-4)
    assert result.success
    assert result.x.dtype == np.float32
    assert np.linalg.norm(result.feasible_x - BEST) <= 1e-2
    down = lo.minimize(problem, START.astype("float32"), method, tol=0.0)
    assert down.success


# -- stacks ---------------------------------------------------------------------------------------


@every_wolfe
def test_the_matrices_of_a_stack_end_each_in_its_own_way(method):
    """Solved, of the wrong sign, solved already: each its status, and nobody waits in vain."""
    target = gaussian(0, (4, 6, 4)) * np.array([1.0, 1.0, 30.0, 1.0])[:, None, None]
    sign = np.array([1.0, -1.0, 1.0, 1.0])[:, None, None]
    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)),
        lambda x: sign * (x - target),
        shape=target.shape,
        hessp=lambda x, v: sign * v,
    )
    x0 = polar(gaussian(1, (4, 6, 4)))
    x0[3] = polar(target[3])
    iterates = []
    result = lo.minimize(
        problem, x0, method, tol=1e-8, callback=lambda row: iterates.append(row.x.copy())
    )
    assert list(result.status == Status.LINE_SEARCH) == [False, True, False, False]
    assert [Status(s).success for s in result.status] == [True, False, True, True]
    for i in (0, 2, 3):
        assert np.linalg.norm(result.feasible_x[i] - polar(target[i])) <= 1e-5
    for x in iterates:
        np.testing.assert_array_equal(x[3], iterates[0][3])


@every_wolfe
def test_a_stack_over_many_scales(method):
    """Matrices of any scale, some beside their maximum: no one is left behind."""
    scales = np.array([1e-6, 1.0, 1e6, 1e-6, 1e6])[:, None, None]
    target = gaussian(0, (5, 6, 4))
    x0 = polar(gaussian(1, (5, 6, 4)))
    x0[3:] = polar(-polar(target[3:]) + 1e-3 * gaussian(2, (2, 6, 4)))
    problem = lo.Objective(
        lambda x: scales[:, 0, 0] * 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)),
        lambda x: scales * (x - target),
        shape=target.shape,
        hessp=lambda x, v: scales * v,
    )
    result = lo.minimize(problem, x0, method, tol=1e-7)
    assert result.success, result.message
    assert result.nit < 150
    np.testing.assert_allclose(result.feasible_x, polar(target), atol=1e-4)


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"curvature": 2}, "0 < decrease < curvature < 1, got 0.0001 and 2"),
        ({"curvature": 1.0}, "0 < decrease < curvature < 1"),
        ({"decrease": 0.0}, "0 < decrease < curvature < 1"),
        ({"decrease": 0.5, "curvature": 0.4}, "got 0.5 and 0.4"),
        ({"decrease": math.nan}, "0 < decrease < curvature < 1"),
        ({"max_trials": 0}, "max_trials must be at least 1, got 0"),
        ({"closest": 0.0}, "closest must lie strictly between 0 and 0.9, got 0.0"),
        ({"closest": 0.9}, "closest must lie strictly between 0 and 0.9"),
    ],
)
def test_parameters_that_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        lo.searches.Wolfe(**options)


@every_wolfe
def test_parts_that_do_not_go_together(method):
    """The message says what is wrong, why, and what to pass."""
    canonical = lo.fields.Field(lo.fields.Canonical(), None)
    exact = lo.fields.Field(lo.fields.Euclidean(), None)
    landing = lo.fields.Field()
    penalty = lo.fields.Field(lo.fields.Euclidean(exact=False), lo.fields.Penalty())
    scaled = lo.fields.Field(lo.fields.Euclidean(exact=False, metric_scale=2.0), None)
    for wrong in (canonical, exact, landing, penalty, scaled):
        with pytest.raises(ValueError, match=r"need the field .*: .*pass"):
            dataclasses.replace(method, field=wrong)
    for move in (lo.moves.Additive(), lo.moves.Pogo()):
        with pytest.raises(ValueError, match=r"need the move NewtonSchulz\(\).*pass move="):
            dataclasses.replace(method, move=move)
    for base in (lo.estimators.Momentum(0.9), lo.estimators.Adam()):
        with pytest.raises(ValueError, match="need the gradient of f,"):
            dataclasses.replace(method, estimator=base)


@pytest.mark.parametrize(
    "direction",
    [lo.directions.LBFGS(), lo.directions.ConjugateGradient(), lo.directions.Newton()],
)
def test_a_direction_with_a_memory_needs_a_search(direction):
    """A safe step is safe for the field, not for a direction made of many of them."""
    with pytest.raises((TypeError, ValueError), match=r"direction|Wolfe"):
        lo.Method(
            search=lo.searches.OpenLoop(lo.steps.Constant(0.1)),
            field=lo.fields.Field(),
            direction=direction,
        )


@every_wolfe
def test_a_problem_without_f_is_refused(method):
    problem = lo.Objective(grad=lambda x: x - TARGET, shape=(6, 4))
    with pytest.raises(TypeError, match=rf"{method.name} reads f, and this problem has no fun"):
        lo.minimize(problem, START, method)
