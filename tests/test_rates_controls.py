"""Every negative control is REJECTED, for the right reason, and beside each its intact twin is not."""

from __future__ import annotations

import numpy as np
import pytest

import landingopt as lo
from landingopt.rates import Verdict, controls, laws
from landingopt.rates.controls import FrozenSaga, Omitting, StaleSvrg, Unweighted

T = 2**11  # of stochastic runs: all of theirs are on their plateau after a few hundred steps


def procrustes():
    """A problem, a start in the component of its minimum, and half of the longest stable step."""
    problem = lo.problems.Procrustes.random(4, rng=0)
    s = np.linalg.svd(problem.B @ problem.A.T, compute_uv=False)
    return problem, 1.0 / (s[0] + s[1])


PROBLEM, STEP = procrustes()


def least_squares(n_terms=20, n=4, p=3):
    """A sum of ||X A_i - B_i||^2 / 2 with noise at the minimum, its largest curvature about 1."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((n_terms, p, p))
    B = lo.stiefel.random(n, p, rng=rng) @ A + rng.standard_normal((n_terms, n, p))
    A, B = A / 5.0, B / 5.0

    def fun(x, terms):
        return 0.5 * np.mean(np.sum((x @ A[terms] - B[terms]) ** 2, axis=(1, 2)))

    def grad(x, terms):
        return np.mean((x @ A[terms] - B[terms]) @ A[terms].mT, axis=0)

    return lo.FiniteSum(fun, grad, n_terms=n_terms, shape=(n, p))


SUM = least_squares()
INDEPENDENT = lo.samplers.WithReplacement()


def of_sum(estimator):
    return lo.landing(step=0.2, base=estimator, tangent=lo.fields.NearTangent())


def sgd(step=0.5, batch_size=1, sampler=INDEPENDENT):
    return lo.landing_sgd(step, batch_size=batch_size, sampler=sampler)


def rejected(problem, method, words, expect=None, horizon=2**13):
    report = lo.rates.check(problem, method, expect=expect, horizon=horizon, rng=1)
    assert report.verdict is Verdict.REJECTED, report
    assert words in report.reason, report
    return report


def on_a_plateau(report, law):
    """The mean over the last half has the slope 0."""
    assert abs(report["||grad||^2"].recent.value) <= 0.3, report
    assert report["||grad||^2"].promised == pytest.approx(-law.power)


def consistent(problem, method, expect=None, horizon=2**13):
    report = lo.rates.check(problem, method, expect=expect, horizon=horizon, rng=1)
    assert report.verdict is Verdict.CONSISTENT, report


# -- wrong gradients ------------------------------------------------------------------------------


def test_the_right_gradient_is_consistent():
    consistent(PROBLEM, lo.landing(step=STEP))


@pytest.mark.parametrize(
    "broken",
    [
        controls.flipped_sign(PROBLEM),
        controls.flipped_sign(PROBLEM, "row"),
        controls.flipped_sign(PROBLEM, "column"),
        controls.scaled_column(PROBLEM),
        controls.offset(PROBLEM),
        controls.flipped_sign(lo.problems.PCA.random(6, 2, rng=0)),
    ],
    ids=["entry", "row", "column", "scaled", "offset", "tall"],
)
def test_wrong_gradients(broken):
    rejected(broken, lo.landing(step=STEP), "the gradient against differences of f")


def test_the_wrong_gradient_of_a_sum_is_wrong_over_any_terms():
    broken = controls.scaled_column(SUM)
    rejected(broken, sgd(), "the gradient against differences of f", horizon=T)
    x = lo.stiefel.random(4, 3, rng=2)
    for terms in (slice(0, 3), np.array([5])):
        ratio = broken.grad_terms(x, terms) / SUM.grad_terms(x, terms)
        assert np.allclose(ratio, [1.05, 1.0, 1.0])
    assert np.allclose(broken.grad(x) / SUM.grad(x), [1.05, 1.0, 1.0])


def test_the_controls_of_a_stack_are_those_of_its_problems():
    stack = lo.problems.Procrustes.random(3, stack=(2,), rng=0)
    x = lo.stiefel.random(3, stack=(2,), rng=1)
    right = stack.grad(x)
    flipped = controls.flipped_sign(stack).grad(x)
    assert np.array_equal(flipped[:, 0, 0], -right[:, 0, 0])
    assert np.array_equal(flipped[:, 1:], right[:, 1:])
    added = controls.offset(stack, share=0.1).grad(x) - right
    assert added.shape == right.shape and np.all(np.linalg.norm(added, axis=(1, 2)) > 0.0)
    assert np.allclose(added, controls.offset(stack, share=0.1).grad(-x) - stack.grad(-x))


def test_an_offset_has_the_share_that_it_says():
    rng = np.random.default_rng(3)
    x = lo.stiefel.random(4, rng=rng, like=PROBLEM.like)  # its first draw
    e = controls.offset(PROBLEM, share=0.1, rng=3).grad(x) - PROBLEM.grad(x)
    assert np.linalg.norm(e) == pytest.approx(0.1 * np.linalg.norm(PROBLEM.grad(x)))


# -- methods that break the conditions of their theorem -------------------------------------------


def test_no_attraction():
    rejected(PROBLEM, controls.unattracted(STEP), "N: +1.00 above the promised slope")


def test_a_step_too_long_without_the_safe_step():
    """2.2 / (s_1 + s_2), from close to the minimum, where half of the longest stable step is safe."""
    optimum, _ = PROBLEM.optimum()
    start = lo.stiefel.polar(optimum + 1e-2 * np.random.default_rng(0).standard_normal((4, 4)))
    method = controls.unguarded(2.2 * STEP)
    report = lo.rates.check(PROBLEM, method, x0=start, rng=1)
    assert report.verdict is Verdict.REJECTED
    assert "the step is too long" in report.reason or "above the promised slope" in report.reason
    intact = lo.rates.check(PROBLEM, controls.unguarded(STEP), x0=start, rng=1)
    assert intact.verdict is Verdict.CONSISTENT, intact
    rejected(PROBLEM, method, "the step is too long")  # from anywhere else the tube is left


def test_sgd_with_a_constant_step_is_bounded_and_no_more():
    consistent(SUM, sgd(), horizon=T)
    for law in (laws.OneOverT(), laws.OneOverSqrtT()):
        on_a_plateau(rejected(SUM, sgd(), "f pays for 0% of the gradients", law, T), law)


def test_a_step_that_shrinks_too_fast_is_not_taken_for_one_that_is_fixed_for_t():
    fixed, shrinking = lo.steps.Horizon(8.0, 1), controls.Shrinking(8.0, 1)
    consistent(SUM, sgd(fixed), horizon=2 * T)
    report = lo.rates.check(SUM, sgd(shrinking), horizon=2 * T, rng=1)
    assert report.law == laws.OneOverSqrtT()
    assert report.verdict is not Verdict.CONSISTENT, report
    assert shrinking.size(5, None) == 8.0 and controls.Shrinking(8.0, 4).size(5, None) == 2.0


# -- estimates ------------------------------------------------------------------------------------


def test_a_table_that_is_never_updated():
    """It is unbiased: only its plateau gives it away."""
    consistent(SUM, of_sum(lo.estimators.Saga(3)), horizon=T)
    words, law = "f pays for 0% of the gradients", laws.OneOverT()
    report = rejected(SUM, of_sum(FrozenSaga(3)), words, law, T)
    assert all(holds for holds, _ in report.checks)
    on_a_plateau(report, law)


def test_a_stale_anchor():
    consistent(SUM, of_sum(lo.estimators.Svrg(3, inner=1.0)), horizon=T)
    rejected(SUM, of_sum(StaleSvrg(3, inner=1.0)), "biased: the mean estimate", laws.OneOverT(), T)


@pytest.mark.parametrize(
    ("batch_size", "broken", "intact"),
    [
        (1, Omitting(), INDEPENDENT),
        (3, Unweighted(), lo.samplers.Reshuffled(contiguous=True)),
    ],
    ids=["terms never drawn", "unequal blocks alike"],
)
def test_biased_minibatches(batch_size, broken, intact):
    consistent(SUM, sgd(0.2, batch_size, intact), horizon=T)
    rejected(SUM, sgd(0.2, batch_size, broken), "biased: the mean estimate", horizon=T)


def test_blocks_of_equal_size_are_right_without_weights():
    report = lo.rates.check_unbiased(SUM, sgd(0.2, 4, Unweighted()))
    assert report, report.message


def test_what_omitting_is_for():
    with pytest.raises(TypeError, match="use it with lo"):
        lo.minimize(SUM, method=of_sum(lo.estimators.Saga(2, Omitting())), rng=0)
    draws = Omitting(0.25).start(20, 4, np.random.default_rng(0))
    seen = {int(i) for _ in range(200) for i in draws.draw()}
    assert seen == set(range(15))
