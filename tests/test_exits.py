"""Every way a run can end: what is returned, what is said, and what has been counted."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
from reference import polar
from reference import seeded as gaussian

import landingopt as lo
from landingopt import Status

FIXED = lo.landing(step=0.02)
METHODS = {"line search": lo.landing(), "fixed step": FIXED}


TARGET = gaussian(0, (6, 4))
START = polar(gaussian(1, (6, 4)))


def distance_to(target=TARGET, *, fun=None, grad=None, shape=None):
    """f = ||x - T||^2 / 2, with one of the functions exchanged."""
    return lo.Objective(
        fun or (lambda x: 0.5 * np.sum((x - target) ** 2)),
        grad or (lambda x: x - target),
        shape=shape or target.shape,
    )


def breaks_at(function, k, value):
    """``function``, whose call k (from 0) and all later ones give ``value`` in its place."""
    calls = itertools.count()

    def broken(x):
        result = function(x)
        if next(calls) < k:
            return result
        return value if np.ndim(result) == 0 else np.full_like(result, value)

    return broken


# -- broken numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_a_gradient_that_breaks_ends_a_fixed_step_run(k, value):
    grad = breaks_at(lambda x: x - TARGET, k, value)
    with np.errstate(invalid="ignore"), pytest.raises(lo.SolveError) as caught:
        lo.minimize(distance_to(grad=grad), START, FIXED)
    result = caught.value.result
    assert result.status is Status.NONFINITE
    assert not result.success
    assert result.nit == k  # the iterate is finite, its gradient is not
    assert np.isfinite(result.x).all()
    assert not np.isfinite(result.gradient_norm)
    assert np.isfinite(result.fun)
    assert result.njev == k + 1
    assert "not finite" in str(caught.value)
    assert 'on_failure="return"' in str(caught.value)


@pytest.mark.parametrize("k", [0, 1, 5])
def test_a_broken_run_is_returned_on_request(k):
    grad = breaks_at(lambda x: x - TARGET, k, math.nan)
    result = lo.minimize(distance_to(grad=grad), START, FIXED, on_failure="return")
    assert result.status is Status.NONFINITE
    assert result.success is False
    assert result.nit == k
    assert list(result.trace["iteration"]) == list(range(k + 1))
    assert np.linalg.norm(result.feasible_x - polar(result.x)) <= 1e-12


def test_a_run_that_broke_between_checkpoints():
    """Rows every 10 steps: found at the next row, by when x itself is NaN."""
    grad = breaks_at(lambda x: x - TARGET, 3, math.nan)
    record = lo.Every(10)
    result = lo.minimize(distance_to(grad=grad), START, FIXED, record=record, on_failure="return")
    assert result.status is Status.NONFINITE
    assert result.nit == 10
    assert np.isnan(result.x).all()
    assert np.isnan(result.feasible_fun)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["fun", "grad"])
def test_a_start_at_which_f_breaks(which, value):
    function = breaks_at(getattr(distance_to(), which), 0, value)
    problem = distance_to(**{which: function})
    with np.errstate(invalid="ignore"), pytest.raises(lo.SolveError) as caught:
        lo.minimize(problem, START)
    result = caught.value.result
    assert result.status is Status.NONFINITE
    assert result.nit == 0
    assert np.array_equal(result.x, START)
    assert len(result.trace) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["fun", "grad"])
@pytest.mark.parametrize("k", [1, 4])
def test_a_line_search_never_accepts_a_broken_point(k, which, value):
    """From call k on everything is NaN: the last good point is returned, by LINE_SEARCH."""
    function = breaks_at(getattr(distance_to(), which), k, value)
    with np.errstate(invalid="ignore"):
        result = lo.minimize(distance_to(**{which: function}), START, record=lo.Every(10**6))
    assert result.status is Status.LINE_SEARCH
    assert not result.success
    assert np.isfinite(result.x).all()
    assert result.nit <= k
    assert np.isfinite(result.gradient_norm)


def test_a_failed_search_adds_no_row_but_its_work():
    """The iterate stays: one row for it, with the counts of the trials that failed there."""
    problem = distance_to(fun=breaks_at(distance_to().fun, 4, math.nan))
    rows = []
    result = lo.minimize(problem, START, callback=lambda row: rows.append(row.iteration))
    assert result.status is Status.LINE_SEARCH
    assert list(result.trace["iteration"]) == rows == list(range(result.nit + 1))
    assert result.trace["nfev"][-1] == result.nfev
    assert result.nfev >= result.nit + 30


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_trial_only_shortens_the_step(value):
    """f is infinite outside a ball around the start that the first trials leave."""
    target = 1e3 * TARGET  # long first steps
    best = polar(TARGET)
    x0 = polar(best + 0.15 * gaussian(5, best.shape))
    radius = 1.05 * np.linalg.norm(x0 - best)
    broken = 0

    def fun(x):
        nonlocal broken
        if np.linalg.norm(x - best) > radius:
            broken += 1
            return value
        return 0.5 * np.sum((x - target) ** 2)

    wild = lo.Method(
        search=lo.searches.LineSearch(guess=lo.steps.Constant(1.0)),
        field=lo.landing().field,
        move=lo.landing().move,
    )
    for method in (lo.landing(), wild):
        result = lo.minimize(distance_to(target, fun=fun), x0, method)
        assert result.success
        assert np.linalg.norm(result.feasible_x - best) <= 1e-5
    assert broken > 0


def test_one_broken_gradient_of_a_trial_is_survived():
    calls = itertools.count()

    def grad(x):
        return np.full_like(x, np.nan) if next(calls) == 2 else x - TARGET

    result = lo.minimize(distance_to(grad=grad), START, tol=1e-9)
    assert result.success
    assert np.linalg.norm(result.feasible_x - polar(TARGET)) <= 1e-7


def test_a_step_that_leaves_the_tube():
    """No safe step, far too long a step: LEFT_TUBE, with the remedy."""
    method = lo.Method(search=lo.searches.OpenLoop(lo.steps.Constant(10.0)))
    with pytest.raises(lo.SolveError, match="Safeguarded") as caught:
        lo.minimize(distance_to(), START, method)
    assert caught.value.result.status is Status.LEFT_TUBE
    assert caught.value.result.distance > 1
    assert not caught.value.result.success


# -- nothing to do ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_zero_budget_returns_the_start(method):
    result = lo.minimize(distance_to(), START, method, stop=lo.MaxIterations(0))
    assert result.status is Status.MAX_ITERATIONS
    assert not result.success
    assert result.nit == 0
    assert list(result.trace["iteration"]) == [0]
    assert np.array_equal(result.x, START)
    assert result.x is not START
    assert result.njev == 1
    assert result.trace["fun"][0] == pytest.approx(0.5 * np.sum((START - TARGET) ** 2))
    assert math.isnan(result.trace["step"][0])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_start_at_the_optimum(method):
    best = polar(TARGET)
    result = lo.minimize(distance_to(), best, method)
    assert result.success
    assert result.status in (Status.CONVERGED, Status.AT_ROUNDING)
    assert result.nit == 0
    assert np.linalg.norm(result.x - best) <= 1e-14
    assert len(result.trace) == 1


@pytest.mark.parametrize("tol", [0.0, None])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_constant_f(method, tol):
    problem = lo.Objective(lambda x: 3.0, lambda x: np.zeros_like(x), shape=(6, 4))
    result = lo.minimize(problem, START, method, tol=tol)
    assert result.success
    assert result.nit == 0
    assert result.fun == result.feasible_fun == 3.0
    assert result.gradient_norm == 0.0


def test_a_constant_f_off_the_manifold_lands():
    """Nothing but the normal term: the distance decays as the theory says."""
    problem = lo.Objective(lambda x: 0.0, lambda x: np.zeros_like(x), shape=(6, 4))
    result = lo.minimize(problem, 1.1 * START, lo.landing(step=0.1, lam=1.0))
    assert result.success
    assert result.distance <= 1e-8
    ratio = result.trace["distance"][-1] / result.trace["distance"][-2]
    assert ratio == pytest.approx(1 - 2 * 0.1, abs=1e-3)  # 1 - 2 eta lam


# -- small shapes -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_sphere(method, dtype):
    """p = 1: the least eigenvector of a quadratic form."""
    A = gaussian(0, (7, 7))
    A = A + A.T
    problem = lo.Objective(
        lambda x: float(np.real(np.vdot(x, A @ x))), lambda x: 2 * A @ x, shape=(7, 1)
    )
    x0 = polar(gaussian(1, (7, 1))).astype(dtype)
    result = lo.minimize(problem, x0, method)
    assert result.success
    assert result.feasible_fun == pytest.approx(np.linalg.eigvalsh(A)[0], rel=1e-9)
    assert result.component is None


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("start", [1.0, -1.0, 0.95])
def test_one_number(start, method):
    """n = p = 1: two points, each its own component."""
    x0 = np.array([[start]])
    result = lo.minimize(distance_to(np.array([[5.0]])), x0, method)
    assert result.success
    assert result.feasible_x == pytest.approx(np.sign(x0))
    assert result.component == np.sign(start)
    both = lo.minimize(distance_to(np.array([[5.0]])), x0, method, component="both")
    assert both.feasible_x == pytest.approx(np.array([[1.0]]))


def test_one_complex_number():
    """U(1), a circle."""
    target = np.array([[3.0 - 4.0j]])
    problem = lo.Objective(
        lambda x: 0.5 * float(np.sum(np.abs(x - target) ** 2)), lambda x: x - target, shape=(1, 1)
    )
    result = lo.minimize(problem, np.array([[1.0 + 0.0j]]), tol=1e-10)
    assert result.success
    assert result.feasible_x[0, 0] == pytest.approx(0.6 - 0.8j)


# -- far from the manifold ----------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1e-150, 1e-3, 0.5, 30.0, 1e150])
def test_a_start_off_the_tube_is_projected(factor):
    x0 = factor * gaussian(3, (6, 4))
    result = lo.minimize(distance_to(), x0, tol=1e-9)
    assert result.status is Status.CONVERGED
    assert np.linalg.norm(result.feasible_x - polar(TARGET)) <= 1e-7
    assert result.trace["distance"][0] <= 1e-13
    at_polar = 0.5 * np.sum((polar(x0) - TARGET) ** 2)
    assert result.trace["fun"][0] == pytest.approx(at_polar, rel=1e-9)


def test_an_f_that_is_unbounded_below_off_the_manifold():
    """f = -||x||^4 + <T, x>: constant plus linear on the manifold, -inf away from it."""

    def fun(x):
        return -100 * np.sum(x * x) ** 2 - np.sum(TARGET * x)

    def grad(x):
        return -400 * np.sum(x * x) * x - TARGET

    result = lo.minimize(distance_to(fun=fun, grad=grad), START, tol=1e-9)
    assert result.success, result.message
    assert np.linalg.norm(result.feasible_x - polar(TARGET)) <= 1e-5
    assert np.max(result.trace["distance"]) <= 1e-2


# -- stopped from outside -----------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, np.True_, StopIteration])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_callback_stops_the_run(method, answer):
    rows = []

    def callback(row):
        rows.append(row.iteration)
        if row.iteration == 3:
            if answer is StopIteration:
                raise StopIteration
            return answer

    result = lo.minimize(distance_to(), START, method, callback=callback)
    assert rows == [0, 1, 2, 3]
    assert result.status is Status.CALLBACK
    assert not result.success
    assert result.nit == 3
    assert list(result.trace["iteration"]) == rows
    assert "callback" in result.message


@pytest.mark.parametrize("answer", [None, False, 0, 1, "stop", np.array([True, True])])
def test_only_true_stops(answer):
    result = lo.minimize(distance_to(), START, callback=lambda row: answer)
    assert result.status is Status.CONVERGED


def test_a_callback_that_stops_at_the_first_row():
    result = lo.minimize(distance_to(), START, callback=lambda row: True)
    assert result.nit == 0
    assert np.array_equal(result.x, START)


def test_a_callback_at_the_last_row_does_not_change_the_verdict():
    result = lo.minimize(distance_to(), START, callback=lambda row: row.gradient_norm < 1e-5)
    full = lo.minimize(distance_to(), START)
    assert full.status is Status.CONVERGED
    stopped = lo.minimize(distance_to(), START, callback=lambda row: row.iteration == full.nit)
    assert stopped.status is Status.CONVERGED
    assert result.success or result.status is Status.CALLBACK


def test_a_callback_stops_what_is_left_of_a_stack():
    target = gaussian(0, (3, 5, 5))
    x0 = polar(gaussian(1, (3, 5, 5)))
    x0[1] = polar(target[1])
    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)), lambda x: x - target,
        shape=target.shape,
    )  # fmt: skip
    result = lo.minimize(problem, x0, callback=lambda row: row.iteration == 2)
    assert result.nit == 2
    assert result.success is False
    assert list(result.status == Status.CALLBACK) == [True, False, True]


class Mine(Exception):
    pass


@pytest.mark.parametrize("kind", [Mine, KeyboardInterrupt, StopIteration, ZeroDivisionError])
@pytest.mark.parametrize("where", ["fun", "grad", "callback", "metric"])
@pytest.mark.parametrize("k", [0, 3])
def test_exceptions_of_the_user_come_out_unchanged(where, k, kind):
    if where == "callback" and kind is StopIteration:
        return  # the documented way to stop
    calls = itertools.count()
    error = kind("mine")

    def door(function):
        def checked(*args):
            if next(calls) == k:
                raise error
            return function(*args)

        return checked

    options = {}
    if where in ("fun", "grad"):
        problem = distance_to(**{where: door(getattr(distance_to(), where))})
    else:
        problem = distance_to()
    if where == "callback":
        options["callback"] = door(lambda row: None)
    if where == "metric":
        options["record"] = lo.Every(1, metrics={"m": door(lambda x: 0.0)})
    with pytest.raises(kind) as caught:
        lo.minimize(problem, START, **options)
    assert caught.value is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Mine, None])
def test_the_progress_bar_is_closed_whatever_happens(kind, monkeypatch, capsys):
    from landingopt.observe import progress

    closed = []
    original = progress.Progress.close

    def close(self):
        closed.append(self._bar.n)
        original(self)

    monkeypatch.setattr(progress.Progress, "close", close)

    def callback(row):
        if kind is not None and row.iteration == 2:
            raise kind

    if kind is None:
        lo.minimize(distance_to(), START, progress=True, callback=callback)
    else:
        with pytest.raises(kind):
            lo.minimize(distance_to(), START, progress=True, callback=callback)
    assert len(closed) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "landing" in captured.err


def test_no_bar_and_no_output_unless_asked_for(capsys):
    lo.minimize(distance_to(), START)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


# -- wrong gradients ----------------------------------------------------------------------------


WRONG = {
    "sign": lambda x: TARGET - x,
    "tilted": lambda x: x - TARGET + 0.5 * x @ np.arange(16.0).reshape(4, 4),
    "constant": lambda x: np.ones_like(x),
    "another problem's": lambda x: x - gaussian(9, (6, 4)),
}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_is_named_as_the_likely_cause(name, scale):
    problem = distance_to(
        fun=lambda x: scale * 0.5 * np.sum((x - TARGET) ** 2), grad=lambda x: scale * WRONG[name](x)
    )
    result = lo.minimize(problem, START)
    assert result.status is Status.LINE_SEARCH
    assert not result.success
    assert "lo.check_gradient(problem)" in result.message
    assert result.nit < 500
    iterations = result.trace["iteration"]
    assert np.all(np.diff(iterations) > 0)  # no row twice
    assert iterations[-1] == result.nit
    assert result.trace["nfev"][-1] == result.nfev  # the failed search is counted too
    assert result.trace["njev"][-1] == result.njev


def test_a_wrong_gradient_in_one_matrix_of_a_stack():
    target = gaussian(0, (3, 6, 4))
    sign = np.array([1.0, -1.0, 1.0])[:, None, None]
    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)),
        lambda x: sign * (x - target),
        shape=target.shape,
    )
    result = lo.minimize(problem, polar(gaussian(1, (3, 6, 4))), tol=1e-9)
    assert list(result.status) == [Status.CONVERGED, Status.LINE_SEARCH, Status.CONVERGED]
    assert result.success is False
    for i in (0, 2):
        assert np.linalg.norm(result.feasible_x[i] - polar(target[i])) <= 1e-7
    assert "1 of 3" in result.message
    assert "check_gradient" in result.message


def test_a_kink_is_a_failed_line_search_not_a_success():
    """f = sum |x|, not smooth: no claim of convergence."""
    problem = lo.Objective(lambda x: np.sum(np.abs(x)), np.sign, shape=(6, 4))
    result = lo.minimize(problem, START, stop=lo.GradientNorm(rtol=1e-6) | lo.MaxIterations(2000))
    assert not result.success


# -- stacks -------------------------------------------------------------------------------------


def _stack(target, nan_at=None, after=0):
    calls = itertools.count()

    def fun(x):
        value = 0.5 * np.sum((x - target) ** 2, axis=(-2, -1))
        if nan_at is not None and next(calls) >= after:
            value[nan_at] = np.nan
        return value

    return lo.Objective(fun, lambda x: x - target, shape=target.shape)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_matrix_that_is_solved_already_is_frozen(method):
    """Bit for bit at its start, while the others are solved."""
    target = gaussian(0, (4, 6, 4))
    x0 = polar(gaussian(1, (4, 6, 4)))
    x0[2] = polar(target[2])
    iterates = []
    result = lo.minimize(
        _stack(target), x0, method, callback=lambda row: iterates.append(row.x.copy())
    )
    assert result.success
    assert result.nit > 5
    for x in iterates:
        assert np.array_equal(x[2], iterates[0][2])
    assert np.linalg.norm(iterates[0][2] - x0[2]) <= 1e-14
    np.testing.assert_allclose(result.feasible_x, polar(target), atol=1e-4)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_matrices_are_frozen_when_they_end(method):
    """Each stays where it ended, and where it would have ended alone."""
    target = np.array([1.0, 8.0, 30.0])[:, None, None] * gaussian(0, (3, 5, 3))
    x0 = polar(gaussian(1, (3, 5, 3)))
    iterates, norms, distances = [], [], []

    def callback(row):
        iterates.append(row.x.copy())
        norms.append(row.gradient_norm)
        distances.append(row.distance)

    result = lo.minimize(_stack(target), x0, method, callback=callback)
    assert result.success
    norms = np.array(norms)
    ends = np.argmax((norms <= 1e-6 * norms[0]) & (np.array(distances) <= 1e-8), axis=0)
    assert len(set(ends)) > 1
    for i, end in enumerate(ends):
        for x in iterates[end:]:
            assert np.array_equal(x[i], iterates[end][i])


@pytest.mark.parametrize("after", [0, 6])
def test_one_matrix_without_a_value_leaves_the_others_alone(after):
    target = gaussian(0, (3, 6, 4))
    x0 = polar(gaussian(1, (3, 6, 4)))
    problem = _stack(target, nan_at=1, after=after)
    result = lo.minimize(problem, x0, tol=1e-9, on_failure="return")
    assert result.success is False
    assert result.status[0] == result.status[2] == Status.CONVERGED
    assert result.status[1] in (Status.NONFINITE, Status.LINE_SEARCH)
    for i in (0, 2):
        assert np.linalg.norm(result.feasible_x[i] - polar(target[i])) <= 1e-7
    assert np.isfinite(result.x).all()


def test_one_broken_matrix_of_fixed_steps():
    """Its gradient is NaN from the start: it is frozen there, the others are solved."""
    target = gaussian(0, (3, 6, 4))
    bad = target.copy()
    bad[1] = np.nan
    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)), lambda x: x - bad,
        shape=target.shape,
    )  # fmt: skip
    x0 = polar(gaussian(1, (3, 6, 4)))
    with np.errstate(invalid="ignore"):
        result = lo.minimize(problem, x0, lo.landing(step=0.1), on_failure="return")
    assert list(result.status) == [Status.CONVERGED, Status.NONFINITE, Status.CONVERGED]
    assert np.array_equal(result.x[1], x0[1])
    for i in (0, 2):
        assert np.linalg.norm(result.feasible_x[i] - polar(target[i])) <= 1e-4
    with np.errstate(invalid="ignore"), pytest.raises(lo.SolveError, match="1 of 3"):
        lo.minimize(problem, x0, lo.landing(step=0.1))


def test_feasible_points_of_a_stack_in_which_one_matrix_is_nan():
    """Rows every 10 steps: x of the broken matrix is NaN by then; the others are still projected."""
    target = gaussian(0, (2, 6, 4))
    calls = itertools.count()

    def grad(x):
        gradient = x - target
        if next(calls) >= 3:
            gradient[1] = np.nan
        return gradient

    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)), grad, shape=target.shape
    )
    x0 = 1.05 * polar(gaussian(1, (2, 6, 4)))
    with np.errstate(invalid="ignore"):
        result = lo.minimize(
            problem, x0, lo.landing(step=0.01), record=lo.Every(10), on_failure="return",
            stop=lo.MaxIterations(20),
        )  # fmt: skip
    assert result.status[1] == Status.NONFINITE
    assert np.linalg.norm(result.feasible_x[0] - polar(result.x[0])) <= 1e-12
    assert np.isfinite(result.feasible_fun[0])


# -- found by a first reader ------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-1e8, -1e5, 1e4, 1e6, 1e8])
def test_a_dominating_normal_gradient(shift):
    """f + shift ||X||^2 / 2 is f + const on the manifold, and G is then nearly normal to it."""
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    k = (u * np.linspace(1.0, 2.0, 50)) @ u.T
    k = (k + k.T) / 2
    best = np.linalg.eigvalsh(k)[:5].sum() / 2
    shifted = k + shift * np.eye(50)
    problem = lo.Objective(
        lambda x: 0.5 * float(np.sum(x * (shifted @ x))), lambda x: shifted @ x, shape=(50, 5)
    )
    result = lo.minimize(problem, rng=1, tol=1e-8)
    assert result.success
    assert result.nit < 400
    x = result.feasible_x
    assert abs(0.5 * np.sum(x * (k @ x)) - best) <= 1e-8 + 1e-16 * abs(shift)


@pytest.mark.parametrize("shift", [-1e3, -1e2, 1e2, 1e3])
def test_rounding_is_not_claimed_early_in_float32(shift):
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    k = ((u * np.linspace(1.0, 2.0, 50)) @ u.T + shift * np.eye(50)).astype("float32")
    k = (k + k.T) / 2
    problem = lo.Objective(
        lambda x: 0.5 * np.sum(x * (k @ x)), lambda x: k @ x, shape=(50, 5), like=k
    )
    result = lo.minimize(problem, rng=1, tol=0)
    assert result.status == Status.AT_ROUNDING
    x = result.x.astype(float)
    gradient = k.astype(float) @ x
    # The rounding of the gradient itself, u ||G||, not ten or a hundred times as much.
    bound = 4.0 * 2.0**-23 * np.linalg.norm(gradient)
    assert np.linalg.norm(gradient - x @ (x.T @ gradient)) <= bound


def test_the_rows_of_a_callback_keep_their_numbers():
    rows = []
    problem = lo.problems.Procrustes.random(8, rng=0)
    trace = lo.minimize(problem, rng=0, callback=rows.append).trace
    assert [row.fun for row in rows] == list(trace["fun"])
    assert [row.gradient_norm for row in rows] == list(trace["gradient_norm"])


def test_a_stationary_start_is_said():
    problem = lo.problems.PCA(np.diag(np.arange(1.0, 7.0)), 2)
    saddle = lo.minimize(problem, np.eye(6, 2))
    assert saddle.nit == 0
    assert "The start itself is stationary" in saddle.message
    assert "stationary" not in lo.minimize(problem, rng=0).message


def test_problems_can_be_pickled():
    for problem in (
        lo.problems.Procrustes.random(3, rng=0),
        lo.problems.UnbalancedProcrustes.random(6, 2, rng=0),
        lo.problems.PCA.random(6, 2, rng=0),
        lo.problems.Brockett.random(6, 2, rng=0),
    ):
        x = lo.stiefel.random(*problem.shape, rng=0)
        assert pickle.loads(pickle.dumps(problem)).fun(x) == problem.fun(x)


def test_a_status_reads_as_its_name():
    assert str(Status.CONVERGED) == f"{Status.CONVERGED}" == "CONVERGED"
    assert Status.CONVERGED == 0


def test_eps_without_a_step_is_refused():
    with pytest.raises(ValueError, match="no tube"):
        lo.landing(eps=0.1)


def test_a_small_eigengap():
    """Alternating Barzilai–Borwein steps alone need over 10,000 iterations here."""
    rng = np.random.default_rng(0)
    spectrum = np.r_[np.linspace(2.0, 1.5, 3), 1.0, 1.0 - 1e-6, np.linspace(0.9, 0.1, 55)]
    u = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    problem = lo.problems.PCA.from_covariance(_symmetric((u * spectrum) @ u.T), 4)
    x0 = lo.stiefel.random(60, 4, rng=1)
    result = lo.minimize(problem, x0, tol=1e-9)
    assert result.success
    assert result.nit < 3000
    alternating = lo.steps.BarzilaiBorwein(alternate=math.inf)
    landing = lo.landing()
    old = dataclasses.replace(landing, search=lo.searches.LineSearch(guess=alternating))
    assert lo.minimize(problem, x0, old, tol=1e-9).nit > 2 * result.nit


def _symmetric(a):
    return (a + a.T) / 2
