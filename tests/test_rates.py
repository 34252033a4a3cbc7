"""The rate checker: series, laws, verdicts on traces, unbiasedness, theorems, and whole checks."""

from __future__ import annotations

import math

import numpy as np
import pytest

import landingopt as lo
from landingopt.cli import procrustes_step
from landingopt.rates import Verdict, laws, series
from landingopt.rates.judge import Floors, share_paid
from landingopt.rates.series import Integral, Observed, Strata, fitted_slope, means
from landingopt.rates.theorems import with_horizon

CONSISTENT, REJECTED, INCONCLUSIVE = Verdict.CONSISTENT, Verdict.REJECTED, Verdict.INCONCLUSIVE
T = 8192
t = np.arange(T)


def trace(gradient, infeasibility=None, **columns):
    """Every iterate of a run with this ||grad||^2 and N."""
    gradient = np.broadcast_to(gradient, t.shape)
    n = gradient if infeasibility is None else np.broadcast_to(infeasibility, t.shape)
    return {"iteration": t, "gradient_norm": np.sqrt(gradient), "infeasibility": n, **columns}


def verdict(law, gradient, infeasibility=None, **columns):
    return lo.rates.check_trace(trace(gradient, infeasibility, **columns), law).verdict


# -- records and means ------------------------------------------------------------------------


def test_strata_see_every_iterate_first_and_one_in_each_stratum_then():
    record, at, k = Strata(16, seed=3), [0], 0
    while k < 4096:
        k = record.next(k)
        at.append(k)
    at = np.array(at)
    assert np.all(np.diff(at) > 0)
    assert at[:32].tolist() == list(range(32))
    for octave in range(5, 12):
        inside = at[(at >= 2**octave) & (at < 2 ** (octave + 1))]
        assert len(inside) == 16
        assert np.array_equal((inside - 2**octave) // 2 ** (octave - 4), np.arange(16))


def test_strata_are_not_in_step_with_a_period():
    record, at, k = Strata(64, seed=0), [], 0
    while k < T:
        k = record.next(k)
        at.append(k)
    odd = np.mean(np.array(at)[np.array(at) > 512] % 2)
    assert 0.4 < odd < 0.6


def test_means_over_every_iterate_are_the_means():
    values = np.random.default_rng(0).random(T)
    run = Observed(t, values, None, None, None)
    running, tail = means(run, values, np.array([1000.0, T]))
    np.testing.assert_allclose(running, [values[:1000].mean(), values.mean()], rtol=1e-12)
    np.testing.assert_allclose(tail, [values[500:1000].mean(), values[T // 2 :].mean()], rtol=1e-12)


def test_means_over_strata_are_close():
    record, at, k = Strata(64, seed=1), [0], 0
    while k < T - 1:
        k = min(record.next(k), T - 1)
        at.append(k)
    at = np.array(at)
    values = 1.0 / (1.0 + t)
    integral = Integral(at, values[at])
    assert integral.mean(0, T) == pytest.approx(values.mean(), rel=1e-3)
    assert integral.mean(T / 2, T) == pytest.approx(values[T // 2 :].mean(), rel=1e-3)


def test_the_interval_of_a_slope_is_students_over_the_seeds():
    rng = np.random.default_rng(0)
    horizons = 2.0 ** np.arange(10, 14)
    hits = 0
    for _ in range(400):
        values = horizons[:, None] ** -0.5 * np.exp(0.1 * rng.standard_normal((4, 4)))
        slope = fitted_slope(horizons, values)
        hits += slope.low <= -0.5 <= slope.high
    assert 360 <= hits <= 396  # 95 %
    one = fitted_slope(horizons, horizons[:, None] ** -1.0)
    assert (one.value, one.low, one.high) == pytest.approx((-1.0, -1.0, -1.0))


# -- what a trace must be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gradient_norm": None}, ValueError, "needs the columns iteration and gradient_norm; got"),
        ({"iteration": None}, ValueError, "needs the columns"),
        ({"iteration": np.roll(t, 1)}, ValueError, "iteration must increase.*row 1 has 0 after 8191"),
        ({"iteration": t + 0.5}, ValueError, "whole numbers"),
        ({"iteration": t - 1}, ValueError, "from 0 on"),
        ({"gradient_norm": np.where(t == 7, np.nan, 1.0)}, ValueError, "gradient_norm is nan in row 7"),
        ({"gradient_norm": -np.ones(T)}, ValueError, "negative in row 0"),
        ({"infeasibility": np.where(t == 9, -1e-3, 1)}, ValueError, "infeasibility is negative.*row 9"),
        ({"gradient_norm": np.ones(5)}, ValueError, "5 rows, iteration has 8192"),
        ({"gradient_norm": np.ones((T, 2))}, ValueError, "judge the matrices of a stack one by one"),
        ({"gradient_norm": ["x"] * T}, ValueError, "no number"),
        ({"distance": -np.ones(T), "infeasibility": None}, ValueError, "distance is negative"),
    ],
)  # fmt: skip
def test_a_bad_trace_is_refused(change, error, words):
    columns = trace(1.0 / (1 + t)) | change
    columns = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(error, match=words):
        lo.rates.check_trace(columns, laws.OneOverT())


def test_other_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"lo\.Trace, a mapping of columns"):
        lo.rates.check_trace(3.0, laws.OneOverT())
    with pytest.raises(TypeError, match="expect must be a law"):
        lo.rates.check_trace(trace(1.0), "1/T")
    with pytest.raises(TypeError, match=r"call it, lo\.rates\.laws\.OneOverT"):
        lo.rates.check_trace(trace(1.0), laws.OneOverT)
    with pytest.raises(ValueError, match="the trace has no rows"):
        lo.rates.check_trace({"iteration": [], "gradient_norm": []}, laws.OneOverT())
    with pytest.raises(ValueError, match="list of traces is empty"):
        lo.rates.check_trace([], laws.OneOverT())
    with pytest.raises(
        ValueError, match=r"reference_value = 2 is no minimum: f = 1 at\s+iteration 0"
    ):
        lo.rates.check_trace(
            trace(1.0, feasible_fun=np.ones(T)), laws.OneOverT(), reference_value=2.0
        )
    with pytest.raises(ValueError, match="no feasible_fun"):
        lo.rates.check_trace(trace(1.0), laws.OneOverT(), reference_value=2.0)
    for bad in (0.0, 1.0, "a"):
        with pytest.raises(ValueError, match="factor must lie strictly between"):
            laws.Linear(bad)
    with pytest.raises(ValueError, match="power"):
        laws.Sublinear(-1.0)


def test_a_trace_comes_from_a_run_a_file_or_a_mapping(tmp_path):
    result = lo.minimize(
        lo.problems.Procrustes.random(6, rng=0), method=lo.landing(step=0.02),
        stop=lo.MaxIterations(2047), rng=0,
    )  # fmt: skip
    result.trace.to_csv(tmp_path / "run.csv")
    columns = {name: result.trace[name] for name in ("iteration", "gradient_norm", "distance")}
    reports = [
        lo.rates.check_trace(source, laws.OneOverT())
        for source in (
            result,
            result.trace,
            tmp_path / "run.csv",
            str(tmp_path / "run.csv"),
            columns,
        )
    ]
    assert {report.verdict for report in reports} == {CONSISTENT}
    assert len({report["||grad||^2"].reason for report in reports}) == 1


# -- verdicts on sequences ------------------------------------------------------------------------

one_over_t, plateau = 1.0 / (1.0 + t), 1e-3 + 1.0 / (1.0 + t)


@pytest.mark.parametrize(
    ("law", "gradient", "expected"),
    [
        (laws.OneOverT(), 1.0 / (1 + t) ** 1.5, CONSISTENT),
        (laws.OneOverT(), 1.0 / (1 + t) ** 2, CONSISTENT),
        (laws.OneOverT(), 0.99**t, CONSISTENT),  # at rounding
        (laws.OneOverT(), 0.998**t, CONSISTENT),
        (laws.OneOverT(), 1e-3 + 0.9**t, REJECTED),
        (laws.OneOverT(), 1e-8 + 1.0 / (1 + t) ** 2, CONSISTENT),  # a plateau too low to be seen
        (laws.OneOverT(), 1e-6 + 1.0 / (1 + t) ** 2, REJECTED),  # one that has just come up
        (laws.OneOverT(), 1.0 / np.sqrt(1 + t), REJECTED),
        (laws.OneOverT(), np.ones(T), REJECTED),
        (laws.OneOverT(), np.where(t % 2, 1.0, 0.1), REJECTED),
        (laws.OneOverSqrtT(), 1.0 / np.sqrt(1 + t), CONSISTENT),
        (laws.OneOverSqrtT(), 1.0 / (1 + t) ** 0.25, REJECTED),
        (laws.LogOverSqrtT(), np.log(2 + t) / np.sqrt(1 + t), CONSISTENT),
        (laws.LogOverSqrtT(), 1.0 / (1 + t) ** 0.2, REJECTED),
        (laws.Bounded(), np.ones(T), CONSISTENT),
        (laws.Bounded(), np.sqrt(1.0 + t), REJECTED),
        (laws.Sublinear(0.75), (1.0 + t) ** -0.8, CONSISTENT),
        (laws.Sublinear(0.75), (1.0 + t) ** -0.6, REJECTED),
    ],
)
def test_verdicts_on_sequences(law, gradient, expected):
    report = lo.rates.check_trace(trace(gradient), law)
    assert report.verdict is expected, report
    assert bool(report) is (expected is CONSISTENT)


def test_the_mean_over_the_last_half_sees_what_the_running_mean_hides():
    """A plateau of 2 % of the whole sum: the running mean alone still falls like 1/T."""
    gradient = 0.5**t + 2e-5
    report = lo.rates.check_trace(trace(gradient, one_over_t**2), laws.OneOverT())
    series = report["||grad||^2"]
    assert series.running.value < -0.9
    assert series.tail.value > -0.1
    assert series.verdict is REJECTED
    assert "above the promised slope -1.00" in report.reason


def test_noise_that_hides_the_slope_is_inconclusive():
    rng = np.random.default_rng(1)
    runs = [trace(np.exp(3.0 * rng.standard_normal()) * (1.0 + t) ** rng.normal(-0.5, 0.4))
            for _ in range(3)]  # fmt: skip
    report = lo.rates.check_trace(runs, laws.OneOverSqrtT())
    assert report.verdict is INCONCLUSIVE
    assert "seeds" in report.reason


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"iteration": np.arange(100), "gradient_norm": 1.0 / (1 + np.arange(100))}, "too few"),
        ({"iteration": np.arange(0, T, 512), "gradient_norm": np.ones(16)}, "too few rows"),
        ({"iteration": t, "gradient_norm": np.full(T, 1e-16), "distance": np.full(T, 1e-16),
          "fun": np.ones(T)}, "hardly left its first value"),
    ],
)  # fmt: skip
def test_too_short_or_too_sparse_is_inconclusive_with_advice(columns, words):
    report = lo.rates.check_trace(columns, laws.OneOverT())
    if (
        words == "slope"
    ):  # constant at 1e-16: nothing says that this is rounding, and it does not fall
        assert report.verdict is REJECTED
        return
    assert report.verdict is INCONCLUSIVE
    assert words in report.reason


def test_a_run_that_starts_at_rounding_is_inconclusive():
    problem = lo.problems.Procrustes.random(5, rng=0)
    x, _ = problem.optimum(component=1)
    report = lo.rates.check(problem, lo.landing(step=0.02), x0=x, rng=0)
    assert report.verdict is INCONCLUSIVE
    assert "at rounding from the first iterate on" in report.reason
    assert "start elsewhere" in report.reason


def test_a_law_of_fixed_steps_needs_fresh_runs_of_several_lengths():
    def run(T, level):
        k = np.arange(T)
        norm = np.sqrt(level * (1.0 + 20.0 * (k == 0)))
        return {"iteration": k, "gradient_norm": norm, "distance": 0.0 * k}

    lengths = [1024, 2048, 4096, 8192]
    good = [run(T, T**-0.5) for T in lengths]
    assert lo.rates.check_trace(good, laws.OneOverSqrtT()).verdict is CONSISTENT
    bad = [run(T, 1.0) for T in lengths]
    assert lo.rates.check_trace(bad, laws.OneOverSqrtT()).verdict is REJECTED
    few = lo.rates.check_trace(good[:2], laws.OneOverSqrtT())
    assert few.verdict is INCONCLUSIVE
    assert "at least three lengths" in few.reason


# -- N ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("infeasibility", "expected", "words"),
    [
        (0.0, CONSISTENT, "on the manifold, to rounding"),
        (1e-31, CONSISTENT, "on the manifold, to rounding"),
        (0.9**t, CONSISTENT, "faster than promised"),
        (one_over_t**2, CONSISTENT, "as steep"),
        (1e-2, REJECTED, "do not come to the manifold"),
        (1e-6 * t, REJECTED, "do not come to the manifold"),
    ],
)
def test_verdicts_on_the_infeasibility(infeasibility, expected, words):
    report = lo.rates.check_trace(trace(0.99**t, infeasibility), laws.OneOverT())
    assert report["N"].verdict is expected
    assert report.verdict is expected
    assert words in report["N"].reason


# -- does f pay? ------------------------------------------------------------------------------


def paid_for(gradient, share, step=0.1, scale=1.0):
    """f that falls by this share of what its gradients amount to."""
    fall = np.concatenate([[0.0], np.cumsum(share * scale * step * gradient)[:-1]])
    return {"feasible_fun": 1e3 - fall, "step": np.full(T, step)}


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_share_that_f_pays_for(share):
    gradient = 1.0 + np.sin(t / 700.0)
    run = Observed.of(trace(gradient, **paid_for(gradient, share, scale=0.5)))
    # Averages at the ends stand for the values in their middles: to a few per cent.
    assert share_paid([run], Floors(0.0, 0.0, 0.0), 0.5) == pytest.approx(share, rel=0.05)


def test_slow_but_paid_for_is_undecided_and_unpaid_is_rejected():
    growing = 1e-4 * (1.0 + t / T) ** 3  # past a saddle
    slow = trace(growing, one_over_t**2, **paid_for(growing, 1.0))
    report = lo.rates.check_trace(slow, laws.OneOverT(), metric_scale=1.0)
    assert report.verdict is INCONCLUSIVE
    assert "still descending" in report.reason
    stuck = trace(growing, one_over_t**2, **paid_for(growing, 0.0))
    report = lo.rates.check_trace(stuck, laws.OneOverT(), metric_scale=1.0)
    assert report.verdict is REJECTED
    assert "f pays for 0%" in report.reason


def test_steep_but_unpaid_is_not_trusted():
    gradient = one_over_t**1.2
    report = lo.rates.check_trace(
        trace(gradient, **paid_for(gradient, 0.02)), laws.OneOverT(), metric_scale=1.0
    )
    assert report.verdict is INCONCLUSIVE
    assert "a plateau may lie ahead" in report.reason


def test_f_that_stays_above_its_minimum_is_told():
    report = lo.rates.check_trace(
        trace(0.99**t, feasible_fun=1.0 + 0.98**t), laws.OneOverT(), reference_value=0.5
    )
    assert report.verdict is CONSISTENT  # the theorem speaks of gradients
    assert "gradients that are not those of f" in report["f - f*"].reason
    assert not report["f - f*"].decides


# -- linear and quadratic ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "claimed", "expected"),
    [(0.98, 0.98, CONSISTENT), (0.98, 0.99, CONSISTENT), (0.98, 0.97, REJECTED), (0.99, 0.95, REJECTED)],
)  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
def test_linear_laws(factor, claimed, expected, known):
    values = factor**t + 0.1 * (0.5 * factor) ** t
    run = trace(values, feasible_fun=values)
    reference = 0.0 if known else None
    report = lo.rates.check_trace(run, laws.Linear(claimed), reference_value=reference)
    assert report.verdict is expected, report
    assert report.series[0].name == ("f - f*" if known else "||grad||^2")
    assert "per iteration" in report.reason


def test_quadratic_laws():
    def run(errors):
        return {"iteration": np.arange(len(errors)), "gradient_norm": np.array(errors)}

    law = laws.Quadratic()
    fast = lo.rates.check_trace(run([1, 0.3, 0.09, 0.0081, 6.6e-5, 4.3e-9, 1e-15]), law)
    assert fast.verdict is CONSISTENT
    assert "order 2.0" in fast.reason
    slow = lo.rates.check_trace(run([*0.05 ** np.arange(9.0), 1e-15]), law)
    assert slow.verdict is REJECTED
    assert lo.rates.check_trace(run([1, 0.5, 0.4]), law).verdict is INCONCLUSIVE
    assert lo.rates.check_trace(run(list(0.9 ** np.arange(100.0))), law).verdict is REJECTED


@pytest.mark.parametrize("level", [1e-4, 1e-8, 1e-15])
def test_a_plateau_behind_a_steep_fall_is_not_accepted(level):
    """The fall lies within the first mark, and makes the running mean a perfect 1/T."""
    early = level > 1e-6  # reached before the first mark
    report = lo.rates.check_trace(trace(0.99**t + level, 0.9**t), laws.OneOverT())
    assert report.verdict is (REJECTED if early else INCONCLUSIVE)
    report = lo.rates.check_trace(trace(0.99**t, 0.99**t + level), laws.OneOverT())
    assert report["N"].verdict is (REJECTED if early else INCONCLUSIVE)


@pytest.mark.parametrize(
    "gradient",
    [0.9**t + (t % 2 == 0), 0.99**t + (t % 1000 == 999), 0.3 ** (t % 128), 0.3 ** (t % 500)],
)
def test_what_comes_back_has_not_reached_rounding(gradient):
    assert verdict(laws.OneOverT(), gradient, 0.0) is not CONSISTENT


def test_two_rows_decide_nothing():
    two = {"iteration": [0, 8000], "gradient_norm": [1.0, 1e-20]}
    assert lo.rates.check_trace(two, laws.OneOverT()).verdict is INCONCLUSIVE


def test_a_floor_that_may_be_rounding_is_not_held_against_the_law():
    noise = np.random.default_rng(0).random(T)
    warm = trace((1e-2 * 0.9**t + 3e-13 * (1 + noise)) ** 2, 0.0)
    report = lo.rates.check_trace(warm, laws.OneOverT())
    assert report.verdict is INCONCLUSIVE
    assert "gradient_size" in report.reason
    assert lo.rates.check_trace(warm, laws.OneOverT(), gradient_size=1e3).verdict is CONSISTENT


@pytest.mark.parametrize("step", [1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("values", [True, False])
def test_small_steps_are_undecided(step, values):
    problem = lo.problems.Procrustes.random(5, rng=0)
    if not values:
        problem = lo.Objective(grad=problem.grad, shape=(5, 5))
    report = lo.rates.check(problem, lo.landing(step=step), rng=0)
    assert report.verdict is not REJECTED


# -- theorems -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "law", "proved"),
    [
        (lo.landing(step=0.1), laws.OneOverT(), True),
        (lo.landing(step=0.1, safe="exact"), laws.OneOverT(), True),
        (lo.landing(step=lo.steps.Decay(0.1, power=0.25)), laws.Sublinear(0.75), True),
        (lo.landing(), laws.OneOverT(), False),
        (lo.landing_lbfgs(), laws.OneOverT(), False),
        (lo.landing_newton(), laws.OneOverT(), False),
        (lo.pogo(0.1), laws.OneOverT(), False),
        (lo.landing(step=0.1, base=lo.estimators.Momentum(0.9)), laws.OneOverT(), False),
        (lo.landing(step=lo.steps.BarzilaiBorwein()), laws.OneOverT(), False),
        (lo.landing_sgd(0.1), laws.Bounded(), True),
        (lo.landing_sgd(lo.steps.Horizon(0.1, 100)), laws.OneOverSqrtT(), True),
        (lo.landing_sgd(), laws.LogOverSqrtT(), True),
        (lo.landing_sgd(lo.steps.Decay(0.1)), laws.LogOverSqrtT(), True),
        (lo.landing_saga(), laws.OneOverT(), True),
        (lo.landing_svrg(0.1), laws.OneOverT(), False),
        (lo.riemannian(step=0.1), laws.OneOverT(), True),
        (lo.riemannian(step=0.1, estimator=lo.estimators.Saga()), laws.OneOverT(), False),
        (lo.riemannian(step=0.1, estimator=lo.estimators.MiniBatch()), laws.Bounded(), False),
        (lo.pymanopt("ConjugateGradient"), laws.OneOverT(), False),
    ],
)  # fmt: skip
def test_the_law_of_a_method(method, law, proved):
    theorem = lo.rates.theorem_of(method)
    assert theorem.law == law
    assert bool(theorem.source) is proved
    assert ("no theorem; observed" in str(theorem)) is not proved


def test_a_horizon_is_set_for_each_length():
    method = lo.landing_sgd(lo.steps.Horizon(0.5, 100))
    assert with_horizon(method, 400).search.step.rule == lo.steps.Horizon(0.5, 400)
    assert method.search.step.rule.iterations == 100
    other = lo.landing_sgd(0.1)
    assert with_horizon(other, 400) is other


# -- unbiasedness, exactly ----------------------------------------------------------------------

SAMPLERS = [
    lo.samplers.WithReplacement(),
    lo.samplers.WithReplacement(contiguous=True),
    lo.samplers.Reshuffled(),
    lo.samplers.Reshuffled(contiguous=True),
]


def least_squares(n_terms=20, n=4, p=2, rng=0):
    rng = np.random.default_rng(rng)
    A, B = rng.standard_normal((n_terms, p, p)), rng.standard_normal((n_terms, n, p))

    def fun(x, terms):
        return 0.5 * float(np.mean(np.sum((x @ A[terms] - B[terms]) ** 2, axis=(1, 2))))

    def grad(x, terms):
        return np.mean((x @ A[terms] - B[terms]) @ A[terms].mT, axis=0)

    return lo.FiniteSum(fun, grad, n_terms=n_terms, shape=(n, p))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("batch", [1, 5, 6, 20])
@pytest.mark.parametrize("kind", ["sgd", "svrg"])
def test_estimates_are_found_unbiased(sampler, batch, kind):
    make = {"sgd": lo.landing_sgd, "svrg": lo.landing_svrg}[kind]
    found = lo.rates.check_unbiased(least_squares(), make(0.1, batch_size=batch, sampler=sampler))
    assert found.holds is True
    assert found.bias < 1e-13
    assert found.outcomes > 10 or batch == 20


@pytest.mark.parametrize("batch", [1, 5, 6])
@pytest.mark.parametrize("structured", [False, True])
def test_saga_is_found_unbiased(batch, structured):
    problem = lo.problems.ICA.random(3, 50, rng=0)
    method = lo.riemannian(step=0.1, estimator=lo.estimators.Saga(batch, structured=structured))
    assert lo.rates.check_unbiased(problem, method).holds is True


def test_loopless_and_momentum_are_looked_through():
    problem = least_squares()
    estimator = lo.estimators.Svrg(3, loopless=True)
    assert lo.rates.check_unbiased(problem, lo.riemannian(step=0.1, estimator=estimator)).holds
    assert lo.rates.check_unbiased(problem, lo.landing_sgd(0.1, momentum=0.9)).holds


def test_a_fixed_order_is_found_biased():
    method = lo.landing_sgd(0.1, batch_size=3, sampler=lo.samplers.Cyclic())
    found = lo.rates.check_unbiased(least_squares(), method)
    assert found.holds is False
    assert "biased: the mean estimate" in found.message


def test_draws_that_cannot_be_enumerated_are_said_to_be_unknown():
    class Odd:
        contiguous = False

        def start(self, n_terms, batch_size, rng, blocks=False):
            class Run:
                weight, block = 1.0, None

                def draw(self):
                    return np.array([int(rng.uniform(0, n_terms))])

            return Run()

    found = lo.rates.check_unbiased(least_squares(), lo.landing_sgd(0.1, sampler=Odd()))
    assert found.holds is None
    assert "uniform()" in found.message


# -- whole checks ---------------------------------------------------------------------------------


def test_gradient_descent_is_consistent_and_says_why():
    problem = lo.problems.Procrustes.random(6, rng=0)
    report = lo.rates.check(problem, lo.landing(step=procrustes_step(problem)), rng=0)
    assert report.verdict is CONSISTENT
    assert [s.name for s in report.series] == ["||grad||^2", "N", "f - f*"]
    text = str(report)
    for words in (
        "CONSISTENT with O(1/T)",
        "[AVGA24], gradient descent",
        "ok  the gradient against",
    ):
        assert words in text
    with pytest.raises(KeyError, match="no series 'x'"):
        report["x"]


def test_a_short_horizon_is_inconclusive():
    problem = lo.problems.Procrustes.random(6, rng=0)
    report = lo.rates.check(problem, lo.landing(step=0.001), horizon=64, rng=0)
    assert report.verdict is INCONCLUSIVE
    assert "too few" in report.reason


def test_a_step_that_breaks_the_run_is_rejected():
    problem = lo.problems.Procrustes.random(6, rng=0)
    method = lo.Method(search=lo.searches.OpenLoop(lo.steps.Constant(10.0)))
    report = lo.rates.check(problem, method, rng=0)
    assert report.verdict is REJECTED
    assert "the run broke at iteration" in report.reason


def test_without_values_the_gradient_is_said_to_be_unchecked():
    base = lo.problems.Procrustes.random(5, rng=0)
    problem = lo.Objective(grad=base.grad, shape=(5, 5))
    report = lo.rates.check(problem, lo.landing(step=procrustes_step(base)), rng=0)
    assert report.checks[0][0] is None
    assert "could not be checked" in report.checks[0][1]
    assert "NOT CHECKED" in report.reason
    assert report.verdict is CONSISTENT
    assert [s.name for s in report.series] == ["||grad||^2", "N"]


def test_what_check_refuses():
    problem = lo.problems.Procrustes.random(4, rng=0)
    with pytest.raises(ValueError, match="horizon must be"):
        lo.rates.check(problem, lo.landing(step=0.1), horizon=0)
    with pytest.raises(ValueError, match="a stack: check one of its problems"):
        lo.rates.check(lo.problems.Procrustes.random(4, stack=(3,), rng=0), lo.landing(step=0.1))
    stream = lo.Stream(None, lambda x, batch: batch, batches=[np.ones((4, 4))], shape=(4, 4))
    with pytest.raises(TypeError, match="a stream has no gradient norm"):
        lo.rates.check(stream, lo.landing_sgd(0.1))


def test_products_and_complex_problems_are_checked():
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((5, 3)), rng.standard_normal(2)
    problem = lo.Objective(
        lambda x: 0.5 * float(np.sum((x["W"] - A) ** 2) + np.sum((x["b"] - b) ** 2)),
        lambda x: {"W": x["W"] - A, "b": x["b"] - b},
        shape={"W": (5, 3), "b": (2,)},
        constraint={"W": lo.Stiefel(), "b": lo.Euclidean()},
    )
    assert lo.rates.check(problem, lo.landing(step=0.3), rng=0)
    problem = lo.problems.Procrustes.random(5, dtype=np.complex128, rng=0)
    assert lo.rates.check(problem, lo.landing(step=procrustes_step(problem)), rng=0)


def test_single_precision_has_its_own_floor():
    problem = lo.problems.Procrustes.random(5, dtype=np.float32, rng=0)
    report = lo.rates.check(problem, lo.landing(step=procrustes_step(problem)), rng=0)
    assert report.verdict is CONSISTENT
    assert "at rounding" in report["||grad||^2"].reason


def test_other_array_libraries_are_checked():
    torch = pytest.importorskip("torch")
    base = lo.problems.Procrustes.random(5, rng=0)
    problem = lo.problems.Procrustes(torch.asarray(base.A), torch.asarray(base.B))
    assert lo.rates.check(problem, lo.landing(step=procrustes_step(base)), rng=0)


def test_a_sum_whose_gradient_is_not_its_terms_is_rejected():
    base = least_squares()

    class Wrong(lo.FiniteSum):
        def grad(self, x):
            return 1.01 * super().grad(x)

        @property
        def fun(self):
            return None

    problem = Wrong(None, base.grad_terms, n_terms=base.n_terms, shape=base.shape)
    report = lo.rates.check(problem, lo.landing_sgd(0.05, batch_size=4), rng=0)
    assert report.verdict is REJECTED
    assert "grad differs from the mean of grad_terms" in report.reason


# -- the same rate ----------------------------------------------------------------------------


def test_landing_and_retraction_have_the_same_rate_once_the_scale_is_converted():
    problem = lo.problems.PCA.random(12, 3, rng=0)
    landing = lo.landing(step=0.3, tangent=lo.fields.Canonical())
    descent = lo.riemannian(step=0.15, tangent=lo.fields.Canonical(1.0))
    found = lo.rates.same_rate(problem, landing, descent, starts=4, rng=0)
    assert found.verdict is CONSISTENT
    assert found.low <= 1.001
    assert found.high >= 0.999
    assert "the same rate" in str(found)


def test_different_metrics_have_different_rates():
    problem = lo.problems.Procrustes(np.eye(3), lo.stiefel.random(6, 3, rng=1) * [3.0, 2.0, 1.0])
    euclidean = lo.riemannian(step=0.1)
    other = lo.riemannian(step=0.1, tangent=lo.fields.BetaMetric(4.0))
    found = lo.rates.same_rate(problem, other, euclidean, starts=4, rng=0)
    assert found.verdict is REJECTED
    assert not 0.98 <= found.ratio <= 1.02


def test_rates_that_cannot_be_compared():
    problem = lo.problems.PCA.random(12, 3, rng=0)
    slow = lo.landing(step=1e-4)
    found = lo.rates.same_rate(problem, slow, slow, starts=3, horizon=200, rng=0)
    assert found.verdict is INCONCLUSIVE
    assert math.isnan(found.ratio)
    assert "did not reach" in found.reason
    with pytest.raises(TypeError, match="at given steps"):
        lo.rates.same_rate(problem, lo.landing(), slow)
    with pytest.raises(TypeError, match="no step of its own yet"):
        lo.rates.same_rate(problem, lo.riemannian(), slow)
    with pytest.raises(ValueError, match="at least 3"):
        lo.rates.same_rate(problem, slow, slow, starts=2)
    with pytest.raises(ValueError, match="margin"):
        lo.rates.same_rate(problem, slow, slow, margin=2.0)
    with pytest.raises(ValueError, match="tol"):
        lo.rates.same_rate(problem, slow, slow, tol=0.5)


def test_marks_are_the_last_four_dyadic_ones():
    assert series.MARKS == 4
    report = lo.rates.check_trace(trace(one_over_t), laws.OneOverSqrtT())
    np.testing.assert_array_equal(report["||grad||^2"].horizons, [1024, 2048, 4096, 8192])
