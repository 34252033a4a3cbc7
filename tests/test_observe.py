"""Stop rules, traces and records, judged by what is measured again outside the library."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import pickle
import time

import numpy as np
import pytest
from reference import polar
from reference import seeded as gaussian

import landingopt as lo
from landingopt import Status
from landingopt.observe.clock import Clock
from landingopt.observe.trace import COLUMNS

FIXED = lo.landing(step=0.02)
METHODS = {"line search": lo.landing(), "fixed step": FIXED}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def riemannian_norm(x, gradient):
    cross = adjoint(x) @ gradient
    residual = gradient - x @ (cross + adjoint(cross)) / 2
    return np.sqrt(np.sum(np.abs(residual) ** 2, axis=(-2, -1)))


def distance(x):
    return np.sqrt(np.sum(np.abs(adjoint(x) @ x - np.eye(x.shape[-1])) ** 2, axis=(-2, -1)))


TARGET = gaussian(0, (6, 4))
START = polar(gaussian(1, (6, 4)))
HARD = lo.problems.Procrustes.random(15, rng=3)  # some hundreds of iterations
HARD_START = lo.stiefel.random(15, rng=4)


def nearest(target=TARGET):
    return lo.Objective(
        lambda x: 0.5 * np.sum(np.abs(x - target) ** 2), lambda x: x - target, shape=target.shape
    )


# -- limits -------------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("record", [lo.Every(1), lo.Every(7), lo.LogSpaced(3)], ids=repr)
@pytest.mark.parametrize("k", [0, 1, 2, 13, 14])
def test_limits_on_iterations_are_exact(k, record, method):
    result = lo.minimize(HARD, HARD_START, method, stop=lo.MaxIterations(k), record=record)
    assert result.nit == k
    assert result.status is Status.MAX_ITERATIONS
    assert result.trace["iteration"][-1] == k
    assert result.trace["iteration"][0] == 0


@pytest.mark.parametrize("k", [0, 3])
def test_a_fixed_step_costs_one_gradient_each(k):
    result = lo.minimize(HARD, HARD_START, FIXED, stop=lo.MaxIterations(k))
    assert result.njev == k + 1
    assert result.nfev == 0


def test_epochs_are_full_gradients():
    result = lo.minimize(HARD, HARD_START, FIXED, stop=lo.MaxEpochs(5))
    assert result.status is Status.MAX_EPOCHS
    assert result.njev == 5
    assert list(result.trace["epoch"]) == [1, 2, 3, 4, 5]


@methods
@pytest.mark.parametrize("record", [lo.Every(1), lo.Every(10**6)], ids=repr)
def test_a_timeout_is_wall_time(method, record):
    """The observer's own time included, and tested between the rows too."""

    def slow(x):
        time.sleep(0.004)
        return HARD.grad(x)

    problem = lo.Objective(HARD.fun, slow, shape=HARD.shape)
    begin = time.perf_counter()
    result = lo.minimize(
        problem, HARD_START, method, stop=lo.Timeout(0.1) | lo.MaxIterations(5000), record=record
    )
    wall = time.perf_counter() - begin
    assert result.status is Status.TIMEOUT
    assert not result.success
    assert 0.1 <= wall < 2.0
    assert 0 < result.nit < 100


def test_a_timeout_counts_what_metrics_take():
    record = lo.Every(1, metrics={"slow": lambda x: time.sleep(0.03) or 0.0})
    result = lo.minimize(HARD, HARD_START, stop=lo.Timeout(0.1), record=record)
    assert result.status is Status.TIMEOUT
    assert result.nit <= 4


def test_a_timeout_of_zero_returns_the_start():
    result = lo.minimize(HARD, HARD_START, stop=lo.Timeout(0))
    assert result.nit == 0
    assert np.array_equal(result.x, HARD_START)


# -- tolerances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["on", "off"])
@pytest.mark.parametrize("rtol", [1e-2, 1e-5, 1e-9])
def test_rtol_refers_to_the_first_point_on_the_manifold(rtol, start):
    """Also for a start far off it, at whose raw gradient the test would be a hundredfold weaker."""
    x0 = HARD_START if start == "on" else 100 * gaussian(0, (15, 15))
    result = lo.minimize(HARD, x0, stop=lo.GradientNorm(rtol=rtol) | lo.MaxIterations(5000))
    begin = polar(x0)
    bound = rtol * riemannian_norm(begin, HARD.grad(begin))
    norms = result.trace["gradient_norm"]
    assert result.status is Status.CONVERGED
    assert norms[-1] <= bound * (1 + 1e-9)
    assert np.min(norms[:-1]) > bound * (1 - 1e-9)


@pytest.mark.parametrize("factor", [1.0, 1.1, 0.9])
def test_rtol_of_a_fixed_step_refers_to_the_polar_factor(factor):
    x0 = factor * START
    result = lo.minimize(nearest(), x0, FIXED, stop=lo.GradientNorm(rtol=1e-3))
    bound = 1e-3 * riemannian_norm(START, START - TARGET)
    norms = result.trace["gradient_norm"]
    assert norms[-1] <= bound * (1 + 1e-9)
    assert np.min(norms[:-1]) > bound * (1 - 1e-9)


def test_atol_is_absolute_and_the_larger_bound_counts():
    for atol, rtol in ((1e-2, 0.0), (1e-2, 1e-12), (1e-12, 1e-2)):
        rule = lo.GradientNorm(atol=atol, rtol=rtol) | lo.MaxIterations(5000)
        norms = lo.minimize(HARD, HARD_START, stop=rule).trace["gradient_norm"]
        bound = max(atol, rtol * riemannian_norm(HARD_START, HARD.grad(HARD_START)))
        assert norms[-1] <= bound < np.min(norms[:-1])


def test_the_norm_is_of_the_whole_riemannian_gradient():
    """Not ||R||, which is half of it on the part orthogonal to x."""
    x0 = polar(gaussian(2, (20, 2)))  # nearly all of the gradient is orthogonal to x
    target = gaussian(3, (20, 2))
    result = lo.minimize(nearest(target), x0, stop=lo.MaxIterations(0))
    assert result.gradient_norm == pytest.approx(riemannian_norm(x0, x0 - target), rel=1e-12)


def test_distance():
    problem = lo.Objective(lambda x: 0.0, lambda x: np.zeros_like(x), shape=(6, 4))
    rule = lo.Distance(1e-3) | lo.MaxIterations(1000)
    result = lo.minimize(problem, 1.1 * START, lo.landing(step=0.1), stop=rule)
    assert result.status is Status.CONVERGED
    distances = result.trace["distance"]
    assert distances[-1] <= 1e-3 < distances[-2]


@methods
def test_the_default_rule_asks_for_both(method):
    """Gradient and distance: a fixed step goes on until it has landed."""
    result = lo.minimize(nearest(), 1.05 * START, method)
    assert result.status is Status.CONVERGED
    assert result.distance <= 1e-8
    assert result.gradient_norm <= 1e-6 * riemannian_norm(START, START - TARGET) * (1 + 1e-9)


@methods
@pytest.mark.parametrize("record", [lo.Every(1), lo.Every(25)], ids=repr)
def test_a_target_is_reached_by_the_feasible_value(method, record):
    """f at the polar factor, recomputed: never the raw value, which flatters an infeasible x."""
    best = polar(TARGET)
    least = 0.5 * np.sum((best - TARGET) ** 2)
    first = 0.5 * np.sum((START - TARGET) ** 2)
    for fraction in (0.5, 0.1, 1e-3):
        target = least + fraction * (first - least)
        rule = lo.Target(target) | lo.MaxIterations(5000)
        result = lo.minimize(nearest(), START, method, stop=rule, record=record)
        assert result.status is Status.CONVERGED
        value = 0.5 * np.sum((polar(result.x) - TARGET) ** 2)
        assert value <= target * (1 + 1e-12)
        assert result.feasible_fun == pytest.approx(value, rel=1e-12)


def test_a_target_is_not_reached_by_an_infeasible_value():
    """Toward 10 T the raw value is lower off the manifold."""
    x0 = polar(TARGET) * np.sqrt(1.2)
    target = 10 * TARGET
    value = 0.5 * np.sum((polar(TARGET) - target) ** 2)
    raw = 0.5 * np.sum((x0 - target) ** 2)
    assert raw < value
    rule = lo.Target((raw + value) / 2) | lo.MaxIterations(0)
    result = lo.minimize(nearest(target), x0, FIXED, stop=rule)
    assert result.status is Status.MAX_ITERATIONS
    assert result.fun == pytest.approx(raw)
    assert result.feasible_fun == pytest.approx(value)


def test_a_target_is_not_reached_by_an_estimate():
    """The merit is f(polar x) to second order in the distance: too rough far from the manifold."""
    base = lo.landing()
    search = lo.searches.LineSearch(guess=lo.steps.Constant(0.05))
    method = lo.Method(search=search, field=base.field, move=lo.moves.NewtonSchulz(tol=0.1))
    tried = 0
    for seed in range(20):
        x0 = polar(gaussian(seed, (6, 4)))
        step = dict(method=method, record=lo.Every(10**6))
        x = lo.minimize(nearest(3 * TARGET), x0, stop=lo.MaxIterations(1), **step).x
        gradient = x - 3 * TARGET
        cross = x.T @ gradient
        merit = 0.5 * np.sum(gradient**2) - np.sum((cross + cross.T) * (x.T @ x - np.eye(4))) / 4
        value = 0.5 * np.sum((polar(x) - 3 * TARGET) ** 2)
        if merit > value * (1 - 1e-9):
            continue
        tried += 1
        rule = lo.Target((merit + value) / 2) | lo.MaxIterations(1)
        result = lo.minimize(nearest(3 * TARGET), x0, stop=rule, **step)
        assert result.status is Status.MAX_ITERATIONS
    assert tried > 3


# -- rules joined -------------------------------------------------------------------------------


class Fake:
    """A row of which only the iteration is known."""

    gradient_norm = distance = feasible_fun = None
    scalars = None

    def __init__(self, iteration):
        self.iteration = iteration


def met(rule, iteration):
    return rule.verdict(Fake(iteration)) != Status.RUNNING


def test_or_and_nesting():
    at = lo.MaxIterations
    assert [met(at(3) | at(5), k) for k in range(7)] == [k >= 3 for k in range(7)]
    assert [met(at(3) & at(5), k) for k in range(7)] == [k >= 5 for k in range(7)]
    nested = (at(2) & at(6)) | (at(4) & (at(1) | at(9)))
    assert [met(nested, k) for k in range(10)] == [k >= 4 for k in range(10)]
    nested = (at(2) | at(6)) & (at(4) & (at(8) | at(7)))
    assert [met(nested, k) for k in range(10)] == [k >= 7 for k in range(10)]


def test_limits_of_joined_rules():
    at, norm = lo.MaxIterations, lo.GradientNorm(1e-3)
    assert (at(3) | norm).limit() == 3
    assert (at(3) | at(5)).limit() == 3
    assert (at(3) & at(5)).limit() == 5
    assert (at(3) & norm).limit() == math.inf
    assert ((at(3) & norm) | at(7)).limit() == 7


@pytest.mark.parametrize(
    ("rule", "limited"),
    [
        (lo.MaxIterations(3), True),
        (lo.Timeout(1), True),
        (lo.MaxEpochs(1), True),
        (lo.GradientNorm(1e-3), False),
        (lo.Distance(1e-3), False),
        (lo.Target(0.0), False),
        (lo.GradientNorm(1e-3) | lo.Timeout(3), True),
        (lo.GradientNorm(1e-3) & lo.MaxIterations(3), False),
        (lo.MaxIterations(3) & lo.GradientNorm(1e-3), False),
        (lo.MaxIterations(3) & lo.Timeout(1), True),
        ((lo.GradientNorm(1e-3) & lo.MaxIterations(3)) | lo.Distance(1e-3), False),
        ((lo.GradientNorm(1e-3) & lo.MaxIterations(3)) | lo.Timeout(9), True),
    ],
    ids=repr,
)
def test_a_rule_without_a_limit_gets_one_and_says_so(rule, limited):
    result = lo.minimize(nearest(), polar(TARGET), stop=rule)
    assert rule.limits is limited
    assert ("MaxIterations(10000) was added" in result.message) is not limited


def test_a_limit_inside_an_and_does_not_end_the_run():
    """(never & MaxIterations(3)): goes on to the limit that was added."""
    never = lo.Target(-math.inf)
    calls = []
    result = lo.minimize(
        lo.problems.Brockett(np.diag(np.arange(30.0)), np.arange(3, 0, -1.0)), rng=0,
        stop=(never & lo.MaxIterations(3)) | lo.MaxIterations(20),
        callback=calls.append,
    )  # fmt: skip
    assert result.nit == 20
    result = lo.minimize(
        nearest(), START, lo.landing(step=1e-6), stop=never & lo.MaxIterations(3),
        record=lo.Every(10**4),
    )  # fmt: skip
    assert result.nit == 10_000
    assert result.status is Status.MAX_ITERATIONS


def test_and_means_both():
    """Converged, but not before iteration 60; and a success, whichever comes first in the rule."""
    norm, least = lo.GradientNorm(rtol=1e-2), lo.MaxIterations(60)
    for rule in (norm & least, least & norm):
        result = lo.minimize(HARD, HARD_START, stop=rule | lo.MaxIterations(5000))
        assert 60 <= result.nit < 5000
        assert result.gradient_norm <= 1e-2 * result.trace["gradient_norm"][0]
        assert result.status is Status.CONVERGED
        assert result.success


def test_the_first_rule_that_is_met_names_the_status():
    result = lo.minimize(nearest(), START, stop=lo.GradientNorm(rtol=1e-6) | lo.MaxIterations(900))
    assert result.status is Status.CONVERGED
    result = lo.minimize(nearest(), START, stop=lo.MaxIterations(2) | lo.GradientNorm(rtol=1e-6))
    assert result.status is Status.MAX_ITERATIONS


def test_a_rule_of_ones_own():
    """Whatever has verdict, limit and limits; joined with the library's by its own operators."""

    class Corner:
        limits = False

        def verdict(self, row):
            return int(Status.CONVERGED) if row.x[0, 0] < 0.1 else int(Status.RUNNING)

        def limit(self):
            return math.inf

    result = lo.minimize(HARD, HARD_START, stop=lo.MaxIterations(500) | Corner())
    assert result.x[0, 0] < 0.1 or result.nit == 500


def test_rules_and_records_are_values():
    assert lo.GradientNorm(1e-3) | lo.Timeout(2) == lo.GradientNorm(1e-3) | lo.Timeout(2)
    assert lo.GradientNorm(1e-3) | lo.Timeout(2) != lo.GradientNorm(1e-3) & lo.Timeout(2)
    rules = {lo.MaxIterations(3), lo.MaxIterations(3), lo.Every(3), lo.Every(3), lo.LogSpaced(5)}
    assert len(rules) == 3
    assert hash(lo.Timeout(1) | lo.Target(2)) == hash(lo.Timeout(1) | lo.Target(2))
    joined = (lo.GradientNorm(rtol=1e-3) & lo.Distance(1e-8)) | lo.MaxIterations(7)
    assert repr(joined) == (
        "(GradientNorm(atol=0.0, rtol=0.001) & Distance(atol=1e-08)) | MaxIterations(iterations=7)"
    )
    assert pickle.loads(pickle.dumps(joined)) == joined
    with pytest.raises(dataclasses.FrozenInstanceError):
        joined.first = None


# -- down to rounding ---------------------------------------------------------------------------

UNIT = {"float32": 2.0**-23, "complex64": 2.0**-23, "float64": 2.0**-52, "complex128": 2.0**-52}


def _spectrum(condition, n=12):
    return np.logspace(0, -np.log10(condition), n)


ROUNDING = {
    "procrustes": lambda dtype: lo.problems.Procrustes.random(10, rng=1, dtype=dtype),
    "procrustes, large": lambda dtype: lo.problems.Procrustes.random(
        10, rng=2, dtype=dtype, weight=1e4
    ),
    "tall": lambda dtype: lo.problems.Procrustes.random(4, 15, rng=3, dtype=dtype),
    "PCA": lambda dtype: lo.problems.PCA.from_covariance(
        np.diag(_spectrum(100)).astype(dtype), 3
    ),
    "brockett": lambda dtype: lo.problems.Brockett(
        np.diag(np.arange(12.0)).astype(dtype), np.arange(3, 0, -1.0).astype(np.finfo(dtype).dtype)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("dtype", UNIT)
def test_tol_zero_goes_down_to_rounding(dtype, name):
    problem = ROUNDING[name](dtype)
    result = lo.minimize(problem, rng=5, tol=0.0)
    assert result.status is Status.AT_ROUNDING, result.message
    assert result.success
    x = result.feasible_x
    gradient = problem.grad(x)
    level = UNIT[dtype] * np.linalg.norm(gradient)
    assert riemannian_norm(x, gradient) <= 200 * math.sqrt(x.shape[-1]) * level
    assert "rounding" in result.message


@pytest.mark.parametrize("shift", [0.0, 1e-3, 1e3, 1e6, "optimum 0"])
def test_tol_zero_with_a_constant_in_f(shift):
    """The value stops to tell anything at 1e-8 of the gradient; the run goes on below."""
    least = HARD.optimum(component=lo.stiefel.component(HARD_START))[1]
    shift = -least if shift == "optimum 0" else shift
    problem = lo.Objective(lambda x: HARD.fun(x) + shift, HARD.grad, shape=HARD.shape)
    result = lo.minimize(problem, HARD_START, tol=0.0)
    assert result.status is Status.AT_ROUNDING, result.message
    assert riemannian_norm(result.x, HARD.grad(result.x)) <= 1e-12 * np.linalg.norm(
        HARD.grad(result.x)
    )


def test_tol_zero_where_the_gradient_itself_vanishes():
    """Residual 0: ||G|| goes to zero with the Riemannian gradient, so the bound on it does too."""
    A, Q = gaussian(0, (6, 6)), polar(gaussian(1, (6, 6)))
    x0 = polar(Q + 0.3 * gaussian(2, (6, 6)))
    result = lo.minimize(lo.problems.Procrustes(A, Q @ A), x0, tol=0.0)
    assert result.status in (Status.AT_ROUNDING, Status.CONVERGED), result.message
    assert np.linalg.norm(result.feasible_x - Q) <= 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("condition", [1e3, 1e5])
def test_slow_progress_is_not_taken_for_rounding(condition, dtype):
    """Ill-conditioned: hundreds of iterations without a new best value or norm are still progress."""
    K = np.diag(_spectrum(condition)).astype(dtype)
    problem = lo.problems.PCA.from_covariance(K, 3)
    rule = lo.GradientNorm() | lo.MaxIterations(3000)
    result = lo.minimize(problem, rng=1, stop=rule, record=lo.Every(10**6))
    if result.status is Status.AT_ROUNDING:
        gradient = problem.grad(result.x)
        level = UNIT[dtype] * math.sqrt(3) * np.linalg.norm(gradient)
        assert riemannian_norm(result.x, gradient) <= 1e5 * level
    else:
        assert result.status is Status.MAX_ITERATIONS


def test_tiny_steps_are_not_rounding():
    """No progress to speak of for 300 iterations, far from the optimum: the limit is the status."""
    method = lo.landing(step=1e-14)
    result = lo.minimize(nearest(), START, method, tol=0.0, stop=None, record=lo.Every(1000))
    assert result.status is Status.MAX_ITERATIONS
    result = lo.minimize(nearest(), START, method, stop=lo.GradientNorm() | lo.MaxIterations(300))
    assert result.status is Status.MAX_ITERATIONS


@methods
def test_a_loose_tolerance_is_met_before_rounding(method):
    assert lo.minimize(nearest(), START, method, tol=1e-4).status is Status.CONVERGED


# -- when rows are recorded ---------------------------------------------------------------------


@methods
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (lo.Every(1), list(range(24))),
        (lo.Every(5), [0, 5, 10, 15, 20, 23]),
        (lo.Every(23), [0, 23]),
        (lo.Every(100), [0, 23]),
        (lo.LogSpaced(1), [0, 1, 10, 23]),
        (lo.LogSpaced(4), [0, 1, 2, 4, 7, 12, 21, 23]),
    ],
    ids=repr,
)
def test_the_first_and_the_last_iterate_are_always_recorded(record, expected, method):
    seen = []
    result = lo.minimize(
        HARD, HARD_START, method, stop=lo.MaxIterations(23), record=record,
        callback=lambda row: seen.append(row.iteration),
    )  # fmt: skip
    assert list(result.trace["iteration"]) == expected
    assert seen == expected
    assert len(result.trace) == len(expected)


@pytest.mark.parametrize("per_decade", [1, 3, 20])
def test_log_spaced_rows(per_decade):
    """Strictly growing, and about per_decade of them to a factor of ten."""
    record, k, marks = lo.LogSpaced(per_decade), 0, []
    while k < 10**5:
        assert record.next(k) > k
        k = record.next(k)
        marks.append(k)
    in_decade = sum(10**4 <= k < 10**5 for k in marks)
    assert abs(in_decade - per_decade) <= 1


def test_the_default_record_is_every_iterate():
    result = lo.minimize(HARD, HARD_START, stop=lo.MaxIterations(11))
    assert list(result.trace["iteration"]) == list(range(12))


# -- what a row holds ---------------------------------------------------------------------------


def _check_rows(problem, x0, method, tolerance, **options):
    """Recompute every row at copies of the iterates."""
    iterates = []
    record = lo.Every(1, metrics={"kept": lambda x: iterates.append(np.array(x)) or 0.0})
    trace = lo.minimize(problem, x0, method, record=record, **options).trace
    assert len(iterates) == len(trace)
    for i, x in enumerate(iterates):
        feasible = polar(x)
        scale = abs(problem.fun(feasible))
        np.testing.assert_allclose(trace["fun"][i], problem.fun(x), rtol=tolerance)
        np.testing.assert_allclose(
            trace["feasible_fun"][i], problem.fun(feasible), rtol=0, atol=tolerance * np.max(scale)
        )
        gradient = problem.grad(x)
        size = np.sqrt(np.sum(np.abs(gradient) ** 2))
        np.testing.assert_allclose(
            trace["gradient_norm"][i], riemannian_norm(x, gradient), rtol=tolerance,
            atol=tolerance * size,
        )  # fmt: skip
        np.testing.assert_allclose(
            trace["distance"][i], distance(x), rtol=tolerance, atol=30 * tolerance
        )
    return trace


@methods
@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [
        ((6, 6), "float64", 1e-12),
        ((8, 3), "float64", 1e-12),
        ((3, 8), "float64", 1e-12),
        ((7, 7), "complex128", 1e-12),
        ((4, 9), "complex128", 1e-12),
        ((6, 4), "float32", 2e-6),
        ((3, 6, 4), "float64", 1e-12),
    ],
)
def test_the_columns_of_a_trace(shape, dtype, tolerance, method):
    target = 2 * gaussian(0, shape, dtype)

    def fun(x):
        return 0.5 * np.sum(np.abs(x - target) ** 2, axis=(-2, -1))

    problem = lo.Objective(fun, lambda x: x - target, shape=shape)
    wide = shape[-2] < shape[-1]
    x0 = gaussian(1, shape, dtype)
    x0 = 1.08 * polar(x0)  # the fixed step's rows start well off the manifold
    if not wide:
        trace = _check_rows(problem, x0, method, tolerance, stop=lo.MaxIterations(15))
        if method is FIXED:
            assert np.max(trace["distance"][5]) > 0.01
        return
    seen = []
    record = lo.Every(1, metrics={"kept": lambda x: seen.append(np.array(x)) or 0.0})
    trace = lo.minimize(problem, x0, method, record=record, stop=lo.MaxIterations(15)).trace
    for i, x in enumerate(seen):  # by the definition for wide x, through the transpose
        tall, gradient = adjoint(x), adjoint(x - target)
        assert trace["gradient_norm"][i] == pytest.approx(riemannian_norm(tall, gradient), rel=1e-9)
        assert trace["distance"][i] == pytest.approx(distance(tall), abs=1e-13)
        assert trace["feasible_fun"][i] == pytest.approx(fun(polar(x)), rel=1e-12)


def test_rows_next_to_the_manifold():
    """Where f(polar x) is an estimate and not an evaluation: exact to rounding all the same."""
    for power in range(2, 12):
        x0 = START + 10.0**-power * gaussian(5, START.shape)
        _check_rows(nearest(10 * TARGET), x0, FIXED, 1e-12, stop=lo.MaxIterations(2))


def test_rows_of_a_stack_in_which_trials_are_refused():
    """Whatever is measured at a matrix that stays where it was is measured there."""
    target = np.array([0.1, 30.0, 1.0])[:, None, None] * gaussian(0, (3, 6, 4))
    problem = lo.Objective(
        lambda x: 0.5 * np.sum((x - target) ** 2, axis=(-2, -1)),
        lambda x: x - target,
        shape=(3, 6, 4),
    )
    base = lo.landing()
    guess = lo.steps.Schedule(lambda k: (0.02, 3.0, 0.4)[k % 3])
    method = lo.Method(
        search=lo.searches.LineSearch(guess=guess, memory=0.0), field=base.field, move=base.move
    )
    trace = _check_rows(problem, 3 * gaussian(1, (3, 6, 4)), method, 1e-12)
    assert len(trace) > 10


def test_steps_and_work_of_a_row():
    iterates = []
    result = lo.minimize(
        HARD, HARD_START, lo.landing(step=0.004), stop=lo.MaxIterations(6),
        callback=lambda row: iterates.append(row.x.copy()),
    )  # fmt: skip
    trace = result.trace
    assert math.isnan(trace["step"][0])
    assert list(trace["njev"]) == [1, 2, 3, 4, 5, 6, 7]
    for i in range(1, 7):  # the step that led here, on the naive field
        x = iterates[i - 1]
        outer = HARD.grad(x) @ x.T
        field = ((outer - outer.T) / 2 + x @ x.T - np.eye(15)) @ x
        move = iterates[i] - x
        eta = -np.sum(move * field) / np.sum(field**2)
        assert trace["step"][i] == pytest.approx(eta, rel=1e-9)
    assert np.max(trace["step"][1:]) <= 0.004


def test_seconds_grow_and_end_at_the_results():
    result = lo.minimize(HARD, HARD_START, tol=1e-9)
    seconds = result.trace["seconds"]
    assert seconds[0] >= 0
    assert np.all(np.diff(seconds) >= 0)
    assert seconds[-1] <= result.seconds <= seconds[-1] + 0.05


def test_metrics_and_callbacks_are_off_the_clock():
    record = lo.Every(1, metrics={"slow": lambda x: time.sleep(0.02) or 1.0})
    begin = time.perf_counter()
    result = lo.minimize(
        HARD, HARD_START, stop=lo.MaxIterations(10), record=record,
        callback=lambda row: time.sleep(0.02),
    )  # fmt: skip
    wall = time.perf_counter() - begin
    assert wall > 0.44
    assert result.seconds < 0.15
    assert result.trace["seconds"][-1] < 0.15


@methods
def test_what_the_rows_measure_is_off_the_clock(method):
    """f, which a fixed step never reads, and the projection at which the rows evaluate it."""

    def slow(x):
        if method is FIXED or np.linalg.norm(x.T @ x - np.eye(15)) > 1e-3:
            time.sleep(0.01)
        return HARD.fun(x)

    problem = lo.Objective(slow, HARD.grad, shape=HARD.shape)
    x0 = HARD_START * (1.05 if method is FIXED else 1.0)
    result = lo.minimize(problem, x0, method, stop=lo.MaxIterations(10))
    assert result.seconds < 0.1
    if method is FIXED:
        assert result.nfev == 0


def test_the_methods_own_time_is_on_the_clock():
    def slow(x):
        time.sleep(0.01)
        return HARD.grad(x)

    problem = lo.Objective(HARD.fun, slow, shape=HARD.shape)
    result = lo.minimize(problem, HARD_START, FIXED, stop=lo.MaxIterations(10))
    assert result.seconds >= 0.11
    assert np.min(np.diff(result.trace["seconds"])) >= 0.01


def test_a_clock_that_is_paused_stands_still():
    clock = Clock(np.zeros(1))
    clock.pause()
    used = clock.seconds()
    clock.pause()  # twice is once
    time.sleep(0.01)
    assert clock.seconds() == used
    assert clock.wall() >= used + 0.01
    clock.resume()
    clock.resume()
    time.sleep(0.01)
    assert clock.seconds() >= used + 0.01


class Counting:
    """A problem whose calls are counted; outside the ``with`` of a metric they are the method's."""

    def __init__(self, together):
        self.calls = {"fun": 0, "grad": 0, "both": 0}

        def fun(x):
            self.calls["fun"] += 1
            return HARD.fun(x)

        def grad(x):
            self.calls["grad"] += 1
            return HARD.grad(x)

        def both(x):
            self.calls["both"] += 1
            return HARD.fun(x), HARD.grad(x)

        self.problem = (
            lo.Objective(value_and_gradient=both, shape=HARD.shape)
            if together == "pair"
            else lo.Objective(fun, grad, shape=HARD.shape)
            if together == "apart"
            else lo.Objective(fun, grad, value_and_gradient=both, shape=HARD.shape)
        )


@methods
@pytest.mark.parametrize("together", ["apart", "pair", "all"])
def test_counts_are_true(together, method):
    """With one row at each end: the method's own calls, and a handful that measured the rows."""
    counting = Counting(together)
    result = lo.minimize(
        counting.problem, HARD_START, method, stop=lo.MaxIterations(40), record=lo.Every(10**6)
    )
    calls = counting.calls
    values, gradients = calls["fun"] + calls["both"], calls["grad"] + calls["both"]
    assert 0 <= values - result.nfev <= 5
    assert 0 <= gradients - result.njev <= 5
    if method is FIXED:
        assert result.njev == 41
    else:
        assert result.njev >= 41
        assert result.nfev == result.njev


@methods
@pytest.mark.parametrize("together", ["apart", "pair", "all"])
def test_what_is_measured_is_not_charged(together, method):
    """Counts and iterates do not depend on how often rows are recorded, nor on metrics."""
    problem = Counting(together).problem
    meddling = lo.Every(1, metrics={"f": lambda x: HARD.fun(x)})
    x0 = HARD_START * (1.05 if method is FIXED else 1.0)
    options = dict(stop=lo.MaxIterations(25))
    often = lo.minimize(problem, x0, method, record=meddling, **options)
    seldom = lo.minimize(problem, x0, method, record=lo.Every(10**6), **options)
    assert (often.nfev, often.njev) == (seldom.nfev, seldom.njev)
    assert np.array_equal(often.x, seldom.x)


def test_trials_of_a_line_search_are_counted():
    """f is NaN at every second call, so that each step takes two trials: both are charged."""
    calls = itertools.count()

    def fun(x):
        return math.nan if next(calls) % 2 else HARD.fun(x)

    problem = lo.Objective(fun, HARD.grad, shape=HARD.shape)
    result = lo.minimize(problem, HARD_START, stop=lo.MaxIterations(10), record=lo.Every(10**6))
    assert result.nit == 10
    assert result.nfev == result.njev == 21
    assert list(result.trace["njev"]) == [1, 21]


# -- metrics and callbacks ----------------------------------------------------------------------


def test_the_users_own_columns():
    record = lo.Every(2, metrics={"corner": lambda x: x[0, 0], "trace": np.trace})
    rows = []
    result = lo.minimize(
        HARD, HARD_START, record=record, stop=lo.MaxIterations(5),
        callback=lambda row: rows.append((row.x[0, 0], np.trace(row.x))),
    )  # fmt: skip
    assert result.trace.columns == (*COLUMNS, "corner", "trace")
    np.testing.assert_array_equal(result.trace["corner"], [row[0] for row in rows])
    np.testing.assert_array_equal(result.trace["trace"], [row[1] for row in rows])
    assert result.trace["corner"].shape == (4,)


def test_metrics_get_what_the_user_knows():
    """Wide, and blocks by name; read-only."""
    seen = []
    target = gaussian(0, (3, 7))
    lo.minimize(
        nearest(target), polar(gaussian(1, (3, 7))), stop=lo.MaxIterations(2),
        record=lo.Every(1, metrics={"m": lambda x: seen.append(x.shape) or 0.0}),
    )  # fmt: skip
    assert seen == [(3, 7)] * 3

    def writes(x):
        x[0, 0] = 7.0

    with pytest.raises(ValueError, match="read-only"):
        lo.minimize(HARD, HARD_START, record=lo.Every(1, metrics={"m": writes}))


def test_a_row_for_a_callback():
    rows = []

    def callback(row):
        rows.append(
            {name: getattr(row, name) for name in (*COLUMNS, "wall", "first_gradient_norm")}
        )

    result = lo.minimize(HARD, HARD_START, callback=callback, stop=lo.MaxIterations(8))
    for name in COLUMNS:
        if name not in ("seconds",):
            np.testing.assert_array_equal(result.trace[name], [row[name] for row in rows])
    assert all(row["wall"] >= row["seconds"] for row in rows)
    assert {row["first_gradient_norm"] for row in rows} == {rows[0]["gradient_norm"]}


# -- the trace as an object and as files --------------------------------------------------------


def _trace(stack=False):
    problem = lo.problems.Procrustes.random(5, stack=(3,) if stack else (), rng=0)
    record = lo.Every(1, metrics={"sometimes": lambda x: math.nan, "endless": lambda x: math.inf})
    return lo.minimize(problem, rng=0, record=record, stop=lo.MaxIterations(6)).trace


def test_a_trace_is_read_by_name():
    trace = _trace()
    assert len(trace) == 7
    assert list(trace) == list(trace.columns) == [*COLUMNS, "sometimes", "endless"]
    assert "7 rows" in repr(trace)
    with pytest.raises(KeyError, match="gradient_norm"):
        trace["grad_norm"]
    rows = list(trace.rows())
    assert [row["iteration"] for row in rows] == list(range(7))
    column = trace["fun"]
    column[:] = 0.0  # a copy
    assert np.min(trace["fun"]) > 0


def test_a_trace_as_csv(tmp_path):
    trace = _trace()
    trace.to_csv(tmp_path / "trace.csv")
    with open(tmp_path / "trace.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == trace.columns
    assert len(lines) == 7
    for i, name in enumerate(header):
        column = np.array([float(line[i]) for line in lines])
        np.testing.assert_array_equal(column, trace[name].astype(float))


def test_a_trace_as_json(tmp_path):
    trace = _trace()
    trace.to_json(str(tmp_path / "trace.json"))
    text = (tmp_path / "trace.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    data = json.loads(text)
    assert tuple(data) == trace.columns
    for name, column in data.items():
        values = np.array([math.nan if v is None else v for v in column])
        expected = np.where(np.isfinite(trace[name]), trace[name], math.nan)
        np.testing.assert_array_equal(values, expected)
    assert data["step"][0] is None
    assert data["endless"] == [None] * 7
    assert isinstance(data["nfev"][0], int)


def test_a_trace_of_a_stack(tmp_path):
    trace = _trace(stack=True)
    for name in ("fun", "feasible_fun", "gradient_norm", "distance", "step"):
        assert trace[name].shape == (7, 3), name
    assert trace["iteration"].shape == (7,)
    trace.to_csv(tmp_path / "trace.csv")
    trace.to_json(tmp_path / "trace.json")
    data = json.loads((tmp_path / "trace.json").read_text())
    np.testing.assert_array_equal(data["fun"], trace["fun"])
    with open(tmp_path / "trace.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    values = [[float(v) for v in line["fun"].split()] for line in lines]
    np.testing.assert_array_equal(values, trace["fun"])


@pytest.mark.parametrize("kind", ["numpy scalar", "0-d array", "torch", "float32", "int"])
def test_metrics_may_return_any_number(tmp_path, kind):
    def metric(x):
        if kind == "torch":
            torch = pytest.importorskip("torch")
            return torch.tensor(float(x[0, 0]), dtype=torch.float64)
        value = {"0-d array": np.asarray, "float32": np.float32, "int": lambda v: 3}
        return value.get(kind, np.float64)(x[0, 0])

    record = lo.Every(1, metrics={"m": metric})
    trace = lo.minimize(HARD, HARD_START, record=record, stop=lo.MaxIterations(3)).trace
    assert trace["m"].shape == (4,)
    trace.to_csv(tmp_path / "trace.csv")
    trace.to_json(tmp_path / "trace.json")
    data = json.loads((tmp_path / "trace.json").read_text())
    np.testing.assert_allclose(data["m"], trace["m"].astype(float))


def test_traces_are_pickled():
    trace = _trace()
    other = pickle.loads(pickle.dumps(trace))
    assert other.columns == trace.columns
    np.testing.assert_array_equal(other["feasible_fun"], trace["feasible_fun"])


# -- retractions that leave no distance behind --------------------------------------------------


@pytest.mark.parametrize("search", [None, lo.searches.LineSearch()], ids=["constant", "search"])
@pytest.mark.parametrize(
    "retraction",
    [
        lo.retractions.Cayley(),
        lo.retractions.CholeskyQR(),
        lo.retractions.Polar("eigh"),
        lo.retractions.Exponential(),
        lo.retractions.Exponential("canonical"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("stack", [(), (3,)], ids=["one", "stack"])
def test_the_stop_rule_is_met_at_the_same_iterate_whatever_is_recorded(retraction, search, stack):
    problem = lo.problems.Procrustes.random(3, 20, stack=stack, rng=0)
    x0 = lo.stiefel.random(20, 3, stack=stack, rng=1)
    method = lo.riemannian(retraction, search=search)
    every, seldom = (
        lo.minimize(problem, x0, method, record=record, rng=0)
        for record in (lo.Every(1), lo.Every(9999))
    )
    assert np.all(every.status == Status.CONVERGED)
    assert np.all(seldom.status == Status.CONVERGED)
    assert every.nit == seldom.nit
    assert np.array_equal(every.x, seldom.x)


def test_a_distance_that_is_asked_for_is_measured_off_the_clock(monkeypatch):
    from landingopt.observe.measure import Measure

    measure, running = Measure.distance, []

    def watched(self, point):
        running.append(observers[-1].clock._since is not None)
        return measure(self, point)

    observers = []
    begin = lo.observe.observer.Observer.begin
    monkeypatch.setattr(Measure, "distance", watched)
    monkeypatch.setattr(
        lo.observe.observer.Observer, "begin", lambda self: observers.append(self) or begin(self)
    )
    method = lo.riemannian(lo.retractions.Cayley(), search=lo.searches.LineSearch())
    lo.minimize(HARD, HARD_START, method, record=lo.Every(9999))
    assert len(running) >= 3
    assert not any(running)
